"""The dictionaries of a workspace, finished and in training: what each is, how far it has come, how good it is."""

import calendar
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from dashboard.views.sae_log import LOG, number
from interp.artifacts import partial_path
from interp.errors import MissingError, UnknownNameError, WorkbenchError
from interp.workspace import Partial, Workspace

State = Literal["training", "finishing", "silent", "finished", "broken"]
_ORDER: tuple[State, ...] = ("training", "finishing", "silent", "broken", "finished")
MAX_OVERLAID = 8
"""runs in one health figure"""
SILENT_AFTER = 120.0
"""seconds without a sign of life after which a run is called silent; more where its lines come slowly"""
FINISHING_AFTER = 900.0
"""the same once every token was seen: a large dictionary takes a while to be scored and written"""
_STREAM = ("recording", "recording_hash", "hook_point", "places", "tokens", "batch_size", "seed", "heldout_fraction")
"""settings that runs on one reading of the data share"""


@dataclass(frozen=True)
class Entry:
    """One dictionary."""

    name: str
    state: State
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    """of a finished one"""
    progress: dict[str, Any] = field(default_factory=dict)
    """of one in training: its last health line, `total_tokens`"""
    parents: dict[str, str] = field(default_factory=dict)
    when: str = ""
    """finished, or last sign of life (UTC)"""
    quiet: float = 0.0
    """seconds since the last sign of life"""
    seconds_left: float | None = None
    pid: int | None = None
    problem: str = ""
    replaces: bool = False
    """whether a finished dictionary of this name is there until this one is whole"""

    @property
    def unfinished(self) -> bool:
        return self.state in ("training", "finishing", "silent")

    @property
    def imported(self) -> bool:
        return "format" in self.config

    @property
    def kind(self) -> str:
        """How it was trained; of an imported one, what it is."""
        return str(self.summary.get("architecture", "") if self.imported else self.config.get("kind", ""))

    @property
    def hook_point(self) -> str:
        return str(self.summary.get("hook_point") or self.config.get("hook_point") or "")

    @property
    def d_sae(self) -> int | None:
        found = self.summary.get("d_sae") or self.config.get("d_sae")
        return found if isinstance(found, int) else None

    @property
    def k(self) -> int | None:
        found = self.config.get("k")
        return found if isinstance(found, int) else None

    @property
    def heldout(self) -> dict[str, Any]:
        """Scores on documents that it never saw, where there are any."""
        found = self.summary.get("heldout")
        return found if isinstance(found, dict) else {}

    @property
    def share(self) -> float | None:
        """How much of the training is done, 0 to 1."""
        done, total = number(self.progress.get("tokens")), number(self.progress.get("total_tokens"))
        if done is None:
            done, total = number(self.progress.get("done")), number(self.progress.get("total"))
        return min(done / total, 1.0) if done is not None and total else None


def entries(workspace: Workspace, *, now: float | None = None) -> list[Entry]:
    """Every dictionary: those in training first, then what cannot be read, then the newest."""
    now = time.time() if now is None else now
    partials = {p.name: p for p in workspace.partials() if p.kind == "sae"}
    names = workspace.names("sae")
    running = [_unfinished(p, p.name in names, now) for p in partials.values()]
    found = [_with_time_left(entry, running) for entry in running]
    found += [_whole(workspace, name) for name in names if name not in partials]
    found.sort(key=lambda entry: entry.when, reverse=True)
    return sorted(found, key=lambda entry: _ORDER.index(entry.state))


def choose(workspace: Workspace, name: str | None, found: list[Entry]) -> Entry:
    """The dictionary called `name`; without one, a run that goes on, else the newest that can be read.

    Raises `UnknownNameError` with the nearest names, `MissingError` with the command when there are none.
    """
    if name:
        workspace.path("sae", name)  # refuses what is no name
        match = next((entry for entry in found if entry.name == name), None)
        if match is None:
            raise UnknownNameError("SAE", name, [entry.name for entry in found], f"(workspace {workspace.root})")
        return match
    if not found:
        raise MissingError(
            "no dictionaries here yet; `workbench train RECORDING` learns one, `workbench import` brings one"
        )
    order = ("training", "finishing", "finished", "silent", "broken")
    return min(found, key=lambda entry: order.index(entry.state))


