"""The text around rows of a recording."""

from typing import NamedTuple

import numpy as np

from interp.recording.store import Recording

NO_TOKEN = -1


class Passages(NamedTuple):
    """Tokens around some rows."""

    token_ids: np.ndarray
    """`[n, before + 1 + after]` int64; `NO_TOKEN` outside the context, and from BOS or padding on"""
    document: np.ndarray
    position: np.ndarray


def read_passages(recording: Recording, rows: np.ndarray, *, before: int, after: int) -> Passages:
    """Return the tokens around each row of `rows [n]`; shards are read one by one, so memory does not grow."""
    token_ids = np.full((len(rows), before + 1 + after), NO_TOKEN, np.int64)
    document, position = np.full(len(rows), -1, np.int32), np.full(len(rows), -1, np.int32)
    shard_of = np.searchsorted(recording.shard_starts, rows, side="right") - 1
    for shard in np.unique(shard_of):
        mine = np.flatnonzero(shard_of == shard)
        tokens = recording.token_shard(int(shard))
        local = rows[mine] - recording.shard_starts[shard]
        real = tokens.document.numpy() >= 0
        token_ids[mine] = _cut(tokens.tokens.numpy(), real, local, before, after, recording.context_length)
        document[mine], position[mine] = tokens.document.numpy()[local], tokens.position.numpy()[local]
    return Passages(token_ids, document, position)


def _cut(
    tokens: np.ndarray, real: np.ndarray, local: np.ndarray, before: int, after: int, context_length: int
) -> np.ndarray:
    """Cut `[n, before + 1 + after]` tokens, with `NO_TOKEN` beyond the ends of a passage."""
    offsets = np.arange(-before, after + 1)
    place = local[:, None] + offsets
    inside = (place // context_length == local[:, None] // context_length) & (place >= 0) & (place < len(tokens))
    place = np.clip(place, 0, len(tokens) - 1)
    inside &= real[place]
    # A gap (BOS, padding) ends the passage: another text follows it.
    inside[:, before:] = np.logical_and.accumulate(inside[:, before:], axis=1)
    inside[:, : before + 1] = np.logical_and.accumulate(inside[:, before::-1], axis=1)[:, ::-1]
    return np.where(inside, tokens[place], NO_TOKEN)


def document_names(recording: Recording) -> tuple[list[str], list[str]]:
    """Return ids and labels of the documents, by document number."""
    documents = recording.documents()
    size = documents[-1].document + 1 if documents else 0
    ids, labels = [""] * size, [""] * size
    for document in documents:
        ids[document.document], labels[document.document] = document.id, document.label
    return ids, labels
