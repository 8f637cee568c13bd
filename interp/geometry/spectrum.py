"""How a cloud of points fills its space: one common direction, a few directions, or all of them?

    spectrum(x).participation_ratio      # (sum l)^2 / sum l^2 over the eigenvalues l of the covariance

Both ends have a name. *Anisotropy* is the mean cosine of two different points: 0 for directions spread evenly, near 1
when all share a large mean (Ethayarajh 2019). Most of it is that mean, so it is given raw and after centring. The
*participation ratio* counts directions: `d` when all have the same variance, 1 when one has it all.

Few points cannot show many directions: `n` isotropic points of `d` dimensions reach a ratio of only about
`d m / (d + m + 1)`, `m = n - 1`. That, drawn with the same `n` and `d`, stands beside every number as its null.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.geometry.values import Finding, as_points, centred
from interp.runtime import derive_seed

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
