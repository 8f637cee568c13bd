"""Words of a model's vocabulary that are related to some words: near them in its unembedding. Torch-free.

    related_words(vocabulary, key, ["cooking"], 5)     # cooking, cook, baking, culinary, chefs

Cosine similarity of read directions (`interp.lenses.vocabulary`) after whitening: a few directions that all frequent
tokens share dominate the plain cosine, so each principal axis is divided by its standard deviation, plus a little noise
(`RIDGE`). Whole words alone are compared, in one spelling each. A word of several tokens is the mean of its pieces.

The whitened table is computed once per model (a second) and kept in the user's cache, memory-mapped.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from interp.artifacts import atomic_file
from interp.cache import cache_folder
from interp.errors import disk_errors
from interp.lenses.vocabulary import Vocabulary
from saes.features.label_search import singulars
from saes.features.token_index import fold

RIDGE = 0.1
"""Variance added to every axis, as a fraction of the mean variance."""
MAX_COMPARED = 60_000
"""Words of the vocabulary that are compared: the first ones, which are the most frequent."""
MAX_PIECES = 3
"""Words of more tokens have no relatives: the mean of so many pieces says nothing."""
_ROWS = 8192
_WORD = re.compile(r" [^\W\d_]{2,}")


@dataclass(frozen=True)
class Related:
    """A related word, folded, its token, and its cosine similarity."""

    word: str
    token: int
    cosine: float


def pieces_of(vocabulary: Vocabulary, word: str) -> list[int]:
    """Return the tokens that spell a word after a space, the longest first; none where a character has no token.

    It splits without the model's merges, so that no tokenizer has to be loaded.
    """
    text, found = f" {word.strip()}", []
    while text:
        size = next((k for k in range(len(text), 0, -1) if text[:k] in vocabulary.numbers), 0)
        if not size:
            return []
        found.append(vocabulary.numbers[text[:size]])
        text = text[size:]
    return found


def tokens_of(vocabulary: Vocabulary, word: str) -> list[int]:
    """Return the tokens that are a word, or what it may be the plural of, in any spelling; none for several tokens."""
    if word != word.rstrip():
        exact = [f"{word.lstrip()}", f" {word.strip()}", word.strip()]
        return [vocabulary.numbers[each] for each in exact if each in vocabulary.numbers]
    found = [token for each in (word, *singulars(word.lower())) for token in vocabulary.spelled(each)]
    return list(dict.fromkeys(found))


def related_words(vocabulary: Vocabulary, key: str, words: Sequence[str], n: int) -> list[Related]:
    """Return the `n` words nearest to the mean of some words, the words themselves among them; none for unknown words.

    `key` names the weights of the model, for the cache.
    """
    table = _table(vocabulary, key)
    means = []
    for word in words:
        tokens = tokens_of(vocabulary, word) or pieces_of(vocabulary, word)[: MAX_PIECES + 1]
        if tokens and len(tokens) <= max(MAX_PIECES, len(tokens_of(vocabulary, word))):
            mean = _unit(vocabulary.directions[tokens].astype(np.float32) @ table.whitening).mean(0)
            means.append(_unit(mean[None])[0])
    if not means:
        return []
    return list(_nearest(table, _unit(np.mean(means, 0)[None])[0].tobytes(), n))


def largest(values: np.ndarray, n: int) -> np.ndarray:
    """Return the positions of the `n` largest of some values `[m]`, the largest first, ties in their order."""
    least = np.partition(values, -n)[-n] if 0 < n < len(values) else -np.inf
    near = np.flatnonzero(values >= least)
    return near[np.argsort(-values[near], kind="stable")][:n]


@dataclass(frozen=True, eq=False)
class _Table:
    whitening: np.ndarray
    """`[d, d]` float32"""
    rows: np.ndarray
    """`[n, d]` float32, memory-mapped: whitened unit directions"""
    tokens: np.ndarray
    words: tuple[str, ...]


@lru_cache(maxsize=64)
def _nearest(table: _Table, wanted: bytes, n: int) -> tuple[Related, ...]:
    """Return the `n` words nearest to a unit vector, float32: the same for every dictionary of a model."""
    cosines = table.rows @ np.frombuffer(wanted, np.float32)
    return tuple(Related(table.words[i], int(table.tokens[i]), float(cosines[i])) for i in largest(cosines, n))


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)


@lru_cache(maxsize=4)
def _kept(folder: Path, texts: tuple[str, ...]) -> _Table:
    rows = np.load(folder / "rows.npy", mmap_mode="r", allow_pickle=False)
    tokens = np.load(folder / "tokens.npy", allow_pickle=False)
    whitening = np.load(folder / "whitening.npy", allow_pickle=False)
    return _Table(whitening, rows, tokens, tuple(fold(texts[i]) for i in tokens.tolist()))


def _table(vocabulary: Vocabulary, key: str) -> _Table:
    folder = cache_folder() / "related-words" / f"{key[:32]}-2"  # the format of the table
    try:
        return _kept(folder, vocabulary.texts)
    except (OSError, ValueError, EOFError):  # not there, or cut short: it is computed again
        pass
    variance, axes = np.linalg.eigh(vocabulary.spread.astype(np.float64))
    scale = 1 / np.sqrt(np.maximum(variance, 0) + RIDGE * max(float(variance.mean()), 1e-12))
    whitening = ((axes * scale) @ axes.T).astype(np.float32)
    tokens = _whole_words(vocabulary.texts)
    parts = [
        _unit(vocabulary.directions[tokens[at : at + _ROWS]].astype(np.float32) @ whitening)
        for at in range(0, len(tokens), _ROWS)
    ]
    rows = np.concatenate(parts) if parts else np.zeros((0, len(whitening)), np.float32)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in (("whitening", whitening), ("tokens", tokens), ("rows", rows)):
            with atomic_file(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
                np.save(file, value, allow_pickle=False)
    return _kept(folder, vocabulary.texts)


def _whole_words(texts: Sequence[str]) -> np.ndarray:
    """Return the tokens that are a word after a space, one of each folded text: in lower case where there is one."""
    found: dict[str, int] = {}
    for token, text in enumerate(texts):
        if _WORD.fullmatch(text) and (fold(text) not in found or text == text.lower()):
            found[fold(text)] = token
    return np.array(list(found.values())[:MAX_COMPARED], np.int64)
