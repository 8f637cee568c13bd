"""Do items that have an order lie on a circle, on a line, or in no such order?

    circle_test(points)          # row i is the item at place i of the order: Monday, Tuesday, ...

*Circular RSA* is the Spearman correlation of the points' distances with steps around the circle, `min(|i - j|,
n - |i - j|)`; *linear RSA* with `|i - j|`, for the cut of the circle that fits best. 1 is a perfect circle, or line.

Two questions, in this order:

1. Is there an order at all? Exact permutation over all orderings that differ by more than turning and mirroring:
   `(n - 1)! / 2` of them. So the smallest possible p is 1/3 for four items, 1/12 for five, 1/60 for six, 1/360 for
   seven: where it is above what counts, no result could, and the verdict is refused. Two correlations are tried, so a
   p-value counts from `alpha / 2` on.
2. Closed or open? A line or a horseshoe has a perfect order too. The difference of the two correlations is held
   against simulated circles and horseshoes of as many items and as clean an order (`closed`). Where it fits neither, or
   both, that is the verdict: few or noisy items cannot tell. Seven only do where they lie almost without noise.

Closed or open: does a curve through ordered items end where it began?

The statistic is circular less linear RSA. What it would be is simulated for a circle and for a horseshoe (three
quarters of a circle), both with as many items and with noise, in their plane or in many dimensions, whichever makes it
harder to tell. Of the simulated sets those count whose order is about as clean as the one observed (`quality`, the
larger of the two correlations). So the answer depends on how many items there are and how clean they lie: with few or
noisy ones neither is ruled out.

Is a two-dimensional feature one thing, or two one-dimensional ones side by side (Engels et al. 2024, 2405.14860)?

A feature reduces where its points come apart into two parts, in one of two ways:

- *separable*: after some rotation the two coordinates are independent. `separability` is the least mutual information
  over all rotations, in bits: 0 for independent coordinates, large for a circle, where one coordinate says much of the
  other;
- *mixture*: points of one kind lie on a line, others elsewhere, and never both at once. `mixture` is the largest share
  of points within a narrow strip (a tenth of the spread across it): .1 for a Gaussian, .2 for a circle (along its rim),
  half or more where half of the points lie on one line.

An irreducible feature has a high first and a low second number. Both stand beside those of Gaussian points of the same
covariance, which are separable and no mixture.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from math import factorial
from typing import Any, Literal, NamedTuple

import numpy as np

from interp.errors import ConfigError
from interp.geometry.points import Finding, as_points, centred, check_count
from interp.geometry.similarity import centred_ranks, ranked_distances
from interp.runtime import derive_seed
from interp.statistics import p_from_null

OPEN_ARC = 270.0
"""degrees of the horseshoe; a shorter arc or a straight line is further from a circle"""
NOISE_DIMS = (2, 24)
N_SIMULATED, N_ALIKE = 2000, 200
NOISE = (0.01, 1.0)
"""smallest and largest standard deviation, where the radius is 1"""


class Closing(NamedTuple):
    """Circular less linear RSA, and how often simulated curves of the same quality go as far."""

    difference: float
    quality: float
    p_open: float
    """share of horseshoes that look at least as closed: small where the curve is closed"""
    p_closed: float
    """share of circles that look at least as open: small where the curve is open"""


def closing(circular: float, linear: float, n: int, cyclic: bool) -> Closing:
    """For the two correlations of `n` items; `cyclic`: the linear one is of the best cut."""
    difference, quality = circular - linear, max(circular, linear)
    p_open = max(p_from_null(difference, _alike(n, cyclic, OPEN_ARC, dims, quality)) for dims in NOISE_DIMS)
    p_closed = max(
        p_from_null(difference, _alike(n, cyclic, 360.0, dims, quality), alternative="less") for dims in NOISE_DIMS
    )
    return Closing(difference, quality, p_open, p_closed)


def _alike(n: int, cyclic: bool, arc: float, noise_dims: int, quality: float) -> np.ndarray:
    """Differences of the simulated curves whose quality is nearest."""
    difference, qualities = simulated(n, cyclic, arc, noise_dims)
    return difference[np.argsort(np.abs(qualities - quality), kind="stable")[:N_ALIKE]]


@lru_cache(maxsize=64)
def simulated(n: int, cyclic: bool, arc: float, noise_dims: int) -> tuple[np.ndarray, np.ndarray]:
    """`(difference, quality)` of `N_SIMULATED` noisy curves of `n` items over `arc` degrees, always the same ones."""

    rng = np.random.default_rng(derive_seed(0, "curves", n, str(arc), noise_dims))
    angles = np.deg2rad(np.arange(n) * (arc / n if arc == 360 else arc / (n - 1)))
    curve = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    noise = np.exp(rng.uniform(*np.log(NOISE), size=(N_SIMULATED, 1, 1)))
    points = noise * rng.standard_normal((N_SIMULATED, n, noise_dims))
    points[:, :, :2] += curve
    distances = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1)
    upper = np.triu_indices(n, 1)
    ranks = np.zeros_like(distances)
    ranks[:, upper[0], upper[1]] = centred_ranks(distances[:, upper[0], upper[1]])
    ranks += ranks.transpose(0, 2, 1)
    found = order_correlations(ranks, order_models(n, cyclic), np.arange(n)[None])[:, 0]
    return found[0] - found[1], found.max(0)


Shape = Literal["circle", "line", "ordered", "unordered", "undecided"]
ALPHA = 0.05
EXACT_BELOW = 10
"""all orderings are counted for cycles of up to ten items and orders with ends of up to nine; beyond, they are drawn"""
SURE_FROM = 12
"""items below which a verdict of `circle` says its doubt: up to eleven on an arc of 300 degrees can be called one"""


@dataclass(frozen=True, kw_only=True)
class CircleTest(Finding):
    """One set of points in one order."""

    shape: Shape
    """`circle`, `line` (any open curve); `ordered`: closed or open cannot be told; `unordered`; `undecided`: too few"""
    reason: str
    circular: float
    linear: float
    """for the best cut; for an order with ends, the cut is where it has them"""
    p_circular: float
    p_linear: float
    p_open: float
    """share of simulated horseshoes, as many items in as clean an order, that look at least as closed"""
    p_closed: float
    """share of simulated circles that look at least as open"""
    gap: float
    """distance of the last item from the first, over the mean distance of neighbours: 1 on a circle"""
    smallest_p: float
    """the smallest that a p-value could be: one in `n_orderings`"""
    n: int
    n_orderings: int
    exact: bool
    """all orderings counted, not drawn"""
    cyclic: bool
    alpha: float
    """from which each of the two p-values counts"""
    seed: int

    def sentence(self) -> str:
        return (
            f"{self.shape}: {self.reason} (circular RSA {self.circular:.3f}, p {self.p_circular:.4f}; linear RSA "
            f"{self.linear:.3f}, p {self.p_linear:.4f}; as closed are {self.p_open:.3f} of "
            f"horseshoes, as open {self.p_closed:.3f} of circles; "
            f"{self.n_orderings} orderings {'counted' if self.exact else 'drawn'}, smallest possible p "
            f"{self.smallest_p:.2g})"
        )


def circle_test(
    x: Any, *, cyclic: bool = True, alpha: float = ALPHA, n_draws: int = 20_000, seed: int = 0
) -> CircleTest:
    """Test `x [n, d]`, one row per item in its order, `n >= 4`.

    `cyclic`: the order has no ends (weekdays), so a line may be cut anywhere; without, it has (digits). `alpha`: how
    often items without an order may be said to have one. Raises `ConfigError` with fewer items, or when all are the
    same point.
    """
    check_count("n_draws", n_draws, 1, "orderings are drawn where there are too many to count")
    points = centred(as_points(x, what="the items", at_least=4), what="the items")
    return judge_layer(
        ranked_distances(points)[None], points, cyclic=cyclic, alpha=alpha / 2, n_draws=n_draws, seed=seed
    )


def judge_layer(
    ranks: np.ndarray, points: np.ndarray, *, cyclic: bool, alpha: float, n_draws: int, seed: int
) -> CircleTest:
    """The test where `points [n, d]` are one of several layers, `ranks [n_layers, n, n]` (`ranked_distances` of each).

    `alpha` is for each of the two p-values. They are of the largest correlation over the layers, against the largest
    over the layers under each ordering: the search for a layer is paid for.
    """
    n = len(points)
    orders, exact = orderings(n, cyclic=cyclic, n_draws=n_draws, seed=seed)
    models = order_models(n, cyclic)
    null = order_correlations(ranks, models, orders).max(2)  # [2, n_orders]
    observed = order_correlations(ranks, models, np.arange(n)[None]).max(2)[:, 0]
    p_circular, p_linear = (share_above(value, row, exact) for value, row in zip(observed, null, strict=True))
    circular, linear = order_correlations(ranked_distances(points)[None], models, np.arange(n)[None])[:, 0, 0]
    closed = closing(float(circular), float(linear), n, cyclic)
    smallest = 1 / len(orders) if exact else 1 / (1 + len(orders))
    shape, reason = judge(p_circular, p_linear, closed, n, smallest, alpha)
    return CircleTest(
        shape=shape,
        reason=reason,
        circular=float(circular),
        linear=float(linear),
        p_circular=p_circular,
        p_linear=p_linear,
        p_open=closed.p_open,
        p_closed=closed.p_closed,
        gap=closing_gap(points),
        smallest_p=smallest,
        n=n,
        n_orderings=len(orders),
        exact=exact,
        cyclic=cyclic,
        alpha=alpha,
        seed=seed,
    )


def judge(
    p_circular: float, p_linear: float, closed: Closing, n: int, smallest: float, alpha: float
) -> tuple[Shape, str]:
    """The verdict, and why. `alpha` is for the order; closed and open are told at 5 % once there is one."""
    if smallest > alpha:
        return "undecided", f"{n} items have so few orderings that p cannot fall below {smallest:.2g}"
    if min(p_circular, p_linear) > alpha:
        return "unordered", f"the distances do not follow the order (p above {alpha:.2g})"
    is_closed = closed.p_open <= ALPHA and closed.p_closed > ALPHA / 10
    is_open = closed.p_closed <= ALPHA and closed.p_open > ALPHA / 10
    if is_closed and p_circular <= alpha:
        doubt = f"; yet {n} items cannot tell it from an arc of 300 degrees" if n < SURE_FROM else ""
        return "circle", "closer around a circle than horseshoes in as clean an order are" + doubt
    if is_open and p_linear <= alpha:
        return "line", "an open curve: closer along a line than circles in as clean an order are"
    if closed.p_open <= ALPHA:
        return "ordered", "an order, neither as closed as circles nor as open as horseshoes are"
    return "ordered", f"an order, but {n} items this noisy cannot tell a circle from a horseshoe"


def circular_steps(n: int) -> np.ndarray:
    """`[n, n]`: steps around a circle of `n` places, the shorter way."""
    apart = linear_steps(n)
    return np.minimum(apart, n - apart)


def linear_steps(n: int) -> np.ndarray:
    """`[n, n]`: steps along a line of `n` places."""
    return np.abs(np.arange(n)[:, None] - np.arange(n)[None])


def order_models(n: int, cyclic: bool) -> list[np.ndarray]:
    """Steps around the circle, then steps along a line for every cut (of an order with ends, for its own only)."""
    line = linear_steps(n)
    cuts = range(n) if cyclic else range(1)
    return [circular_steps(n), *(np.roll(line, (cut, cut), (0, 1)) for cut in cuts)]


def orderings(n: int, *, cyclic: bool, n_draws: int, seed: int) -> tuple[np.ndarray, bool]:
    """`[m, n]`: the place of every item, and whether these are all orderings.

    All that differ by more than mirroring, and for a cycle by more than turning; or `n_draws` at random.
    """
    if n - cyclic < EXACT_BELOW:
        first = np.zeros((factorial(n - cyclic), int(cyclic)), np.int64)
        rest = np.array(list(permutations(range(int(cyclic), n))))
        places = np.hstack([first, rest])
        return places[places[:, int(cyclic)] < places[:, -1]], True
    rng = np.random.default_rng(derive_seed(seed, "orderings"))
    return rng.permuted(np.tile(np.arange(n), (n_draws, 1)), axis=1), False


def order_correlations(
    ranks: np.ndarray, models: list[np.ndarray], orders: np.ndarray, block: int = 2048
) -> np.ndarray:
    """`[2, n_orders, n_layers]`: Spearman correlations with the circle, and with the best of the lines.

    `ranks [n_layers, n, n]`, `orders [n_orders, n]` the place of every item.
    """
    flat = ranks.reshape(len(ranks), -1)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(min=1e-300)
    ranked = [_model_ranks(model) for model in models]
    parts = []
    for start in range(0, len(orders), block):
        rows, columns = orders[start : start + block, :, None], orders[start : start + block, None, :]
        found = [model[rows, columns].reshape(len(rows), -1) @ flat.T for model in ranked]
        parts.append(np.stack([found[0], np.max(found[1:], axis=0)]))
    return np.concatenate(parts, axis=1)


def share_above(value: float, null: np.ndarray, exact: bool) -> float:
    """Share of orderings that reach `value`; of drawn ones, with the right one counted among them."""
    if exact:
        return float((null >= value - 1e-9).mean())
    return p_from_null(value, null, tolerance=1e-9)


def closing_gap(points: np.ndarray) -> float:
    """Distance of the last item from the first over the mean distance of neighbours: 1 on a circle, n - 1 on a line."""
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    return float(np.linalg.norm(points[-1] - points[0]) / steps.mean())


def _model_ranks(model: np.ndarray) -> np.ndarray:
    """Centred ranks of a symmetric matrix of steps, of unit length, zeros on the diagonal."""
    from scipy.spatial.distance import squareform

    ranks = squareform(centred_ranks(squareform(model.astype(float), checks=False)))
    return ranks / max(np.linalg.norm(ranks), 1e-300)


BINS, ANGLES, EPSILON = 10, 90, 0.1
SEPARABLE_BELOW, MIXTURE_ABOVE = 3.0, 1 / 3
"""times the Gaussian's separability; share of points"""
MIN_POINTS = 200
"""a histogram of a hundred cells needs that many for its mutual information to mean something"""


