"""The scaling law of sparse dictionaries: how the loss falls with their size `n` and their sparsity `k`.

    L(n, k) = exp(alpha + beta_k log k + beta_n log n + gamma log k log n) + exp(zeta + eta log k)

(Gao et al. 2024, arXiv 2406.04093, section 3.1.3.) The first term falls with size, the second is what no size removes.
The exponent of `n` is `beta_n + gamma log k`: one for every `k`.

1. runs of one `(n, k)` with other seeds are averaged: one combination is one observation;
2. both laws, with the second term and without, are fitted to log losses (Huber, several starts); the term stays when an
   F test tells it from zero (`FLOOR_P`), else exponents are those of the whole loss, with what they would be above the
   term beside them;
3. intervals: residuals of the observations, widened for the fitted coefficients, are drawn anew around the law, their
   scale drawn too from what so few residuals say of it; the law is fitted again each time;
4. the check: the largest `n` is left out and predicted, beside the guess that size changes nothing any more.

Of `loss` only ratios matter for exponents; from a workspace it is the FVU on held-out documents, the paper's normalised
MSE. The law describes runs trained alike; it says nothing of features, and nothing outside the sizes measured.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from interp.errors import ConfigError, NonFiniteError
from interp.results import Record, Result

MIN_SIZES, MIN_KS, MIN_FOLD = 3, 2, 2.0
"""A fit needs so many sizes and values of k, in every combination, and sizes that span at least this factor."""
FLOOR_MIN = 8
"""Observations below which the irreducible term is not asked for: fewer leave nothing to judge it by."""
FLOOR_P = 0.01
"""Below this p-value the irreducible term is kept. A false one changes what the exponents mean, so it is strict."""
CONFIDENCE = 0.95
_STARTS = (0.02, 0.3, 0.6, 0.9)
_HUBER = 0.01
"""Log residuals beyond twice their spread, and beyond this, count linearly: one failed run does not bend the law."""
_LOWEST = 14.0
"""The irreducible term is looked for down to `exp(-14)` of the smallest loss: zero to all purposes."""


@dataclass(frozen=True, kw_only=True)
class ScalingRun:
    """One trained dictionary."""

    n: int
    """latents"""
    k: int
    """active latents per token"""
    loss: float
    seed: int = 0
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Law:
    """The coefficients; `zeta` None is a law without an irreducible term."""

    alpha: float
    beta_k: float
    beta_n: float
    gamma: float
    zeta: float | None = None
    eta: float = 0.0

    def exponent(self, k: float) -> float:
        """The power of `n` by which the reducible loss goes at this `k`; below 0 it falls."""
        return self.beta_n + self.gamma * math.log(k)

    def floor(self, k: float) -> float:
        """The irreducible loss at this `k`."""
        return 0.0 if self.zeta is None else math.exp(self.zeta + self.eta * math.log(k))

    def loss(self, n: float, k: float) -> float:
        """The loss that the law gives a dictionary."""
        return math.exp(self.alpha + self.beta_k * math.log(k) + self.exponent(k) * math.log(n)) + self.floor(k)


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """A number with its 95 % interval, at a `k` where it belongs to one."""

    value: float
    low: float
    high: float
    k: int | None = None

    @property
    def is_zero(self) -> bool:
        """Whether 0 lies inside."""
        return self.low <= 0 <= self.high


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A run of the largest size, predicted from the smaller ones. Errors are shares of the loss that came."""

    n: int
    k: int
    loss: float
    predicted: float
    error: float
    unchanged: float
    """the error of saying that it is the loss of the largest size that was kept"""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """The law at one size, with the 95 % band of the fit (not of a new run)."""

    n: float
    k: int
    loss: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ScalingFit(Result):
    """What `fit_scaling` found."""

    runs: list[ScalingRun]
    law: Law
    coefficients: dict[str, Bounded]
    exponents: list[Bounded]
    """of `n`, for every `k`"""
    floor_p: float | None
    """p-value that there is no irreducible term; None with too few runs to ask"""
    floors: list[Bounded]
    """the irreducible loss for every `k`, from the law that has the term, whether it was told from zero or not"""
    exponents_above_floor: list[Bounded]
    """of `n`, for every `k`, from that law: what they would be if the term is there"""
    scatter: float
    """typical distance of a run from the law, as a share of its loss"""
    left_out: list[Prediction]
    """empty where the smaller sizes cannot carry a fit"""
    curves: list[CurvePoint] = field(default_factory=list)

    @property
    def has_floor(self) -> bool:
        """Whether an irreducible term was told from zero, and is part of `law`."""
        return self.law.zeta is not None

    @property
    def findings(self) -> list[str]:
        """What was found, in sentences."""
        return [_exponents_said(self), _floor_said(self), _check_said(self)]

    def __str__(self) -> str:
        return "\n".join(self.findings)

    def to_records(self) -> list[Record]:
        """Return one row per run: `name, n, k, seed, loss, law` (the loss that the law gives)."""
        return [
            {"name": r.name, "n": r.n, "k": r.k, "seed": r.seed, "loss": r.loss, "law": float(self.law.loss(r.n, r.k))}
            for r in self.runs
        ]


