"""Contexts of a feature: those on which it fires, shown or held out, and those on which it is silent.

*Firing* contexts come from the example table of a features folder. Some are shown to the explainer, others are held out
for scoring; no text is in both.

*Silent* contexts are the negatives of the scores. Easy ones are drawn at random from the recording. Hard ones resemble
the feature's own: in half of them the middle token is one on which it fires elsewhere, in the other half one of its
nearest neighbours by cosine similarity of decoder directions fires. Each is encoded by the dictionary first, as a
negative must be a context on which the feature is silent at every token.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from interp.artifacts import read_table
from interp.dictionary import Dictionary
from interp.recording.store import NO_TOKEN, Recording, read_passages
from saes.features.schema import QUARTILES, TOP

MARK = 0.3
"""A token is marked when its activation reaches this fraction of the largest one in its context."""


@dataclass(frozen=True)
class ActivatedText:
    """A passage of text, with the activation of one feature on each of its tokens."""

    row: int
    """Row of its middle token in the recording."""
    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    """Activation on each token; 0 where the feature is silent."""
    group: str
    """`top` or `q4` ... `q1` for a firing context; `random`, `same token` or `neighbour` for a silent one."""

    @property
    def marked(self) -> tuple[bool, ...]:
        """Return True for each token whose activation is at least `MARK` of the largest; all False when silent."""
        peak = max(self.activations)
        return tuple(value > 0 and value >= MARK * peak for value in self.activations)

    def overlaps(self, context: "ActivatedText") -> bool:
        """Return whether two contexts share text: the same part of the recording, or the same tokens elsewhere."""
        near = abs(self.row - context.row) < max(len(self.tokens), len(context.tokens))
        return near or self.tokens == context.tokens


def feature_rows(
    folder: Path, table: str, features: Iterable[int], columns: list[str] | None = None
) -> list[dict[str, Any]]:
    """Return the rows of `features.parquet` or `examples.parquet` for some features, in the order stored.

    Raises `CorruptError`.
    """
    wanted = [("feature", "in", [int(feature) for feature in features])]
    return read_table(folder / f"{table}.parquet", columns, filters=wanted).to_pylist()


def context_of(row: dict[str, Any]) -> ActivatedText:
    """Return the context that a row of `examples.parquet` holds."""
    return ActivatedText(row["row"], tuple(row["tokens"]), tuple(row["activations"]), row["group"])


def split_contexts(
    contexts: Iterable[ActivatedText], *, shown: int, heldout: int, generator: np.random.Generator
) -> tuple[list[ActivatedText], list[ActivatedText]]:
    """Return `(shown, held out)`: at most that many of each, without any text twice or in both.

    Half of those shown are the strongest; the other half is taken from the four quarters of activation in turn. Those
    held out come from the quarters in turn, so that the score covers all strengths. The remaining strongest ones are
    used only where the quarters run short.
    """
    groups: dict[str, list[ActivatedText]] = {group: [] for group in (TOP, *QUARTILES)}
    for context in contexts:
        groups[context.group].append(context)
    top = groups[TOP]
    quarters = in_turn([[groups[q][i] for i in generator.permutation(len(groups[q]))] for q in QUARTILES])
    for_show = distinct(top, most=shown - shown // 2)
    for_show += distinct([*quarters, *top], most=shown - len(for_show), apart_from=for_show)
    return for_show, distinct([*quarters, *top], most=heldout, apart_from=for_show)


def in_turn(lists: Iterable[Sequence[ActivatedText]]) -> list[ActivatedText]:
    """Return the first of each list, then the second of each, and so on."""
    return [context for round_ in zip_longest(*lists) for context in round_ if context is not None]


def distinct(
    contexts: Iterable[ActivatedText], *, most: int, apart_from: Iterable[ActivatedText] = ()
) -> list[ActivatedText]:
    """Return the first `most` contexts that overlap neither each other nor `apart_from`."""
    taken, selection = list(apart_from), []
    for context in contexts:
        if len(selection) == most:
            break
        if not any(context.overlaps(rival) for rival in taken):
            taken.append(context)
            selection.append(context)
    return selection


RANDOM, SAME_TOKEN, NEIGHBOUR = "random", "same token", "neighbour"
HARD = (SAME_TOKEN, NEIGHBOUR)
POOL = 384
"""Number of random contexts, drawn once for all features."""
SPARE = 4
"""Number of hard candidates that are encoded for each hard negative wanted."""
_CHUNK = 128


@dataclass(frozen=True)
class Candidates:
    """Rows `[n]` int64 whose contexts may serve as negatives of one feature, in the order to try them."""

    feature: int
    random: np.ndarray
    same_token: np.ndarray
    """Rows of a token on which the feature fires elsewhere."""
    neighbour: np.ndarray
    """Rows on which one of its nearest neighbours fires."""


def real_tokens(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Return the row and the token id of every real token, both `[n]` int64: 16 bytes a token."""
    rows, tokens = [], []
    for shard in range(recording.n_shards):
        part = recording.token_shard(shard)
        real = np.flatnonzero(part.document.numpy() >= 0)
        rows.append(real + recording.shard_starts[shard])
        tokens.append(part.tokens.numpy()[real].astype(np.int64))
    return np.concatenate(rows), np.concatenate(tokens)


