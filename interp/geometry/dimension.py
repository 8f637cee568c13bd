"""Spectrum, anisotropy and intrinsic dimension of a cloud of points.

**Global: the spectrum** (`spectrum`).

    spectrum(x).participation_ratio      # (sum l)^2 / sum l^2 over the eigenvalues l of the covariance

*Anisotropy* is the mean cosine of two different points: 0 for evenly spread directions, near 1 when all points share a
large mean (Ethayarajh 2019). Most of it comes from that mean, so it is given raw and after centring. The *participation
ratio* is an effective number of directions: `d` when all have the same variance, 1 when one has all of it. Few points
cannot show many directions: `n` isotropic points in `d` dimensions reach a ratio of only about `d m / (d + m + 1)`,
`m = n - 1`. So the null of every number is isotropic Gaussian points with the same `n` and `d`.

**Local: the intrinsic dimension** (`intrinsic_dimension`), by three estimators, because they disagree:

- TwoNN (Facco et al. 2017): the ratio of the distances to the second and to the first neighbour follows a Pareto law
  whose exponent is the dimension. The tenth of the points with the largest ratios is excluded from the fit.
- Maximum likelihood (Levina and Bickel 2004) over `k` neighbours, averaged as by MacKay and Ghahramani (2005).
- Local PCA (Fukunaga and Olsen 1971): the number of components of a neighbourhood with more than a twentieth of its
  largest variance; the median over points. It cannot exceed the number of neighbours.

All three underestimate with many dimensions and few points, and noise adds dimensions. So the baseline of each is the
same estimator on Gaussian points of the same covariance. A curved or clustered set lies below it; where it does not,
the estimate adds nothing to the spectrum. The interval is the estimator's own spread (half-samples without
replacement, scaled as a delete-half jackknife) and does not cover the bias.

The first two estimators use ratios of distances. Copies and near-copies (equal up to rounding) have no meaningful
ratios and are excluded. Where most distances tie (a lattice, one-hot rows), the estimator is omitted and the note says
so.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float64, Int64
from numpy.typing import ArrayLike

from interp.errors import ConfigError, UnknownNameError
from interp.geometry.points import GeometryResult, as_points, centred, check_count
from interp.results import Record, ends, flat
from interp.seeds import derive_seed
from interp.statistics import Interval

DISCARD = 0.1
"""fraction of points, those with the largest ratios, that TwoNN excludes"""
LARGE = 0.05
"""smallest variance of a counted local component, as a fraction of the largest"""
HALVES = 20
CLUMPED = 0.9
"""below 1, with a margin for chance: a dimension this low means tight clusters of points, as no curve has one"""
TIED = 1e-6
"""log ratios of distances below this are 0 up to rounding"""
NEAR = 1e-6
"""points closer than this fraction of the root mean square length count as copies"""


@dataclass(frozen=True, kw_only=True)
class DimensionEstimate(GeometryResult):
    """Dimension by one estimator, with its Gaussian baseline."""

    estimator: str
    dimension: Interval[float] = field(metadata=ends("low", "high"))
    """interval of the estimator's spread only; it does not cover the bias"""
    gaussian: float
    """the same estimator on Gaussian points with the same covariance"""
    k: int
    """number of neighbours used"""
    n: int

    def sentence(self) -> str:
        value, low, high = self.dimension
        return (
            f"{self.estimator} {value:.2f} [{low:.2f}, {high:.2f}], Gaussian of the same covariance "
            f"{self.gaussian:.2f} (n {self.n}, k {self.k})"
        )


@dataclass(frozen=True, kw_only=True)
class IntrinsicDimension(GeometryResult):
    """Estimates of the intrinsic dimension of one cloud of points."""

    estimates: tuple[DimensionEstimate, ...]
    n: int
    d: int
    n_repeated: int
    """number of exact copies of other points, excluded: a distance of 0 has no ratio"""
    n_near: int
    """number of near-copies (equal up to rounding) among the points drawn, excluded too"""
    note: str
    """limits of the numbers, or the reason why an estimator is missing; empty without any"""
    seed: int

    def __getitem__(self, estimator: str) -> DimensionEstimate:
        for estimate in self.estimates:
            if estimate.estimator == estimator:
                return estimate
        raise UnknownNameError("estimator", estimator, [estimate.estimator for estimate in self.estimates], self.note)

    def sentence(self) -> str:
        values = [estimate.dimension.estimate for estimate in self.estimates]
        text = "; ".join(map(str, self.estimates))
        if len(values) > 1:
            text += f". They differ by a factor of {max(values) / min(values):.1f}"
        return f"{text}. {self.note}" if self.note else text

    def to_records(self) -> list[Record]:
        """Return one row per estimator: its estimate and interval, and `gaussian`, the null."""
        return [record for estimate in self.estimates for record in estimate.to_records()]


