"""Activation atlas: a grid over a map, and the mean vector of each cell read as tokens or features.

Carter, Armstrong, Schubert, Johnson & Olah (2019) render an image for every cell of a map of image activations. For a
language model a readout turns each mean vector into text: tokens by the unembedding, the nearest known directions, or
the active features of a dictionary. Grids come in several cell sizes. A cell is drawn larger the more vectors it holds.

A mean summarises a cell only if the cell's vectors are alike. `coherence` measures that:

    mean over pairs i != j of <v_i - m, v_j - m>  /  mean over i of |v_i - m|^2,        m the mean of the whole map

It is 1 where all vectors of a cell are equal, and 0 where they are as different as vectors drawn at random from the
map.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from interp.artifacts import Table
from interp.atlas.regions import frame
from interp.atlas.vector_map import Cell
from interp.dictionary import Dictionary
from interp.models.hooked import HookedModel
from interp.threads import one_thread


class VectorReadings(NamedTuple):
    """Texts and weights read from some vectors, the strongest first: one list per vector."""

    texts: list[list[str]]
    weights: list[list[float]]


class Readout(Protocol):
    """Interface for reading vectors as texts."""

    @property
    def name(self) -> str:
        """`unembedding`, `tokens` or `dictionary:NAME`."""
        ...

    def read(self, vectors: Tensor, top: int) -> VectorReadings:
        """Return up to `top` texts of each of `vectors [n, d]` float32, the strongest first."""
        ...


class UnembeddingReadout:
    """Tokens that the model would predict if the vector were its last residual: final norm, then unembedding.

    A logit lens of means (nostalgebraist 2020). The weight is the probability. In early layers, whose basis is not that
    of the last layer, the features of a dictionary are more informative.
    """

    name = "unembedding"

    def __init__(self, model: HookedModel) -> None:
        self.model = model

    def read(self, vectors: Tensor, top: int) -> VectorReadings:
        from interp.models.adapter import final_norm_and_unembed, token_strings

        weight = next(self.model.parameters())
        logits = final_norm_and_unembed(self.model, vectors.to(weight.device, weight.dtype)).float()
        best = logits.log_softmax(-1).topk(min(top, logits.shape[-1]))
        strings = token_strings(self.model, best.indices.cpu())
        k = best.indices.shape[1]
        return VectorReadings(
            [strings[i * k : (i + 1) * k] for i in range(len(vectors))], best.values.exp().cpu().tolist()
        )


class NearestReadout:
    """Labels of the known directions with the largest cosine to the vector; the weight is the cosine.

    Used for token embeddings: a mean of embeddings is not a residual, so it is compared with the embeddings instead of
    unembedded. The mean of all directions is subtracted from both sides first. Raw embeddings share a large mean: the
    mean of dissimilar embeddings is close to it, and would get the same rarely trained tokens in every cell.
    """

    def __init__(self, name: str, directions: Tensor, labels: Sequence[str]) -> None:
        self.name = name
        self.directions, self.labels = directions.detach().float().cpu(), labels

    @cached_property
    def middle(self) -> Tensor:
        """Mean direction `[d]`."""
        return self.directions.double().mean(0).float()

    @cached_property
    def unit(self) -> Tensor:
        """Directions minus their mean, of unit length, `[n, d]`."""
        return normalize(self.directions - self.middle, dim=1)

    def read(self, vectors: Tensor, top: int) -> VectorReadings:
        best = (normalize(vectors - self.middle, dim=1) @ self.unit.T).topk(min(top, len(self.labels)))
        texts: list[list[str]] = [[str(self.labels[i]) for i in row] for row in best.indices.tolist()]
        return VectorReadings(texts, best.values.tolist())


class DictionaryReadout:
    """Features of a dictionary that are most active on the vector; the weight is the activation, always above 0."""

    def __init__(self, name: str, dictionary: Dictionary, labels: Sequence[str] | None = None) -> None:
        self.name = f"dictionary:{name}"
        self.dictionary, self.labels = dictionary, labels

    def read(self, vectors: Tensor, top: int) -> VectorReadings:
        acts = self.dictionary.encode(vectors).float().cpu()
        best = acts.topk(min(top, acts.shape[-1]))
        texts, weights = [], []
        for indices, values in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            active = [(i, value) for i, value in zip(indices, values, strict=True) if value > 0]
            texts.append([self._label(i) for i, _ in active])
            weights.append([value for _, value in active])
        return VectorReadings(texts, weights)

    def _label(self, feature: int) -> str:
        return (self.labels[feature] if self.labels else "") or f"feature {feature}"


GRIDS = (8, 16, 32, 64)
"""Cells along the longer side."""
FEWEST = 5
"""Smallest number of vectors in a cell that is shown, as in the paper."""
COVERED = 0.5
"""A finer grid is added while its cells of at least `FEWEST` vectors hold this fraction of the points."""
SMALLEST_DRAWN = 0.15
TOP = 8
_ROWS, _CELLS = 8192, 256
"""vectors summed, and means read, at a time"""


class Cells(NamedTuple):
    """Cells of one grid that hold enough points, row by row from the lower left."""

    grid: int
    column: np.ndarray
    row: np.ndarray
    x: np.ndarray
    """centre of the cell"""
    y: np.ndarray
    size: np.ndarray
    """side to draw as a fraction of the cell's, 0 to 1; the area is proportional to `n` up to its 95th percentile"""
    n: np.ndarray
    means: Tensor
    """`[n_cells, d]` float32"""
    coherence: np.ndarray
    """1: all vectors of the cell are equal; 0: as different as random vectors of the map"""


