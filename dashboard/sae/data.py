"""The dictionaries of a workspace, finished and in training: settings, progress, and quality.

A training log is read while it is written: as many lines as a figure can show, without damaged ones. Quality is
compared at one hook point, inside the model, by the density of features, and by a law of size.
"""

import calendar
import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dashboard.answers import is_object
from dashboard.figures.scaling import Densities, DictionaryPoint
from dashboard.figures.theme import number
from dashboard.sources import NothingYetError
from interp.artifacts import LOG, STATUS, Manifest, partial_path, read_json
from interp.errors import CorruptError, UnknownNameError, WorkbenchError
from interp.forms import from_json
from interp.workspace import Partial, Workspace
from saes.evaluation.evaluation import SAEEvaluation
from saes.evaluation.sae_comparison import SAEComparison
from saes.evaluation.scaling import SizeLaw
from saes.evaluation.scores import InModel
from saes.features.schema import Features
from saes.kinds.config import KConfig, SAEConfig
from saes.sets.stored import LayerScores, StoredSet, TrainedSetSettings
from saes.training.config import DENSE, TrainConfig
from saes.training.stored import Reconstruction, StoredSAE, TrainedSettings, kind_of
from saes.weights.imported import ImportedSettings

MAX_LINES = 400
"""Most lines of a log in a figure: more than the pixels of a screen."""
Row = dict[str, Any]
Settings = TrainedSettings | ImportedSettings | TrainedSetSettings


@dataclass(frozen=True)
class Log:
    """Health lines, by step."""

    rows: list[Row] = field(default_factory=list)
    unreadable: int = 0
    """lines that are not a JSON object with a step; an incomplete last line is being written and does not count"""


def fingerprint(path: Path) -> str:
    """Return a text that changes whenever the log does; empty without a log."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def read_log(path: Path) -> Log:
    """Read `MAX_LINES` evenly spaced lines of a log, the first and last among them; an absent log is an empty one.

    `path` is the file `log.jsonl` of a dictionary.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return Log()
    if _parse(lines[-1]) is None:
        lines.pop()  # empty, or being written
    lines = [line for line in lines if line.strip()]
    if len(lines) > MAX_LINES:
        lines = [lines[round(i * (len(lines) - 1) / (MAX_LINES - 1))] for i in range(MAX_LINES)]
    rows = [row for line in lines if (row := _parse(line)) is not None]
    by_step = {row["step"]: row for row in rows}
    return Log([by_step[step] for step in sorted(by_step)], len(lines) - len(rows))


def first_not_finite(rows: Iterable[Row]) -> Row | None:
    """Return the first line whose loss is not finite, from which on the training is lost; else None."""
    return next((row for row in rows if "loss" in row and number(row["loss"]) is None), None)


