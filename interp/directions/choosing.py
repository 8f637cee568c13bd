"""Layers and strengths tried on one half of the questions; the chosen cell judged on the other.

    choice = choose_steering(model, candidates, questions, neutral_text(model, TEXT), config=config)

A pass begins after the block that is steered, with all strengths of a layer in one batch; at most `PASS_TOKENS` tokens
run at once. Random directions of the same length are the null of every cell, and 99 of them of the chosen one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from interp.directions.choice import Damage, Judged, Sample, SteeringChoice, chosen_cell
from interp.directions.config import DirectionConfig
from interp.directions.questions import Questions
from interp.directions.sides import Sides
from interp.errors import ConfigError
from interp.interventions.apply import hooks_of
from interp.interventions.edits import adding
from interp.interventions.intervention import Action, Direction, Intervention, everywhere, stream_points
from interp.models.adapter import Hook, bos_token_id, to_tokens, token_strings
from interp.models.generation import NextToken, Offset, generate
from interp.models.hooked import HookedModel
from interp.models.passes import block_after, capture, run_from, token_losses
from interp.names import canonical_hook_point
from interp.patching.task import read_hook
from interp.progress import Progress
from interp.runtime import make_generator
from interp.statistics import t_interval

N_SAMPLES, SAMPLE_TOKENS = 3, 24
N_DAMAGED = 9
"""Random directions whose damage is measured, among those that judge."""
PASS_TOKENS, PASS_LOGITS = 2048, 768
"""Tokens of a pass, and logits that are in memory together (each `d_vocab` numbers)."""


@dataclass(frozen=True)
class Candidate:
    """A direction at one hook point."""

    hook_point: str
    vector: Float64[np.ndarray, " d"]
    """unit length"""
    unit: float
    """length of strength 1"""
    start: float = 0.0
    """`set`: coordinate of strength 0"""


def candidate(sides: Sides, hook_point: str, find: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Candidate:
    """Return the direction of the rows that are not held out; strength 1 is the distance of the two means along it."""
    x, yes = sides.points[hook_point][~sides.heldout], sides.yes[~sides.heldout]
    vector = find(x, yes)
    along = x @ vector
    unit = float(along[yes].mean() - along[~yes].mean())
    if not unit > 0:
        raise ConfigError(f"the two sides have the same mean along the direction at {hook_point}; give other examples")
    return Candidate(hook_point, vector, unit, float(along[~yes].mean()))


def spread_layers(model: HookedModel, n: int = 6) -> list[str]:
    """Return up to `n` hook points after blocks, evenly spread from a sixth to three quarters of the depth.

    A direction that is added in the last quarter mostly raises tokens, whatever the text is about.
    """
    first, last = model.cfg.n_layers // 6, max(0, 3 * model.cfg.n_layers // 4 - 1)
    layers = np.unique(np.linspace(first, last, n).round().astype(int)) if n > 1 else [(first + last) // 2]
    return [f"blocks.{layer}.hook_resid_post" for layer in layers]


@torch.no_grad()
def choose_steering(
    model: HookedModel,
    candidates: Sequence[Candidate],
    questions: Questions,
    neutral: Questions,
    *,
    config: DirectionConfig | None = None,
    placebos: Float64[np.ndarray, "n d"] | None = None,
    placebo_at: str = "",
    progress: Progress | None = None,
) -> SteeringChoice:
    """Try every candidate at every strength, choose a cell, and judge it on the questions held out.

    Args:
        candidates: a direction at each hook point.
        questions, neutral: what the effect and the damage are measured on; even-numbered ones choose.
        config: the action, strengths, random directions, and the damage that may be chosen.
        placebos: directions of a dictionary at the hook point `placebo_at`, of any length, drawn without regard to the
            question.

    Raises `ConfigError` for no candidates, or fewer than two questions a half.
    """
    config = config or DirectionConfig()
    action, n_random, seed = config.action, config.n_random, config.seed
    strengths = (1.0,) if action == "ablate" else config.strengths
    if not candidates:
        raise ConfigError("no hook point was given to steer at")
    choosing, judging, docs = questions.half(0), questions.half(1), neutral.half(0)
    if len(judging) < 2:
        raise ConfigError(f"{len(questions)} questions are too few: half of them choose, half judge; give 4 or more")
    sign = -1.0 if action == "ablate" else 1.0
    done, total = 0, 2 * len(candidates) + 1

    def step(facts: str) -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total, {"now": facts})

    shape = (len(candidates), len(strengths))
    effect, damage, wrong = (np.empty(shape) for _ in range(3))
    random = np.full((*shape, n_random), np.nan)  # of cells that may be chosen
    for i, each in enumerate(candidates):
        cells = _cells(each, action, strengths)
        moved = sign * _effects(model, each.hook_point, choosing, cells)
        effect[i], wrong[i] = moved.mean(1), (moved < 0).mean(1)
        damage[i] = -_effects(model, each.hook_point, docs, cells).mean(1)
        step(f"effect and damage at {each.hook_point}")
        possible = np.flatnonzero((damage[i] <= config.harmless) & (effect[i] > 0))
        if len(possible):
            drawn = _random(len(each.vector), n_random, seed, each.hook_point)
            random[i, possible] = sign * _random_effects(
                model, each, choosing, action, [strengths[j] for j in possible], drawn
            )
        step(f"random directions at {each.hook_point}")
    chosen = chosen_cell(effect, damage, random, config.harmless)
    judged = None
    if chosen is not None:
        along, strength = candidates[chosen[0]], strengths[chosen[1]]
        others = np.empty((0, len(along.vector)))
        if placebos is not None and placebo_at == along.hook_point:
            others = placebos
        judged = _judge(model, along, strength, action, judging, neutral.half(1), others, config.n_judging, seed)
    step("the other half")
    return SteeringChoice(
        action=action, asked=questions.asked, measured_in=questions.measured_in,
        hook_points=tuple(each.hook_point for each in candidates), strengths=strengths,
        units=tuple(each.unit for each in candidates), effect=effect, damage=damage, wrong=wrong, random_effect=random,
        harmless=config.harmless, chosen=chosen, judged=judged, n_questions=len(choosing), seed=seed,
    )  # fmt: skip


def intervention_of(along: Candidate, strength: float, action: Action, origin: str) -> Intervention:
    """Return a cell as an intervention; `ablate` is that of its own hook point."""
    vector = along.vector.astype(np.float64)
    amount = {"add": strength * along.unit, "set": along.start + strength * along.unit, "ablate": 0.0}[action]
    target = Direction(hook_point=along.hook_point, vector=vector, origin=origin)
    return Intervention(target=target, action=action, amount=float(amount))


@dataclass(frozen=True)
class _Cells:
    """Changes along unit vectors, one for each row of a batch."""

    action: Action
    vectors: Float[Tensor, "cells d"]
    amounts: Float[Tensor, " cells"]

    def change(self, value: Tensor, first: int) -> Tensor:
        """Return what is added to values `[cells * n, pos, d]`, at positions from `first` on."""
        n = len(value) // len(self.vectors)
        vectors = self.vectors.to(value).repeat_interleave(n, 0)[:, None]
        amounts = self.amounts.to(value).repeat_interleave(n)[:, None, None]
        if self.action != "add":
            amounts = (amounts if self.action == "set" else 0.0) - (value * vectors).sum(-1, keepdim=True)
        added = (amounts * vectors).expand_as(value).clone()
        added[:, :first] = 0
        return added

    def part(self, at: slice) -> "_Cells":
        return _Cells(self.action, self.vectors[at], self.amounts[at])

    def __len__(self) -> int:
        return len(self.vectors)


def _cells(along: Candidate, action: Action, strengths: Sequence[float]) -> _Cells:
    amounts = torch.tensor(strengths, dtype=torch.float32) * along.unit + (along.start if action == "set" else 0.0)
    vectors = torch.from_numpy(along.vector).float().expand(len(strengths), -1)
    return _Cells(action, vectors, amounts)


def _random_effects(
    model: HookedModel,
    along: Candidate,
    asked: Questions,
    action: Action,
    strengths: Sequence[float],
    drawn: np.ndarray,
) -> Float64[np.ndarray, "strengths n_random"]:
    """Return the mean effect along random directions `[n_random, d]` of the same lengths."""
    each = [_cells(Candidate(along.hook_point, vector, along.unit), action, strengths) for vector in drawn]
    both = _Cells(action, torch.cat([one.vectors for one in each]), torch.cat([one.amounts for one in each]))
    return _effects(model, along.hook_point, asked, both).mean(1).reshape(len(drawn), -1).T


def _effects(model: HookedModel, hook_point: str, asked: Questions, cells: _Cells) -> Float64[np.ndarray, "cells n"]:
    """Return the change of every answer in every cell from the unchanged model."""
    rows = len(asked.tokens)
    per_row = max(1, min(PASS_TOKENS // asked.tokens.shape[1], PASS_LOGITS // asked.at.shape[1]))
    size = min(rows, per_row)
    found = [
        _of_rows(model, hook_point, asked, slice(at, at + size), cells, max(1, per_row // size))
        for at in range(0, rows, size)
    ]
    return asked.answers(torch.cat(found, 1)).numpy()


def _of_rows(
    model: HookedModel, hook_point: str, asked: Questions, at: slice, cells: _Cells, together: int
) -> Float[Tensor, "cells rows"]:
    """Return the change of some rows' answers, `together` cells in a pass."""
    device, first = model.cfg.device, int(bos_token_id(model) is not None)
    part = Questions(asked.tokens[at].to(device), asked.at[at].to(device), asked.ids[at], asked.counts[at], asked.words)
    point = canonical_hook_point(hook_point)
    layer = block_after(model, point)
    before: Tensor = part.tokens
    if layer is not None and cells.action != "ablate":
        before = capture(model, part.tokens, [point])[point]

    def passed(some: _Cells | None) -> Tensor:
        n = 1 if some is None else len(some)
        value = before.repeat(n, *[1] * (before.ndim - 1))
        hooks: list[tuple[str, Hook]] = []
        if some is not None and value.is_floating_point():
            value = value + some.change(value, first)
        elif some is not None:
            points = [point] if some.action != "ablate" else stream_points(model.cfg.n_layers)
            hooks = [(name, adding(partial(some.change, first=first))) for name in points]
        hooks.append(read_hook(part.at.repeat(n, 1)))
        logits = run_from(model, value, hooks, layer=(layer or 0) if value.is_floating_point() else 0)
        assert logits is not None  # only a pass with `until` has none
        return part.read(logits.unflatten(0, (n, -1)).cpu())

    plain = passed(None)
    return torch.cat([passed(cells.part(slice(i, i + together))) for i in range(0, len(cells), together)]) - plain


