"""Steering along a direction: its effect and its side effects by strength.

    point = "blocks.10.hook_resid_post"
    sweep = sweep_strengths(model, point, direction, unit=..., prompts=..., targets=..., text=...)

A multiple of the direction is added to the residual stream (activation addition). Two measures per strength: the
*effect* on the log-odds of the target tokens as the next token after the prompts, and the *side effect* on the loss on
unrelated text, steered at every position. Both are changes from the unsteered model, with 95 % intervals over prompts
and over documents. The control is steering along random directions: a direction matters if, at a harmless strength, its
effect exceeds theirs.

The *chosen strength* is the harmless one with the largest effect on half of the prompts (numbers 0, 2, ...) and of the
documents. It is judged on the other half: the largest of several noisy effects is too large where it was chosen.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int
from numpy.typing import ArrayLike
from torch import Tensor

from interp.errors import ConfigError, MismatchError, NonFiniteError, PromptError
from interp.geometry.points import as_array, as_numbers, check_count, unit_vector
from interp.geometry.sweeps import HARMLESS, StrengthSweep
from interp.interventions.arms import Arms, positions_from, prefix_of, random_directions, read_arms
from interp.models.adapter import bos_token_id, to_tokens
from interp.models.hooked import HookedModel
from interp.models.passes import token_losses
from interp.nulls import SHOWN
from interp.statistics import Interval, t_interval


@torch.no_grad()
def sweep_strengths(
    model: HookedModel,
    hook_point: str,
    direction: np.ndarray | Tensor,
    *,
    unit: float,
    prompts: Sequence[str],
    targets: Sequence[int] | np.ndarray,
    text: Sequence[str],
    strengths: Sequence[float] | np.ndarray = (-0.5, 0.0, 0.1, 0.25, 0.5, 1.0),
    n_random: int = SHOWN,
    seed: int = 0,
) -> StrengthSweep:
    """Steer along `direction [d]`; a strength of 1 adds `unit` times the unit vector at every position but BOS.

    `unit` is usually `ConceptDirection.distance`. `targets` are token ids (duplicates count once), `text` documents of
    two tokens or more. Raises `ConfigError` when one of them is empty, or the direction zero; `NonFiniteError`;
    `MismatchError` on a direction of another width than the hook point; `UnknownNameError` for a hook point that the
    model does not have; `PromptError`.
    """
    strengths = _strengths(strengths, unit)
    if isinstance(prompts, str) or isinstance(text, str) or not (len(prompts) and len(text)):
        raise ConfigError("expected a list of prompts and one of text, got a single string or an empty list")
    targets = _token_ids(targets, model.cfg.d_vocab)
    check_count("n_random", n_random, 1, "random directions are the control of an effect")
    prompt_tokens, document_tokens = [to_tokens(model, p) for p in prompts], [to_tokens(model, t) for t in text]
    first = int(bos_token_id(model) is not None)
    if min(tokens.shape[1] for tokens in document_tokens) < first + 2:
        raise PromptError("expected documents of two tokens or more, one has fewer: give longer text")
    direction = _unit_vector(direction, model, hook_point, prompt_tokens[0])
    vectors = np.concatenate([direction[None], random_directions(len(direction), n_random, seed)])
    amounts = torch.tensor(strengths, dtype=torch.float64).repeat(len(vectors)) * unit
    arms = Arms(hook_point, torch.from_numpy(vectors).repeat_interleave(len(strengths), 0), amounts)
    odds, losses = _measure(model, prompt_tokens, document_tokens, targets, arms)
    shape = (len(vectors), len(strengths), -1)
    effects, side_effects = ((values[1:] - values[0]).reshape(shape) for values in (odds, losses))
    choice = choose_strength(np.array(strengths), effects, side_effects)
    return StrengthSweep(
        hook_point=hook_point,
        strengths=strengths,
        unit=float(unit),
        effect=t_interval(effects[0]),
        side_effect=t_interval(side_effects[0]),
        random_effect=effects[1:].mean(-1),
        random_side_effect=side_effects[1:].mean(-1),
        chosen=choice.chosen,
        judged_effect=choice.judged_effect,
        judged_side_effect=choice.judged_side_effect,
        judged_random=choice.judged_random,
        n_judging=choice.n_judging,
        baseline=float(np.mean(1 / (1 + np.exp(-odds[0])))),
        n_prompts=len(prompts),
        n_tokens=sum(tokens.shape[1] - 1 for tokens in document_tokens),
        seed=seed,
    )


class StrengthChoice(NamedTuple):
    """Index of the chosen strength, and its judgement; NaN where none was chosen."""

    chosen: int | None
    judged_effect: Interval[float]
    judged_side_effect: Interval[float]
    judged_random: Float64[np.ndarray, " n_random"]
    n_judging: int


def choose_strength(
    strengths: Float64[np.ndarray, " n"],
    effects: Float64[np.ndarray, "directions n prompts"],
    side_effects: Float64[np.ndarray, "directions n documents"],
) -> StrengthChoice:
    """Choose a strength of direction 0 on even-numbered prompts and documents; measure it on the others.

    The chosen one has the largest effect of those above 0 whose side effect is at most `HARMLESS`.
    """
    unmeasured, n_judging = Interval(np.nan, np.nan, np.nan), effects.shape[2] // 2
    none = StrengthChoice(None, unmeasured, unmeasured, np.full(len(effects) - 1, np.nan), n_judging)
    if min(effects.shape[2], side_effects.shape[2]) < 2:
        return none._replace(n_judging=0)
    effect, harm = effects[0, :, ::2].mean(-1), side_effects[0, :, ::2].mean(-1)
    harmless = np.flatnonzero((harm <= HARMLESS) & (strengths > 0))
    if not len(harmless):
        return none
    chosen = int(harmless[effect[harmless].argmax()])
    return StrengthChoice(
        chosen,
        judged_effect=t_interval(effects[0, :, 1::2]).at(chosen),
        judged_side_effect=t_interval(side_effects[0, :, 1::2]).at(chosen),
        judged_random=effects[1:, chosen, 1::2].mean(-1),
        n_judging=n_judging,
    )


def _strengths(strengths: ArrayLike, unit: float) -> tuple[float, ...]:
    values, length = as_numbers(strengths, what="the strengths"), float(unit)
    if values.ndim != 1 or not len(values) or length <= 0:
        raise ConfigError(f"expected a list of strengths and a unit above 0, got {values.tolist()} and {length}")
    if not np.isfinite([*values, length]).all():
        raise NonFiniteError(
            f"strengths and unit must be finite, got {values.tolist()} and {length}; leave out the NaN"
        )
    return tuple(values.tolist())


def _token_ids(targets: ArrayLike, d_vocab: int) -> list[int]:
    """Check token ids and remove duplicates."""
    ids = as_array(targets, what="the targets")
    if not ids.size or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= d_vocab:
        raise ConfigError(
            f"targets are token ids from 0 to {d_vocab - 1}, got {targets}; to_tokens gives those of a text"
        )
    return np.unique(ids).tolist()


def _unit_vector(
    direction: ArrayLike, model: HookedModel, hook_point: str, tokens: Int[Tensor, "1 pos"]
) -> Float64[np.ndarray, " d"]:
    """Scale the direction to unit length; its width must be that of the hook point."""
    from interp.models.adapter import run_with_cache

    vector = as_numbers(direction, what="the direction")
    [value] = run_with_cache(model, tokens, [hook_point])[1].values()
    if value.shape[2:] != vector.shape:
        raise MismatchError(
            f"{hook_point} holds {list(value.shape[2:])} numbers at every position, the direction is "
            f"{list(vector.shape)}; give one of the same hook point"
        )
    return unit_vector(vector)


def _measure(
    model: HookedModel, prompted: list[Tensor], documents: list[Tensor], targets: list[int], arms: Arms
) -> tuple[Float64[np.ndarray, "arms prompts"], Float64[np.ndarray, "arms documents"]]:
    """Return log-odds of the targets as the next token, and the loss per token: unsteered first, then of every arm."""

    def log_odds(logits: Tensor) -> Tensor:
        inside = logits[:, 0, 0].cpu().double().log_softmax(-1)[:, targets].logsumexp(-1)
        return inside - torch.log(-torch.expm1(inside.clamp(max=-1e-12)))

    def values(tokens: Tensor, read: Callable[[Tensor], Tensor], first: int) -> Tensor:
        prefix, _ = prefix_of(model, tokens, arms)
        return read_arms(model, prefix, arms, read, at=positions_from(tokens, first))

    def losses(tokens: Tensor) -> Tensor:
        return values(tokens, lambda logits: token_losses(logits[:, 0], tokens.expand(len(logits), -1)).mean(-1), 0)

    odds = torch.stack([values(tokens, log_odds, -1) for tokens in prompted], 1)
    return odds.numpy(), torch.stack([losses(tokens) for tokens in documents], 1).double().numpy()
