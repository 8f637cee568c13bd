"""Exact nearest neighbours: all pairs, each compared once.

Closeness is symmetric, so a block of one matrix product serves its rows and its columns: `n^2 d` operations, half of
what a product of everything with everything takes. What is close enough goes into the lists of both points while the
block is still in the cache. Blocks come in any order on any number of threads; a list holds the best of all it has
seen, ties to the lower number, so the order leaves no trace. For very many vectors there is `approximate`.
"""

import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp.atlas.blocks import in_blocks
from interp.errors import NonFiniteError, UnknownNameError

METRICS = ("cosine", "euclidean")
BLOCK = 1024
"""points a side: a block of pairs is 4 MB, which a core's cache holds"""

Progress = Callable[[int, int, dict], None]


class Neighbours(NamedTuple):
    """The `k` nearest other points of every point, nearest first."""

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


def prepare(vectors: Tensor, metric: str) -> Tensor:
    """float32 vectors in which the metric is a dot product away: unit length for `cosine`.

    A vector of length zero has no direction: its cosine with everything counts as 0.
    """
    if metric not in METRICS:
        raise UnknownNameError("metric", metric, METRICS)
    vectors = vectors.float()
    if metric == "cosine":
        return torch.nn.functional.normalize(vectors, dim=1)
    # The same distances from smaller numbers. From one of the points: equal distances of whole numbers stay equal.
    some = vectors[:1000]
    return vectors - some[(some - some.mean(0)).square().sum(1).argmin()]


def nearest_neighbours(
    vectors: Tensor, k: int, *, metric: str = "cosine", block: int = BLOCK, progress: Progress | None = None
) -> Neighbours:
    """The `k` nearest others of each row of `vectors [n, d]`; `k` is cut to `n - 1`.

    Of equally near points the one with the lower number comes first, so repeated vectors give one answer.
    """
    from interp.atlas.kernels import NOBODY, take_in

    check_vectors(vectors)
    points = prepare(vectors, metric)
    n = len(points)
    k = min(k, n - 1)
    closest, indices = np.full((n, k), -np.inf, np.float32), np.full((n, k), NOBODY, np.int32)
    if k < 1:
        return Neighbours(torch.empty(n, k, dtype=torch.int64), torch.empty(n, k))
    starts = range(0, n, block)
    in_use = [threading.Lock() for _ in starts]
    half = points.square().sum(1) / 2 if metric == "euclidean" else None
    done = [0]

    def compare(pair: tuple[int, int]) -> None:
        rows, columns = (slice(starts[at], starts[at] + block) for at in pair)
        near = points[rows] @ points[columns].T
        if half is not None:  # minus half the squared distance: as the closeness of one to the other, so back
            near.sub_(half[rows, None]).sub_(half[None, columns])
        with in_use[pair[0]]:
            if pair[0] == pair[1]:
                take_in(near.numpy(), rows.start, columns.start, closest, indices)
            else:
                with in_use[pair[1]]:
                    take_in(near.numpy(), rows.start, columns.start, closest, indices)

    def report(pair: tuple[int, int]) -> None:
        done[0] += 1
        if progress is not None:
            progress(n * done[0] // len(pairs), n, {})

    pairs = [(at, at + apart) for apart in range(len(starts)) for at in range(len(starts) - apart)]
    in_blocks(pairs, compare, report)
    distances = 1 - closest if half is None else np.sqrt(np.maximum(-2 * closest, 0))
    return Neighbours(torch.from_numpy(indices).long(), torch.from_numpy(distances).clamp_(min=0))


def closeness(some: Tensor, others: Tensor, metric: str) -> Tensor:
    """`[m, n]`: larger is nearer, from prepared points `some [m, d]` to `others [n, d]`, in one matrix product.

    The cosine, or `2 x.y - |y|^2`, which orders as the Euclidean distance from `x` does.
    """
    if metric == "cosine":
        return some @ others.T
    return torch.addmm(others.square().sum(1)[None, :], some, others.T, beta=-1, alpha=2)


def as_distance(values: Tensor, points: Tensor, rows: slice | Tensor, metric: str) -> Tensor:
    """Distances for the `closeness` values `[len(rows), k]` of some rows."""
    if metric == "cosine":
        return (1 - values).clamp_(0, 2)
    return (points[rows].square().sum(1, keepdim=True) - values).clamp_(min=0).sqrt_()


def largest(near: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` largest of each row of `[m, n]` with their columns; ties go to the lower column."""
    values, columns = near.topk(min(k + 1, near.shape[1]))
    if values.shape[1] > k:
        tied = (values[:, k - 1] == values[:, k]).nonzero().squeeze(1)
        values, columns = values[:, :k].contiguous(), columns[:, :k].contiguous()
        everything = near.numpy()  # one short row at a time: numpy's scan costs a hundredth of torch's here
        for row in tied.tolist():
            # topk may pick any of the entries equal to the last: take those with the lowest columns.
            cut = values[row] == values[row, -1]
            equal = np.flatnonzero(everything[row] == float(values[row, -1]))
            columns[row, cut] = torch.from_numpy(equal[: int(cut.sum())])
    by_column = columns.argsort(dim=1)
    values, columns = values.gather(1, by_column), columns.gather(1, by_column)
    by_value = values.argsort(dim=1, stable=True, descending=True)
    return values.gather(1, by_value), columns.gather(1, by_value)
