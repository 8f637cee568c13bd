"""Nearest neighbours in the full space: exact, or approximate for very many vectors.

**Exact** (`nearest_neighbours`). Every pair is compared once. Closeness is symmetric, so a block of one matrix product
serves its rows and its columns: `n^2 d` operations, half of a full product. Close pairs enter the lists of both points
while the block is in the cache. A list holds the best of all pairs so far, ties to the lower number; so the order of
blocks and the number of threads do not change the result. Cosines are screened in bfloat16 where the processor
multiplies faster in it, and every pair that its rounding leaves open is measured in float32 (`Screening`).

**Approximate** (`approximate_neighbours`), for more vectors than all pairs allow:

1. k-means on a sample gives as many cells as the square root of the number of vectors;
2. the points of a cell search it and the cells nearest to it, until these hold `POOL` points, in one matrix product;
3. `ROUNDS` times each point also searches the neighbours of its neighbours (NN-descent: Dong, Moses & Li 2011).

Cells, products and rounds are fixed blocks of work with ties to the lower number, so the result is the same for any
number of threads. Recall of the true neighbours is measured on random points.

**Quality of a map** (`measure_quality`): how faithfully two dimensions represent the full space. A map should never be
read without these numbers. Token embeddings of SmolLM2 retain about 15 % of their 15 nearest neighbours on any two-
dimensional map: take neighbour lists from the full space, not from the map.
"""

import math
import threading
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from interp.atlas.vector_map import METRICS, Quality, Search
from interp.devices import faster_in_bfloat16
from interp.errors import NonFiniteError, UnknownNameError
from interp.progress import Progress
from interp.threads import in_blocks, one_thread, run_compiled

BLOCK = 1024
"""points per side of a block of pairs: 4 MB, which fits into a core's cache"""

FAR = 2.0**40
"""Lengths above this or below its inverse are rescaled to about 1 before they are squared."""
ALIKE = 1e-3
"""Limit of 1 minus the squared length of the mean direction; below it directions are compared by their differences."""


class Neighbours(NamedTuple):
    """`k` nearest other points of every point, nearest first."""

    indices: Tensor
    """`[n, k]` int64"""
    distances: Tensor
    """`[n, k]` float32: `1 - cosine` or the Euclidean distance"""


def check_vectors(vectors: Tensor, what: str = "the vectors") -> None:
    """Raise `NonFiniteError` naming the first row with NaN or infinity."""
    bad = (~torch.isfinite(vectors).all(1)).nonzero().squeeze(1)
    if len(bad):
        raise NonFiniteError(
            f"{what} must be finite; row {int(bad[0])} holds NaN or infinity ({len(bad)} of {len(vectors)} rows do); "
            "drop or repair these rows"
        )


class Prepared(NamedTuple):
    """Vectors in a form that matrix products can compare."""

    points: Tensor
    """`[n, d]` float32"""
    metric: str
    """metric by which these points are compared: `cosine` or `euclidean`"""


def prepare(vectors: Tensor, metric: str) -> Prepared:
    """Transform vectors so that dot products give the metric: to unit length for `cosine`.

    The cosine of a zero vector with any other counts as 0. Directions so alike that float32 resolves `1 - cosine`
    poorly are centred on their mean and compared by Euclidean distance, which gives the same order.
    """
    if metric not in METRICS:
        raise UnknownNameError("metric", metric, METRICS)
    if metric == "cosine":
        points = unit_rows(vectors)
        with one_thread():
            middle = points.mean(0)
        if 1 - float(middle.square().sum()) >= ALIKE:
            return Prepared(points, "cosine")
        for rows, mine in zip(points.split(8192), vectors.split(8192), strict=True):
            rows.copy_(unit_rows(mine.double(), torch.float64) - middle)
        return Prepared(points, "euclidean")
    vectors = rescaled(vectors).contiguous()
    # Distances do not change with the origin; smaller numbers round less. With one of the points as the origin, equal
    # distances between vectors of whole numbers stay equal.
    some = vectors[:1000]
    return Prepared(vectors - some[(some - some.mean(0)).square().sum(1).argmin()], "euclidean")


