"""Documents of any text source, the same ones in the same order every time.

| spec | documents |
|---|---|
| `docstrings` | prose of the installed packages' docstrings (offline default); label: the package |
| `PATH.txt` | paragraphs grouped to about 2,000 characters; label: the file |
| `PATH.jsonl`, `PATH.parquet` | one a row: column `text`, and `id` and `label` where there are such columns |
| `FOLDER` | every .txt file in it, as above |
| `hub:NAME[:CONFIG][:SPLIT]` | a hub data set, streamed (only documents that are read are downloaded); split `train`
by default |
"""

import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from interp.errors import ConfigError, MissingError, UnknownNameError
from interp.text import docstrings, files
from interp.text.files import Document, document_of


@dataclass(frozen=True)
class HubSource:
    """A data set, its configuration, and its split."""

    name: str
    config: str | None = None
    split: str = "train"

    def __str__(self) -> str:
        return ":".join(part for part in ("hub", self.name, self.config, self.split) if part)


def parse(spec: str) -> HubSource:
    """Parse `"hub:owner/name:config:split"`; a single part after the name is the configuration."""
    name, *rest = spec.removeprefix("hub:").split(":")
    if not name or len(rest) > 2 or not all(rest):
        raise ConfigError(f"a hub corpus is written hub:NAME[:CONFIG][:SPLIT], got {spec!r}")
    return HubSource(name, *rest)


def read(source: HubSource) -> Iterator[Document]:
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
        yield document_of(dict(row), f"{source} row {number}", f"{source.name}#{number}", source.name)


def fingerprint(source: HubSource) -> str:
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


def open_corpus(spec: str, *, seed: int = 0) -> Corpus:
    """Open the corpus that a spec names; `seed` orders the docstrings, other sources have a fixed order.

    Raises `UnknownNameError` for a spec of no known form, `MissingError` for a file that is not there. Reading may
    raise `CorruptError` (invalid UTF-8, broken JSON) and `ConfigError` (no text column; lists the columns).
    """
    if spec == "docstrings":
        return Corpus(spec, lambda: docstrings.read(seed), lambda: docstrings.fingerprint(seed))
    if spec.startswith("hub:"):
        source = parse(spec)
        return Corpus(spec, lambda: read(source), lambda: fingerprint(source))
    path = Path(spec).expanduser()
    if path.is_dir() or path.suffix in files.READERS:
        files.check(path)
        return Corpus(spec, lambda: files.read(path), lambda: files.fingerprint(path))
    if path.exists():
        raise UnknownNameError("corpus file type", path.suffix or path.name, [".txt", ".jsonl", ".parquet"])
    raise UnknownNameError("corpus", spec, KNOWN)


def corpus_hash(corpus: Corpus) -> str:
    """Return the hash of the text that a recording stores."""
    return corpus.hash
