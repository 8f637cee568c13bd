"""Numbers that judge circuits, as plain functions of arrays: faithfulness, CPR and CMD, AUROC.

Definitions of the Mechanistic Interpretability Benchmark (MIB, Mueller et al. 2025). f(C) = (m(C) - m(0)) / (m(M) -
m(0)), where m(M) is the whole model's metric and m(0) that of the empty circuit, all edges replaced: 1 as good as
the model, 0 nothing left; not bounded on either side.
"""

from collections.abc import Sequence

import numpy as np

from interp.errors import ConfigError
from interp.runtime import make_generator

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""of all edges: the sizes at which MIB measures a ranking"""


def faithfulness(values: np.ndarray, empty: np.ndarray, full: np.ndarray) -> np.ndarray:
    """`[n_circuits]` f of `values [n_circuits, n_prompts]`: the ratio of means, not the mean of ratios."""
    gap = full.mean() - empty.mean()
    return (values.mean(-1) - empty.mean()) / gap


def faithfulness_interval(
    values: np.ndarray,
    empty: np.ndarray,
    full: np.ndarray,
    *,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """(low, high), `[n_circuits]` each: percentile bootstrap over prompts, numerator and denominator drawn together."""
    import torch

    n = values.shape[-1]
    drawn = torch.randint(n, (n_resamples, n), generator=make_generator(seed, "bootstrap faithfulness")).numpy()
    low_mean, high_mean = empty[drawn].mean(1), full[drawn].mean(1)
    means = values[:, drawn].mean(2)
    tail = (1 - confidence) / 2
    low, high = np.quantile((means - low_mean) / (high_mean - low_mean), [tail, 1 - tail], axis=1)
    return low, high


def area(fractions: Sequence[float], heights: Sequence[float]) -> float:
    """Trapezoid area of heights over fractions of edges, from the first fraction to the last."""
    x, y = np.asarray(fractions, dtype=float), np.asarray(heights, dtype=float)
    if x.shape != y.shape or len(x) < 2 or (np.diff(x) <= 0).any():
        raise ConfigError("an area needs at least two fractions in rising order, with one height each")
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


def cpr(fractions: Sequence[float], f: Sequence[float]) -> float:
    """Circuit performance ratio: the area under f(k). Higher is better; can exceed 1. Rank edges by signed score."""
    return area(fractions, f)


def cmd(fractions: Sequence[float], f: Sequence[float]) -> float:
    """Circuit-model distance: the area of |1 - f(k)|, 0 at best. Rank edges by absolute score."""
    return area(fractions, np.abs(1 - np.asarray(f, dtype=float)).tolist())


def auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Probability that an edge of the known circuit outranks one outside it: 1 perfect, 0.5 chance; ties count half.

    `scores [n]`, `truth [n]` bool. Raises `ConfigError` when every edge is in, or none.
    """
    from scipy.stats import rankdata

    truth = np.asarray(truth, dtype=bool)
    inside, outside = int(truth.sum()), int((~truth).sum())
    if not inside or not outside:
        raise ConfigError(f"the known circuit has {inside} of {len(truth)} edges; AUROC needs some in and some out")
    ranks = rankdata(np.asarray(scores, dtype=float))
    return float((ranks[truth].sum() - inside * (inside + 1) / 2) / (inside * outside))
