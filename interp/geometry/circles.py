"""Circular order of items.

    circle_test(points)          # row i is item i of the order: Monday, Tuesday, ...

**Circle, line or no order** (`circle_test`). *Circular RSA* is the Spearman correlation of the points' distances with
the steps around a circle, `min(|i - j|, n - |i - j|)`. *Linear RSA* is the correlation with `|i - j|`, for the cut of
the circle that fits best. 1 is a perfect circle, or a perfect line. The test has two steps:

1. Order: an exact permutation test over all orderings that differ by more than rotation and reflection, `(n - 1)! / 2`
   of them. So the smallest possible p-value is 1/3 for four items, 1/12 for five, 1/60 for six and 1/360 for seven.
   Where it exceeds the significance level, no data could be significant, and the verdict is `undecided`. Two
   correlations are tested, so each p-value is compared with `alpha / 2` (Bonferroni).
2. Closed or open: a line or a horseshoe has a perfect order too. The statistic is circular RSA minus linear RSA
   (`closing`). Its null distributions are simulated for a circle and for a horseshoe (three quarters of a circle) with
   the same number of items. Noise is added in the plane of the curve or in many dimensions, whichever makes the
   decision harder. Only simulated sets whose order is about as clean as the observed one are compared; cleanness is
   `quality`, the larger of the two correlations. Where the data fit neither curve, or both, the verdict says so. Seven
   items decide only when they are almost without noise.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from math import factorial
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from interp.geometry.points import GeometryResult, as_points, centred, check_count
from interp.geometry.similarity import centred_ranks, ranked_distances
from interp.nulls import ALPHA, CURVES, CURVES_ALIKE, NUMERIC_DRAWS, p_from_null, smallest_p
from interp.seeds import derive_seed

OPEN_ARC = 270.0
"""degrees of the simulated horseshoe; shorter arcs and straight lines differ more from a circle"""
NOISE_DIMS = (2, 24)
NOISE = (0.01, 1.0)
"""smallest and largest standard deviation of the simulated noise, in radii of the curve"""


class Closing(NamedTuple):
    """Circular minus linear RSA, and its p-values under an open and under a closed curve of the same quality."""

    difference: float
    quality: float
    p_open: float
    """fraction of simulated horseshoes that look at least as closed: small for a closed curve"""
    p_closed: float
    """fraction of simulated circles that look at least as open: small for an open curve"""


def closing(circular: float, linear: float, n: int, cyclic: bool) -> Closing:
    """Test two correlations of `n` items for a closed curve; `cyclic`: `linear` is that of the best cut."""
    difference, quality = circular - linear, max(circular, linear)
    p_open = max(p_from_null(difference, _alike(n, cyclic, OPEN_ARC, dims, quality)) for dims in NOISE_DIMS)
    p_closed = max(
        p_from_null(difference, _alike(n, cyclic, 360.0, dims, quality), alternative="less") for dims in NOISE_DIMS
    )
    return Closing(difference, quality, p_open, p_closed)


def _alike(n: int, cyclic: bool, arc: float, noise_dims: int, quality: float) -> np.ndarray:
    """Return the statistic of the `CURVES_ALIKE` simulated curves whose quality is nearest to `quality`."""
    difference, qualities = simulated(n, cyclic, arc, noise_dims)
    return difference[np.argsort(np.abs(qualities - quality), kind="stable")[:CURVES_ALIKE]]


@lru_cache(maxsize=64)
def simulated(n: int, cyclic: bool, arc: float, noise_dims: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `(difference, quality)` of `CURVES` noisy curves of `n` items over `arc` degrees; deterministic."""

    rng = np.random.default_rng(derive_seed(0, "curves", n, str(arc), noise_dims))
    angles = np.deg2rad(np.arange(n) * (arc / n if arc == 360 else arc / (n - 1)))
    curve = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    noise = np.exp(rng.uniform(*np.log(NOISE), size=(CURVES, 1, 1)))
    points = noise * rng.standard_normal((CURVES, n, noise_dims))
    points[:, :, :2] += curve
    distances = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1)
    upper = np.triu_indices(n, 1)
    ranks = np.zeros_like(distances)
    ranks[:, upper[0], upper[1]] = centred_ranks(distances[:, upper[0], upper[1]])
    ranks += ranks.transpose(0, 2, 1)
    correlations = order_correlations(ranks, order_models(n, cyclic), np.arange(n)[None])[:, 0]
    return correlations[0] - correlations[1], correlations.max(0)


