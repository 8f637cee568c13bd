"""Positions for new points on an existing map, which does not change.

Each point is placed on its own, from its nearest points of the map. So one point, a few or all of them get the same
positions to the bit, and no point of the map moves. (A transform in which new points repel each other gives another
answer for every batch.) A new point `y` goes where UMAP's attraction to these neighbours `y_j` is strongest:

    maximise    sum over j of w_j log(1 / (1 + a |y - y_j|^2b))        w_j: edge weights as in the fuzzy graph

The search ascends from the best of the neighbours' own positions. A mean of the neighbours would fall between two
clusters if they lie in both; the maximum lies in one of them. A vector that is already on the map gets that point's
position.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from interp.atlas.layout import curve
from interp.atlas.neighbours import (
    METRICS,
    Neighbours,
    check_vectors,
    closeness,
    largest,
    prepare,
    rescaled,
    scale_of,
    unit_rows,
)
from interp.errors import ConfigError, UnknownNameError
from interp.runtime import in_blocks

SPARE = 8
"""Candidates beyond `k`. All distances are recomputed pair by pair: products of other sizes round differently."""
BLOCK = 256
FARTHEST = 1e30
"""Limit to which coordinates of new vectors are clamped in the search for candidates, in units of the map's scale."""
COLUMNS = 16_384


class Placed(NamedTuple):
    """Positions of new points, with the neighbours that determine them."""

    positions: Float32[np.ndarray, "m 2"]
    """`[m, 2]` float32"""
    neighbours: Neighbours
    """nearest points of the map, nearest first"""
    ordinary: Float32[np.ndarray, " m"]
    """`[m]` float32, 0 to 1: fraction of the map's points whose own nearest neighbour is at least as far away. 1:
    nearer to the map than any of its points to its neighbour; 0: farther than all of them, so the position is
    uninformative"""


def place_points(
    new: Float[Tensor, "..."],
    reference: Float[Tensor, "n d"],
    positions: Float[np.ndarray, "n_positions 2"],
    nearest: Float[np.ndarray, " n"],
    *,
    k: int = 15,
    metric: str = "cosine",
    min_dist: float = 0.1,
) -> Placed:
    """Place the vectors `new [m, d]` on the map `positions [n, 2]` of `reference [n, d]`.

    `nearest [n]` is the distance of every point of the map to its nearest other one (`neighbours.distances[:, 0]`).
    `k` is reduced to at most `n`. Raises `ConfigError` when shapes do not match, `NonFiniteError` for NaN or infinity,
    `UnknownNameError` for an unknown metric.
    """
    from interp.atlas.kernels import memberships, strongest_attraction
    from interp.runtime import run_compiled

    if metric not in METRICS:
        raise UnknownNameError("metric", metric, METRICS)
    if new.ndim != 2 or new.shape[1] != reference.shape[1] or len(reference) != len(positions) or not len(reference):
        raise ConfigError(
            f"new points need vectors as wide as the map's, and the map one position for each of its vectors; got new "
            f"{list(new.shape)}, map {list(reference.shape)}, positions {list(positions.shape)}"
        )
    check_vectors(new, "the new vectors")
    near = nearest_of_map(new.float(), reference.float(), min(k, len(reference)), metric)
    distances = rescaled(near.distances, scale_of(reference) if metric == "euclidean" else 1.0).numpy()
    weights = np.empty_like(distances)
    run_compiled(memberships, distances, 1.0, weights)
    placed = np.empty((len(new), 2))
    attracting = (positions.astype(np.float64), near.indices.numpy(), distances, weights)
    run_compiled(strongest_attraction, *attracting, *curve(min_dist), placed)
    ordinary = 1 - np.searchsorted(np.sort(nearest), near.distances[:, 0].numpy(), side="left") / len(nearest)
    return Placed(placed.astype(np.float32), near, ordinary.astype(np.float32))


def nearest_of_map(new: Float[Tensor, "m d"], reference: Float[Tensor, "n d"], k: int, metric: str) -> Neighbours:
    """Find the `k` points of the map nearest to each new vector; how `new` is cut into batches makes no difference.

    Candidates come from matrix products, their distances from a loop over the coordinates in float64.
    """
    from interp.atlas.kernels import nearest_candidates
    from interp.runtime import run_compiled

    cosine = metric == "cosine"
    scale = 1.0 if cosine else scale_of(reference)
    compared = prepare(reference[:1000], metric).metric
    middle = (unit_rows(reference[:1000]) if cosine else rescaled(reference[:1000], scale)).mean(0)
    middle = middle * (compared == "euclidean")

    def ready(some: Tensor) -> Tensor:
        if cosine:
            return (unit_rows(some.double(), torch.float64) - middle).float()
        return (rescaled(some, scale) - middle).clamp_(-FARTHEST, FARTHEST)

    wide = min(k + SPARE, len(reference))
    candidates = torch.empty(len(new), wide, dtype=torch.int64)

    def search(rows: slice) -> None:
        mine = ready(new[rows])
        values, columns = torch.empty(len(mine), 0), torch.empty(len(mine), 0, dtype=torch.int64)
        for start in range(0, len(reference), COLUMNS):
            part = slice(start, start + COLUMNS)
            others = ready(reference[part])
            found, at = largest(closeness(mine, others, compared), min(wide, len(others)))
            values, columns = torch.cat([values, found], 1), torch.cat([columns, at + start], 1)
            best = values.argsort(dim=1, descending=True, stable=True)[:, :wide]
            values, columns = values.gather(1, best), columns.gather(1, best)
        candidates[rows] = columns

    in_blocks([slice(start, start + BLOCK) for start in range(0, len(new), BLOCK)], search)
    distances = np.empty((len(new), k), np.float32)
    indices = np.empty((len(new), k), np.int64)
    run_compiled(nearest_candidates, new, reference, candidates, cosine, indices, distances)
    return Neighbours(torch.from_numpy(indices), torch.from_numpy(distances))
