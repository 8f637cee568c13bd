"""Layers and strengths tried on one half of the questions; the chosen cell judged on the other.

    choice = choose_steering(model, candidates, questions, neutral_text(model, TEXT), config=config)

All strengths of a layer run in one batch. Random directions of the same length are the null of every cell, and more of
them that of the chosen one (`DirectionConfig`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from interp.directions._samples import continuations_of
from interp.directions.choice import Damage, JudgedCell, Sample, SteeringChoice, chosen_cell
from interp.directions.config import DirectionConfig
from interp.directions.questions import Questions
from interp.directions.sides import Sides
from interp.errors import ConfigError
from interp.interventions.arms import Arms, random_directions
from interp.interventions.intervention import Action
from interp.models.adapter import to_tokens, token_strings
from interp.models.hooked import HookedModel
from interp.models.passes import token_losses
from interp.nulls import PER_PART
from interp.progress import Progress
from interp.statistics import t_interval

N_SHOWN = 3
"""Prompts whose most likely continuations are kept."""


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

    def arms(self, action: Action, strengths: Sequence[float]) -> Arms:
        """Return an arm for each strength."""
        amounts = torch.tensor(strengths, dtype=torch.float32) * self.unit + (self.start if action == "set" else 0.0)
        vectors = torch.from_numpy(self.vector).float().expand(len(strengths), -1)
        return Arms(self.hook_point, vectors, amounts, action)

    def nulls(self, action: Action, strengths: Sequence[float], drawn: Float64[np.ndarray, "n d"]) -> Arms:
        """Return an arm for each strength along each random direction of unit length, from the same unit."""
        vectors = torch.from_numpy(drawn).float().repeat_interleave(len(strengths), 0)
        amounts = torch.tensor(strengths, dtype=torch.float32).repeat(len(drawn)) * self.unit
        return Arms(self.hook_point, vectors, amounts, action)


def candidate(sides: Sides, hook_point: str, find: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Candidate:
    """Return the direction of the rows that are not held out; strength 1 is the distance of the two means along it."""
    x, yes = sides.points[hook_point][~sides.heldout], sides.yes[~sides.heldout]
    vector = find(x, yes)
    along = x @ vector
    unit = float(along[yes].mean() - along[~yes].mean())
    if not unit > 0:
        raise ConfigError(f"the two sides have the same mean along the direction at {hook_point}; give other examples")
    return Candidate(hook_point, vector, unit, float(along[~yes].mean()))


def spread_layers(model: HookedModel, n: int = 6, *, until: float = 0.75) -> list[str]:
    """Return up to `n` hook points after blocks, evenly spread from a sixth of the depth until some fraction of it.

    A direction that is added in the last quarter mostly raises tokens, whatever the text is about.
    """
    first, last = model.cfg.n_layers // 6, max(0, int(until * model.cfg.n_layers) - 1)
    layers = np.unique(np.linspace(first, last, n).round().astype(int)) if n > 1 else [(first + last) // 2]
    return [f"blocks.{layer}.hook_resid_post" for layer in layers]


class _Count:
    """Progress in tokens of passes. A stage plans those of all its cells, and counts the ones that it skips as done."""

    def __init__(self, progress: Progress | None, planned: Sequence[int]):
        self._progress, self._planned, self._stage, self._done = progress, planned, 0, 0

    def passes(self, name: str, questions: Questions, n_arms: int) -> Callable[[int], None]:
        """Return a function that counts the tokens of passes and names the arm; the unchanged model is the first."""
        begun = self._done

        def count(tokens: int) -> None:
            self._done += tokens
            arm = min((self._done - begun) // max(1, questions.n_tokens), n_arms)
            self.report(f"{name}: {arm} of {n_arms}" if arm else name)

        self.report(name)
        return count

    def report(self, now: str) -> None:
        """Report how far all stages are, with a text."""
        if self._progress:
            ended, reached = (sum(self._planned[:n]) for n in (self._stage, self._stage + 1))
            self._progress(min(ended + self._done, reached), sum(self._planned), {"now": now})

    def end(self) -> None:
        """End the stage."""
        self._stage, self._done = self._stage + 1, 0


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
        progress: called after every pass with the tokens of passes that are done, those of all cells, and the arm.

    Raises `ConfigError` for no candidates, or fewer than two questions a half.
    """
    config = config or DirectionConfig()
    action, seed, n_random, n_judging = config.action, config.seed, config.n_random, config.n_judging
    strengths = (1.0,) if action == "ablate" else config.strengths
    if not candidates:
        raise ConfigError("no hook point was given to steer at")
    choosing, judging, neutral_half = questions.half(0), questions.half(1), neutral.half(0)
    if len(judging) < 2:
        raise ConfigError(f"{len(questions)} questions are too few: half of them choose, half judge; give 4 or more")
    sign = -1.0 if action == "ablate" else 1.0
    per_layer = [(1 + len(strengths)) * (neutral_half.n_tokens + choosing.n_tokens),
                 (1 + len(strengths) * n_random) * choosing.n_tokens]  # fmt: skip
    placebo = np.empty((0, 0)) if placebos is None else placebos
    count = _Count(progress, [*per_layer * len(candidates), (2 + n_judging + len(placebo)) * judging.n_tokens])

    shape = (len(candidates), len(strengths))
    effect, damage, wrong = (np.full(shape, np.nan) for _ in range(3))
    random = np.full((*shape, n_random), np.nan)  # of cells that may be chosen
    for i, along in enumerate(candidates):
        arms, at = along.arms(action, strengths), f"at {along.hook_point}"
        damage[i] = -neutral_half.effects(model, arms, count.passes(f"damage {at}", neutral_half, len(arms))).mean(1)
        moved = sign * choosing.effects(model, arms, count.passes(f"effect {at}", choosing, len(arms)))
        effect[i], wrong[i] = moved.mean(1), (moved < 0).mean(1)
        count.end()
        possible = np.flatnonzero((damage[i] <= config.harmless) & (effect[i] > 0))
        if len(possible):
            drawn = random_directions(len(along.vector), n_random, seed, along.hook_point)
            null = along.nulls(action, [strengths[j] for j in possible], drawn)
            passes = count.passes(f"random directions {at}", choosing, len(null))
            random[i, possible] = sign * choosing.effects(model, null, passes).mean(1).reshape(n_random, -1).T
        count.end()
    chosen = chosen_cell(effect, damage, random, config.harmless)
    judged = None
    if chosen is not None:
        along, strength = candidates[chosen[0]], strengths[chosen[1]]
        controls = random_directions(len(along.vector), n_judging, seed, "judging")
        if len(placebo) and placebo_at == along.hook_point:
            controls = np.concatenate([controls, placebo])
        arms = _judged_arms(along, action, strength, controls)
        judged = _judged(model, arms, config, judging, neutral.half(1), count)
    count.end()
    count.report("judged on the other half" if judged else "nothing chosen")
    return SteeringChoice(
        action=action, question=questions.question, measured_in=questions.measured_in,
        hook_points=tuple(along.hook_point for along in candidates), strengths=strengths,
        units=tuple(along.unit for along in candidates), effect=effect, damage=damage, wrong=wrong,
        random_effect=random, harmless=config.harmless, chosen=chosen, judged=judged, n_questions=len(choosing),
        seed=seed,
    )  # fmt: skip