def random_pool(rows: np.ndarray, *, generator: np.random.Generator) -> np.ndarray:
    """Return at most `POOL` rows `[n]`, drawn without replacement."""
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
) -> dict[int, tuple[list[ActivatedText], list[ActivatedText]]]:
    """Return for each feature `(random, hard)` contexts of up to `2 * window + 1` tokens on which it is silent.

    There are at most `n_random` and `n_hard` of them, none overlapping another.
    """
    groups = [np.concatenate([c.random, c.same_token, c.neighbour]) for c in candidates]
    rows = np.unique(np.concatenate(groups)).astype(np.int64)
    features = [c.feature for c in candidates]
    passages = read_passages(recording, rows, before=window, after=window).token_ids
    largest = window_maxima(dictionary, recording, hook_point, rows, passages != NO_TOKEN, features)
    index_of = {int(row): number for number, row in enumerate(rows)}

    def silent(column: int, chosen: np.ndarray, group: str) -> list[ActivatedText]:
        numbers = [index_of[int(row)] for row in chosen]
        return [
            _context(int(rows[n]), passages[n], vocabulary, group) for n in numbers if largest[n, column] == 0
        ]  # fmt: skip

    contexts = {}
    for column, candidate in enumerate(candidates):
        easy = distinct(silent(column, candidate.random, RANDOM), most=n_random)
        sides = [silent(column, candidate.same_token, SAME_TOKEN), silent(column, candidate.neighbour, NEIGHBOUR)]
        contexts[candidate.feature] = (easy, distinct(in_turn(sides), most=n_hard, apart_from=easy))
    return contexts


def _context(row: int, ids: np.ndarray, vocabulary: Sequence[str], group: str) -> ActivatedText:
    tokens = tuple(vocabulary[int(i)] for i in ids[ids != NO_TOKEN])
    return ActivatedText(row, tokens, (0.0,) * len(tokens), group)


@torch.no_grad()
def window_maxima(
    dictionary: Dictionary,
    recording: Recording,
    hook_point: str,
    rows: np.ndarray,
    present: np.ndarray,
    features: Sequence[int],
) -> np.ndarray:
    """Return the largest activation of each feature in the window around each row, `[n, len(features)]` float32.

    `present [n, width]` is True where the window holds a token.
    """
    window = present.shape[1] // 2
    column = torch.full((dictionary.d_sae,), -1, dtype=torch.int64)
    column[torch.tensor(list(features))] = torch.arange(len(features))
    largest = np.zeros((len(rows), len(features)), np.float32)
    offsets = np.arange(-window, window + 1)
    for start in range(0, len(rows), _CHUNK):
        mask = present[start : start + _CHUNK]
        around = (rows[start : start + _CHUNK, None] + offsets)[mask]
        x = recording.read_rows(hook_point, torch.from_numpy(around))
        acts = dictionary.encode_sparse(x.to(dictionary.decoder_directions.device))
        which = column[acts.indices.cpu()]
        at, slot = ((which >= 0) & (acts.values.cpu() > 0)).nonzero(as_tuple=True)
        window_of = start + np.nonzero(mask)[0][at.numpy()]
        np.maximum.at(largest, (window_of, which[at, slot].numpy()), acts.values.cpu()[at, slot].float().numpy())
    return largest
