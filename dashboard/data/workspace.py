"""Queries of several pages to the served workspace: its models, its changes, its notes."""

import contextlib
import threading
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

from dashboard.sources import current
from interp.artifacts import FOLDERS, MANIFEST, STATUS, hash_json
from interp.notes import Notes
from interp.workspace import Workspace

A = TypeVar("A")


def stamp(workspace: Workspace) -> str:
    """Return a text that changes when an artefact is begun, finished, deleted or given up, without opening files."""
    entries: list[list[Any]] = []
    for folder in sorted(set(FOLDERS.values())):
        for name in (MANIFEST, STATUS):
            for file in sorted((workspace.root / folder).glob(f"*/{name}")):
                with contextlib.suppress(OSError):  # renamed while this looked
                    stat = file.stat()
                    entries.append([f"{folder}/{file.parent.name}", stat.st_mtime_ns if name == MANIFEST else 0])
    return hash_json(entries)


def kept(read: Callable[[Workspace, str], A]) -> Callable[[Workspace, str], A]:
    """Keep what a function reads of a workspace until its second argument, the `stamp`, changes.

    Threads that ask at once wait for one reading: a page and the start of the server (`app.warm`) ask together.
    """
    reading, known = threading.Lock(), lru_cache(maxsize=8)(read)

    @wraps(read)
    def answer(workspace: Workspace, stamp: str) -> A:
        with reading:
            return known(workspace, stamp)

    return answer


def notes() -> Notes:
    """Return the notes of the workspace that is served."""
    return Notes.open(current().workspace)
