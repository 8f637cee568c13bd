"""Means with intervals, and p-values that hold for many tests at once. One prompt is one observation."""

import numpy as np


def t_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, low and high end of the two-sided Student t interval over the last axis; NaN entries are left out.

    Of one observation the interval is infinite: nothing is known of its spread.
    """
    from scipy.stats import t

    values = np.asarray(values, dtype=np.float64)
    n = np.isfinite(values).sum(-1)
    mean = np.nanmean(values, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.nanstd(values, axis=-1, ddof=1) if values.shape[-1] > 1 else np.full(mean.shape, np.inf)
        half = np.where(n > 1, t.ppf((1 + confidence) / 2, np.maximum(n - 1, 1)) * spread / np.sqrt(n), np.inf)
    return mean, mean - half, mean + half


def p_above(values: np.ndarray, bound: float | np.ndarray = 0.0) -> np.ndarray:
    """One-sided p-value that the mean over the last axis is not above `bound` (Student t); 0 or 1 without spread."""
    from scipy.stats import t

    values = np.asarray(values, dtype=np.float64)
    n = values.shape[-1]
    gap = values.mean(-1) - bound
    if n < 2:
        return np.ones_like(gap)
    error = values.std(-1, ddof=1) / np.sqrt(n)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = t.sf(gap / error, n - 1)
    return np.where(error < 1e-9, np.where(gap > 1e-9, 0.0, 1.0), p)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's (1979) step-down adjustment over all entries: below 0.05 means found with a 5 % family-wise error."""
    flat = np.asarray(p, dtype=np.float64).ravel()
    order = np.argsort(flat, kind="stable")
    scaled = np.maximum.accumulate(flat[order] * (len(flat) - np.arange(len(flat))))
    adjusted = np.empty_like(flat)
    adjusted[order] = np.minimum(scaled, 1.0)
    return adjusted.reshape(np.shape(p))
