"""Nulls: how many draws a result is compared with, its p-value, and the correction for several tests. Torch-free.

A count is given by level, stated once: what it buys is the smallest p-value, `1 / (1 + draws)`.
"""

from typing import Any, Literal

import numpy as np

from interp.errors import NonFiniteError

Level = Literal["quick", "standard", "thorough"]
"""Cost of a null: p can reach 1/6, 1/20 or 1/100."""
DRAWS: dict[Level, int] = {"quick": 5, "standard": 19, "thorough": 99}
"""Draws of each null (directions, shuffles, prompts, untrained models) by level."""


def p_from_null(
    value: Any,
    null: np.ndarray,
    *,
    alternative: Literal["greater", "less", "two-sided"] = "greater",
    tolerance: float = 1e-12,
) -> Any:
    """Return the p-value of `value [...]` against draws `null [n, ...]`: `(1 + draws that reach it) / (1 + n)`.

    It is never 0. "two-sided" compares absolute values, for a null around 0. Draws within `tolerance` of the value
    count as reaching it. Raises `NonFiniteError` on NaN.
    """
    value, null = np.asarray(value, dtype=np.float64), np.asarray(null, dtype=np.float64)
    if np.isnan(value).any() or np.isnan(null).any():
        raise NonFiniteError("a statistic or its null is NaN, so they cannot be compared; look at the input's values")
    if alternative == "two-sided":
        value, null = np.abs(value), np.abs(null)
    elif alternative == "less":
        value, null = -value, -null
    p = (1 + (null >= value - tolerance).sum(0)) / (1 + len(null))
    return p if np.ndim(p) else float(p)


def prediction_bound(
    mean: Any, spread: Any, n: int, *, n_tests: Any, df: int | None = None, error: float = 0.05
) -> Any:
    """Return a bound for one more draw of a null, with a family-wise `error` over `n_tests` (Bonferroni).

    `mean` and `spread` (standard deviation) are of `n` draws from a normal distribution, two at least; the spread has
    `df` degrees of freedom (`n - 1` by default). Numbers, or arrays that broadcast.
    """
    from scipy.special import stdtrit

    quantile = stdtrit(n - 1 if df is None else df, 1 - error / n_tests)
    return mean + quantile * spread * np.sqrt(1 + 1 / n)


def holm(p: np.ndarray) -> np.ndarray:
    """Apply Holm's (1979) step-down adjustment over all entries: below 0.05 is a 5 % family-wise error.

    (scipy only adjusts for the false discovery rate.)
    """
    flat = np.asarray(p, dtype=np.float64).ravel()
    order = np.argsort(flat, kind="stable")
    scaled = np.maximum.accumulate(flat[order] * (len(flat) - np.arange(len(flat))))
    adjusted = np.empty_like(flat)
    adjusted[order] = np.minimum(scaled, 1.0)
    return adjusted.reshape(np.shape(p))
