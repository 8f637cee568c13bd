"""Language models of several sizes trained on the same text, and the scaling law of their loss.

**Models** (`train_language_models`). Every model reads the same bytes once, in the same order. It has two layers, with
MLPs four times as wide as the residual stream. AdamW has a constant learning rate, inversely proportional to the square
root of the width. With a constant rate every checkpoint is equivalent to a run of its length. Losses are on held-out
documents. Positions are rotary. With learned positions a model stays at the bigram loss until its heads attend to the
previous byte, earlier for wider models, and no power law holds across that change.

**Law** (`fit_language_scaling`). The loss as a function of parameters `N` and tokens `D`:

    L(N, D) = E + A / N^alpha + B / D^beta

(Hoffmann et al. 2022, arXiv 2203.15556, equation 10 and section 3.3: log losses, Huber loss, several starts.) `E` is
the irreducible loss, `A / N^alpha` the cost of finite size, `B / D^beta` the cost of finite text.

1. A test that the loss falls: permutations of the sizes over runs, and of the checkpoints within runs. Where either
   could be chance, no law is fitted, and the result says so instead of giving an exponent. (Losses that wander from
   checkpoint to checkpoint pass the second test too often, p of 0.05 or less in 0.15 of draws; the first is exact.)
2. The law is fitted to the checkpoints of all runs together.
3. Intervals: the law is refitted to losses with resampled residuals, of whole runs, as the errors of one run's
   checkpoints are correlated (`interp.scaling_law`).
4. Validation: the largest size is left out and predicted. The baseline predicts that size has no further effect. A law
   worse than the baseline is reported as one that does not hold (`predicts`). Where some models have passed a phase
   change and others have not, the curves do not follow a power law, however narrow the interval.

Checkpoints of one run are treated as runs of that length, which is valid only at a constant learning rate. The law
describes models trained alike, within the sizes measured: at these sizes exponents depend on the recipe.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from interp.artifacts import Artefact, DocumentField, from_json, read_json, save_json
from interp.errors import ConfigError, NonFiniteError
from interp.nulls import NUMERIC_DRAWS, p_from_null
from interp.options import BASIC
from interp.progress import Progress
from interp.results import Record
from interp.scaling_law import LOWEST, Bounds, Fit, LossPrediction, fit_law, geometric_mean, refits
from interp.seeds import derive_seed
from interp.statistics import Interval, percentile_interval

if TYPE_CHECKING:
    from torch import Tensor

    from interp.text.corpora import Corpus

MIN_SIZES, MIN_CHECKPOINTS, MIN_FOLD = 4, 4, 4.0
"""Smallest numbers of sizes and checkpoints for a fit, and the smallest factor that each must span."""
P_FOUND = 0.01
"""Significance level of the tests that the loss falls."""
_HUBER = 1e-2


@dataclass(frozen=True, kw_only=True)
class ScalingRecipe:
    """Settings of small language models of several sizes, trained on the same bytes."""

    widths: tuple[int, ...] = (16, 24, 32, 48, 64, 96)
    """Widths of the residual stream, multiples of 8; at least four."""
    n_layers: int = 2
    """Layers of every model."""
    context_length: int = 64
    """Bytes per context."""
    batch_size: int = 64
    """Contexts per step."""
    tokens: Annotated[int, BASIC] = 2_000_000
    """Bytes that each model is trained on, in one pass."""
    n_checkpoints: int = 6
    """Measurements of the loss, from an eighth of the tokens to all of them, evenly spaced in their logarithm."""
    heldout_contexts: int = 256
    """Held-out contexts that measure the loss."""
    lr: float = 8e-3
    """Learning rate at width 16."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of the weights and of the order of the text."""

    def __post_init__(self) -> None:
        if any(width < 8 or width % 8 for width in self.widths):
            raise ConfigError(f"widths must be multiples of 8, got {self.widths}")
        if self.steps < 8 * self.n_checkpoints:
            raise ConfigError(
                f"{self.tokens:,} tokens are {self.steps} steps, too few for {self.n_checkpoints} checkpoints"
            )

    @property
    def steps(self) -> int:
        """Number of optimiser steps of every model."""
        return self.tokens // (self.batch_size * self.context_length)

    @property
    def checkpoints(self) -> list[int]:
        """Steps at which the loss is measured."""
        first, last = self.steps / 8, self.steps
        exponents = [i / (self.n_checkpoints - 1) for i in range(self.n_checkpoints)]
        return [round(first * (last / first) ** exponent) for exponent in exponents]

    def n_params(self, width: int) -> int:
        """Return the parameters without embeddings and unembedding: `12 n_layers d_model^2` (Kaplan et al. 2020)."""
        return 12 * self.n_layers * width**2