Shape = Literal["circle", "line", "ordered", "unordered", "undecided"]
EXACT_BELOW = 10
"""exact enumeration up to ten items on a cycle, or nine in an order with ends; larger sets use random orderings"""
SURE_FROM = 12
"""a verdict of `circle` on fewer items carries a caveat: up to eleven items on an arc of 300 degrees can pass"""


@dataclass(frozen=True, kw_only=True)
class CircleTest(GeometryResult):
    """Result of the circle test for one set of points in one order."""

    shape: Shape
    """`circle`; `line` (any open curve); `ordered` (open or closed is unclear); `unordered`; `undecided` (too few)"""
    reason: str
    circular: float
    linear: float
    """linear RSA of the best cut; an order with ends (`cyclic` False) has one cut only"""
    p_circular: float
    p_linear: float
    p_open: float
    """fraction of simulated horseshoes (same number of items, equally clean order) that look at least as closed"""
    p_closed: float
    """fraction of simulated circles that look at least as open"""
    gap: float
    """distance from the last item to the first, over the mean distance of consecutive items: 1 on a circle"""
    smallest_p: float
    """the smallest possible p-value: `1 / n_orderings` when exact, else `1 / (1 + n_orderings)`"""
    n: int
    n_orderings: int
    exact: bool
    """True when all orderings were enumerated, False when they were drawn at random"""
    cyclic: bool
    alpha: float
    """significance level of each of the two p-values"""
    seed: int

    def sentence(self) -> str:
        return (
            f"{self.shape}: {self.reason} (circular RSA {self.circular:.3f}, p {self.p_circular:.4f}; linear RSA "
            f"{self.linear:.3f}, p {self.p_linear:.4f}; {self.p_open:.3f} of simulated horseshoes are as closed, "
            f"{self.p_closed:.3f} of circles as open; "
            f"{self.n_orderings} orderings {'enumerated' if self.exact else 'drawn'}, smallest possible p "
            f"{self.smallest_p:.2g})"
        )


def circle_test(
    x: ArrayLike, *, cyclic: bool = True, alpha: float = ALPHA, n_draws: int = NUMERIC_DRAWS["thorough"], seed: int = 0
) -> CircleTest:
    """Test whether `x [n, d]`, one row per item in its order, lies on a circle or a line; `n >= 4`.

    `cyclic`: the order has no ends (weekdays), so a line may be cut anywhere; without it, the order has ends (digits).
    `alpha`: the probability of finding an order in items that have none. Raises `ConfigError` with fewer than 4 items,
    or when all are the same point.
    """
    check_count("n_draws", n_draws, 1, "orderings are drawn where there are too many to count")
    points = centred(as_points(x, what="the items", at_least=4), what="the items")
    return judge_layer(
        ranked_distances(points)[None], points, cyclic=cyclic, alpha=alpha / 2, n_draws=n_draws, seed=seed
    )


def judge_layer(
    ranks: Float[np.ndarray, "n_layers n n"],
    points: Float[np.ndarray, "n d"],
    *,
    cyclic: bool,
    alpha: float,
    n_draws: int,
    seed: int,
) -> CircleTest:
    """Run the circle test on one of several layers: `points [n, d]`, and the `ranked_distances` of every layer.

    `ranks [n_layers, n, n]`. `alpha` applies to each of the two p-values. They compare the largest correlation over
    layers with the largest over layers under each ordering, so the choice of the layer is corrected for.
    """
    n = len(points)
    orders, exact = orderings(n, cyclic=cyclic, n_draws=n_draws, seed=seed)
    models = order_models(n, cyclic)
    null = order_correlations(ranks, models, orders).max(2)  # [2, n_orders]
    observed = order_correlations(ranks, models, np.arange(n)[None]).max(2)[:, 0]
    p_circular, p_linear = (share_above(value, row, exact) for value, row in zip(observed, null, strict=True))
    circular, linear = order_correlations(ranked_distances(points)[None], models, np.arange(n)[None])[:, 0, 0]
    closed = closing(float(circular), float(linear), n, cyclic)
    smallest = 1 / len(orders) if exact else smallest_p(len(orders))
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
    """Return the verdict and its reason. `alpha` is the level for the order; open and closed are decided at 5 %."""
    if smallest > alpha:
        return "undecided", f"{n} items have so few orderings that p cannot fall below {smallest:.2g}"
    if min(p_circular, p_linear) > alpha:
        return "unordered", f"the distances do not follow the order (p above {alpha:.2g})"
    is_closed = closed.p_open <= ALPHA and closed.p_closed > ALPHA / 10
    is_open = closed.p_closed <= ALPHA and closed.p_open > ALPHA / 10
    if is_closed and p_circular <= alpha:
        doubt = f"; but {n} items cannot tell a circle from an arc of 300 degrees" if n < SURE_FROM else ""
        return "circle", "more closed than horseshoes with an equally clean order" + doubt
    if is_open and p_linear <= alpha:
        return "line", "an open curve: more open than circles with an equally clean order"
    if closed.p_open <= ALPHA:
        return "ordered", "an order, less closed than circles and less open than horseshoes"
    return "ordered", f"an order, but {n} items with this much noise cannot tell a circle from a horseshoe"