def _random(d: int, n: int, seed: int, *purpose: str) -> Float64[np.ndarray, "n d"]:
    drawn = torch.randn(n, d, generator=make_generator(seed, "random directions", *purpose), dtype=torch.float64)
    return (drawn / drawn.norm(dim=1, keepdim=True)).numpy()


def _judge(
    model: HookedModel, along: Candidate, strength: float, action: Action, asked: Questions, neutral: Questions,
    placebos: np.ndarray, n_random: int, seed: int,
) -> Judged:  # fmt: skip
    """Measure the chosen cell and its controls on what did not choose it."""
    point, sign = along.hook_point, -1.0 if action == "ablate" else 1.0
    random = _random(len(along.vector), n_random, seed, "judging")
    lengths = np.linalg.norm(placebos, axis=1, keepdims=True)
    vectors = np.concatenate([along.vector[None], random, placebos / np.where(lengths > 0, lengths, 1.0)])
    one = _cells(along, action, [strength]).amounts
    starts = one.repeat(len(vectors))
    if action == "set":
        starts[1:] = strength * along.unit
    cells = _Cells(action, torch.from_numpy(vectors).float(), starts)
    effects = sign * _effects(model, point, asked, cells)
    damages = -_effects(model, point, neutral, cells.part(slice(0, 1 + min(n_random, N_DAMAGED))))
    samples, texts = _samples(model, along, strength, action, asked.prompts[:N_SAMPLES], random[0])
    return Judged(
        effect=t_interval(effects[0]),
        damage=t_interval(damages[0]),
        wrong=float((effects[0] < 0).mean()),
        random_effect=effects[1 : 1 + n_random].mean(1),
        random_damage=damages[1:].mean(1),
        placebo_effect=effects[1 + n_random :].mean(1),
        n_questions=effects.shape[1],
        samples=samples,
        plain=texts[0],
        steered=texts[1],
        random=texts[2],
    )


