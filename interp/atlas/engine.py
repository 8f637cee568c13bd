"""Our own layout of UMAP's fuzzy graph: parallel, and the same to the bit for any number of threads.

UMAP (McInnes, Healy & Melville 2018) walks over edges and moves both ends, so threads race or one thread must do it
all. Here each point moves itself, by the same forces:

    attraction   2 a b d^(2b - 2) / (1 + a d^2b)        towards the other end of a tie
    repulsion    2 b / ((.001 + d^2) (1 + a d^2b))      from five random points for every tie used

An epoch moves the points in `TURNS` turns. Within one turn all see where the others were, across turns they see where
the others are: with a single turn (everyone moves at once) maps keep fewer of their true neighbours. Points take their
turns in an order drawn at random: vocabularies are sorted by frequency, and in that order a map of one keeps a tenth
fewer.

Three things are not UMAP's, as maps are truer for them: a point goes around its ties from another one each epoch (in
one order it ends each near the last of them: a rolled-up sheet keeps .71 of its neighbours then, .76 so); a tie draws
it once, where an edge of UMAP draws each end twice, so that repulsion weighs double (its `repulsion_strength` 2: a
vocabulary keeps .20 instead of .17); and steps begin at `RATE`.

Forces are read from a table over the bits of the squared distance, 128 entries per octave, instead of two powers.
"""

import numpy as np

from interp.atlas.fuzzy import FuzzyGraph
from interp.progress import Progress

TURNS = 16
RATE = 0.5
"""Of the first steps, in UMAP's units: its own 1 throws points about for longer than the rest of the schedule mends."""
FEW_POINTS = 10_000
"""Up to so many, 700 epochs (500 in umap-learn) instead of 200: with 500 clusters are less true than its, by .003."""
FEWEST_PER_THREAD = 1000
"""Points of a turn that are worth a thread: fewer take less time than threads take to meet."""
AT_ONCE = 10
"""Epochs between two reports of progress."""


def epochs_for(n: int) -> int:
    """How long a map of `n` points is laid out."""
    return 700 if n <= FEW_POINTS else 200


class Mover:
    """A map on its way: epochs as many at a time as one likes, `positions` in between."""

    def __init__(
        self, graph: FuzzyGraph, start: np.ndarray, *, min_dist: float, seed: int, n_epochs: int | None = None
    ) -> None:
        """From `start [n, 2]`, which stays as it is. Ties too weak to be used once are left out."""
        self.n_epochs = n_epochs or epochs_for(graph.n)
        self._order = np.random.default_rng(seed).permutation(graph.n)
        graph = reordered(graph, self._order)
        rates = graph.weights / max(float(graph.weights.max(initial=0)), 1e-30)
        used = rates * self.n_epochs >= 1
        starts = np.concatenate([[0], np.cumsum(used)])[graph.starts]
        self._fixed = (starts, graph.others[used], rates[used], *force_tables(*curve(min_dist)))
        self._seed = seed % 2**63
        self._places = np.ascontiguousarray(start[self._order], dtype=np.float32)
        self._room = np.empty_like(self._places)
        self._threads = max(1, graph.n // (TURNS * FEWEST_PER_THREAD))

    def run(self, first: int, last: int) -> None:
        """Epochs `first` to `last`, the second not included."""
        from interp.atlas.kernels import run_epochs
        from interp.compiled import run_compiled

        steps = (first, last, self.n_epochs, RATE, self._seed, TURNS)
        run_compiled(run_epochs, self._places, self._room, *self._fixed, *steps, at_most=self._threads)

    @property
    def positions(self) -> np.ndarray:
        """`[n, 2]` float32, a copy."""
        found = np.empty_like(self._places)
        found[self._order] = self._places
        return found

    def shift(self, by: np.ndarray) -> None:
        """Add `by [n, 2]` to every position."""
        self._places += by[self._order]


def move_points(
    graph: FuzzyGraph,
    start: np.ndarray,
    *,
    min_dist: float,
    seed: int,
    n_epochs: int | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Positions `[n, 2]` float32 of `graph`'s points. `progress(epoch, n_epochs, {})` may raise to stop."""
    mover = Mover(graph, start, min_dist=min_dist, seed=seed, n_epochs=n_epochs)
    for first in range(0, mover.n_epochs, AT_ONCE):
        last = min(first + AT_ONCE, mover.n_epochs)
        mover.run(first, last)
        if progress is not None:
            progress(last, mover.n_epochs, {})
    return mover.positions


def reordered(graph: FuzzyGraph, order: np.ndarray) -> FuzzyGraph:
    """The same graph with point `order[i]` as its point `i`."""
    import scipy.sparse as sparse

    rows = sparse.csr_matrix((graph.weights, graph.others, graph.starts), shape=(graph.n, graph.n))[order]
    place = np.empty(graph.n, np.int32)
    place[order] = np.arange(graph.n, dtype=np.int32)
    rows.indices = place[rows.indices]
    rows.sort_indices()
    return FuzzyGraph(rows.indptr.astype(np.int64), rows.indices.astype(np.int32), rows.data.astype(np.float32))


def curve(min_dist: float, spread: float = 1.0) -> tuple[float, float]:
    """`a` and `b` for which `1 / (1 + a d^2b)` is nearest to 1 up to `min_dist` and `exp(-(d - min_dist) / spread)`
    beyond, in least squares (section 3.2; as umap-learn does), by Levenberg's damped Gauss-Newton steps."""
    d = np.linspace(0, spread * 3, 300)[1:]  # at 0 every curve is 1
    wanted = np.where(d < min_dist, 1.0, np.exp(-(d - min_dist) / spread))
    found, damping = np.ones(2), 1e-3

    def value(ab: np.ndarray) -> np.ndarray:
        return 1 / (1 + ab[0] * d ** (2 * ab[1]))

    for _ in range(200):
        now = value(found)
        slope = np.stack([-(now**2) * d ** (2 * found[1]), -(now**2) * found[0] * d ** (2 * found[1]) * 2 * np.log(d)])
        step = np.linalg.solve(slope @ slope.T + damping * np.eye(2), slope @ (wanted - now))
        better = np.square(wanted - value(found + step)).sum() < np.square(wanted - now).sum()
        found, damping = (found + step, damping / 10) if better else (found, damping * 10)
        if np.abs(step).max() < 1e-10:
            break
    return float(found[0]), float(found[1])


def force_tables(a: float, b: float) -> tuple[np.ndarray, np.ndarray]:
    """Attraction and repulsion, `[2^15]` float32 each, by the upper 15 bits of a squared distance (a positive float32).

    Both are 0 at distance 0, and at what is no number.
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
