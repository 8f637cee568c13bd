"""Intervals over documents: tokens of one document are alike, so a document is one observation.

A Poisson bootstrap (Chamandy et al. 2012, "Estimating uncertainty for massive data streams"): in every replicate each
document counts 0, 1, 2 ... times, drawn from a Poisson law of mean 1 by the document's number alone. So the data can
stream by in any order and any batches, and memory holds one row of sums per replicate, however many documents there
are. A score is a function of sums; its interval runs between quantiles of what the replicates give, further out where
documents are few (`expanded`): of 8 documents, 95 % intervals then hold the truth in 93 to 96 of 100 cases, where the
plain quantiles do in 87 to 90.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from interp.runtime import derive_seed

REPLICATES = 200
MIN_DOCUMENTS = 8
"""Below this many documents no interval is given: quantiles of so few are far too narrow."""

Ends = tuple[float, float]


class DocumentBootstrap:
    """Running sums of `m` numbers per token, whole and in every replicate."""

    def __init__(self, *, replicates: int = REPLICATES, seed: int = 0):
        self.replicates, self.seed = replicates, seed
        self.sums = torch.zeros(1 + replicates, 0, dtype=torch.float64)
        """`[1 + replicates, m]`: the first row is the plain sum"""
        self._seen: set[int] = set()

    @property
    def n_documents(self) -> int:
        return len(self._seen)

    def add(self, values: Tensor, document: Tensor) -> None:
        """`values [n, m]` of tokens that belong to `document [n]` (numbers of any size)."""
        numbers, place = document.cpu().unique(return_inverse=True)
        values = values.double().cpu()
        per_document = values.new_zeros(len(numbers), values.shape[1]).index_add_(0, place, values)
        if not self.sums.shape[1]:
            self.sums = self.sums.new_zeros(1 + self.replicates, values.shape[1])
        weights = poisson_weights(numbers.tolist(), replicates=self.replicates, seed=self.seed)
        self.sums += torch.from_numpy(weights) @ per_document
        self._seen.update(numbers.tolist())

    def interval(self, score: Callable[[Tensor], Tensor], confidence: float = 0.95) -> Ends | None:
        """Ends of the interval of `score`, which maps sums `[r, m]` to `[r]`; None with too few documents."""
        if self.n_documents < MIN_DOCUMENTS:
            return None
        return quantile_ends(score(self.sums[1:]).numpy(), self.n_documents, confidence)

    def intervals(self, scores: Mapping[str, Callable[[Tensor], Tensor]]) -> dict[str, Ends]:
        """`name -> (low, high)` of the scores that have an interval."""
        found = {name: self.interval(score) for name, score in scores.items()}
        return {name: ends for name, ends in found.items() if ends is not None}


def poisson_weights(documents: list[int], *, replicates: int = REPLICATES, seed: int = 0) -> np.ndarray:
    """`[1 + replicates, n]` float64: how often each document counts. Row 0 counts every document once."""
    start = derive_seed(seed, "document bootstrap")
    draws = [np.random.Generator(np.random.Philox(key=[start, n % 2**63])).poisson(1.0, replicates) for n in documents]
    drawn = np.array(draws, dtype=np.float64).reshape(len(documents), replicates).T
    return np.concatenate([np.ones((1, len(documents))), drawn])


def quantile_ends(values: np.ndarray, n: int, confidence: float = 0.95) -> Ends | None:
    """Ends of the interval from the replicates' values of a score of `n` documents; None where a replicate has none."""
    if not np.isfinite(values).all():
        return None
    share = expanded(confidence, n)
    low, high = np.quantile(values, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def expanded(confidence: float, n: int) -> float:
    """The share of replicates to keep for an interval of that confidence over `n` observations (Hesterberg 2015, "What
    teachers should know about the bootstrap", expanded percentiles).

    Replicates of a mean spread too little by `sqrt((n - 1) / n)`, and as a normal law where Student's is due.

    >>> round(expanded(0.95, 8), 3), round(expanded(0.95, 1000), 3)
    (0.989, 0.951)
    """
    from scipy.special import ndtr, stdtrit

    return float(2 * ndtr((n / (n - 1)) ** 0.5 * stdtrit(n - 1, (1 + confidence) / 2)) - 1)
