"""How many coordinates does a cloud of points need locally? Three estimators, because they disagree.

- TwoNN (Facco et al. 2017): the ratio of the distances to the second and to the first neighbour follows a Pareto law
  whose exponent is the dimension; the tenth of points with the largest ratios is left out of the fit;
- maximum likelihood (Levina and Bickel 2004) over `k` neighbours, averaged as MacKay and Ghahramani (2005) do;
- local PCA (Fukunaga and Olsen 1971): components of a neighbourhood with more than a twentieth of its largest
  variance, at most as many as neighbours; the median over points.

All three are low for many dimensions and few points, and noise adds dimensions. So each stands beside the same
estimator on Gaussian points with the same covariance: a curved or clustered set lies below it, and where it does not,
the number says no more than the spectrum. The interval is the estimator's own spread (half-samples without
replacement, scaled as a delete-half jackknife); it does not cover the bias.

The first two read ratios of distances. Copies and near-copies (rounding apart) have none that mean anything and are
left out; where most distances tie (a lattice, one-hot rows) the estimator is left out, and the note says so.

How a cloud of points fills its space: one common direction, a few directions, or all of them?

    spectrum(x).participation_ratio      # (sum l)^2 / sum l^2 over the eigenvalues l of the covariance

Both ends have a name. *Anisotropy* is the mean cosine of two different points: 0 for directions spread evenly, near 1
when all share a large mean (Ethayarajh 2019). Most of it is that mean, so it is given raw and after centring. The
*participation ratio* counts directions: `d` when all have the same variance, 1 when one has it all.

Few points cannot show many directions: `n` isotropic points of `d` dimensions reach a ratio of only about
`d m / (d + m + 1)`, `m = n - 1`. That, drawn with the same `n` and `d`, stands beside every number as its null.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from interp.errors import ConfigError, UnknownNameError
from interp.geometry.points import Finding, as_points, centred, check_count
from interp.results import ends
from interp.runtime import derive_seed
from interp.statistics import Interval

DISCARD = 0.1
"""share of points with the largest ratios that TwoNN leaves out"""
LARGE = 0.05
"""local components count down to this share of the largest"""
HALVES = 20
CLUMPED = 0.9
"""below 1 with some room for chance: no curve has so low a dimension, only points in close groups"""
TIED = 1e-6
"""logarithms of a ratio of distances below this are 0 to rounding"""
NEAR = 1e-6
"""points closer than this share of the root mean square length are copies of each other"""


@dataclass(frozen=True, kw_only=True)
class Estimate(Finding):
    """One estimator's answer."""

    estimator: str
    dimension: Interval[float] = field(metadata=ends("low", "high"))
    """of the spread only: the bias is not in it"""
    gaussian: float
    """the same estimator on Gaussian points with the same covariance"""
    k: int
    """neighbours looked at"""
    n: int

    def sentence(self) -> str:
        value, low, high = self.dimension
        return (
            f"{self.estimator} {value:.2f} [{low:.2f}, {high:.2f}], Gaussian of the same covariance "
            f"{self.gaussian:.2f} (n {self.n}, k {self.k})"
        )


@dataclass(frozen=True, kw_only=True)
class IntrinsicDimension(Finding):
    """Several estimates of one cloud."""

    estimates: tuple[Estimate, ...]
    n: int
    d: int
    n_repeated: int
    """exact copies of other points, left out: their distance of 0 has no ratio"""
    n_near: int
    """of the points drawn, near-copies of others (rounding apart), left out too"""
    note: str
    """what limits the numbers, or why an estimator is missing; empty when nothing does"""
    seed: int

    def __getitem__(self, estimator: str) -> Estimate:
        for each in self.estimates:
            if each.estimator == estimator:
                return each
        raise UnknownNameError("estimator", estimator, [each.estimator for each in self.estimates], self.note)

    def sentence(self) -> str:
        values = [each.dimension.estimate for each in self.estimates]
        text = "; ".join(map(str, self.estimates))
        if len(values) > 1:
            text += f". They differ by a factor of {max(values) / min(values):.1f}"
        return f"{text}. {self.note}" if self.note else text