def unit_rows(vectors: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Scale vectors to unit length; zero vectors stay zero. Squared lengths may exceed the range of float32."""
    # Another memory layout of the same numbers would round sums and products differently.
    vectors = (vectors if vectors.dtype == torch.float64 else vectors.float()).contiguous()
    units = normalize(vectors.to(dtype), dim=1)
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    odd = ~((lengths > 1 / FAR) & (lengths < FAR))
    if odd.any():
        rows = vectors[odd].double()
        units[odd] = normalize(rows / rows.abs().amax(1, keepdim=True).clamp_min(1e-300), dim=1).to(dtype)
    return units


def scale_of(vectors: Tensor) -> float:
    """Return the power of two by which to divide vectors so that squares stay in range; 1 for vectors of usual size."""
    largest = max((abs(float(end)) for end in vectors.aminmax()), default=0.0) if vectors.numel() else 0.0
    return 1.0 if largest == 0 or 1 / FAR < largest < FAR else 2.0 ** round(math.log2(largest))


def rescaled(vectors: Tensor, scale: float | None = None) -> Tensor:
    """Return float32 vectors divided by `scale`, by default their `scale_of`."""
    scale = scale_of(vectors) if scale is None else scale
    return vectors.float() if scale == 1 else (vectors.double() / scale).float()


def in_units(distances: Tensor, vectors: Tensor, metric: str, compared: str) -> Tensor:
    """Convert distances between prepared points (metric `compared`) to distances of the vectors under `metric`.

    They are capped at the largest float32.
    """
    if metric == "cosine":
        return distances if compared == "cosine" else distances.square() / 2
    scale, most = scale_of(vectors), torch.finfo(torch.float32).max
    return distances if scale == 1 else (distances.double() * scale).clamp_(max=most).float()


class Screening:
    """Products of blocks of unit vectors that reject nearly all pairs, in the dtype that is faster here.

    Processors with bfloat16 units multiply several times as fast in it. Pairs that its rounding leaves open are
    measured in float32, and so are those of a float32 product, whose order of sums is the library's: neighbours and
    distances are the same whichever product rejects.
    """

    OPEN = 0.03
    """share of pairs left open above which float32 is used from then on"""
    FILLED = 4
    """blocks that a list has seen before its open pairs are counted: at first every pair enters"""
    TIMED = 256
    """rows of the products that are compared; without bfloat16 units a larger one can take a second"""

    def __init__(self, points: Tensor, block: int, *, exact: bool):
        n, d = points.shape
        self._points = points
        self._measured = np.empty((0, d), np.float32) if exact else points.numpy()
        self._rough: Tensor | None = None
        # Sums of d products in two orders differ by at most this (Higham 2002, equation 3.5).
        self._error, self._open = 0.0 if exact else 2.1 * (d + 8) * 2**-24, [0, 0]
        if not exact and n > self.FILLED * block and faster_in_bfloat16(points[: self.TIMED]):
            self._rough = rough = points.bfloat16()
            off = max(
                float((some.float() - all_of).square().sum(1).max())
                for some, all_of in zip(rough.split(8192), points.split(8192), strict=True)
            )
            self._rough_error = self._error + 2.02 * off**0.5

    def product(self, rows: slice, columns: slice) -> tuple[Tensor, np.ndarray, np.float32, np.float32]:
        """Return the closeness `[rows, columns]` and what `merge_block` needs to measure the pairs left open."""
        rough = self._rough
        if rough is None:
            near = self._points[rows] @ self._points[columns].T
            return near, self._measured, np.float32(self._error), np.float32(0)
        near = (rough[rows] @ rough[columns].T).float()
        return near, self._measured, np.float32(self._rough_error), np.float32(1.01 * 2**-8)

    def judge(self, apart: int, measured: int, pairs: int) -> None:
        """Leave bfloat16 where it leaves too many pairs open."""
        if self._rough is None or apart < self.FILLED:
            return
        self._open[0] += measured
        self._open[1] += pairs
        if self._open[0] > self.OPEN * self._open[1]:
            self._rough = None


def nearest_neighbours(
    vectors: Tensor, k: int, *, metric: str = "cosine", block: int = BLOCK, progress: Progress | None = None
) -> Neighbours:
    """Find the `k` nearest other rows of each row of `vectors [n, d]`, exactly; `k` is reduced to at most `n - 1`.

    Ties go to the lower number, so the result is unique for repeated vectors too. Raises `NonFiniteError` for NaN or
    infinity, `UnknownNameError` for an unknown metric.
    """
    from interp.atlas._kernels import UNFILLED, merge_block

    check_vectors(vectors)
    points, compared = prepare(vectors, metric)
    n = len(points)
    k = min(k, n - 1)
    closest, indices = np.full((n, k), -np.inf, np.float32), np.full((n, k), UNFILLED, np.int32)
    if k < 1:
        return Neighbours(torch.empty(n, k, dtype=torch.int64), torch.empty(n, k))
    starts = range(0, n, block)
    locks = [threading.Lock() for _ in starts]
    half = points.square().sum(1) / 2 if compared == "euclidean" else None
    screen = Screening(points, block, exact=half is not None)
    done = [0]

    def compare(pair: tuple[int, int]) -> None:
        rows, columns = (slice(starts[at], starts[at] + block) for at in pair)
        near, *measure = screen.product(rows, columns)
        if half is not None:  # minus half the squared distance, which is symmetric
            near.sub_(half[rows, None]).sub_(half[None, columns])
        with locks[pair[0]], locks[pair[1]] if pair[0] != pair[1] else nullcontext():
            measured = merge_block(near.numpy(), rows.start, columns.start, closest, indices, *measure)
        screen.judge(pair[1] - pair[0], measured, near.numel())

    def report(pair: tuple[int, int]) -> None:
        done[0] += 1
        if progress is not None:
            progress(n * done[0] // len(pairs), n, {})

    pairs = [(at, at + apart) for apart in range(len(starts)) for at in range(len(starts) - apart)]
    in_blocks(pairs, compare, report)
    distances = torch.from_numpy(1 - closest if half is None else np.sqrt(np.maximum(-2 * closest, 0))).clamp_(min=0)
    return Neighbours(torch.from_numpy(indices).long(), in_units(distances, vectors, metric, compared))


def closeness(some: Tensor, others: Tensor, metric: str) -> Tensor:
    """Return the closeness of prepared points `some [m, d]` and `others [n, d]`, `[m, n]`: larger is nearer.

    It is the cosine, or `2 x.y - |y|^2`, which orders others as their Euclidean distance from `x` does. One matrix
    product computes it.
    """
    if metric == "cosine":
        return some @ others.T
    return torch.addmm(others.square().sum(1)[None, :], some, others.T, beta=-1, alpha=2)


def as_distance(values: Tensor, points: Tensor, rows: slice | Tensor, metric: str) -> Tensor:
    """Convert `closeness` values `[len(rows), k]` of some rows to distances."""
    if metric == "cosine":
        return (1 - values).clamp_(0, 2)
    return (points[rows].square().sum(1, keepdim=True) - values).clamp_(min=0).sqrt_()


def largest(near: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the `k` largest values of each row of `near [m, n]` and their columns; ties go to the lower column."""
    values, columns = near.topk(min(k + 1, near.shape[1]))
    if values.shape[1] > k:
        tied = (values[:, k - 1] == values[:, k]).nonzero().squeeze(1)
        values, columns = values[:, :k].contiguous(), columns[:, :k].contiguous()
        all_values = near.numpy()  # for one row at a time numpy's scan takes a hundredth of torch's time
        for row in tied.tolist():
            # topk may return any of the entries equal to the last one: take those with the lowest columns.
            cut = values[row] == values[row, -1]
            equal = np.flatnonzero(all_values[row] == float(values[row, -1]))
            columns[row, cut] = torch.from_numpy(equal[: int(cut.sum())])
    by_column = columns.argsort(dim=1)
    values, columns = values.gather(1, by_column), columns.gather(1, by_column)
    by_value = values.argsort(dim=1, stable=True, descending=True)
    return values.gather(1, by_value), columns.gather(1, by_value)


POOL = 6144
ROUNDS = 2
SAMPLE = 20_000
ITERATIONS = 6
CHECKED = 500
"""points whose true neighbours are computed to measure recall"""

EXACT_COST = 2e13
"""Operations up to which the search is exact: 186,000 vectors of width 576, two or three minutes on two cores."""


class NeighbourSearch(NamedTuple):
    """Nearest neighbours and the search that found them."""

    neighbours: Neighbours
    search: Search
    recall: float
    """fraction of the true neighbours found, 0 to 1; 1 for the exact search, else measured on a sample"""


def find_neighbours(
    vectors: Tensor, k: int, *, metric: str, generator: torch.Generator, progress: Progress | None = None
) -> NeighbourSearch:
    """Find the `k` nearest others of every vector: exactly up to `EXACT_COST` operations, else approximately."""
    n, d = vectors.shape
    if float(n) * n * d <= EXACT_COST or n <= 2 * POOL:
        return NeighbourSearch(nearest_neighbours(vectors, k, metric=metric, progress=progress), "exact", 1.0)
    near, recall = approximate_neighbours(vectors, k, metric=metric, generator=generator, progress=progress)
    return NeighbourSearch(near, "approximate", recall)


class Partition(NamedTuple):
    """Partition of the points into k-means cells."""

    centres: Tensor
    """`[n_cells, d]`"""
    members: list[Tensor]
    """points of each cell, in ascending order"""

    def around(self, cell: int, near: Tensor) -> Tensor:
        """Return at least `POOL` points of a cell and of those nearest to it (`near`, in that order), ascending."""
        parts, size = [self.members[cell]], len(self.members[cell])
        for neighbour in near.tolist():
            if size >= POOL:
                break
            if neighbour != cell:
                parts.append(self.members[neighbour])
                size += len(parts[-1])
        return torch.cat(parts).sort().values


def approximate_neighbours(
    vectors: Tensor, k: int, *, metric: str, generator: torch.Generator, progress: Progress | None = None
) -> tuple[Neighbours, float]:
    """Find about the `k` nearest others of each row of `vectors [n, d]`, and measure recall on `CHECKED` points.

    Recall is the fraction of true neighbours found, 0 to 1.
    """
    check_vectors(vectors)
    points, compared = prepare(vectors, metric)
    n = len(points)
    cells = find_cells(points, round(n**0.5), compared, generator)
    indices, values = torch.empty(n, k, dtype=torch.int64), torch.empty(n, k)
    with one_thread():
        near = closeness(cells.centres, cells.centres, compared).argsort(dim=1, descending=True, stable=True)
    done = [0]

    def search(cell: int) -> None:
        pool = cells.around(cell, near[cell])
        others = points[pool]
        for mine in cells.members[cell].split(512):
            values[mine], indices[mine] = _best(points[mine], mine, others, pool, k, compared)

    def report(cell: int) -> None:
        done[0] += len(cells.members[cell])
        if progress is not None:
            progress(done[0], n, {"step": "cells"})

    in_blocks(range(len(cells.members)), search, report)
    for _ in range(ROUNDS):
        indices, values = search_neighbours_of_neighbours(points, indices, values, compared)
    checked = torch.randperm(n, generator=generator)[:CHECKED]
    recall = recall_of(points, indices, checked, compared)
    distances = torch.cat([as_distance(values[rows], points, rows, compared) for rows in torch.arange(n).split(8192)])
    return Neighbours(indices, in_units(distances, vectors, metric, compared)), recall


def find_cells(points: Tensor, n_cells: int, metric: str, generator: torch.Generator) -> Partition:
    """Cluster a sample by k-means (Lloyd's algorithm from random points), then assign every point to a centre."""
    sample = points[torch.randperm(len(points), generator=generator)[:SAMPLE].sort().values]
    centres = sample[torch.randperm(len(sample), generator=generator)[:n_cells]].clone()
    for _ in range(ITERATIONS):
        cell = assign(sample, centres, metric)
        counts = torch.bincount(cell, minlength=n_cells)
        sums = torch.zeros_like(centres).index_add_(0, cell, sample)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], centres)
        if metric == "cosine":
            centres = unit_rows(centres)
    order = assign(points, centres, metric)
    ranked = order.argsort(stable=True)
    return Partition(centres, list(ranked.split(torch.bincount(order, minlength=n_cells).tolist())))


