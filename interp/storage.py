"""A store of objects, such as a bucket of S3, through fsspec: reads that are checked, and commits without a rename.

    PREFIX/
      pointers/saes/demo.json            key, prefix of the content, checksum of the manifest: what makes it an artefact
      content/saes/demo/<time>-<random>/ manifest.json and the files of one version; never changed once written
      trash/<time>/saes/demo.json        the pointer of a deleted artefact
      unfinished/recordings/demo/        finished shards of an unfinished recording (`interp.recording.writer`)

A writer puts the content under a prefix of its own. Then it writes the pointer, one small object, on condition that
none exists (`If-None-Match: *`), or that it is still the one to be replaced (`If-Match`). A reader starts from the
pointer, so that it sees a whole version or none. Content that no pointer names is left by a writer that was killed, or
was replaced; `abandoned` finds it. Needs fsspec, so import it for a workspace with a URL only (`interp.remote`).
"""

import contextlib
import errno
import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from interp.errors import ConfigError, CorruptError, MissingError, ResourceError

POINTERS, CONTENT, TRASH, UNFINISHED = "pointers", "content", "trash", "unfinished"
REPLACED = "replaced.json"
"""Object in the content of a replaced version; its date starts the time after which that version may be removed."""
ATTEMPTS, PAUSE = 6, 0.5
"""Tries of one request, and the seconds before the second, which double: 16 seconds for a store that fails at once, two
minutes for one that does not answer."""
OPTIONS = {name: {"config_kwargs": {"retries": {"total_max_attempts": 1}}} for name in ("s3", "s3a")}
"""Options of a protocol's client: no retries of its own, which would multiply these."""
BLOCK, BLOCKS = 1 << 20, 64
"""Bytes of a block of a table that is read in place, and the number of blocks kept in memory."""
T = TypeVar("T")


class Taken(ConfigError):
    """A name that another writer took first."""


@dataclass(frozen=True)
class Pointer:
    """The object that makes a content an artefact."""

    key: str
    """`folder/name` in the workspace."""
    content: str
    """Prefix of the files, `content/saes/demo/<time>-<random>`."""
    manifest_sha256: str
    manifest_bytes: int
    etag: str = ""
    """Tag of the pointer in the store; empty where the store has none."""

    def as_bytes(self) -> bytes:
        """Return the object as it is stored."""
        kept = {name: value for name, value in asdict(self).items() if name != "etag"}
        return (json.dumps({"format": "interp-workbench-pointer", "version": 1} | kept, indent=1) + "\n").encode()


@dataclass(frozen=True)
class StoredObject:
    """One object of a listing."""

    n_bytes: int
    etag: str
    modified: float
    """Seconds since 1970, by the clock of the store."""


