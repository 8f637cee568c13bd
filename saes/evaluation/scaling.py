"""The scaling law of sparse dictionaries: how the loss falls with their size `n` and their sparsity `k`.

    L(n, k) = exp(alpha + beta_k log k + beta_n log n + gamma log k log n) + exp(zeta + eta log k)

(Gao et al. 2024, arXiv 2406.04093, section 3.1.3.) The first term falls with size, the second is irreducible. The
exponent of `n` is `beta_n + gamma log k`: one for every `k`.

1. runs of one `(n, k)` with other seeds are averaged: one combination is one observation;
2. both laws, with and without the second term, are fitted to log losses (Huber, several starts); the term is kept when
   an F test tells it from zero (`FLOOR_P`); otherwise exponents are those of the whole loss, and those above the term
   are given too;
3. intervals: the law is fitted again to losses with redrawn residuals (`saes.evaluation._scaling_law`);
4. the check: the largest `n` is left out and predicted; the baseline is no change from the next smaller size.

Of `loss` only ratios matter for exponents; from a workspace it is the FVU on held-out documents, the paper's normalised
MSE. The law describes runs trained alike; it says nothing of features, and nothing outside the sizes measured. A law
through runs that also differ in tokens, learning rate or data would fit those differences, so `runs_of` refuses them.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np

from interp.artifacts import Artefact, DocumentField, address_of, as_json, hash_json
from interp.errors import ConfigError, NonFiniteError
from interp.results import Record
from interp.statistics import Interval, percentile_interval
from interp.view import Facts, View
from interp.workspace import Workspace
from saes.evaluation._scaling_law import LOWEST, Bounds, Fit, fit_law, geometric_mean, refits
from saes.kinds.config import KConfig
from saes.training.stored import StoredSAE, TrainedSettings

MIN_SIZES, MIN_KS, MIN_FOLD = 3, 2, 2.0
"""A fit needs this many sizes and values of k, in every combination, and sizes that span at least this factor."""
FLOOR_MIN = 8
"""Fewest observations with which an irreducible term is estimated."""
FLOOR_P = 0.01
"""Below this p-value the irreducible term is kept. A false one changes what the exponents mean, so it is strict."""
_STARTS = (0.02, 0.3, 0.6, 0.9)
_HUBER = 0.01
"""Log residuals beyond twice their spread, and beyond this, count linearly: one failed run does not bend the law."""

VARIED = ("d_sae", "k", "seed")
"""settings in which the runs of a fit may differ"""
LEAVE_OUT = ("checkpoint_every", "log_every")
"""settings that change no weight"""


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
        """Exponent of `n` in the reducible loss at this `k`; below 0 the loss falls."""
        return self.beta_n + self.gamma * math.log(k)

    def floor(self, k: float) -> float:
        """The irreducible loss at this `k`."""
        return 0.0 if self.zeta is None else math.exp(self.zeta + self.eta * math.log(k))

    def loss(self, n: float, k: float) -> float:
        """Loss that the law predicts for a dictionary."""
        return math.exp(self.alpha + self.beta_k * math.log(k) + self.exponent(k) * math.log(n)) + self.floor(k)


@dataclass(frozen=True, kw_only=True)
class DictionaryPrediction:
    """A run of the largest size at one k, predicted from the smaller sizes. Errors are fractions of its loss."""

    loss: float
    predicted: float
    error: float
    unchanged: float
    """error of the baseline, which predicts the loss of the next smaller size"""
    n: int
    k: int


@dataclass(frozen=True, kw_only=True)
class LawPoint:
    """The law at one size, with the 95 % band of the fit (not of a new run)."""

    n: float
    k: int
    loss: Interval[float]


@dataclass(frozen=True, kw_only=True)
class SizeLawSettings:
    """Settings that the dictionaries of a law share, and those of its fit; None for dictionaries from elsewhere."""

    recording: str | None = None
    hook_point: str | None = None
    kind: str | None = None
    tokens: int | None = None
    """Tokens that each was trained on."""
    n_bootstrap: int


@dataclass(frozen=True, kw_only=True)
class SizeLaw(Artefact, kind="size_law", made_by="compare sizes"):
    """Result of `fit_scaling`."""

    settings: SizeLawSettings
    runs: Annotated[tuple[ScalingRun, ...], DocumentField("runs.json")]
    law: Law
    coefficients: dict[str, Interval[float]]
    exponents: dict[int, Interval[float]]
    """of `n`, by `k`"""
    floor_p: float | None
    """p-value of the null of no irreducible term; None with too few runs"""
    floors: dict[int, Interval[float]]
    """irreducible loss by `k`, from the law with that term, whether or not it differs from zero"""
    exponents_above_floor: dict[int, Interval[float]]
    """exponents of `n` by `k` from that law, valid if the term exists"""
    scatter: float
    """typical distance of a run from the law, as a share of its loss"""
    left_out: tuple[DictionaryPrediction, ...]
    """empty where the smaller sizes cannot determine a fit"""
    curves: Annotated[tuple[LawPoint, ...], DocumentField("curves.json")]

    @property
    def has_floor(self) -> bool:
        """True where an irreducible term differs from zero, and is part of `law`."""
        return self.law.zeta is not None

    @property
    def href(self) -> str:
        """Address of the page of the first dictionary, which shows the law."""
        return address_of(f"saes/{self.runs[0].name}") if self.runs else super().href

    def view(self) -> View:
        shared = self.settings
        trained = "" if shared.tokens is None else f", {shared.tokens:,} tokens each"
        kind = f"{shared.kind} " if shared.kind else ""
        yield f"The reconstruction error of {len(self.runs)} {kind}dictionaries as a law of their size{trained}"
        facts = [(f"exponent k{k}", f"{interval.estimate:.3g}") for k, interval in self.exponents.items()]
        errors = [abs(prediction.error) for prediction in self.left_out]
        yield Facts(*([*facts, ("largest predicted within", f"{max(errors):.3g}")] if errors else facts))
        yield _exponents_said(self)
        yield _floor_said(self)
        yield _check_said(self)

    def __str__(self) -> str:
        return "\n".join(self.details())

    def to_records(self) -> list[Record]:
        """Return one row per run: `name, n, k, seed, loss, law` (the loss that the law gives)."""
        return [
            {"name": r.name, "n": r.n, "k": r.k, "seed": r.seed, "loss": r.loss, "law": float(self.law.loss(r.n, r.k))}
            for r in self.runs
        ]


def fit_scaling(
    runs: Sequence[ScalingRun],
    *,
    n_bootstrap: int = 200,
    generator: np.random.Generator | None = None,
    recording: str | None = None,
    hook_point: str | None = None,
    kind: str | None = None,
    tokens: int | None = None,
) -> SizeLaw:
    """Fit the law to trained runs. `generator` draws the bootstrap (default: seed 0).

    `recording`, `hook_point`, `kind` and `tokens` are what the runs share, for the record.

    Raises `ConfigError` that says what is missing (fewer than three sizes or two values of k, combinations left out,
    sizes too close together), `NonFiniteError` for a loss that is not a positive number.
    """
    sizes, ks = _check(runs)
    generator = generator or np.random.default_rng(0)
    data = _Observations.of(runs)
    plain = _fit(data, floor=False)
    whole = _fit(data, floor=True) if len(data.y) >= FLOOR_MIN else None
    p = None if whole is None else _floor_p(plain, whole)
    best = whole if whole is not None and p is not None and p < FLOOR_P else plain
    laws = _bootstrap(best, data, n_bootstrap, generator)
    floors: dict[int, Interval[float]] = {}
    above: dict[int, Interval[float]] = {}
    if whole is not None:
        with_floor = laws if best is whole else _bootstrap(whole, data, n_bootstrap, generator)
        law = _law(whole.theta, data.origin)
        floors = {k: _interval(lambda sample, k=k: sample.floor(k), law, with_floor) for k in ks}
        above = {k: _interval(lambda sample, k=k: sample.exponent(k), law, with_floor) for k in ks}
    law = _law(best.theta, data.origin)
    names = ["alpha", "beta_k", "beta_n", "gamma", *(["zeta", "eta"] if best is whole else [])]
    return SizeLaw(
        settings=SizeLawSettings(
            recording=recording, hook_point=hook_point, kind=kind, tokens=tokens, n_bootstrap=n_bootstrap
        ),
        runs=tuple(runs),
        law=law,
        coefficients={name: _interval(lambda sample, name=name: getattr(sample, name), law, laws) for name in names},
        exponents={k: _interval(lambda sample, k=k: sample.exponent(k), law, laws) for k in ks},
        floor_p=p,
        floors=floors,
        exponents_above_floor=above,
        scatter=float(np.expm1(best.sigma)),
        left_out=tuple(_leave_out(runs, sizes)),
        curves=tuple(_curves(law, laws, sizes, ks)),
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
        y = [math.log(geometric_mean([run.loss for run in runs if (run.n, run.k) == cell])) for cell in cells]
        x, k = np.log(np.array(cells, np.float64)).T
        return cls(x - x.mean(), k - k.mean(), np.array(y), (float(x.mean()), float(k.mean())))

    @property
    def design(self) -> np.ndarray:
        """`[n, 4]` columns of alpha, beta_k, beta_n, gamma."""
        return np.stack([np.ones_like(self.x), self.k, self.x, self.x * self.k], axis=1)

    @property
    def floor(self) -> np.ndarray:
        """`[n, 2]` columns of zeta, eta."""
        return np.stack([np.ones_like(self.k), self.k], axis=1)


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


def _fit(data: _Observations, *, floor: bool) -> Fit:
    """The law, with an irreducible term the best from several starts."""
    linear = np.linalg.lstsq(data.design, data.y, rcond=None)[0]
    spread = 1.4826 * float(np.median(np.abs(data.y - data.design @ linear)))
    huber = max(_HUBER, 2 * spread * math.sqrt(len(data.y) / max(len(data.y) - 4, 1)))
    if not floor:
        return fit_law([data.design], data.y, [linear], huber=huber)
    starts = [_start(data, share) for share in _STARTS]
    return fit_law([data.design, data.floor], data.y, starts, huber=huber, bounds=_bounds(data.y), max_nfev=100)


def _bounds(y: np.ndarray) -> Bounds:
    low, high = np.full(6, -8.0), np.full(6, 8.0)
    low[0], high[0] = -np.inf, np.inf
    low[4], high[4] = y.min() - LOWEST, y.max()
    return low, high


def _start(data: _Observations, share: float) -> np.ndarray:
    """Return start values: the power law fitted to the loss minus `share` of the smallest loss."""
    floor = share * math.exp(data.y.min())
    theta = np.linalg.lstsq(data.design, np.log(np.exp(data.y) - floor), rcond=None)[0]
    return np.array([*theta, math.log(floor), 0.0])


def _floor_p(plain: Fit, whole: Fit) -> float:
    """F test of the two extra coefficients (conservative: the term cannot be negative)."""
    from scipy.stats import f

    df = len(whole.y) - len(whole.theta)
    gain = max(plain.cost - whole.cost, 0.0) / 2
    return float(f.sf(gain / max(whole.cost / df, 1e-18), 2, df))


def _bootstrap(fitted: Fit, data: _Observations, n: int, generator: np.random.Generator) -> list[Law]:
    """`n` laws fitted to losses with resampled residuals, independent for each combination."""
    bounds = _bounds if len(fitted.theta) > 4 else None
    thetas = refits(fitted, n, generator, bounds=bounds, max_nfev=40)
    return [_law(theta, data.origin) for theta in thetas]


def _interval(measure: Callable[[Law], float], law: Law, laws: Sequence[Law]) -> Interval[float]:
    return percentile_interval(measure(law), np.array([measure(sample) for sample in laws]))


def _curves(law: Law, laws: Sequence[Law], sizes: list[int], ks: list[int], steps: int = 25) -> list[LawPoint]:
    """The law over the sizes measured."""
    return [
        LawPoint(n=n, k=k, loss=_interval(lambda sample, n=n, k=k: sample.loss(n, k), law, laws))
        for k in ks
        for n in np.geomspace(sizes[0], sizes[-1], steps).tolist()
    ]


def _leave_out(runs: Sequence[ScalingRun], sizes: list[int]) -> list[DictionaryPrediction]:
    """The largest size predicted from the others; empty where they do not determine a law."""
    largest, before = sizes[-1], sizes[-2]
    smaller = _Observations.of([run for run in runs if run.n < largest])
    if np.linalg.matrix_rank(smaller.design) < 4:
        return []
    best = _fit(smaller, floor=False)
    if len(smaller.y) >= FLOOR_MIN and len(sizes) > MIN_SIZES:
        whole = _fit(smaller, floor=True)
        best = whole if _floor_p(best, whole) < FLOOR_P else best
    law = _law(best.theta, smaller.origin)

    def losses(n: int, k: int) -> list[float]:
        return [run.loss for run in runs if (run.n, run.k) == (n, k)]

    return [
        DictionaryPrediction(
            loss=(loss := geometric_mean(last)),
            predicted=(predicted := law.loss(largest, k)),
            error=predicted / loss - 1,
            unchanged=geometric_mean(losses(before, k)) / loss - 1,
            n=largest,
            k=k,
        )
        for k in sorted({run.k for run in runs if run.n == largest})
        if (last := losses(largest, k)) and losses(before, k)
    ]


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


def _by_k(intervals: Mapping[int, Interval[float]], spec: str) -> str:
    return ", ".join(f"{interval:{spec}} at k {k}" for k, interval in intervals.items())


def _exponents_said(fit: SizeLaw) -> str:
    what = "the loss above the irreducible part" if fit.has_floor else "the loss"
    words = f"{what[0].upper()}{what[1:]} goes with the number of latents to the power {_by_k(fit.exponents, '.3f')}"
    flat = [str(k) for k, interval in fit.exponents.items() if interval.contains(0)]
    return words + (f"; at k {', '.join(flat)} that cannot be told from no change." if flat else ".")


def _floor_said(fit: SizeLaw) -> str:
    if fit.floor_p is None:
        return f"With fewer than {FLOOR_MIN} combinations of n and k an irreducible term cannot be estimated."
    if fit.has_floor:
        return f"The irreducible term is {_by_k(fit.floors, '.3g')} (p {fit.floor_p:.2g} that there is none)."
    most = ", ".join(f"{interval.high:.3g} at k {k}" for k, interval in fit.floors.items())
    return (
        f"An irreducible term cannot be told from zero (p {fit.floor_p:.2g}); it may be as large as {most}. "
        f"If there is one, the loss above it goes with the power {_by_k(fit.exponents_above_floor, '.3f')}."
    )


def _check_said(fit: SizeLaw) -> str:
    if not fit.left_out:
        return "The smaller sizes alone determine no law, so the largest could not be left out and predicted."
    worst = max(fit.left_out, key=lambda prediction: abs(prediction.error))
    flat = max(abs(prediction.unchanged) for prediction in fit.left_out)
    return (
        f"From the smaller sizes the loss at n {worst.n:,} is predicted with an error of at most "
        f"{abs(worst.error):.1%} (k {worst.k}); assuming no change from the size before is {flat:.1%} off."
    )


def runs_of(
    workspace: Workspace,
    names: Sequence[str] = (),
    *,
    recording: str | None = None,
    hook_point: str | None = None,
    kind: str = "topk",
    tokens: int | None = None,
) -> list[ScalingRun]:
    """The runs called `names`, or else every finished dictionary of a kind (and recording, hook point, token budget).

    `workspace` holds the dictionaries; `tokens` is the number that each was trained on.

    The loss is the FVU on held-out documents. Raises `ConfigError` when there are none, when they were not trained
    alike, or when a kind has no `k`.
    """
    stored = [workspace.open(StoredSAE, name) for name in names] or workspace.values(StoredSAE)
    runs = [run for sae in stored if (run := _trained(sae)) is not None]
    if names and len(runs) < len(stored):
        unfit = [sae.name for sae in stored if _trained(sae) is None]
        raise ConfigError(
            f"{', '.join(unfit)} cannot be part of a scaling fit: it needs a size, a k and a held-out FVU; imported "
            "dictionaries and kinds with an L1 penalty have none"
        )
    if not names:
        filters = {"kind": kind, "recording": recording, "hook_point": hook_point, "tokens": tokens}
        runs = [run for run in runs if all(value in (None, _asked(run)[key]) for key, value in filters.items())]
    if not runs:
        raise ConfigError(
            f"no finished {kind} dictionaries to fit; train a sweep: `workbench train RECORDING --kind {kind} "
            "--d-sae 512 1024 2048 --k 16 32`"
        )
    _check_alike(runs)
    return [run.run for run in sorted(runs, key=lambda run: (run.run.n, run.run.k, run.run.name))]


class _Trained(NamedTuple):
    """A dictionary that a law can be fitted to."""

    run: ScalingRun
    settings: TrainedSettings


def _trained(stored: StoredSAE) -> _Trained | None:
    """Return the run of a dictionary; None for an imported one, or of a kind without `k`."""
    settings, heldout = stored.settings, stored.heldout
    if not isinstance(settings, TrainedSettings) or not isinstance(settings.sae, KConfig) or heldout is None:
        return None
    sae, seed = settings.sae, stored.about.seed or 0
    return _Trained(ScalingRun(n=sae.d_sae, k=sae.k, loss=heldout.fvu, seed=seed, name=stored.name), settings)


def _asked(run: _Trained) -> dict[str, object]:
    """Return the properties by which runs can be chosen."""
    of = run.settings
    return {"kind": of.sae.kind, "recording": of.recording, "hook_point": of.hook_point, "tokens": of.train.tokens}


def _check_alike(runs: Sequence[_Trained]) -> None:
    groups: dict[str, list[_Trained]] = defaultdict(list)
    for run in runs:
        groups[hash_json(_recipe(run))].append(run)
    if len(groups) < 2:
        return
    largest, second = sorted(groups.values(), key=len, reverse=True)[:2]
    a, b = _recipe(largest[0]), _recipe(second[0])
    what = ", ".join(f"{key} ({a.get(key)} and {b.get(key)})" for key in a | b if a.get(key) != b.get(key))
    raise ConfigError(
        f"{len(largest)} runs like {largest[0].run.name} and {len(second)} like {second[0].run.name} were not trained "
        f"alike: they differ in {what}; choose one group by name, --recording, --hook-point or --tokens"
    )


def _recipe(run: _Trained) -> Record:
    """Return the settings that runs of one law share."""
    settings = as_json(run.settings)
    plain = {**settings.pop("sae"), **settings.pop("train"), **settings}
    return {key: value for key, value in plain.items() if key not in (*VARIED, *LEAVE_OUT)}
