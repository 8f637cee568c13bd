"""A workspace in object storage, seen as a folder: paths whose files are fetched when they are opened. Torch-free.

    ~/.cache/interp-workbench/remote/<hash of the URL>/
      versions/<id>/saes/demo/     the files fetched so far of one version of an artefact; a version never changes
      work/saes/demo.partial/      an artefact being written; `publish` uploads it when it is finished

`Mirror.folder` returns a `RemotePath`, which is a `Path`. Its files and folders are those of the manifest, and whatever
opens one (`open`, pyarrow, safetensors) asks for its name by `os.fspath`, which fetches it first and checks its hash.
So a reader needs no second way of reading. `RemotePath(other)` and not `Path(other)` copies one (`as_path`), and `str`
fetches nothing. `in_place` gives the address under which DuckDB reads a large table without fetching the whole.

The cache of all workspaces together keeps `$INTERP_CACHE_GB` gigabytes (20 by default), those used last.
"""

import contextlib
import fnmatch
import json
import os
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Collection, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from interp.cache import FileCache, cache_folder
from interp.errors import ConfigError, CorruptError, MissingError, ResourceError

if TYPE_CHECKING:
    from interp.storage import InPlace, Pointer

MANIFEST = "manifest.json"
FRESH = 2.0
"""Seconds for which a listing of the store counts as current."""
IN_PLACE = 4 << 20
"""Bytes from which a table is read in place; a smaller one costs less to fetch whole, once, with its hash checked."""
_THREADS = 8


def leaves_folder(name: str) -> bool:
    """Return whether the name of a file in a manifest could lie outside the artefact's folder."""
    return name.startswith("/") or ".." in name.split("/") or "\\" in name


class Place(NamedTuple):
    """Parts of a path in a mirror."""

    mirror: "Mirror"
    version: str
    """Its id; empty for the path by name, `work/saes/demo`."""
    key: str
    """`saes/demo`."""
    relative: str
    """Path within the artefact, empty for its folder."""


class Version:
    """One version of an artefact, and its files in the cache."""

    def __init__(self, mirror: "Mirror", pointer: "Pointer"):
        self.mirror, self.pointer = mirror, pointer
        self.id = pointer.content.rpartition("/")[2]
        self.home = f"{mirror.versions}/{self.id}/{pointer.key}"

    @cached_property
    def files(self) -> dict[str, tuple[int, str]]:
        """Size and checksum of every file, from the manifest, by path within the artefact."""
        size_and_hash = (self.pointer.manifest_bytes, self.pointer.manifest_sha256)
        path = self.fetched(MANIFEST, *size_and_hash)
        try:
            raw = json.loads(Path(path).read_bytes())["files"]
            files = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in raw.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptError(
                f"{self.url(MANIFEST)} is not a manifest ({error!r}); it was edited or cut short"
            ) from None
        if wrong := [name for name in files if leaves_folder(name)]:
            raise CorruptError(f"{self.url(MANIFEST)} names a file outside the artefact, {wrong[0]!r}")
        return {MANIFEST: size_and_hash, **files}

    def url(self, relative: str) -> str:
        """Return the address of a file for messages, by the name of the artefact."""
        return f"{self.mirror.url}/{self.pointer.key}" + (f"/{relative}" if relative else "")

    def below(self, folder: str) -> list[str]:
        """Return the files in a folder of the artefact and below it."""
        return [name for name in self.files if not folder or name.startswith(f"{folder}/")]

    def local(self, relative: str) -> str:
        """Return the path of a file or folder in the cache, after fetching what it lacks. Raises as `Store.read`."""
        if relative in self.files:
            return self.fetched(relative, *self.files[relative])
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self.local, self.below(relative)))
        return f"{self.home}/{relative}" if relative else self.home

    def has(self, relative: str) -> bool:
        """Return True for a file that is in the cache already."""
        with contextlib.suppress(OSError):
            return os.stat(f"{self.home}/{relative}").st_size == self.files[relative][0]
        return False

    def problem(self, relative: str) -> str:
        """Return the damage of a file in the store, regardless of the cache; empty for none."""
        return self.mirror.store.problem(f"{self.pointer.content}/{relative}", *self.files[relative])

    def in_place(self, relative: str) -> str:
        """Return the path or address under which DuckDB reads a table."""
        n_bytes = self.files[relative][0]
        if n_bytes < IN_PLACE or self.has(relative):
            return self.local(relative)
        return tables().address(self.mirror.store, f"{self.pointer.content}/{relative}", n_bytes)

    def fetched(self, relative: str, n_bytes: int, sha256: str) -> str:
        """Return the path of a file in the cache, downloaded and checked where it is not there yet."""
        path = f"{self.home}/{relative}"
        with self.mirror.lock_of(path):
            try:
                status = os.stat(path)
                if status.st_size == n_bytes:
                    os.utime(path, (time.time(), status.st_mtime))
                    return path
            except OSError:
                pass
            temporary = Path(f"{path}.{secrets.token_hex(4)}.tmp")
            temporary.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.mirror.store.download(f"{self.pointer.content}/{relative}", temporary, n_bytes, sha256)
                os.replace(temporary, path)
            except MissingError:
                raise MissingError(
                    f"{self.url(relative)} is gone: the artefact was replaced or deleted while it was read, or is "
                    "damaged; open it again; `workbench verify` finds damage"
                ) from None
            finally:
                temporary.unlink(missing_ok=True)
        _CACHE.added(n_bytes)
        return path


