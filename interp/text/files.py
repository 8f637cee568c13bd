"""Documents from .txt, .jsonl and .parquet files, read as a stream.

A text file is cut at blank lines into paragraphs, and paragraphs are grouped in order until a document has
`TXT_DOCUMENT_CHARS` characters: most paragraphs are too short to fill a context. Torch-free.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from interp.artifacts import sha256_file
from interp.errors import ConfigError, CorruptError, MissingError


class Document(NamedTuple):
    """One text, with its source."""

    text: str
    id: str
    """names the document within its corpus, for a person: `numpy.linalg.norm`, `notes.txt#3`"""
    label: str
    """a free group label: the package, the file, the column `label`; empty when there is none"""


TXT_DOCUMENT_CHARS = 2000


def check(path: Path) -> None:
    """Raise `MissingError` when there is nothing to read at `path`."""
    if not path.exists():
        raise MissingError(f"no corpus file at {path}")
    if not _members(path):
        raise MissingError(f"{path} holds no .txt files; give a .txt, .jsonl or .parquet file")


def read(path: Path) -> Iterator[Document]:
    """Yield every document of a file, or of the .txt files of a folder in name order."""
    for member in _members(path):
        yield from READERS[member.suffix](member)


def fingerprint(path: Path) -> str:
    """Return the sha256 over names and contents of the files."""
    digest = hashlib.sha256(f"chars={TXT_DOCUMENT_CHARS}\n".encode())
    for member in _members(path):
        digest.update(f"{member.name}\0{sha256_file(member)}\n".encode())
    return digest.hexdigest()


def _members(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(member for member in path.rglob("*.txt") if member.is_file())


def _read_txt(path: Path) -> Iterator[Document]:
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


def _read_jsonl(path: Path) -> Iterator[Document]:
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
        yield document_of(row, f"{path} line {number}", f"{path.name}#{number - 1}", path.stem)


def _read_parquet(path: Path) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = [name for name in ("text", "id", "label") if name in file.schema_arrow.names]
            require_text(file.schema_arrow.names, str(path))
            number = 0
            for batch in file.iter_batches(1024, columns=columns):
                for row in batch.to_pylist():
                    yield document_of(row, f"{path} row {number}", f"{path.name}#{number}", path.stem)
                    number += 1
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptError(f"{path} is not a whole parquet file ({str(error).splitlines()[0]})") from None


def document_of(row: dict[str, Any], where: str, default_id: str, default_label: str) -> Document:
    """Build a document from a row with `text`, and `id` and `label` where it has them."""
    require_text(list(row), where)
    text, label = row["text"], row.get("label")
    if not isinstance(text, str):
        raise ConfigError(f"{where}: column `text` holds {type(text).__name__}, text was expected")
    return Document(text, str(row.get("id") or default_id), default_label if label is None else str(label))


def require_text(columns: list[str], where: str) -> None:
    """Raise `ConfigError` listing the columns when `text` is not among them."""
    if "text" not in columns:
        found = ", ".join(map(str, columns)) or "none"
        raise ConfigError(f"{where} has no column `text` (columns: {found}); rename the column that holds the text")


READERS = {".txt": _read_txt, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
