"""Intervals, p-values, AUROC and rank correlation, shared by all analyses.

An observation is one independent draw: a prompt, a context, a document, a seed. Arrays have observations on their last
axis, and draws of a null distribution on their first. scipy, scikit-learn and torch are imported in the functions that
need them, so that this module loads fast.

There are two bootstraps. `bootstrap_interval` resamples observations in memory (scipy). `DocumentBootstrap` is our own
Poisson bootstrap (Chamandy et al. 2012, "Estimating uncertainty for massive data streams") for streams of tokens. In
every replicate each document counts 0, 1, 2 ... times. That number is drawn from a Poisson distribution of mean 1 and
depends on the document's number alone. Batches may therefore arrive in any order, and memory is one row of sums per
replicate, whatever the number of documents; scipy would need all of them at once.

The quantiles of both are wider with few observations (`expanded`): with 8 documents of one length, 95 % intervals cover
the true value in 93 to 96 of 100 cases, and plain percentiles in 87 to 90. Documents of very different length need 12.
`docs/trust.md` has the coverage of every kind of interval.
"""

import warnings
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, Any, Generic, NamedTuple, TypeVar

import numpy as np

from interp.errors import ConfigError, NonFiniteError
from interp.forms import NAN_IS_NULL
from interp.seeds import derive_seed

if TYPE_CHECKING:
    from torch import Tensor

Values = TypeVar("Values", float, np.ndarray)


class Interval(NamedTuple, Generic[Values]):
    """An estimate with the ends of its interval, 95 % unless stated otherwise: numbers, or arrays of one shape.

    >>> f"{Interval(0.5, 0.25, 0.75):.2f}"
    '0.50 (0.25 to 0.75)'
    """

    estimate: Annotated[Values, NAN_IS_NULL]
    low: Annotated[Values, NAN_IS_NULL]
    high: Annotated[Values, NAN_IS_NULL]

    def at(self, index: Any) -> "Interval[float]":
        """Return the interval of one entry of the arrays."""
        return Interval(*(float(end[index]) for end in self))  # pyright: ignore[reportIndexIssue, reportArgumentType]

    def clip(self, least: float, most: float) -> "Interval[Values]":
        """Clip both ends to the range of the measure; the estimate does not change."""
        return self._replace(low=np.clip(self.low, least, most), high=np.clip(self.high, least, most))

    def columns(self, name: str, low: str = "", high: str = "") -> dict[str, Values]:
        """Return columns of a table or keys of a file: `name`, and `<name>_low`, `<name>_high` unless given."""
        return {name: self.estimate, low or f"{name}_low": self.low, high or f"{name}_high": self.high}

    def contains(self, value: float) -> Any:
        """Return True where `value` lies inside, ends included; elementwise for arrays."""
        return (self.low <= value) & (value <= self.high)

    def __format__(self, spec: str) -> str:
        return f"{self.estimate:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


