"""Emergence of induction heads over training (Olsson et al. 2022): in a toy, or in the checkpoints of a model.

The curves are measured on rows of random tokens that repeat once. A one-layer toy is the control of `follow_induction`,
the untrained model that of `follow_checkpoints`:

| curve | |
|---|---|
| `loss_first`, `loss_repeat` | nats per token of the first copy (unpredictable: about `log d_vocab`), of the second |
| `accuracy` | of the second copy |
| `induction`, `previous` | largest attention of any head to the token after the earlier copy; to the previous token |
| `composition` | strongest K-composition of an earlier head with a later one, over the mean of its null (1: chance) |

In a model with more than 64 heads, composition is that of the 8 heads that attend most to the previous token with the 8
of the highest induction score.

A falling loss alone does not show a mechanism: a toy that copies by position has one too, with a flat `induction`
curve.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from interp.artifacts import read_json, write_json
from interp.circuits.head_kinds import pattern_scores, target_masks, target_weights
from interp.circuits.head_weights import composition
from interp.models.adapter import ordinary_tokens, untrained_model
from interp.models.hooked import HookedModel
from interp.models.loading import load_model
from interp.models.passes import token_losses
from interp.models.small import build_small, checkpoints_in
from interp.models.toys import Toy, find_toy
from interp.models.training import TrainingFile, train_small
from interp.names import HeadName
from interp.nulls import DRAWS
from interp.progress import Progress
from interp.seeds import make_generator
from interp.studies._transitions import FEWEST, Transition, find_transition
from interp.studies.induction_onset import CURVES, LEAST, UNTRAINED, InductionRun
from interp.threads import one_thread

_ALL_HEADS = 64
ROWS_OF_TOY, ROWS_OF_CHECKPOINT = 32, 16
"""Rows of repeated tokens that one measurement reads."""


def follow_induction(
    spec: str | Toy = "toy:induction-2l",
    *,
    seed: int = 0,
    steps: int | None = None,
    every: int = 50,
    device: str = "cpu",
    progress: Progress | None = None,
    state: Path | None = None,
) -> InductionRun:
    """Train a toy and measure it every `every` steps.

    `spec` names the toy; `steps` replaces the length of its recipe. Each measurement reads 32 rows of repeated tokens,
    and the null of a score draws 19.

    Weights and data are drawn on the CPU, so they are the same on every `device`. `progress` may raise to stop. `state`
    is a file from which the same call goes on where it was interrupted.
    """
    toy = find_toy(spec) if isinstance(spec, str) else spec
    training = replace(toy.training, seed=seed, log_every=every, steps=steps or toy.training.steps)
    model = build_small(toy.model, seed=seed, device=device, dtype=torch.float32)
    half = toy.model.n_ctx // 2
    rows = torch.randint(toy.model.d_vocab, (ROWS_OF_TOY, half), generator=make_generator(seed, "repeat rows")).repeat(
        1, 2
    )
    rows = rows.to(device)
    at, records = [0], [measure_repeats(model, rows, DRAWS["standard"])]
    with one_thread():
        for step in train_small(
            model,
            toy.batches,
            training,
            measure=lambda m: measure_repeats(m, rows, DRAWS["standard"]),
            state=None if state is None else TrainingFile(state),
        ):
            at.append(step.step)
            records.append(step.metrics)
            if progress is not None:
                shown = {"loss": round(step.loss, 3), "induction": round(step.metrics["induction"], 2)}
                progress(step.step, training.steps, shown)
    curves = {name: np.array([metrics[name] for metrics in records]) for name in CURVES}
    return _run(spec if isinstance(spec, str) else "toy", seed, np.array(at), curves)


def follow_checkpoints(
    folder: Path,
    *,
    seed: int = 0,
    half: int = 32,
    device: str | None = None,
    finished: Path | None = None,
    progress: Progress | None = None,
) -> tuple[InductionRun, InductionRun]:
    """Measure every checkpoint in a folder, and the untrained model of the last one, whose curves are constant.

    Rows hold `half` random tokens twice (fewer in a shorter context), without BOS, the same for all. `finished` is a
    folder in which an interrupted call finds the checkpoints that it has measured. Raises as `checkpoints_in` and
    `load_model` do.
    """
    steps, rows = checkpoints_in(folder), torch.empty(0)
    records: dict[int, dict[str, float]] = {}
    null: dict[str, float] = {}
    for number, (step, path) in enumerate(steps.items(), 1):
        stored = None if finished is None else finished / f"{step}.json"
        last = number == len(steps)
        if stored is not None and stored.exists() and not last:
            records[step] = {name: float(value) for name, value in read_json(stored).items()}
            continue
        model = load_model(str(path), device=device)
        if not len(rows):
            ids, generator = ordinary_tokens(model), make_generator(seed, "repeat rows")
            length = min(half, model.cfg.n_ctx // 2)
            rows = ids[torch.randint(len(ids), (ROWS_OF_CHECKPOINT, length), generator=generator)].repeat(1, 2)
        records[step] = measure_repeats(model, rows.to(model.cfg.device), DRAWS["standard"])
        if stored is not None:
            write_json(stored, records[step])
        if last:
            null = measure_repeats(untrained_model(model, seed), rows.to(model.cfg.device), DRAWS["standard"])
        if progress is not None:
            progress(number, len(steps), {"step": step, "induction": round(records[step]["induction"], 2)})
    curves = {name: np.array([metrics[name] for metrics in records.values()]) for name in CURVES}
    constant = {name: np.full(len(steps), null[name]) for name in CURVES}
    at = np.array(list(steps))
    return _run(str(folder), seed, at, curves), _run(UNTRAINED, seed, at, constant)


def _run(spec: str, seed: int, steps: np.ndarray, curves: dict[str, np.ndarray]) -> InductionRun:
    changes = {name: _transition(steps, curve, LEAST[name]) for name, curve in curves.items()}
    return InductionRun(spec, seed, steps, curves, changes)


def _transition(steps: np.ndarray, curve: np.ndarray, least: float) -> Transition:
    """Return the transition of a curve; with too few measurements, only its ends."""
    if len(steps) >= FEWEST:
        return find_transition(steps, curve, least=least)
    reason = f"{FEWEST} measurements or more can show a transition, there are {len(steps)}"
    before, after = float(curve[0]), float(curve[-1])
    return Transition(
        sudden=False, reason=reason, onset=None, middle=None, end=None, before=before, after=after, noise=0.0
    )


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
        "composition": strongest_composition(model, n_null, *_candidates(scores, list(masks))),
    }


def _candidates(scores: Tensor, kinds: list[str]) -> tuple[list[HeadName] | None, list[HeadName] | None]:
    """Return the heads whose composition is measured, of scores `[layer, head, kind]`; None for all."""
    n_layers, n_heads = scores.shape[:2]
    if n_layers * n_heads <= _ALL_HEADS:
        return None, None
    best = (scores[:, :, kinds.index(kind)].flatten().topk(8).indices for kind in ("previous_token", "induction"))
    senders, readers = ([HeadName(*divmod(int(at), n_heads)) for at in indices] for indices in best)
    return senders, readers


def strongest_composition(
    model: HookedModel, n_null: int, senders: list[HeadName] | None = None, readers: list[HeadName] | None = None
) -> float:
    """Return the K-composition of the strongest pair over the mean of its null; 1 (chance) where no pair is."""
    in_order = not (senders and readers) or min(head.layer for head in senders) < max(head.layer for head in readers)
    if model.cfg.n_layers < 2 or not in_order:
        return 1.0
    k_composition = composition(model, sides=("k",), senders=senders, readers=readers, n_null=n_null)["k"]
    return float(np.nanmax(k_composition.score / k_composition.null_mean))
