"""The run of a study that is shown, its curves as a table, and the maps of its embedding over training."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from interp.atlas.vector_map import VectorMap
from interp.errors import CorruptError, UnknownNameError
from interp.workspace import Workspace


class DynamicsRun(NamedTuple):
    """One seed of one small model."""

    seed: int
    spec: str = ""
    """The model; empty where a study has only one, or shows all of them together."""

    @property
    def label(self) -> str:
        """Model and seed."""
        return f"{self.spec} seed {self.seed}".strip()


def find(runs: Sequence[DynamicsRun], seed: int | None, spec: str = "") -> int:
    """Return the index of the run of a seed and model; without them the first.

    Raises `UnknownNameError` with the known runs, `CorruptError` where a study has none.
    """
    if not runs:
        raise CorruptError("the study has no run: its file was edited or cut short; `workbench verify` checks it")
    fits = [at for at, run in enumerate(runs) if (seed is None or run.seed == seed) and spec in ("", run.spec)]
    if not fits:
        label = f"{spec} seed {'?' if seed is None else seed}".strip()
        raise UnknownNameError("run", label, [run.label for run in runs])
    return fits[0]


def series(workspace: Workspace, name: str) -> VectorMap | None:
    """Return the maps of an embedding over training: the atlas of the same name, if it maps checkpoints."""
    if name not in workspace.names("atlas"):
        return None
    made = workspace.open(VectorMap, name)
    return made if made.settings.source.startswith("checkpoint:") and made.settings.frames else None


def seed_of(series: VectorMap) -> str:
    """Return the seed whose embedding the maps show, from their source; empty where it names none."""
    match = re.search(r"-seed(\d+)-", series.settings.source)
    return match[1] if match else ""


MAX_TABLE_ROWS = 60
"""Steps in a table; of more, evenly spaced ones are shown."""


def curve_rows(steps: np.ndarray, curves: Mapping[str, np.ndarray], unit: str) -> list[dict[str, Any]]:
    """Return some steps of all curves as rows, the first and the last among them; None where not measured."""
    at = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), MAX_TABLE_ROWS)).round().astype(int))
    return [
        {unit: int(steps[i])} | {name: _known(float(values[i])) for name, values in curves.items()} for i in at.tolist()
    ]


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