@dataclass(frozen=True, kw_only=True)
class LanguageRun:
    """Losses of one trained model at its checkpoints."""

    n_params: int
    """without embeddings and unembedding (Kaplan et al. 2020, section 2.1)"""
    seed: int
    tokens: tuple[int, ...]
    """number read at each checkpoint, rising"""
    losses: tuple[float, ...]
    """nats per token on held-out documents, at each checkpoint"""
    name: str = ""

    def __post_init__(self) -> None:
        if not self.tokens or len(self.losses) != len(self.tokens):
            raise ConfigError(f"expected one loss for each checkpoint, got {len(self.losses)} for {self.tokens}")


@dataclass(frozen=True, kw_only=True)
class LanguageLaw:
    """Coefficients of the law."""

    e: float
    a: float
    b: float
    alpha: float
    beta: float

    def loss(self, n_params: float, tokens: float) -> float:
        """Return the law's loss, nats per token."""
        return self.e + self.a / n_params**self.alpha + self.b / tokens**self.beta


@dataclass(frozen=True, kw_only=True)
class LawIntervals:
    """Intervals of the coefficients that do not depend on the units of size and text."""

    e: Interval[float]
    alpha: Interval[float]
    beta: Interval[float]


@dataclass(frozen=True, kw_only=True)
class LanguagePrediction(LossPrediction):
    """The largest size, predicted from the smaller ones."""

    n_params: int


@dataclass(frozen=True, kw_only=True)
class ScalingSettings:
    """Settings that determine the losses of the models, and so their law."""

    recipe: ScalingRecipe | None = None
    """None for models that were trained elsewhere."""
    corpus_hash: str = ""
    """Hash of the text that they read; empty for models that were trained elsewhere."""


@dataclass(frozen=True, kw_only=True)
class LanguageScaling(Artefact, kind="language_scaling", title="Scaling of models", made_by="dynamics scaling"):
    """Result of `fit_language_scaling`. `law` and all that follows it are None where the loss does not fall."""

    settings: ScalingSettings
    runs: Annotated[tuple[LanguageRun, ...], DocumentField("runs.json")]
    p_size: float
    """p-value of the null that larger models have no lower loss"""
    p_tokens: float
    """p-value of the null that the loss does not fall over training"""
    law: LanguageLaw | None
    intervals: LawIntervals | None
    scatter: float | None
    """typical deviation of a checkpoint from the law, as a fraction of its loss"""
    left_out: LanguagePrediction | None

    @property
    def predicts(self) -> bool | None:
        """True where the law predicts the largest size better than the baseline; None where it was not tested."""
        return None if self.left_out is None else abs(self.left_out.error) < abs(self.left_out.unchanged)

    @property
    def seeds(self) -> list[int]:
        """Seeds of the runs, each once."""
        return list(dict.fromkeys(run.seed for run in self.runs))

    def details(self) -> list[str]:
        """Return the findings in whole sentences."""
        if self.intervals is None:
            missing = "larger models have no lower loss" if self.p_tokens < P_FOUND else "no model learns from the text"
            return [f"no law: the null that {missing} is not rejected (p {max(self.p_size, self.p_tokens):.3f})"]
        ends = self.intervals
        sentences = [
            f"the loss falls with parameters to the power {ends.alpha:.2f} and with tokens to the power "
            f"{ends.beta:.2f}, towards {ends.e:.2f} nats; a checkpoint lies {self.scatter:.1%} off"
        ]
        if self.left_out is not None:
            sentences.append(
                f"the largest model ({self.left_out.n_params:,} parameters), predicted from the smaller ones: "
                f"{self.left_out.predicted:.3f} nats, measured {self.left_out.loss:.3f} ({self.left_out.error:+.1%}; "
                f"assuming no further effect of size {self.left_out.unchanged:+.1%})"
            )
        if self.predicts is False:
            sentences.append("the law does not hold here: it predicts worse than assuming no further effect of size")
        return sentences

    def headline(self) -> str:
        """Return one line: whether a law fits the loss."""
        sizes = len({run.n_params for run in self.runs})
        fits = "a law fits their loss" if self.law else "no law fits their loss"
        unsure = ", but misses the largest model" if self.predicts is False else ""
        return f"Language models of {sizes} sizes on one text: {fits}{unsure}"

    def facts(self) -> list[tuple[str, str]]:
        """Return the exponents of the law."""
        if self.law is None:
            return []
        exponents = {"parameters": self.law.alpha, "tokens": self.law.beta}
        return [(f"exponent of {name}", f"{value:.3g}") for name, value in exponents.items()]

    def __str__(self) -> str:
        return "\n".join(self.details())

    def to_records(self) -> list[Record]:
        """Return one row per checkpoint: `name, n_params, seed, tokens, loss` (nats)."""
        return [
            {"name": run.name, "n_params": run.n_params, "seed": run.seed, "tokens": tokens, "loss": loss}
            for run in self.runs
            for tokens, loss in zip(run.tokens, run.losses, strict=True)
        ]


