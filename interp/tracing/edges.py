"""Direct effects of every source on chosen readers, in the frozen model; and the choice of readers by influence.

    system = System(frozen, replacement)
    rows = system.rows(system.feature_starts(numbers))      # [rows, n_sources], and the constant share of each

Sources are numbered: latents by layer and position, then error nodes by layer and position, then tokens. The row of a
reader holds the direct effect of each source's value on what the reader reads. A row plus its constant share is exactly
the clean value of the reader; `interp.tracing.trace` reports the error.

**Which rows** (`compute_rows`): those of the readers with the largest influence, in memory or in a file that resumes.
First come the rows of the targets, then, a few batches at a time, those of the latents with the largest influence so
far. In a file the computed rows survive an interruption, and the choice of the next ones is the same as without.
"""

import os
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.artifacts import disk_errors, read_json, write_json
from interp.errors import ConfigError, CorruptError, NonFiniteError
from interp.progress import Progress
from interp.tracing.frozen import FrozenModel, Starts, Visit, dots
from interp.tracing.replacement import LayerLatents, Replacement

if TYPE_CHECKING:
    from interp.tracing.graph import GraphNode


class ReaderEffects(NamedTuple):
    """Direct effects on some readers."""

    effects: Float[Tensor, "rows sources"]
    constant: Float[Tensor, " rows"]
    """share of each value that belongs to no source: biases, MLPs of the first positions, position embeddings"""
    positions: Float[Tensor, " rows"]
    """that of position embeddings alone"""


class _Writes(NamedTuple):
    """Rows of one position of one MLP's output, and the sources that they belong to."""

    columns: slice
    position: int
    vectors: Float[Tensor, "n d_model"]