def _parse(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = is_object(row) and number(row.get("step")) is not None and number(row.get("tokens")) is not None
    return row if known else None


State = Literal["training", "finishing", "silent", "finished", "broken"]
_ORDER: tuple[State, ...] = ("training", "finishing", "silent", "broken", "finished")
MAX_OVERLAID = 8
"""Runs in one figure of training curves."""
SILENT_AFTER = 120.0
"""Seconds without a new line after which a run counts as silent; more if its lines are far apart."""
FINISHING_AFTER = 900.0
"""the same once every token was seen: a large dictionary takes a while to be scored and written"""


@dataclass(frozen=True)
class Entry:
    """One dictionary."""

    name: str
    state: State
    settings: Settings | None = None
    """None where it cannot be read"""
    stored: StoredSAE | None = None
    """the stored artefact, if it is finished and not a layer of a set"""
    hook_point: str = ""
    d_sae: int | None = None
    scores: Reconstruction | LayerScores | None = None
    """on held-out documents"""
    progress: dict[str, Any] = field(default_factory=dict)
    """in training: its last health line and `total_tokens`"""
    when: str = ""
    """time at which it finished, or of its last log line (UTC)"""
    quiet: float = 0.0
    """seconds since the last log line"""
    seconds_left: float | None = None
    pid: int | None = None
    problem: str = ""
    replaces: bool = False
    """True when it will replace a finished dictionary of the same name"""
    path: Path | None = None
    """folder of one layer of a set of transcoders; None for an SAE"""

    @property
    def unfinished(self) -> bool:
        return self.state in ("training", "finishing", "silent")

    @property
    def imported(self) -> bool:
        return isinstance(self.settings, ImportedSettings)

    @property
    def kind(self) -> str:
        """The kind that it was trained as, or the architecture of an imported dictionary."""
        if self.stored is not None:
            name, value = kind_of(self.stored.settings, self.stored.architecture)
            return f"{name} {value}" if self.imported else value
        return self.sae.kind if self.sae else ""

    @property
    def model(self) -> str:
        return self.settings.model if self.settings else ""

    @property
    def sae(self) -> SAEConfig | None:
        """Settings of its kind; None for an imported one."""
        return self.settings.sae if isinstance(self.settings, TrainedSettings | TrainedSetSettings) else None

    @property
    def train(self) -> TrainConfig | None:
        """Settings of its training; None for an imported one."""
        return self.settings.train if isinstance(self.settings, TrainedSettings | TrainedSetSettings) else None

    @property
    def recording(self) -> str:
        """Recording that it was trained on; empty for an imported one."""
        return self.settings.recording if isinstance(self.settings, TrainedSettings | TrainedSetSettings) else ""

    @property
    def k(self) -> int | None:
        return self.sae.k if isinstance(self.sae, KConfig) else None

    @property
    def stream(self) -> tuple[Any, ...] | None:
        """Settings that runs on one reading of the data share; None for an imported one and for a layer of a set."""
        of = self.settings
        if not isinstance(of, TrainedSettings):
            return None
        train = of.train
        return (of.recording_hashes, of.sites, train.tokens, train.batch_size, train.seed, train.heldout_fraction)

    @property
    def share(self) -> float | None:
        """Fraction of the training that is done, 0 to 1."""
        done, total = number(self.progress.get("tokens")), number(self.progress.get("total_tokens"))
        if done is None:
            done, total = number(self.progress.get("done")), number(self.progress.get("total"))
        return min(done / total, 1.0) if done is not None and total else None


def entries(workspace: Workspace, *, now: float | None = None) -> list[Entry]:
    """Return every dictionary: those in training first, then unreadable ones, then the newest."""
    now = time.time() if now is None else now
    partials = {p.name: p for p in workspace.partials() if p.kind == "sae"}
    names = workspace.names("sae")
    running = [_unfinished(p, p.name in names, now) for p in partials.values()]
    entries = [_with_time_left(entry, running) for entry in running]
    entries += [_whole(workspace, name) for name in names if name not in partials]
    entries += _layers(workspace, now)
    entries.sort(key=lambda entry: entry.when, reverse=True)
    return sorted(entries, key=lambda entry: _ORDER.index(entry.state))


def choose(workspace: Workspace, name: str | None, entries: list[Entry]) -> Entry:
    """Return the dictionary called `name`; without a name, one that is in training, else the newest readable one.

    Raises `UnknownNameError` with the nearest names, and `NothingYetError` when there are no dictionaries.
    """
    if name:
        workspace.path("sae", name)  # refuses what is no name
        match = next((entry for entry in entries if entry.name == name), None)
        if match is None:
            raise UnknownNameError("SAE", name, [entry.name for entry in entries], f"(workspace {workspace.root})")
        return match
    if not entries:
        raise NothingYetError("no dictionary was trained or imported in this workspace yet")
    order = ("training", "finishing", "finished", "silent", "broken")
    return min(entries, key=lambda entry: order.index(entry.state))


def folder(workspace: Workspace, entry: Entry) -> Path:
    """Return the folder that holds its files now."""
    if entry.path is not None:
        return entry.path
    path = workspace.path("sae", entry.name)
    return partial_path(path) if entry.unfinished else path


def log_path(workspace: Workspace, entry: Entry) -> Path:
    """Return the path of its training log (imported ones have none)."""
    return folder(workspace, entry) / LOG


def sweep(workspace: Workspace, entry: Entry, entries: Iterable[Entry]) -> list[Entry]:
    """The entry first, then others with a log that read the same batches, most alike first; at most `MAX_OVERLAID`."""
    if entry.stream is None:
        return [entry]
    others = [
        run
        for run in entries
        if run.name != entry.name and run.stream == entry.stream and log_path(workspace, run).is_file()
    ]
    others.sort(key=lambda run: (run.kind != entry.kind, run.d_sae != entry.d_sae, run.d_sae or 0, run.k or 0))
    return [entry, *others[: MAX_OVERLAID - 1]]


def _layers(workspace: Workspace, now: float) -> list[Entry]:
    """Return every layer of the sets of transcoders, finished or in training, as `SET.layer-3`."""
    entries: list[Entry] = []
    for made in workspace.values(StoredSet):
        if made.scores is None:
            continue
        for row in made.scores.layers:
            path = made.folder / "runs"
            entries.append(
                Entry(
                    f"{made.name}.layer-{row.layer}",
                    "finished",
                    settings=made.settings if isinstance(made.settings, TrainedSetSettings) else None,
                    hook_point=f"blocks.{row.layer}.{made.reads}",
                    d_sae=made.d_sae,
                    scores=row,
                    when=made.about.created,
                    path=path if made.cross_layer else path / f"layer_{row.layer}",
                )
            )
    for partial in (p for p in workspace.partials() if p.kind == StoredSet.kind):
        for folder in partial_path(workspace.path(partial.kind, partial.name)).glob("runs/layer_*.partial"):
            with contextlib.suppress(WorkbenchError):
                layer = folder.name.removeprefix("layer_").removesuffix(".partial")
                inner = Partial("sae", f"{partial.name}.layer-{layer}", read_json(folder / STATUS))
                entries.append(replace(_unfinished(inner, False, now), path=folder))
    return entries


def _whole(workspace: Workspace, name: str) -> Entry:
    try:
        made = workspace.open(StoredSAE, name)
    except WorkbenchError as error:
        return Entry(name, "broken", problem=str(error))
    return Entry(
        name,
        "finished",
        settings=made.settings,
        stored=made,
        hook_point=made.hook_point,
        d_sae=made.d_sae,
        scores=made.heldout,
        when=made.about.created,
    )


def _unfinished(partial: Partial, replaces: bool, now: float) -> Entry:
    status = partial.status
    if status.get("state") == "unreadable":
        return Entry(partial.name, "broken", problem=str(status.get("problem", "")))
    progress = _dict(status.get("progress"))
    try:
        settings = from_json(TrainedSettings, status.get("config"), f"{STATUS} of {partial.name}, config")
    except WorkbenchError as error:
        return Entry(partial.name, "broken", problem=str(error))
    when = str(status.get("updated") or status.get("started") or "")
    quiet = max(0.0, now - _seconds(when))
    pid = status.get("pid")
    entry = Entry(
        partial.name,
        "training",
        settings=settings,
        hook_point=settings.hook_point,
        d_sae=settings.sae.d_sae,
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
    """Add the time left; runs of one process take turns, so each waits for all of them."""
    if entry.state != "training":
        return entry
    together = [e for e in running if e.state == "training" and (e is entry or (e.pid and e.pid == entry.pid))]
    left = [_seconds_left(run) for run in together]
    known = [seconds for seconds in left if seconds is not None]
    return replace(entry, seconds_left=sum(known) if known and len(known) == len(left) else None)


def _seconds_left(entry: Entry) -> float | None:
    speed, total = number(entry.progress.get("tokens_per_second")), number(entry.progress.get("total_tokens"))
    done = number(entry.progress.get("tokens"))
    return (total - done) / speed if speed and total and done is not None else None


def _seconds_per_line(entry: Entry) -> float:
    speed, step = number(entry.progress.get("tokens_per_second")), number(entry.progress.get("step"))
    tokens, every = number(entry.progress.get("tokens")), entry.train.log_every if entry.train else 10
    return tokens / step * every / speed if speed and step and tokens else 0.0


def _seconds(when: str) -> float:
    """Return a time of a manifest in seconds since 1970; 0 when it is malformed."""
    try:
        return calendar.timegm(time.strptime(when, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return 0.0


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


BINS_PER_DECADE = 5


def points(workspace: Workspace, entry: Entry, entries: Iterable[Entry]) -> list[DictionaryPoint]:
    """Return the scored dictionaries of the same model and hook point, and the baselines of comparisons."""
    source = (entry.model, entry.hook_point)
    peers = [e for e in entries if e.state == "finished" and (e.model, e.hook_point) == source]
    shown = [point for e in peers if (point := _point(workspace, e))]
    return shown + _baselines(workspace, {e.name for e in peers})


def evaluations(workspace: Workspace, name: str) -> list[SAEEvaluation]:
    """Return the evaluations of a dictionary, newest first."""
    return [evaluation for evaluation in workspace.values(SAEEvaluation) if evaluation.settings.sae == name]


def in_the_model(workspace: Workspace, name: str) -> tuple[InModel, str] | None:
    """Return the scores inside the model on most tokens, and the name of the artefact that has them; None without one.

    Among as many tokens the newest evaluation counts; comparisons do where no evaluation has such scores.
    """
    scored = [(each.in_model, each.name) for each in evaluations(workspace, name) if each.in_model is not None]
    if scored:
        return max(scored, key=lambda pair: pair[0].n_tokens)
    for comparison in comparisons(workspace):
        row = comparison.of(name)
        if row is not None and row.model is not None:
            return row.model, comparison.name
    return None


def described(workspace: Workspace, name: str) -> list[Manifest]:
    """Return the feature tables and maps made from this dictionary."""
    made = (manifest for kind in ("features", "atlas") for manifest in workspace.artifacts(kind))
    return [manifest for manifest in made if f"saes/{name}" in manifest.parents]


def densities(workspace: Workspace, features: str) -> Densities:
    """Count features per fifth of a decade of firing density."""
    path = workspace.table_path("features", features, "features")
    sql = """select floor(log10(density) * ?)::int as bin, count(*)::int as n
             from f where density > 0 group by 1 order by 1"""
    filled = workspace.query(sql, BINS_PER_DECADE, f=path).to_pylist()
    rest = workspace.query(
        "select count(*) filter (density = 0)::int as dead, count(*) filter (density > ?)::int as dense from f",
        DENSE,
        f=path,
    ).to_pylist()[0]
    low, high = (filled[0]["bin"], filled[-1]["bin"]) if filled else (0, -1)
    counts = np.zeros(high - low + 1, int)
    for row in filled:
        counts[row["bin"] - low] = row["n"]
    edges = (np.arange(low, high + 2) / BINS_PER_DECADE).tolist()
    n_tokens = workspace.open(Features, features).n_tokens
    return Densities(edges, counts.tolist(), rest["dead"], rest["dense"], n_tokens)


def scaling(workspace: Workspace, name: str) -> SizeLaw | None:
    """Return the newest size law that includes this dictionary; None without one, or where its runs are damaged."""
    for law in workspace.values(SizeLaw):
        with contextlib.suppress(CorruptError):
            if name in (run.name for run in law.runs):
                return law
    return None


def _point(workspace: Workspace, entry: Entry) -> DictionaryPoint | None:
    scores, recording = entry.scores, entry.recording
    if scores is None and (scored := evaluations(workspace, entry.name)):  # an imported one has none of its own
        scores, recording = scored[0].heldout, scored[0].settings.recording
    if scores is None or scores.l0 <= 0 or scores.fvu <= 0:
        return None
    return DictionaryPoint(entry.name, entry.kind, scores.l0, scores.fvu, entry.d_sae, entry.k, recording)


def _baselines(workspace: Workspace, names: set[str]) -> list[DictionaryPoint]:
    """Return the baselines of the newest comparison that includes any of these dictionaries."""
    for comparison in comparisons(workspace):
        if names.isdisjoint(row.name for row in comparison.rows):
            continue
        recording = comparison.settings.recording
        return [
            DictionaryPoint(row.name, "baseline", row.own.l0, row.own.fvu, recording=recording, baseline=True)
            for row in comparison.rows
            if row.baseline and row.own.l0 > 0 and row.own.fvu > 0
        ]
    return []


def comparisons(workspace: Workspace) -> Iterator[SAEComparison]:
    """Yield the comparisons of dictionaries, newest first; one that cannot be read is passed over (the overview lists
    it)."""
    for comparison in workspace.values(SAEComparison):
        with contextlib.suppress(CorruptError):
            _ = comparison.rows  # in a file of its own
            yield comparison
