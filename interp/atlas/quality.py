"""How much of the full space a map keeps. A map without these numbers is a picture.

Token embeddings of SmolLM2 keep about 15 % of their 15 nearest neighbours on any two-dimensional map: read
neighbour lists from the full space, not off the map.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp.atlas.neighbours import closeness, largest, prepare
from interp.results import Result
from interp.runtime import in_blocks

K = 15
TRIPLETS = 20_000


@dataclass(frozen=True)
class Quality(Result):
    """Agreement between map and full space, on a sample of points against all points."""

    trustworthiness: float
    """1: what is near on the map is near in the full space; 0.5 is about chance (Venna & Kaski 2001)"""
    continuity: float
    """1: what is near in the full space is near on the map; 0.5 is about chance (the same, spaces exchanged)"""
    recall: float
    """share of the `k` true neighbours that are among the `k` neighbours on the map; 1 all, 0 none"""
    triplets: float
    """share of random triples whose nearer pair is the same in both: 1 all, 0.5 is chance (Wang et al. 2021, PaCMAP)"""
    k: int
    sample: int
    """points measured; neighbours and ranks are always over all points"""

    def headline(self) -> str:
        """Say which points were measured."""
        return f"Quality of a map, {self.sample:,} points against all (1 is faithful; chance: 0.5, 0.5, about 0, 0.5)"


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
    """Quality of `positions [n, 2]` as a map of `vectors [n, d]`; None below `2 k + 2` points.

    Trustworthiness is `1 - 2 / (m k (2n - 3k - 1)) * sum of max(0, rank - k)` over the map neighbours of `m` sampled
    points, `rank` being a neighbour's place in the full-space order; with `m = n` it is the published number.
    """
    n = len(vectors)
    if n < 2 * k + 2:
        return None
    chosen = torch.randperm(n, generator=generator)[: min(sample, n)]
    on_map = torch.from_numpy(map_neighbours(positions, chosen.numpy(), k))
    points, compared = prepare(vectors, metric)
    places = prepare(torch.from_numpy(positions), "euclidean").points

    def compare(part: slice) -> tuple[float, float, int]:
        rows, near = chosen[part], on_map[part]
        value = closeness(points[rows], points, compared)
        true = _nearest(value, rows, k)
        excess = float((_places(value, rows, near) - k).clamp(min=0).sum())
        missed = float((_places(closeness(places[rows], places, "euclidean"), rows, true) - k).clamp(min=0).sum())
        return excess, missed, int((near[:, :, None] == true[:, None, :]).any(2).sum())

    parts = [slice(start, start + block) for start in range(0, len(chosen), block)]
    excess, missed, shared = (sum(column) for column in zip(*in_blocks(parts, compare), strict=True))
    worst = len(chosen) * k * (2 * n - 3 * k - 1) / 2
    return Quality(
        trustworthiness=1 - excess / worst,
        continuity=1 - missed / worst,
        recall=shared / (len(chosen) * k),
        triplets=triplet_accuracy(points, places, generator=generator),
        k=k,
        sample=len(chosen),
    )


def triplet_accuracy(points: Tensor, places: Tensor, *, generator: torch.Generator) -> float:
    """How often, of three random points, the second is nearer to the first than the third is in both spaces or none.

    `points [n, d]` as `prepare` gives them, `places [n, 2]`.
    """
    one, two, three = torch.randint(len(points), (3, TRIPLETS), generator=generator)
    distinct = (one != two) & (one != three) & (two != three)
    one, two, three = one[distinct], two[distinct], three[distinct]

    def nearer(x: Tensor) -> Tensor:
        return (x[one] - x[two]).square().sum(1) < (x[one] - x[three]).square().sum(
            1
        )  # unit vectors: the cosine's order

    return float((nearer(points) == nearer(places)).float().mean())


def kept_neighbours(indices: Tensor, positions: np.ndarray) -> np.ndarray:
    """`[n]` float32: share of each point's neighbours `indices [n, k]` that are among its `k` neighbours on the map.

    A map's distortion point by point: 1 keeps the whole neighbourhood, 0 nothing of it.
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
    """`[len(rows), k]` int64: the nearest other points on the map."""
    from scipy.spatial import KDTree  # a tenth of what scikit-learn takes to import

    # k + 1 because the point finds itself; among equal positions it need not come first, so it is removed by number.
    _, near = KDTree(positions).query(positions[rows], k + 1, workers=torch.get_num_threads())
    found = np.asarray(near)
    itself = found == rows[:, None]
    itself[~itself.any(1), -1] = True
    return found[~itself].reshape(len(rows), k)


def _nearest(value: Tensor, rows: Tensor, k: int) -> Tensor:
    """`[m, k]`: the true neighbours of some rows, from their closeness `[m, n]`, which is left as it was."""
    itself = (torch.arange(len(rows)), rows)
    kept = value[itself]
    value[itself] = -torch.inf
    nearest = largest(value, k)[1]
    value[itself] = kept
    return nearest


def _places(value: Tensor, rows: Tensor, near: Tensor) -> Tensor:
    """`[m, k]`: the places (1 is nearest) of the points `near [m, k]` in the order of closeness `value [m, n]`."""
    from interp.atlas.kernels import count_larger

    value[torch.arange(len(rows)), rows] = torch.inf  # itself: place 0
    found = np.empty(near.shape, np.int64)
    count_larger(value.numpy(), value.gather(1, near).numpy(), found)
    return torch.from_numpy(found)
