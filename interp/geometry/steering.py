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
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from interp.errors import ConfigError, MismatchError, NonFiniteError, PromptError
from interp.geometry.points import as_array, as_numbers, check_count, unit_vector
from interp.geometry.sweeps import HARMLESS, StrengthSweep
from interp.interventions.edits import adding, from_position
from interp.models.hooked import HookedModel
from interp.seeds import make_generator
from interp.statistics import Interval, t_interval

BATCH_TOKENS = 512
"""tokens per forward pass, over all steered copies of one text: their logits are in memory together"""


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
    n_random: int = 2,
    seed: int = 0,
) -> StrengthSweep:
    """Steer along `direction [d]`; a strength of 1 adds `unit` times the unit vector at every position but BOS.

    `unit` is usually `ConceptDirection.distance`. `targets` are token ids (duplicates count once), `text` documents of
    two tokens or more. Raises `ConfigError` when one of them is empty, or the direction zero; `NonFiniteError`;
    `MismatchError` on a direction of another width than the hook point; `UnknownNameError` for a hook point that the
    model does not have; `PromptError`.
    """
    from interp.models.adapter import bos_token_id, to_tokens

    strengths = _strengths(strengths, unit)
    if isinstance(prompts, str) or isinstance(text, str) or not (len(prompts) and len(text)):
        raise ConfigError("expected a list of prompts and one of text, got a single string or an empty list")
    targets = _token_ids(targets, model.cfg.d_vocab)
    check_count("n_random", n_random, 1, "random directions are the control of an effect")
    prompted, documents = [to_tokens(model, p) for p in prompts], [to_tokens(model, t) for t in text]
    first = int(bos_token_id(model) is not None)
    if min(tokens.shape[1] for tokens in documents) < first + 2:
        raise PromptError("expected documents of two tokens or more, one has fewer: give longer text")
    direction = _unit_vector(direction, model, hook_point, prompted[0])
    units = [torch.from_numpy(direction)]
    generator = make_generator(seed, "random directions")
    for _ in range(n_random):
        drawn = torch.randn(len(direction), generator=generator, dtype=torch.float64)
        units.append(drawn / drawn.norm())
    added_vectors = torch.cat([along * (torch.tensor(strengths)[:, None] * unit) for along in units])
    added_vectors = torch.cat([torch.zeros(1, len(direction)), added_vectors])  # the first row is the unsteered model
    odds, losses = _measure(model, prompted, documents, targets, hook_point, added_vectors, first)
    shape = (len(units), len(strengths), -1)
    effects, side_effects = ((each[1:] - each[0]).reshape(shape) for each in (odds, losses))
    return StrengthSweep(
        hook_point=hook_point,
        strengths=strengths,
        unit=float(unit),
        effect=t_interval(effects[0]),
        side_effect=t_interval(side_effects[0]),
        random_effect=effects[1:].mean(-1),
        random_side_effect=side_effects[1:].mean(-1),
        **choose_strength(np.array(strengths), effects, side_effects),
        baseline=float(np.mean(1 / (1 + np.exp(-odds[0])))),
        n_prompts=len(prompts),
        n_tokens=sum(tokens.shape[1] - 1 for tokens in documents),
        seed=seed,
    )


def choose_strength(
    strengths: Float64[np.ndarray, " n"],
    effects: Float64[np.ndarray, "directions n prompts"],
    side_effects: Float64[np.ndarray, "directions n documents"],
) -> dict[str, Any]:
    """Choose a strength of direction 0 on even-numbered prompts and documents; measure it on the others.

    The chosen one has the largest effect of those above 0 whose side effect is at most `HARMLESS`. Returns the fields
    of `StrengthSweep` about the choice: the index `chosen` (None without such a strength), and what was judged.
    """
    nothing = Interval(np.nan, np.nan, np.nan)
    found = {
        "judged_effect": nothing,
        "judged_side_effect": nothing,
        "judged_random": np.full(len(effects) - 1, np.nan),
    }
    if min(effects.shape[2], side_effects.shape[2]) < 2:
        return found | {"chosen": None, "n_judging": 0}
    effect, harm = effects[0, :, ::2].mean(-1), side_effects[0, :, ::2].mean(-1)
    harmless = np.flatnonzero((harm <= HARMLESS) & (strengths > 0))
    chosen = int(harmless[effect[harmless].argmax()]) if len(harmless) else None
    if chosen is not None:
        found["judged_effect"] = t_interval(effects[0, :, 1::2]).at(chosen)
        found["judged_side_effect"] = t_interval(side_effects[0, :, 1::2]).at(chosen)
        found["judged_random"] = effects[1:, chosen, 1::2].mean(-1)
    return found | {"chosen": chosen, "n_judging": effects.shape[2] // 2}


def _strengths(strengths: Any, unit: float) -> tuple[float, ...]:
    values, length = as_numbers(strengths, what="the strengths"), float(unit)
    if values.ndim != 1 or not len(values) or length <= 0:
        raise ConfigError(f"expected a list of strengths and a unit above 0, got {values.tolist()} and {length}")
    if not np.isfinite([*values, length]).all():
        raise NonFiniteError(
            f"strengths and unit must be finite, got {values.tolist()} and {length}; leave out the NaN"
        )
    return tuple(values.tolist())


def _token_ids(targets: Any, d_vocab: int) -> list[int]:
    """Check token ids and remove duplicates."""
    ids = as_array(targets, what="the targets")
    if not ids.size or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= d_vocab:
        raise ConfigError(
            f"targets are token ids from 0 to {d_vocab - 1}, got {targets}; to_tokens gives those of a text"
        )
    return np.unique(ids).tolist()


def _unit_vector(
    direction: Any, model: HookedModel, hook_point: str, tokens: Int[Tensor, "1 pos"]
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
    model: HookedModel,
    prompted: list[Tensor],
    documents: list[Tensor],
    targets: list[int],
    hook_point: str,
    added_vectors: Float[Tensor, "n d"],
    first: int,
) -> tuple[Float64[np.ndarray, "n prompts"], Float64[np.ndarray, "n documents"]]:
    """Return log-odds of the targets as the next token, and the loss per token.

    One row for each added vector.
    """
    from interp.models.passes import token_losses

    def log_odds(logits: Tensor, _: Tensor) -> Tensor:
        inside = logits[:, -1].double().log_softmax(-1)[:, targets].logsumexp(-1)
        return inside - torch.log(-torch.expm1(inside.clamp(max=-1e-12)))

    def loss(logits: Tensor, tokens: Tensor) -> Tensor:
        return token_losses(logits, tokens).mean(-1)

    def measure(texts: list[Tensor], read: Callable[[Tensor, Tensor], Tensor]) -> np.ndarray:
        return torch.stack(
            [_read_steered(model, tokens, hook_point, added_vectors, first, read) for tokens in texts], 1
        ).numpy()

    return measure(prompted, log_odds), measure(documents, loss)


def _read_steered(
    model: HookedModel,
    tokens: Int[Tensor, "1 pos"],
    hook_point: str,
    added_vectors: Float[Tensor, "n d"],
    first: int,
    read: Callable[[Tensor, Tensor], Tensor],
) -> Float64[Tensor, " n"]:
    """Return what `read` computes from the logits of one text, per added vector."""
    from interp.models.adapter import run_with_hooks

    found = []
    for rows in added_vectors.split(max(1, BATCH_TOKENS // tokens.shape[1])):
        repeated = tokens.expand(len(rows), -1)
        logits = run_with_hooks(model, repeated, [(hook_point, from_position(adding(rows[:, None]), first))])
        found.append(read(logits, repeated).double().cpu())
    return torch.cat(found)
