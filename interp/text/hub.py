"""Documents of a hub data set, streamed: nothing is downloaded that is not read."""

import hashlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies

from interp.errors import ConfigError, MissingError
from interp.text.documents import Document
from interp.text.files import document_of


@dataclass(frozen=True)
class HubSource:
    """Which data set, which configuration of it, which split."""

    name: str
    config: str | None = None
    split: str = "train"

    def __str__(self) -> str:
        return ":".join(part for part in ("hub", self.name, self.config, self.split) if part)


def parse(spec: str) -> HubSource:
    """`"hub:owner/name:config:split"`; with one part after the name, it is the configuration."""
    name, *rest = spec.removeprefix("hub:").split(":")
    if not name or len(rest) > 2 or not all(rest):
        raise ConfigError(f"a hub corpus is written hub:NAME[:CONFIG][:SPLIT], got {spec!r}")
    return HubSource(name, *rest)


def read(source: HubSource) -> Iterator[Document]:
    """Every document. Raises `MissingError` when the hub or the data set cannot be reached."""
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
    """sha256 of the spec: a stream cannot be hashed without reading all of it."""
    return hashlib.sha256(str(source).encode()).hexdigest()


def hub_reachable() -> bool:
    """Whether the hub's name resolves (or a proxy will resolve it): an answer in milliseconds, without a request."""
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
