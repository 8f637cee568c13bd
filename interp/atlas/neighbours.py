"""Exact nearest neighbours by blocked matrix products.

All pairs are compared, so the answer is the truth that a map is measured against. Every block is computed on one
thread, so that it does not depend on their number. Cost: `2 n^2 d` operations; 49,152 token embeddings of 576 take
about 20 s on two cores, below 5,000 vectors it is a fraction of a second. For more there is `approximate`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp.atlas.blocks import in_blocks
from interp.errors import NonFiniteError, UnknownNameError

METRICS = ("cosine", "euclidean")
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
    return torch.nn.functional.normalize(vectors, dim=1) if metric == "cosine" else vectors


def nearest_neighbours(
    vectors: Tensor, k: int, *, metric: str = "cosine", block: int = 512, progress: Progress | None = None
) -> Neighbours:
    """The `k` nearest others of each row of `vectors [n, d]`; `k` is cut to `n - 1`.

    Of equally near points the one with the lower number comes first, so repeated vectors give one answer.
    """
    check_vectors(vectors)
    points = prepare(vectors, metric)
    n = len(points)
    k = min(k, n - 1)
    indices = torch.empty(n, k, dtype=torch.int64)
    distances = torch.empty(n, k)

    def search(rows: slice) -> None:
        if k > 0:
            near = closeness(points[rows], points, metric)
            near[torch.arange(rows.stop - rows.start), torch.arange(rows.start, rows.stop)] = -torch.inf  # not its own
            values, indices[rows] = largest(near, k)
            distances[rows] = as_distance(values, points, rows, metric)

    def report(rows: slice) -> None:
        if progress is not None:
            progress(rows.stop, n, {})

    in_blocks((slice(start, min(start + block, n)) for start in range(0, n, block)), search, report)
    return Neighbours(indices, distances)


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