class Mirror:
    """The local side of one workspace in object storage; `mirror_of` makes it."""

    def __init__(self, url: str, folders: frozenset[str]):
        from hashlib import sha256

        from interp.storage import Store

        self.url, self.folders, self.store = url, folders, Store(url)
        home = cache_folder().resolve() / "remote" / sha256(url.encode()).hexdigest()[:16]
        self.versions, self.work = str(home / "versions"), str(home / "work")
        self._versions: dict[str, Version] = {}
        self._by_name: dict[str, Version] = {}
        self._pointers: dict[str, Pointer | None] = {}
        self._listed = -FRESH
        self._lock, self._listing = threading.Lock(), threading.Lock()
        self._locks: dict[str, threading.Lock] = {}

    def open(self, *, create: bool) -> None:
        """Raise `MissingError` where the bucket is missing, or the workspace, unless it may be made."""
        if not self.pointers():
            self.store.check_there()
            if not create and not self.store.listing("") and not any(Path(self.work).glob("*/*.partial")):
                raise MissingError(f"no workspace at {self.url}; the first command that writes an artefact makes one")

    @property
    def root(self) -> Path:
        """Folder of what lies on this machine: unfinished artefacts, runs of the dashboard, the user's texts.

        Raises `ResourceError` where it cannot be made.
        """
        try:
            Path(self.work).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(
                f"cannot write the cache at {self.work}: {error.strerror}; set INTERP_CACHE to another folder"
            ) from error
        return Path(self.work)

    def lock_of(self, path: str) -> threading.Lock:
        """Return the lock of one file of the cache."""
        with self._lock:
            return self._locks.setdefault(path, threading.Lock())

    def pointers(self) -> "dict[str, Pointer | None]":
        """Return the pointer of every artefact by key, None for one that cannot be read; at most `FRESH` seconds old.

        One listing, and one request per artefact that is new or was replaced. Raises as `Store.list`.
        """
        from interp.storage import POINTERS

        with self._listing:
            if time.monotonic() - self._listed < FRESH:
                return self._pointers
            listed = {
                name[len(POINTERS) + 1 : -len(".json")]: entry for name, entry in self.store.listing(POINTERS).items()
            }
            listed = {key: entry for key, entry in listed.items() if key.partition("/")[0] in self.folders}
            known = {key: self._pointers.get(key) for key in listed}
            same = {key: old for key, old in known.items() if old and old.etag and old.etag == listed[key].etag}

            def read(key: str) -> "Pointer | None":
                with contextlib.suppress(CorruptError):
                    if pointer := self.store.pointer(key, listed[key]):
                        self.version(pointer).fetched(MANIFEST, pointer.manifest_bytes, pointer.manifest_sha256)
                        return pointer
                return None

            new = [key for key in listed if key not in same]
            with ThreadPoolExecutor(_THREADS) as pool:
                fetched = dict(zip(new, pool.map(read, new), strict=True))
            self._pointers, self._listed = {key: same.get(key) or fetched.get(key) for key in listed}, time.monotonic()
            return self._pointers

    def version(self, pointer: "Pointer") -> Version:
        """Return the version that a pointer names."""
        with self._lock:
            version = Version(self, pointer)
            return self._versions.setdefault(version.id, version)

    def folder(self, key: str) -> "RemotePath":
        """Return the folder of an artefact: that of its present version, or the path by name where there is none."""
        pointer = self.pointers().get(key)
        if pointer is None:
            self._by_name.pop(key, None)
        return RemotePath(self.version(pointer).home if pointer else f"{self.work}/{key}")

    def version_at(self, place: Place) -> Version | None:
        """Return the version that a path stands for; a path by name stands for the first version that it found."""
        if place.version:
            return self._versions.get(place.version)
        if place.key not in self._by_name and (pointer := self.store.pointer(place.key)):
            self._by_name.setdefault(place.key, self.version(pointer))
        return self._by_name.get(place.key)

    def publish(self, folder: "RemotePath", draft: Path, files: list[str]) -> Path:
        """Upload a finished draft and write its pointer; the draft becomes the cached copy, whose folder is returned.

        A folder of a version is replaced, a path by name must be free. Raises `ConfigError` where another writer was
        first, and removes what was uploaded.
        """
        from interp.storage import CONTENT, REPLACED, UNFINISHED, Pointer, Taken

        place = folder.place()
        assert place is not None, folder
        before = self.version_at(place) if place.version else self._by_name.get(place.key)
        name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(8)}"
        content = f"{CONTENT}/{place.key}/{name}"
        sent, sums = f"{UNFINISHED}/{place.key}", json.loads((draft / MANIFEST).read_bytes())["files"]
        there = self.store.listing(sent)

        def put(name: str) -> None:
            if (source := f"{sent}/files/{sums[name]['sha256']}") in there:
                with contextlib.suppress(MissingError):  # another writer was first, and has removed it
                    return self.store.copy(source, f"{content}/{name}")
            return self.store.upload(draft / name, f"{content}/{name}")

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(put, files))
        self.store.upload(draft / MANIFEST, f"{content}/{MANIFEST}")
        wanted = {f"{content}/{name}": (draft / name).stat().st_size for name in (*files, MANIFEST)}
        uploaded = {name: listed.n_bytes for name, listed in self.store.listing(content).items()}
        if lacking := [name for name, n_bytes in wanted.items() if uploaded.get(name) != n_bytes]:
            raise CorruptError(f"{self.url}/{lacking[0]} is not as it was uploaded; run the same command again")
        pointer = Pointer(place.key, content, _sha256(draft / MANIFEST), (draft / MANIFEST).stat().st_size)
        try:
            self.store.commit(pointer, before.pointer if before else None)
        except Taken as error:
            self.store.remove([*wanted, *there])
            raise ConfigError(f"{error}; choose another --name, or --overwrite to replace it") from None
        with contextlib.suppress(ResourceError):  # `verify --clean` finds it
            self.store.remove(list(there))
        version = self.version(pointer)
        if before is not None:
            self.store.write(f"{before.pointer.content}/{REPLACED}", pointer.as_bytes())
        with self._lock:
            if place.version:
                self._versions[place.version] = version  # whoever replaced it here reads what it wrote
            self._by_name[place.key], self._listed = version, -FRESH
        Path(version.home).parent.mkdir(parents=True, exist_ok=True)
        os.replace(draft, version.home)
        _CACHE.added(sum(wanted.values()))
        return Path(version.home)

    def uploaded(self, key: str, draft: Path) -> bool:
        """Return True for a draft whose upload was complete when its process was killed; remove it after an hour."""
        pointer, manifest = self.pointers().get(key), draft / MANIFEST
        if pointer is None or not manifest.is_file() or _sha256(manifest) != pointer.manifest_sha256:
            return False
        if manifest.stat().st_mtime < time.time() - 3600:  # until then its process may be about to move it
            shutil.rmtree(draft, ignore_errors=True)
        return True

    def delete(self, key: str, stamp: str) -> str:
        """Move the pointer of an artefact to the trash; return its entry there."""
        from interp.storage import delete

        entry = f"{stamp}-{secrets.randbelow(10**9)}"
        delete(self.store, key, entry)
        self.forget_listing()
        return entry

    def deleted(self) -> "list[tuple[str, Pointer, int]]":
        """Return entry, pointer and bytes of every artefact in the trash, the last deleted one first."""
        from interp.storage import deleted

        return deleted(self.store)

    def undelete(self, entry: str) -> bool:
        """Restore an entry of the trash; False where the store has none of that name."""
        from interp.storage import undelete

        pointers = [pointer for name, pointer, _ in self.deleted() if name == entry]
        for pointer in pointers:
            undelete(self.store, entry, pointer)
        self.forget_listing()
        return bool(pointers)

    def forget(self, entries: Collection[str]) -> None:
        """Remove entries of the trash for good."""
        from interp.storage import forget

        for entry, pointer, _ in self.deleted():
            if entry in entries:
                forget(self.store, entry, pointer)

    def forget_listing(self) -> None:
        """Make the next question list the store anew."""
        self._listed = -FRESH
        self._by_name.clear()


