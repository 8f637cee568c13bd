"""Documents of any text source, the same ones in the same order every time.

| spec | documents |
|---|---|
| `docstrings` | prose of the installed packages' docstrings (offline default); label: the package |
| `PATH.txt` | paragraphs grouped to about 2,000 characters; label: the file |
| `PATH.jsonl`, `PATH.parquet` | one a row: column `text`, and `id` and `label` where there are such columns |
| `PATH.jsonl?column=NAME` | the same, from another column: a text, or a conversation |
| `FOLDER` | every .txt file in it, as above |
| `hub:NAME[:CONFIG][:SPLIT]` | a hub data set, streamed (only documents that are read are downloaded); split `train`
by default; `?column=NAME` as above |

**Files** are read as a stream. A text file is cut at blank lines into paragraphs, and paragraphs are grouped in order
until a document has `TXT_DOCUMENT_CHARS` characters: most paragraphs are too short to fill a context.

**Docstrings** are real English without a network. Source files are read with `ast`; nothing is imported. A document is
one module, cut at paragraphs into parts of about `PROSE_DOCUMENT_CHARS`. Modules come in a seeded order and are read
only when they are reached, so any prefix is a mix of packages and costs only its own reading. Paragraphs are included
when they have at least `MIN_PROSE_CHARS` characters and two sentences of prose. Excluded are code, parameter lists,
tables, repeated paragraphs, tests, and packages whose docstrings are generated from templates.

**Rows** of a table are documents: the text of its column, or a conversation through a chat template. A conversation is
a list of messages, `{"role": "user", "content": "..."}` each, or `{"from": "human", "value": "..."}`.

Words that come in an order (days, months, numbers) stand here too. Torch-free.
"""

import ast
import csv
import hashlib
import json
import os
import re
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from random import Random
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies

from interp.artifacts import sha256_file, table_errors
from interp.errors import ConfigError, CorruptError, MissingError, UnknownNameError
from interp.seeds import derive_seed

TEXT = "text"
COLUMN = "?column="
"""Separator of file or data set and column in the spec of a corpus."""
_FORMS = (("role", "content"), ("from", "value"))
_ROLES = {"human": "user", "gpt": "assistant"}

Message = dict[str, str]
ChatTemplate = Callable[[list[Message]], str]


class Document(NamedTuple):
    """One text, with its source."""

    text: str
    id: str
    """names the document within its corpus, for a person: `numpy.linalg.norm`, `notes.txt#3`"""
    label: str
    """a free group label: the package, the file, the column `label`; empty when there is none"""


@dataclass(frozen=True)
class TextColumn:
    """The column of the texts, and the template that makes a conversation a text."""

    name: str = TEXT
    template: ChatTemplate | None = None

    def require(self, columns: Sequence[str], where: str) -> None:
        """Raise `ConfigError` listing the columns when the one that is read is not among them."""
        if self.name not in columns:
            names = ", ".join(map(str, columns)) or "none"
            raise ConfigError(
                f"{where} has no column `{self.name}` (columns: {names}); name the one that holds the text with "
                f"--column, or behind the file: FILE{COLUMN}NAME"
            )

    def document(self, row: Mapping[str, object], where: str, default_id: str, default_label: str) -> Document:
        """Return the document of a row; `id` and `label` are taken from it where it has them."""
        self.require(list(row), where)
        value, label = row[self.name], row.get("label")
        text = self._conversation(value, where) if isinstance(value, list) else value
        if not isinstance(text, str):
            raise ConfigError(
                f"{where}: column `{self.name}` holds {type(value).__name__}, expected a text or a list of messages"
            )
        return Document(text, str(row.get("id") or default_id), default_label if label is None else str(label))

    def _conversation(self, value: list[object], where: str) -> str:
        if self.template is None:
            raise ConfigError(f"{where}: column `{self.name}` holds conversations, which only `record` and `own` read")
        return self.template([_message(message, f"{where}: column `{self.name}`") for message in value])


def _message(entry: object, where: str) -> Message:
    for form in _FORMS:
        role, content = (entry.get(key) for key in form) if isinstance(entry, dict) else (None, None)
        if isinstance(role, str) and isinstance(content, str):
            return {"role": _ROLES.get(role, role), "content": content}
    raise ConfigError(
        f'{where} holds a list whose entries are not messages, expected {{"role": "user", "content": "..."}}'
    )


def split_column(spec: str) -> tuple[str, str]:
    """Return the file or data set that a spec names, and the column.

    >>> split_column("pages.jsonl?column=body")
    ('pages.jsonl', 'body')
    """
    source, mark, column = spec.rpartition(COLUMN)
    return (source, column) if mark else (spec, TEXT)


WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
NUMBER_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
CYCLIC = (WEEKDAYS, MONTHS)
"""Orders whose first word follows the last."""


TXT_DOCUMENT_CHARS = 2000


def check_files(path: Path) -> None:
    """Raise `MissingError` when there is nothing to read at `path`."""
    if not path.exists():
        raise MissingError(f"no corpus file at {path}")
    if not _members(path):
        raise MissingError(f"{path} holds no .txt files; give a .txt, .jsonl or .parquet file")


def read_files(path: Path, column: TextColumn) -> Iterator[Document]:
    """Yield every document of a file, or of the .txt files of a folder in name order."""
    for member in _members(path):
        yield from READERS[member.suffix](member, column)


def fingerprint_files(path: Path) -> str:
    """Return the sha256 over names and contents of the files."""
    digest = hashlib.sha256(f"chars={TXT_DOCUMENT_CHARS}\n".encode())
    for member in _members(path):
        digest.update(f"{member.name}\0{sha256_file(member)}\n".encode())
    return digest.hexdigest()


def _members(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(member for member in path.rglob("*.txt") if member.is_file())


def _read_txt(path: Path, column: TextColumn) -> Iterator[Document]:
    if column.name != TEXT:
        raise ConfigError(f"{path} is plain text and has no column `{column.name}`; leave the column out")
    number, parts, size = 0, [], 0
    for paragraph in _paragraphs(path):
        parts.append(paragraph)
        size += len(paragraph)
        if size >= TXT_DOCUMENT_CHARS:
            yield Document("\n\n".join(parts), f"{path.name}#{number}", path.stem)
            number, parts, size = number + 1, [], 0
    if parts:
        yield Document("\n\n".join(parts), f"{path.name}#{number}", path.stem)


def _paragraphs(path: Path) -> Iterator[str]:
    lines: list[str] = []
    for _, line in _lines(path):
        if line.strip():
            lines.append(line.rstrip())
        elif lines:
            yield "\n".join(lines)
            lines = []
    if lines:
        yield "\n".join(lines)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text). Raises `CorruptError` naming the line that is not UTF-8."""
    with open(path, "rb") as handle:
        for number, raw in enumerate(handle, start=1):
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise CorruptError(
                    f"{path} line {number} is not UTF-8 (byte {error.object[error.start]:#04x}); "
                    "convert it, for example with `iconv -t utf-8`"
                ) from None


def _read_jsonl(path: Path, column: TextColumn) -> Iterator[Document]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CorruptError(
                f"{path} line {number} is not JSON ({error.msg}); one object a line is expected"
            ) from None
        if not isinstance(row, dict):
            raise CorruptError(f"{path} line {number} is a {type(row).__name__}; one object a line is expected")
        yield column.document(row, f"{path} line {number}", f"{path.name}#{number - 1}", path.stem)


def _read_parquet(path: Path, column: TextColumn) -> Iterator[Document]:
    import pyarrow.parquet as pq

    with table_errors(path, "write or copy the file again"), pq.ParquetFile(path) as file:
        columns = [name for name in (column.name, "id", "label") if name in file.schema_arrow.names]
        column.require(file.schema_arrow.names, str(path))
        number = 0
        for batch in file.iter_batches(1024, columns=columns):
            for row in batch.to_pylist():
                yield column.document(row, f"{path} row {number}", f"{path.name}#{number}", path.stem)
                number += 1


READERS = {".txt": _read_txt, ".jsonl": _read_jsonl, ".parquet": _read_parquet}


MIN_PROSE_CHARS = 150
PROSE_DOCUMENT_CHARS = 4000
MIN_FILE_BYTES = 2000
# Generated docstrings (one sentence filled in thousands of times), and our own words.
PACKAGES_LEFT_OUT = {"plotly", "dash", "dash-ag-grid", "dash-mantine-components", "interp-workbench"}

Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
_NOT_PROSE = re.compile(
    r">>>|\.\. |::|```|\|.*\||[+=~-]{4,}|^\s*(Args|Parameters|Returns|Raises|Examples?|Attributes|Yields|Notes?):?\s*$"
    r"|^\s*[`*]*[\w.*, ]{1,40}[`*]* ?(\([^)]*\))? ?:(?=\s)|^\s*:\w+|\\[a-z]+\{|https?://|[{}<>=\[\]]{2,}",
    re.MULTILINE,
)
_NOT_WORDS = re.compile(r"[^A-Za-z ,.'()-]")


class SourceModule(NamedTuple):
    """One source file of an installed package."""

    package: str
    path: Path
    name: str
    recorded_hash: str
    """from the package's own record of its files"""


