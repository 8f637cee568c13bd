"""Nearly all of the nearest neighbours, for more vectors than all pairs allow.

1. k-means cells, about the square root of their number, on a sample;
2. every cell searches itself and the cells nearest to it, until they hold `POOL` points, in one matrix product;
3. `ROUNDS` times every point also looks at the neighbours of its neighbours (Dong, Moses & Li 2011, NN-descent).

Cells, products and rounds are fixed blocks of work, and ties go to the lower number, so the answer is the same for any
number of threads. How many of the true neighbours it holds is measured on points drawn at random.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from interp.atlas.blocks import in_blocks
from interp.atlas.neighbours import (
    Neighbours,
    as_distance,
    check_vectors,
    closeness,
    in_units,
    largest,
    nearest_neighbours,
    prepare,
    unit_rows,
)
from interp.progress import Progress
from interp.runtime import one_thread

POOL = 6144
ROUNDS = 2
SAMPLE = 20_000
ITERATIONS = 6
CHECKED = 500
"""points whose true neighbours are found, to say how many of them are there"""

EXACT_COST = 2e13
"""Operations up to which all pairs are compared: 186,000 vectors of 576, two or three minutes on two cores."""


class Found(NamedTuple):
    """Neighbours, and how they were found."""

    neighbours: Neighbours
    how: str
    """`exact` or `approximate`"""
    recall: float
    """share of the true neighbours among them: 1, or measured on a sample"""


def find_neighbours(
    vectors: Tensor, k: int, *, metric: str, generator: torch.Generator, progress: Progress | None = None
) -> Found:
    """The `k` nearest others of every vector: exact where all pairs are affordable, else approximate."""
    n, d = vectors.shape
    if float(n) * n * d <= EXACT_COST or n <= 2 * POOL:
        return Found(nearest_neighbours(vectors, k, metric=metric, progress=progress), "exact", 1.0)
    near, recall = approximate_neighbours(vectors, k, metric=metric, generator=generator, progress=progress)
    return Found(near, "approximate", recall)


class Cells(NamedTuple):
    """A partition of the points."""

    centres: Tensor
    """`[n_cells, d]`"""
    members: list[Tensor]
    """points of each cell, rising"""

    def around(self, cell: int, near: Tensor) -> Tensor:
        """Points of a cell and of those nearest to it (`near`, in that order), at least `POOL` of them; rising."""
        found, size = [self.members[cell]], len(self.members[cell])
        for other in near.tolist():
            if size >= POOL:
                break
            if other != cell:
                found.append(self.members[other])
                size += len(found[-1])
        return torch.cat(found).sort().values


def approximate_neighbours(
    vectors: Tensor, k: int, *, metric: str, generator: torch.Generator, progress: Progress | None = None
) -> tuple[Neighbours, float]:
    """`k` near others of each row of `vectors [n, d]`, and the share of true ones among them (on `CHECKED` points)."""
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
        indices, values = look_further(points, indices, values, compared)
    checked = torch.randperm(n, generator=generator)[:CHECKED]
    recall = true_share(points, indices, checked, compared)
    distances = torch.cat([as_distance(values[rows], points, rows, compared) for rows in torch.arange(n).split(8192)])
    return Neighbours(indices, in_units(distances, vectors, metric, compared)), recall


def find_cells(points: Tensor, n_cells: int, metric: str, generator: torch.Generator) -> Cells:
    """k-means of a sample (Lloyd's steps from random points), then every point to its nearest centre."""
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
    return Cells(centres, list(ranked.split(torch.bincount(order, minlength=n_cells).tolist())))


def assign(points: Tensor, centres: Tensor, metric: str) -> Tensor:
    """`[n]` int64: the nearest centre of every point."""
    blocks = torch.arange(len(points)).split(2048)
    return torch.cat(in_blocks(blocks, lambda rows: closeness(points[rows], centres, metric).argmax(1)))


def look_further(points: Tensor, indices: Tensor, values: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    """One round: the best `k` of every point's neighbours and their neighbours."""
    from interp.atlas.kernels import neighbours_of_neighbours
    from interp.compiled import run_compiled

    found, closest = torch.empty_like(indices), torch.empty_like(values)
    squares = points.square().sum(1) if metric == "euclidean" else torch.zeros(len(points))
    factor = 2.0 if metric == "euclidean" else 1.0
    run_compiled(neighbours_of_neighbours, points, squares, factor, indices, values, found, closest)
    return found, closest


def true_share(points: Tensor, indices: Tensor, rows: Tensor, metric: str) -> float:
    """Share of the true `k` nearest of some rows that are among `indices [n, k]`."""
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