def assign(points: Tensor, centres: Tensor, metric: str) -> Tensor:
    """Return the nearest centre of every point, `[n]` int64."""
    blocks = torch.arange(len(points)).split(2048)
    return torch.cat(in_blocks(blocks, lambda rows: closeness(points[rows], centres, metric).argmax(1)))


def search_neighbours_of_neighbours(
    points: Tensor, indices: Tensor, values: Tensor, metric: str
) -> tuple[Tensor, Tensor]:
    """Return the best `k` of every point's neighbours and their neighbours: one round of NN-descent."""
    from interp.atlas._kernels import neighbours_of_neighbours

    nearest, closest = torch.empty_like(indices), torch.empty_like(values)
    squares = points.square().sum(1) if metric == "euclidean" else torch.zeros(len(points))
    factor = 2.0 if metric == "euclidean" else 1.0
    run_compiled(neighbours_of_neighbours, points, squares, factor, indices, values, nearest, closest)
    return nearest, closest


def recall_of(points: Tensor, indices: Tensor, rows: Tensor, metric: str) -> float:
    """Return the fraction of the true `k` nearest neighbours of some rows that are among `indices [n, k]`, 0 to 1."""
    k = indices.shape[1]

    def hits(mine: Tensor) -> int:
        near = closeness(points[mine], points, metric)
        near[torch.arange(len(mine)), mine] = -torch.inf
        _, true = largest(near, k)
        return int((true[:, :, None] == indices[mine][:, None, :]).any(2).sum())

    return sum(in_blocks(rows.split(128), hits)) / (len(rows) * k)