def read_docstrings(seed: int) -> Iterator[Document]:
    """Yield every document, in the order of the seed."""
    seen: set[int] = set()
    for module in source_modules(seed):
        for number, text in enumerate(_prose_documents(_fresh(prose_of(module.path), seen))):
            yield Document(text, f"{module.name}#{number}" if number else module.name, module.package)


def source_modules(seed: int) -> list[SourceModule]:
    """Return the source files to read, in the order of the seed."""
    modules = sorted(_installed_modules(), key=lambda module: (module.package, module.name, str(module.path)))
    if not modules:
        raise MissingError("no installed package has readable docstrings; use a .txt, .jsonl or .parquet file")
    Random(derive_seed(seed, "docstrings")).shuffle(modules)
    return modules


def fingerprint_docstrings(seed: int) -> str:
    """Return the sha256 over order and content of the source files, as stated by the packages' own records."""
    digest = hashlib.sha256(f"{MIN_PROSE_CHARS} {PROSE_DOCUMENT_CHARS} {_NOT_PROSE.pattern}\n".encode())
    for module in source_modules(seed):
        digest.update(f"{module.package} {module.name} {module.recorded_hash}\n".encode())
    return digest.hexdigest()


def prose_of(path: Path) -> Iterator[str]:
    """Yield the prose paragraphs of a source file's docstrings, each on one line."""
    try:
        source = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escapes
            tree = ast.parse(source)
    except (OSError, SyntaxError, UnicodeDecodeError, ValueError, RecursionError):
        return  # a template, a Python 2 file or another encoding: no prose for us
    for node in (tree, *_documented(tree.body)):
        for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
            if is_prose(paragraph):
                yield " ".join(paragraph.split())


def _documented(body: list[ast.stmt]) -> Iterator[Documented]:
    """Yield classes, methods and functions in source order; nested functions are skipped, which halves the time."""
    for node in body:
        if isinstance(node, Documented):
            yield node
        if isinstance(node, ast.ClassDef | ast.If | ast.Try | ast.With):
            for part in ("body", "orelse", "finalbody"):
                yield from _documented(getattr(node, part, []))


def is_prose(paragraph: str) -> bool:
    """Return whether a paragraph consists of sentences rather than code, a list or a table."""
    if len(paragraph) < MIN_PROSE_CHARS or _NOT_PROSE.search(paragraph):
        return False
    if len(_SENTENCE_END.findall(paragraph)) < 2:
        return False
    return len(_NOT_WORDS.findall(" ".join(paragraph.split()))) < 0.06 * len(paragraph)


def _installed_modules() -> Iterator[SourceModule]:
    for distribution in metadata.distributions():
        package = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if package in PACKAGES_LEFT_OUT:
            continue
        root = Path(str(distribution.locate_file("")))
        # read as text: metadata's own file objects take ten times as long
        for path, recorded_hash, size in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
            parts = path.removesuffix(".py").split("/")
            if path.endswith(".py") and recorded_hash and int(size or 0) >= MIN_FILE_BYTES and not _is_test(parts):
                yield SourceModule(package, root / path, ".".join(parts).removesuffix(".__init__"), recorded_hash)


def _is_test(parts: list[str]) -> bool:
    return any(part in ("tests", "test", "testing", "_vendor", "..") or part.startswith("test_") for part in parts)


def _fresh(paragraphs: Iterator[str], seen: set[int]) -> Iterator[str]:
    """Yield paragraphs not seen before, by a hash that is the same in every process."""
    for paragraph in paragraphs:
        key = int.from_bytes(hashlib.blake2b(paragraph.encode(), digest_size=8).digest(), "little")
        if key not in seen:
            seen.add(key)
            yield paragraph


def _prose_documents(paragraphs: Iterator[str]) -> Iterator[str]:
    parts: list[str] = []
    for paragraph in paragraphs:
        parts.append(paragraph)
        if sum(map(len, parts)) >= PROSE_DOCUMENT_CHARS:
            yield "\n\n".join(parts)
            parts = []
    if parts:
        yield "\n\n".join(parts)


@dataclass(frozen=True)
class HubSource:
    """A data set, its configuration, and its split."""

    name: str
    config: str | None = None
    split: str = "train"

    def __str__(self) -> str:
        return ":".join(part for part in ("hub", self.name, self.config, self.split) if part)


def parse_hub(spec: str) -> HubSource:
    """Parse `"hub:owner/name:config:split"`; a single part after the name is the configuration."""
    name, *rest = spec.removeprefix("hub:").split(":")
    if not name or len(rest) > 2 or not all(rest):
        raise ConfigError(f"a hub corpus is written hub:NAME[:CONFIG][:SPLIT], got {spec!r}")
    return HubSource(name, *rest)


