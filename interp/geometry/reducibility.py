"""Is a two-dimensional feature one thing, or two one-dimensional ones side by side (Engels et al. 2024, 2405.14860)?

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
from typing import Any

import numpy as np

from interp.errors import ConfigError
from interp.geometry.points import Finding, as_points, centred, check_count
from interp.runtime import derive_seed

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
