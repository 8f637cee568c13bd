"""What a previous-token, duplicate-token, induction, first-token and current-token pattern IS.

A kind of attention is a set of *targets*: for each query (dest) the keys (src) that a head of that kind attends to.
Targets are read from the tokens, not from diagonals, so they are right for any text: every earlier copy counts, and
BOS, which is not text, is neither a query nor the source of a match. (The one exception: the first-token kind asks
for attention to position 0, which usually is BOS.)

To add a kind, add a function here and its name to `KINDS`.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def previous_token(tokens: Tensor, is_bos: Tensor) -> Tensor:
    """The token just before; queries right after BOS have none."""
    return _shift(torch.eye(tokens.shape[1], dtype=torch.bool)[None].expand(len(tokens), -1, -1), -1) & ~is_bos[:, None]


def duplicate_token(tokens: Tensor, is_bos: Tensor) -> Tensor:
    """Every earlier copy of the query's own token."""
    same = tokens[:, :, None] == tokens[:, None, :]
    return same & _before(tokens, 1) & ~is_bos[:, None]


def induction(tokens: Tensor, is_bos: Tensor) -> Tensor:
    """Every key whose previous token is the query's token: what followed that token before (Olsson et al. 2022).

    Keys up to the query itself count (`k <= q`, prefix matching as published).
    """
    followed = _shift(tokens[:, :, None] == tokens[:, None, :], 1)
    follows_bos = _shift(is_bos[:, None], 1)
    return followed & _before(tokens, 0) & ~follows_bos


def first_token(tokens: Tensor, is_bos: Tensor) -> Tensor:
    """Position 0, BOS or not; the query at position 0 has no choice and is left out."""
    target = torch.zeros(*tokens.shape, tokens.shape[1], dtype=torch.bool)
    target[:, 1:, 0] = True
    return target


def current_token(tokens: Tensor, is_bos: Tensor) -> Tensor:
    """The query's own position; the query at position 0 has no choice and is left out."""
    target = torch.eye(tokens.shape[1], dtype=torch.bool)[None].repeat(len(tokens), 1, 1)
    target[:, 0] = False
    return target


KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "previous_token": previous_token,
    "duplicate_token": duplicate_token,
    "induction": induction,
    "first_token": first_token,
    "current_token": current_token,
}


def target_masks(tokens: Tensor, bos: int | None) -> dict[str, Tensor]:
    """kind -> `[batch, dest, src]` bool for `tokens [batch, pos]`: which attention counts for which query."""
    tokens = tokens.cpu()
    is_bos = tokens == bos if bos is not None else torch.zeros_like(tokens, dtype=torch.bool)
    return {kind: targets(tokens, is_bos) & ~is_bos[:, :, None] for kind, targets in KINDS.items()}


def target_weights(masks: dict[str, Tensor]) -> Tensor:
    """`[batch, dest * src, n_kinds]` float32, such that `pattern.flatten() @ weights` is a prompt's score.

    A prompt's score is the mean, over queries with at least one target, of the attention summed over its targets:
    0 when none goes there, 1 when all does. A prompt without such a query has the score NaN.
    """
    columns = []
    for mask in masks.values():
        n_queries = mask.any(2).sum(1)
        weight = torch.full((len(mask),), torch.nan).where(n_queries == 0, 1 / n_queries)
        columns.append(
            torch.where(mask.flatten(1), weight[:, None], torch.where(n_queries == 0, torch.nan, 0)[:, None])
        )
    return torch.stack(columns, dim=2)


def score_pattern(pattern: Tensor, weights: Tensor) -> Tensor:
    """`[batch, n_heads, n_kinds]` scores of `pattern [batch, n_heads, dest, src]`, one batched product."""
    return torch.bmm(pattern.flatten(2), weights.to(pattern.device, pattern.dtype))


def uniform_scores(weights: Tensor, context_length: int) -> Tensor:
    """`[batch, n_kinds]`: the scores of a head that spreads its attention evenly over all keys up to the query."""
    ones = torch.ones(context_length, context_length).tril()
    uniform = ones / ones.sum(1, keepdim=True)
    return score_pattern(uniform.expand(len(weights), 1, -1, -1), weights)[:, 0]


def _before(tokens: Tensor, at_least: int) -> Tensor:
    """`[1, dest, src]`: src at least that far before dest."""
    n = tokens.shape[1]
    return torch.ones(n, n, dtype=torch.bool).tril(-at_least)[None]


def _shift(mask: Tensor, by: int) -> Tensor:
    """A mask moved along src by `by` places; what enters is False."""
    out = torch.zeros_like(mask)
    if by > 0:
        out[..., by:] = mask[..., :-by]
    else:
        out[..., :by] = mask[..., -by:]
    return out
