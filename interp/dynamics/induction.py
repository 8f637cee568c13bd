"""A toy on its way to induction heads: what rises together, and what its one-layer twin lacks (Olsson et al. 2022).

Every so many steps, on fresh rows of random tokens that repeat once:

| curve | |
|---|---|
| `loss_first`, `loss_repeat` | nats per token of the first copy (nothing to know: about `log d_vocab`), of the second |
| `accuracy` | of the second copy |
| `induction`, `previous` | attention of the strongest head on what followed its token before; on the token before |
| `composition` | strongest K-composition of an earlier head with a later one, over the mean of its null (1: chance) |

`find_transition` says of each whether it changes suddenly, and where. Loss alone proves no mechanism: that of a toy
which copies by position falls too, and its `induction` stays where it is.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.heads import pattern_scores
from interp.circuits.patterns import KINDS, target_masks, target_weights
from interp.dynamics.transitions import Transition, find_transition
from interp.loss import token_losses
from interp.models.small import build_small
from interp.models.toys import Toy, find_toy
from interp.models.training import TrainingStep, train_small
from interp.progress import Progress
from interp.runtime import make_generator, one_thread

CURVES = ("loss_first", "loss_repeat", "accuracy", "induction", "previous", "composition")
LEAST = {"loss_first": 0.5, "loss_repeat": 0.5, "accuracy": 0.2, "induction": 0.1, "previous": 0.1, "composition": 0.2}
"""Ways that are worth a name: a twin's induction score creeps from .04 to .07, and no head does anything."""


@dataclass(frozen=True)
class InductionRun:
    """The curves of one toy and seed."""

    spec: str
    seed: int
    steps: np.ndarray
    """`[n]` training steps; the first is 0"""
    curves: dict[str, np.ndarray]
    """name -> `[n]`"""
    transitions: dict[str, Transition]
    """of each curve"""

    @property
    def onset(self) -> float | None:
        """Where it begins to copy: the onset of the accuracy on the second copy, if that changes suddenly.

        The loss falls before, to that of knowing which tokens there are, and long after.
        """
        return self.transitions["accuracy"].onset

    @property
    def together(self) -> float | None:
        """Steps between the middles of the changes of accuracy and of the induction score; None without both."""
        copies, score = (self.transitions[name].middle for name in ("accuracy", "induction"))
        return None if copies is None or score is None else abs(copies - score)


def follow_induction(
    spec: "str | Toy" = "toy:induction-2l",
    *,
    seed: int = 0,
    steps: int | None = None,
    every: int = 50,
    n_rows: int = 32,
    n_null: int = 50,
    keep: Callable[[int, Any], None] | None = None,
    progress: Progress | None = None,
) -> InductionRun:
    """Train a toy and measure it every `every` steps. `keep(step, model)` may save it, `progress` may raise to stop."""
    toy = find_toy(spec) if isinstance(spec, str) else spec
    training = replace(toy.training, seed=seed, log_every=every, steps=steps or toy.training.steps)
    model = build_small(toy.model, seed=seed, device="cpu", dtype=torch.float32)
    half = toy.model.n_ctx // 2
    rows = torch.randint(toy.model.d_vocab, (n_rows, half), generator=make_generator(seed, "repeat rows")).repeat(1, 2)
    at, found = [0], [measure_repeats(model, rows, n_null)]
    with one_thread():
        for step in train_small(model, toy.batches, training, measure=lambda m: measure_repeats(m, rows, n_null)):
            at.append(step.step)
            found.append(step.metrics)
            _tell(step, training.steps, keep, model, progress)
    curves = {name: np.array([metrics[name] for metrics in found]) for name in CURVES}
    where = np.array(at)
    name = spec if isinstance(spec, str) else "toy"
    changes = {curve: find_transition(where, curves[curve], least=LEAST[curve]) for curve in CURVES}
    return InductionRun(name, seed, where, curves, changes)


@torch.no_grad()
def measure_repeats(model: Any, rows: Tensor, n_null: int) -> dict[str, float]:
    """The curves' values of a model on `rows [n, 2 * half]` whose second half is the first again."""
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
    """K-composition of the strongest pair over the mean of its null; 1 (chance) for a model of one layer."""
    from interp.circuits.composition import composition

    if model.cfg.n_layers < 2:
        return 1.0
    found = composition(model, sides=("k",), n_null=n_null)["k"]
    return float(np.nanmax(found.score / found.null_mean))


def _tell(
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
