"""Tokenizers, random prompts with a known repeat, and documents packed into contexts and shards.

**Random prompts** score heads independently of language. A prompt is `[BOS] block block block ...` up to the context
length: from the second block on, token `i` equals token `i - lag`, and nothing else repeats. The lag differs between
prompts, since a fixed lag would favour heads that attend at a constant offset.

**Packing** cuts documents into contexts of a fixed length, and contexts into shards, in the same way every time. Every
token is traced to its document and position. Documents are joined end to end; a context may hold the end of one and the
start of the next, and attention crosses that border. The last context is filled up with padding. BOS policies:

- `context`: BOS opens every context (what most models saw in training, and what recordings use by default)
- `document`: BOS opens every document, wherever it falls
- `none`: no BOS

A resumed recording gets the same shards, since everything here depends on its arguments alone.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from interp.errors import ConfigError, UnknownNameError
from interp.text.corpora import Document


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


Bos = Literal["context", "document", "none"]
BOS_POLICIES = ("context", "document", "none")
NOT_TEXT = -1
"""document and position of BOS and padding"""
_DOCUMENTS_AT_ONCE = 32


class Context(NamedTuple):
    """One row of tokens for the model, all `[context_length]` int32."""

    tokens: np.ndarray
    document: np.ndarray
    """running number of the document, counted from 0 in the order given; -1 for BOS and padding"""
    position: np.ndarray
    """token index within the document; -1 for BOS and padding"""


def pack(
    documents: Iterable[Document], tokenizer: Tokenizer, context_length: int, bos: Bos = "context"
) -> Iterator[Context]:
    """Yield contexts of exactly `context_length` tokens.

    Padding repeats BOS (0 for a tokenizer without one). Raises `ConfigError` when a BOS policy needs a token that the
    tokenizer does not have, or the context is too short to hold text.
    """
    check_policy(tokenizer, context_length, bos)
    opening = [tokenizer.bos_token_id] if bos == "context" else []
    block = context_length - len(opening)
    buffer = np.empty((3, 0), dtype=np.int32)
    for number, ids in _tokenised(documents, tokenizer):
        buffer = np.concatenate(
            [buffer, _columns(number, ids, tokenizer.bos_token_id if bos == "document" else None)], 1
        )
        whole = buffer.shape[1] // block * block
        for start in range(0, whole, block):
            yield _context(buffer[:, start : start + block], opening)
        buffer = buffer[:, whole:]
    if buffer.shape[1]:
        padding = np.full((3, block - buffer.shape[1]), NOT_TEXT, dtype=np.int32)
        padding[0] = tokenizer.bos_token_id or 0
        yield _context(np.concatenate([buffer, padding], 1), opening)


def check_policy(tokenizer: Tokenizer, context_length: int, bos: str) -> None:
    """Raise `ConfigError` when `pack` cannot apply a BOS policy at this context length."""
    if bos not in BOS_POLICIES:
        raise UnknownNameError("BOS policy", bos, BOS_POLICIES)
    if context_length < 2:
        raise ConfigError(f"context_length must be at least 2, got {context_length}")
    if bos != "none" and tokenizer.bos_token_id is None:
        raise ConfigError(f"bos={bos!r} was asked for, but the tokenizer has no BOS token; use bos='none'")


def _tokenised(documents: Iterable[Document], tokenizer: Tokenizer) -> Iterator[tuple[int, list[int]]]:
    """Yield (document number, token ids), a few documents at a time: tokenizers are faster on batches."""
    batch: list[str] = []
    first = 0
    for document in documents:
        batch.append(document.text)
        if len(batch) == _DOCUMENTS_AT_ONCE:
            yield from enumerate(tokenizer.encode_batch(batch), start=first)
            first, batch = first + len(batch), []
    if batch:
        yield from enumerate(tokenizer.encode_batch(batch), start=first)


def _columns(number: int, ids: list[int], bos: int | None) -> np.ndarray:
    """Return tokens, document and position of one document, `[3, n]`."""
    n = len(ids)
    columns = np.empty((3, n), dtype=np.int32)
    columns[0], columns[1], columns[2] = ids, number, np.arange(n)
    if bos is None or not n:
        return columns
    return np.concatenate([np.array([[bos], [NOT_TEXT], [NOT_TEXT]], dtype=np.int32), columns], 1)


def _context(columns: np.ndarray, opening: list[int | None]) -> Context:
    if opening:
        first = np.array([opening, [NOT_TEXT], [NOT_TEXT]], dtype=np.int32)
        columns = np.concatenate([first, columns], 1)
    return Context(*np.ascontiguousarray(columns))


class ShardText(NamedTuple):
    """Text of one shard: everything except the activations."""

    number: int
    tokens: np.ndarray
    """`[n_contexts, context_length]` int32, like `document` and `position`"""
    document: np.ndarray
    position: np.ndarray
    begins: list[tuple[int, str, str]]
    """(number, id, label) of the documents whose first token is here"""
    last: bool
    """True for the last shard of the recording"""

    @property
    def n_rows(self) -> int:
        return self.tokens.size

    @property
    def n_real(self) -> int:
        return int((self.document >= 0).sum())


class Registry:
    """Pass documents through, and remember their names until their shard is written."""

    def __init__(self, documents: Iterable[Document]):
        self._documents = documents
        self._names: dict[int, tuple[str, str]] = {}

    def __iter__(self) -> Iterator[Document]:
        for number, document in enumerate(self._documents):
            self._names[number] = (document.id, document.label)
            yield document

    def take(self, numbers: list[int]) -> list[tuple[int, str, str]]:
        """Return the names of documents in order, and forget them and all earlier ones."""
        rows = [(number, *self._names[number]) for number in numbers]
        if numbers:
            self._names = {n: names for n, names in self._names.items() if n > numbers[-1]}
        return rows


def shard_texts(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    *,
    context_length: int,
    bos: Bos,
    n_tokens: int,
    shard_contexts: int,
) -> Iterator[ShardText]:
    """Yield shards of `shard_contexts` contexts, until `n_tokens` real tokens are reached or the text ends."""
    registry = Registry(documents)
    chosen = _enough(pack(registry, tokenizer, context_length, bos), n_tokens)
    number, contexts = 0, []
    for context in chosen:
        # a full shard is yielded only once another context follows, so that the last one can be marked
        if len(contexts) == shard_contexts:
            yield _shard(number, contexts, registry, last=False)
            number, contexts = number + 1, []
        contexts.append(context)
    if contexts:
        yield _shard(number, contexts, registry, last=True)


def _enough(contexts: Iterator[Context], n_tokens: int) -> Iterator[Context]:
    real = 0
    for context in contexts:
        yield context
        real += int((context.document >= 0).sum())
        if real >= n_tokens:
            return


def _shard(number: int, contexts: list[Context], registry: Registry, *, last: bool) -> ShardText:
    tokens, document, position = (np.stack(column) for column in zip(*contexts, strict=True))
    return ShardText(number, tokens, document, position, registry.take(document[position == 0].tolist()), last)


def as_bytes(texts: list[ShardText]) -> bytes:
    """Return shards of text as bytes, for another process (`texts_of`)."""
    from safetensors.numpy import save

    facts = json.dumps([[text.number, text.begins, text.last] for text in texts]).encode()
    columns = {f"{n}.{name}": getattr(text, name) for n, text in enumerate(texts) for name in Context._fields}
    return save(columns | {"facts": np.frombuffer(facts, np.uint8)})


def texts_of(content: bytes) -> list[ShardText]:
    """Return the shards of `as_bytes`."""
    from safetensors.numpy import load

    columns, texts = load(content), []
    for n, (number, begins, last) in enumerate(json.loads(columns["facts"].tobytes())):
        tokens, document, position = (columns[f"{n}.{name}"] for name in Context._fields)
        texts.append(ShardText(number, tokens, document, position, [tuple(each) for each in begins], last))
    return texts
