"""Scaling laws: a loss as a sum of powers of size and sparsity, fitted in logarithms.

    loss = sum_j exp(X_j @ theta_j)        columns of X_j: 1 and logarithms, so that exp(X_j @ theta_j) is a power law

A term whose only column is 1 is an irreducible loss. The law of sparse dictionaries in latents and sparsity
(`saes.evaluation.scaling`) is fitted with it.

1. `fit_law` fits log losses with the Huber loss, so that one failed run does not bend the law, from several starts. It
   uses `scipy.optimize.least_squares`; `curve_fit` calls the same, but does not return the cost that compares starts.
2. `refits` repeats the fit on resampled losses, for the intervals of `interp.statistics.percentile_interval`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LOWEST = 14.0
"""Lower bound of an irreducible term: `exp(-14)` of the smallest loss, effectively zero."""

Bounds = tuple[np.ndarray, np.ndarray]
"""smallest and largest value of every coefficient"""


@dataclass(frozen=True, eq=False)
class Fit:
    """Coefficients of a law, with the losses that they were fitted to."""

    terms: tuple[np.ndarray, ...]
    """one design matrix `[n, p_j]` per term of the sum"""
    y: np.ndarray
    """`[n]` log losses"""
    theta: np.ndarray
    """`[sum of p_j]` coefficients, term after term"""
    cost: float
    """Huber cost, in squared log units"""
    huber: float
    """threshold in log units beyond which a residual counts linearly"""

    @property
    def expected(self) -> np.ndarray:
        """Log losses of the law, `[n]`."""
        return predict(self.terms, self.theta)[0]

    @property
    def residuals(self) -> np.ndarray:
        """Observed minus expected log losses, `[n]`."""
        return self.y - self.expected

    @property
    def df(self) -> int:
        """Degrees of freedom: observations minus coefficients, at least 1."""
        return max(len(self.y) - len(self.theta), 1)

    @property
    def sigma(self) -> float:
        """Standard deviation of the observations around the law, in log units."""
        return math.sqrt(float(np.square(self.residuals).sum()) / self.df)


def predict(terms: Sequence[np.ndarray], theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return log losses of a law, `[n]`, and their derivatives by its coefficients, `[n, len(theta)]`."""
    parts = np.split(theta, np.cumsum([design.shape[1] for design in terms])[:-1])
    logs = np.stack([design @ part for design, part in zip(terms, parts, strict=True)])
    total = np.logaddexp.reduce(logs, axis=0)
    slopes = [np.exp(log - total)[:, None] * design for log, design in zip(logs, terms, strict=True)]
    return total, np.concatenate(slopes, axis=1)


def fit_law(
    terms: Sequence[np.ndarray],
    y: np.ndarray,
    starts: Sequence[np.ndarray],
    *,
    huber: float,
    bounds: Bounds | None = None,
    max_nfev: int = 200,
) -> Fit:
    """Return the best fit from several starts; residuals beyond `huber` log units count linearly."""
    from scipy.optimize import least_squares

    low, high = bounds or (np.full(len(starts[0]), -np.inf), np.full(len(starts[0]), np.inf))
    slopes: Any = lambda theta: predict(terms, theta)[1]  # noqa: E731 (scipy's own annotation knows names alone)
    fits = [
        least_squares(
            lambda theta: predict(terms, theta)[0] - y,
            np.clip(start, low + 1e-9, high - 1e-9),
            jac=slopes,
            bounds=(low, high),
            loss="huber",
            f_scale=huber,
            max_nfev=max_nfev,
            ftol=1e-10,
            xtol=1e-10,
            gtol=1e-10,
        )
        for start in starts
    ]
    best = min(fits, key=lambda fit: fit.cost)
    return Fit(tuple(terms), y, best.x, float(best.cost), huber)


def refits(
    fitted: Fit,
    n: int,
    rng: np.random.Generator,
    *,
    bounds: Callable[[np.ndarray], Bounds] | None = None,
    max_nfev: int = 200,
) -> list[np.ndarray]:
    """Return the coefficients of `n` fits to resampled losses: residuals with random signs.

    Residuals are scaled up for the coefficients that are fitted. They are also scaled for the uncertainty of their
    spread, so that intervals have Student's coverage.
    """
    n_observations, df = len(fitted.y), fitted.df
    left = fitted.residuals * math.sqrt(n_observations / df)
    rows = []
    for _ in range(n):
        scale = math.sqrt(df / max(rng.chisquare(df), 1e-3))
        signs = scale * rng.choice((-1.0, 1.0), n_observations)
        y = fitted.expected + signs * left[rng.integers(n_observations, size=n_observations)]
        around = None if bounds is None else bounds(y)
        rows.append(
            fit_law(fitted.terms, y, [fitted.theta], huber=fitted.huber, bounds=around, max_nfev=max_nfev).theta
        )
    return rows


def geometric_mean(losses: Sequence[float]) -> float:
    """Return the geometric mean of several seeds' losses, as the laws are fitted to log losses."""
    return math.exp(float(np.mean(np.log(losses))))
