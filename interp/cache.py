"""The user's cache folder and its limits, the lock on a folder that several processes share, sizes as text."""

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import ClassVar
from weakref import WeakValueDictionary

from interp.errors import ConfigError


def cache_folder() -> Path:
    """Return the user's cache folder: `$INTERP_CACHE`, else `~/.cache/interp-workbench`."""
    return Path(os.environ.get("INTERP_CACHE") or "~/.cache/interp-workbench").expanduser()


class FileCache:
    """Files in a folder of the cache that can be fetched again: those used last are retained, up to a size."""

    GRACE: ClassVar[float] = 10.0
    """Seconds for which a used file is kept regardless of the limit: its reader may not have opened it yet."""

    def __init__(self, folder: str, variable: str, default_gb: float, *, part: str):
        """Bound the files of `folder` below a folder named `part` to the gigabytes of an environment variable."""
        self.folder, self.variable, self.default_gb, self.part = folder, variable, default_gb, part
        self._lock, self._total = threading.Lock(), None

    def limit(self) -> float:
        """Return the bytes that are retained. Raises `ConfigError` where the variable is not a number."""
        text = os.environ.get(self.variable) or str(self.default_gb)
        with contextlib.suppress(ValueError):
            if 0 <= (limit := float(text)) < float("inf"):
                return limit * 1e9
        raise ConfigError(f"{self.variable} is a number of gigabytes, got {text!r}")

    def added(self, n_bytes: int) -> None:
        """Count bytes that were added; beyond the limit remove the files whose last use is the longest ago."""
        limit = self.limit()
        with self._lock:
            self._total = None if self._total is None else self._total + n_bytes
            if self._total is None or self._total > limit:
                self._total = self._trim(limit)

    def _trim(self, limit: float) -> int:
        """Remove files until the others fit; return their bytes. Other processes may do the same at once."""
        files = []
        for folder, _, names in os.walk(cache_folder() / self.folder):
            for name in names if self.part in Path(folder).parts else ():
                with contextlib.suppress(OSError):
                    status = os.stat(path := os.path.join(folder, name))
                    files.append((status.st_atime, status.st_size, path))
        total = sum(n_bytes for _, n_bytes, _ in files)
        for used, n_bytes, path in sorted(files):
            if total <= limit or used > time.time() - self.GRACE:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
                total -= n_bytes
        return total


class FolderLock:
    """Lock on a folder against other processes, until this process has no reference to it or ends."""

    _held: ClassVar["WeakValueDictionary[str, FolderLock]"] = WeakValueDictionary()

    def __init__(self, handle: int | None):
        self._handle = handle

    @classmethod
    def take(cls, folder: Path) -> "FolderLock":
        """Return the lock, which this process may hold already. Raises `ConfigError` where another process has it.

        A system or file system without locks gives one that keeps nobody out.
        """
        name = str(folder)
        known = cls._held.get(name)
        if known is not None and known._is_of(name):
            return known
        try:
            import fcntl
        except ImportError:  # Windows
            return cls(None)
        taken = ConfigError(
            f"{name} is being written by another process; wait until it has finished, or choose another --name"
        )
        try:
            handle = os.open(name, os.O_RDONLY)
        except FileNotFoundError:  # finished or removed this moment
            raise taken from None
        lock = cls(handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise taken from None
        except OSError:  # no locks there
            return lock
        if not lock._is_of(name):  # renamed or removed before it was locked
            raise taken
        cls._held[name] = lock
        return lock

    def _is_of(self, name: str) -> bool:
        """Return whether the locked folder is still the one at that path."""
        try:
            return self._handle is not None and os.path.samestat(os.fstat(self._handle), os.stat(name))
        except OSError:
            return False

    def __del__(self) -> None:
        if self._handle is not None:
            os.close(self._handle)


def size_text(n_bytes: float) -> str:
    """Return a number of bytes with its unit.

    >>> size_text(1_234_567)
    '1.2 MB'
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.1f} {unit}"
    return f"{n_bytes:.0f} B"