class Store:
    """Objects below a URL. Every request is repeated after a failure, and a read is checked; threads may share it."""

    def __init__(self, url: str):
        """Open the store of `url`; no request is made yet.

        Raises `MissingError` where the package of its protocol is not installed, `ConfigError` for an unknown protocol.
        """
        self.url = url.rstrip("/")
        protocol = url.partition(":")[0]
        try:
            self.files: AbstractFileSystem = fsspec.filesystem(
                protocol, use_listings_cache=False, **OPTIONS.get(protocol, {})
            )
        except ImportError as error:
            advice = "pip install '.[s3]'" if protocol in ("s3", "s3a") else str(error)
            raise MissingError(
                f"a workspace at {protocol}:// needs a package that is not installed: {advice}"
            ) from None
        except ValueError as error:
            raise ConfigError(f"no store is known for {url}: {error}; s3://BUCKET/PREFIX is one") from None
        if hasattr(self.files, "retries"):  # s3fs
            self.files.retries = 1  # pyright: ignore[reportAttributeAccessIssue]
        self.base = str(self.files._strip_protocol(self.url)).rstrip("/")
        self._blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, name: str, n_bytes: int | None = None, sha256: str | None = None) -> bytes:
        """Return an object. Raises `MissingError`, `CorruptError` where it has another size or checksum each time."""

        def once() -> bytes:
            data = self._bytes(name, None if n_bytes is None else 0, n_bytes)
            self._check(name, len(data), n_bytes, hashlib.sha256(data).hexdigest() if sha256 else None, sha256)
            return data

        return self._ask(f"reading {name}", once) if n_bytes != 0 else b""

    def _bytes(self, name: str, start: int | None, end: int | None) -> bytes:
        data: Any = self.files.cat_file(self._path(name), start=start, end=end)
        return data

    def download(self, name: str, target: Path, n_bytes: int, sha256: str) -> None:
        """Write an object to a file, checked. Raises as `read`."""

        def once() -> None:
            self.files.get_file(self._path(name), str(target))
            with open(target, "rb") as handle:
                digest = hashlib.file_digest(handle, "sha256").hexdigest()
            self._check(name, target.stat().st_size, n_bytes, digest, sha256)

        self._ask(f"reading {name}", once)

    def problem(self, name: str, n_bytes: int, sha256: str) -> str:
        """Return the difference between an object and its manifest, in words of `interp.artifacts.verify`; or ""."""

        def once() -> str:
            size, digest = int(self.files.info(self._path(name))["size"]), hashlib.sha256()
            if size != n_bytes:
                return f"{size} bytes, the manifest says {n_bytes}"
            for start in range(0, n_bytes, 8 * BLOCK):
                part = self._bytes(name, start, min(start + 8 * BLOCK, n_bytes))
                digest.update(part)
            return "" if digest.hexdigest() == sha256 else "content differs from its checksum"

        try:
            return self._ask(f"reading {name}", once)
        except MissingError:
            return "missing"

    def read_blocks(self, name: str, start: int, stop: int, n_bytes: int) -> bytes:
        """Return bytes `start` to `stop` of an object that never changes; its blocks are kept in memory for a while."""
        wanted = range(start // BLOCK, -(-stop // BLOCK))
        with self._lock:
            blocks = {n: self._blocks[name, n] for n in wanted if (name, n) in self._blocks}
        if lacking := [n for n in wanted if n not in blocks]:
            first, end = lacking[0] * BLOCK, min((lacking[-1] + 1) * BLOCK, n_bytes)

            def once() -> bytes:
                data = self._bytes(name, first, end)
                self._check(name, len(data), end - first, None, None)
                return data

            data = self._ask(f"reading {name}", once)
            blocks |= {n: data[n * BLOCK - first :][:BLOCK] for n in range(lacking[0], lacking[-1] + 1)}
        with self._lock:
            for n in wanted:
                self._blocks[name, n] = blocks[n]
                self._blocks.move_to_end((name, n))
            while len(self._blocks) > BLOCKS:
                self._blocks.popitem(last=False)
        joined = b"".join(blocks[n] for n in wanted)
        return joined[start - wanted[0] * BLOCK :][: stop - start] if wanted else b""

    def upload(self, source: Path, name: str) -> None:
        """Write a file as an object."""
        self._ask(f"writing {name}", lambda: self.files.put_file(str(source), self._path(name)))

    def copy(self, source: str, name: str) -> None:
        """Copy an object within the store."""
        self._ask(f"copying {source}", lambda: self.files.cp_file(self._path(source), self._path(name)))

    def write(self, name: str, data: bytes) -> None:
        """Write an object, whatever is there."""
        self._ask(f"writing {name}", lambda: self.files.pipe_file(self._path(name), data))

    def listing(self, folder: str) -> dict[str, StoredObject]:
        """Return the objects below a folder by name. Raises `MissingError` for a missing bucket."""

        def once() -> dict[str, dict[str, object]]:
            return dict(self.files.find(self._path(folder), detail=True))

        try:
            listing = self._ask(f"listing {folder or 'it'}", once)
        except MissingError:
            listing = {}
        return {path.removeprefix(f"{self.base}/"): _listed(entry) for path, entry in listing.items()}

    def check_there(self) -> None:
        """Raise `MissingError` for a missing bucket, `ResourceError` where the store does not answer."""
        bucket = self.base.split("/")[0]
        if not self._ask("opening it", lambda: self.files.exists(bucket)):
            raise MissingError(f"there is no {bucket} at {self.url}; make the bucket first, or check the name")

    def remove(self, names: list[str]) -> None:
        """Remove objects; a missing one is not an error."""

        def one(name: str) -> None:
            with contextlib.suppress(MissingError):
                self._ask(f"removing {name}", lambda: self.files.rm_file(self._path(name)))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, names))

    def pointer(self, key: str, listed: StoredObject | None = None) -> Pointer | None:
        """Return the pointer of an artefact as it is now; None without one."""
        name = f"{POINTERS}/{key}.json"
        try:
            if listed is None:
                listed = _listed(self._ask(f"reading {name}", lambda: self.files.info(self._path(name))))
            return replace(
                read_pointer(self.read(name, listed.n_bytes or None), f"{self.url}/{name}"), etag=listed.etag
            )
        except MissingError:
            return None

    def commit(self, pointer: Pointer, before: Pointer | None) -> None:
        """Write a pointer: instead of `before`, or where none exists.

        Raises `Taken` where another writer was first. Where the store ignores the condition, the last of two
        simultaneous writers wins; the two are never mixed.
        """
        name, data = f"{POINTERS}/{pointer.key}.json", pointer.as_bytes()
        options: dict[str, str] = {"mode": "create"}
        if before is not None:
            now = self.pointer(pointer.key)
            if now is None or now.content != before.content:
                raise Taken(f"{self.url}/{pointer.key} was replaced or deleted by another writer")
            options = {"IfMatch": now.etag} if now.etag and hasattr(self.files, "call_s3") else {}
        # A refusal is due to another writer, or to an earlier try whose answer was lost: the pointer says which.
        with contextlib.suppress(Taken, MissingError):
            self._ask(f"writing {name}", lambda: self.files.pipe_file(self._path(name), data, **options))
        current = self.pointer(pointer.key)
        if current is None or current.content != pointer.content:
            raise Taken(f"{self.url}/{pointer.key} was written by another process meanwhile")

    def abandoned(self, hours: float) -> dict[str, list[str]]:
        """Return the objects of every content that no pointer names, and of unfinished work whose artefact was finished
        later, by prefix, where they are older than `hours`.

        The age is that of its newest object, so that an upload in progress is left alone.
        """
        places: dict[str, dict[str, StoredObject]] = {}
        # Listed before the pointers: content that is written in between is too young to be removed.
        for name, listed in (self.listing(CONTENT) | self.listing(UNFINISHED)).items():
            place = "/".join(name.split("/")[: 4 if name.startswith(f"{CONTENT}/") else 3])
            places.setdefault(place, {})[name] = listed
        newest = {place: max(each.modified for each in objects.values()) for place, objects in places.items()}
        needed, unknown, pointers = set(), [], self.listing(POINTERS)
        for name, listed in (pointers | self.listing(TRASH)).items():
            try:
                needed.add(read_pointer(self.read(name, listed.n_bytes or None), name).content)
            except CorruptError:  # damaged: all versions of that artefact stay
                unknown.append("/".join([CONTENT, *name.removesuffix(".json").split("/")[-2:], ""]))
        for place in (place for place in places if place.startswith(f"{UNFINISHED}/")):
            pointer = pointers.get(f"{POINTERS}{place.removeprefix(UNFINISHED)}.json")
            begun = places[place].get(f"{place}/begun.json")  # written first, and removed once it is finished
            if begun and (pointer is None or pointer.modified < begun.modified):
                needed.add(place)
        until = time.time() - 3600 * hours
        return {
            place: sorted(objects)
            for place, objects in places.items()
            if place not in needed and not place.startswith(tuple(unknown)) and newest[place] < until
        }

    def _path(self, name: str) -> str:
        return f"{self.base}/{name}" if name else self.base

    def _check(self, name: str, size: int, n_bytes: int | None, digest: str | None, sha256: str | None) -> None:
        if n_bytes is not None and size != n_bytes:
            raise CorruptError(f"{self.url}/{name} gave {size} bytes, expected {n_bytes}; `workbench verify` checks it")
        if sha256 is not None and digest != sha256:
            raise CorruptError(f"{self.url}/{name} has another checksum than expected; `workbench verify` checks it")

    def _ask(self, doing: str, once: Callable[[], T]) -> T:
        """Return the answer to a request, repeated after a failure. Stores raise exceptions of many packages.

        Raises `MissingError`, `Taken`, `CorruptError`, and `ResourceError` for all others.
        """
        failed: Exception = CorruptError(doing)
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                return once()
            except FileNotFoundError:
                raise MissingError(f"{self.url}: nothing there ({doing})") from None
            except PermissionError as error:
                advice = "check the credentials and what they allow, then run the same command again"
                raise ResourceError(f"{self.url} refused {doing}: {_first(error)}; {advice}") from error
            except (TypeError, AttributeError, NameError):
                raise  # ours
            except Exception as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                    raise ResourceError(
                        f"this machine cannot hold it ({doing}): {error.strerror}; free space, lower INTERP_CACHE_GB, "
                        "or set INTERP_CACHE to a folder on another disk"
                    ) from error
                if _refused(error):
                    raise Taken(f"{self.url}: {doing} was refused, it exists already") from None
                failed = error
        if isinstance(failed, CorruptError):
            raise failed
        raise ResourceError(
            f"{self.url} failed {ATTEMPTS} times at {doing}: {_first(failed)}; "
            "check the network, the credentials and the address of the store, and run the same command again"
        ) from failed


