"""Claims that a head does something: "L1H2 is an induction head: it attends to ...".

`details`: `head` (its name) and `head_kind` (one of `ALIKE`). Near miss: the head attends by another mechanism, some of
which look the same on prompts that repeat with a period of half the context. The answer is the verdict of *Heads*.
"""

from math import log
from pathlib import Path

from benchmarks.referee.cases import Answer, Control, Details
from benchmarks.referee.planted_models import SHARPNESS, PlantedModel
from interp.circuits.config import HeadScoresConfig
from interp.circuits.head_kinds import score_heads
from interp.circuits.head_scores import HeadScore
from interp.circuits.judging import pick
from interp.models.small import load_small
from interp.seeds import make_generator

ALIKE = {
    "induction": ("two", "after_half", "duplicate_token", "previous_token"),
    "duplicate_token": ("half_back", "prev", "current_token"),
    "previous_token": ("two_back", "current_token", "first_token"),
    "first_token": ("second_token", "previous_token"),
    "current_token": ("previous_token", "duplicate_token"),
}
"""Mechanisms of near misses, by the kind that is claimed; `prev` and `two` are by content (see `planted_models`)."""


def write(folder: Path, control: Control, effect: float, seed: int) -> Details:
    """Write a model with a head of one mechanism among noisy heads."""
    generator = make_generator(seed, "referee", "head")
    kind = tuple(ALIKE)[pick(len(ALIKE), generator)]
    near = ALIKE[kind][pick(len(ALIKE[kind]), generator)]
    n_layers, n_tokens = 2 + pick(2, generator), 20 + pick(5, generator)
    planted = PlantedModel(
        ["prev", "two"], n_layers=n_layers, n_heads=3 + pick(2, generator), n_tokens=n_tokens, d_head=2 * n_tokens,
        generator=generator,
    )  # fmt: skip
    for mechanism, space in (("previous_token", "prev"), ("two_back", "two")):
        planted.plant(planted.take(0), mechanism, writes=space, sharpness=SHARPNESS)
    at = planted.take(1 + pick(n_layers - 1, generator))
    mechanism = near if control == "near miss" else {"induction": "prev"}.get(kind, kind)
    share = effect if control == "planted" else 1.0
    sharpness = SHARPNESS if share == 1 else max(0.0, log(share / (1 - share)) + log(n_tokens / 2))
    planted.plant(at, mechanism, reads="prev" if mechanism == "two" else "tok", sharpness=sharpness)
    planted.write(folder, control, seed)
    return {"head": str(at), "head_kind": kind}


def score_of(folder: Path, details: Details) -> HeadScore:
    """Score all heads on prompts that fill the context, and return the score of the claimed one."""
    model = load_small(folder)
    length = model.cfg.n_ctx
    config = HeadScoresConfig(n_prompts=8, context_length=length, min_lag=length // 4, max_lag=length // 2)
    rows = score_heads(model, config).of_kind(details["head_kind"])
    return next(row for row in rows if row.name == details["head"])


def answer(folder: Path, details: Details) -> Answer:
    """Return the verdict on the claimed head."""
    row = score_of(folder, details)
    return Answer(
        outcome="supported" if row.above_null else "not supported",
        why=f"{row.score:.2f} of its attention [{row.low:.2f}, {row.high:.2f}]; null at most {row.null_high:.2f}",
    )
