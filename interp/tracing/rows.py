"""Rows of direct effects, computed for the readers with the largest influence, in memory or in a file that resumes.

First come the rows of the targets, then, a few batches at a time, those of the latents with the largest influence so
far. In a file the computed rows survive an interruption, and the choice of the next ones is the same as without.
"""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.artifacts import disk_errors, read_json, write_json
from interp.errors import CorruptError
from interp.progress import Progress
from interp.tracing.edges import System, influence_so_far
from interp.tracing.frozen import Starts

BATCHES = 4
"""Batches between two choices of readers; rows of the latents chosen together are computed together."""
VALUES, INDEX = "rows.f32", "rows.json"


def _reserve(path: Path, n_bytes: int) -> None:
    """Make a file with its space reserved on disk: a mapped write without space kills the process (SIGBUS)."""
    with open(path, "wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        else:
            file.truncate(n_bytes)


@dataclass(frozen=True)
class Adjacency:
    """Direct effects between all nodes of one prompt: latents, errors, tokens, targets, in this order."""

    matrix: Float[np.ndarray, "n n"]
    """`[target, source]`"""
    weights: Float[np.ndarray, " n"]
    """weights of the targets, 0 for other nodes"""
    kinds: np.ndarray
    features: Int[np.ndarray, " features"]
    """numbers of the latents in `System`"""
    residue: float
    """largest error of a row's sum, relative to the largest clean value: 0 but for rounding"""

    def row_of_target(self, target: int = 0) -> Float[np.ndarray, " n"]:
        """Return the direct effects on one target, counted from 0."""
        return self.matrix[int((self.kinds != "logit").sum()) + target]


@dataclass
class RowStore:
    """Rows of `n_targets` targets and then of latents, `[rows, n_sources]` float32."""

    n_targets: int
    limit: int
    """most rows of latents"""
    n_sources: int
    folder: Path | None = None
    """where rows are written; None for memory"""
    chosen: list[int] = field(default_factory=list)
    """numbers of the latents that have a row or are next to get one, in order"""
    done: int = 0
    """rows computed, those of targets included"""

    def __post_init__(self) -> None:
        shape = (self.n_targets + self.limit, self.n_sources)
        self.residues = np.zeros(shape[0])
        if self.folder is None:
            self.effects = np.zeros(shape, dtype=np.float32)
            return
        path = self.folder / VALUES
        with disk_errors(path):
            if (self.folder / INDEX).is_file():
                self._resume(shape)
            else:
                path.unlink(missing_ok=True)
            if not path.exists():
                _reserve(path, 4 * shape[0] * shape[1])
            self.effects = np.memmap(path, dtype=np.float32, mode="r+", shape=shape)

    def add(self, effects: Float[Tensor, "rows sources"], residues: Float[Tensor, " rows"]) -> None:
        """Append computed rows, each with the error of its sum against the clean value."""
        end = self.done + len(effects)
        self.effects[self.done : end] = effects.cpu().numpy()
        self.residues[self.done : end] = residues.abs().cpu().numpy()
        self.done = end
        self.save()

    def save(self) -> None:
        if self.folder is not None:
            with disk_errors(self.folder / VALUES):
                self.effects.flush()  # pyright: ignore[reportAttributeAccessIssue] (a memmap)
            residues = self.residues[: self.done].tolist()
            write_json(self.folder / INDEX, {"chosen": self.chosen, "done": self.done, "residues": residues})

    def remove(self) -> None:
        """Delete the files: they are not part of the artefact."""
        if self.folder is not None:
            del self.effects
            for name in (VALUES, INDEX):
                (self.folder / name).unlink(missing_ok=True)

    def _resume(self, shape: tuple[int, int]) -> None:
        assert self.folder is not None
        index, path = read_json(self.folder / INDEX), self.folder / VALUES
        if not path.is_file() or path.stat().st_size != 4 * shape[0] * shape[1]:
            raise CorruptError(f"{path} does not fit {INDEX}; repeat the command with --overwrite")
        self.chosen, self.done = [int(each) for each in index["chosen"]], int(index["done"])
        self.residues[: self.done] = index["residues"]


def compute_rows(
    system: System,
    targets: Starts,
    values: Float[Tensor, " targets"],
    weights: Float[np.ndarray, " targets"],
    store: RowStore,
    *,
    batch_size: int,
    leave_out: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Fill the store. `values` are the clean values of the targets, `leave_out` a latent that is itself the target."""
    layers, started = system.layer.cpu().numpy(), time.time()
    if store.done < store.n_targets:
        order = torch.argsort(targets.layer, descending=True, stable=True)
        found = system.rows(targets.take(order))
        back = torch.argsort(order)
        store.add(found.effects[back], (found.effects.sum(1) + found.constant)[back] - values)
    while True:
        waiting = store.chosen[store.done - store.n_targets :]
        if not waiting:
            waiting = _choose(system, targets, weights, store, layers, batch_size, leave_out)
            if not waiting:
                return
            store.chosen += waiting
            store.save()
        numbers = torch.tensor(waiting[:batch_size], device=system.layer.device)
        numbers = numbers[torch.argsort(system.layer[numbers], descending=True, stable=True)]
        first = store.done - store.n_targets
        store.chosen[first : first + len(numbers)] = numbers.tolist()
        found = system.rows(system.feature_starts(numbers))
        store.add(found.effects, found.effects.sum(1) + found.constant - system.read_values(numbers))
        if progress is not None:
            done, total = store.done - store.n_targets, min(store.limit, system.n_features)
            progress(done, total, {"rows/s": round(done / max(time.time() - started, 1e-9))})


def _choose(
    system: System,
    targets: Starts,
    weights: np.ndarray,
    store: RowStore,
    layers: np.ndarray,
    batch_size: int,
    leave_out: int | None,
) -> list[int]:
    """Return the next latents to get a row: the largest influence so far, in order of position."""
    room = store.limit - len(store.chosen)
    free = np.ones(system.n_features, dtype=bool)
    free[store.chosen] = False
    if leave_out is not None:
        free[leave_out] = False
    if room <= 0 or not free.any():
        return []
    if free.sum() <= room:
        found = np.flatnonzero(free)
    else:
        done = store.effects[: store.done]
        readers = np.concatenate([np.full(store.n_targets, -1), store.chosen])
        depth = np.concatenate([targets.layer.cpu().numpy(), layers[store.chosen]])
        aims = np.concatenate([weights, np.zeros(len(store.chosen))])
        influence = influence_so_far(depth, readers.astype(int), done, _sums(done), aims, system.n_features)
        influence[~free] = 0
        found = np.argsort(-influence, kind="stable")[: min(room, BATCHES * batch_size)]
        found = found[influence[found] > 0]
    position = system.position.cpu().numpy()[found]
    return found[np.lexsort((-layers[found], position))].tolist()


def _sums(effects: Float[np.ndarray, "rows sources"]) -> Float[np.ndarray, " rows"]:
    """Return the sums of absolute effects, without a copy of the whole matrix."""
    parts = np.array_split(effects, max(1, len(effects) // 512))
    return np.concatenate([np.abs(part).sum(1, dtype=np.float64) for part in parts])


def memory_needed(n_rows: int, n_sources: int, n_nodes: int) -> int:
    """Return the bytes that a graph needs at its peak: rows, and the square matrix of its nodes four times."""
    return 4 * (n_rows * n_sources + 4 * n_nodes**2)


def numbers_of(store: RowStore) -> Int[np.ndarray, " rows"]:
    """Return the latents that have a row, in the order of rows after the targets."""
    return np.array(store.chosen[: store.done - store.n_targets], dtype=int)