def intrinsic_dimension(
    x: Any, *, k_mle: int = 20, k_pca: int = 50, max_points: int = 2000, seed: int = 0
) -> IntrinsicDimension:
    """All three estimates of points `[n, d]`, of which at most `max_points` are drawn.

    Cost: all distances of the points drawn, twice, and local covariances of 60 of them.
    Raises `ConfigError` with fewer different points, or `max_points`, than `k_mle + 2`, or 20.
    """
    check_count("k_mle", k_mle, 2, "one neighbour has no other to compare with")
    check_count("k_pca", k_pca, 2, "fewer neighbours have no components to count")
    needed = max(k_mle + 2, 20)
    check_count("max_points", max_points, needed, f"neighbourhoods of k_mle = {k_mle} need that many")
    given = as_points(x)
    points = np.unique(given, axis=0)
    n_repeated = len(given) - len(points)
    rng = np.random.default_rng(derive_seed(seed, "intrinsic dimension"))
    drawn = points[np.sort(rng.permutation(len(points))[:max_points])]
    points = without_near_copies(drawn)
    n_near = len(drawn) - len(points)
    if len(points) < needed:
        raise ConfigError(
            f"{len(points)} different points ({n_repeated} copies, {n_near} near-copies left out); {needed} are needed "
            "to look at their neighbourhoods: give more"
        )
    points = centred(points)
    gaussian = gaussian_like(points, rng)
    k_pca = min(k_pca, len(points) - 1)
    methods: list[tuple[str, int, Callable[[np.ndarray], float]]] = [
        ("TwoNN", 2, two_nn),
        ("MLE", k_mle, lambda p: maximum_likelihood(p, min(k_mle, len(p) - 2))),
        ("local PCA", k_pca, lambda p: local_pca(p, min(k_pca, len(p) - 1))),
    ]
    halves = [np.sort(rng.permutation(len(points))[: len(points) // 2]) for _ in range(HALVES)]
    estimates, notes = [], [f"{n_near} near-copies of other points are left out."] if n_near else []
    for name, k, method in methods:
        try:
            value, gauss = method(points), method(gaussian)
            spread = 1.96 * float(np.std([method(points[half]) for half in halves]))
        except ConfigError as error:
            notes.append(f"{name} is left out: {error}.")
            continue
        ends = Interval(value, value - spread, value + spread)
        estimates.append(Estimate(estimator=name, dimension=ends, gaussian=gauss, k=k, n=len(points)))
        if ends.high < CLUMPED:
            notes.append(f"{name} lies below 1: the points come in close groups, which is no dimension.")
    if estimates[-1].dimension.estimate > 0.9 * k_pca:
        notes.append(f"Local PCA uses all of its {k_pca} neighbours: a lower bound.")
    return IntrinsicDimension(
        estimates=tuple(estimates),
        n=len(points),
        d=points.shape[1],
        n_repeated=n_repeated,
        n_near=n_near,
        note=" ".join(notes),
        seed=seed,
    )


def without_near_copies(points: np.ndarray) -> np.ndarray:
    """The first of each group of points `[n, d]` that are closer than `NEAR` of their root mean square length."""
    from scipy.spatial import KDTree

    away = points - points.mean(0)
    close = NEAR * float(np.sqrt((away**2).sum(1).mean()))
    return np.delete(points, KDTree(away).query_pairs(close, output_type="ndarray")[:, 1], axis=0)


def two_nn(points: np.ndarray) -> float:
    """TwoNN of different points `[n, d]`: slope through the origin of `-log(1 - F)` on `log(r2 / r1)`.

    Raises `ConfigError` where more than a tenth of the points have two neighbours equally near.
    """
    r1, r2 = nearest_distances(points, 2)[0].T
    ratios = np.sort(np.log(r2 / r1))
    tied = float((ratios < TIED).mean())
    if tied > DISCARD:
        raise ConfigError(
            f"{tied:.0%} of the points have two nearest neighbours equally far, as on a lattice; read local PCA"
        )
    keep = max(2, int(len(ratios) * (1 - DISCARD)))
    share = np.arange(1, keep + 1) / len(ratios)
    ratios = ratios[:keep]
    return float((ratios @ -np.log1p(-share)) / (ratios @ ratios))


def maximum_likelihood(points: np.ndarray, k: int) -> float:
    """Levina and Bickel over `k` neighbours; the inverse of the mean inverse over points.

    Raises `ConfigError` where all neighbours are equally far.
    """
    r = np.log(nearest_distances(points, k)[0])
    inverse = float((r[:, -1:] - r[:, :-1]).mean())
    if inverse < TIED:
        raise ConfigError(
            f"the {k} nearest neighbours of every point are equally far, as one-hot rows are; read local PCA"
        )
    return 1 / inverse


def local_pca(points: np.ndarray, k: int, *, most: int = 60) -> float:
    """Median over points (evenly chosen, at most `most`) of the large components among `k` neighbours and itself."""
    chosen = np.unique(np.linspace(0, len(points) - 1, min(most, len(points))).astype(int))
    near = nearest_distances(points, k)[1][chosen]
    counts = []
    for centre, others in zip(chosen, near, strict=True):
        local = points[np.append(others, centre)]
        away = local - local.mean(0)
        gram = away @ away.T if len(away) <= away.shape[1] else away.T @ away
        variances = np.linalg.eigvalsh(gram)
        counts.append(int((variances > LARGE * variances[-1]).sum()))
    return float(np.median(counts))


def nearest_distances(points: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances and numbers of the `k` nearest others, nearest first, `[n, k]` each; float64 and exact."""
    squares = (points**2).sum(1)
    distances, indices = np.empty((len(points), k)), np.empty((len(points), k), np.int64)
    for start in range(0, len(points), 512):
        rows = slice(start, min(start + 512, len(points)))
        gap = squares[rows, None] + squares[None] - 2 * points[rows] @ points.T
        gap[np.arange(rows.stop - start), np.arange(start, rows.stop)] = np.inf
        near = np.argpartition(gap, k - 1, axis=1)[:, :k]
        exact = np.sqrt(((points[rows, None] - points[near]) ** 2).sum(-1)) if k <= 8 else None
        found = np.sqrt(np.take_along_axis(gap, near, 1).clip(min=1e-300)) if exact is None else exact
        order = np.argsort(found, axis=1, kind="stable")
        distances[rows] = np.take_along_axis(found, order, 1)
        indices[rows] = np.take_along_axis(near, order, 1)
    return distances, indices


def gaussian_like(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian points with the covariance of centred `points [n, d]`, as many."""
    return rng.standard_normal((len(points), len(points))) @ points / np.sqrt(len(points))


SHARES = (50, 90, 99)


@dataclass(frozen=True, kw_only=True)
class Spectrum(Finding):
    """Second moments of `n` points in `d` dimensions."""

    n: int
    d: int
    cosine_raw: float
    """mean cosine over all pairs of different points; 0 for directions spread evenly, 1 when all are the same"""
    cosine_centred: float
    """the same without the mean; near 0 by construction, about `-1 / (n - 1)`"""
    mean_share: float
    """length of the mean vector over the mean length of a point; 0 without a common part, 1 when it is all there is"""
    participation_ratio: float
    dims: dict[str, int]
    """`"50" -> components` that hold half of the variance, and so on"""
    isotropic: dict[str, Any]
    """the same `participation_ratio` and `dims` of isotropic Gaussian points, as many in as many dimensions"""
    eigenvalues: np.ndarray
    """`[min(n - 1, d)]` of the covariance, largest first"""
    note: str
    """what limits the numbers, empty when nothing does"""
    seed: int

    def sentence(self) -> str:
        dims = ", ".join(f"{count} for {share} %" for share, count in self.dims.items())
        text = (
            f"{self.n} points in {self.d} dimensions: mean cosine {self.cosine_raw:.3f} raw, {self.cosine_centred:.3f} "
            f"centred; participation ratio {self.participation_ratio:.1f} (isotropic "
            f"{self.isotropic['participation_ratio']:.1f}); components {dims}"
        )
        return f"{text}. {self.note}" if self.note else text


def spectrum(x: Any, *, seed: int = 0) -> Spectrum:
    """Measure points `[n, d]`. `seed` draws the isotropic points. Cost: two products `n d min(n, d)`.

    Raises `ConfigError` when all points are the same, `NonFiniteError`.
    """
    points = as_points(x)
    away = centred(points)
    n, d = points.shape
    eigenvalues = covariance_spectrum(away)
    null = covariance_spectrum(isotropic_like(n, d, seed))
    lengths = np.linalg.norm(points, axis=1)
    note = f"{n} points show at most {n - 1} of {d} dimensions." if n <= d else ""
    return Spectrum(
        n=n,
        d=d,
        cosine_raw=mean_cosine(points),
        cosine_centred=mean_cosine(away),
        mean_share=float(np.linalg.norm(points.mean(0)) / lengths.mean()),
        participation_ratio=participation_ratio(eigenvalues),
        dims=dims_for(eigenvalues),
        isotropic={"participation_ratio": participation_ratio(null), "dims": dims_for(null)},
        eigenvalues=eigenvalues,
        note=note,
        seed=seed,
    )


def covariance_spectrum(away: np.ndarray) -> np.ndarray:
    """Eigenvalues of the covariance of centred points `[n, d]`, largest first, `min(n - 1, d)` of them."""
    n, d = away.shape
    gram = away.T @ away if d <= n else away @ away.T
    return np.linalg.eigvalsh(gram)[::-1][: min(n - 1, d)].clip(min=0) / max(n - 1, 1)


def isotropic_like(n: int, d: int, seed: int) -> np.ndarray:
    """Centred Gaussian points of the same variance in every direction."""
    drawn = np.random.default_rng(derive_seed(seed, "isotropic")).standard_normal((n, d))
    return drawn - drawn.mean(0)


def participation_ratio(eigenvalues: np.ndarray) -> float:
    """`(sum l)^2 / sum l^2`: 1 when one direction has all the variance, the number of directions when all are equal."""
    return float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())


def dims_for(eigenvalues: np.ndarray) -> dict[str, int]:
    """How many of the largest eigenvalues hold 50, 90 and 99 % of their sum."""
    shares = np.cumsum(eigenvalues) / eigenvalues.sum()
    return {str(share): int(np.searchsorted(shares, share / 100 - 1e-12) + 1) for share in SHARES}


def mean_cosine(points: np.ndarray) -> float:
    """Over all ordered pairs of different points, exactly: `(|sum u|^2 - n) / (n (n - 1))` of the unit vectors.

    A point of length zero has no direction and counts as cosine 0 with all others.
    """
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    units = np.divide(points, lengths, out=np.zeros_like(points), where=lengths > 0)
    n = len(points)
    return float(((units.sum(0) ** 2).sum() - (lengths > 0).sum()) / (n * (n - 1)))
