"""Two dimensions for each vector.

| method | |
|---|---|
| `umap` | our own engine (`engine`): parallel, and the same map to the bit for any number of threads |
| `umap-learn` | the reference (McInnes, Healy & Melville 2018), on one thread since it is seeded |
| `tsne` | scikit-learn's t-SNE (van der Maaten & Hinton 2008): keeps more near neighbours, takes far longer |
| `pca` | the first two principal components: no structure that is not linear, nothing random |

All start at the principal components: no spectral start that fails on graphs of several parts.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp.atlas.blocks import in_blocks
from interp.atlas.engine import move_points
from interp.atlas.fuzzy import fuzzy_graph
from interp.atlas.neighbours import Neighbours, rescaled
from interp.errors import ConfigError, UnknownNameError
from interp.progress import Progress
from interp.runtime import make_generator, one_thread

METHODS = ("umap", "umap-learn", "tsne", "pca")
FEWEST_FOR_UMAP = 10
SHARES, ROWS_AT_ONCE = 8, 4096


class Layout(NamedTuple):
    """A map."""

    positions: np.ndarray
    """`[n, 2]` float32"""
    method: str
    """what was used"""
    note: str
    """why it is not what was asked for; empty when it is"""


def lay_out(
    vectors: Tensor,
    neighbours: Neighbours,
    *,
    method: str = "umap",
    metric: str = "cosine",
    min_dist: float = 0.1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Layout:
    """Positions for `vectors [n, d]`, given their neighbours in the full space.

    A handful of points (fewer than 10) is laid out by its principal components, and equal vectors all fall on one spot;
    `note` says so. Raises `UnknownNameError` on a method that does not exist, `ConfigError` on a bad `min_dist`.
    """
    if method not in METHODS:
        raise UnknownNameError("layout method", method, METHODS)
    if not 0 <= min_dist <= 1:
        raise ConfigError(f"min_dist must lie between 0 and 1 (map units), got {min_dist}")
    vectors = rescaled(vectors).contiguous()
    start = principal_components(vectors, 2)
    if not np.ptp(start, axis=0).any():
        return Layout(np.zeros_like(start), "pca", "all vectors are equal, so all points share one place")
    if method == "pca":
        return Layout(start, "pca", "")
    if len(vectors) < FEWEST_FOR_UMAP:
        return Layout(start, "pca", f"{len(vectors)} points are too few for {method}; principal components instead")
    if method == "umap":
        generator = make_generator(seed, "start")
        positions = move_points(
            fuzzy_graph(neighbours), spread(start, generator), min_dist=min_dist, seed=seed, progress=progress
        )
    elif method == "tsne":
        positions = _tsne(vectors, start, metric, seed)
    else:
        positions = _umap_learn(start, neighbours, min_dist, seed)
    return Layout(positions, method, "")


def principal_components(vectors: Tensor, k: int) -> np.ndarray:
    """`[n, k]` float32 scores on the first `k` components, each with its largest loading positive.

    From the `d x d` covariance in float64, summed in `SHARES` shares of the rows: the same on any number of threads.
    Missing components (k > d) are zeros.
    """
    shares = vectors.split(-(-len(vectors) // SHARES))
    mean = torch.stack(in_blocks(shares, lambda share: _summed(share, lambda x: x.sum(0)))).sum(0) / len(vectors)

    def squares(x: Tensor) -> Tensor:
        x = x - mean
        return x.T @ x

    covariance = torch.stack(in_blocks(shares, lambda share: _summed(share, squares))).sum(0) / len(vectors)
    with one_thread():
        _, axes = torch.linalg.eigh(covariance)
    axes = axes.flip(1)[:, :k]
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    blocks = vectors.split(ROWS_AT_ONCE)
    scores = torch.cat(in_blocks(blocks, lambda x: ((x.double() - mean) @ axes).float())).numpy()
    # Equal vectors leave rounding noise; it must not be scaled up into a map.
    scores[:, np.ptp(scores, axis=0) < 1e-6 * max(float(vectors.abs().max()), 1e-30)] = 0
    return np.pad(scores, ((0, 0), (0, k - scores.shape[1])))


def _summed(share: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """`of(rows)` in float64 added up over a share of the rows, few at a time."""
    total, *rest = (of(rows.double()) for rows in share.split(ROWS_AT_ONCE))
    for part in rest:
        total += part
    return total


def _umap_learn(start: np.ndarray, neighbours: Neighbours, min_dist: float, seed: int) -> np.ndarray:
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
        init=spread(start, make_generator(seed, "start")), random_state=random, metric="euclidean", metric_kwds={},
        densmap=False, densmap_kwds={}, output_dens=False, parallel=False,
    )  # fmt: skip
    return np.asarray(positions, dtype=np.float32)


def _tsne(vectors: Tensor, start: np.ndarray, metric: str, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    found = TSNE(
        perplexity=min(30, (len(vectors) - 1) / 3),
        init=start * (1e-4 / max(float(start[:, 0].std()), 1e-30)),  # type: ignore[arg-type]  # Kobak & Berens 2019
        metric=metric,
        random_state=seed % 2**32,
    ).fit_transform(vectors.numpy())
    return np.asarray(found, dtype=np.float32)


def spread(start: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """The start, each axis scaled to 0 to 10 as umap-learn does, with a little noise so that equal points can part."""
    low, wide = start.min(0), np.ptp(start, axis=0)
    scaled = (start - low) * (10.0 / np.where(wide > 0, wide, 1))
    return (scaled + 1e-4 * torch.randn(start.shape, generator=generator).numpy()).astype(np.float32)
