"""The scaling law of language models: how the loss falls with parameters `N` and tokens `D`.

    L(N, D) = E + A / N^alpha + B / D^beta

(Hoffmann et al. 2022, arXiv 2203.15556, equation 10 and section 3.3: log losses, Huber, several starts.) `E` is what no
size and no text removes, `A / N^alpha` what too few parameters cost, `B / D^beta` what too little text costs.

1. does the loss fall at all? Permutations of the sizes over runs, and of the checkpoints within runs: where either
   could be chance, there is no law, and the result says so instead of an exponent;
2. the law is fitted to the checkpoints of all runs together;
3. intervals: checkpoints of one run err together, so whole runs' residuals are drawn anew around the law;
4. the check: the largest size is left out and predicted, beside the guess that size changes nothing any more. A law
   that does worse than the guess is told as one that does not hold (`predicts`): curves that bend where some models
   change phase and others have not yet are no power law, however narrow the interval.

Checkpoints of one run stand for runs of that length, which is right only at a constant learning rate. The law describes
models trained alike, within the sizes measured: at these sizes exponents depend on the recipe.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp.errors import ConfigError, NonFiniteError
from interp.results import Record, Result

MIN_SIZES, MIN_CHECKPOINTS, MIN_FOLD = 4, 4, 4.0
"""A fit needs so many sizes and checkpoints, and sizes and tokens that each span at least this factor."""
P_FOUND = 0.01
"""Below this p-value the loss is said to fall."""
CONFIDENCE = 0.95
_HUBER = 1e-2
_LOWEST = 14.0
"""`E` is looked for down to `exp(-14)` of the smallest loss: zero to all purposes."""


@dataclass(frozen=True, kw_only=True)
class LanguageRun:
    """One trained model."""

    n_params: int
    """without embeddings and unembedding (Kaplan et al. 2020, section 2.1)"""
    seed: int
    tokens: tuple[int, ...]
    """seen at each checkpoint, rising"""
    losses: tuple[float, ...]
    """nats per token on held-out documents, at each"""
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class LanguageLaw:
    """The coefficients."""

    e: float
    a: float
    b: float
    alpha: float
    beta: float

    def loss(self, n_params: float, tokens: float) -> float:
        """Nats per token that the law gives."""
        return self.e + self.a / n_params**self.alpha + self.b / tokens**self.beta


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """The largest size, predicted from the smaller ones. Errors are shares of the loss that came."""

    n_params: int
    loss: float
    predicted: float
    error: float
    unchanged: float
    """the error of saying that it is the loss of the largest size that was kept"""


@dataclass(frozen=True, kw_only=True)
class LanguageScaling(Result):
    """What `fit_language_scaling` found. `law` and all that follows it are None where the loss does not fall."""

    runs: tuple[LanguageRun, ...]
    p_size: float
    """p-value that larger models have no lower loss"""
    p_tokens: float
    """p-value that the loss does not fall while a model reads"""
    law: LanguageLaw | None
    intervals: dict[str, Interval]
    """of `e, alpha, beta`; empty without a law"""
    scatter: float | None
    """typical distance of a checkpoint from the law, as a share of its loss"""
    left_out: LeftOut | None

    @property
    def predicts(self) -> bool | None:
        """Whether the law tells the largest size better than the guess that size changes nothing; None if not tried."""
        return None if self.left_out is None else abs(self.left_out.error) < abs(self.left_out.unchanged)

    @property
    def findings(self) -> list[str]:
        """What was found, in sentences."""
        if self.law is None:
            missing = "larger models have no lower loss" if self.p_tokens < P_FOUND else "no model learns from the text"
            return [f"no law: it could be chance that {missing} (p {max(self.p_size, self.p_tokens):.3f})"]
        told = {name: f"{each.value:.2f} ({each.low:.2f} to {each.high:.2f})" for name, each in self.intervals.items()}
        said = [
            f"the loss falls with parameters to the power {told['alpha']} and with tokens to the power {told['beta']}, "
            f"towards {told['e']} nats; a checkpoint lies {self.scatter:.1%} off"
        ]
        if self.left_out is not None:
            said.append(
                f"the largest model ({self.left_out.n_params:,} parameters), predicted from the smaller: "
                f"{self.left_out.predicted:.3f} nats, it came to {self.left_out.loss:.3f} ({self.left_out.error:+.1%}; "
                f"saying that size changes nothing more {self.left_out.unchanged:+.1%})"
            )
        if self.predicts is False:
            said.append("the law does not hold here: it predicts worse than saying that size changes nothing more")
        return said

    def __str__(self) -> str:
        return "\n".join(self.findings)

    def to_records(self) -> list[Record]:
        """Return one row per checkpoint: `name, n_params, seed, tokens, loss` (nats)."""
        return [
            {"name": run.name, "n_params": run.n_params, "seed": run.seed, "tokens": tokens, "loss": loss}
            for run in self.runs
            for tokens, loss in zip(run.tokens, run.losses, strict=True)
        ]


def fit_language_scaling(
    runs: Sequence[LanguageRun], *, n_bootstrap: int = 200, n_permutations: int = 9_999, seed: int = 0
) -> LanguageScaling:
    """Fit the law to trained runs, all measured at the same numbers of tokens.

    Raises `ConfigError` that says what is missing (fewer than four sizes or checkpoints, too close together, other
    checkpoints in some runs), `NonFiniteError` for a loss that is no positive number.
    """
    data = _Observations.of(runs)
    _check_draws(runs, n_bootstrap, n_permutations)
    generator = np.random.default_rng(seed)
    p_size = _permuted(data, generator, n_permutations, within_runs=False)
    p_tokens = _permuted(data, generator, n_permutations, within_runs=True)
    if max(p_size, p_tokens) >= P_FOUND:
        return LanguageScaling(
            runs=tuple(runs), p_size=p_size, p_tokens=p_tokens, law=None, intervals={}, scatter=None, left_out=None
        )
    theta = _fit(data)
    laws = [_law(each, data) for each in _bootstrap(theta, data, generator, n_bootstrap)]
    law = _law(theta, data)
    return LanguageScaling(
        runs=tuple(runs),
        p_size=p_size,
        p_tokens=p_tokens,
        law=law,
        intervals={name: _interval(name, law, laws) for name in ("e", "alpha", "beta")},
        scatter=float(np.sqrt(np.square(_residuals(theta, data)).sum() / max(data.y.size - len(theta), 1))),
        left_out=_leave_out(runs),
    )


@dataclass(frozen=True)
class _Observations:
    """Log parameters `[runs]`, log tokens `[checkpoints]`, each less its mean; log losses `[runs, checkpoints]`."""

    n: np.ndarray
    d: np.ndarray
    y: np.ndarray
    origin: tuple[float, float]

    @classmethod
    def of(cls, runs: Sequence[LanguageRun]) -> "_Observations":
        _check(runs)
        n, d = np.log([run.n_params for run in runs]), np.log(runs[0].tokens)
        return cls(n - n.mean(), d - d.mean(), np.log([run.losses for run in runs]), (float(n.mean()), float(d.mean())))

    def replaced(self, y: np.ndarray) -> "_Observations":
        return _Observations(self.n, self.d, y, self.origin)


def _check_draws(runs: Sequence[LanguageRun], n_bootstrap: int, n_permutations: int) -> None:
    """Raises `ConfigError` where nothing that is drawn could count."""
    if n_bootstrap < 2:
        raise ConfigError(f"an interval needs at least 2 draws of the bootstrap, got {n_bootstrap}")
    if (1 + n_permutations) * P_FOUND < 1:
        raise ConfigError(f"of {n_permutations} permutations no p-value can fall below {P_FOUND}; draw 99 or more")
    alike = [math.factorial(n) for n in Counter(run.n_params for run in runs).values()]
    orders = math.factorial(len(runs)) // math.prod(alike)
    if orders * P_FOUND < 1:
        raise ConfigError(
            f"{len(runs)} runs of {len(alike)} sizes have {orders} orders: p cannot fall below {1 / orders:.2g}; "
            f"train more sizes or seeds, until it can fall below {P_FOUND}"
        )


def _check(runs: Sequence[LanguageRun]) -> None:
    for run in runs:
        if not all(math.isfinite(loss) and loss > 0 for loss in run.losses):
            raise NonFiniteError(f"a loss of {run.name or f'{run.n_params:,} parameters'} is no number above 0")
        if run.n_params < 1 or min(run.tokens, default=0) < 1:
            raise ConfigError(
                f"parameters and tokens must be at least 1, got {run.n_params} and {min(run.tokens, default=0)}"
            )
        if run.tokens != runs[0].tokens or len(run.losses) != len(run.tokens):
            raise ConfigError("all runs must be measured after the same numbers of tokens; train them by one recipe")
    sizes = sorted({run.n_params for run in runs})
    tokens = list(runs[0].tokens) if runs else []
    if len(sizes) < MIN_SIZES or sizes[-1] < MIN_FOLD * sizes[0]:
        raise ConfigError(
            f"a scaling fit needs at least {MIN_SIZES} sizes over a factor of {MIN_FOLD:g}, got {sizes}; "
            "train more widths"
        )
    if len(tokens) < MIN_CHECKPOINTS or tokens[-1] < MIN_FOLD * tokens[0]:
        raise ConfigError(
            f"a scaling fit needs at least {MIN_CHECKPOINTS} checkpoints over a factor of {MIN_FOLD:g}, got {tokens}; "
            "train for longer"
        )


def _permuted(data: _Observations, generator: np.random.Generator, n: int, *, within_runs: bool) -> float:
    """One-sided p-value of a falling loss: the mean product of ranks, against permuted ones.

    Over runs their last loss, against their size; within runs every checkpoint, against its tokens.
    """
    from scipy.stats import rankdata

    x = data.d if within_runs else data.n
    y = data.y if within_runs else data.y[:, -1][None]
    x, y = rankdata(x), rankdata(y, axis=1)
    x = x - x.mean()
    found = float((x * y).sum())
    drawn = sum(float((x * generator.permuted(y, axis=1)).sum()) <= found + 1e-9 for _ in range(n))
    return (1 + drawn) / (1 + n)


def _terms(theta: np.ndarray, data: _Observations) -> np.ndarray:
    """`[3, runs, checkpoints]` logarithms of the three terms, from `theta` = log E, log A, log B, alpha, beta."""
    shape = data.y.shape
    size = theta[1] - theta[3] * data.n[:, None]
    text = theta[2] - theta[4] * data.d[None]
    return np.stack([np.full(shape, theta[0]), np.broadcast_to(size, shape), np.broadcast_to(text, shape)])


def _residuals(theta: np.ndarray, data: _Observations) -> np.ndarray:
    return data.y - np.logaddexp.reduce(_terms(theta, data), axis=0)


def _fit(data: _Observations, start: np.ndarray | None = None) -> np.ndarray:
    """Coefficients of centred logarithms: Huber's loss, the best of several starts (or from the one given)."""
    from scipy.optimize import least_squares

    lowest, highest = float(data.y.min()), float(data.y.max())
    low = np.array([lowest - _LOWEST, lowest - _LOWEST, lowest - _LOWEST, 0.0, 0.0])
    high = np.array([lowest, highest + 1, highest + 1, 4.0, 4.0])
    starts = [start] if start is not None else _starts(lowest)
    found = [
        least_squares(
            lambda theta: _residuals(theta, data).ravel(),
            np.clip(each, low + 1e-6, high - 1e-6),
            bounds=(low, high),
            loss="huber",
            f_scale=_HUBER,
            max_nfev=200,
        )
        for each in starts
    ]
    return min(found, key=lambda each: each.cost).x