def intrinsic_dimension(
    x: ArrayLike, *, k_mle: int = 20, k_pca: int = 50, max_points: int = 2000, seed: int = 0
) -> IntrinsicDimension:
    """Estimate the dimension of points `[n, d]` with all three estimators; at most `max_points` are drawn.

    `x` are the points. `k_mle` and `k_pca` count the neighbours of the maximum-likelihood and of the local-PCA
    estimate.

    Cost: all pairwise distances of the points drawn, twice, and local covariances at 60 of them. Raises `ConfigError`
    when there are fewer distinct points than `k_mle + 2` or 20, or when `max_points` is smaller than that.
    """
    check_count("k_mle", k_mle, 2, "the estimator compares the distances to different neighbours")
    check_count("k_pca", k_pca, 2, "fewer neighbours have no components to count")
    needed = max(k_mle + 2, 20)
    check_count("max_points", max_points, needed, f"neighbourhoods of k_mle = {k_mle} need that many points")
    rows = as_points(x)
    points = np.unique(rows, axis=0)
    n_repeated = len(rows) - len(points)
    rng = np.random.default_rng(derive_seed(seed, "intrinsic dimension"))
    sample = points[np.sort(rng.permutation(len(points))[:max_points])]
    points = without_near_copies(sample)
    n_near = len(sample) - len(points)
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
            value, null = method(points), method(gaussian)
            half_width = 1.96 * float(np.std([method(points[half]) for half in halves]))
        except ConfigError as error:
            notes.append(f"{name} is left out: {error}.")
            continue
        interval = Interval(value, value - half_width, value + half_width)
        estimates.append(DimensionEstimate(estimator=name, dimension=interval, gaussian=null, k=k, n=len(points)))
        if interval.high < CLUMPED:
            notes.append(f"{name} lies below 1: the points come in close groups, which is not a dimension.")
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


