"""Two dimensions for each vector.

`umap-learn` (McInnes, Healy & Melville 2018) lays out our exact neighbours from a principal-component start: no
approximate neighbour search, no spectral start that fails on disconnected graphs. With a seed it runs on one thread,
and the same seed gives the same map on the same machine.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp.atlas.neighbours import Neighbours
from interp.errors import ConfigError, UnknownNameError

METHODS = ("umap-learn", "pca")
FEWEST_FOR_UMAP = 10


class Layout(NamedTuple):
    """A map."""

    positions: np.ndarray
    """`[n, 2]` float32"""
    method: str
    """what was used"""
    note: str
    """why it is not what was asked for; empty when it is"""


def lay_out(
    vectors: Tensor, neighbours: Neighbours, *, method: str = "umap-learn", min_dist: float = 0.1, seed: int = 0
) -> Layout:
    """Positions for `vectors [n, d]`, given their neighbours in the full space.

    A handful of points (fewer than 10) is laid out by its principal components, and equal vectors all fall on one spot;
    `note` says so. Raises `UnknownNameError` on a method that does not exist, `ConfigError` on a bad `min_dist`.
    """
    if method not in METHODS:
        raise UnknownNameError("layout method", method, METHODS)
    if not 0 <= min_dist <= 1:
        raise ConfigError(f"min_dist must lie between 0 and 1 (map units), got {min_dist}")
    start = principal_components(vectors, 2)
    if not np.ptp(start, axis=0).any():
        return Layout(np.zeros_like(start), "pca", "all vectors are equal, so all points share one place")
    if method == "pca":
        return Layout(start, "pca", "")
    if len(vectors) < FEWEST_FOR_UMAP:
        return Layout(start, "pca", f"{len(vectors)} points are too few for UMAP; principal components instead")
    return Layout(_umap(start, neighbours, min_dist, seed), "umap-learn", "")


def principal_components(vectors: Tensor, k: int) -> np.ndarray:
    """`[n, k]` float32 scores on the first `k` components, each with its largest loading positive.

    From the `d x d` covariance in float64. Missing components (k > d) are zeros.
    """
    x = vectors.double()
    x = x - x.mean(0)
    _, axes = torch.linalg.eigh(x.T @ x / len(x))
    axes = axes.flip(1)[:, :k]
    sign = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    scores = (x @ (axes * sign)).float().numpy()
    # Equal vectors leave rounding noise; it must not be scaled up into a map.
    scores[:, np.ptp(scores, axis=0) < 1e-6 * max(float(vectors.abs().max()), 1e-30)] = 0
    return np.pad(scores, ((0, 0), (0, k - scores.shape[1])))


def _umap(start: np.ndarray, neighbours: Neighbours, min_dist: float, seed: int) -> np.ndarray:
    from umap.umap_ import find_ab_params, fuzzy_simplicial_set, simplicial_set_embedding

    n = len(start)
    # umap counts the point itself as its first neighbour.
    indices = np.column_stack([np.arange(n), neighbours.indices.numpy()]).astype(np.int32)
    distances = np.column_stack([np.zeros(n), neighbours.distances.numpy()]).astype(np.float32)
    random = np.random.RandomState(seed % 2**32)  # umap's own interface
    graph = fuzzy_simplicial_set(
        start, indices.shape[1], random, "euclidean", knn_indices=indices, knn_dists=distances.clip(min=0)
    )[0]
    a, b = find_ab_params(1.0, min_dist)
    positions, _ = simplicial_set_embedding(
        start, graph, n_components=2, initial_alpha=1.0, a=a, b=b, gamma=1.0, negative_sample_rate=5, n_epochs=None,
        init=_spread(start, random), random_state=random, metric="euclidean", metric_kwds={}, densmap=False,
        densmap_kwds={}, output_dens=False, parallel=False,
    )  # fmt: skip
    return np.asarray(positions, dtype=np.float32)


def _spread(start: np.ndarray, random: "np.random.RandomState") -> np.ndarray:
    """The start scaled to 10 units, with a little noise so that equal points can part."""
    scaled = start * (10.0 / max(float(np.abs(start).max()), 1e-30))
    return (scaled + random.normal(scale=1e-4, size=start.shape)).astype(np.float32)
