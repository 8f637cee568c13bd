"""Emergence of induction heads in a toy over training, and sudden transitions of its curves (Olsson et al. 2022).

**Curves** (`follow_induction`), measured at intervals on new rows of random tokens that repeat once. A one-layer toy is
the control:

| curve | |
|---|---|
| `loss_first`, `loss_repeat` | nats per token of the first copy (unpredictable: about `log d_vocab`), of the second |
| `accuracy` | of the second copy |
| `induction`, `previous` | largest attention of any head to the token after the earlier copy; to the previous token |
| `composition` | strongest K-composition of an earlier head with a later one, over the mean of its null (1: chance) |

A falling loss alone does not show a mechanism: a toy that copies by position has one too, with a flat `induction`
curve.

**Transitions** (`find_transition`). A curve goes from its starting level to its final level. Its *onset*, *middle* and
*end* are the steps at which it has covered 10, 50 and 90 % of the way for good. It is a transition when three
conditions hold:

- the change is large: at least `SIGNAL` times the typical step in the flat parts of the curve, and at least `least`;
- the change is fast: from onset to end takes at most `QUICK` of the steps. A straight line takes 80 %;
- a random walk seldom has it: p is at most `ALPHA` (`walk_p_value`). Of random walks, one in six passes the other two.

Steps may be any rising numbers. Crossings are interpolated between measurements, so their resolution is the distance
between measurements.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp.circuits.head_kinds import KINDS, pattern_scores, target_masks, target_weights
from interp.errors import ConfigError, NonFiniteError
from interp.models.passes import token_losses
from interp.models.small import build_small
from interp.models.toys import Toy, find_toy
from interp.models.training import TrainingStep, train_small
from interp.progress import Progress
from interp.results import Record, Result
from interp.runtime import derive_seed, make_generator, one_thread

SIGNAL = 8.0
QUICK = 0.5
ALPHA = 0.05
N_WALKS = 999
FEWEST = 8


class Transition(NamedTuple):
    """Result of the search for a transition; the steps are None where none was found."""

    found: bool
    reason: str
    """one sentence"""
    onset: float | None
    middle: float | None
    end: float | None
    before: float
    """median of the first tenth of the curve"""
    after: float
    """median of its last tenth"""
    noise: float
    """typical step of the flat parts: median absolute difference of successive values at both ends"""
    p: float | None = None
    """share of random walks with a change as large for its length; None where the curve ends about where it began"""


def find_transition(steps: np.ndarray, values: np.ndarray, *, least: float = 0.0) -> Transition:
    """Find the transition of a curve `values [n]` over rising `steps [n]`, if it changes by at least `least`.

    `least` is in units of the curve. Raises `ConfigError` for fewer than 8 measurements or steps that do not rise,
    `NonFiniteError`.
    """
    steps, values = _curve(steps, values)
    if len(steps) < FEWEST or (np.diff(steps) <= 0).any():
        raise ConfigError(f"a transition needs {FEWEST} measurements or more at rising steps, got {len(steps)}")
    if not least >= 0:
        raise ConfigError(f"least must be at least 0, in units of the curve, got least {least}; 0 accepts any change")
    tenth = max(2, len(values) // 10)
    before, after = float(np.median(values[:tenth])), float(np.median(values[-tenth:]))
    fifth = max(3, len(values) // 5)
    noise = float(np.median(np.abs(np.concatenate([np.diff(values[:fifth]), np.diff(values[-fifth:])]))))
    way = after - before
    if abs(way) <= max(SIGNAL * noise, least) or way == 0:
        return Transition(False, "it ends about where it began", None, None, None, before, after, noise)
    gone = (values - before) / way
    onset, middle, end = (crossing(steps, gone, level) for level in (0.1, 0.5, 0.9))
    share = (end - onset) / (steps[-1] - steps[0])
    p = walk_p_value(values)
    if share > QUICK:
        reason = f"it changes over {share:.0%} of the time: gradual, no transition"
        return Transition(False, reason, None, None, None, before, after, noise, p)
    if p > ALPHA:
        reason = f"{p:.0%} of random walks change as much in as short a time: no transition"
        return Transition(False, reason, None, None, None, before, after, noise, p)
    reason = f"from 10 to 90 % of the way in {share:.0%} of the time"
    return Transition(True, reason, onset, middle, end, before, after, noise, p)


def walk_p_value(values: np.ndarray) -> float:
    """Return the share of Gaussian random walks that have a change as large for its length as a curve `[n]`.

    The statistic is the largest change over any stretch of up to half the curve, divided by the square root of its
    length and the scale of single steps; the median step is taken out, so drift does not count. Its null distribution
    is that of `N_WALKS` walks of `n` values, and the smallest p is 1 / (`N_WALKS` + 1). Walks whose steps have heavy
    tails jump by themselves, and their p is too small.
    """
    steps = np.diff(np.asarray(values, float))
    return float((1 + (_walks(len(steps)) >= _largest_change(steps)).sum()) / (N_WALKS + 1))


@lru_cache(maxsize=64)
def _walks(n: int) -> np.ndarray:
    """Return the statistic of random walks of `n` steps."""
    return _largest_change(np.random.default_rng(derive_seed(0, "random walks", n)).standard_normal((N_WALKS, n)))


def _largest_change(steps: np.ndarray) -> np.ndarray:
    """Return the largest change of curves with steps `[..., n]`, for its length and the scale of their steps."""
    steps = steps - np.median(steps, -1, keepdims=True)
    scale = np.median(np.abs(steps), -1)
    sums = np.concatenate([np.zeros((*steps.shape[:-1], 1)), steps.cumsum(-1)], -1)
    half = max(1, steps.shape[-1] // 2)
    lengths = np.unique(np.geomspace(1, half, min(half, 24)).round().astype(int))
    changes = [np.abs(sums[..., length:] - sums[..., :-length]).max(-1) / length**0.5 for length in lengths]
    largest = np.max(changes, 0)
    return np.divide(largest, scale, out=np.where(largest > 0, np.inf, 0.0), where=scale > 0)


def crossing(steps: np.ndarray, gone: np.ndarray, level: float) -> float:
    """Return the step from which `gone` stays at or above `level`, interpolated; the last step when it never does."""
    below = np.flatnonzero(gone < level)
    if len(below) == 0:
        return float(steps[0])
    at = int(below[-1])
    if at + 1 == len(gone):
        return float(steps[-1])
    share = (level - gone[at]) / (gone[at + 1] - gone[at])
    return float(steps[at] + share * (steps[at + 1] - steps[at]))


def first_at(steps: np.ndarray, values: np.ndarray, level: float) -> float | None:
    """Return the first step at which a curve is at or above a level; None when it never is."""
    steps, values = _curve(steps, values)
    hit = np.flatnonzero(values >= level)
    return float(steps[hit[0]]) if len(hit) else None


def _curve(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    steps, values = np.asarray(steps, float), np.asarray(values, float)
    if steps.ndim != 1 or steps.shape != values.shape:
        raise ConfigError(
            f"one value for each step was expected, as [n] and [n], got steps {list(steps.shape)} and values "
            f"{list(values.shape)}; give one curve at a time"
        )
    wrong = ~(np.isfinite(steps) & np.isfinite(values))
    if wrong.any():
        raise NonFiniteError(f"the curve holds NaN or infinity at step {steps[wrong][0]:g}; leave that measurement out")
    return steps, values


CURVES = ("loss_first", "loss_repeat", "accuracy", "induction", "previous", "composition")
LEAST = {"loss_first": 0.5, "loss_repeat": 0.5, "accuracy": 0.2, "induction": 0.1, "previous": 0.1, "composition": 0.2}
"""Smallest changes that count: in the one-layer control the induction score drifts from .04 to .07 without a head."""


@dataclass(frozen=True)
class InductionRun(Result):
    """Curves of one toy and seed over training, with their transitions."""

    spec: str
    seed: int
    steps: np.ndarray
    """`[n]` training steps; the first is 0"""
    curves: dict[str, np.ndarray]
    """name -> `[n]`"""
    transitions: dict[str, Transition]
    """transition of each curve"""

    @property
    def onset(self) -> float | None:
        """Onset of copying: of the accuracy on the second copy, if that changes suddenly.

        The loss is no substitute: it falls earlier, when the model learns which tokens occur, and continues long after.
        """
        return self.transitions["accuracy"].onset

    @property
    def together(self) -> float | None:
        """Steps between the middles of the transitions of accuracy and induction score; None without both."""
        copies, score = (self.transitions[name].middle for name in ("accuracy", "induction"))
        return None if copies is None or score is None else abs(copies - score)

    def to_records(self) -> list[Record]:
        """Return one row per measured step: `step` and a column per curve."""
        return [
            {"step": int(step)} | {name: float(curve[i]) for name, curve in self.curves.items()}
            for i, step in enumerate(self.steps)
        ]

    def headline(self) -> str:
        """Return one line: the onset of copying."""
        found = "no sudden onset of copying" if self.onset is None else f"copying sets in at step {self.onset:.0f}"
        return f"{self.spec}, seed {self.seed}: {found}"

    def shown(self) -> list[Record]:
        """Return the transition of each curve."""
        names = ("found", "onset", "middle", "end", "before", "after")
        return [{"curve": c} | {n: getattr(t, n) for n in names} for c, t in self.transitions.items()]


def follow_induction(
    spec: "str | Toy" = "toy:induction-2l",
    *,
    seed: int = 0,
    steps: int | None = None,
    every: int = 50,
    n_rows: int = 32,
    n_null: int = 50,
    keep: Callable[[int, Any], None] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> InductionRun:
    """Train a toy and measure it every `every` steps.

    Weights and data are drawn on the CPU, so they are the same on every `device`. `keep(step, model)` may save the
    model; `progress` may raise to stop.
    """
    toy = find_toy(spec) if isinstance(spec, str) else spec
    training = replace(toy.training, seed=seed, log_every=every, steps=steps or toy.training.steps)
    model = build_small(toy.model, seed=seed, device=device, dtype=torch.float32)
    half = toy.model.n_ctx // 2
    rows = torch.randint(toy.model.d_vocab, (n_rows, half), generator=make_generator(seed, "repeat rows")).repeat(1, 2)
    rows = rows.to(device)
    at, found = [0], [measure_repeats(model, rows, n_null)]
    with one_thread():
        for step in train_small(model, toy.batches, training, measure=lambda m: measure_repeats(m, rows, n_null)):
            at.append(step.step)
            found.append(step.metrics)
            _report(step, training.steps, keep, model, progress)
    curves = {name: np.array([metrics[name] for metrics in found]) for name in CURVES}
    step_numbers = np.array(at)
    name = spec if isinstance(spec, str) else "toy"
    changes = {curve: find_transition(step_numbers, curves[curve], least=LEAST[curve]) for curve in CURVES}
    return InductionRun(name, seed, step_numbers, curves, changes)


@torch.no_grad()
def measure_repeats(model: Any, rows: Tensor, n_null: int) -> dict[str, float]:
    """Return the values of all curves for a model on `rows [n, 2 * half]` whose second half repeats the first."""
    half = rows.shape[1] // 2
    logits = model(rows)
    losses = token_losses(logits, rows)
    right = (logits[:, half:-1].argmax(-1) == rows[:, half + 1 :]).float().mean()
    scores = pattern_scores(model, rows, target_weights(target_masks(rows, None)), len(rows)).mean(3)
    strongest = {kind: float(scores[:, :, at].max()) for at, kind in enumerate(KINDS)}
    return {
        "loss_first": float(losses[:, : half - 1].mean()),
        "loss_repeat": float(losses[:, half:].mean()),
        "accuracy": float(right),
        "induction": strongest["induction"],
        "previous": strongest["previous_token"],
        "composition": strongest_composition(model, n_null),
    }


def strongest_composition(model: Any, n_null: int) -> float:
    """Return the K-composition of the strongest pair over the mean of its null; 1 (chance) for a one-layer model."""
    from interp.circuits.head_weights import composition

    if model.cfg.n_layers < 2:
        return 1.0
    found = composition(model, sides=("k",), n_null=n_null)["k"]
    return float(np.nanmax(found.score / found.null_mean))


def _report(
    step: TrainingStep,
    total: int,
    keep: Callable[[int, Any], None] | None,
    model: Any,
    progress: Progress | None,
) -> None:
    if keep is not None:
        keep(step.step, model)
    if progress is not None:
        progress(step.step, total, {"loss": round(step.loss, 3), "induction": round(step.metrics["induction"], 2)})
