"""How much of the full space a map keeps. A map without these numbers is a picture.

Token embeddings of SmolLM2 keep about 15 % of their 15 nearest neighbours on any two-dimensional map: read
neighbour lists from the full space, not off the map.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp.atlas.neighbours import Neighbours, closeness, prepare

K = 15


class Quality(NamedTuple):
    """Agreement between map and full space, on a sample of points against all points."""

    trustworthiness: float
    """1: what is near on the map is near in the full space; 0.5 is about chance (Venna & Kaski 2001)"""
    recall: float
    """share of the `k` true neighbours that are among the `k` neighbours on the map; 1 all, 0 none"""
    k: int
    sample: int
    """points measured; neighbours and ranks are always over all points"""


def measure_quality(
    vectors: Tensor,
    positions: np.ndarray,
    neighbours: Neighbours,
    *,
    metric: str,
    generator: torch.Generator,
    k: int = K,
    sample: int = 2000,
    block: int = 256,
) -> Quality | None:
    """Trustworthiness and recall of `positions [n, 2]` as a map of `vectors [n, d]`; None below `2 k + 2` points.

    Trustworthiness is `1 - 2 / (m k (2n - 3k - 1)) * sum of max(0, rank - k)` over the map neighbours of `m` sampled
    points, `rank` being a neighbour's place in the full-space order; with `m = n` it is the published number.
    """
    n = len(vectors)
    if n < 2 * k + 2:
        return None
    chosen = torch.randperm(n, generator=generator)[: min(sample, n)]
    on_map = torch.from_numpy(map_neighbours(positions, chosen.numpy(), k))
    points = prepare(vectors, metric)
    excess = 0.0
    for rows, near in zip(chosen.split(block), on_map.split(block), strict=True):
        excess += float((ranks_of(points, rows, near, metric) - k).clamp(min=0).sum())
    trust = 1 - 2 * excess / (len(chosen) * k * (2 * n - 3 * k - 1))
    true = neighbours.indices[chosen, :k]
    shared = (on_map[:, :, None] == true[:, None, :]).any(2).float().mean()
    return Quality(trust, float(shared), k, len(chosen))


def ranks_of(points: Tensor, rows: Tensor, near: Tensor, metric: str) -> Tensor:
    """`[m, k]`: the places (1 is nearest) of the points `near [m, k]` in the full-space order from `rows [m]`.

    One search per pair against the `k` sorted values instead of `k` comparisons; the order of the `k` is not kept.
    """
    value = closeness(points, rows, metric)
    value[torch.arange(len(rows)), rows] = torch.inf  # itself: place 0
    marks = value.gather(1, near).neg_().sort(1).values
    passed = torch.searchsorted(marks, value.neg_(), right=True, out_int32=True)
    k = near.shape[1]
    flat = passed + (k + 1) * torch.arange(len(rows), dtype=torch.int32)[:, None]
    counts = torch.bincount(flat.flatten(), minlength=len(rows) * (k + 1)).reshape(len(rows), k + 1)
    return counts.cumsum(1)[:, :k]


def map_neighbours(positions: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """`[len(rows), k]` int64: the nearest other points on the map."""
    from sklearn.neighbors import NearestNeighbors

    # k + 1 because the point finds itself; among equal positions it need not come first, so it is removed by number.
    found = NearestNeighbors(n_neighbors=k + 1).fit(positions).kneighbors(positions[rows], return_distance=False)
    itself = found == rows[:, None]
    itself[~itself.any(1), -1] = True
    return found[~itself].reshape(len(rows), k)
