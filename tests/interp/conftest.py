"""A workspace in a bucket, of a server that starts with the first test that asks for it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from interp import remote
from interp.workspace import Workspace

if TYPE_CHECKING:
    from s3_server import Server


@pytest.fixture(scope="module")
def server() -> "Iterator[Server]":
    """Return an S3 server with one empty bucket."""
    from s3_server import running  # takes a second, and only these tests need it

    with running() as found:
        yield found


@pytest.fixture
def bucket(server: "Server", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Return an empty workspace in the bucket, seen from a machine with an empty cache."""
    from s3_server import BUCKET, new_machine

    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    remote.MIRRORS.clear()
    mirror = new_machine(tmp_path / "cache")
    mirror.store.remove(list(mirror.store.listing("")))
    server.faults.clear()
    server.log.clear()
    return Workspace(BUCKET, create=True)
