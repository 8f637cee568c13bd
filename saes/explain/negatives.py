"""Contexts on which a feature is silent, for a scorer to tell from those on which it fires.

Easy ones are drawn at random from the recording. Hard ones look like the feature's own: in half of them the middle
token is one on which it fires elsewhere, in the other half one of its nearest features (by decoder direction) fires.
Each is run through the dictionary first: a negative is a context on which the feature is silent at every token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from interp.dictionary import Dictionary
from interp.recording.passages import NO_TOKEN, read_passages
from interp.recording.store import Recording
from saes.explain.contexts import Context, distinct, in_turn

RANDOM, SAME_TOKEN, NEIGHBOUR = "random", "same token", "neighbour"
HARD = (SAME_TOKEN, NEIGHBOUR)
POOL = 384
"""random contexts drawn once for all features"""
SPARE = 4
"""hard candidates looked at per one that is wanted"""
_CHUNK = 128


@dataclass(frozen=True)
class Candidates:
    """Rows whose contexts may serve one feature as negatives, best first."""

    feature: int
    random: np.ndarray
    same_token: np.ndarray
    neighbour: np.ndarray


def real_tokens(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """(row, token id) of every real token, both int64: 16 bytes a token."""
    rows, tokens = [], []
    for shard in range(recording.n_shards):
        part = recording.token_shard(shard)
        real = np.flatnonzero(part.document.numpy() >= 0)
        rows.append(real + recording.shard_starts[shard])
        tokens.append(part.tokens.numpy()[real].astype(np.int64))
    return np.concatenate(rows), np.concatenate(tokens)


def random_pool(rows: np.ndarray, *, generator: np.random.Generator) -> np.ndarray:
    """At most `POOL` different rows."""
    return generator.choice(rows, min(POOL, len(rows)), replace=False)


def silent_contexts(
    dictionary: Dictionary,
    recording: Recording,
    hook_point: str,
    candidates: Sequence[Candidates],
    vocabulary: Sequence[str],
    *,
    window: int,
    n_random: int,
    n_hard: int,
) -> dict[int, tuple[list[Context], list[Context]]]:
    """Feature -> (random, hard) contexts of up to `2 * window + 1` tokens on which it is silent, at most so many."""
    groups = [np.concatenate([c.random, c.same_token, c.neighbour]) for c in candidates]
    rows = np.unique(np.concatenate(groups)).astype(np.int64)
    features = [c.feature for c in candidates]
    passages = read_passages(recording, rows, before=window, after=window).token_ids
    largest = window_maxima(dictionary, recording, hook_point, rows, passages != NO_TOKEN, features)
    place = {int(row): number for number, row in enumerate(rows)}

    def silent(column: int, chosen: np.ndarray, group: str) -> list[Context]:
        numbers = [place[int(row)] for row in chosen]
        return [
            _context(int(rows[n]), passages[n], vocabulary, group) for n in numbers if largest[n, column] == 0
        ]  # fmt: skip

    found = {}
    for column, each in enumerate(candidates):
        easy = distinct(silent(column, each.random, RANDOM), most=n_random)
        sides = [silent(column, each.same_token, SAME_TOKEN), silent(column, each.neighbour, NEIGHBOUR)]
        found[each.feature] = (easy, distinct(in_turn(sides), most=n_hard, apart_from=easy))
    return found


def _context(row: int, ids: np.ndarray, vocabulary: Sequence[str], group: str) -> Context:
    tokens = tuple(vocabulary[int(i)] for i in ids[ids != NO_TOKEN])
    return Context(row, tokens, (0.0,) * len(tokens), group)


@torch.no_grad()
def window_maxima(
    dictionary: Dictionary,
    recording: Recording,
    hook_point: str,
    rows: np.ndarray,
    present: np.ndarray,
    features: Sequence[int],
) -> np.ndarray:
    """`[n, len(features)]` float32: each feature's largest value around each row; `present [n, width]` is a mask."""
    window = present.shape[1] // 2
    column = torch.full((dictionary.d_sae,), -1, dtype=torch.int64)
    column[torch.tensor(list(features))] = torch.arange(len(features))
    largest = np.zeros((len(rows), len(features)), np.float32)
    offsets = np.arange(-window, window + 1)
    for start in range(0, len(rows), _CHUNK):
        mask = present[start : start + _CHUNK]
        around = (rows[start : start + _CHUNK, None] + offsets)[mask]
        acts = dictionary.encode_sparse(recording.read_rows(hook_point, torch.from_numpy(around)))
        which = column[acts.indices.cpu()]
        at, slot = ((which >= 0) & (acts.values.cpu() > 0)).nonzero(as_tuple=True)
        window_of = start + np.nonzero(mask)[0][at.numpy()]
        np.maximum.at(largest, (window_of, which[at, slot].numpy()), acts.values.cpu()[at, slot].float().numpy())
    return largest
