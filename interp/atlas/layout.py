"""Layout: two coordinates for each vector, and for new vectors on an existing map.

| method | |
|---|---|
| `umap` | our own implementation: parallel, and the same map to the bit for any number of threads |
| `umap-learn` | the reference (McInnes, Healy & Melville 2018), on one thread since it is seeded |
| `tsne` | scikit-learn's t-SNE (van der Maaten & Hinton 2008): preserves more near neighbours, takes far longer |
| `pca` | the first two principal components: linear structure only, nothing random |

Every method starts from the principal components; a spectral start fails on disconnected graphs.

**Fuzzy graph.** Edge weights are UMAP's (McInnes, Healy & Melville 2018, sec. 3):

    w(i -> j) = exp(-(d_ij - rho_i) / sigma_i)          rho_i: distance to the nearest neighbour, whose weight is 1
    sum over j of w(i -> j) = log2(k + 1)               fixes sigma_i; the point itself counts as a neighbour
    w(i, j) = w(i -> j) + w(j -> i) - w(i -> j) w(j -> i)

**Our layout of that graph.** UMAP iterates over edges and moves both ends, so threads race, or one thread must do all
the work. Here each point moves itself, by the same forces:

    attraction   2 a b d^(2b - 2) / (1 + a d^2b)        towards the other end of an edge
    repulsion    2 b / ((0.001 + d^2) (1 + a d^2b))      from five random points for every edge used

An epoch moves the points in `TURNS` turns. Points of one turn use all positions as of its start; the next turn uses the
new ones. With a single turn (all points move at once) maps preserve fewer true neighbours. The order of turns is
random: a vocabulary is sorted by frequency, and in that order its map preserves a tenth fewer neighbours.

Three departures from UMAP, each of which makes maps preserve more neighbours:

1. A point visits its edges from a different starting edge every epoch. In a fixed order it always ends near the last
   one: a rolled-up sheet then preserves 0.71 of its neighbours, with varying starts 0.76.
2. An edge attracts its point once, where an edge of UMAP attracts each end twice. So repulsion has double weight
(UMAP's `repulsion_strength` 2): a vocabulary preserves 0.20 of its neighbours instead of 0.17.
3. Step sizes begin at `RATE` instead of 1.

Forces come from a table over the upper bits of the squared distance, 128 entries per octave, instead of two powers.

**New points** are placed on an existing map, which does not change (`place_points`). Each point is placed on its own,
from its nearest points of the map. So one point, a few or all of them get the same positions to the bit, and no point
of the map moves. (A transform in which new points repel each other gives another answer for every batch.) A new point
`y` goes where UMAP's attraction to these neighbours `y_j` is strongest:

    maximise    sum over j of w_j log(1 / (1 + a |y - y_j|^2b))        w_j: edge weights as in the fuzzy graph

The search ascends from the best of the neighbours' own positions. A mean of the neighbours would fall between two
clusters if they lie in both; the maximum lies in one of them. A vector that is already on the map gets that point's
position.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

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
from interp.atlas.vector_map import METHODS, Method
from interp.errors import ConfigError, UnknownNameError
from interp.progress import Progress
from interp.seeds import make_generator
from interp.threads import in_blocks, one_thread, run_compiled


class FuzzyGraph(NamedTuple):
    """Symmetric graph by rows: the edges of point `i` are `starts[i] : starts[i + 1]`, sorted by the other point."""

    starts: np.ndarray
    """`[n + 1]` int64"""
    others: np.ndarray
    """`[n_edges]` int32: the other end of each edge"""
    weights: np.ndarray
    """`[n_edges]` float32, above 0 and at most 1"""

    @property
    def n(self) -> int:
        return len(self.starts) - 1


def fuzzy_graph(neighbours: Neighbours) -> FuzzyGraph:
    """Build UMAP's fuzzy graph from `neighbours`, in which no point lists itself."""
    import scipy.sparse as sparse

    from interp.atlas._kernels import memberships

    distances = np.ascontiguousarray(rescaled(neighbours.distances).numpy())
    n, k = distances.shape
    directed = np.empty_like(distances)
    run_compiled(memberships, distances, float(distances.mean(dtype=np.float64)), directed)
    columns = neighbours.indices.numpy().astype(np.int32).ravel()
    one_way = sparse.csr_matrix((directed.ravel(), columns, np.arange(n + 1) * k), shape=(n, n))
    other_way = one_way.T.tocsr()
    both = (one_way + other_way - one_way.multiply(other_way)).tocsr()
    both.sort_indices()
    return FuzzyGraph(both.indptr.astype(np.int64), both.indices.astype(np.int32), both.data.astype(np.float32))


