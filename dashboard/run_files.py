"""The runs of a workspace on disk, in its folder `runs/`. Torch-free.

`<id>.json` is one run, `<id>.log` its output, and `<id>.progress.json` is written by the running command
(`interp.progress`).
"""

import contextlib
import os
import re
import signal
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from interp.artifacts import read_json, write_json
from interp.errors import WorkbenchError
from interp.forms import from_json
from interp.workspace import Workspace

FOLDER = "runs"
WAITING, RUNNING, DONE = "waiting", "running", "done"
FAILED, CANCELLED, INTERRUPTED = "failed", "cancelled", "interrupted"
ACTIVE = (WAITING, RUNNING)
LOG_LINES = 60
_TAIL = 16_384
_ID = re.compile(r"^\d{4,}-[a-z-]+$")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """One run of the queue, as it is stored."""

    id: str
    verb: str
    options: dict[str, Any]
    state: str
    command: str
    """The command as a reader types it."""
    place: int
    """Its position in the queue."""
    created: float = 0.0
    started: float | None = None
    ended: float | None = None
    made: list[str] = field(default_factory=list)
    """Artefacts that it wrote, as `folder/name`."""
    problem: str = ""
    """The reason of a failure, in a sentence."""
    asked: str = ""
    """State that a visitor asked for while it ran."""


@dataclass(frozen=True, kw_only=True)
class Run(StoredRun):
    """One run of the queue, as the page shows it."""

    fraction: float | None = None
    """Fraction of the present stage that is done, 0 to 1; None when it is not known."""
    stage: str = ""
    seconds_left: float | None = None
    """Estimate for the present stage."""
    log: str = ""
    """Its last lines of output."""

    @property
    def active(self) -> bool:
        """Return True while the run waits or runs."""
        return self.state in ACTIVE


@dataclass(frozen=True, kw_only=True)
class Report:
    """Progress of the running command (`interp.progress`)."""

    stage: str = ""
    done: float | None = None
    total: float | None = None
    first: float = 0.0
    since: float = 0.0
    now: float = 0.0
    made: tuple[str, ...] = ()


class RunFiles:
    """The runs of a workspace on disk, and in memory where this server owns them."""

    def __init__(self, workspace: Workspace):
        self.root, self.folder = workspace.root, workspace.root / FOLDER
        self.records: dict[str, StoredRun] = {}

    def read(self) -> dict[str, StoredRun]:
        """Return the runs on disk, by id, without unreadable ones."""
        found = {}
        for path in sorted(self.folder.glob("*-*.json")) if self.folder.is_dir() else []:
            with contextlib.suppress(WorkbenchError, OSError):
                record = from_json(StoredRun, read_json(path), path, "foreign")
                if record.id == path.stem and _ID.match(path.stem):
                    found[path.stem] = record
        return found

    def save(self, record: StoredRun) -> None:
        """Write a run to disk, then take it into the list."""
        write_json(self.folder / f"{record.id}.json", asdict(record))
        self.records[record.id] = record

    def end(self, record: StoredRun, state: str, problem: str = "") -> None:
        """Write down how a run ended. If that fails, the run ends in memory and the error is raised."""
        ended = replace(record, state=state, problem=problem, ended=time.time(), made=self.made(record))
        self.records[record.id] = ended
        self.save(ended)

    def remove(self, id: str) -> None:
        """Remove a run and its log."""
        del self.records[id]
        for suffix in (".json", ".log", ".progress.json"):
            (self.folder / f"{id}{suffix}").unlink(missing_ok=True)

    def last_place(self) -> int:
        """Return the position at the end of the queue."""
        return max([record.place for record in self.records.values()], default=0) + 1

    def made(self, record: StoredRun) -> list[str]:
        """Return the artefacts that a run wrote, as `folder/name`."""
        found = list(record.made)
        for path in self.progress(record.id).made:
            with contextlib.suppress(ValueError):
                found.append(Path(path).resolve().relative_to(self.root.resolve()).as_posix())
        return list(dict.fromkeys(found))

    def progress(self, id: str) -> Report:
        """Return the report of the running command; empty before the first."""
        path = self.folder / f"{id}.progress.json"
        with contextlib.suppress(WorkbenchError, OSError):
            return from_json(Report, read_json(path), path, "foreign")
        return Report()

    def run_of(self, record: StoredRun) -> Run:
        """Return a run as the page shows it."""
        run = Run(**vars(record), log=self.log(record.id), fraction=1.0 if record.state == DONE else None)
        if record.state != RUNNING:
            return run
        report = self.progress(record.id)
        stage = "stopping" if record.asked else report.stage or "starting"
        fraction, left = how_far(report)
        return replace(run, made=self.made(record), stage=stage, fraction=fraction, seconds_left=left)

    def log(self, id: str) -> str:
        """Return the last lines that a run printed, as plain text."""
        try:
            with open(self.folder / f"{id}.log", "rb") as handle:
                handle.seek(max(0, handle.seek(0, os.SEEK_END) - _TAIL))
                text = handle.read().decode("utf-8", "replace")
        except OSError:
            return ""
        lines = [line.rpartition("\r")[2] for line in _ESCAPES.sub("", text).replace("\r\n", "\n").split("\n")]
        return "\n".join(lines[-LOG_LINES:]).strip("\n")

    def reason(self, id: str, code: int) -> str:
        """Return the reason of a failure: the error of the command, which is its last line."""
        if code < 0:
            return f"It was ended by {signal.Signals(-code).name}."
        last = next((line for line in reversed(self.log(id).splitlines()) if line.strip()), "")
        return last.removeprefix("workbench: ") or f"It ended with exit code {code}."


def how_far(report: Report) -> tuple[float | None, float | None]:
    """Return the fraction of the present stage that is done, and the seconds that it still needs; None for not known.

    >>> how_far(Report(done=30, total=40, first=10, since=100.0, now=104.0))
    (0.75, 2.0)
    """
    done, total = report.done, report.total
    if done is None or total is None or total <= 0:
        return None, None
    moved = done - report.first
    left = (report.now - report.since) * (total - done) / moved if moved > 0 else None
    return min(1.0, max(0.0, done / total)), left