@dataclass(frozen=True, kw_only=True)
class Reducibility(Finding):
    """Of points on a plane."""

    separability: float
    """bits: 0 separable, large when not"""
    separability_gaussian: float
    """what Gaussian points of the same covariance reach by chance: mutual information of few points is above 0"""
    mixture: float
    """share of points, 0 to 1: 1 is a mixture"""
    mixture_gaussian: float
    n: int
    seed: int

    @property
    def irreducible(self) -> bool:
        """Three times as far from separable as Gaussian points are, and less than a third in a strip."""
        return self.separability > SEPARABLE_BELOW * self.separability_gaussian and self.mixture < MIXTURE_ABOVE

    def sentence(self) -> str:
        word = "irreducible" if self.irreducible else "reducible"
        return (
            f"{word}: separability index {self.separability:.3f} bits (Gaussian {self.separability_gaussian:.3f}), "
            f"mixture index {self.mixture:.3f} (Gaussian {self.mixture_gaussian:.3f}), {self.n} points"
        )


def reducibility(x: Any, *, max_points: int = 5000, seed: int = 0) -> Reducibility:
    """Both indices of `x [n, 2]` and of Gaussian points.

    Raises `ConfigError` with fewer than 200 points, or `max_points`, or when they lie on one line.
    """
    check_count("max_points", max_points, MIN_POINTS, "both indices need that many")
    points = as_points(x, at_least=MIN_POINTS)
    if points.shape[1] != 2:
        raise ConfigError(f"points on a plane, [n, 2], were expected, got {list(points.shape)}; see planes.fit_plane")
    rng = np.random.default_rng(derive_seed(seed, "reducibility"))
    points = centred(points[np.sort(rng.permutation(len(points))[:max_points])])
    variances = np.linalg.eigvalsh(points.T @ points)
    if variances[0] <= 1e-9 * variances[1]:
        raise ConfigError("the points lie on one line; a one-dimensional feature has no second part")
    gaussian = rng.standard_normal(points.shape) @ np.linalg.cholesky(np.cov(points.T)).T
    return Reducibility(
        separability=separability_index(points),
        separability_gaussian=separability_index(gaussian),
        mixture=mixture_index(points),
        mixture_gaussian=mixture_index(gaussian),
        n=len(points),
        seed=seed,
    )


