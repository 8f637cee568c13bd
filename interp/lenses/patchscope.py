"""Patchscopes: a model writes about an activation that is set into another prompt (Ghandeharioun et al. 2024).

1. Write a target prompt with `{}` where the activation goes, such as `cat -> cat; hello -> hello; {}`.
2. Set the hook point at that token to the activation.
3. Let the model continue. What it writes is a reading of the activation; `interp.lenses.judge_readings` says whether it
   comes from the activation.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from interp.errors import PromptError
from interp.interventions.edits import at_mask, inserting
from interp.lenses.judged_readings import TARGETS
from interp.models.adapter import available_hook_points, bos_token_id, to_tokens, token_strings
from interp.models.generation import NextToken, Offset, check_room, generate
from interp.models.hooked import HookedModel
from interp.names import check_hook_points


def target_tokens(model: HookedModel, prompt: str, filled: str = "?") -> tuple[Int64[Tensor, "1 pos"], int]:
    """Return the tokens of a target prompt, BOS first, and the position of `{}`, which is filled with a text.

    Raises `PromptError` for a prompt without exactly one `{}`.
    """
    before, mark, after = prompt.partition("{}")
    if not mark or "{}" in after:
        raise PromptError(f"a target prompt has one {{}}, where the activation goes, got {prompt!r}")
    space = " " * before.endswith(" ")
    parts = [before.rstrip(" "), f"{space}{filled}"]
    ids = [to_tokens(model, part, prepend_bos=False)[0].tolist() for part in parts if part]
    bos, opening = bos_token_id(model), [token for part in ids for token in part]
    opening = opening if bos is None else [bos, *opening]
    closing = to_tokens(model, after, prepend_bos=False)[0].tolist() if after else []
    return torch.tensor([[*opening, *closing]], device=model.cfg.device), len(opening) - 1


def patchscope(
    model: HookedModel,
    rows: Float[Tensor, "n d"] | None,
    hook_point: str,
    prompt: str = TARGETS["identity"],
    *,
    n_new: int = 8,
    filled: str = "?",
    batch_size: int = 64,
    done: Callable[[int], None] = lambda n: None,
) -> list[str]:
    """Return what the model writes after a target prompt with an activation in it, for each activation.

    Args:
        model: writes; greedily, so that nothing is drawn.
        rows: activations; None for the target prompt as it is, the empty control, which gives one text.
        hook_point: value of the target prompt that is set, of the width of the rows.
        prompt: the target prompt, with one `{}`.
        n_new: tokens to write.
        filled: text at `{}`, whose last token the activation replaces.
        batch_size: activations in a pass.
        done: called with the number of activations read so far.
    Raises:
        PromptError: a prompt without `{}`, or too long.
        UnknownNameError: a hook point that the model lacks.

    >>> len(patchscope(model, model.W_E[:2].detach(), "blocks.0.hook_resid_post", "a a b b {}", n_new=2))
    2
    """
    check_hook_points([hook_point], available_hook_points(model), model.cfg.n_layers)
    tokens, at = target_tokens(model, prompt, filled)
    check_room(model, tokens, n_new)
    texts: list[str] = []
    for batch in [None] if rows is None else rows.split(batch_size):
        ids = _continued(model, tokens, at, hook_point, batch, n_new)
        texts += ["".join(token_strings(model, written)) for written in ids]
        done(len(texts))
    return texts


def _continued(
    model: HookedModel, tokens: Tensor, at: int, hook_point: str, rows: Tensor | None, n_new: int
) -> Int64[Tensor, "n n_new"]:
    """Return the tokens written after a target prompt with each of `rows [n, d]` at a position; what stands before it
    is read once for all."""
    n, offset, hooks = 1 if rows is None else len(rows), Offset(), []
    if rows is not None:
        source = rows.to(model.cfg.device)[:, None]
        setting = inserting(lambda value: source if len(value) == n else value)  # not in the pass before `at`
        hooks = [(hook_point, at_mask(setting, lambda value: offset.positions(value.shape[1]) == at))]
    step = NextToken(model, hooks, offset=offset)
    if at:
        step(tokens[:, :at])
        step.select(torch.zeros(n, dtype=torch.long, device=tokens.device))
    return torch.stack([*generate(step, tokens.expand(n, -1), n_new)], 1)
