"""Prompts that ask for induction, their corrupted twins, and what is measured on them.

A prompt repeats a block of random tokens. Its two corrupted twins replace every second token by others: where one of
them keeps a token, *the token is the same and the token before it is another*. A head's corrupted value at a position
is taken from the twin that keeps it, so the difference from the clean value is what the head knows of the token before
(and of others at odd distance), not of the token itself.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.circuits.heads import draw_prompts
from interp.circuits.patterns import target_masks, target_weights
from interp.errors import ConfigError
from interp.runtime import make_generator
from interp.text.tokens import repeated_random_tokens


@dataclass(frozen=True, kw_only=True)
class InductionConfig:
    """How the induction circuit is looked for."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """independent draws of prompts; the first chooses senders, the others test them"""
    prompts_per_seed: int = 8
    context_length: int | None = None
    """tokens per prompt, BOS included; by default 65, or the model's context when that is shorter"""
    min_lag: int | None = None
    max_lag: int | None = None
    """block lengths; by default a quarter to a half of the prompt, each prompt has its own"""
    batch_size: int = 8
    """prompts in the model at once"""
    n_controls: int = 6
    """random senders that each chosen sender is compared with: half other heads, half its own write turned at random"""
    max_candidates: int = 24
    """heads that are tested for a sender, strongest induction scores first"""
    max_loss_senders: int = 2
    """senders, the most read first, whose paths into keys, queries and values are measured in loss too"""
    screening_prompts: int = 4
    """of the first seed's, on which every earlier head is tried as a sender"""
    max_singles: int = 48
    """models with no more heads than this have every head ablated by itself"""
    copying_tokens: int = 2048
    """sampled tokens for OV copying"""

    def __post_init__(self) -> None:
        if len(self.seeds) < 2 or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(
                f"at least two different seeds are needed, one to choose senders and one to test them, got {self.seeds}"
            )
        if self.prompts_per_seed < 3 or self.batch_size < 1 or self.n_controls < 2 or self.max_candidates < 1:
            raise ConfigError("prompts_per_seed must be at least 3, n_controls 2, batch_size and max_candidates 1")


@dataclass(frozen=True)
class InductionPrompts:
    """The prompts of one seed."""

    tokens: Tensor
    """`[n, pos]`"""
    unrepeated: Tensor
    """`[n, pos]`: the same lags, nothing repeats: the null"""
    twins: tuple[Tensor, Tensor]
    """`[n, pos]` each: with the tokens at even (odd) positions replaced"""
    lags: Tensor
    start: int
    """1 after a BOS, else 0"""
    weights: Tensor
    """`[n, pos * pos, 3]`: attention times these, summed, are the scores of `measure_weights`"""

    def merge_twins(self, even_replaced: Tensor, odd_replaced: Tensor) -> Tensor:
        """Values `[n, pos, ...]`, each position from the twin that keeps its token."""
        even = (torch.arange(even_replaced.shape[1], device=even_replaced.device) % 2 == 0).view(
            1, -1, *[1] * (even_replaced.ndim - 2)
        )
        return torch.where(even, odd_replaced, even_replaced)

    def first(self, n: int) -> "InductionPrompts":
        """The first prompts."""
        return self.batches(n)[0]

    def batches(self, size: int) -> list["InductionPrompts"]:
        """The prompts in order, `size` at a time."""
        tokens, unrepeated, even, odd, lags, weights = (
            value.split(size) for value in (self.tokens, self.unrepeated, *self.twins, self.lags, self.weights)
        )
        return [
            InductionPrompts(tokens[i], unrepeated[i], (even[i], odd[i]), lags[i], self.start, weights[i])
            for i in range(len(tokens))
        ]


def draw_induction_prompts(model: Any, config: InductionConfig, seed: int) -> InductionPrompts:
    """The prompts of one seed. Raises `ConfigError` when the model's context or vocabulary holds no repeat."""
    from interp.models.adapter import bos_token_id, ordinary_tokens

    ids, bos = ordinary_tokens(model), bos_token_id(model)
    length, low, high = prompt_sizes(model, config, len(ids), bos)
    tokens, unrepeated = _draw(ids, bos, config.prompts_per_seed, length, low, high, seed)
    lags = torch.stack([_lag(row, bos) for row in tokens])
    generator = make_generator(seed, "corrupted twins")
    others = ids[torch.randint(len(ids) - 1, tokens.shape, generator=generator)]
    others = torch.where(others == tokens, ids[-1], others)  # any token but its own
    even = (torch.arange(length) % 2 == 0)[None].expand_as(tokens)
    is_bos = tokens == (-1 if bos is None else bos)
    twins = [torch.where(which & ~is_bos, others, tokens) for which in (even, ~even)]
    return InductionPrompts(
        tokens, unrepeated, (twins[0], twins[1]), lags, int(bos is not None), measure_weights(tokens, lags, bos)
    )


def _draw(ids: Tensor, bos: int | None, n: int, length: int, low: int, high: int, seed: int) -> tuple[Tensor, Tensor]:
    """Repeated prompts, and ones that do not repeat: independent draws where the vocabulary is shorter than these."""
    if len(ids) >= length - (bos is not None):
        return draw_prompts(ids, bos, n, length, low, high, seed)
    tokens = repeated_random_tokens(
        n_prompts=n, context_length=length, d_vocab_ids=ids, min_lag=low, max_lag=high, bos=bos,
        generator=make_generator(seed, "head prompts"),
    ).tokens  # fmt: skip
    independent = ids[torch.randint(len(ids), tokens.shape, generator=make_generator(seed, "independent tokens"))]
    if bos is not None:
        independent[:, 0] = bos
    return tokens, independent


def prompt_sizes(model: Any, config: InductionConfig, n_ids: int, bos: int | None) -> tuple[int, int, int]:
    """Context length, shortest and longest lag."""
    length = config.context_length or min(int(model.cfg.n_ctx), 65)
    if length > model.cfg.n_ctx:
        raise ConfigError(f"context_length {length} exceeds the model's context of {model.cfg.n_ctx}")
    high = config.max_lag or min((length - (bos is not None)) // 2, n_ids)
    low = config.min_lag or max(high // 2, 2)
    return length, min(low, high), high


def measure_weights(tokens: Tensor, lags: Tensor, bos: int | None) -> Tensor:
    """`[n, pos * pos, 3]`: strict induction, TransformerLens' stripe, previous token.

    strict: queries whose token occurred before, all their matches summed. tl: the mean of the diagonal `lag - 1`
    back, whose first entry has no match yet.
    """
    masks = target_masks(tokens, bos)
    position = torch.arange(tokens.shape[1])
    distance = position[:, None] - position[None, :]
    stripe = distance[None] == (lags - 1)[:, None, None]
    return target_weights({"strict": masks["induction"], "tl": stripe, "previous_token": masks["previous_token"]})


def _lag(row: Tensor, bos: int | None) -> Tensor:
    text = row[1:] if bos is not None else row
    return (text[1:] == text[0]).nonzero()[0, 0] + 1
