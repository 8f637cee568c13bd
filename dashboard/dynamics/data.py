"""A dynamics artefact as the page reads it: runs, their curves, the power of frequencies, the series of maps."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.artifacts import Manifest, read_json
from interp.errors import CorruptError, MissingError, UnknownNameError
from interp.workspace import Workspace

MAX_ROWS = 500_000
"""Rows read of one run; curves have some hundred steps."""


@dataclass(frozen=True)
class Run:
    """One seed of one small model."""

    seed: int
    spec: str
    """The model; empty for grokking, which has only one."""
    found: dict[str, Any]
    """its entry in the manifest's summary"""

    @property
    def label(self) -> str:
        return f"{self.spec} seed {self.seed}".strip()


@dataclass(frozen=True)
class Curves:
    """Curves of one run by name, all over the same steps."""

    steps: np.ndarray
    values: dict[str, np.ndarray]
    """NaN where a curve has no value"""

    def get(self, name: str) -> np.ndarray:
        """Return a curve by name; NaN at every step when there is none."""
        return self.values.get(name, np.full(len(self.steps), np.nan))


@dataclass(frozen=True)
class Shares:
    """Power of every frequency over training, 0 none to 1 all: `[n_steps, n_frequencies]`, frequencies from 1."""

    steps: np.ndarray
    logits: np.ndarray
    embedding: np.ndarray


def runs(manifest: Manifest) -> list[Run]:
    """Return every run, in the order of the manifest. Raises `CorruptError` when there is none."""
    raw = [
        run for run in manifest.summary.get("runs") or [] if isinstance(run, dict) and isinstance(run.get("seed"), int)
    ]
    if not raw:
        raise CorruptError(f"the manifest of the study {manifest.name!r} names no run; it was edited or cut short")
    if manifest.kind == "language_scaling":  # its runs are sizes; the page shows one seed with all of them
        return [Run(seed, "", {"runs": [run for run in raw if run["seed"] == seed]}) for seed in _seeds(raw)]
    return [Run(run["seed"], str(run.get("spec") or ""), run) for run in raw]


def find(found: list[Run], seed: int | None, spec: str = "") -> Run:
    """Return the run of a seed and model; without them the first. Raises `UnknownNameError` with the known runs."""
    fits = [run for run in found if (seed is None or run.seed == seed) and spec in ("", run.spec)]
    if not fits:
        asked = f"{spec} seed {'?' if seed is None else seed}".strip()
        raise UnknownNameError("run", asked, [run.label for run in found])
    return fits[0]


def control(found: list[Run], run: Run) -> Run | None:
    """Return the control of a run: another model on the same data, of the same seed if there is one, else the first."""
    others = [other for other in found if other.spec != run.spec]
    return next((other for other in others if other.seed == run.seed), others[0] if others else None)


def curves(workspace: Workspace, manifest: Manifest, run: Run) -> Curves:
    """Return the curves of a run, from `curves.parquet`. Raises `CorruptError` when there are none."""
    path = workspace.table_path(manifest.kind, manifest.name, "curves")
    where, given = ("and spec = ?", [run.spec]) if run.spec else ("", [])
    sql = f"select step, curve, value from c where seed = ? {where} order by step limit {MAX_ROWS}"
    table = workspace.query(sql, run.seed, *given, c=path)
    if not len(table):
        raise CorruptError(f"{path} holds no curve of {run.label}; `workbench verify` checks it")
    step, curve = table["step"].to_numpy(), np.array(table["curve"].to_pylist())
    value = table["value"].to_numpy().astype(float)
    steps = np.unique(step)
    values = {}
    for each in dict.fromkeys(curve.tolist()):
        values[each] = np.full(len(steps), np.nan)
        mine = curve == each
        values[each][np.searchsorted(steps, step[mine])] = value[mine]
    return Curves(steps, values)


def aligned(mine: Curves, other: Curves) -> tuple[np.ndarray, Curves, Curves]:
    """Return the curves of two runs over the steps of both; NaN where one was not measured."""
    steps = np.union1d(mine.steps, other.steps)
    return steps, _over(mine, steps), _over(other, steps)


def shares(workspace: Workspace, name: str, seed: int) -> Shares:
    """Return the power of frequencies of a seed, from `shares.parquet`. Raises `CorruptError` when there is none."""
    path = workspace.table_path("grokking", name, "shares")
    sql = f"select step, frequency, logits, embedding from s where seed = ? order by step, frequency limit {MAX_ROWS}"
    table = workspace.query(sql, seed, s=path)
    steps, at = np.unique(table["step"].to_numpy(), return_inverse=True)
    frequency = table["frequency"].to_numpy()
    if not len(steps) or frequency.min() < 1:
        raise CorruptError(f"{path} holds no frequencies of seed {seed}; `workbench verify` checks it")
    grids = {}
    for column in ("logits", "embedding"):
        grids[column] = np.full((len(steps), int(frequency.max())), np.nan)
        grids[column][at, frequency - 1] = table[column].to_numpy()
    return Shares(steps, **grids)


def scaling(workspace: Workspace, name: str) -> dict[str, Any]:
    """Return the law of several sizes, from `scaling.json`. Raises `CorruptError` when it is missing."""
    path = workspace.path("language_scaling", name) / "scaling.json"
    try:
        return read_json(path)
    except MissingError:
        raise CorruptError(f"{path} is missing from the artefact; `workbench verify` lists what else is") from None


def series(workspace: Workspace, name: str) -> Manifest | None:
    """Return the maps of an embedding over training: the atlas of the same name, if it maps checkpoints."""
    if name not in workspace.names("atlas"):
        return None
    manifest = workspace.manifest("atlas", name)
    made_here = str(manifest.config.get("source", "")).startswith("checkpoint:")
    return manifest if made_here and manifest.summary.get("frames") else None


def seed_of(series: Manifest) -> str:
    """Return the seed whose embedding the maps show, from their source; empty where it names none."""
    found = re.search(r"-seed(\d+)-", str(series.config.get("source", "")))
    return found[1] if found else ""


def _seeds(runs: list[dict[str, Any]]) -> list[int]:
    return list(dict.fromkeys(run["seed"] for run in runs))


def _over(curves: Curves, steps: np.ndarray) -> Curves:
    values = {}
    for name, value in curves.values.items():
        values[name] = np.full(len(steps), np.nan)
        values[name][np.searchsorted(steps, curves.steps)] = value
    return Curves(steps, values)


MAX_TABLE_ROWS = 60
"""Steps in a table; of more, evenly spaced ones are shown."""


def curve_rows(steps: np.ndarray, curves: dict[str, np.ndarray], unit: str) -> list[dict[str, Any]]:
    """Return some steps of all curves as rows, the first and the last among them; None where not measured."""
    at = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), MAX_TABLE_ROWS)).round().astype(int))
    return [
        {unit: int(steps[i])} | {name: _known(float(values[i])) for name, values in curves.items()} for i in at.tolist()
    ]


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
