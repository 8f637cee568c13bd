"""Finished shards of an unfinished recording in object storage, so that another machine can go on with it.

    PREFIX/unfinished/recordings/demo/
      begun.json           the settings that a resume must share
      files/<sha256>       a file of a finished shard, named by its content: two machines cannot spoil each other's
      shards/<settings>/00003.json   the shard's line of the log, written after its files; a hash of the settings

A recording is still made in a folder of this machine. `begin` makes folder and bucket equal: shards that only one of
them has are fetched or sent. `send` adds a shard. `Mirror.publish` copies the files, within the store, to where the
finished recording lies, and removes all this once the pointer is written.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from interp.artifacts import Draft
from interp.errors import CorruptError, MismatchError, MissingError
from interp.recording.recorded import ShardEntry
from interp.remote import Mirror, RemotePath, leaves_folder

_AT_ONCE = 8


class UnfinishedShards:
    """The shards of one draft in its bucket."""

    def __init__(self, draft: Draft, mirror: Mirror, key: str):
        from interp.storage import UNFINISHED

        self._draft, self._store, self._home = draft, mirror.store, f"{UNFINISHED}/{key}"
        settings = json.dumps(draft.identity, sort_keys=True).encode()
        self._lines = f"{self._home}/shards/{hashlib.sha256(settings).hexdigest()[:16]}"

    @classmethod
    def of(cls, draft: Draft) -> "UnfinishedShards | None":
        """Return those of a draft in object storage; None for one in a folder."""
        place = draft.folder.place() if isinstance(draft.folder, RemotePath) else None
        return cls(draft, place.mirror, place.key) if place else None

    def begin(self, local: Mapping[int, ShardEntry]) -> Iterator[ShardEntry]:
        """Send the shards that only this machine has, and yield those that only the bucket has, each once it is here.

        Raises `MismatchError` where an unfinished recording with other settings is there, unless the draft replaces
        what is there; `ResourceError` where the store fails.
        """
        stored, begun = self._store.listing(self._home), f"{self._home}/begun.json"
        if begun in stored and _read(self._store.read(begun)) != self._draft.identity:
            if not self._draft.replaces:
                if not self._draft.resumed:
                    self._draft.discard()
                raise MismatchError(
                    f"{self._store.url}/{self._home} holds an unfinished recording with other settings; repeat it with "
                    "those to resume, --overwrite to discard it, or choose another --name"
                )
            self._store.remove(list(stored))
            stored = {}
        if begun not in stored:
            self._store.write(begun, json.dumps(self._draft.identity).encode())
        for number in local:
            if self._line(number) not in stored:
                self.send(local[number])
        mine = {self._line(number) for number in local}
        lines = sorted(name for name in stored if name.startswith(f"{self._lines}/") and name not in mine)
        yield from (entry for name in lines if (entry := self._fetched(name)) is not None)

    def send(self, entry: ShardEntry) -> None:
        """Send the files of a shard, then its line. Raises `ResourceError`."""

        def upload(name: str) -> None:
            self._store.upload(self._draft.path / name, self._file(entry["files"][name]["sha256"]))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(upload, entry["files"]))
        self._store.write(self._line(entry["shard"]), json.dumps(entry).encode())

    def _line(self, number: int) -> str:
        return f"{self._lines}/{number:05d}.json"

    def _file(self, sha256: str) -> str:
        return f"{self._home}/files/{sha256}"

    def _fetched(self, line: str) -> ShardEntry | None:
        """Return the entry of a shard once its files are here; None where one is lost or damaged."""
        with contextlib.suppress(MissingError, CorruptError, KeyError, TypeError, AttributeError):
            entry = cast("ShardEntry", _read(self._store.read(line)))
            if self._line(entry["shard"]) == line and not any(map(leaves_folder, entry["files"])):
                with ThreadPoolExecutor(_AT_ONCE) as pool:
                    list(pool.map(lambda name: self._fetch(name, **entry["files"][name]), entry["files"]))
                return entry
        return None

    def _fetch(self, relative: str, *, sha256: str, bytes: int) -> None:
        path = self._draft.path / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        self._store.download(self._file(sha256), path, bytes, sha256)


def _read(data: bytes) -> object:
    """Return what an object holds; None where it was cut short."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(data)
    return None
