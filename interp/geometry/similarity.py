"""Similarity of two representations: CKA and Procrustes for the same items, optimal transport for point clouds.

**The same items** (row `i` of both is the same item):

- CKA (Kornblith et al. 2019) with the unbiased HSIC of Song et al. (2012): 1 for representations that differ by a
  rotation, shift and scale, about 0 for independent ones (slightly negative values occur). The biased estimator is not
  offered: it gives 0.535 for 500 independent Gaussian rows of 576 dimensions, where the unbiased one gives 0.003.
- Procrustes: the squared residual after the best rotation of one onto the other, both centred and of unit norm; 0 is a
  perfect fit. With fewer items than dimensions a rotation fits almost anything, so compare it with its null.

The null distribution of each is the same measure with the rows of one representation shuffled.

**Two clouds** by optimal transport (`compare_clouds`). `W2^2` is the smallest mean squared distance over all ways to
transport one sample onto the other (POT's exact solver). Two samples of one distribution are not at distance 0: in high
dimensions all points are far apart, and this *floor* dominates. So halves of the clouds are compared, always with the
same number of points. `excess` is the distance above the floor; for a shift by a vector `v` it is `|v|^2`, whatever the
distribution.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64
from numpy.typing import ArrayLike

from interp.errors import ConfigError
from interp.geometry.points import GeometryResult, as_points, centred, check_count, same_rows
from interp.nulls import DRAWS, p_from_null
from interp.results import Record
from interp.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class Similarity(GeometryResult):
    """One similarity measure of two representations, with its null distribution."""

    measure: str
    """`CKA`: 1 for the same geometry, about 0 for unrelated ones. `Procrustes`: a residual, 0 for the same"""
    value: float
    null: float
    """mean over shuffles of the rows of one representation"""
    null_range: tuple[float, float]
    """smallest and largest value over shuffles"""
    p: float
    """fraction of shuffles at least as similar, counting the value itself: at least `1 / (n_shuffles + 1)`"""
    n: int
    n_shuffles: int
    seed: int

    def sentence(self) -> str:
        low, high = self.null_range
        return (
            f"{self.measure} {self.value:.4g} on {self.n} items; rows shuffled {self.null:.4g} "
            f"[{low:.4g}, {high:.4g}], p {self.p:.3g} of {self.n_shuffles} shuffles"
        )


def cka(x: ArrayLike, y: ArrayLike, *, n_shuffles: int = DRAWS["thorough"], seed: int = 0) -> Similarity:
    """Compute the unbiased linear CKA of `x [n, d1]` and `y [n, d2]`, `n >= 4`, with its null."""
    x, y = same_rows(x, y, at_least=4)
    kx, ky = (away @ away.T for away in (centred(x), centred(y)))
    norm = _norm(hsic(kx, kx), hsic(ky, ky))
    return _against_shuffles("CKA", lambda rows: hsic(kx, ky[np.ix_(rows, rows)]) / norm, len(x), n_shuffles, seed)


def hsic(kx: Float[np.ndarray, "n n"], ky: Float[np.ndarray, "n n"]) -> float:
    """Return the unbiased estimate of the Hilbert-Schmidt independence criterion (Song et al. 2012, eq. 4).

    `kx, ky [n, n]`: kernel matrices of the same `n >= 4` items.
    """
    n = len(kx)
    kx, ky = (m - np.diag(np.diag(m)) for m in (kx, ky))
    rows_kx, rows_ky = kx.sum(0), ky.sum(0)
    trace = (kx * ky).sum()
    both = rows_kx.sum() * rows_ky.sum() / ((n - 1) * (n - 2))
    return float((trace + both - 2 / (n - 2) * (rows_kx @ rows_ky)) / (n * (n - 3)))


def ranked_distances(points: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n n"]:
    """Return the centred ranks of all pairwise distances, `[n, n]` with a zero diagonal; ties share their mean rank."""
    from scipy.spatial.distance import pdist, squareform

    return squareform(centred_ranks(pdist(points)))


def centred_ranks(values: Float[np.ndarray, "*batch n"]) -> Float[np.ndarray, "*batch n"]:
    """Return mean ranks minus their mean, along the last axis; values that differ by rounding only are ties."""
    from scipy.stats import rankdata

    step = 1e-10 * np.abs(values).max(-1, keepdims=True).clip(min=1e-300)
    ranks = rankdata(np.round(values / step), axis=-1)
    return ranks - ranks.mean(-1, keepdims=True)


def procrustes(x: ArrayLike, y: ArrayLike, *, n_shuffles: int = DRAWS["thorough"], seed: int = 0) -> Similarity:
    """Fit the best rotation and scale, and return the residual `1 - (sum of singular values of X^T Y)^2`.
    `x` and `y` are `[n, d]`; `X, Y` are centred and of unit Frobenius norm. If the widths differ, the formula amounts
    to padding the narrower one with zeros.
    """
    x, y = same_rows(x, y, at_least=3)
    x, y = (away / np.linalg.norm(away) for away in (centred(x), centred(y)))
    x, y = _compact(x), _compact(y)

    def residual(rows: np.ndarray) -> float:
        return float(1 - np.linalg.svd(x.T @ y[rows], compute_uv=False).sum() ** 2)

    return _against_shuffles("Procrustes", residual, len(x), n_shuffles, seed, smaller=True)


def _compact(x: np.ndarray) -> np.ndarray:
    """Rotate the points into at most `n` coordinates."""
    if x.shape[1] <= len(x):
        return x
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    return u * s


def _against_shuffles(
    measure: str,
    value_of: Callable[[np.ndarray], float],
    n: int,
    n_shuffles: int,
    seed: int,
    smaller: bool = False,
) -> Similarity:
    """Evaluate `value_of(order of the rows)` for the true order and for shuffles."""
    if n_shuffles < 1:
        raise ConfigError(f"n_shuffles must be at least 1, got {n_shuffles}: a similarity is reported with its null")
    rng = np.random.default_rng(derive_seed(seed, "shuffled rows", measure))
    value = float(value_of(np.arange(n)))
    null = np.array([value_of(rng.permutation(n)) for _ in range(n_shuffles)])
    return Similarity(
        measure=measure,
        value=value,
        null=float(null.mean()),
        null_range=(float(null.min()), float(null.max())),
        p=p_from_null(value, null, alternative="less" if smaller else "greater"),
        n=n,
        n_shuffles=n_shuffles,
        seed=seed,
    )


def _norm(kk: float, ll: float) -> float:
    if min(kk, ll) <= 0:
        raise ConfigError("a representation has no structure of its own beyond chance at this size; give more rows")
    return float(np.sqrt(kk * ll))


@dataclass(frozen=True, kw_only=True)
class LayerSimilarity(GeometryResult):
    """Unbiased CKA of every pair of hook points, `[n, n]` each: 1 for the same geometry, about 0 for unrelated."""

    hook_points: tuple[str, ...]
    cka: Float64[np.ndarray, "n n"]
    error: Float64[np.ndarray, "n n"]
    """standard error over batches"""
    shuffled: Float64[np.ndarray, "n n"]
    """the null: row `i` of one hook point against a different row of the other; about 0"""
    n_rows: int
    batch: int
    seed: int

    def sentence(self) -> str:
        away = ~np.eye(len(self.cka), dtype=bool)
        if not away.any():
            return f"CKA of {self.hook_points[0]} with itself is 1; give another hook point to compare it with"
        i, j = np.unravel_index(np.where(away, self.cka, np.inf).argmin(), self.cka.shape)
        return (
            f"CKA of {len(self.cka)} hook points on {self.n_rows} rows in batches of {self.batch}: least alike "
            f"{self.hook_points[i]} and {self.hook_points[j]}, {self.cka[i, j]:.3f} (standard error "
            f"{self.error[i, j]:.3f}); rows shuffled at most {np.abs(self.shuffled[away]).max():.3f}"
        )

    def to_records(self) -> list[Record]:
        """Return one row per ordered pair of hook points: `first, second, cka, error`, and the null `shuffled`."""
        names, tables = self.hook_points, {"cka": self.cka, "error": self.error, "shuffled": self.shuffled}
        return [
            {"first": names[i], "second": names[j]} | {name: float(table[i, j]) for name, table in tables.items()}
            for i, j in np.ndindex(self.cka.shape)
        ]


class Transport(NamedTuple):
    """An optimal transport plan and its cost."""

    w2_squared: float
    plan: Float64[np.ndarray, "n m"]
    """`[n, m]`: mass moved from each point to each; rows sum to `1 / n`, columns to `1 / m`"""


@dataclass(frozen=True, kw_only=True)
class CloudDistance(GeometryResult):
    """Squared Wasserstein-2 distances, in squared units of the points; all between samples of `size` points."""

    between: float
    """halves of one cloud against halves of the other, mean over splits"""
    floor: float
    """one half of a cloud against its other half, mean over both clouds and splits"""
    floor_range: tuple[float, float]
    excess: float
    """`between - floor`: near 0 where both are samples of one distribution"""
    p: float
    """fraction of random relabellings of one split's points whose halves are at least as far apart"""
    size: int
    n_splits: int
    seed: int

    def sentence(self) -> str:
        low, high = self.floor_range
        return (
            f"W2^2 {self.between:.4g} between halves of {self.size} points; a cloud's own halves are "
            f"{self.floor:.4g} [{low:.4g}, {high:.4g}] apart; {self.excess:.4g} above that floor, p {self.p:.3g}"
        )