def _samples(
    model: HookedModel, along: Candidate, strength: float, action: Action, prompts: Sequence[str], random: np.ndarray
) -> tuple[tuple[Sample, ...], list[Damage]]:
    """Continue prompts unchanged, steered, and steered at random; say how repetitive and surprising the texts are."""
    other = Candidate(along.hook_point, random, along.unit, 0.0)
    steps = [None, *(intervention_of(each, strength, action, "chosen") for each in (along, other))]
    written: list[list[tuple[Tensor, int]]] = [[], [], []]
    for prompt in prompts:
        tokens = to_tokens(model, prompt or "The")
        n_new = max(0, min(SAMPLE_TOKENS, model.cfg.n_ctx - tokens.shape[1]))
        for kind, one in zip(written, steps, strict=True):
            kind.append((torch.cat([tokens, _continued(model, tokens, one, n_new)], 1), tokens.shape[1]))
    texts = [["".join(token_strings(model, ids[0, start:])) for ids, start in kind] for kind in written]
    samples = tuple(
        Sample(prompt=prompt, plain=plain, steered=steered, random=drawn)
        for prompt, plain, steered, drawn in zip(prompts, *texts, strict=True)
    )
    return samples, [_damage(model, kind) for kind in written]


def _continued(model: HookedModel, tokens: Tensor, step: Intervention | None, n_new: int) -> Tensor:
    """Return the `n_new` most likely tokens `[1, n_new]` after `tokens [1, pos]`, with an intervention.

    The ablation of a direction is done after every block, as in choosing.
    """
    offset = Offset()
    steps = [] if step is None else everywhere(step, model.cfg.n_layers)
    following = NextToken(model, hooks_of(model, steps, offset=offset), offset=offset)
    return torch.stack(list(generate(following, tokens, n_new)), 1) if n_new else tokens[:, :0]


def _damage(model: HookedModel, texts: Sequence[tuple[Tensor, int]]) -> Damage:
    repeated, surprise = [], []
    for ids, start in texts:
        row = ids[0, start:].tolist()
        threes = [tuple(row[i : i + 3]) for i in range(len(row) - 2)]
        repeated.append(1 - len(set(threes)) / len(threes) if threes else 0.0)
        surprise.append(float(token_losses(model(ids), ids)[0, start - 1 :].mean()) if row else 0.0)
    return Damage(repetition=float(np.mean(repeated or [0.0])), surprise=float(np.mean(surprise or [0.0])))