def fit_language_scaling(
    runs: Sequence[LanguageRun],
    *,
    settings: ScalingSettings | None = None,
    n_bootstrap: int = 200,
    n_permutations: int = NUMERIC_DRAWS["thorough"],
    seed: int = 0,
) -> LanguageScaling:
    """Fit the law to trained runs, all measured at the same numbers of tokens. `settings` say how they were trained.

    Raises `ConfigError` with the missing condition (fewer than four sizes or checkpoints, too narrow a range, different
    checkpoints in some runs), `NonFiniteError` for a loss that is not a positive number.
    """
    data = _Observations.of(runs)
    _check_draws(runs, n_bootstrap, n_permutations)
    generator = np.random.default_rng(seed)
    p_size = _permuted(data, generator, n_permutations, within_runs=False)
    p_tokens = _permuted(data, generator, n_permutations, within_runs=True)
    answer = LanguageScaling(
        settings=settings or ScalingSettings(),
        runs=tuple(runs),
        p_size=p_size,
        p_tokens=p_tokens,
        law=None,
        intervals=None,
        scatter=None,
        left_out=None,
    )
    if max(p_size, p_tokens) >= P_FOUND:
        return answer
    fitted = _fit(data)
    free = max(len(data.n) - 3, 1)  # runs, not checkpoints, determine E, A and alpha
    thetas = refits(fitted, n_bootstrap, generator, n_groups=len(data.n), free=free, bounds=_bounds)
    laws = [_law(theta, data) for theta in thetas]
    law = _law(fitted.theta, data)
    e, alpha, beta = (_interval(name, law, laws) for name in ("e", "alpha", "beta"))
    intervals = LawIntervals(e=e, alpha=alpha, beta=beta)
    return replace(answer, law=law, intervals=intervals, scatter=fitted.sigma, left_out=_leave_out(runs))


@dataclass(frozen=True)
class _Observations:
    """Centred log parameters `[runs]` and log tokens `[checkpoints]`; log losses `[runs, checkpoints]`."""

    n: np.ndarray
    d: np.ndarray
    y: np.ndarray
    origin: tuple[float, float]

    @classmethod
    def of(cls, runs: Sequence[LanguageRun]) -> "_Observations":
        _check(runs)
        n, d = np.log([run.n_params for run in runs]), np.log(runs[0].tokens)
        return cls(n - n.mean(), d - d.mean(), np.log([run.losses for run in runs]), (float(n.mean()), float(d.mean())))


def _check_draws(runs: Sequence[LanguageRun], n_bootstrap: int, n_permutations: int) -> None:
    """Raise `ConfigError` where too few draws are possible for a significant result."""
    if n_bootstrap < 2:
        raise ConfigError(f"an interval needs at least 2 draws of the bootstrap, got {n_bootstrap}")
    if (1 + n_permutations) * P_FOUND <= 1:
        raise ConfigError(f"of {n_permutations} permutations no p-value can fall below {P_FOUND}; draw 100 or more")
    alike = [math.factorial(n) for n in Counter(run.n_params for run in runs).values()]
    orders = math.factorial(len(runs)) // math.prod(alike)
    if orders * P_FOUND <= 1:
        raise ConfigError(
            f"{len(runs)} runs of {len(alike)} sizes have {orders} orders: p cannot fall below {1 / orders:.2g}; "
            f"train more sizes or seeds, until it can fall below {P_FOUND}"
        )


