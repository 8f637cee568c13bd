"""Strength with which every feature of a dictionary fits a text, from several sources. Torch-free to read.

    [evidence] = gather(index, meaning, ["cooking"])
    evidence.strength                                  # [n_features], 0 to 1

Sources, each a number per feature:

- `fires`: the words on which it fires more strongly than a feature that fires as often on random tokens
  (`fired_words`);
- `related_fires`: the same for words near them in the model's unembedding (`_label_search`);
- `says`: how far it raises the words through the Jacobian lens (`meaning`), as a robust z-score over all features: the
  median is 0 and the median distance from it 0.67;
- `label`: its label contains the text (`_label_search`);
- `name`: the user gave it a name that contains the text.

Logistic weights (`WEIGHTS`) join them, with the logarithm of the density, which counts up to a quantile of the
dictionary. They are learnt on the 40 concepts that may guide choices, so that right features come first, and scaled
so that the sigmoid of the sum, the **Match**, is the probability that a hit is right. *Right* is a feature that detects
the concept's words (F1 of 0.5 in both halves of them; shuffled words 0.33), or that a reader took as an answer. Several
features may be right, so the Matches of a list may sum to more than 1. `python -m benchmarks.find_by_meaning` learns
and judges them. Without a Jacobian lens, and without the vocabulary of the model, which has the related words, the
other sources have weights of their own.

**p**: the smallest of the sources' p-values, times their number; 1 where no source is above its null.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from interp.lenses.vocabulary import Vocabulary, open_vocabulary
from interp.nulls import ALPHA
from saes.features._label_search import (
    Named,
    by_label,
    by_own_name,
    labels_of,
    pieces_of,
    related_words,
    tokens_of,
)
from saes.features.fired_words import Fired, FiringIndex, IndexedWord, Sought, WordFirings
from saes.features.meaning import Meaning, model_hash
from saes.training.config import DENSE

LEARNT = ("fires", "related_fires", "says", "density", "label")
Known = Literal["lens", "vocabulary", "words"]
"""What is known of the model: what features make it say, or its vocabulary, or neither."""
WEIGHTS: dict[Known, tuple[float, ...]] = {
    "lens": (0.22, 0.31, 1.31, 0.74, 2.27),
    "vocabulary": (0.26, 0.51, 0.0, 0.98, 2.28),
    "words": (0.41, 0.0, 0.0, 0.48, 1.4),
}
"""Weights of `LEARNT`."""
NAME = 6.0
"""Weight of the user's own name, which the concepts cannot teach."""
OFFSET: dict[Known, float] = {"lens": -0.73, "vocabulary": -0.15, "words": -0.78}
"""Added to the weighted sum, so that its sigmoid is the probability that the hit is right."""
BELOW_FIRST = 0.999
"""Largest Match of a dense feature, as a fraction of the first other one: it is never first."""
FEW_DENSE = 0.5
"""Share of dense features up to which that holds: most neurons are dense."""
N_RELATED = 25
"""Words near a query on which features may fire."""
FLOOR = 0.02
"""Strength of firing below which differences do not count: sources are compared by `log(1 + strength / FLOOR)`."""
TESTS = 3
"""Sources that have a p-value: fires, related_fires, says."""
DENSITY_QUANTILE = 0.9
"""Quantile of the densities of a dictionary above which density counts no further: the densest fire on any word."""
_SLICE = 24


@dataclass(frozen=True, kw_only=True)
class FeatureEvidence:
    """Evidence for each feature of one artefact; `[n_features]` unless stated otherwise."""

    values: dict[str, np.ndarray]
    """by source, and `density`"""
    p: np.ndarray
    live: np.ndarray
    """bool: it fires"""
    known: Known
    sought: Sought
    firings: WordFirings
    fired: Fired | None
    near: tuple[IndexedWord, ...] = ()
    """Related words that the index has, without the frequent ones."""
    labels: dict[int, Named] = field(default_factory=dict)

    def contributions(self) -> dict[str, np.ndarray]:
        """Return what each source, and the density, adds to the sum."""
        weights = dict(zip(LEARNT, WEIGHTS[self.known], strict=True)) | {"name": NAME}
        return {name: weights[name] * value for name, value in self.values.items()}

    @cached_property
    def logit(self) -> np.ndarray:
        """The weighted sum of the sources; minus infinity for a feature without evidence, or one that never fires."""
        parts = self.contributions()
        spoken = np.any([part > 0 for part in parts.values()], axis=0)
        return np.where(self.live & spoken, OFFSET[self.known] + sum(parts.values()), -np.inf)

    @cached_property
    def strength(self) -> np.ndarray:
        """The Match, 0 to 1: the sigmoid of the weighted sum; of a dense feature, less than the best of the others."""
        with np.errstate(over="ignore"):
            match = 1 / (1 + np.exp(-self.logit))
        dense = (self.firings.index.columns.density > DENSE) & (self.values["name"] == 0)
        if dense[self.live].sum() > FEW_DENSE * self.live.sum():
            return match
        return np.minimum(match, np.where(dense, match[~dense].max(initial=0.0) * BELOW_FIRST, 1.0))


def words_in(text: str) -> list[str]:
    """Return the words of a text, without outer punctuation."""
    chunks = [chunk.strip("\"'“”‘’.,;:!?()[]{}") or chunk for chunk in text.split()]
    return list(dict.fromkeys(chunks))[:_SLICE]


