"""Scaling laws: a loss as a sum of powers of size, tokens or sparsity, fitted in logarithms.

    loss = sum_j exp(X_j @ theta_j)        columns of X_j: 1 and logarithms, so that exp(X_j @ theta_j) is a power law

A term whose only column is 1 is an irreducible loss. Two laws are fitted here: of language models in parameters and
tokens (`interp.studies.language_scaling`), and of sparse dictionaries in latents and sparsity
(`saes.evaluation.scaling`).

1. `fit_law`: log losses with Huber's loss, so that one failed run does not bend the law, from several starts
   (`scipy.optimize.least_squares`; `curve_fit` calls the same, but says nothing of the cost by which starts compare);
2. `refits`: the same fit to redrawn losses, of which `interp.statistics.percentile_interval` makes intervals;
3. `Prediction`: the largest size, left out and predicted, beside the guess that size changes nothing any more.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

LOWEST = 14.0
"""An irreducible term is looked for down to `exp(-14)` of the smallest loss: zero to all purposes."""

Bounds = tuple[np.ndarray, np.ndarray]
"""the least and the largest value of every coefficient"""


@dataclass(frozen=True, eq=False)
class Fit:
    """Coefficients of a law, and the losses that they were fitted to."""

    terms: tuple[np.ndarray, ...]
    """one design `[n, p_j]` per term of the sum"""
    y: np.ndarray
    """`[n]` log losses"""
    theta: np.ndarray
    """`[sum of p_j]`, term after term"""
    cost: float
    """Huber's, in squared log units"""
    huber: float
    """log units beyond which a residual counts linearly"""

    @property
    def expected(self) -> np.ndarray:
        """`[n]` log losses that the law gives."""
        return predict(self.terms, self.theta)[0]

    @property
    def residuals(self) -> np.ndarray:
        """`[n]` log losses above the law."""
        return self.y - self.expected

    @property
    def df(self) -> int:
        """Observations less coefficients, 1 at least."""
        return max(len(self.y) - len(self.theta), 1)

    @property
    def sigma(self) -> float:
        """Spread of the observations around the law, in log units."""
        return math.sqrt(float(np.square(self.residuals).sum()) / self.df)


def predict(terms: Sequence[np.ndarray], theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log losses `[n]` of a law, and their derivatives `[n, len(theta)]`."""
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
    """The best fit from several starts: residuals beyond `huber` log units count linearly."""
    from scipy.optimize import least_squares

    low, high = bounds or (np.full(len(starts[0]), -np.inf), np.full(len(starts[0]), np.inf))
    slopes: Any = lambda theta: predict(terms, theta)[1]  # noqa: E731 (scipy's own annotation knows names alone)
    found = [
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
    best = min(found, key=lambda each: each.cost)
    return Fit(tuple(terms), y, best.x, float(best.cost), huber)


def refits(
    fitted: Fit,
    n: int,
    rng: np.random.Generator,
    *,
    n_groups: int,
    free: int,
    bounds: Callable[[np.ndarray], Bounds] | None = None,
    max_nfev: int = 200,
) -> list[np.ndarray]:
    """Coefficients of `n` fits to losses drawn anew around the law: whole groups' residuals, with random signs.

    Observations come in `n_groups` blocks of one size, each of which errs together: the checkpoints of one run, or an
    observation by itself. Residuals are widened for the coefficients that groups determine (`free` groups remain), and
    by what so few say of their spread, so that intervals are those of Student's law.
    """
    left = fitted.residuals.reshape(n_groups, -1) * math.sqrt(n_groups / free)
    found = []
    for _ in range(n):
        scale = math.sqrt(free / max(rng.chisquare(free), 1e-3))
        signs = scale * rng.choice((-1.0, 1.0), n_groups)[:, None]
        y = fitted.expected + (signs * left[rng.integers(n_groups, size=n_groups)]).ravel()
        around = None if bounds is None else bounds(y)
        found.append(
            fit_law(fitted.terms, y, [fitted.theta], huber=fitted.huber, bounds=around, max_nfev=max_nfev).theta
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The largest size, predicted from the smaller ones. Errors are shares of the loss that it came to."""

    loss: float
    predicted: float
    error: float
    unchanged: float
    """the error of the guess that the loss is that of the largest size left in"""

    @classmethod
    def of(cls, loss: float, predicted: float, before: float, **size: int) -> Self:
        """From the loss, the one predicted, and that of the size before; `size` are fields of a subclass."""
        return cls(loss=loss, predicted=predicted, error=predicted / loss - 1, unchanged=before / loss - 1, **size)


def geometric_mean(losses: Sequence[float]) -> float:
    """Mean of several seeds' losses, in logarithms, as the laws are fitted."""
    return math.exp(float(np.mean(np.log(losses))))