if TYPE_CHECKING:
    _LocalPath = Path
else:
    _LocalPath = type(Path())


class RemotePath(_LocalPath):
    """A path in the mirror of a workspace in object storage; opening it fetches it."""

    __slots__ = ()

    def place(self) -> Place | None:
        """Return the artefact that the path belongs to, by its text alone; None for what lies on this machine only."""
        return _place(str(self))

    def by_name(self) -> "RemotePath":
        """Return the path that names the artefact whatever its version; the path itself below an artefact's folder."""
        place = self.place()
        return self if place is None or place.relative else RemotePath(f"{place.mirror.work}/{place.key}")

    def found(self) -> tuple[Version, str] | None:
        """Return the version that the path belongs to and the path within it; None where there is none."""
        place = self.place()
        version = place and place.mirror.version_at(place)
        return (version, place.relative) if place and version else None

    def __fspath__(self) -> str:
        location = self.found()
        return location[0].local(location[1]) if location else str(self)

    def __format__(self, spec: str) -> str:
        place = self.place()
        address = place and "/".join(filter(None, (place.mirror.url, place.key, place.relative)))
        return format(address or str(self), spec)

    def in_place(self) -> str:
        """Return the path or address under which DuckDB reads this table."""
        location = self.found()
        return location[0].in_place(location[1]) if location and location[1] in location[0].files else str(self)

    def exists(self, **options: object) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self, **options: object) -> bool:
        location = self.found()
        return location[1] in location[0].files if location else os.path.isfile(str(self))

    def is_dir(self, **options: object) -> bool:
        location = self.found()
        return bool(location[0].below(location[1])) if location else os.path.isdir(str(self))

    def is_symlink(self) -> bool:
        return False if self.found() else os.path.islink(str(self))

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return size and date without fetching; a file of a version never changes, so they do not either."""
        location = self.found()
        if location is None or location[1] not in location[0].files:
            return os.stat(self, follow_symlinks=follow_symlinks)
        n_bytes, sha256 = location[0].files[location[1]]
        numbers = (stat.S_IFREG | 0o444, int(sha256[:12], 16), 0, 1, 0, 0, n_bytes, 0, 0, 0)
        return os.stat_result(numbers, {"st_mtime_ns": 0})

    def lstat(self) -> os.stat_result:
        return self.stat(follow_symlinks=False)

    def resolve(self, strict: bool = False) -> "RemotePath":
        return RemotePath(os.path.realpath(str(self)))

    def iterdir(self) -> Generator["RemotePath", None, None]:
        location = self.found()
        if location is None:
            yield from map(self.__truediv__, os.listdir(str(self)))
            return
        start = f"{location[1]}/" if location[1] else ""
        names = (name[len(start) :].partition("/")[0] for name in location[0].below(location[1]))
        yield from map(self.__truediv__, dict.fromkeys(names))

    def glob(self, pattern: str, **options: object) -> Generator["RemotePath", None, None]:
        if self.found() is None:
            yield from map(RemotePath, Path(str(self)).glob(pattern))
            return
        first, _, rest = pattern.partition("/")
        if first == "**":
            yield from (path for path in self.rglob(rest or "*"))
            return
        for child in self.iterdir():
            if fnmatch.fnmatchcase(child.name, first):
                yield from child.glob(rest) if rest else (child,)

    def rglob(self, pattern: str, **options: object) -> Generator["RemotePath", None, None]:
        if self.found() is None:
            yield from map(RemotePath, Path(str(self)).rglob(pattern))
            return
        yield from self.glob(pattern)
        for child in self.iterdir():
            if child.is_dir():
                yield from child.rglob(pattern)


def as_path(path: str | Path) -> Path:
    """Return a `Path`; one in the mirror of a workspace in object storage stays, or becomes, a `RemotePath`."""
    return RemotePath(path) if _mirror_at(str(path)) else Path(path)


def mirror_of(url: str, folders: frozenset[str]) -> Mirror:
    """Return the mirror of a workspace's URL; one per process. Raises as `Store`, `MissingError` without fsspec."""
    if url not in MIRRORS:
        try:
            import fsspec  # noqa: F401 - the error below is clearer than one from within
        except ImportError:
            raise MissingError(f"{url} is object storage, which needs fsspec and s3fs: pip install '.[s3]'") from None
        MIRRORS[url] = Mirror(url, folders)
    return MIRRORS[url]