def separability_index(points: np.ndarray) -> float:
    """Least mutual information (bits) of the coordinates of `points [n, 2]` over rotations up to 90 degrees."""
    return min(mutual_information(turned) for _, turned in _turns(points))


def mutual_information(points: np.ndarray) -> float:
    """Bits, from a histogram of 10 by 10 cells of `points [n, 2]`."""
    joint = np.histogram2d(points[:, 0], points[:, 1], bins=BINS)[0] / len(points)
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log2(joint[seen] / apart[seen])).sum())


def mixture_index(points: np.ndarray) -> float:
    """Largest share of `points [n, 2]` in a strip `|v.f + c| < 0.1 sqrt(E (v.f + c)^2)`, over directions and offsets.

    The strip is narrow compared with how far the points lie from its middle line, root mean square.
    """
    best = 0.0
    for _, turned in _turns(points):
        for along in turned.T:
            values = np.sort(along)
            offsets = np.linspace(values[0], values[-1], 60)
            width = EPSILON * np.sqrt(values.var() + (values.mean() - offsets) ** 2)
            inside = np.searchsorted(values, offsets + width) - np.searchsorted(values, offsets - width)
            best = max(best, float(inside.max()) / len(values))
    return best


def _turns(points: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """The points in axes turned by 0 to 90 degrees; beyond, the axes only change places."""
    angles = np.arange(ANGLES) * (np.pi / 2 / ANGLES)
    return [(a, points @ np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])) for a in angles]