def folder(workspace: Workspace, entry: Entry) -> Path:
    """Where its files are now."""
    path = workspace.path("sae", entry.name)
    return partial_path(path) if entry.unfinished else path


def log_path(workspace: Workspace, entry: Entry) -> Path:
    """Its health log (imported ones have none)."""
    return folder(workspace, entry) / LOG


def sweep(workspace: Workspace, entry: Entry, found: Iterable[Entry]) -> list[Entry]:
    """The entry first, then others with a log that read the same batches, most alike first; at most `MAX_OVERLAID`."""
    stream = [entry.config.get(key) for key in _STREAM]
    if entry.imported or not entry.config.get("recording"):
        return [entry]
    others = [
        other
        for other in found
        if other.name != entry.name
        and not other.imported
        and [other.config.get(key) for key in _STREAM] == stream
        and log_path(workspace, other).is_file()
    ]
    others.sort(
        key=lambda other: (other.kind != entry.kind, other.d_sae != entry.d_sae, other.d_sae or 0, other.k or 0)
    )
    return [entry, *others[: MAX_OVERLAID - 1]]


def _whole(workspace: Workspace, name: str) -> Entry:
    try:
        found = workspace.manifest("sae", name)
    except WorkbenchError as error:
        return Entry(name, "broken", problem=str(error))
    return Entry(name, "finished", found.config, found.summary, parents=found.parents, when=found.created)


def _unfinished(partial: Partial, replaces: bool, now: float) -> Entry:
    status = partial.status
    if status.get("state") == "unreadable":
        return Entry(partial.name, "broken", problem=str(status.get("problem", "")))
    config, progress = _dict(status.get("config")), _dict(status.get("progress"))
    when = str(status.get("updated") or status.get("started") or "")
    quiet = max(0.0, now - _seconds(when))
    pid = status.get("pid")
    entry = Entry(
        partial.name,
        "training",
        config,
        progress=progress,
        when=when,
        quiet=quiet,
        pid=pid if isinstance(pid, int) else None,
        replaces=replaces,
    )
    share = entry.share
    state: State = "finishing" if share is not None and share >= 1 else "training"
    patience = FINISHING_AFTER if state == "finishing" else max(SILENT_AFTER, 20 * _seconds_per_line(entry))
    return replace(entry, state="silent" if quiet > patience else state)


def _with_time_left(entry: Entry, running: list[Entry]) -> Entry:
    """Runs of one process take turns, so what is left of any of them is left for all."""
    if entry.state != "training":
        return entry
    together = [e for e in running if e.state == "training" and (e is entry or (e.pid and e.pid == entry.pid))]
    left = [_seconds_left(each) for each in together]
    known = [seconds for seconds in left if seconds is not None]
    return replace(entry, seconds_left=sum(known) if known and len(known) == len(left) else None)


def _seconds_left(entry: Entry) -> float | None:
    speed, total = number(entry.progress.get("tokens_per_second")), number(entry.progress.get("total_tokens"))
    done = number(entry.progress.get("tokens"))
    return (total - done) / speed if speed and total and done is not None else None


def _seconds_per_line(entry: Entry) -> float:
    speed, step = number(entry.progress.get("tokens_per_second")), number(entry.progress.get("step"))
    tokens, every = number(entry.progress.get("tokens")), number(entry.config.get("log_every"))
    return tokens / step * (every or 10) / speed if speed and step and tokens else 0.0


def _seconds(when: str) -> float:
    """Seconds since 1970 of a time as manifests write it; 0 when it cannot be read."""
    try:
        return calendar.timegm(time.strptime(when, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return 0.0


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