def reading_failed() -> Exception | None:
    """Return the network error that ended a query of remote tables, once; None where it failed for another reason."""
    if not tables.cache_info().currsize:
        return None
    failed, tables().failed = tables().failed, None
    return failed


@lru_cache(maxsize=1)
def tables() -> "InPlace":
    """Return the file system through which DuckDB reads tables in place."""
    from interp.storage import InPlace

    return InPlace()


MIRRORS: dict[str, Mirror] = {}
"""Mirrors of this process, by the URL of the workspace (`mirror_of`)."""
_CACHE = FileCache("remote", "INTERP_CACHE_GB", 20.0, part="versions")


def _mirror_at(text: str) -> Mirror | None:
    for mirror in MIRRORS.values():
        if text.startswith((f"{mirror.versions}{os.sep}", f"{mirror.work}{os.sep}")):
            return mirror
    return None


def _place(text: str) -> Place | None:
    mirror = _mirror_at(text)
    if mirror is None:
        return None
    fixed = text.startswith(f"{mirror.versions}{os.sep}")
    parts = text[len(mirror.versions if fixed else mirror.work) + 1 :].split(os.sep)
    version, parts = (parts[0], parts[1:]) if fixed else ("", parts)
    if len(parts) < 2 or parts[0] not in mirror.folders or parts[1].endswith((".partial", ".tmp", ".old")):
        return None
    return Place(mirror, version, "/".join(parts[:2]), "/".join(parts[2:]))


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()