def fit_scaling(
    runs: Sequence[ScalingRun], *, n_bootstrap: int = 200, generator: np.random.Generator | None = None
) -> ScalingFit:
    """Fit the law to trained runs. `generator` draws the bootstrap (default: seed 0).

    Raises `ConfigError` that says what is missing (fewer than three sizes or two values of k, combinations left out,
    sizes too close together), `NonFiniteError` for a loss that is no positive number.
    """
    sizes, ks = _check(runs)
    generator = generator or np.random.default_rng(0)
    data = _Observations.of(runs)
    plain = _fit(data, floor=False)
    whole = _fit(data, floor=True) if len(data.y) >= FLOOR_MIN else None
    p = None if whole is None else _floor_p(plain, whole)
    best = whole if whole is not None and p is not None and p < FLOOR_P else plain
    laws = _bootstrap(best, n_bootstrap, generator)
    floors: list[Bounded] = []
    above: list[Bounded] = []
    if whole is not None:
        with_floor = laws if best is whole else _bootstrap(whole, n_bootstrap, generator)
        floors = [_bounded(lambda law, k=k: law.floor(k), whole.law, with_floor, k) for k in ks]
        above = [_bounded(lambda law, k=k: law.exponent(k), whole.law, with_floor, k) for k in ks]
    law = best.law
    names = ["alpha", "beta_k", "beta_n", "gamma", *(["zeta", "eta"] if best is whole else [])]
    return ScalingFit(
        runs=list(runs),
        law=law,
        coefficients={name: _bounded(lambda each, name=name: getattr(each, name), law, laws) for name in names},
        exponents=[_bounded(lambda each, k=k: each.exponent(k), law, laws, k) for k in ks],
        floor_p=p,
        floors=floors,
        exponents_above_floor=above,
        scatter=float(np.expm1(best.sigma)),
        left_out=_leave_out(runs, sizes),
        curves=_curves(law, laws, sizes, ks),
    )


@dataclass(frozen=True)
class _Observations:
    """Log size and log k, each less its mean (`origin`), and the mean log loss of every combination."""

    x: np.ndarray
    k: np.ndarray
    y: np.ndarray
    origin: tuple[float, float]

    @classmethod
    def of(cls, runs: Sequence[ScalingRun]) -> "_Observations":
        cells = sorted({(run.n, run.k) for run in runs})
        y = [np.mean([math.log(run.loss) for run in runs if (run.n, run.k) == cell]) for cell in cells]
        x, k = np.log(np.array(cells, np.float64)).T
        return cls(x - x.mean(), k - k.mean(), np.array(y), (float(x.mean()), float(k.mean())))

    @property
    def design(self) -> np.ndarray:
        """`[n, 4]` columns of alpha, beta_k, beta_n, gamma."""
        return np.stack([np.ones_like(self.x), self.k, self.x, self.x * self.k], axis=1)


