"""Any text source -> documents: the same ones in the same order every time.

| spec | documents |
|---|---|
| `docstrings` | prose of the installed packages' docstrings (offline default); label: the package |
| `PATH.txt` | paragraphs grouped to about 2,000 characters; label: the file |
| `PATH.jsonl`, `PATH.parquet` | one a row: column `text`, and `id` and `label` where there are such columns |
| `FOLDER` | every .txt file in it, as above |
| `hub:NAME[:CONFIG][:SPLIT]` | a hub data set, streamed; split `train` unless told otherwise |
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

from interp.errors import MissingError, UnknownNameError
from interp.text import docstrings, files, hub
from interp.text.documents import Document

KNOWN = ("docstrings", "PATH.txt", "PATH.jsonl", "PATH.parquet", "FOLDER", "hub:NAME[:CONFIG][:SPLIT]")


class Corpus:
    """Documents that can be iterated again and again."""

    def __init__(self, spec: str, read: Callable[[], Iterator[Document]], fingerprint: Callable[[], str]):
        self.spec = spec
        self._read = read
        self._fingerprint = fingerprint

    def __repr__(self) -> str:
        return f"Corpus({self.spec!r})"

    def __iter__(self) -> Iterator[Document]:
        """Every document in order. Raises `MissingError` when there is none."""
        empty = True
        for document in self._read():
            if document.text.strip():
                empty = False
                yield document
        if empty:
            raise MissingError(f"the corpus {self.spec} holds no text; check the file, or use --corpus docstrings")

    @cached_property
    def hash(self) -> str:
        """sha256 that changes when the documents or their order may have changed."""
        return self._fingerprint()


def open_corpus(spec: str, *, seed: int = 0) -> Corpus:
    """The corpus that a spec names; `seed` orders the docstrings, the other sources keep their own order.

    Raises `UnknownNameError` for a spec of no known form, `MissingError` for a file that is not there. Reading may
    raise `CorruptError` (invalid UTF-8, broken JSON) and `ConfigError` (no text column; lists the columns).
    """
    if spec == "docstrings":
        return Corpus(spec, lambda: docstrings.read(seed), lambda: docstrings.fingerprint(seed))
    if spec.startswith("hub:"):
        source = hub.parse(spec)
        return Corpus(spec, lambda: hub.read(source), lambda: hub.fingerprint(source))
    path = Path(spec).expanduser()
    if path.is_dir() or path.suffix in files.READERS:
        files.check(path)
        return Corpus(spec, lambda: files.read(path), lambda: files.fingerprint(path))
    if path.exists():
        raise UnknownNameError("corpus file type", path.suffix or path.name, [".txt", ".jsonl", ".parquet"])
    raise UnknownNameError("corpus", spec, KNOWN)


def corpus_hash(corpus: Corpus) -> str:
    """The hash that a recording keeps of its text."""
    return corpus.hash
