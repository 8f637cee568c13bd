"""How well answers agree with the truth: 0.5 knows nothing, 1 is always right, with intervals.

Balanced accuracy, the mean of the share of yes-trials answered yes and of no-trials answered no, does not move with the
mixture of trials: always yes, always no and a coin all get 0.5. A question without a readable answer counts as a no,
which is worth 0.5 as well.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 4000


class Score(NamedTuple):
    """Balanced accuracy of one set of answers."""

    value: float
    low: float
    """95 % interval by bootstrap over trials, yes and no apart. Of few trials all answered right it is [1, 1]: what did
    not happen in the sample cannot happen in its resamples."""
    high: float
    f1: float
    """harmonic mean of precision and recall of the yes answers; 0 without any right one"""
    n: int
    """trials"""


def score_answers(truth: Sequence[bool], answers: Sequence[bool], *, generator: np.random.Generator) -> Score | None:
    """Score of the answers; None unless there are trials of both kinds."""
    yes, said = np.array(truth, bool), np.array(answers, bool)
    n_yes, n_no = int(yes.sum()), int((~yes).sum())
    if not n_yes or not n_no:
        return None
    hit, refused = said[yes].mean(), (~said[~yes]).mean()
    # resampling n zeros and ones with replacement is drawing from a binomial
    draws = (
        generator.binomial(n_yes, hit, RESAMPLES) / n_yes + generator.binomial(n_no, refused, RESAMPLES) / n_no
    ) / 2
    low, high = np.quantile(draws, (0.025, 0.975))
    right = int((said & yes).sum())
    f1 = 2 * right / (n_yes + int(said.sum())) if right else 0.0
    return Score(float((hit + refused) / 2), float(low), float(high), f1, len(yes))


def mean_over_features(values: Sequence[float], *, generator: np.random.Generator) -> dict[str, float | int] | None:
    """`mean, low, high` (95 % by bootstrap over features) and `n`; None of no values."""
    known = np.array([v for v in values if v is not None], np.float64)
    if not len(known):
        return None
    means = known[generator.integers(0, len(known), (RESAMPLES, len(known)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return {"mean": float(known.mean()), "low": float(low), "high": float(high), "n": len(known)}


def other_features(n: int, *, generator: np.random.Generator) -> list[int] | None:
    """For each of `n` features another one, each used once: one random cycle. None of fewer than two."""
    if n < 2:
        return None
    order = generator.permutation(n)
    partner = np.empty(n, int)
    partner[order] = np.roll(order, -1)
    return partner.tolist()