@dataclass(frozen=True)
class _Fitted:
    """Centred coefficients and what they leave."""

    data: _Observations
    theta: np.ndarray
    cost: float
    """Huber cost, in squared log units"""

    @property
    def df(self) -> int:
        return len(self.data.y) - len(self.theta)

    @property
    def residuals(self) -> np.ndarray:
        return self.data.y - _predict(self.theta, self.data)[0]

    @property
    def sigma(self) -> float:
        """Spread of the observations around the law, in log units."""
        return math.sqrt(float(np.square(self.residuals).sum()) / max(self.df, 1))

    @property
    def law(self) -> Law:
        return _law(self.theta, self.data.origin)


def _law(theta: np.ndarray, origin: tuple[float, float]) -> Law:
    """Coefficients of `log n` and `log k` themselves."""
    (mx, mk), (a, bk, bn, g) = origin, map(float, theta[:4])
    z, e = map(float, theta[4:]) if len(theta) > 4 else (None, 0.0)
    return Law(
        alpha=a - bk * mk - bn * mx + g * mx * mk,
        beta_k=bk - g * mx,
        beta_n=bn - g * mk,
        gamma=g,
        zeta=None if z is None else z - e * mk,
        eta=e,
    )


def _predict(theta: np.ndarray, data: _Observations) -> tuple[np.ndarray, np.ndarray]:
    """Log losses `[n]` and their derivatives `[n, len(theta)]`."""
    design = data.design
    first = design @ theta[:4]
    if len(theta) == 4:
        return first, design
    second = theta[4] + theta[5] * data.k
    total = np.logaddexp(first, second)
    share = np.exp(first - total)[:, None]
    floor = np.stack([np.ones_like(data.k), data.k], axis=1)
    return total, np.concatenate([share * design, (1 - share) * floor], axis=1)


def _fit(data: _Observations, *, floor: bool, starts: Sequence[np.ndarray] = ()) -> _Fitted:
    """With an irreducible term the best of several starts (those given, else a few shares of the smallest loss)."""
    from scipy.optimize import least_squares

    linear = np.linalg.lstsq(data.design, data.y, rcond=None)[0]
    spread = 1.4826 * float(np.median(np.abs(data.y - data.design @ linear)))
    delta = max(_HUBER, 2 * spread * math.sqrt(len(data.y) / max(len(data.y) - 4, 1)))
    if not floor:
        return _fit_linear(data, linear, delta)
    low, high = np.full(6, -8.0), np.full(6, 8.0)
    low[0], high[0] = -np.inf, np.inf
    low[4], high[4] = data.y.min() - _LOWEST, data.y.max()
    best: _Fitted | None = None
    slopes: Any = lambda theta: _predict(theta, data)[1]  # noqa: E731 (scipy's own annotation knows names alone)
    for start in starts or [_start(data, share) for share in _STARTS]:
        found = least_squares(
            lambda theta: _predict(theta, data)[0] - data.y,
            np.clip(start, low + 1e-9, high - 1e-9),
            jac=slopes,
            bounds=(low, high),
            loss="huber",
            f_scale=delta,
            max_nfev=40 if starts else 100,
        )
        if best is None or found.cost < best.cost:
            best = _Fitted(data, found.x, float(found.cost))
    assert best is not None
    return best


def _fit_linear(data: _Observations, theta: np.ndarray, delta: float) -> _Fitted:
    """The plain law is linear in its coefficients: Huber's estimate by reweighted least squares."""
    for _ in range(50):
        size = np.abs(data.y - data.design @ theta)
        weight = np.sqrt(np.minimum(1.0, delta / np.maximum(size, 1e-12)))
        before, theta = theta, np.linalg.lstsq(data.design * weight[:, None], data.y * weight, rcond=None)[0]
        if np.abs(theta - before).max() < 1e-10:
            break
    size = np.abs(data.y - data.design @ theta)
    return _Fitted(data, theta, float(np.where(size < delta, size**2 / 2, delta * (size - delta / 2)).sum()))


