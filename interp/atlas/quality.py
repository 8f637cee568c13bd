"""Quality of a map: how faithfully two dimensions represent the full space.

A map should never be read without these numbers. Token embeddings of SmolLM2 retain about 15 % of their 15 nearest
neighbours on any two-dimensional map: take neighbour lists from the full space, not from the map.
"""

import numpy as np
import torch
from torch import Tensor

from interp.atlas.neighbours import closeness, largest, prepare
from interp.atlas.vector_map import Quality
from interp.threads import in_blocks

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
    one, two, three = torch.randint(len(points), (3, TRIPLETS), generator=generator)
    distinct = (one != two) & (one != three) & (two != three)
    one, two, three = one[distinct], two[distinct], three[distinct]

    def nearer(x: Tensor) -> Tensor:
        # for unit vectors this is the order of the cosine
        return (x[one] - x[two]).square().sum(1) < (x[one] - x[three]).square().sum(1)

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
    found = np.asarray(near)
    itself = found == rows[:, None]
    itself[~itself.any(1), -1] = True
    return found[~itself].reshape(len(rows), k)


def _nearest(value: Tensor, rows: Tensor, k: int) -> Tensor:
    """Return the true neighbours of some rows `[m, k]` from their closeness `[m, n]`, which is restored afterwards."""
    itself = (torch.arange(len(rows)), rows)
    own = value[itself]
    value[itself] = -torch.inf
    nearest = largest(value, k)[1]
    value[itself] = own
    return nearest


def _ranks(value: Tensor, rows: Tensor, near: Tensor) -> Tensor:
    """Return the ranks `[m, k]` (1 is nearest) of the points `near [m, k]` by closeness `value [m, n]`."""
    from interp.atlas.kernels import count_larger

    value[torch.arange(len(rows)), rows] = torch.inf  # the point itself has rank 0
    found = np.empty(near.shape, np.int64)
    count_larger(value.numpy(), value.gather(1, near).numpy(), found)
    return torch.from_numpy(found)