def _starts(lowest: float) -> list[np.ndarray]:
    """Shares of the lowest loss that the floor, size and text may take, and exponents for both."""
    shares = [(0.8, 0.1, 0.1), (0.4, 0.3, 0.3), (0.1, 0.6, 0.3)]
    return [
        np.array([*(lowest + np.log(share)), alpha, beta])
        for share in shares
        for alpha in (0.3, 0.8)
        for beta in (0.3, 0.8)
    ]


def _bootstrap(theta: np.ndarray, data: _Observations, generator: np.random.Generator, n: int) -> list[np.ndarray]:
    """Fits to the law plus whole runs' residuals with random signs, widened for the fitted coefficients."""
    left = _residuals(theta, data)
    expected, n_runs = data.y - left, len(data.n)
    left = left * _widening(n_runs)
    found = []
    for _ in range(n):
        sign = generator.choice((-1.0, 1.0), n_runs)[:, None]
        found.append(_fit(data.replaced(expected + sign * left[generator.integers(n_runs, size=n_runs)]), theta))
    return found


def _widening(n_runs: int) -> float:
    """E, A and alpha are told by runs, not by checkpoints: the residuals of few are too small, and their spread unknown
    (Student's t beside the normal distribution)."""
    from scipy.stats import norm, t

    free = max(n_runs - 3, 1)
    tail = (1 + CONFIDENCE) / 2
    return math.sqrt(n_runs / free) * float(t.ppf(tail, free) / norm.ppf(tail))