TURNS = 16
RATE = 0.5
"""Initial learning rate. UMAP's own 1 scatters points more than the rest of the schedule can repair."""
FEW_POINTS = 10_000
"""Up to this many points there are 700 epochs instead of 200. umap-learn has 500; with 500 our maps of clusters score
0.003 below its own."""
FEWEST_PER_THREAD = 1000
"""Smallest number of points per turn and thread; with fewer the synchronisation takes longer than the work."""
AT_ONCE = 10
"""Epochs between two reports of progress."""


def epochs_for(n: int) -> int:
    """Return the number of epochs for a map of `n` points."""
    return 700 if n <= FEW_POINTS else 200


class Mover:
    """Layout in progress: runs any number of epochs at a time and gives the `positions` reached."""

    def __init__(
        self, graph: FuzzyGraph, start: np.ndarray, *, min_dist: float, seed: int, n_epochs: int | None = None
    ) -> None:
        """Begin at `start [n, 2]`, which is not changed. Edges too weak to be used once are dropped."""
        self.n_epochs = n_epochs or epochs_for(graph.n)
        self._order = np.random.default_rng(seed).permutation(graph.n)
        graph = reordered(graph, self._order)
        rates = graph.weights / max(float(graph.weights.max(initial=0)), 1e-30)
        used = rates * self.n_epochs >= 1
        starts = np.concatenate([[0], np.cumsum(used)])[graph.starts]
        self._fixed = (starts, graph.others[used], rates[used], *force_tables(*curve(min_dist)))
        self._seed = seed % 2**63
        self._ordered = np.ascontiguousarray(start[self._order], dtype=np.float32)
        self._buffer = np.empty_like(self._ordered)
        self._threads = max(1, graph.n // (TURNS * FEWEST_PER_THREAD))

    def run(self, first: int, last: int) -> None:
        """Run epochs `first` to `last`, the latter excluded."""
        from interp.atlas._kernels import run_epochs

        steps = (first, last, self.n_epochs, RATE, self._seed, TURNS)
        run_compiled(run_epochs, self._ordered, self._buffer, *self._fixed, *steps, at_most=self._threads)

    @property
    def positions(self) -> np.ndarray:
        """Current positions `[n, 2]` float32, a copy."""
        positions = np.empty_like(self._ordered)
        positions[self._order] = self._ordered
        return positions

    def shift(self, by: np.ndarray) -> None:
        """Add `by [n, 2]` to every position."""
        self._ordered += by[self._order]


def move_points(
    graph: FuzzyGraph,
    start: np.ndarray,
    *,
    min_dist: float,
    seed: int,
    n_epochs: int | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Lay out the points of `graph`: positions `[n, 2]` float32. `progress(epoch, n_epochs, {})` may raise to stop."""
    mover = Mover(graph, start, min_dist=min_dist, seed=seed, n_epochs=n_epochs)
    for first in range(0, mover.n_epochs, AT_ONCE):
        last = min(first + AT_ONCE, mover.n_epochs)
        mover.run(first, last)
        if progress is not None:
            progress(last, mover.n_epochs, {})
    return mover.positions


def reordered(graph: FuzzyGraph, order: np.ndarray) -> FuzzyGraph:
    """Return the same graph with point `order[i]` as its point `i`."""
    import scipy.sparse as sparse

    rows = sparse.csr_matrix((graph.weights, graph.others, graph.starts), shape=(graph.n, graph.n))[order]
    new_number = np.empty(graph.n, np.int32)
    new_number[order] = np.arange(graph.n, dtype=np.int32)
    rows.indices = new_number[rows.indices]
    rows.sort_indices()
    return FuzzyGraph(rows.indptr.astype(np.int64), rows.indices.astype(np.int32), rows.data.astype(np.float32))


def curve(min_dist: float, spread: float = 1.0) -> tuple[float, float]:
    """Fit `a` and `b` of `1 / (1 + a d^2b)` to 1 up to `min_dist` and `exp(-(d - min_dist) / spread)` beyond.

    Least squares as in umap-learn (McInnes et al. 2018, sec. 3.2), by Levenberg's damped Gauss-Newton steps.
    """
    d = np.linspace(0, spread * 3, 300)[1:]  # at 0 every curve is 1
    wanted = np.where(d < min_dist, 1.0, np.exp(-(d - min_dist) / spread))
    fit, damping = np.ones(2), 1e-3

    def value(ab: np.ndarray) -> np.ndarray:
        return 1 / (1 + ab[0] * d ** (2 * ab[1]))

    for _ in range(200):
        now = value(fit)
        slope = np.stack([-(now**2) * d ** (2 * fit[1]), -(now**2) * fit[0] * d ** (2 * fit[1]) * 2 * np.log(d)])
        step = np.linalg.solve(slope @ slope.T + damping * np.eye(2), slope @ (wanted - now))
        better = np.square(wanted - value(fit + step)).sum() < np.square(wanted - now).sum()
        fit, damping = (fit + step, damping / 10) if better else (fit, damping * 10)
        if np.abs(step).max() < 1e-10:
            break
    return float(fit[0]), float(fit[1])


def force_tables(a: float, b: float) -> tuple[np.ndarray, np.ndarray]:
    """Return tables of attraction and repulsion, `[2^15]` float32 each, by the upper 15 bits of a squared distance.

    The squared distance is a positive float32. Both tables are 0 at distance 0 and at infinity and NaN.
    """
    bits = (np.arange(1 << 15, dtype=np.int64) << 16) + (1 << 15)
    with np.errstate(all="ignore"):
        squared = bits.astype(np.int32).view(np.float32).astype(np.float64)
        attraction = 2 * a * b * squared ** (b - 1) / (1 + a * squared**b)
        repulsion = 2 * b / ((0.001 + squared) * (1 + a * squared**b))
    for table in (attraction, repulsion):
        table[~np.isfinite(squared) | ~np.isfinite(table)] = 0
        table[0] = 0
    return attraction.astype(np.float32), repulsion.astype(np.float32)


FEWEST_FOR_UMAP = 10
SHARES, ROWS_AT_ONCE = 8, 4096


class Layout(NamedTuple):
    """Positions on a map, and the method that gave them."""

    positions: np.ndarray
    """`[n, 2]` float32"""
    method: Method
    """method that was used"""
    note: str
    """reason why the method or the map differs from the request; empty if it does not"""


def lay_out(
    vectors: Tensor,
    neighbours: Neighbours,
    *,
    method: Method = "umap",
    metric: str = "cosine",
    min_dist: float = 0.1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Layout:
    """Lay out `vectors [n, d]` in two dimensions, given their neighbours in the full space.

    Fewer than 10 points are laid out by their principal components, and equal vectors all get one position; `note` says
    so. Raises `UnknownNameError` for an unknown method, `ConfigError` for `min_dist` outside 0 to 1.
    """
    if method not in METHODS:
        raise UnknownNameError("layout method", method, METHODS)
    if not 0 <= min_dist <= 1:
        raise ConfigError(f"min_dist must lie between 0 and 1 (map units), got {min_dist}")
    vectors = rescaled(vectors).contiguous()
    start = principal_components(vectors, 2)
    if not np.ptp(start, axis=0).any():
        return Layout(np.zeros_like(start), "pca", "all vectors are equal, so all points share one position")
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
    """Return scores on the first `k` components, `[n, k]` float32, each with its largest loading positive.

    They come from the `d x d` covariance in float64, summed over `SHARES` fixed blocks of rows, so that the result is
    the same on any number of threads. Missing components (k > d) are zeros.
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
    # Equal vectors give rounding noise, which must not be scaled up into a map.
    scores[:, np.ptp(scores, axis=0) < 1e-6 * max(float(vectors.abs().max()), 1e-30)] = 0
    return np.pad(scores, ((0, 0), (0, k - scores.shape[1])))


def _summed(share: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """Sum `of(rows)` in float64 over a block of rows, `ROWS_AT_ONCE` at a time."""
    total, *rest = (of(rows.double()) for rows in share.split(ROWS_AT_ONCE))
    for part in rest:
        total += part
    return total


def _umap_learn(start: np.ndarray, neighbours: Neighbours, min_dist: float, seed: int) -> np.ndarray:
    from umap import umap_

    reference: Any = umap_  # it has no annotations, and a type checker takes half a minute to infer them
    n = len(start)
    # umap counts the point itself as its first neighbour.
    indices = np.column_stack([np.arange(n), neighbours.indices.numpy()]).astype(np.int32)
    distances = np.column_stack([np.zeros(n), neighbours.distances.numpy()]).astype(np.float32)
    random = np.random.RandomState(seed % 2**32)  # umap's own interface
    graph = reference.fuzzy_simplicial_set(
        start, indices.shape[1], random, "euclidean", knn_indices=indices, knn_dists=distances.clip(min=0)
    )[0]
    a, b = reference.find_ab_params(1.0, min_dist)
    positions, _ = reference.simplicial_set_embedding(
        start, graph, n_components=2, initial_alpha=1.0, a=a, b=b, gamma=1.0, negative_sample_rate=5, n_epochs=None,
        init=spread(start, make_generator(seed, "start")), random_state=random, metric="euclidean", metric_kwds={},
        densmap=False, densmap_kwds={}, output_dens=False, parallel=False,
    )  # fmt: skip
    return np.asarray(positions, dtype=np.float32)


def _tsne(vectors: Tensor, start: np.ndarray, metric: str, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    positions = TSNE(
        perplexity=min(30, (len(vectors) - 1) / 3),
        init=start * (1e-4 / max(float(start[:, 0].std()), 1e-30)),  # type: ignore[arg-type]  # Kobak & Berens 2019
        metric=metric,
        random_state=seed % 2**32,
    ).fit_transform(vectors.numpy())
    return np.asarray(positions, dtype=np.float32)


def spread(start: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """Scale each axis to 0 to 10 as umap-learn does, and add a little noise that separates equal points."""
    low, wide = start.min(0), np.ptp(start, axis=0)
    scaled = (start - low) * (10.0 / np.where(wide > 0, wide, 1))
    return (scaled + 1e-4 * torch.randn(start.shape, generator=generator).numpy()).astype(np.float32)


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

    `min_dist` is that of the map's layout: 0 packs neighbours closely.

    `nearest [n]` is the distance of every point of the map to its nearest other one (`neighbours.distances[:, 0]`).
    `k` is reduced to at most `n`. Raises `ConfigError` when shapes do not match, `NonFiniteError` for NaN or infinity,
    `UnknownNameError` for an unknown metric.
    """
    from interp.atlas._kernels import memberships, strongest_attraction

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
    from interp.atlas._kernels import nearest_candidates

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
            near, at = largest(closeness(mine, others, compared), min(wide, len(others)))
            values, columns = torch.cat([values, near], 1), torch.cat([columns, at + start], 1)
            best = values.argsort(dim=1, descending=True, stable=True)[:, :wide]
            values, columns = values.gather(1, best), columns.gather(1, best)
        candidates[rows] = columns

    in_blocks([slice(start, start + BLOCK) for start in range(0, len(new), BLOCK)], search)
    distances = np.empty((len(new), k), np.float32)
    indices = np.empty((len(new), k), np.int64)
    run_compiled(nearest_candidates, new, reference, candidates, cosine, indices, distances)
    return Neighbours(torch.from_numpy(indices), torch.from_numpy(distances))