def delete(store: Store, key: str, entry: str) -> None:
    """Move the pointer of an artefact to the trash. Raises `MissingError` where there is none."""
    pointer = store.pointer(key)
    if pointer is None:
        raise MissingError(f"there is no {key} at {store.url}")
    store.write(f"{TRASH}/{entry}/{key}.json", pointer.as_bytes())
    store.remove([f"{POINTERS}/{key}.json"])


def deleted(store: Store) -> list[tuple[str, Pointer, int]]:
    """Return time of deletion, pointer and bytes of every artefact in the trash, the last deleted one first."""
    entries = []
    for name, listed in sorted(store.listing(TRASH).items(), reverse=True):
        pointer = read_pointer(store.read(name, listed.n_bytes), f"{store.url}/{name}")
        n_bytes = sum(listed.n_bytes for listed in store.listing(pointer.content).values())
        entries.append((name.split("/")[1], pointer, n_bytes))
    return entries


def undelete(store: Store, entry: str, pointer: Pointer) -> None:
    """Put a pointer back from the trash. Raises `Taken` where its name is taken."""
    store.commit(pointer, None)
    store.remove([f"{TRASH}/{entry}/{pointer.key}.json"])


def forget(store: Store, entry: str, pointer: Pointer) -> None:
    """Remove a deleted artefact for good."""
    store.remove([f"{TRASH}/{entry}/{pointer.key}.json", *store.listing(pointer.content)])


