"""The user's cache folder, the lock on a folder that several processes share, sizes as text."""

import os
from pathlib import Path
from typing import ClassVar
from weakref import WeakValueDictionary

from interp.errors import ConfigError


def cache_folder() -> Path:
    """Return the user's cache folder: `$INTERP_CACHE`, else `~/.cache/interp-workbench`."""
    return Path(os.environ.get("INTERP_CACHE") or "~/.cache/interp-workbench").expanduser()


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
