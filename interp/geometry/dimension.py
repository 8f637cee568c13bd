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
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.errors import ConfigError
from interp.geometry.values import Finding, as_points, centred
from interp.runtime import derive_seed

DISCARD = 0.1
"""share of points with the largest ratios that TwoNN leaves out"""
LARGE = 0.05
"""local components count down to this share of the largest"""
HALVES = 20


@dataclass(frozen=True, kw_only=True)
class Estimate(Finding):
    """One estimator's answer."""

    estimator: str
    dimension: float
    low: float
    high: float
    """95 %, spread only: the bias is not in it"""
    gaussian: float
    """the same estimator on Gaussian points with the same covariance"""
    k: int
    """neighbours looked at"""
    n: int

    def sentence(self) -> str:
        return (
            f"{self.estimator} {self.dimension:.2f} [{self.low:.2f}, {self.high:.2f}], Gaussian of the same covariance "
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
    note: str
    """empty, or that local PCA found as many components as it has neighbours: then it knows only a lower bound"""
    seed: int

    def __getitem__(self, estimator: str) -> Estimate:
        return next(each for each in self.estimates if each.estimator == estimator)

    def sentence(self) -> str:
        values = [each.dimension for each in self.estimates]
        text = "; ".join(map(str, self.estimates)) + f". They differ by a factor of {max(values) / min(values):.1f}"
        return f"{text}. {self.note}" if self.note else text


def intrinsic_dimension(
    x: Any, *, k_mle: int = 20, k_pca: int = 50, max_points: int = 2000, seed: int = 0
) -> IntrinsicDimension:
    """All three estimates of points `[n, d]`, of which at most `max_points` are drawn.

    Cost: all distances of the points drawn, twice, and local covariances of 60 of them.
    Raises `ConfigError` with fewer different points than `k_mle + 2`, or 20.
    """
    points = np.unique(as_points(x), axis=0)
    n_repeated, needed = len(x) - len(points), max(k_mle + 2, 20)
    if len(points) < needed:
        raise ConfigError(f"{len(points)} different points; {needed} are needed to look at their neighbourhoods")
    rng = np.random.default_rng(derive_seed(seed, "intrinsic dimension"))
    points = centred(points[np.sort(rng.permutation(len(points))[:max_points])])
    gaussian = gaussian_like(points, rng)
    k_pca = min(k_pca, len(points) - 1)
    methods: list[tuple[str, int, Callable[[np.ndarray], float]]] = [
        ("TwoNN", 2, two_nn),
        ("MLE", k_mle, lambda p: maximum_likelihood(p, min(k_mle, len(p) - 2))),
        ("local PCA", k_pca, lambda p: local_pca(p, min(k_pca, len(p) - 1))),
    ]
    halves = [np.sort(rng.permutation(len(points))[: len(points) // 2]) for _ in range(HALVES)]
    estimates = []
    for name, k, method in methods:
        value = method(points)
        spread = float(np.std([method(points[half]) for half in halves]))
        estimates.append(
            Estimate(
                estimator=name,
                dimension=value,
                low=value - 1.96 * spread,
                high=value + 1.96 * spread,
                gaussian=method(gaussian),
                k=k,
                n=len(points),
            )
        )
    ceiling = estimates[-1].dimension > 0.9 * k_pca
    return IntrinsicDimension(
        estimates=tuple(estimates),
        n=len(points),
        d=points.shape[1],
        n_repeated=n_repeated,
        note=f"Local PCA uses all of its {k_pca} neighbours: a lower bound." if ceiling else "",
        seed=seed,
    )


def two_nn(points: np.ndarray) -> float:
    """TwoNN of different points `[n, d]`: slope through the origin of `-log(1 - F)` on `log(r2 / r1)`."""
    r1, r2 = nearest_distances(points, 2)[0].T
    ratios = np.sort(np.log(r2 / r1))
    keep = max(2, int(len(ratios) * (1 - DISCARD)))
    share = np.arange(1, keep + 1) / len(ratios)
    ratios = ratios[:keep]
    return float((ratios @ -np.log1p(-share)) / (ratios @ ratios))


def maximum_likelihood(points: np.ndarray, k: int) -> float:
    """Levina and Bickel over `k` neighbours; the inverse of the mean inverse over points."""
    r = np.log(nearest_distances(points, k)[0])
    return float(1 / (r[:, -1:] - r[:, :-1]).mean())


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
