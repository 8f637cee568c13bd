"""Finished shards of an unfinished recording in object storage, so that another machine can go on with it.

    PREFIX/unfinished/recordings/demo/
      begun.json           the settings that a resume must share
      files/<sha256>       a file of a finished shard, named by its content: two machines cannot spoil each other's
      shards/00003.json    the shard's line of the log, written after its files

A recording is still made in a folder of this machine. `begin` makes folder and bucket equal: shards that only one of
them has are fetched or sent. `send` adds a shard. `Mirror.publish` copies the files, within the store, to where the
finished recording lies, and removes all this once the pointer is written.
"""

import contextlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from interp.artifacts import Draft
from interp.errors import CorruptError, MismatchError, MissingError
from interp.recording.recorded import ShardEntry
from interp.remote import Mirror, RemotePath, leaves_folder

BEGUN, SHARDS = "begun.json", "shards"
_AT_ONCE = 8


class UnfinishedShards:
    """The shards of one draft in its bucket."""

    def __init__(self, draft: Draft, mirror: Mirror, key: str):
        self._draft, self._store = draft, mirror.store
        self._home, self._files = mirror.unfinished(key)
        self._address = f"{mirror.url}/{self._home}"

    @classmethod
    def of(cls, draft: Draft) -> "UnfinishedShards | None":
        """Return those of a draft in object storage; None for one in a folder."""
        place = draft.folder.place() if isinstance(draft.folder, RemotePath) else None
        return cls(draft, place.mirror, place.key) if place else None

    def begin(self, here: Mapping[int, ShardEntry]) -> list[ShardEntry]:
        """Send the shards that only this machine has, and return those that only the bucket has, fetched.

        Raises `MismatchError` where an unfinished recording with other settings is there, unless the draft replaces
        what is there; `ResourceError` where the store fails.
        """
        there, begun = self._store.listing(self._home), f"{self._home}/{BEGUN}"
        if begun in there and _read(self._store.read(begun)) != self._draft.identity:
            if not self._draft.replaces:
                raise MismatchError(
                    f"{self._address} holds an unfinished recording with other settings; repeat it with those to "
                    "resume, --overwrite to discard it, or choose another --name"
                )
            self._store.remove(list(there))
            there = {}
        if begun not in there:
            self._store.write(begun, json.dumps(self._draft.identity).encode())
        for number in here:
            if self._line(number) not in there:
                self.send(here[number])
        lines = sorted({name for name in there if name.startswith(f"{self._home}/{SHARDS}/")})
        mine = {self._line(number) for number in here}
        return [entry for name in lines if name not in mine and (entry := self._fetched(name)) is not None]

    def send(self, entry: ShardEntry) -> None:
        """Send the files of a shard, then its line. Raises `ResourceError`."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            sent = pool.map(
                lambda item: self._store.upload(self._draft.path / item[0], self._files + item[1]["sha256"]),
                entry["files"].items(),
            )
            list(sent)
        self._store.write(self._line(entry["shard"]), json.dumps(entry).encode())

    def _line(self, number: int) -> str:
        return f"{self._home}/{SHARDS}/{number:05d}.json"

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
        self._store.download(self._files + sha256, path, bytes, sha256)


def _read(data: bytes) -> object:
    """Return what an object holds; None where it was cut short."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(data)
    return None
