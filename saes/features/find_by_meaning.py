"""Strength with which every feature of a dictionary fits a text, from several sources. Torch-free to read.

    [evidence] = gather(index, meaning, ["cooking"], within)
    evidence.strength                                  # [n_features], 0 to 1

Sources, each a number per feature:

- `fires`, `phrase`: the words on which it fires more strongly than a feature that fires as often on random tokens; and
  pairs of them, in their order (`fired_words`);
- `related_fires`: the same for words related to them (`label_search`);
- `says`, `related_says`: how far it raises the words, and those related to them, through the Jacobian lens (`meaning`),
  as a robust z-score over all features: the median is 0 and the median distance from it 0.67;
- `label`: its label contains the text (`_label_search`);
- `alike`: its written label is like the text and words near it, by the vectors of both (`_phrase_vectors`), and
  `covered`: the share of the words of the text that a word of that label is near;
- `contains`: its strongest examples contain the text, for phrases and words of several tokens (`example_texts`);
- `concept`: it is the best feature of a measured concept of that name or those words;
- `name`: the user gave it a name that contains the text.

Logistic weights (`WEIGHTS`) join them, with the logarithm of the density, which counts up to a quantile of the
dictionary. They are learnt on the 40 concepts that may guide choices, so that right features come first, and scaled
so that the sigmoid of the sum, the **Match**, is the probability that a hit is right. *Right* is a feature that detects
the concept's words (F1 of 0.5 in both halves of them; shuffled words 0.33), or that a reader took as an answer. Several
features may be right, so the Matches of a list may sum to more than 1. `python -m benchmarks.find_by_meaning` learns
and judges them. Where the workspace has no Jacobian lens, the sources without it have weights of their own.

**p**: the smallest of the sources' p-values, times their number; 1 where no source is above its null.

Features that measured concepts name: the best latent of each by F1, from a dictionary's evaluations. Torch-free.

`workbench evaluate SAE --concepts` measures them (`saes.evaluation.concepts`); an evaluation is one of `NamesFeatures`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

from interp.errors import WorkbenchError
from interp.lenses.vocabulary import Vocabulary
from interp.nulls import ALPHA
from interp.workspace import Workspace
from saes.features._label_search import (
    Named,
    RelatedWord,
    by_label,
    by_own_name,
    by_phrase,
    pieces_of,
    readings_of,
    related_words,
    singulars,
    tokens_of,
    written_labels,
)
from saes.features._phrase_vectors import Alike, Relatives
from saes.features.example_texts import Containing, ExampleTexts
from saes.features.fired_words import Fired, FiringIndex, IndexedWord, Sought, WordFirings
from saes.features.found import ConceptFeature, Filter, NamesFeatures
from saes.features.meaning import Meaning
from saes.features.schema import Features
from saes.features.token_index import fold, query_words
from saes.training.config import DENSE

LEAST_MATCH = 0.5
"""Fraction of the words of a query that have to be words of the concept."""


def by_concept(measured: Sequence[ConceptFeature], text: str, *, leave_out: str = "") -> dict[int, tuple[str, float]]:
    """Return the features of concepts whose name the text is, or whose words it lists, with name, and F1 times the fit.

    Only concepts whose F1 is above that of shuffled labels count. `leave_out` names one that does not.
    """
    best: dict[int, tuple[str, float]] = {}
    for feature in measured:
        fit = _fit(text, feature)
        if feature.concept == leave_out or not fit:
            continue
        if feature.f1 > feature.null and feature.f1 * fit > best.get(feature.feature, ("", 0.0))[1]:
            best[feature.feature] = (feature.concept, feature.f1 * fit)
    return best


def measured_concepts(workspace: Workspace, made: Features) -> list[ConceptFeature]:
    """Return what measured concepts name in the dictionary that the features describe, of the same weights."""
    parent = f"saes/{made.sae}"
    newest = workspace.newest("evaluation") if made.sae else []
    same = [manifest for manifest in newest if manifest.parents.get(parent, "") == made.about.parents.get(parent)]
    return [
        row for manifest in same for row in _named(str(workspace.root.resolve()), manifest.name, manifest.content_hash)
    ]


@lru_cache(maxsize=16)
def _named(root: str, name: str, content_hash: str) -> tuple[ConceptFeature, ...]:
    """Return the features that an evaluation names, decoded once; none of one that is damaged."""
    workspace = Workspace(root)
    try:
        value = workspace.value(workspace.manifest("evaluation", name))
        return value.named() if isinstance(value, NamesFeatures) else ()
    except WorkbenchError:  # `workbench verify` names it
        return ()


def _fit(text: str, named: ConceptFeature) -> float:
    """Return 1 where the text is the concept's name, else the share of its words that are the concept's."""
    query, name = " ".join(re.findall(r"\w+", text.lower())), " ".join(re.findall(r"\w+", named.concept.lower()))
    if query and (query == name or name in singulars(query) or query in singulars(name)):
        return 1.0
    words, concept_words = query.split(), {word.lower() for word in named.words}
    share = sum(word in concept_words for word in words) / max(len(words), 1)
    return share if share >= LEAST_MATCH and len(words) > 1 else 0.0


LEARNT = ("fires", "related_fires", "says", "related_says", "density", "label", "alike", "covered")
SET = {"phrase": 5.0, "concept": 4.5, "name": 6.0, "contains": 0.8}
"""Weights that the concepts cannot teach: none is a phrase, the concept asked for is left out of its own source, and
their words of several tokens occur too rarely."""
WEIGHTS = {
    True: (0.28, 0.17, 0.90, 0.31, 0.54, 1.58, 0.81, 0.37),
    False: (0.46, 0.0, 0.0, 0.0, 0.61, 1.22, 0.54, 0.36),
}
"""Weights of `LEARNT`, with and without a lens."""
OFFSET = {True: -1.02, False: -0.60}
"""Added to the weighted sum, so that its sigmoid is the probability that the hit is right."""
BELOW_FIRST = 0.999
"""Largest Match of a dense feature, as a fraction of the first other one: it is never first."""
FEW_DENSE = 0.5
"""Share of dense features up to which that holds: most neurons are dense."""
N_RELATED, N_RELATIVES = 25, 12
"""Words near a query on which features may fire or that they may say, and those by which labels are found."""
FLOOR = 0.02
"""Strength of firing below which differences do not count: sources are compared by `log(1 + strength / FLOOR)`."""
TESTS = 5
"""Sources that have a p-value: fires, related_fires, says, related_says, contains."""
DENSITY_QUANTILE = 0.9
"""Quantile of the densities of a dictionary above which density counts no further: the densest fire on any word."""
_SLICE = 24


@dataclass(frozen=True, kw_only=True)
class RaisedWords:
    """Words that features raise: z-scores over features `[n]`, and p of each, corrected for all features."""

    z: np.ndarray
    p: np.ndarray


@dataclass(frozen=True, kw_only=True)
class FeatureEvidence:
    """Evidence for each feature of one artefact; `[n_features]` unless stated otherwise."""

    values: dict[str, np.ndarray]
    """by source, and `density`"""
    p: np.ndarray
    live: np.ndarray
    """bool: it fires, and passes the filter"""
    with_lens: bool
    sought: Sought
    firings: WordFirings
    fired: Fired | None
    phrases: Fired | None
    raised: RaisedWords | None
    related: tuple[RelatedWord, ...] = ()
    near: tuple[IndexedWord, ...] = ()
    """The related words that the index has."""
    labels: dict[int, Named] = field(default_factory=dict)
    concepts: dict[int, tuple[str, float]] = field(default_factory=dict)

    @cached_property
    def logit(self) -> np.ndarray:
        """The weighted sum of the sources; minus infinity for a feature without evidence, or filtered out."""
        weights = dict(zip(LEARNT, WEIGHTS[self.with_lens], strict=True)) | SET
        total = np.full(len(self.live), OFFSET[self.with_lens])
        spoken = np.zeros(len(self.live), bool)
        for name, value in self.values.items():
            total += weights[name] * value
            spoken |= (value > 0) & (weights[name] > 0)
        return np.where(self.live & spoken, total, -np.inf)

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
    """Return the words of a text, without outer punctuation; a space at its end stays with a single word."""
    readings = query_words(text)
    if len(readings) == 1 and text != text.rstrip():
        return [text.lstrip()]
    chunks = [chunk.strip("\"'“”‘’.,;:!?()[]{}") or chunk for chunk in text.split()]
    return list(dict.fromkeys(chunks))[:_SLICE]


def gather(
    index: FiringIndex,
    meaning: Meaning | None,
    texts: Sequence[str],
    within: Filter,
    *,
    names: Mapping[str, str] | None = None,
    examples: ExampleTexts | None = None,
    leave_out: str = "",
) -> list[FeatureEvidence]:
    """Return the evidence for each feature, for each of some texts; the index is read once for all of them.

    `leave_out` names a measured concept that must not be used.
    """
    made, workspace = index.made, index.workspace
    inside = within.mask(workspace, index.columns)
    queries = [_Asked.of(index, meaning, text) for text in texts]
    firings = index.read([word for query in queries for word in query.words])
    readings, written = readings_of(workspace, made), written_labels(workspace, made)
    measured = measured_concepts(workspace, made)
    evidence = []
    for query in queries:
        labels = by_label(readings, written, query.text, inside)
        alike = by_phrase(readings, written, query.text, inside, *_relatives(meaning))
        near = examples.features_with(query.in_examples) if examples is not None and query.in_examples else None
        concepts = by_concept(measured, query.text, leave_out=leave_out)
        named = by_own_name(made, query.text, names or {})
        evidence.append(_evidence(query, firings, meaning, inside, labels, alike, near, concepts, named))
    return evidence


def _relatives(meaning: Meaning | None) -> tuple[Relatives | None, str]:
    """Return what finds words near a query in the vocabulary of the model, and the name of its weights."""
    if meaning is None:
        return None, ""
    vocabulary, key = meaning.vocabulary, meaning.lens.settings.weight_hash

    def relatives(text: str) -> list[tuple[str, float]]:
        every = related_words(vocabulary, key, words_in(text), N_RELATED)
        return [(near.word, near.cosine) for near in every[:N_RELATIVES]]

    return relatives, key


@dataclass(frozen=True)
class _Asked:
    """A text with the words that are looked up for it."""

    text: str
    sought: Sought
    spoken: tuple[str, ...]
    """Words that features may make the model say."""
    related: tuple[RelatedWord, ...]
    related_words: tuple[IndexedWord, ...]
    """Related words that the index has, without the frequent ones."""

    @property
    def in_examples(self) -> list[str]:
        """Return what examples are searched for: a phrase, or a word that is no token of the text."""
        whole = {word.word for word in self.sought.words if word.is_token}
        return [] if fold(self.text) in whole else [self.text]

    @property
    def words(self) -> tuple[IndexedWord, ...]:
        return *self.sought.words, *self.sought.phrases, *self.sought.last, *self.related_words

    @classmethod
    def of(cls, index: FiringIndex, meaning: Meaning | None, text: str) -> "_Asked":
        """Look up the words of a text and, where there is a lens, related ones."""
        sought = index.sought(text)
        if meaning is None:
            return cls(text, sought, (), (), ())
        spoken = _without_frequent(words_in(text), sought)
        related = related_words(meaning.vocabulary, meaning.lens.settings.weight_hash, spoken, N_RELATED)
        known = index.look_up([neighbour.word for neighbour in related])
        return cls(text, sought, tuple(spoken), tuple(related), tuple(filter(index.is_rare, known.values())))


def _evidence(
    query: _Asked, firings: WordFirings, meaning: Meaning | None, inside: np.ndarray, labels: dict[int, Named],
    alike: dict[int, Alike], near: Containing | None,
    concepts: dict[int, tuple[str, float]], named: set[int],
) -> FeatureEvidence:  # fmt: skip
    """Return the evidence for each feature from the firings read; `inside [n_features]` are those to search."""
    n, sought = len(inside), query.sought
    frequency = sum(word.n for word in sought.words) / firings.index.units.n_text
    values = {"density": _log_density(firings.index.columns.density, frequency)}
    fired = firings.fired(sought.words, inside) if sought.words else None
    phrases = firings.fired(sought.phrases, inside) if sought.phrases else None
    values["fires"], values["phrase"] = _spread(n, fired), _scored(n, phrases)
    tests = [_p_of(n, scores) for scores in (fired, phrases) if scores is not None]
    lens_scores = None
    if meaning is not None:
        lens_scores, related_scores = _said(meaning, query.spoken), _related_says(meaning, query.related)
        known, weights = query.related_words, {neighbour.word: neighbour.cosine for neighbour in query.related}
        related = firings.fired(known, inside, weights) if known else None
        values |= {
            "says": _positive(lens_scores, n),
            "related_says": _positive(related_scores, n),
            "related_fires": _spread(n, related),
        }
        tests += [np.ones(n) if related is None else _p_of(n, related)]
        tests += [scores.p for scores in (lens_scores, related_scores) if scores is not None]
    values["label"] = _at(n, {i: label.strength for i, label in labels.items()})
    values["alike"] = _at(n, {i: like.likeness for i, like in alike.items()})
    values["covered"] = _at(n, {i: like.covered for i, like in alike.items()})
    values["contains"] = np.zeros(n)
    if near is not None:
        lifted = near.p <= ALPHA
        values["contains"] = _of_features(n, near.feature, np.log1p(np.where(lifted, near.share, 0.0) / FLOOR), 0.0)
        tests.append(_of_features(n, near.feature, near.p, 1.0))
    values["concept"] = _at(n, {i: f1 for i, (_, f1) in concepts.items() if i < n})
    values["name"] = _at(n, dict.fromkeys((i for i in named if i < n), 1.0))
    p = np.minimum(np.min(tests, 0) * TESTS, 1.0) if tests else np.ones(n)
    for sure in ("label", "alike", "concept", "name"):  # judged on their own nulls when they were made
        p = np.where(values[sure] > 0, np.minimum(p, ALPHA), p)
    return FeatureEvidence(
        values=values, p=p, live=inside, with_lens=meaning is not None, sought=sought, firings=firings, fired=fired,
        phrases=phrases, raised=lens_scores, related=query.related, near=query.related_words,
        labels=labels, concepts=concepts,
    )  # fmt: skip


def _p_of(n: int, scores: Fired) -> np.ndarray:
    """Return p of every feature that fires, 1 where the score is not above its null."""
    return _of_features(n, scores.feature, np.where(scores.score > scores.null, scores.p, 1.0), 1.0)


def _at(n: int, scores: Mapping[int, float]) -> np.ndarray:
    return _of_features(n, np.array(list(scores), np.int64), np.array(list(scores.values()), float), 0.0)


def _of_features(n: int, feature: np.ndarray, value: np.ndarray, default: float) -> np.ndarray:
    column = np.full(n, default)
    column[feature] = value
    return column


def _spread(n: int, scores: Fired | None) -> np.ndarray:
    """Return the strength of firing of every feature beyond its null, on a logarithmic scale from 0."""
    if scores is None:
        return np.zeros(n)
    beyond = np.maximum(scores.strength - scores.strength_null, 0.0)
    return np.log1p(_of_features(n, scores.feature, beyond, 0.0) / FLOOR)


def _log_density(density: np.ndarray, frequency: float) -> np.ndarray:
    """Return the logarithm of each density, up to the quantile `DENSITY_QUANTILE` of features that fire.

    A feature of a frequent word is dense itself, so `frequency`, the share of the text that the words make up, is a
    bound too where it is larger.
    """
    fires = density[density > 0]
    most = np.quantile(fires, DENSITY_QUANTILE, method="lower") if len(fires) else 1.0
    return np.log10(np.clip(density, 1e-6, max(most, frequency, 1e-6)))


def _scored(n: int, scores: Fired | None) -> np.ndarray:
    """Return the score of every feature: of one phrase F1, so that one that fires on it alone comes first."""
    return np.zeros(n) if scores is None else _of_features(n, scores.feature, scores.score, 0.0)


def _positive(scores: RaisedWords | None, n: int) -> np.ndarray:
    return np.zeros(n) if scores is None else np.maximum(scores.z, 0) / 5


def _without_frequent(words: Sequence[str], sought: Sought) -> list[str]:
    """Return the words that are not left out for being frequent."""
    return [word for word in words if word.strip().casefold() not in sought.left_out] or list(words)


def standardised(values: np.ndarray) -> np.ndarray:
    """Return values `[n, m]` less the median of each column, over 1.48 times the median distance from it."""
    away = values - np.median(values, axis=0)
    return away / np.maximum(1.4826 * np.median(np.abs(away), axis=0), 1e-9)


def _scores(z: np.ndarray) -> RaisedWords:
    """Return z-scores with p: the chance that the largest of so many normal ones is at least as large (Bonferroni)."""
    from scipy.special import ndtr

    return RaisedWords(z=z, p=np.minimum(ndtr(-z) * len(z), 1.0))


def _said(meaning: Meaning, words: Sequence[str]) -> RaisedWords | None:
    """Return how far features raise some words: the mean over words.

    A word that is a token counts by the mean over its spellings; one of several tokens by a soft minimum over them, so
    that a feature has to raise each.
    """
    columns = []
    for word in words:
        vocabulary: Vocabulary = meaning.vocabulary
        whole = tokens_of(vocabulary, word)
        if whole:
            columns.append(standardised(meaning.strengths(whole).mean(1, keepdims=True))[:, 0])
        elif pieces := pieces_of(vocabulary, word):
            z = standardised(meaning.strengths(pieces))
            columns.append(-np.log(np.exp(-np.clip(z, -10, 30)).mean(1)))
    if not columns:
        return None
    return _scores(standardised(np.mean(columns, 0)[:, None])[:, 0])


def _related_says(meaning: Meaning, related: Sequence[RelatedWord]) -> RaisedWords | None:
    """Return how far features raise related words, weighted by their similarity."""
    if not related:
        return None
    weights = np.array([neighbour.cosine for neighbour in related], np.float32)
    tokens = np.array([neighbour.token for neighbour in related], np.int64)
    direction = weights @ meaning.vocabulary.directions[tokens].astype(np.float32) / len(tokens)
    return _scores(standardised((meaning.carried @ direction / meaning.scale)[:, None])[:, 0])