def t_interval(values: np.ndarray, confidence: float = 0.95) -> Interval[Any]:
    """Return the mean and its two-sided Student t interval over the last axis; NaN entries are excluded.

    The interval of a single observation is infinite, as its spread is unknown. (`scipy.stats.ttest_1samp` gives the
    same numbers, but takes a hundred times as long with NaN entries, and has no interval for one observation.) For few
    skewed values it is too narrow: it covers the mean of 8 log-normal ones (skewness 1.75) in 0.92 of samples.

    Args:
        values: observations, `[..., n]`.
        confidence: level of the interval.
    Returns: `estimate`, `low` and `high`, `[...]` each.

    >>> found = t_interval(np.array([1.0, 2.0, 3.0]))
    >>> float(found.estimate), round(float(found.low), 2), round(float(found.high), 2)
    (2.0, -0.48, 4.48)
    """
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    values = np.asarray(values, dtype=np.float64)
    n = np.isfinite(values).sum(-1)
    mean = np.nanmean(values, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.nanstd(values, axis=-1, ddof=1) if values.shape[-1] > 1 else np.full(mean.shape, np.inf)
        half = np.where(n > 1, stdtrit(np.maximum(n - 1, 1), (1 + confidence) / 2) * spread / np.sqrt(n), np.inf)
    return Interval(mean, mean - half, mean + half)


def proportion_interval(count: Any, n: int, confidence: float = 0.95) -> Interval[Any]:
    """Return the Wilson score interval of a proportion, `count [...]` of `n` independent observations (Wilson 1927).

    It lies within 0 and 1 and has a width even where all or none count, unlike Student's interval and resamples.
    """
    share, z = np.asarray(count, dtype=np.float64) / n, NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = np.where(share == 0, 0.0, middle - half), np.where(share == 1, 1.0, middle + half)
    return Interval(share, low, high) if np.ndim(low) else Interval(float(share), float(low), float(high))


def ratio_interval(over: np.ndarray, under: np.ndarray, confidence: float = 0.95) -> Interval[Any]:
    """Return `mean(over) / mean(under)` over the last axis, with Fieller's (1954) interval; `[..., n]` each, in pairs.

    It contains the ratios `r` for which Student's t test cannot tell the mean of `over - r * under` from 0. Both ends
    are infinite where it cannot tell the mean of `under` from 0. Four samples suffice; their bootstrap is too narrow.
    """
    from scipy.special import stdtrit

    over, under = np.broadcast_arrays(np.asarray(over, np.float64), np.asarray(under, np.float64))
    n = over.shape[-1]
    means = [sample.mean(-1, keepdims=True) for sample in (over, under)]
    quantile = float(stdtrit(n - 1, (1 + confidence) / 2)) ** 2 / (n * (n - 1))

    def moment(i: int, j: int) -> np.ndarray:
        x, y = ((over, under)[k] - means[k] for k in (i, j))
        return (means[i] * means[j])[..., 0] - quantile * (x * y).sum(-1)

    square, cross, rest = moment(1, 1), moment(0, 1), moment(0, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = (means[0] / means[1])[..., 0]
        half = np.sqrt(np.maximum(cross**2 - square * rest, 0.0)) / square
        low, high = (np.where(square > 0, cross / square + sign * half, sign * np.inf) for sign in (-1, 1))
    return Interval(ratio, low, high) if np.ndim(low) else Interval(float(ratio), float(low), float(high))


def percentile_interval(estimate: Any, draws: np.ndarray, confidence: float = 0.95) -> Interval[Any]:
    """Return `estimate` with the equal-tailed quantiles of `draws [n, ...]`; NaN draws are excluded.

    One more draw falls outside with probability `1 - confidence` (quantiles at rank `q (n + 1)`). numpy's default would
    leave 6 % of it outside with 200 draws and 7 % with 100.
    """
    tail = (1 - confidence) / 2
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, high = np.nanquantile(draws, [tail, 1 - tail], axis=0, method="weibull")
    return Interval(estimate, low, high) if np.ndim(low) else Interval(float(estimate), float(low), float(high))


def balanced_accuracy(
    right: tuple[float, float], of: tuple[int, int], *, generator: np.random.Generator, n_resamples: int = 4000
) -> Interval[float]:
    """Return the mean of two rates, `right` of `of` each: of what is there, and of what is not.

    The 95 % interval draws both rates from their posterior under Jeffreys' prior. So it has a width even where all
    trials are answered right: 0.84 to 1 for ten of ten, twice.
    """
    draws = np.mean(
        [generator.beta(hit + 0.5, n - hit + 0.5, n_resamples) for hit, n in zip(right, of, strict=True)], axis=0
    )
    low, high = percentile_interval(0.0, draws)[1:]
    accuracy = float((right[0] / of[0] + right[1] / of[1]) / 2)
    return Interval(accuracy, 0.0 if accuracy == 0 else low, 1.0 if accuracy == 1 else high)


def bootstrap_interval(
    statistic: Callable[..., Any],
    *samples: np.ndarray,
    rng: np.random.Generator,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    expand: bool = True,
) -> Interval[Any]:
    """Return the percentile bootstrap interval of `statistic(*samples, axis=-1)`, resampling all samples jointly.

    `samples [..., n]` share their last axis. Percentiles are `expanded`, since means of few observations resampled have
    too little spread; `expand=False` is for statistics whose resamples spread enough. With one observation both ends
    are the estimate. Draws with a NaN statistic (both samples constant, say) are excluded.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    estimate = statistic(*samples, axis=-1)
    n = samples[0].shape[-1]
    if n < 2:
        return percentile_interval(estimate, np.asarray(estimate)[None], confidence)
    inside = expanded(confidence, n) if expand else confidence
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)  # draws that are all equal or NaN
        resampled: Any = bootstrap(
            samples,
            statistic,
            paired=True,
            vectorized=True,
            axis=-1,
            n_resamples=n_resamples,
            method="percentile",
            rng=rng,
        )
    return percentile_interval(estimate, np.moveaxis(resampled.bootstrap_distribution, -1, 0), inside)


def bootstrap_counts(n: int, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each of `n` observations counts in a resample with replacement, `[n_resamples, n]` float64.

    For statistics that are functions of sums: one matrix product with these gives all resamples, where
    `bootstrap_interval` would gather a copy of the data for each.
    """
    return rng.multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(np.float64)


def p_above(values: np.ndarray, bound: float | np.ndarray = 0.0) -> np.ndarray:
    """Return the one-sided p-value of the null that the mean over the last axis is not above `bound` (Student t).

    Without spread it is 0 above the bound and 1 elsewhere; with one observation it is 1. It is too small for few values
    with a long tail to the left: at most 0.05 in 0.11 of samples of 8 mirrored log-normal values of skewness 1.75.
    """
    from scipy.special import stdtr

    values = np.asarray(values, dtype=np.float64)
    n, gap = values.shape[-1], values.mean(-1) - bound
    if n < 2:
        return np.ones_like(gap)
    error = values.std(-1, ddof=1) / np.sqrt(n)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(error < 1e-9, np.where(gap > 1e-9, 0.0, 1.0), stdtr(n - 1, -gap / error))


def auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the probability that a positive outranks a negative: 1 perfect, 0.5 chance; ties count half.

    `scores [n]`, `truth [n]` bool. Raises `ConfigError` when all are positive, or none.
    """
    truth, scores = np.asarray(truth, dtype=bool), np.asarray(scores, dtype=float)
    if truth.all() or not truth.any():
        raise ConfigError(f"AUROC needs true and false cases, got {truth.sum()} true of {len(truth)}")
    if not np.isfinite(scores).all():
        raise NonFiniteError("scores are NaN or infinite, so they have no order; look at the input's values")
    others = np.sort(scores[~truth])
    wins = sum(np.searchsorted(others, scores[truth], side=side) for side in ("left", "right"))
    return float(np.mean(wins) / (2 * len(others)))


def auroc_interval(wins: np.ndarray, confidence: float = 0.95) -> Interval[float]:
    """Return the AUROC with its interval, from `wins [n_true, n_other]`: the probability that one outranks the other.

    The variance is that of DeLong et al. 1988. The interval is Student's on the logit scale, since the AUROC of few
    observations is skewed near 1. Where nothing varies (all outrank all, say), it is Wilson's for the smaller sample.
    """
    from scipy.special import expit, logit, stdtrit

    wins = np.asarray(wins, dtype=np.float64)
    area, n = float(wins.mean()), min(wins.shape)
    if n < 2:
        return Interval(area, 0.0, 1.0)
    variance = wins.mean(1).var(ddof=1) / wins.shape[0] + wins.mean(0).var(ddof=1) / wins.shape[1]
    if variance < 1e-20:
        return proportion_interval(area * n, n, confidence)
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * variance**0.5 / (area * (1 - area))
    return Interval(area, float(expit(logit(area) - half)), float(expit(logit(area) + half)))


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Return Spearman's correlation of `[n]` and `[n]`: 1 same order, 0 chance, -1 reversed; NaN if one is constant."""
    from scipy.stats import ConstantInputWarning, spearmanr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        correlation: Any = spearmanr(x, y)
    return float(correlation.statistic)


def rank_correlation_interval(
    x: np.ndarray, y: np.ndarray, *, rng: np.random.Generator, n_resamples: int = 1000
) -> Interval[float]:
    """Return Spearman's correlation with a bootstrap interval over the `n` pairs. Raises `ConfigError` below three.

    With 10 pairs of correlation 0.8 it is too wide: it covers the truth in 0.98 of samples.
    """
    from scipy.stats import pearsonr, rankdata

    if len(x) != len(y) or len(x) < 3:
        raise ConfigError(f"rank correlation needs three pairs or more, got {len(x)} and {len(y)} values")

    def correlation(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        ranks: Any = (rankdata(a, axis=axis), rankdata(b, axis=axis))
        correlation: Any = pearsonr(*ranks, axis=axis)  # on ranks, as spearmanr does not take a stack of resamples
        return np.asarray(correlation.statistic)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "An input array is constant")
        samples = np.asarray(x), np.asarray(y)
        interval = bootstrap_interval(correlation, *samples, rng=rng, n_resamples=n_resamples, expand=False)
    return interval._replace(estimate=rank_correlation(x, y))


REPLICATES = 200
MIN_DOCUMENTS = 8
"""Smallest number of documents for an interval: quantiles of fewer are far too narrow."""

MIN_WHOLE = 0.8
"""Share of replicates in which a score must have a value (documents of both answers, say) for an interval."""

Ends = tuple[float, float]
"""low and high, where the estimate is stored elsewhere"""


class DocumentBootstrap:
    """Running sums of `m` numbers per token, over all documents and in every bootstrap replicate."""

    def __init__(self, *, replicates: int = REPLICATES, seed: int = 0):
        import torch

        self.replicates, self.seed = replicates, seed
        self.sums = torch.zeros(1 + replicates, 0, dtype=torch.float64)
        """`[1 + replicates, m]`: the first row is the plain sum"""
        self._seen: set[int] = set()

    @property
    def n_documents(self) -> int:
        """Number of documents added."""
        return len(self._seen)

    def add(self, values: "Tensor", document: "Tensor") -> None:
        """Add `values [n, m]` of tokens that belong to documents numbered `document [n]` (integers of any size)."""
        numbers, index = document.cpu().unique(return_inverse=True)
        values = values.double().cpu()
        per_document = values.new_zeros(len(numbers), values.shape[1]).index_add_(0, index, values)
        if not self.sums.shape[1]:
            self.sums = self.sums.new_zeros(1 + self.replicates, values.shape[1])
        weights = poisson_weights(numbers.tolist(), replicates=self.replicates, seed=self.seed)
        self.sums += values.new_tensor(weights) @ per_document
        self._seen.update(numbers.tolist())

    def interval(self, score: "Callable[[Tensor], Tensor]", confidence: float = 0.95) -> Ends | None:
        """Return the interval of `score`, which maps sums `[r, m]` to `[r]`; None with too few documents."""
        if self.n_documents < MIN_DOCUMENTS:
            return None
        return quantile_ends(score(self.sums[1:]).numpy(), self.n_documents, confidence)

    def intervals(self, scores: "Mapping[str, Callable[[Tensor], Tensor]]") -> dict[str, Ends]:
        """Return `name -> (low, high)` for the scores that have an interval."""
        intervals = {name: self.interval(score) for name, score in scores.items()}
        return {name: ends for name, ends in intervals.items() if ends is not None}


def poisson_weights(documents: list[int], *, replicates: int = REPLICATES, seed: int = 0) -> np.ndarray:
    """Return the weight of each document, `[1 + replicates, n]` float64. Row 0 counts every document once."""
    start = derive_seed(seed, "document bootstrap")
    draws = [np.random.Generator(np.random.Philox(key=[start, n % 2**63])).poisson(1.0, replicates) for n in documents]
    drawn = np.array(draws, dtype=np.float64).reshape(len(documents), replicates).T
    return np.concatenate([np.ones((1, len(documents))), drawn])


def quantile_ends(values: np.ndarray, n: int, confidence: float = 0.95) -> Ends | None:
    """Return the interval from the replicates' values of a score of `n` documents; None if too many have no value.

    A replicate has none where no document counts: of 8 documents one in 3,000, so one in 15 intervals meets one.
    """
    whole = values[np.isfinite(values)]
    if len(whole) < MIN_WHOLE * len(values):
        return None
    ends = percentile_interval(0.0, whole, expanded(confidence, n))
    return ends.low, ends.high


def expanded(confidence: float, n: int) -> float:
    """Return the fraction of replicates inside an interval of that confidence over `n` observations.

    These are the expanded percentiles of Hesterberg 2015, "What teachers should know about the bootstrap". Replicates
    of a mean have too little spread, by `sqrt((n - 1) / n)`, and are normal where Student's distribution applies.

    One observation has no spread to correct, and the confidence is returned.

    >>> round(expanded(0.95, 8), 3), round(expanded(0.95, 1000), 3)
    (0.989, 0.95)
    """
    from scipy.special import ndtr, stdtrit

    if n < 2:
        return confidence
    return float(2 * ndtr((n / (n - 1)) ** 0.5 * stdtrit(n - 1, (1 + confidence) / 2)) - 1)