def _check(runs: Sequence[LanguageRun]) -> None:
    for run in runs:
        if not all(math.isfinite(loss) and loss > 0 for loss in run.losses):
            raise NonFiniteError(f"a loss of {run.name or f'{run.n_params:,} parameters'} is not a number above 0")
        if min(run.n_params, *run.tokens) < 1:
            raise ConfigError(f"parameters and tokens must be at least 1, got {run.n_params} and {min(run.tokens)}")
        if run.tokens != runs[0].tokens:
            raise ConfigError(
                f"all runs must be measured after the same numbers of tokens, got {run.tokens} and {runs[0].tokens}; "
                "train them by one recipe"
            )
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
    """Return the one-sided p-value of a falling loss: the mean product of ranks, against permuted ones.

    Over runs, the last loss is ranked against the size; within runs, every checkpoint against its tokens.
    """
    from scipy.stats import rankdata

    x = data.d if within_runs else data.n
    y = data.y if within_runs else data.y[:, -1][None]
    x, y = rankdata(x), rankdata(y, axis=1)
    x = x - x.mean()
    drawn = np.array([(x * generator.permuted(y, axis=1)).sum() for _ in range(n)])
    return p_from_null((x * y).sum(), drawn, alternative="less", tolerance=1e-9)


def _fit(data: _Observations) -> Fit:
    """Fit coefficients log E, log A, alpha, log B, beta on centred logarithms; the best of several starts."""
    y = data.y.ravel()
    n, d = (grid.ravel() for grid in np.broadcast_arrays(data.n[:, None], data.d[None]))
    ones = np.ones_like(y)
    terms = [ones[:, None], np.stack([ones, -n], axis=1), np.stack([ones, -d], axis=1)]
    return fit_law(terms, y, _starts(float(y.min())), huber=_HUBER, bounds=_bounds(y))


def _bounds(y: np.ndarray) -> Bounds:
    """Return bounds: no term falls below effectively zero; exponents lie between 0 and 4."""
    none, most = y.min() - LOWEST, y.max() + 1
    return np.array([none, none, 0.0, none, 0.0]), np.array([y.min(), most, 4.0, most, 4.0])


def _starts(lowest: float) -> list[np.ndarray]:
    """Return starting points: fractions of the lowest loss for floor, size and text, and exponents for both."""
    shares = [(0.8, 0.1, 0.1), (0.4, 0.3, 0.3), (0.1, 0.6, 0.3)]
    return [
        np.array([lowest + math.log(e), lowest + math.log(a), alpha, lowest + math.log(b), beta])
        for e, a, b in shares
        for alpha in (0.3, 0.8)
        for beta in (0.3, 0.8)
    ]


def _law(theta: np.ndarray, data: _Observations) -> LanguageLaw:
    """Convert coefficients of centred logarithms to those of `N` and `D` themselves."""
    e, a, alpha, b, beta = map(float, theta)
    n0, d0 = data.origin
    return LanguageLaw(e=math.exp(e), a=math.exp(a + alpha * n0), b=math.exp(b + beta * d0), alpha=alpha, beta=beta)


def _interval(name: str, law: LanguageLaw, laws: Sequence[LanguageLaw]) -> Interval[float]:
    return percentile_interval(getattr(law, name), np.array([getattr(draw, name) for draw in laws]))


def _leave_out(runs: Sequence[LanguageRun]) -> LanguagePrediction | None:
    """Predict the largest size from the others; None where too few sizes would remain for a fit."""
    sizes = sorted({run.n_params for run in runs})
    try:
        data = _Observations.of([run for run in runs if run.n_params < sizes[-1]])
    except ConfigError:
        return None

    def last(size: int) -> float:
        return geometric_mean([run.losses[-1] for run in runs if run.n_params == size])

    predicted = _law(_fit(data).theta, data).loss(sizes[-1], runs[0].tokens[-1])
    return LanguagePrediction.of(last(sizes[-1]), predicted, last(sizes[-2]), n_params=sizes[-1])