def _law(theta: np.ndarray, data: _Observations) -> LanguageLaw:
    """Coefficients of `N` and `D` themselves."""
    e, a, b, alpha, beta = map(float, theta)
    n0, d0 = data.origin
    return LanguageLaw(e=math.exp(e), a=math.exp(a + alpha * n0), b=math.exp(b + beta * d0), alpha=alpha, beta=beta)


def _interval(name: str, law: LanguageLaw, laws: Sequence[LanguageLaw]) -> Interval:
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile([getattr(each, name) for each in laws], [tail, 100 - tail])
    return Interval(value=getattr(law, name), low=float(low), high=float(high))


def _leave_out(runs: Sequence[LanguageRun]) -> LeftOut | None:
    """None where too few sizes would be left to fit."""
    sizes = sorted({run.n_params for run in runs})
    kept = [run for run in runs if run.n_params < sizes[-1]]
    try:
        data = _Observations.of(kept)
    except ConfigError:
        return None

    def last(size: int) -> float:
        return math.exp(float(np.mean([math.log(run.losses[-1]) for run in runs if run.n_params == size])))

    loss, before = last(sizes[-1]), last(sizes[-2])
    predicted = _law(_fit(data), data).loss(sizes[-1], runs[0].tokens[-1])
    return LeftOut(
        n_params=sizes[-1], loss=loss, predicted=predicted, error=predicted / loss - 1, unchanged=before / loss - 1
    )
