"""An artefact being written: a visible partial folder that resumes, and becomes the artefact when it is whole.

1. `Draft.open(folder, kind=, config=)` makes `<folder>.partial/` with `status.json`, or resumes an existing one with
   the same config.
2. The verb writes files into `draft.path` (each atomically) and reports with `draft.update(...)`.
3. `draft.finish(...)` hashes every file, writes the manifest and renames the folder. Only complete artefacts have a
   manifest.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict
from pathlib import Path
from typing import Any

from interp.artifacts.files import FileSum, dump_json, file_entry, read_json, write_json
from interp.artifacts.manifest import MANIFEST, STATUS, Manifest, hash_files, partial_path, verify
from interp.cache import FolderLock
from interp.devices import model_dtype
from interp.errors import ConfigError, CorruptError, MismatchError, disk_errors
from interp.packages import code_version, library_versions
from interp.registry import check_kind

RESUME = "resume"
"""Folder in a draft with what an interrupted run continues from. It is not part of the artefact."""


_carried: ContextVar[Callable[[dict[str, str]], dict[str, str]]] = ContextVar("carried", default=lambda parents: {})


@contextlib.contextmanager
def carrying(find: Callable[[dict[str, str]], dict[str, str]]) -> Iterator[None]:
    """Within the block, every artefact that is finished also has the parents that `find` returns for its own."""
    token = _carried.set(find)
    try:
        yield
    finally:
        _carried.reset(token)


class Draft:
    """An artefact being written in `<folder>.partial/`."""

    def __init__(
        self, folder: Path, kind: str, config: Mapping[str, object], seed: int | None, before: dict[str, Any] | None
    ):
        self.folder, self.kind, self.config, self.seed, self.resumed = folder, kind, config, seed, before is not None
        self._status = {
            **_identity(kind, config, seed),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "state": "running",
            "pid": os.getpid(),
        }
        if before is not None:
            self._status["progress"] = before.get("progress", {})
        self.path = partial_path(folder)
        self._lock: FolderLock | None = None
        self._known_files: dict[str, FileSum] = {}
        self._started = time.time()

    @classmethod
    def open(
        cls, folder: Path, *, kind: str, config: Mapping[str, object], seed: int | None = None, overwrite: bool = False
    ) -> "Draft":
        """Start an artefact, or resume an interrupted run with the same config.

        With `overwrite` an existing folder is replaced, but only at `finish`; an unfinished run of it is resumed too.
        The dtype of the models that a command loads (`--dtype`) is part of what two runs must share.
        Raises `ConfigError` when the finished folder exists without `overwrite` or another process writes it now,
        `MismatchError` when there is a partial run with another config, `UnknownNameError` for an unknown kind.
        """
        check_kind(kind)
        lock = _lock_partial(folder, overwrite)
        partial = partial_path(folder)
        before = read_json(partial / STATUS) if (partial / STATUS).exists() else None
        identity = _identity(kind, config, seed)
        old_identity = {} if before is None else {key: before.get(key) for key in identity}
        if before is not None and old_identity != identity:
            before = None
            if overwrite:
                shutil.rmtree(partial)
                lock = _lock_partial(folder, overwrite)
            else:
                raise MismatchError(
                    f"{partial} holds an unfinished run with other settings ({_differences(old_identity, identity)}); "
                    "repeat it with those settings to resume, --overwrite to discard it, or choose another --name"
                )
        with disk_errors(partial):
            draft = cls(folder, kind, config, seed, before)
            draft._lock = lock
            write_json(partial / STATUS, draft._status)
        return draft

    def update(self, **progress: object) -> None:
        """Make progress visible to other processes (the dashboard reads `status.json`)."""
        self._status["progress"] = {**self._status.get("progress", {}), **progress}
        self._status["updated"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        write_json(self.path / STATUS, self._status)

    def add_known(self, relative: str, sha256: str, n_bytes: int) -> None:
        """Record the hash of a file that was computed while writing it, so that `finish` need not read it again."""
        self._known_files[relative] = {"sha256": sha256, "bytes": n_bytes}

    def finish(
        self,
        *,
        summary: dict[str, object] | None = None,
        parents: dict[str, str] | None = None,
        threads: int | None = None,
    ) -> Manifest:
        """Hash the files, write the manifest and rename the folder. Return the manifest."""
        files: dict[str, FileSum] = {}
        for path in sorted(p for p in self.path.rglob("*") if p.is_file()):
            relative = path.relative_to(self.path).as_posix()
            if relative in (STATUS, MANIFEST) or relative.startswith(f"{RESUME}/") or relative.endswith(".tmp"):
                continue
            files[relative] = self._known_files.get(relative) or file_entry(path)
        manifest = Manifest(
            kind=self.kind,
            name=self.folder.name,
            config=dict(self.config),
            summary=summary or {},
            parents={**(parents or {}), **_carried.get()(parents or {})},
            files=files,
            content_hash=hash_files(files),
            seed=self.seed,
            model_dtype=model_dtype(),
            threads=threads,
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            seconds=round(time.time() - self._started, 2),
            code_version=code_version(),
            versions=library_versions(),
        )
        write_json(self.path / MANIFEST, asdict(manifest))
        with disk_errors(self.folder):
            _put_in_place(self.path, self.folder)
        shutil.rmtree(self.folder / RESUME, ignore_errors=True)  # not before: until here a crash loses nothing of it
        (self.folder / STATUS).unlink(missing_ok=True)  # last: until then it marks the partial folder as resumable
        return manifest

    def discard(self) -> None:
        """Remove the partial folder."""
        shutil.rmtree(self.path, ignore_errors=True)


def _lock_partial(folder: Path, overwrite: bool) -> FolderLock:
    """Make the partial folder of an artefact and lock it. Raises `ConfigError` as `Draft.open`."""
    partial = partial_path(folder)
    with disk_errors(partial):
        partial.mkdir(parents=True, exist_ok=True)
        lock = FolderLock.take(partial)
    if folder.exists() and not overwrite:  # looked at under the lock: nobody can finish it now
        with contextlib.suppress(OSError):  # an unfinished run in it stays
            partial.rmdir()
        raise ConfigError(f"{folder} is already there; choose another --name, or --overwrite to replace it")
    return lock


def copy_artefact(source: Path, target: Path) -> None:
    """Copy a finished artefact.

    Args:
        source: its folder.
        target: the path of a free name in a workspace.
    Raises:
        CorruptError: the source is damaged.
        ConfigError: the name is taken.

    >>> copy_artefact(folder / "sae", folder / "copied")
    >>> (folder / "copied" / "manifest.json").exists()
    True
    """
    if problems := verify(source):
        raise CorruptError(f"{source} is damaged ({problems[0]}); make it or install the package again")
    if target.exists():
        raise ConfigError(f"{target} is already there; choose another name")
    copy = partial_path(target).with_name(f"{target.name}.tmp")  # not `.partial`: that may be an unfinished run
    with disk_errors(target):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source, copy)
        _put_in_place(copy, target)


def _put_in_place(source: Path, target: Path) -> None:
    """Rename a folder to `target`. An old one is moved aside first, so that a crash leaves one of the two complete."""
    old = target.with_name(target.name + ".old")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(target, old)
    os.replace(source, target)
    shutil.rmtree(old, ignore_errors=True)


def _identity(kind: str, config: Mapping[str, object], seed: int | None) -> dict[str, Any]:
    """Return the settings that two runs must share for one to resume the other, as read back from JSON."""
    return json.loads(dump_json({"kind": kind, "config": config, "seed": seed, "model_dtype": model_dtype()}))


def _differences(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    """Return the settings in which an unfinished run differs from the one asked for: `k 4 there, 8 asked for`."""
    pairs = {key: (old.get(key), new[key]) for key in new if key != "config"}
    configs = [config if isinstance(config, dict) else {} for config in (old.get("config"), new["config"])]
    pairs |= {key: (configs[0].get(key), configs[1].get(key)) for key in {**configs[0], **configs[1]}}
    lines = [f"{key} {_short(a)} there, {_short(b)} asked for" for key, (a, b) in pairs.items() if a != b]
    return "; ".join(lines[:4]) + (f"; {len(lines) - 4} more" if len(lines) > 4 else "")


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