def gather(
    index: FiringIndex, meaning: Meaning | None, texts: Sequence[str], *, names: Mapping[str, str] | None = None
) -> list[FeatureEvidence]:
    """Return the evidence for each feature, for each of some texts; the index is read once for all of them.

    `names` are the user's own, by key.
    """
    made = index.made
    key = model_hash(made)
    vocabulary = meaning.vocabulary if meaning is not None else open_vocabulary(key)
    queries = [_Asked.of(index, vocabulary, key, text) for text in texts]
    firings = index.read([word for query in queries for word in (*query.sought.words, *query.near)])
    known: Known = "lens" if meaning is not None else "words" if vocabulary is None else "vocabulary"
    return [_evidence(query, firings, meaning, known, by_own_name(made, query.text, names or {})) for query in queries]


@dataclass(frozen=True)
class _Asked:
    """A text with the words that are looked up for it."""

    text: str
    sought: Sought
    spoken: tuple[str, ...]
    """Words that features may make the model say."""
    related: Mapping[str, float]
    """Words near those, with their cosine similarity."""
    near: tuple[IndexedWord, ...]
    """Related words that the index has, without the frequent ones."""

    @classmethod
    def of(cls, index: FiringIndex, vocabulary: Vocabulary | None, key: str, text: str) -> "_Asked":
        """Look up the words of a text and, where there is a vocabulary, related ones."""
        sought, words = index.sought(text), words_in(text)
        spoken = [word for word in words if word.strip().casefold() not in sought.left_out] or words
        related = related_words(vocabulary, key, spoken, N_RELATED) if vocabulary is not None else {}
        near = tuple(filter(index.is_rare, index.look_up(list(related)).values()))
        return cls(text, sought, tuple(spoken), related, near)


def _evidence(
    query: _Asked, firings: WordFirings, meaning: Meaning | None, known: Known, named: set[int]
) -> FeatureEvidence:
    """Return the evidence for each feature from the firings read; `named` are those that the user named so."""
    index, sought = firings.index, query.sought
    live = index.columns.n_fired > 0
    n = len(live)
    frequency = sum(word.n for word in sought.words) / index.units.n_text
    fired = firings.fired(sought.words, live) if sought.words else None
    related = firings.fired(query.near, live, query.related) if query.near else None
    says = _said(meaning, query.spoken) if meaning is not None else None
    labels = by_label(labels_of(index.workspace, index.made), query.text, live)
    values = {
        "fires": _spread(n, fired),
        "related_fires": _spread(n, related),
        "says": np.zeros(n) if says is None else np.maximum(says, 0) / 5,
        "density": _log_density(index.columns.density, frequency),
        "label": _of_features(n, list(labels), [label.strength for label in labels.values()], 0.0),
        "name": np.isin(np.arange(n), list(named)).astype(float),
    }
    tests = [_p_of(n, scores) for scores in (fired, related) if scores is not None]
    tests += [_p_of_largest(says)] if says is not None else []
    p = np.minimum(np.min(tests, 0) * TESTS, 1.0) if tests else np.ones(n)
    for sure in ("label", "name"):  # a label is judged on its own null when it is made
        p = np.where(values[sure] > 0, np.minimum(p, ALPHA), p)
    return FeatureEvidence(
        values=values, p=p, live=live, known=known, sought=sought, firings=firings, fired=fired,
        near=query.near, labels=labels,
    )  # fmt: skip


def _p_of(n: int, scores: Fired) -> np.ndarray:
    """Return p of every feature that fires, 1 where the score is not above its null."""
    return _of_features(n, scores.feature, np.where(scores.score > scores.null, scores.p, 1.0), 1.0)


def _of_features(
    n: int, feature: Sequence[int] | np.ndarray, value: Sequence[float] | np.ndarray, default: float
) -> np.ndarray:
    column = np.full(n, default)
    column[np.asarray(feature, np.int64)] = value
    return column


def _spread(n: int, scores: Fired | None) -> np.ndarray:
    """Return the score of firing of every feature beyond its null, on a logarithmic scale from 0."""
    if scores is None:
        return np.zeros(n)
    beyond = np.maximum(scores.score - scores.null, 0.0)
    return np.log1p(_of_features(n, scores.feature, beyond, 0.0) / FLOOR)


def _log_density(density: np.ndarray, frequency: float) -> np.ndarray:
    """Return the logarithm of each density, up to the quantile `DENSITY_QUANTILE` of features that fire.

    A feature of a frequent word is dense itself, so `frequency`, the share of the text that the words make up, is a
    bound too where it is larger.
    """
    fires = density[density > 0]
    most = np.quantile(fires, DENSITY_QUANTILE, method="lower") if len(fires) else 1.0
    return np.log10(np.clip(density, 1e-6, max(most, frequency, 1e-6)))


def standardised(values: np.ndarray) -> np.ndarray:
    """Return values `[n, m]` less the median of each column, over 1.48 times the median distance from it."""
    away = values - np.median(values, axis=0)
    return away / np.maximum(1.4826 * np.median(np.abs(away), axis=0), 1e-9)


def _p_of_largest(z: np.ndarray) -> np.ndarray:
    """Return the chance that the largest of so many normal z-scores is at least as large as each (Bonferroni)."""
    from scipy.special import ndtr

    return np.minimum(ndtr(-z) * len(z), 1.0)


def _said(meaning: Meaning, words: Sequence[str]) -> np.ndarray | None:
    """Return how far features raise some words, `[n_features]`: z-scores of the mean over words; None for unknown ones.

    A word that is a token counts by the mean over its spellings; one of several tokens by a soft minimum over them, so
    that a feature has to raise each.
    """
    columns = []
    for word in words:
        whole = tokens_of(meaning.vocabulary, word)
        if whole:
            columns.append(standardised(meaning.strengths(whole).mean(1, keepdims=True))[:, 0])
        elif pieces := pieces_of(meaning.vocabulary, word):
            z = standardised(meaning.strengths(pieces))
            columns.append(-np.log(np.exp(-np.clip(z, -10, 30)).mean(1)))
    return standardised(np.mean(columns, 0)[:, None])[:, 0] if columns else None