def train_language_models(
    corpus: "Corpus",
    recipe: ScalingRecipe,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    folder: Path | None = None,
) -> Iterator[LanguageRun]:
    """Train every width with every seed, the narrowest first, and yield the runs.

    `recipe` lists the widths, the seeds and the bytes that each model reads.

    Weights and the order of the text are drawn on the CPU, so they are the same on every `device`. With a `folder`,
    finished runs are written there, and the same call reads them instead of training them again. Raises `ConfigError`
    where the corpus has too little text.
    """
    rows = read_contexts(corpus, recipe)
    train, heldout = rows[: -recipe.heldout_contexts], rows[-recipe.heldout_contexts :]
    total, done = len(recipe.widths) * len(recipe.seeds) * recipe.steps, 0
    for width in sorted(recipe.widths):
        for seed in recipe.seeds:
            kept = folder / f"run-{width}-{seed}.json" if folder else None
            if kept and kept.exists():
                yield from_json(LanguageRun, read_json(kept), kept)
                done += recipe.steps
                continue
            steps, losses = [], []
            for step, loss in _checkpoint_losses(train, heldout, recipe, width, seed, device):
                steps.append(step)
                losses.append(loss)
                if progress is not None:
                    progress(done + step, total, {"width": width, "loss": round(loss, 3)})
            done += recipe.steps
            run = LanguageRun(
                n_params=recipe.n_params(width),
                seed=seed,
                tokens=tuple(step * recipe.batch_size * recipe.context_length for step in steps),
                losses=tuple(losses),
                name=f"width {width}",
            )
            if kept:
                save_json(run, kept)
            yield run


def read_contexts(corpus: "Corpus", recipe: ScalingRecipe) -> "Tensor":
    """Return bytes `[n, context_length]`; the last `heldout_contexts` rows are from held-out documents."""
    import torch

    n_train, n_heldout = recipe.steps * recipe.batch_size, recipe.heldout_contexts
    heldout, train = bytearray(), bytearray()
    for document in corpus:
        # the first documents are held out: few, and from another part of the corpus than the last ones
        part = heldout if len(heldout) < n_heldout * recipe.context_length else train
        part += document.text.encode() + b"\n\n"
        if len(train) >= n_train * recipe.context_length:
            break
    rows = [_rows(tokens, recipe.context_length) for tokens in (train, heldout)]
    if len(rows[0]) < n_train or len(rows[1]) < n_heldout:
        raise ConfigError(
            f"{corpus.spec} has {len(train):,} bytes besides the {len(heldout):,} held out, "
            f"{n_train * recipe.context_length:,} are needed; ask for fewer tokens"
        )
    return torch.cat([rows[0][:n_train], rows[1][:n_heldout]])


def _rows(text: bytearray, length: int) -> "Tensor":
    import torch

    whole = text[: len(text) // length * length]
    if not whole:
        return torch.empty(0, length, dtype=torch.long)
    return torch.frombuffer(whole, dtype=torch.uint8).view(-1, length).long()


def _checkpoint_losses(
    train: "Tensor", heldout: "Tensor", recipe: ScalingRecipe, width: int, seed: int, device: str
) -> Iterator[tuple[int, float]]:
    import torch

    from interp.models.passes import loss_per_token
    from interp.models.small import SmallConfig, build_small
    from interp.models.training import TrainingConfig, train_small

    config = SmallConfig(
        n_layers=recipe.n_layers,
        d_model=width,
        n_heads=4,
        d_mlp=4 * width,
        n_ctx=recipe.context_length,
        positions="rotary",
    )
    model = build_small(
        config, seed=derive_seed(seed, "scaling weights", width) % 2**31, device=device, dtype=torch.float32
    )
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(derive_seed(seed, "order") % 2**63))
    taken = iter(train[order].split(recipe.batch_size))
    loop = TrainingConfig(
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        lr=recipe.lr * math.sqrt(16 / width),
        warmup_steps=min(50, recipe.steps // 10),
        seed=seed,
    )
    for state in train_small(model, lambda n, generator: next(taken), loop, at=recipe.checkpoints):
        yield state.step, float(loss_per_token(model, heldout.to(device), batch_size=recipe.batch_size).mean())