def read_hub(source: HubSource, column: TextColumn) -> Iterator[Document]:
    """Yield every document. Raises `MissingError` when the hub or the data set cannot be reached."""
    if not hub_reachable():
        raise MissingError(
            f"{source} needs the hub, which cannot be reached; connect to the network, or use a .txt, .jsonl or "
            ".parquet file, or the corpus docstrings"
        )
    import datasets

    try:
        rows = iter(datasets.load_dataset(source.name, source.config, split=source.split, streaming=True))
    except Exception as error:  # datasets raises many unrelated types; each becomes one line
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise MissingError(f"{source} cannot be opened ({reason}); check name, configuration and split") from error
    for number, row in enumerate(rows):
        yield column.document(dict(row), f"{source} row {number}", f"{source.name}#{number}", source.name)


def fingerprint_hub(source: HubSource) -> str:
    """Return the sha256 of the spec: a stream cannot be hashed without reading all of it."""
    return hashlib.sha256(str(source).encode()).hexdigest()


def hub_reachable() -> bool:
    """Return whether the hub's name resolves (or a proxy will resolve it); takes milliseconds and sends no request."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    if getproxies().get("https"):
        return True
    host = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co").hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


KNOWN = ("docstrings", "PATH.txt", "PATH.jsonl", "PATH.parquet", "FOLDER", "hub:NAME[:CONFIG][:SPLIT]")


class Corpus:
    """Documents that can be iterated repeatedly."""

    def __init__(self, spec: str, read: Callable[[], Iterator[Document]], fingerprint: Callable[[], str]):
        self.spec = spec
        self._read = read
        self._fingerprint = fingerprint

    def __repr__(self) -> str:
        return f"Corpus({self.spec!r})"

    def __iter__(self) -> Iterator[Document]:
        """Yield every document in order. Raises `MissingError` when there is none."""
        empty = True
        for document in self._read():
            if document.text.strip():
                empty = False
                yield document
        if empty:
            raise MissingError(f"the corpus {self.spec} holds no text; check the file, or use --corpus docstrings")

    @cached_property
    def hash(self) -> str:
        """Return a sha256 that changes when the documents or their order may have changed."""
        return self._fingerprint()


def open_corpus(spec: str, *, seed: int = 0, template: ChatTemplate | None = None) -> Corpus:
    """Open the corpus that a spec names. Reading it may raise `CorruptError` and `ConfigError`.

    Args:
        spec: `docstrings`, a folder or a file; the module lists the forms.
        seed: orders the docstrings; other sources have a fixed order.
        template: of a model: makes text of conversations (`interp.models.loading.chat_template`).
    Returns: a corpus, which yields documents.
    Raises:
        UnknownNameError: a spec of no known form.
        MissingError: a file that is not there.
        CorruptError: invalid UTF-8 or broken JSON, on reading.
        ConfigError: no such column (lists the columns), on reading.

    >>> _ = (folder / "notes.txt").write_text("A first paragraph.")
    >>> [document.text for document in open_corpus(str(folder / "notes.txt"))]
    ['A first paragraph.']
    """
    if spec == "docstrings":
        return Corpus(spec, lambda: read_docstrings(seed), lambda: fingerprint_docstrings(seed))
    name, column = split_column(spec)
    texts = TextColumn(column, template)
    if name.startswith("hub:"):
        source = parse_hub(name)
        return Corpus(spec, lambda: read_hub(source, texts), lambda: _fingerprint(fingerprint_hub(source), column))
    path = Path(name).expanduser()
    if path.is_dir() or path.suffix in READERS:
        check_files(path)
        return Corpus(spec, lambda: read_files(path, texts), lambda: _fingerprint(fingerprint_files(path), column))
    if path.exists():
        raise UnknownNameError("corpus file type", path.suffix or path.name, [".txt", ".jsonl", ".parquet"])
    raise UnknownNameError("corpus", spec, KNOWN)


def _fingerprint(source: str, column: str) -> str:
    """Return the hash of a source that is read from a column."""
    return source if column == TEXT else hashlib.sha256(f"{source}{COLUMN}{column}".encode()).hexdigest()


def with_column(spec: str, column: str | None) -> str:
    """Return the spec of a corpus that is read from another column. Raises `ConfigError` for docstrings."""
    if column is None:
        return spec
    if spec == "docstrings" or COLUMN in spec:
        raise ConfigError(f"--column names a column of a .jsonl or .parquet file or a data set, not of {spec}")
    return f"{spec}{COLUMN}{column}"


def corpus_hash(corpus: Corpus) -> str:
    """Return the hash of the text that a recording stores."""
    return corpus.hash
