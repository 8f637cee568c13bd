"""Text that a model writes while it is steered: the most likely continuations of prompts."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from interp.interventions.arms import Arms
from interp.models.generation import NextToken, Offset, generate
from interp.models.hooked import HookedModel

SAMPLE_TOKENS = 24
"""Tokens of a sample."""
SAMPLE_ROWS = 128
"""Samples that are written together."""


@torch.no_grad()
def continuations_of(
    model: HookedModel, prompts: Sequence[Int[Tensor, " pos"]], arms: Arms | None
) -> list[list[Int[Tensor, " new"]]]:
    """Return what follows every prompt in every arm, up to `SAMPLE_TOKENS` tokens or the context's end; without arms
    unsteered.
    """
    n_arms = 1 if arms is None else len(arms)
    continued = [[torch.zeros(0, dtype=torch.long)] * len(prompts) for _ in range(n_arms)]
    for members in _of_one_length(prompts):
        rows = torch.stack([prompts[i] for i in members])
        together = max(1, SAMPLE_ROWS // len(rows))
        for at in range(0, n_arms, together):
            new = _written(model, rows, None if arms is None else arms.part(slice(at, at + together)))
            for arm, texts in enumerate(new.unflatten(0, (-1, len(rows))), at):
                for number, ids in zip(members, texts, strict=True):
                    continued[arm][number] = ids
    return continued


def _of_one_length(prompts: Sequence[Tensor]) -> Iterator[list[int]]:
    """Yield the numbers of prompts of the same length, at most `SAMPLE_ROWS` at a time."""
    for length in sorted(set(map(len, prompts))):
        members = [i for i, ids in enumerate(prompts) if len(ids) == length]
        for at in range(0, len(members), SAMPLE_ROWS):
            yield members[at : at + SAMPLE_ROWS]


def _written(model: HookedModel, rows: Tensor, arms: Arms | None) -> Int[Tensor, "rows new"]:
    """Continue `rows [n, pos]` in every arm: `[arms * n, new]`, the rows of an arm together."""
    n_new = max(0, min(SAMPLE_TOKENS, model.cfg.n_ctx - rows.shape[1]))
    tokens = rows.to(model.cfg.device).repeat(1 if arms is None else len(arms), 1)
    if not n_new:
        return tokens[:, :0]
    offset = Offset()
    step = NextToken(model, [] if arms is None else arms.hooks(model, offset), offset=offset)
    return torch.stack(list(generate(step, tokens, n_new)), 1).cpu()