def _best(rows: Tensor, mine: Tensor, others: Tensor, pool: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    near = closeness(rows, others, metric)
    near[pool[None, :] == mine[:, None]] = -torch.inf
    values, columns = largest(near, k)
    return values, pool[columns]


K = 15
TRIPLETS = 20_000


def measure_quality(
    vectors: Tensor,
    positions: np.ndarray,
    *,
    metric: str,
    generator: torch.Generator,
    k: int = K,
    sample: int = 2000,
    block: int = 128,
) -> Quality | None:
    """Measure the quality of `positions [n, 2]` as a map of `vectors [n, d]`; None below `2 k + 2` points.

    Trustworthiness is `1 - 2 / (m k (2n - 3k - 1)) * sum of max(0, rank - k)` over the map neighbours of `m` sampled
    points. `rank` is a neighbour's rank by distance in the full space; with `m = n` this is the published definition.
    """
    n = len(vectors)
    if n < 2 * k + 2:
        return None
    chosen = torch.randperm(n, generator=generator)[: min(sample, n)]
    on_map = torch.from_numpy(map_neighbours(positions, chosen.numpy(), k))
    points, compared = prepare(vectors, metric)
    map_points = prepare(torch.from_numpy(positions), "euclidean").points

    def compare(part: slice) -> tuple[float, float, int]:
        rows, near = chosen[part], on_map[part]
        value = closeness(points[rows], points, compared)
        true = _nearest(value, rows, k)
        excess = float((_ranks(value, rows, near) - k).clamp(min=0).sum())
        on_plane = closeness(map_points[rows], map_points, "euclidean")
        missed = float((_ranks(on_plane, rows, true) - k).clamp(min=0).sum())
        return excess, missed, int((near[:, :, None] == true[:, None, :]).any(2).sum())

    parts = [slice(start, start + block) for start in range(0, len(chosen), block)]
    excess, missed, shared = (sum(column) for column in zip(*in_blocks(parts, compare), strict=True))
    worst = len(chosen) * k * (2 * n - 3 * k - 1) / 2
    return Quality(
        trustworthiness=1 - excess / worst,
        continuity=1 - missed / worst,
        recall=shared / (len(chosen) * k),
        triplets=triplet_accuracy(points, map_points, generator=generator),
        k=k,
        sample=len(chosen),
    )


def triplet_accuracy(points: Tensor, map_points: Tensor, *, generator: torch.Generator) -> float:
    """Return the fraction of random triplets for which map and full space agree on the point nearer to the first.

    `points [n, d]` and `map_points [n, 2]` are as `prepare` returns them. 1: always, 0.5: chance.
    """
    anchor, left, right = torch.randint(len(points), (3, TRIPLETS), generator=generator)
    distinct = (anchor != left) & (anchor != right) & (left != right)
    anchor, left, right = anchor[distinct], left[distinct], right[distinct]

    def nearer(x: Tensor) -> Tensor:
        # for unit vectors this is the order of the cosine
        return (x[anchor] - x[left]).square().sum(1) < (x[anchor] - x[right]).square().sum(1)

    return float((nearer(points) == nearer(map_points)).float().mean())


def retained_neighbours(indices: Tensor, positions: np.ndarray) -> np.ndarray:
    """Return the fraction of each point's neighbours `indices [n, k]` among its `k` neighbours on the map.

    `[n]` float32, the distortion of a map point by point. 1: the whole neighbourhood is retained, 0: none of it.
    """
    n, k = indices.shape
    if k == 0:
        return np.ones(n, np.float32)
    on_map = torch.from_numpy(map_neighbours(positions, np.arange(n), k))
    return torch.cat(
        [
            (mine[:, :, None] == true[:, None, :]).any(2).float().mean(1)
            for mine, true in zip(on_map.split(8192), indices.split(8192), strict=True)
        ]
    ).numpy()


def map_neighbours(positions: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """Find the nearest other points on the map, `[len(rows), k]` int64."""
    from scipy.spatial import KDTree  # imports in a tenth of scikit-learn's time

    # k + 1 since each point finds itself; among equal positions it need not come first, so it is removed by number.
    _, near = KDTree(positions).query(positions[rows], k + 1, workers=torch.get_num_threads())
    indices = np.asarray(near)
    itself = indices == rows[:, None]
    itself[~itself.any(1), -1] = True
    return indices[~itself].reshape(len(rows), k)


def _nearest(value: Tensor, rows: Tensor, k: int) -> Tensor:
    """Return the true neighbours of some rows `[m, k]` from their closeness `[m, n]`, which is restored afterwards."""
    itself = (torch.arange(len(rows)), rows)
    diagonal = value[itself]
    value[itself] = -torch.inf
    nearest = largest(value, k)[1]
    value[itself] = diagonal
    return nearest


def _ranks(value: Tensor, rows: Tensor, near: Tensor) -> Tensor:
    """Return the ranks `[m, k]` (1 is nearest) of the points `near [m, k]` by closeness `value [m, n]`."""
    from interp.atlas._kernels import count_larger

    value[torch.arange(len(rows)), rows] = torch.inf  # the point itself has rank 0
    ranks = np.empty(near.shape, np.int64)
    count_larger(value.numpy(), value.gather(1, near).numpy(), ranks)
    return torch.from_numpy(ranks)