def circular_steps(n: int) -> Int[np.ndarray, "{n} {n}"]:
    """Return the number of steps around a circle of `n` positions, the shorter way: `[n, n]`."""
    apart = linear_steps(n)
    return np.minimum(apart, n - apart)


def linear_steps(n: int) -> Int[np.ndarray, "{n} {n}"]:
    """Return the number of steps along a line of `n` positions: `[n, n]`."""
    return np.abs(np.arange(n)[:, None] - np.arange(n)[None])


def order_models(n: int, cyclic: bool) -> list[Int[np.ndarray, "{n} {n}"]]:
    """Return the steps around the circle, then along the line for every cut (one cut for an order with ends)."""
    line = linear_steps(n)
    cuts = range(n) if cyclic else range(1)
    return [circular_steps(n), *(np.roll(line, (cut, cut), (0, 1)) for cut in cuts)]


def orderings(n: int, *, cyclic: bool, n_draws: int, seed: int) -> tuple[Int[np.ndarray, "m {n}"], bool]:
    """Return orderings `[m, n]`, the position of every item, and True if they are exhaustive.

    Exhaustive means all that differ by more than reflection, and for a cycle by more than rotation. Otherwise `n_draws`
    orderings are drawn at random.
    """
    if n - cyclic < EXACT_BELOW:
        first = np.zeros((factorial(n - cyclic), int(cyclic)), np.int64)
        rest = np.array(list(permutations(range(int(cyclic), n))))
        positions = np.hstack([first, rest])
        return positions[positions[:, int(cyclic)] < positions[:, -1]], True
    rng = np.random.default_rng(derive_seed(seed, "orderings"))
    return rng.permuted(np.tile(np.arange(n), (n_draws, 1)), axis=1), False


def order_correlations(
    ranks: Float[np.ndarray, "n_layers n n"],
    models: list[Int[np.ndarray, "n n"]],
    orders: Int[np.ndarray, "n_orders n"],
    block: int = 2048,
) -> Float[np.ndarray, "2 n_orders n_layers"]:
    """Return Spearman correlations with the circle and with the best line, `[2, n_orders, n_layers]`.

    `ranks [n_layers, n, n]`; `orders [n_orders, n]` holds the position of every item.
    """
    flat = ranks.reshape(len(ranks), -1)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(min=1e-300)
    ranked = [_model_ranks(model) for model in models]
    parts = []
    for start in range(0, len(orders), block):
        rows, columns = orders[start : start + block, :, None], orders[start : start + block, None, :]
        correlations = [model[rows, columns].reshape(len(rows), -1) @ flat.T for model in ranked]
        parts.append(np.stack([correlations[0], np.max(correlations[1:], axis=0)]))
    return np.concatenate(parts, axis=1)


def share_above(value: float, null: Float[np.ndarray, " n_orders"], exact: bool) -> float:
    """Return the p-value of `value`; for random orderings, the observed one is counted among them."""
    if exact:
        return float((null >= value - 1e-9).mean())
    return p_from_null(value, null, tolerance=1e-9)


def closing_gap(points: Float[np.ndarray, "n d"]) -> float:
    """Return the last item's distance to the first over the mean step: 1 on a circle, `n - 1` on a line."""
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    return float(np.linalg.norm(points[-1] - points[0]) / steps.mean())


def _model_ranks(model: np.ndarray) -> np.ndarray:
    """Return the centred ranks of a symmetric matrix of steps, with unit norm and a zero diagonal."""
    from scipy.spatial.distance import squareform

    ranks = squareform(centred_ranks(squareform(model.astype(float), checks=False)))
    return ranks / max(np.linalg.norm(ranks), 1e-300)
