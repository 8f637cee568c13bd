"""Checks that steering and patching start where they should, have the right size, and do nothing at strength 0."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from interp.doctor.trials import Outcome, Setup, gap, trial
from interp.interventions.apply import hooks_of, intervened
from interp.interventions.edits import inserting
from interp.interventions.intervention import Component, Direction, Intervention
from interp.models.generation import NextToken, Offset, generate
from interp.models.passes import capture
from interp.seeds import make_generator

AT = 3
"""Position from which the prompt is steered."""


def _point(setup: Setup) -> str:
    return f"blocks.{setup.model.cfg.n_layers // 2}.hook_resid_post"


def _step(setup: Setup, share: float, *, stream: str = "steered", start: int | None = None) -> Intervention:
    """Return steering along a random direction, by a share of the norm of the residual there."""
    point = _point(setup)
    if "norm" not in setup.known:
        value = capture(setup.model, setup.prompts.rows[1], [point])[point].float()
        setup.known["norm"] = float(value[:, AT:].norm(dim=-1).mean())
    drawn = torch.randn(setup.model.cfg.d_model, generator=make_generator(setup.seed, "doctor", stream))
    vector = (drawn / drawn.norm()).numpy().astype(np.float32)
    target = Direction(hook_point=point, vector=vector, origin="a random direction")
    positions = None if start is None else (start, None)
    return Intervention(target=target, amount=share * setup.known["norm"], positions=positions)


def _steered(setup: Setup, step: Intervention) -> Tensor:
    with intervened(setup.model, [step]):
        return setup.logits(setup.prompts.rows[1])


@trial(
    "edits", "first position",
    did=f"Steered a prompt from position {AT} on along a random direction, by half the norm of the residual.",
    expected=f"the first changed position is {AT}",
    means="Steering or patching acts a token late or early: its effect is read at the wrong place.",
)  # fmt: skip
def first_position(setup: Setup) -> Outcome:
    change = (_steered(setup, _step(setup, 0.5, start=AT)) - setup.clean(setup.prompts.rows[1])).abs()
    spread = float(setup.clean(setup.prompts.rows[1]).std())
    changed = (change[0].amax(-1) > setup.same / 10 * spread).nonzero().flatten().tolist()
    whole = changed == list(range(AT, change.shape[1]))
    return whole, f"changed from {changed[0] if changed else 'none'} on, at {len(changed)} positions"


@trial(
    "edits", "size",
    did="Read the residual at the hook point with and without that steering.",
    expected="a difference of the stated norm, along the direction",
    means="Strength is in other units than stated: another dtype, a norm in between, or the direction scaled twice.",
)  # fmt: skip
def size(setup: Setup) -> Outcome:
    step, point, row = _step(setup, 0.5, start=AT), _point(setup), setup.prompts.rows[1]
    before = capture(setup.model, row, [point])[point].float()
    after = capture(setup.model, row, [point], hooks=hooks_of(setup.model, [step]))[point].float()
    assert isinstance(step.target, Direction)
    wanted = step.amount * torch.from_numpy(step.target.vector).to(before)
    off = float((after - before - wanted)[:, AT:].norm(dim=-1).max() / wanted.norm())
    return off < max(setup.same, 1e-3), f"off by {off:.2g} of {step.amount:.3g}"


@trial(
    "edits", "strength 0",
    did="Steered by nothing, and scaled a component by 1.",
    expected="the same logits",
    means="An intervention has an effect of its own, which every measured effect then contains.",
)  # fmt: skip
def nothing(setup: Setup) -> Outcome:
    plain = setup.clean(setup.prompts.rows[1])
    scaled = Intervention(target=Component(name="L0H0"), action="scale", amount=1.0)
    return setup.alike(max(gap(_steered(setup, step), plain) for step in (_step(setup, 0.0), scaled)))


@trial(
    "edits", "ablated",
    did="Ablated the coordinate along the direction, and read it.",
    expected="0 at every position but BOS",
    means="The ablated value is still present.",
)  # fmt: skip
def ablated(setup: Setup) -> Outcome:
    step, point, row = replace(_step(setup, 0.5), action="ablate"), _point(setup), setup.prompts.rows[1]
    assert isinstance(step.target, Direction)
    value = capture(setup.model, row, [point], hooks=hooks_of(setup.model, [step]))[point].float()
    left = float((value[:, 1:] @ torch.from_numpy(step.target.vector).to(value)).abs().max()) / setup.known["norm"]
    return left < max(setup.same, 1e-3), f"at most {left:.2g} of the residual's norm is left"


@trial(
    "edits", "placebo",
    did="Steered by half the norm along two other random directions, and compared the changes of the distribution.",
    expected="no right value: the effect of any change of this size",
    means="",
)  # fmt: skip
def placebo(setup: Setup) -> Outcome:
    plain = setup.clean(setup.prompts.rows[1])[0, AT:].log_softmax(-1)
    kl = []
    for stream in ("first placebo", "second placebo"):
        placebo = _steered(setup, _step(setup, 0.5, stream=stream))[0, AT:].log_softmax(-1)
        kl.append(float((plain.exp() * (plain - placebo)).sum(-1).mean()))
    return None, f"a KL of {kl[0]:.2f} and {kl[1]:.2f} nats: an effect of steering has to be larger than that"


@trial(
    "edits", "generated steered",
    did="Generated three tokens while steering all positions, with the key-value cache, and steered the whole text.",
    expected="the same logits at every step",
    means="Steering while generating differs from steering a text: it starts late, or hits cached positions twice.",
)  # fmt: skip
def generated_steered(setup: Setup) -> Outcome:
    step, row = _step(setup, 0.5), setup.prompts.rows[0]
    offset, seen = Offset(), []
    next_token = NextToken(setup.model, hooks_of(setup.model, [step], offset=offset), offset=offset)

    def watched(tokens: Tensor) -> Tensor:
        seen.append(next_token(tokens))
        return seen[-1]

    written = torch.stack(list(generate(watched, row, 3)), 1)
    with intervened(setup.model, [step]):
        whole = setup.logits(torch.cat([row, written.to(row)], 1))
    return setup.alike(gap(torch.cat(seen).cpu(), whole[0, row.shape[1] - 1 : -1]))


@trial(
    "edits", "patched with itself",
    did="Replaced a head and all attention of the middle layer by their values in a run on the same prompt.",
    expected="the same logits",
    means="A patch changes something even where nothing differs.",
)  # fmt: skip
def patched_with_itself(setup: Setup) -> Outcome:
    row, layer = setup.prompts.rows[1], setup.model.cfg.n_layers // 2
    targets, words = [Component(name=f"L{layer}{part}") for part in ("H0", "ATTN")], tuple(row[0].tolist())
    steps = [Intervention(target=to, action="replace", other=words, positions=(0, None)) for to in targets]
    with intervened(setup.model, steps):
        patched = setup.logits(row)
    return setup.alike(gap(patched, setup.clean(row)))


@trial(
    "edits", "patched whole",
    did="Replaced the whole residual of the middle layer by that of another prompt.",
    expected="the logits of the other prompt",
    means="A patch is incomplete, or another path carries the prompt past it.",
)  # fmt: skip
def patched_whole(setup: Setup) -> Outcome:
    length = min(setup.prompts.rows[0].shape[1], setup.prompts.rows[1].shape[1])
    clean, corrupt, point = setup.prompts.rows[1][:, :length], setup.prompts.rows[0][:, :length], _point(setup)
    value = capture(setup.model, clean, [point])[point]
    with setup.model.hooks(fwd_hooks=[(point, inserting(value))]):
        patched = setup.logits(corrupt)
    return setup.alike(gap(patched, setup.logits(clean)))


@trial(
    "edits", "every row",
    did="Steered and ablated in one batch of three prompts of one length, and in each prompt alone.",
    expected="the same logits",
    means="An intervention reaches only some rows of a batch: effects averaged over prompts are too small.",
)  # fmt: skip
def every_row(setup: Setup) -> Outcome:
    rows = setup.prompts.rows[:3]
    length = min(row.shape[1] for row in rows)
    cut = torch.cat([row[:, :length] for row in rows])
    steps = [
        _step(setup, 0.5),
        Intervention(target=Component(name=f"L{setup.model.cfg.n_layers // 2}H0"), action="ablate"),
    ]
    with intervened(setup.model, steps):
        together, alone = setup.logits(cut), [setup.logits(row[None])[0] for row in cut]
    return setup.alike(max(gap(ours, theirs) for ours, theirs in zip(together, alone, strict=True)))
