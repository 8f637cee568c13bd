"""How far is one cloud of points from another? Optimal transport, beside the distance of a cloud from itself.

    compare_clouds(x, y).sentence()     # W2^2 between, and between random halves of either

`W2^2` is the least mean squared distance over all ways to move one sample onto the other (POT's exact solver). Two
samples of one distribution are not at distance 0: in many dimensions every point is far from all others, and this
*floor* dominates. So clouds are compared half against half, the same number of points each time, and `excess` is what
lies above the floor. For a shift by a vector `v` it is `|v|^2`, whatever the cloud.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from interp.errors import ConfigError
from interp.geometry.points import Finding, as_points, check_count
from interp.runtime import derive_seed
from interp.statistics import p_from_null


class Transport(NamedTuple):
    """One plan."""

    w2_squared: float
    plan: np.ndarray
    """`[n, m]`: mass moved from each point to each; rows sum to `1 / n`, columns to `1 / m`"""


@dataclass(frozen=True, kw_only=True)
class CloudDistance(Finding):
    """Squared Wasserstein-2 distances, in squared units of the points; all between samples of `size` points."""

    between: float
    """halves of one against halves of the other, mean over splits"""
    floor: float
    """halves of one cloud against its other half, mean over both clouds and splits"""
    floor_range: tuple[float, float]
    excess: float
    """`between - floor`: near 0 where both are samples of one distribution"""
    p: float
    """share of random relabellings of one split's points that are as far apart as the halves that were relabelled"""
    size: int
    n_splits: int
    seed: int

    def sentence(self) -> str:
        low, high = self.floor_range
        return (
            f"W2^2 {self.between:.4g} between halves of {self.size} points; a cloud's own halves are "
            f"{self.floor:.4g} [{low:.4g}, {high:.4g}] apart; {self.excess:.4g} above that floor, p {self.p:.3g}"
        )


def wasserstein(x: Any, y: Any) -> Transport:
    """Exact plan between `x [n, d]` and `y [m, d]`, every point of a cloud with the same mass.

    Of equal numbers it is an assignment. Cost grows with the cube of `n`: a second at 1,000.
    """
    import ot

    x, y = _two_clouds(x, y, at_least=1)
    cost = squared_distances(x, y)
    plan = ot.emd(ot.unif(len(x)), ot.unif(len(y)), cost, numItermax=10_000_000)
    plan = np.asarray(plan)
    return Transport(float((plan * cost).sum()), plan)


def compare_clouds(
    x: Any, y: Any, *, n_splits: int = 10, n_relabelled: int = 99, max_points: int = 500, seed: int = 0
) -> CloudDistance:
    """`x [n, d]` against `y [m, d]` beside the split-half floor; at most `max_points` of either are drawn.

    Raises `ConfigError` with fewer than 4 points of either, or other widths.
    """
    x, y = _two_clouds(x, y, at_least=4)
    check_count("n_splits", n_splits, 1, "the floor is a mean over splits")
    check_count("n_relabelled", n_relabelled, 19, "p can be no smaller than one in one more")
    check_count("max_points", max_points, 4, "halves of two points are the least")
    rng = np.random.default_rng(derive_seed(seed, "split halves"))
    x, y = (points[rng.permutation(len(points))[:max_points]] for points in (x, y))
    size = min(len(x), len(y)) // 2
    splits = [[points[rng.permutation(len(points))[: 2 * size]] for points in (x, y)] for _ in range(n_splits)]
    between = [wasserstein(a[:size], b[:size]).w2_squared for a, b in splits]
    within = [wasserstein(half[:size], half[size:]).w2_squared for split in splits for half in split]
    mixed = np.concatenate([cloud[:size] for cloud in splits[0]])
    draws = [mixed[rng.permutation(2 * size)] for _ in range(n_relabelled)]
    relabelled = [wasserstein(each[:size], each[size:]).w2_squared for each in draws]
    value, floor = float(np.mean(between)), float(np.mean(within))
    return CloudDistance(
        between=value,
        floor=floor,
        floor_range=(float(np.min(within)), float(np.max(within))),
        excess=value - floor,
        p=p_from_null(between[0], np.array(relabelled)),
        size=size,
        n_splits=n_splits,
        seed=seed,
    )


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`[n, m]`, never below 0."""
    centre = x.mean(0)
    x, y = x - centre, y - centre
    return ((x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T).clip(min=0)


def _two_clouds(x: Any, y: Any, at_least: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = as_points(x, what="the first cloud", at_least=at_least), as_points(y, what="the second", at_least=at_least)
    if x.shape[1] != y.shape[1]:
        raise ConfigError(f"clouds of the same width were expected, got {x.shape[1]} and {y.shape[1]} dimensions")
    return x, y