class InPlace(AbstractFileSystem):
    """Tables of a store, read block by block by DuckDB (`register_filesystem`), as `workbench://N/...`."""

    protocol = "workbench"
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self._tables: dict[str, tuple[Store, str, int]] = {}
        self.failed: Exception | None = None
        """The last error; DuckDB reports its text alone."""

    def address(self, store: Store, name: str, n_bytes: int) -> str:
        """Return the address of an object for a query."""
        address = f"{abs(hash(store.url))}/{name}"
        self._tables[address] = (store, name, n_bytes)
        return f"workbench://{address}"

    def info(self, path: str, **_: object) -> dict[str, object]:
        """Return name, size and type of a table."""
        address = str(self._strip_protocol(path))
        return {"name": address, "size": self._tables[address][2], "type": "file"}

    def modified(self, path: str) -> datetime:
        """Return one date for all: content never changes."""
        return datetime.fromtimestamp(0, UTC)

    def _open(self, path: str, mode: str = "rb", *_: object, **__: object) -> "_Table":
        return _Table(self, str(self._strip_protocol(path)), mode, cache_type="none")


class _Table(AbstractBufferedFile):
    """One table that is read in place."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        store, name, n_bytes = self.fs._tables[self.path]
        try:
            return store.read_blocks(name, start, min(end, n_bytes), n_bytes)
        except Exception as error:
            self.fs.failed = error
            raise


def read_pointer(data: bytes, where: str) -> Pointer:
    """Return the pointer of an object. Raises `CorruptError` for any other content."""
    try:
        raw = json.loads(data)
        if raw["format"] != "interp-workbench-pointer" or raw["version"] != 1:
            raise ValueError(f"format {raw['format']!r}, version {raw['version']!r}")
        pointer = Pointer(*(raw[name] for name in ("key", "content", "manifest_sha256", "manifest_bytes")))
        texts = (pointer.key, pointer.content, pointer.manifest_sha256)
        if not all(isinstance(text, str) for text in texts) or type(pointer.manifest_bytes) is not int:
            raise ValueError("fields of other types")
        if not pointer.content.startswith(f"{CONTENT}/{pointer.key}/") or ".." in pointer.content:
            raise ValueError(f"content at {pointer.content!r}")
        return pointer
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptError(f"{where} is not a pointer to an artefact ({error}); it was edited or cut short") from None


def _refused(error: Exception) -> bool:
    """Return True where the store refused a write because its condition does not hold."""
    text = f"{error} {error.__cause__}"
    return isinstance(error, FileExistsError) or "PreconditionFailed" in text or "ConditionalRequestConflict" in text


def _first(error: BaseException) -> str:
    """Return the first line of an error, or its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200] or type(error).__name__


def _listed(entry: dict[str, Any]) -> StoredObject:
    """Return an entry of a listing. Where the store gives no date it is now, so that nothing is taken for old."""
    dates = (entry[name] for name in ("LastModified", "updated", "last_modified", "created") if name in entry)
    date, tag = next(dates, None), entry.get("ETag") or entry.get("etag") or ""
    seconds = float(date.timestamp() if isinstance(date, datetime) else time.time())
    return StoredObject(int(entry.get("size") or 0), str(tag).strip('"'), seconds)
