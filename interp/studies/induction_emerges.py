"""Emergence of induction heads in a toy over training (Olsson et al. 2022).

The curves of `follow_induction` are measured at intervals on new rows of random tokens that repeat once. A one-layer
toy is the control:

| curve | |
|---|---|
| `loss_first`, `loss_repeat` | nats per token of the first copy (unpredictable: about `log d_vocab`), of the second |
| `accuracy` | of the second copy |
| `induction`, `previous` | largest attention of any head to the token after the earlier copy; to the previous token |
| `composition` | strongest K-composition of an earlier head with a later one, over the mean of its null (1: chance) |

A falling loss alone does not show a mechanism: a toy that copies by position has one too, with a flat `induction`
curve.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.head_kinds import pattern_scores, target_masks, target_weights
from interp.models.hooked import HookedModel
from interp.models.passes import token_losses
from interp.models.small import build_small
from interp.models.toys import Toy, find_toy
from interp.models.training import TrainingFile, TrainingStep, train_small
from interp.progress import Progress
from interp.runtime import make_generator, one_thread
from interp.studies.induction_onset import CURVES, LEAST, InductionRun
from interp.studies.transitions import find_transition


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
    state: Path | None = None,
) -> InductionRun:
    """Train a toy and measure it every `every` steps.

    Weights and data are drawn on the CPU, so they are the same on every `device`. `keep(step, model)` may save the
    model; `progress` may raise to stop. `state` is a file from which the same
    call goes on where it was interrupted.
    """
    toy = find_toy(spec) if isinstance(spec, str) else spec
    training = replace(toy.training, seed=seed, log_every=every, steps=steps or toy.training.steps)
    model = build_small(toy.model, seed=seed, device=device, dtype=torch.float32)
    half = toy.model.n_ctx // 2
    rows = torch.randint(toy.model.d_vocab, (n_rows, half), generator=make_generator(seed, "repeat rows")).repeat(1, 2)
    rows = rows.to(device)
    at, found = [0], [measure_repeats(model, rows, n_null)]
    with one_thread():
        for step in train_small(
            model,
            toy.batches,
            training,
            measure=lambda m: measure_repeats(m, rows, n_null),
            state=None if state is None else TrainingFile(state),
        ):
            at.append(step.step)
            found.append(step.metrics)
            _report(step, training.steps, keep, model, progress)
    curves = {name: np.array([metrics[name] for metrics in found]) for name in CURVES}
    step_numbers = np.array(at)
    name = spec if isinstance(spec, str) else "toy"
    changes = {curve: find_transition(step_numbers, curves[curve], least=LEAST[curve]) for curve in CURVES}
    return InductionRun(name, seed, step_numbers, curves, changes)


@torch.no_grad()
def measure_repeats(model: HookedModel, rows: Tensor, n_null: int) -> dict[str, float]:
    """Return the values of all curves for a model on `rows [n, 2 * half]` whose second half repeats the first."""
    half = rows.shape[1] // 2
    logits = model(rows)
    losses = token_losses(logits, rows)
    right = (logits[:, half:-1].argmax(-1) == rows[:, half + 1 :]).float().mean()
    masks = target_masks(rows, None)
    scores = pattern_scores(model, rows, target_weights(masks), len(rows)).mean(3)
    strongest = {kind: float(scores[:, :, at].max()) for at, kind in enumerate(masks)}
    return {
        "loss_first": float(losses[:, : half - 1].mean()),
        "loss_repeat": float(losses[:, half:].mean()),
        "accuracy": float(right),
        "induction": strongest["induction"],
        "previous": strongest["previous_token"],
        "composition": strongest_composition(model, n_null),
    }


def strongest_composition(model: HookedModel, n_null: int) -> float:
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
    model: HookedModel,
    progress: Progress | None,
) -> None:
    if keep is not None:
        keep(step.step, model)
    if progress is not None:
        progress(step.step, total, {"loss": round(step.loss, 3), "induction": round(step.metrics["induction"], 2)})