def wasserstein(x: ArrayLike, y: ArrayLike) -> Transport:
    """Compute the exact transport plan between `x [n, d]` and `y [m, d]`, with equal mass on the points of a cloud.

    With `n = m` it is an assignment. The cost grows with the cube of `n`: a second at 1,000.
    """
    import ot

    x, y = _two_clouds(x, y, at_least=1)
    cost = squared_distances(x, y)
    plan = ot.emd(ot.unif(len(x)), ot.unif(len(y)), cost, numItermax=10_000_000)
    plan = np.asarray(plan)
    return Transport(float((plan * cost).sum()), plan)


def compare_clouds(
    x: ArrayLike,
    y: ArrayLike,
    *,
    n_splits: int = 10,
    n_relabelled: int = DRAWS["thorough"],
    max_points: int = 500,
    seed: int = 0,
) -> CloudDistance:
    """Compare `x [n, d]` with `y [m, d]` against the split-half floor; at most `max_points` of each are drawn.

    Raises `ConfigError` with fewer than 4 points in a cloud, or different widths.
    """
    x, y = _two_clouds(x, y, at_least=4)
    check_count("n_splits", n_splits, 1, "the floor is a mean over splits")
    check_count("n_relabelled", n_relabelled, 19, "the smallest possible p is 1 / (n_relabelled + 1)")
    check_count("max_points", max_points, 4, "a cloud is split into halves of at least two points")
    rng = np.random.default_rng(derive_seed(seed, "split halves"))
    x, y = (points[rng.permutation(len(points))[:max_points]] for points in (x, y))
    size = min(len(x), len(y)) // 2
    splits = [[points[rng.permutation(len(points))[: 2 * size]] for points in (x, y)] for _ in range(n_splits)]
    between = [wasserstein(a[:size], b[:size]).w2_squared for a, b in splits]
    within = [wasserstein(half[:size], half[size:]).w2_squared for split in splits for half in split]
    mixed = np.concatenate([cloud[:size] for cloud in splits[0]])
    draws = [mixed[rng.permutation(2 * size)] for _ in range(n_relabelled)]
    relabelled = [wasserstein(draw[:size], draw[size:]).w2_squared for draw in draws]
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


def squared_distances(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n m"]:
    """Return all squared distances `[n, m]`, clipped at 0."""
    centre = x.mean(0)
    x, y = x - centre, y - centre
    return ((x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T).clip(min=0)


def _two_clouds(x: ArrayLike, y: ArrayLike, at_least: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = as_points(x, what="the first cloud", at_least=at_least), as_points(y, what="the second", at_least=at_least)
    if x.shape[1] != y.shape[1]:
        raise ConfigError(f"expected clouds of the same width, got {x.shape[1]} and {y.shape[1]} dimensions")
    return x, y
