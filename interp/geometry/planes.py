"""A plane in activation space: coordinates on it, turning around its centre, angles to another plane."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.errors import ConfigError, MismatchError, NonFiniteError
from interp.geometry.values import Finding, as_points, centred


@dataclass(frozen=True, kw_only=True)
class Plane(Finding):
    """Two orthonormal directions through a centre."""

    centre: np.ndarray
    """`[d]`"""
    basis: np.ndarray
    """`[2, d]`"""
    share: float
    """of the variance of the points it was fitted to; 1 when they lie on it"""
    isotropic_share: float
    """what the best plane holds of as many isotropic points: the null of `share`"""

    def sentence(self) -> str:
        return f"a plane with {self.share:.3f} of the variance (isotropic points: {self.isotropic_share:.3f})"

    def coordinates(self, x: Any) -> np.ndarray:
        """`[n, 2]` of `x [n, d]`. Raises `MismatchError` on another `d` than the plane's."""
        return (as_points(x, at_least=1, d=len(self.centre)) - self.centre) @ self.basis.T

    def turn(self, degrees: float) -> np.ndarray:
        """`[d, d]` matrix `R` such that `x + (x - centre) @ R` is `x` turned around the centre within the plane."""
        if not np.isfinite(degrees):
            raise NonFiniteError(f"an angle in degrees was expected, got {degrees}; give a finite one")
        angle = np.deg2rad(degrees)
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        return self.basis.T @ (rotation - np.eye(2)) @ self.basis

    def rotate(self, x: Any, degrees: float) -> np.ndarray:
        """`x [n, d]` turned; what lies across the plane stays."""
        points = as_points(x, at_least=1, d=len(self.centre))
        return points + (points - self.centre) @ self.turn(degrees)

    def radii(self, x: Any) -> np.ndarray:
        """`[n]` distances from the centre, on the plane."""
        return np.linalg.norm(self.coordinates(x), axis=1)

    def angles(self, x: Any) -> np.ndarray:
        """`[n]` degrees, 0 to 360, counted from the first basis direction towards the second."""
        first, second = self.coordinates(x).T
        return np.degrees(np.arctan2(second, first)) % 360


def fit_plane(x: Any, *, components: tuple[int, int] = (0, 1), seed: int = 0) -> Plane:
    """The plane of two principal components of `x [n, d]`, by default the first two; it looks at no order of the items.

    Raises `ConfigError` when there are not that many components.
    """
    from interp.geometry.spectrum import covariance_spectrum, isotropic_like

    points = as_points(x, at_least=3)
    away = centred(points)
    _, singular, directions = np.linalg.svd(away, full_matrices=False)
    rank = int((singular > singular[0] * 1e-9).sum())
    if len(components) != 2 or not 0 <= min(components) < max(components) < rank:
        raise ConfigError(
            f"two different components were expected, got {components}; the points have {rank} (0 to {rank - 1})"
        )
    variances = singular**2 / (singular**2).sum()
    null = covariance_spectrum(isotropic_like(len(points), points.shape[1], seed))
    basis = directions[list(components)]
    signs = np.sign(basis[np.arange(2), np.abs(basis).argmax(1)])
    return Plane(
        centre=points.mean(0),
        basis=basis * signs[:, None],
        share=float(variances[list(components)].sum()),
        isotropic_share=float(null[list(components)].sum() / null.sum()),
    )


def principal_cosines(first: Plane, second: Plane) -> tuple[float, float]:
    """Cosines of the two principal angles: 1 and 1 for the same plane, 0 and 0 for planes at right angles.

    Raises `MismatchError` on planes of spaces of different width.
    """
    widths = first.basis.shape[1], second.basis.shape[1]
    if widths[0] != widths[1]:
        raise MismatchError(f"two planes of one space were expected, got {widths[0]} and {widths[1]} coordinates")
    cosines = np.linalg.svd(first.basis @ second.basis.T, compute_uv=False).clip(0, 1)
    return float(cosines[0]), float(cosines[1])


def random_plane(centre: np.ndarray, rng: np.random.Generator) -> Plane:
    """A plane in a random direction through a centre: the null of an intervention."""
    q, _ = np.linalg.qr(rng.standard_normal((len(centre), 2)))
    return Plane(centre=centre, basis=q.T, share=0.0, isotropic_share=0.0)