def _start(data: _Observations, share: float) -> np.ndarray:
    """The plain law of what is left above a flat irreducible term of `share` of the smallest loss."""
    floor = share * math.exp(data.y.min())
    theta = np.linalg.lstsq(data.design, np.log(np.exp(data.y) - floor), rcond=None)[0]
    return np.array([*theta, math.log(floor), 0.0])


def _floor_p(plain: _Fitted, whole: _Fitted) -> float:
    """F test of the two extra coefficients (conservative: the term cannot be negative)."""
    from scipy.stats import f

    gain = max(plain.cost - whole.cost, 0.0) / 2
    rest = whole.cost / whole.df
    return float(f.sf(gain / max(rest, 1e-18), 2, whole.df))


def _bootstrap(fitted: _Fitted, n: int, generator: np.random.Generator) -> list[Law]:
    """`n` laws fitted to redrawn residuals."""
    data, df = fitted.data, max(fitted.df, 1)
    expected = _predict(fitted.theta, data)[0]
    pool = fitted.residuals - fitted.residuals.mean()
    pool *= fitted.sigma / max(float(np.sqrt(np.mean(pool**2))), 1e-12)
    floor, laws = len(fitted.theta) > 4, []
    for _ in range(n):
        scale = math.sqrt(df / max(generator.chisquare(df), 1e-3))
        y = expected + scale * generator.choice(pool, len(pool))
        again = _Observations(data.x, data.k, y, data.origin)
        laws.append(_fit(again, floor=floor, starts=[fitted.theta]).law)
    return laws


def _bounded(measure: Callable[[Law], float], law: Law, laws: Sequence[Law], k: int | None = None) -> Bounded:
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile([measure(each) for each in laws], [tail, 100 - tail])
    return Bounded(value=measure(law), low=float(low), high=float(high), k=k)


def _curves(law: Law, laws: Sequence[Law], sizes: list[int], ks: list[int], steps: int = 25) -> list[CurvePoint]:
    """The law over the sizes measured."""
    points = []
    for k in ks:
        for n in np.geomspace(sizes[0], sizes[-1], steps):
            each = _bounded(lambda one, n=n, k=k: one.loss(n, k), law, laws)
            points.append(CurvePoint(n=float(n), k=k, loss=each.value, low=each.low, high=each.high))
    return points


def _leave_out(runs: Sequence[ScalingRun], sizes: list[int]) -> list[Prediction]:
    """The largest size predicted from the others; empty where they do not determine a law."""
    largest, before = sizes[-1], sizes[-2]
    kept = _Observations.of([run for run in runs if run.n < largest])
    if np.linalg.matrix_rank(kept.design) < 4:
        return []
    best = _fit(kept, floor=False)
    if len(kept.y) >= FLOOR_MIN and len(sizes) > MIN_SIZES:
        whole = _fit(kept, floor=True)
        best = whole if _floor_p(best, whole) < FLOOR_P else best

    def mean(n: int, k: int) -> float | None:
        logs = [math.log(run.loss) for run in runs if (run.n, run.k) == (n, k)]
        return math.exp(float(np.mean(logs))) if logs else None

    found = []
    for k in sorted({run.k for run in runs if run.n == largest}):
        loss, last, predicted = mean(largest, k), mean(before, k), best.law.loss(largest, k)
        if loss is not None and last is not None:
            errors = {"error": predicted / loss - 1, "unchanged": last / loss - 1}
            found.append(Prediction(n=largest, k=k, loss=loss, predicted=predicted, **errors))
    return found


