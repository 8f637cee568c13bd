"""Titles from promoted words, where the label by rule says little: "says flavorful, delicious, culinary".

A word class as wide as all nouns, a kind of document, or the position within a word are facts about a feature; they do
not tell two features of a dictionary apart. Where the words that a feature makes the model say belong together, they
are its title, and the fact stands among the other labels.

Words **belong together** by the mean cosine similarity between them, in the whitened unembedding of the model.
**Null**: the words that random directions promote; at most a twentieth of these belong together as much. Of the
`N_WORDS` words promoted most, `LEAST_WHOLE` have to be whole words, with `LEAST_STEMS` beginnings.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from interp.lenses.vocabulary import Vocabulary
from interp.nulls import ALPHA
from saes.features._label_search import whitening_of
from saes.features._labels import MIN_SHARE, Label
from saes.features.schema import NO_LABEL, SAID, SAYS

N_WORDS, LEAST_WHOLE, LEAST_STEMS, STEM = 8, 5, 3, 4
SHOWN = 3
WIDE = frozenset(
    ["noun", "verb", "adjective", "adverb", "artefact", "person", "place", "word", "capitalised word",
     "word in capitals", "capital letter", "first letter"]
)  # fmt: skip
"""Classes of words that say little about a feature."""


def says_little(kind: str, names: Sequence[str], share: float | None) -> bool:
    """Return whether a label by rule stands below promoted words that belong together."""
    if kind in (NO_LABEL, "document", "surroundings"):
        return True
    return (kind == "class" and set(names) <= WIDE) or (share is not None and share < MIN_SHARE)


def title_of(words: tuple[str, ...]) -> str:
    """Return the text of a title.

    >>> title_of((" flavorful", " delicious"))
    'says flavorful, delicious'
    """
    return str(Label(SAYS, words))


def titled(labels: Sequence[Label], words: Mapping[int, tuple[str, ...]]) -> list[Label]:
    """Return the labels of all features; those that say little give way to `words` (`belonging_together`)."""
    every = list(labels)
    for i, said in words.items():
        old = every[i]
        if says_little(old.kind, old.names, old.share):
            facts = old.others if old.kind == NO_LABEL else (old._replace(others=()), *old.others)
            every[i] = Label(SAYS, said, source=SAID, n_heldout=old.n_heldout if not facts else None, others=facts)
    return every


def belonging_together(ids: np.ndarray, null_ids: np.ndarray, vocabulary: Vocabulary) -> dict[int, tuple[str, ...]]:
    """Return the `SHOWN` first promoted words of each feature whose words belong together beyond the null.

    `ids [n, k]` are the tokens that each feature promotes, the strongest first, `null_ids [m, k]` those of random
    directions.
    """
    directions = vocabulary.directions
    used, numbers = np.unique(np.concatenate([ids, null_ids])[:, :N_WORDS], return_inverse=True)
    vectors = directions[used].astype(np.float32) @ whitening_of(vocabulary)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    stems = [_stem(vocabulary.texts[token]) for token in used.tolist()]
    chosen = [_distinct(row, stems) for row in numbers.reshape(len(ids) + len(null_ids), -1).tolist()]
    together = np.array([_mean_cosine(vectors[rows]) if rows else -1.0 for rows in chosen])
    limit = max(float(np.quantile(together[len(ids) :], 1 - ALPHA)), 0.0)
    return {
        i: tuple(vocabulary.texts[used[row]] for row in chosen[i][:SHOWN])
        for i in np.flatnonzero(together[: len(ids)] > limit).tolist()
    }


def _stem(text: str) -> str:
    """Return the beginning of a whole word after a space; empty for any other token."""
    return text[1 : 1 + STEM].lower() if text[:1] == " " and text[1:].isalpha() and len(text) > STEM else ""


def _distinct(row: Sequence[int], stems: Sequence[str]) -> list[int]:
    """Return the rows of the first word of each beginning; none where too few are whole words."""
    first: dict[str, int] = {}
    whole = [i for i in row if stems[i]]
    for i in whole:
        first.setdefault(stems[i], i)
    return list(first.values()) if len(whole) >= LEAST_WHOLE and len(first) >= LEAST_STEMS else []


def _mean_cosine(vectors: np.ndarray) -> float:
    """Return the mean cosine similarity between different ones of some unit vectors `[n, d]`."""
    n = len(vectors)
    return float(((vectors.sum(0) ** 2).sum() - n) / (n * (n - 1)))
