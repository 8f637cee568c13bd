"""How well an estimate ranks things as the exact measurement does, with an interval."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from interp.errors import ConfigError
from interp.runtime import derive_seed


@dataclass(frozen=True)
class Agreement:
    """Rank correlation of `n` estimated and exact values."""

    n: int
    spearman: float
    """of the signed values: 1 the same order, 0 chance, -1 reversed"""
    low: float
    high: float
    """95 % interval: percentile bootstrap over the things ranked"""
    spearman_abs: float
    """of the sizes alone"""

    def __str__(self) -> str:
        return f"rank agreement {self.spearman:.2f} ({self.low:.2f} to {self.high:.2f}) over {self.n}"


def rank_agreement(estimated: Tensor, exact: Tensor, *, n_resamples: int = 1000, seed: int = 0) -> Agreement:
    """Of `[n]` and `[n]`. Raises `ConfigError` below three values."""
    if len(estimated) != len(exact) or len(exact) < 3:
        raise ConfigError(f"rank agreement needs three pairs or more, got {len(estimated)} and {len(exact)} values")
    one, two = estimated.double().cpu().numpy(), exact.double().cpu().numpy()
    drawn = np.random.default_rng(derive_seed(seed, "rank agreement")).integers(len(one), size=(n_resamples, len(one)))
    resampled = np.array([spearman(one[rows], two[rows]) for rows in drawn])
    resampled = resampled[np.isfinite(resampled)] if np.isfinite(resampled).any() else resampled
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Agreement(len(one), spearman(one, two), float(low), float(high), spearman(np.abs(one), np.abs(two)))


def spearman(one: np.ndarray, two: np.ndarray) -> float:
    """Correlation of ranks, ties at their mean; NaN where one side is constant."""
    from scipy.stats import rankdata

    a, b = rankdata(one), rankdata(two)
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else float("nan")