def without_near_copies(points: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n_left d"]:
    """Return the first of each group of points `[n, d]` closer than `NEAR` times their root mean square length."""
    from scipy.spatial import KDTree

    away = points - points.mean(0)
    close = NEAR * float(np.sqrt((away**2).sum(1).mean()))
    return np.delete(points, KDTree(away).query_pairs(close, output_type="ndarray")[:, 1], axis=0)


def two_nn(points: Float[np.ndarray, "n d"]) -> float:
    """Return the TwoNN dimension of distinct points `[n, d]`: slope of `-log(1 - F)` on `log(r2 / r1)` through 0.

    Raises `ConfigError` where more than a tenth of the points have two equally near neighbours.
    """
    r1, r2 = nearest_distances(points, 2)[0].T
    ratios = np.sort(np.log(r2 / r1))
    tied = float((ratios < TIED).mean())
    if tied > DISCARD:
        raise ConfigError(
            f"TwoNN needs distinct distances, but {tied:.0%} of points have ties; use the local-PCA estimate"
        )
    keep = max(2, int(len(ratios) * (1 - DISCARD)))
    share = np.arange(1, keep + 1) / len(ratios)
    ratios = ratios[:keep]
    return float((ratios @ -np.log1p(-share)) / (ratios @ ratios))


def maximum_likelihood(points: Float[np.ndarray, "n d"], k: int) -> float:
    """Return the Levina-Bickel dimension over `k` neighbours: one over the mean inverse dimension of the points.

    Raises `ConfigError` where all neighbours are equally far.
    """
    r = np.log(nearest_distances(points, k)[0])
    inverse = float((r[:, -1:] - r[:, :-1]).mean())
    if inverse < TIED:
        raise ConfigError(
            f"the {k} nearest neighbours of every point are equally far, as one-hot rows are; read local PCA"
        )
    return 1 / inverse


def local_pca(points: Float[np.ndarray, "n d"], k: int, *, most: int = 60) -> float:
    """Return the median number of large components of a point and its `k` neighbours, at `most` spaced points."""
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


def nearest_distances(
    points: Float[np.ndarray, "n d"], k: int
) -> tuple[Float64[np.ndarray, "n {k}"], Int64[np.ndarray, "n {k}"]]:
    """Return float64 distances to the `k` nearest other points and their indices, `[n, k]` each, nearest first."""
    squares = (points**2).sum(1)
    distances, indices = np.empty((len(points), k)), np.empty((len(points), k), np.int64)
    for start in range(0, len(points), 512):
        rows = slice(start, min(start + 512, len(points)))
        gap = squares[rows, None] + squares[None] - 2 * points[rows] @ points.T
        gap[np.arange(rows.stop - start), np.arange(start, rows.stop)] = np.inf
        near = np.argpartition(gap, k - 1, axis=1)[:, :k]
        exact = np.sqrt(((points[rows, None] - points[near]) ** 2).sum(-1)) if k <= 8 else None
        lengths = np.sqrt(np.take_along_axis(gap, near, 1).clip(min=1e-300)) if exact is None else exact
        order = np.argsort(lengths, axis=1, kind="stable")
        distances[rows] = np.take_along_axis(lengths, order, 1)
        indices[rows] = np.take_along_axis(near, order, 1)
    return distances, indices


def gaussian_like(points: Float[np.ndarray, "n d"], rng: np.random.Generator) -> Float[np.ndarray, "n d"]:
    """Draw Gaussian points, `[n, d]`, with the covariance of centred `points [n, d]`."""
    return rng.standard_normal((len(points), len(points))) @ points / np.sqrt(len(points))


SHARES = (50, 90, 99)


@dataclass(frozen=True, kw_only=True)
class IsotropicSpectrum:
    """Null of a spectrum: isotropic Gaussian points with the same `n` and `d`."""

    participation_ratio: float
    dims: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Spectrum(GeometryResult):
    """Second moments of `n` points in `d` dimensions."""

    n: int
    d: int
    cosine_raw: float
    """mean cosine over all pairs of different points; 0 for evenly spread directions, 1 when all are the same"""
    cosine_centred: float
    """the same after centring; near 0 by construction, about `-1 / (n - 1)`"""
    mean_share: float
    """length of the mean vector over the mean length of a point; 0 without a common part, 1 for identical points"""
    participation_ratio: float
    dims: dict[str, int]
    """`"50" -> number of components` that hold half of the variance; likewise 90 and 99 %"""
    isotropic: IsotropicSpectrum
    eigenvalues: Float64[np.ndarray, " n_eigenvalues"]
    """`[min(n - 1, d)]` eigenvalues of the covariance, largest first"""
    note: str
    """limits of the numbers; empty without any"""
    seed: int

    def sentence(self) -> str:
        dims = ", ".join(f"{count} for {share} %" for share, count in self.dims.items())
        text = (
            f"{self.n} points in {self.d} dimensions: mean cosine {self.cosine_raw:.3f} raw, {self.cosine_centred:.3f} "
            f"centred; participation ratio {self.participation_ratio:.1f} (isotropic "
            f"{self.isotropic.participation_ratio:.1f}); components {dims}"
        )
        return f"{text}. {self.note}" if self.note else text

    def to_records(self) -> list[Record]:
        """Return one row: the numbers, `components.90` and so on, and the same of isotropic points."""
        null = {"participation_ratio": self.isotropic.participation_ratio, "components": self.isotropic.dims}
        return [super().to_records()[0] | flat({"components": self.dims, "isotropic": null})]


def spectrum(x: ArrayLike, *, seed: int = 0) -> Spectrum:
    """Measure the spectrum of points `[n, d]`; `seed` draws the isotropic null. Cost: two products `n d min(n, d)`.

    `x` are the points.

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
        isotropic=IsotropicSpectrum(participation_ratio=participation_ratio(null), dims=dims_for(null)),
        eigenvalues=eigenvalues,
        note=note,
        seed=seed,
    )


def covariance_spectrum(away: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n_eigenvalues"]:
    """Return the `min(n - 1, d)` eigenvalues of the covariance of centred points `[n, d]`, largest first."""
    n, d = away.shape
    gram = away.T @ away if d <= n else away @ away.T
    return np.linalg.eigvalsh(gram)[::-1][: min(n - 1, d)].clip(min=0) / max(n - 1, 1)


def isotropic_like(n: int, d: int, seed: int) -> Float64[np.ndarray, "{n} {d}"]:
    """Draw centred Gaussian points `[n, d]` of the same variance in every direction."""
    drawn = np.random.default_rng(derive_seed(seed, "isotropic")).standard_normal((n, d))
    return drawn - drawn.mean(0)


def participation_ratio(eigenvalues: Float[np.ndarray, " n_eigenvalues"]) -> float:
    """Return `(sum l)^2 / sum l^2`: 1 when one direction has all the variance, the number of directions when equal."""
    return float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())


def dims_for(eigenvalues: Float[np.ndarray, " n_eigenvalues"]) -> dict[str, int]:
    """Return the number of largest eigenvalues that hold 50, 90 and 99 % of their sum."""
    shares = np.cumsum(eigenvalues) / eigenvalues.sum()
    return {str(share): int(np.searchsorted(shares, share / 100 - 1e-12) + 1) for share in SHARES}


def mean_cosine(points: Float[np.ndarray, "n d"]) -> float:
    """Return the mean cosine over all ordered pairs of different points, exactly: `(|sum u|^2 - n) / (n (n - 1))`.

    `u` are the unit vectors. A point of length zero has no direction and counts as cosine 0 with all others.
    """
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    units = np.divide(points, lengths, out=np.zeros_like(points), where=lengths > 0)
    n = len(points)
    return float(((units.sum(0) ** 2).sum() - (lengths > 0).sum()) / (n * (n - 1)))