def _check(runs: Sequence[ScalingRun]) -> tuple[list[int], list[int]]:
    """The sizes and values of k, both rising; raises where no law can be fitted to them."""
    bad = next((run for run in runs if not (math.isfinite(run.loss) and run.loss > 0)), None)
    if bad:
        raise NonFiniteError(f"the loss of {bad.name or f'n {bad.n}, k {bad.k}'} is {bad.loss}; leave that run out")
    sizes, ks = sorted({run.n for run in runs}), sorted({run.k for run in runs})
    listed = f"{len(runs)} runs of n {_list(sizes)} and k {_list(ks)}"
    if len(sizes) < MIN_SIZES or len(ks) < MIN_KS:
        raise ConfigError(
            f"a scaling fit needs at least {MIN_SIZES} sizes and {MIN_KS} values of k, got {listed}; "
            f"train {_missing(sizes, ks)} with the same settings"
        )
    if sizes[-1] < MIN_FOLD * sizes[0]:
        raise ConfigError(
            f"sizes must span a factor of at least {MIN_FOLD:g}, got {listed}; train a dictionary of at least "
            f"{math.ceil(MIN_FOLD * sizes[0]):,} latents"
        )
    absent = [(n, k) for n in sizes for k in ks if (n, k) not in {(run.n, run.k) for run in runs}]
    n_cells = len(sizes) * len(ks) - len(absent)
    if n_cells < MIN_SIZES * MIN_KS or np.linalg.matrix_rank(_Observations.of(runs).design) < 4:
        raise ConfigError(
            f"a scaling fit needs at least {MIN_SIZES * MIN_KS} combinations of n and k, got {n_cells}; "
            f"missing are {', '.join(f'n {n:,} with k {k}' for n, k in absent[:6])}"
        )
    return sizes, ks


def _missing(sizes: list[int], ks: list[int]) -> str:
    wanted = []
    if len(sizes) < MIN_SIZES:
        top = sizes[-1] if sizes else 256
        more = [top * 2 ** (i + 1) for i in range(MIN_SIZES - len(sizes))]
        wanted.append(f"n {_list(more)}" + (" too" if sizes else ""))
    if len(ks) < MIN_KS:
        top = ks[-1] if ks else 8
        wanted.append("k " + _list([top * 2 ** (i + 1) for i in range(MIN_KS - len(ks))]) + (" too" if ks else ""))
    return " and ".join(wanted)


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(f"{n:,}" for n in numbers) or "none"


def _exponents_said(fit: ScalingFit) -> str:
    what = "the loss above the irreducible part" if fit.has_floor else "the loss"
    each = ", ".join(f"{e.value:.3f} ({e.low:.3f} to {e.high:.3f}) at k {e.k}" for e in fit.exponents)
    words = f"{what[0].upper()}{what[1:]} goes with the number of latents to the power {each}"
    flat = [str(e.k) for e in fit.exponents if e.is_zero]
    return words + (f"; at k {', '.join(flat)} that cannot be told from no change." if flat else ".")


def _floor_said(fit: ScalingFit) -> str:
    if fit.floor_p is None:
        return f"With fewer than {FLOOR_MIN} combinations of n and k an irreducible term cannot be asked for."
    sizes = ", ".join(f"{f.value:.3g} ({f.low:.3g} to {f.high:.3g}) at k {f.k}" for f in fit.floors)
    if fit.has_floor:
        return f"What no size removes is {sizes} (p {fit.floor_p:.2g} that there is nothing)."
    most = ", ".join(f"{f.high:.3g} at k {f.k}" for f in fit.floors)
    above = ", ".join(f"{e.value:.3f} ({e.low:.3f} to {e.high:.3f}) at k {e.k}" for e in fit.exponents_above_floor)
    return (
        f"An irreducible term cannot be told from zero (p {fit.floor_p:.2g}); it may be as large as {most}. "
        f"If there is one, the loss above it goes with the power {above}."
    )


def _check_said(fit: ScalingFit) -> str:
    if not fit.left_out:
        return "The smaller sizes alone determine no law, so the largest could not be left out and predicted."
    worst = max(fit.left_out, key=lambda each: abs(each.error))
    flat = max(abs(each.unchanged) for each in fit.left_out)
    return (
        f"From the smaller sizes the loss at n {worst.n:,} is predicted with an error of at most "
        f"{abs(worst.error):.1%} (k {worst.k}); to say that it stays as at the size before is {flat:.1%} off."
    )
