"""Random prompts with a known repeat, for scoring heads independently of language; and the tokenizer protocol.

A prompt is `[BOS] block block block ...` up to the context length: from the second block on, token `i` equals token
`i - lag`, and nothing else repeats. The lag differs between prompts, since a fixed lag would favour heads that attend
at a constant offset.

`Tokenizer` is the interface that packing needs; `ByteTokenizer` is the simplest one.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from interp.errors import ConfigError


class RandomPrompts(NamedTuple):
    """Prompts and the length of the block that each repeats."""

    tokens: Tensor
    """`[n_prompts, context_length]` int64"""
    lags: Tensor
    """`[n_prompts]` int64; for unrepeated prompts, the lag of the repeated prompts from the same generator state"""


def repeated_random_tokens(
    *,
    n_prompts: int,
    context_length: int,
    d_vocab_ids: Tensor,
    min_lag: int,
    max_lag: int,
    bos: int | None,
    generator: torch.Generator,
) -> RandomPrompts:
    """Draw prompts of one random block, repeated to the end of the context.

    `d_vocab_ids [n]` are the token ids to draw from (`interp.models.adapter.ordinary_tokens`). Within a block every
    token is different, so a token's earlier copies are exactly those at multiples of the lag.

    Raises `ConfigError` when a lag leaves no repeat or the vocabulary is smaller than a block.
    """
    length = _check(n_prompts, context_length, d_vocab_ids, min_lag, max_lag, bos, longest_block=max_lag)
    lags = _draw_lags(n_prompts, min_lag, max_lag, generator)
    rows = []
    for lag in lags.tolist():
        block = _draw_distinct(d_vocab_ids, lag, generator)
        rows.append(block.repeat(length // lag + 1)[:length])
    return RandomPrompts(_with_bos(torch.stack(rows), bos), lags)


def unrepeated_random_tokens(
    *,
    n_prompts: int,
    context_length: int,
    d_vocab_ids: Tensor,
    min_lag: int,
    max_lag: int,
    bos: int | None,
    generator: torch.Generator,
) -> RandomPrompts:
    """Draw prompts of the same shape in which no token repeats: the null for induction and duplicate-token scores.

    From the same generator state the lags equal those of `repeated_random_tokens`, so the masks of the repeated prompts
    apply to these too. Raises `ConfigError` when the vocabulary is smaller than the context.
    """
    length = _check(n_prompts, context_length, d_vocab_ids, min_lag, max_lag, bos, longest_block=context_length)
    lags = _draw_lags(n_prompts, min_lag, max_lag, generator)
    rows = [_draw_distinct(d_vocab_ids, length, generator) for _ in range(n_prompts)]
    return RandomPrompts(_with_bos(torch.stack(rows), bos), lags)


def _draw_lags(n: int, low: int, high: int, generator: torch.Generator) -> Tensor:
    return torch.randint(low, high + 1, (n,), generator=generator)


def _draw_distinct(ids: Tensor, n: int, generator: torch.Generator) -> Tensor:
    return ids[torch.randperm(len(ids), generator=generator)[:n]].long()


def _with_bos(rows: Tensor, bos: int | None) -> Tensor:
    if bos is None:
        return rows
    return torch.cat([torch.full((len(rows), 1), bos, dtype=rows.dtype), rows], dim=1)


def _check(
    n_prompts: int, context_length: int, ids: Tensor, min_lag: int, max_lag: int, bos: int | None, longest_block: int
) -> int:
    """Return the number of random tokens in a prompt, or raise `ConfigError` for contradictory settings."""
    length = context_length - (bos is not None)
    if n_prompts < 1:
        raise ConfigError(f"n_prompts must be at least 1, got {n_prompts}")
    if not 1 <= min_lag <= max_lag:
        raise ConfigError(f"lags must satisfy 1 <= min_lag <= max_lag, got {min_lag} and {max_lag}")
    if max_lag >= length:
        raise ConfigError(
            f"a lag of {max_lag} repeats nothing within {length} tokens; use max_lag < {length} or a longer context"
        )
    if len(ids) < min(longest_block, length):
        raise ConfigError(
            f"{min(longest_block, length)} different tokens were asked for, the vocabulary offers {len(ids)}; "
            "use a shorter context or shorter lags"
        )
    return length


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back to readable text. No special tokens are added by `encode_batch`."""

    @property
    def bos_token_id(self) -> int | None:
        """Beginning-of-sequence token, or None when the model has none."""
        ...

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of each text."""
        ...

    def token_text(self, token: int) -> str:
        """Return the text of one token, with plain spaces and newlines."""
        ...


class ByteTokenizer:
    """UTF-8 bytes as tokens 0..255, and 256 for BOS: a small model reads any text without a trained vocabulary."""

    d_vocab = 257
    bos_token_id = 256

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [list(text.encode("utf-8")) for text in texts]

    def token_text(self, token: int) -> str:
        """Return ASCII characters unchanged, other bytes as `<0xE4>`, BOS as `<bos>`."""
        if token == self.bos_token_id:
            return "<bos>"
        return chr(token) if token < 128 else f"<0x{token:02X}>"