@dataclass
class System:
    """Sources of one prompt and what they write, ready for batches of readers."""

    frozen: FrozenModel
    replacement: Replacement
    layer: Int[Tensor, " features"] = field(init=False)
    position: Int[Tensor, " features"] = field(init=False)
    latent: Int[Tensor, " features"] = field(init=False)
    activation: Float[Tensor, " features"] = field(init=False)
    errors: Float[Tensor, "n_layers pos d_model"] = field(init=False)
    """clean MLP outputs less their reconstruction, before post-norms"""

    def __post_init__(self) -> None:
        frozen = self.frozen = copy(self.frozen)  # whose skip connections are those of this replacement
        n = frozen.shape.n_layers
        self.replacement.prepare(frozen)
        frozen.skips = [self.replacement.skip(layer) for layer in range(n)]
        self._active = [self.replacement.active(layer) for layer in range(n)]
        counts = [len(active.latent) for active in self._active]
        self._first = np.concatenate([[0], np.cumsum(counts)]).tolist()
        device = frozen.embedding.device
        self.layer = torch.repeat_interleave(torch.arange(n), torch.tensor(counts)).to(device)
        self.position, self.latent, self.activation = (
            torch.cat([getattr(active, name) for active in self._active]) for name in LayerLatents._fields
        )
        self._written = [self._writes_to(target) for target in range(n)]
        self.errors, self._constants = self._split_outputs()
        if not all(value.isfinite().all() for value in (self.activation, self.errors)):
            raise NonFiniteError(f"{self.replacement.name} gives values that are not finite on this prompt")

    @property
    def n_features(self) -> int:
        return len(self.latent)

    @property
    def n_errors(self) -> int:
        return self.errors.shape[0] * self.errors.shape[1]

    @property
    def n_sources(self) -> int:
        """Number of latents, error nodes and tokens."""
        return self.n_features + self.n_errors + self.frozen.n_pos

    @cached_property
    def _number(self) -> dict[tuple[int, int, int], int]:
        """Map layer, position and latent to the number of each active latent."""
        columns = (self.layer, self.position, self.latent)
        return {key: at for at, key in enumerate(zip(*(column.tolist() for column in columns), strict=True))}

    def source_numbers(self, nodes: "Sequence[GraphNode]") -> Int[Tensor, " nodes"]:
        """Return the numbers of nodes of a graph as sources. Raises `ConfigError` for a latent that is not active."""
        n, n_pos, found = self.n_features, self.frozen.n_pos, []
        for node in nodes:
            latent = self._number.get((node.layer, node.position, node.index)) if node.kind == "feature" else -1
            if latent is None:
                raise ConfigError(f"{node.id} is not an active latent of this prompt and dictionary")
            error = n + node.layer * n_pos + node.position
            found.append({"error": error, "token": n + self.n_errors + node.position}.get(node.kind, latent))
        return torch.tensor(found, dtype=torch.long)

    def feature_starts(self, numbers: Int[Tensor, " rows"]) -> Starts:
        """Return readers for some latents, given by number, which must be ordered from high layers to low."""
        parts = []
        for layer in self.layer[numbers].unique_consecutive().tolist():
            index = numbers[self.layer[numbers] == layer] - self._first[layer]
            parts.append(
                self.replacement.reads(layer, LayerLatents(*(column[index] for column in self._active[layer])))[0]
            )
        reads = torch.cat(parts) if parts else self.frozen.embedding.new_zeros(0, self.frozen.shape.d_model)
        return Starts(self.layer[numbers], self.position[numbers], reads)

    def read_values(self, numbers: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """Return what some latents read on the clean run: their activation less the encoder's bias."""
        out = torch.empty(len(numbers), device=self.activation.device)
        for layer in self.layer[numbers].unique().tolist():
            rows = (self.layer[numbers] == layer).nonzero().flatten()
            index = numbers[rows] - self._first[layer]
            active = LayerLatents(*(column[index] for column in self._active[layer]))
            out[rows] = active.activation - self.replacement.reads(layer, active)[1]
        return out

    def written_by(self, numbers: Int[Tensor, " rows"], target: int) -> Float[Tensor, "rows d_model"]:
        """Return what one unit of some latents adds to the output of MLP `target`; zero where they do not write."""
        out = self.frozen.embedding.new_zeros(len(numbers), self.frozen.shape.d_model)
        for layer in self.layer[numbers].unique().tolist():
            if layer == target or (self.replacement.cross_layer and layer < target):
                rows = (self.layer[numbers] == layer).nonzero().flatten()
                index = numbers[rows] - self._first[layer]
                active = LayerLatents(*(column[index] for column in self._active[layer]))
                out[rows] = self.replacement.writes(layer, active, target)
        return out

    def written_at(self, target: int, factors: Float[Tensor, "rows sources"]) -> Float[Tensor, "rows pos d_model"]:
        """Return what the latents write to the output of MLP `target`, each multiplied by its factor in a row."""
        out = factors.new_zeros(len(factors), self.frozen.n_pos, self.frozen.shape.d_model)
        for columns, position, vectors in self._written[target]:
            out[:, position] += factors[:, columns] @ vectors
        return out

    @torch.no_grad()
    def rows(self, starts: Starts) -> ReaderEffects:
        """Return the direct effect of every source on each reader."""
        return self._collected(len(starts.layer), lambda visit: self.frozen.pull_back(starts, visit))

    @torch.no_grad()
    def stream_rows(self, layer: int, gradient: Float[Tensor, "pos rows d_model"]) -> ReaderEffects:
        """Return the direct effect of every source on directions in the residual stream before a block."""
        pull = self.frozen.pull_stream
        return self._collected(gradient.shape[1], lambda visit: pull(layer, gradient, visit))

    def _collected(self, n_rows: int, pull: Callable[[Visit], Tensor]) -> ReaderEffects:
        """Return the effects on rows of readers that `pull` traces back."""
        frozen = self.frozen
        effects = frozen.embedding.new_zeros(n_rows, self.n_sources)
        constant, positions = (frozen.embedding.new_zeros(n_rows) for _ in range(2))

        def visit(layer: int, gradient: Tensor) -> None:
            self.add_effects(effects, layer, gradient)
            known, into = (frozen.positions, positions) if layer < 0 else (self._constants[layer], constant)
            into[: gradient.shape[1]] += dots(gradient, known[: len(gradient)]).sum(0)

        constant += pull(visit) + positions
        return ReaderEffects(effects, constant, positions)

    def add_effects(
        self, effects: Float[Tensor, "rows sources"], layer: int, gradient: Float[Tensor, "pos active d_model"]
    ) -> None:
        """Add the effect of what every source writes to MLP `layer` (-1: the embedding), given the readers' gradients.

        The first `active` readers have a gradient there.
        """
        seen, reached = gradient.shape[1], len(gradient)
        written = self.frozen.embedding if layer < 0 else self.errors[layer]
        first = self.n_features + (self.n_errors if layer < 0 else layer * self.frozen.n_pos)
        effects[:seen, first : first + reached] = dots(gradient, written[:reached]).T
        for columns, position, vectors in self._written[layer] if layer >= 0 else []:
            if position < reached:
                effects[:seen, columns] += gradient[position] @ vectors.T

    def _writes_to(self, target: int) -> list[_Writes]:
        """Return what each latent adds to the output of MLP `target`, position by position."""
        writes = []
        for layer in range(target + 1) if self.replacement.cross_layer else [target]:
            active = self._active[layer]
            if not len(active.latent):
                continue
            vectors = active.activation[:, None] * self.replacement.writes(layer, active, target)
            positions, counts = active.position.unique_consecutive(return_counts=True)
            at = 0
            for position, count in zip(positions.tolist(), counts.tolist(), strict=True):
                first = self._first[layer] + at
                writes.append(_Writes(slice(first, first + count), position, vectors[at : at + count]))
                at += count
        return writes

    def _split_outputs(self) -> tuple[Tensor, Tensor]:
        """Return the error and the constant part of every MLP output."""
        frozen = self.frozen
        errors, constants = [], []
        for layer, block in enumerate(frozen.blocks):
            constant = torch.zeros_like(block.mlp_out)
            if (bias := self.replacement.output_bias(layer)) is not None:
                constant = constant + bias
            skip = frozen.skips[layer]
            linear = torch.zeros_like(block.mlp_out) if skip is None else block.mlp_in @ skip
            for _, position, vectors in self._written[layer]:
                linear[position] += vectors.sum(0)
            error = block.mlp_out - constant - linear
            error[: frozen.skip_from] = 0
            constant[: frozen.skip_from] = block.mlp_out[: frozen.skip_from]
            errors.append(error)
            constants.append(constant)
        return torch.stack(errors), torch.stack(constants)


def influence_so_far(
    layers: Int[np.ndarray, " rows"],
    features: Int[np.ndarray, " rows"],
    effects: Float[np.ndarray, "rows sources"],
    sums: Float[np.ndarray, " rows"],
    weights: Float[np.ndarray, " rows"],
    n_features: int,
) -> Float[np.ndarray, " features"]:
    """Return the influence of every latent on the targets, through the readers that have rows so far.

    `layers` and `features` name the readers (-1 for a target), `sums` are the sums of absolute effects, `weights` those
    of targets. Readers of one layer never feed each other, so one sweep from high layers to low is exact.
    """
    influence = np.zeros(n_features, dtype=np.float64)
    for layer in np.unique(layers)[::-1]:
        rows = np.flatnonzero(layers == layer)
        row_influence = np.where(features[rows] < 0, 0, influence[np.maximum(features[rows], 0)]) + weights[rows]
        scale = row_influence / np.maximum(sums[rows], 1e-10)
        for part in np.array_split(np.arange(len(rows)), max(1, len(rows) // 512)):
            if len(part):
                influence += scale[part] @ np.abs(effects[rows[part], :n_features])
    return influence


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
    residues: Float[np.ndarray, " rows"] = field(init=False)
    """difference of each row's sum from the clean value of its reader"""
    sums: Float[np.ndarray, " rows"] = field(init=False)
    """sums of the absolute effects"""

    def __post_init__(self) -> None:
        shape = (self.n_targets + self.limit, self.n_sources)
        self.residues, self.sums = np.zeros(shape[0]), np.zeros(shape[0])
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
        self.sums[self.done : end] = effects.abs().sum(1, dtype=torch.float64).cpu().numpy()
        self.residues[self.done : end] = residues.abs().cpu().numpy()
        self.done = end
        self.save()

    def continue_from(self, other: "RowStore") -> None:
        """Take the rows of a store of the same system whose limit was lower."""
        self.chosen, self.done = list(other.chosen), other.done
        for name in ("effects", "residues", "sums"):
            getattr(self, name)[: self.done] = getattr(other, name)[: self.done]
        self.save()

    def save(self) -> None:
        if self.folder is not None:
            with disk_errors(self.folder / VALUES):
                self.effects.flush()  # pyright: ignore[reportAttributeAccessIssue] (a memmap)
            numbers = {name: getattr(self, name)[: self.done].tolist() for name in ("residues", "sums")}
            write_json(self.folder / INDEX, {"chosen": self.chosen, "done": self.done, **numbers})

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
        self.chosen, self.done = [int(number) for number in index["chosen"]], int(index["done"])
        self.residues[: self.done], self.sums[: self.done] = index["residues"], index["sums"]


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
        rows = system.rows(targets.take(order))
        back = torch.argsort(order)
        store.add(rows.effects[back], (rows.effects.sum(1) + rows.constant)[back] - values)
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
        rows = system.rows(system.feature_starts(numbers))
        store.add(rows.effects, rows.effects.sum(1) + rows.constant - system.read_values(numbers))
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
        numbers = np.flatnonzero(free)
    else:
        done = store.effects[: store.done]
        readers = np.concatenate([np.full(store.n_targets, -1), store.chosen])
        depth = np.concatenate([targets.layer.cpu().numpy(), layers[store.chosen]])
        aims = np.concatenate([weights, np.zeros(len(store.chosen))])
        influence = influence_so_far(
            depth, readers.astype(int), done, store.sums[: store.done], aims, system.n_features
        )
        influence[~free] = 0
        numbers = np.argsort(-influence, kind="stable")[: min(room, BATCHES * batch_size)]
        numbers = numbers[influence[numbers] > 0]
    position = system.position.cpu().numpy()[numbers]
    return numbers[np.lexsort((-layers[numbers], position))].tolist()


def memory_needed(n_rows: int, n_sources: int, n_nodes: int) -> int:
    """Return the bytes that a graph needs at its peak: rows, and the square matrix of its nodes four times."""
    return 4 * (n_rows * n_sources + 4 * n_nodes**2)


def numbers_of(store: RowStore) -> Int[np.ndarray, " rows"]:
    """Return the latents that have a row, in the order of rows after the targets."""
    return np.array(store.chosen[: store.done - store.n_targets], dtype=int)
