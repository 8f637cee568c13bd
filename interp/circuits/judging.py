"""Faithfulness of circuits (Mechanistic Interpretability Benchmark, Mueller et al. 2025), its nulls, and the verdict.

The metric is measured in runs of the model: the full model, the empty circuit in which everything is replaced, and
circuits between them. `verdict` applies a stated rule: the circuit must exceed its null, and an untrained model must
lack the behaviour.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from jaxtyping import Float, Float64

from interp.circuits.config import Ablation
from interp.circuits.found_circuit import RandomCircuits, TaskPrompt, UntrainedGap, Verdict
from interp.errors import ConfigError, NoGapError, UnknownNameError
from interp.models.hooked import HookedModel
from interp.nulls import p_from_null
from interp.seeds import derive_seed
from interp.statistics import Interval, bootstrap_interval, percentile_interval

if TYPE_CHECKING:
    from interp.patching.task import Task


def check_ablation(ablation: str) -> Ablation:
    """Return the ablation if it exists: `resample`, `other`, `mean` or `zero`. Raises `UnknownNameError`."""
    if ablation not in get_args(Ablation):
        raise UnknownNameError("ablation", str(ablation), get_args(Ablation))
    return ablation  # pyright: ignore[reportReturnType]


def pick(n: int, generator: torch.Generator) -> int:
    """Draw one of `0 .. n - 1`, each with the same probability."""
    return int(torch.randint(n, (1,), generator=generator))


def faithfulness(values: np.ndarray, empty: np.ndarray, full: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return `f(C) = (m(C) - m(0)) / (m(M) - m(0))` of metrics over prompts (last axis): a ratio of means.

    `m(M)` is the metric of the full model, `m(0)` that of the empty circuit, in which everything is replaced. 1 is as
    good as the model, 0 as good as the empty circuit; it is not bounded on either side.
    """
    nothing = empty.mean(axis)
    return (values.mean(axis) - nothing) / (full.mean(axis) - nothing)


def check_ends(full: np.ndarray, empty: np.ndarray, ablation: str) -> None:
    """Raise `NoGapError` where replacing every edge leaves as much as the model has: faithfulness has no scale."""
    if not full.mean() > empty.mean():
        raise NoGapError(
            f"the metric of the model is {full.mean():.4g} on these prompts, and {empty.mean():.4g} with every edge "
            f"replaced ({ablation}), so there is nothing to keep; choose other prompts or another ablation"
        )


def faithfulness_interval(
    values: Float[np.ndarray, "*runs n_prompts"],
    empty: Float[np.ndarray, " n_prompts"],
    full: Float[np.ndarray, " n_prompts"],
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval[Any]:
    """Bootstrap faithfulness of `values` over prompts, numerator and denominator drawn together."""
    rng = np.random.default_rng(derive_seed(seed, "bootstrap faithfulness"))
    return bootstrap_interval(faithfulness, values, empty, full, rng=rng, n_resamples=n_resamples)


def area(fractions: Sequence[float], heights: Sequence[float]) -> float:
    """Return the trapezoid area of heights over fractions of edges, from the first fraction to the last."""
    x, y = np.asarray(fractions, dtype=float), np.asarray(heights, dtype=float)
    if x.shape != y.shape or len(x) < 2 or (np.diff(x) <= 0).any():
        raise ConfigError("an area needs at least two fractions in rising order, with one height each")
    return float(np.trapezoid(y, x))


def cpr(fractions: Sequence[float], f: Sequence[float]) -> float:
    """Return the circuit performance ratio: the area under f(k). Higher is better and may exceed 1.

    Edges are ranked by signed score.
    """
    return area(fractions, f)


def cmd(fractions: Sequence[float], f: Sequence[float]) -> float:
    """Return the circuit-model distance: the area of |1 - f(k)|; 0 is best. Edges are ranked by absolute score."""
    return area(fractions, np.abs(1 - np.asarray(f, dtype=float)).tolist())


def null_summary(values: Float64[np.ndarray, " n"], estimate: float) -> RandomCircuits:
    """Return number, mean, 95 % range of a null, and the p-value of a circuit's faithfulness `estimate` against it."""
    null = percentile_interval(float(values.mean()), values)
    mean, low, high = (float(number) for number in null)
    return RandomCircuits(n=len(values), mean=mean, low=low, high=high, p=float(p_from_null(estimate, values)))


def untrained_gap(model: HookedModel, task: "Task", seed: int) -> UntrainedGap:
    """Measure the task's gap in an untrained model, with its standard error."""
    from interp.models.adapter import untrained_model

    untrained = task.on(untrained_model(model, seed))
    return UntrainedGap(gap=untrained.gap, gap_error=untrained.gap_error, gap_of_model=task.gap)


def verdict(rule: str, reason: str, beats_null: bool | None, untrained: UntrainedGap | None) -> Verdict:
    """Return the verdict on a circuit; `found` is None without a null."""
    if beats_null is None or untrained is None:
        return Verdict(holds=None, rule=rule, reason=reason)
    return Verdict(holds=bool(beats_null and untrained.learned), rule=rule, reason=reason)


PROMPTS_SHOWN = 8


def prompt_texts(model: HookedModel, task: "Task") -> tuple[TaskPrompt, ...]:
    """Return the first prompts as text, with their answers if any."""
    from interp.models.adapter import token_strings

    answers = task.metric.per_prompt()
    shown = []
    for i in range(min(PROMPTS_SHOWN, task.n_prompts)):
        length = int(task.lengths[i])
        clean, corrupt = (tuple(token_strings(model, tokens[i, :length])) for tokens in (task.clean, task.corrupt))
        texts = {name: tuple(token_strings(model, ids)) for name, ids in answers[i].items()} if answers else {}
        shown.append(TaskPrompt(clean=clean, corrupt=corrupt, correct=texts.get("correct"), wrong=texts.get("wrong")))
    return tuple(shown)