def grid_cells(positions: np.ndarray, vectors: Tensor, grid: int, *, fewest: int = FEWEST) -> Cells:
    """Average `vectors [n, d]` by square cell of a grid with `grid` cells along the longer side of the map `[n, 2]`.

    Points that lie far outside the map (`density.frame`) belong to no cell.
    """
    positions = np.asarray(positions, np.float64)
    low, high = frame(positions)
    step = max(float((high - low).max()) / grid, 1e-30)
    middle = (low + high) / 2
    where = np.floor((positions - middle) / step + grid / 2).astype(np.int64)
    where = np.where(np.isclose(positions, high), where.clip(max=grid - 1), where)
    inside = ((where >= 0) & (where < grid)).all(1)
    flat = where[:, 1] * grid + where[:, 0]
    counts = np.bincount(flat[inside], minlength=grid * grid)
    filled = np.flatnonzero(counts >= fewest)
    number = np.full(grid * grid, -1)
    number[filled] = np.arange(len(filled))
    cell = np.where(inside, number[flat.clip(0, grid * grid - 1)], -1)
    means, coherence = average(vectors, cell, len(filled))
    n, column, row = counts[filled], filled % grid, filled // grid
    size = np.sqrt(n / np.quantile(n, 0.95)).clip(SMALLEST_DRAWN, 1) if len(n) else n.astype(float)
    x, y = (middle[i] + (index + 0.5 - grid / 2) * step for i, index in enumerate((column, row)))
    return Cells(grid, column, row, x, y, size, n, means, coherence)


def average(vectors: Tensor, cell: np.ndarray, n_cells: int) -> tuple[Tensor, np.ndarray]:
    """Return the mean vector `[n_cells, d]` float32 and the coherence `[n_cells]` of each cell.

    `cell [n]` is each vector's cell, -1 for none. Sums are in float64, a block of vectors at a time. A cell of one
    vector has coherence 1.
    """
    d = vectors.shape[1]
    sums, squares, counts = np.zeros((n_cells, d)), np.zeros(n_cells), np.bincount(cell[cell >= 0], minlength=n_cells)
    middle = _mean(vectors)
    order = np.argsort(cell, kind="stable")
    order = order[cell[order] >= 0]
    for start in range(0, len(order), _ROWS):
        rows = order[start : start + _ROWS]
        block = vectors[torch.from_numpy(rows)].double().numpy() - middle
        cells, first = np.unique(cell[rows], return_index=True)
        sums[cells] += np.add.reduceat(block, first)
        squares[cells] += np.add.reduceat(np.square(block).sum(1), first)
    pairs = counts * (counts - 1.0)
    alike = (np.square(sums).sum(1) - squares) / np.maximum(pairs, 1)
    length = squares / np.maximum(counts, 1)
    coherence = np.where((pairs > 0) & (length > 0), alike / np.maximum(length, 1e-30), 1.0)
    return torch.from_numpy((sums / np.maximum(counts, 1)[:, None] + middle).astype(np.float32)), coherence


def cell_table(
    positions: np.ndarray,
    vectors: Tensor,
    readout: Readout,
    *,
    grids: tuple[int, ...] = GRIDS,
    fewest: int = FEWEST,
) -> Table[Cell] | None:
    """Return each cell's mean vector read as texts, on several grids; None where no cell holds `fewest` vectors."""
    import pyarrow as pa

    tables = []
    for cells in choose_grids(positions, vectors, grids, fewest):
        texts, weights = read_means(readout, cells.means)
        columns = {
            "grid": pa.array([cells.grid] * len(cells.n), pa.int32()),
            "column": pa.array(cells.column, pa.int32()),
            "row": pa.array(cells.row, pa.int32()),
            **{name: pa.array(getattr(cells, name), pa.float32()) for name in ("x", "y", "size")},
            "n": pa.array(cells.n, pa.int64()),
            "texts": pa.array(texts, pa.list_(pa.string())),
            "weights": pa.array(weights, pa.list_(pa.float32())),
            "coherence": pa.array(cells.coherence, pa.float32()),
            "source": pa.array([readout.name] * len(cells.n), pa.string()),
        }
        tables.append(pa.table(columns))
    return Table.of_columns(Cell, pa.concat_tables(tables)) if tables else None


def choose_grids(positions: np.ndarray, vectors: Tensor, grids: tuple[int, ...], fewest: int) -> list[Cells]:
    """Return the coarsest grid, and finer ones while at least half of the points lie in cells of `fewest` or more.

    No finer grid follows one with a single cell.
    """
    levels: list[Cells] = []
    for grid in grids:
        cells = grid_cells(positions, vectors, grid, fewest=fewest)
        if len(cells.n) == 0 or (levels and (cells.n.sum() < COVERED * len(positions) or len(levels[-1].n) == 1)):
            break
        levels.append(cells)
    return levels


def read_means(readout: Readout, means: Tensor, top: int = TOP) -> tuple[list[list[str]], list[list[float]]]:
    """Return the texts of each mean vector and their weights, the strongest first; on one thread, in blocks."""
    texts: list[list[str]] = []
    weights: list[list[float]] = []
    with one_thread(), torch.no_grad():
        for block in means.split(_CELLS):
            reading = readout.read(block, top)
            texts += reading.texts
            weights += reading.weights
    return texts, weights


def _mean(vectors: Tensor) -> np.ndarray:
    """Return the mean vector `[d]` in float64, summed a block at a time."""
    total = np.zeros(vectors.shape[1])
    for block in vectors.split(_ROWS):
        total += block.double().numpy().sum(0)
    return total / len(vectors)
