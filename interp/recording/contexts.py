"""Cut documents into shards of contexts, deterministically, so that a resumed run gets the same shards."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from interp.text.files import Document
from interp.text.packing import Bos, Context, pack
from interp.text.tokens import Tokenizer


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
        found = [(number, *self._names[number]) for number in numbers]
        if numbers:
            self._names = {n: names for n, names in self._names.items() if n > numbers[-1]}
        return found


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
    number, held = 0, []
    for context in chosen:
        # a full shard is yielded only once another context follows, so that the last one can be marked
        if len(held) == shard_contexts:
            yield _shard(number, held, registry, last=False)
            number, held = number + 1, []
        held.append(context)
    if held:
        yield _shard(number, held, registry, last=True)


def _enough(contexts: Iterator[Context], n_tokens: int) -> Iterator[Context]:
    real = 0
    for context in contexts:
        yield context
        real += int((context.document >= 0).sum())
        if real >= n_tokens:
            return


def _shard(number: int, contexts: list[Context], registry: Registry, *, last: bool) -> ShardText:
    tokens, document, position = (np.stack(column) for column in zip(*contexts, strict=True))
    begins = registry.take(document[position == 0].tolist())
    return ShardText(number, tokens, document, position, begins, last)