def _judged_arms(along: Candidate, action: Action, strength: float, others: np.ndarray) -> Arms:
    """Return the chosen cell, and the same change along other vectors `[n, d]` of any length."""
    arms = along.arms(action, [strength])
    lengths = np.linalg.norm(others, axis=1, keepdims=True)
    vectors = np.concatenate([along.vector[None], others / np.where(lengths > 0, lengths, 1.0)])
    amounts = arms.amounts.repeat(len(vectors))
    if action == "set":
        amounts[1:] = strength * along.unit
    return replace(arms, vectors=torch.from_numpy(vectors).float(), amounts=amounts)


def _judged(
    model: HookedModel,
    arms: Arms,
    config: DirectionConfig,
    questions: Questions,
    neutral: Questions,
    count: _Count,
) -> JudgedCell:
    """Measure the chosen cell and its controls, random directions and then placebos, on the other half."""
    sign, n_random = -1.0 if arms.action == "ablate" else 1.0, config.n_judging
    few = arms.part(slice(0, 1 + min(n_random, PER_PART)))
    effects = sign * questions.effects(model, arms, count.passes("judging on the other half", questions, len(arms)))
    damages = -neutral.effects(model, few)
    samples, texts = _shown(model, arms.part(slice(0, 2)), questions.prompts[:N_SHOWN])
    return JudgedCell(
        effect=t_interval(effects[0]), damage=t_interval(damages[0]), wrong=float((effects[0] < 0).mean()),
        random_effect=effects[1 : 1 + n_random].mean(1), random_damage=damages[1:].mean(1),
        placebo_effect=effects[1 + n_random :].mean(1), n_questions=effects.shape[1], samples=samples,
        plain=texts[0], steered=texts[1], random=texts[2],
    )  # fmt: skip


def _shown(model: HookedModel, arms: Arms, prompts: Sequence[str]) -> tuple[tuple[Sample, ...], list[Damage]]:
    """Continue prompts unchanged, steered, and steered at random; say how repetitive and surprising the texts are."""
    tokens = [to_tokens(model, prompt or "The")[0] for prompt in prompts]
    written = [*continuations_of(model, tokens, None), *continuations_of(model, tokens, arms)]
    texts = [["".join(token_strings(model, ids)) for ids in kind] for kind in written]
    samples = tuple(
        Sample(prompt=prompt, plain=plain, steered=steered, random=drawn)
        for prompt, plain, steered, drawn in zip(prompts, *texts, strict=True)
    )
    return samples, [_damage(model, list(zip(tokens, kind, strict=True))) for kind in written]


def _damage(model: HookedModel, texts: Sequence[tuple[Tensor, Tensor]]) -> Damage:
    """Return repetition and surprise of continuations, each after its prompt."""
    repeated, surprise = [], []
    for prompt, new in texts:
        row = new.tolist()
        threes = [tuple(row[i : i + 3]) for i in range(len(row) - 2)]
        repeated.append(1 - len(set(threes)) / len(threes) if threes else 0.0)
        ids = torch.cat([prompt, new.to(prompt)])[None]
        surprise.append(float(token_losses(model(ids), ids)[0, len(prompt) - 1 :].mean()) if row else 0.0)
    return Damage(repetition=float(np.mean(repeated or [0.0])), surprise=float(np.mean(surprise or [0.0])))
