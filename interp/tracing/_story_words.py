"""Words of the latents of a graph: what their labels and lens words say, how alike they are, and names of groups."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from interp.tracing._function_words import FUNCTION_WORDS

WordVectors = Callable[[Sequence[str]], Float[np.ndarray, "words d"]]
"""`vectors(words)` returns one row per word, zeros for an unknown one."""
STEM = 5
"""First letters in which forms of a word agree: France and French need vectors, orbit and orbiting do not."""
NEAR = 0.15
"""Cosine of two words that are on one topic; of random ones fewer than 1 % are as near (`Vocabulary.word_vectors`)."""
_GRAMMAR = """
noun nouns verb verbs adjective adverb preposition pronoun conjunction determiner article quantifier
possessive plural singular comparative superlative person third first second past form forms word words letter
letters number digit numbers sign symbol punctuation dash hyphen comma colon semicolon bracket quotation mark
marks question exclamation sentence paragraph document line break spaces space piece pieces longer middle last
start end any name capital capitalised capitals inside other single token tokens pair passage before after
often near like not code formulas function call came cause consequence case auxiliary modal negation
identifier spelling accented roman numeral underscore abbreviation hyphenated chunk
"""
GRAMMAR = frozenset(_GRAMMAR.split())
"""Words of labels that say how a word is used, not what it means."""


@dataclass(frozen=True)
class NodeWords:
    """Words of one latent: those it is active on or near, and those that it makes the model say."""

    reads: tuple[str, ...] = ()
    says: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.reads, *self.says)


def words_of(label: str, says: Iterable[str] = ()) -> NodeWords:
    """Return the words of a label by rules or of a written one, and those of `says` that are words.

    What a label quotes, or the topic that it names; nothing for a part of speech. A label of what comes next
    ('before " city"') or of promoted words ('raises " gold"') counts as said.
    """
    text = re.sub(r" \(\d+ %\)$", "", label).removeprefix("often ")
    quoted = re.findall(r'"([^"]*)"', text)
    promoted = [*quoted] if re.match(r"(before|raises|promotes) ", text) else []
    if text.startswith(("no label", "fires on", "after ", "dense", "rare", "dead")):
        read: list[str] = []
    elif quoted:
        read = [] if promoted else quoted
    elif text.startswith("in ") and text.endswith(" docs"):  # a source of one word, such as a language, is a topic
        source = text[3:-5].removeprefix("sampled ")
        read = [] if " " in source else [source]
    else:
        read = [] if text.startswith("before ") else [_topic(text)]
    return NodeWords(_meaningful(read), _meaningful([*promoted, *says]))


def _topic(label: str) -> str:
    """Return the meaning that a class of words has: of "adjective of country" the country; empty for grammar alone."""
    text = re.sub(r"^(noun|verb|adjective)s? of ", "", label.split(",")[0])
    return "" if all(word in GRAMMAR | FUNCTION_WORDS for word in re.findall(r"[a-z]+", text.lower())) else text


def _meaningful(words: Iterable[str]) -> tuple[str, ...]:
    """Return each word once, as it is spelled, without function words, signs, bytes and single letters."""
    kept = {}
    for word in words:
        bare = word.strip()
        if bare.lower() not in FUNCTION_WORDS and re.fullmatch(r"[^\W\d_][\w' -]+[^\W_]|\d+", bare):
            kept.setdefault(bare.lower(), bare)
    return tuple(kept.values())


def stem(word: str) -> str:
    """Return the letters that forms of a word share: those of its singular, at most `STEM`."""
    bare = word.strip().lower()
    bare = f"{bare[:-3]}y" if bare.endswith("ies") else bare.removesuffix("s") or bare
    return bare[:STEM]


class Topic:
    """The words of a graph that are near a word of the prompt or of the answer, and how alike latents are by them."""

    def __init__(
        self,
        words: Mapping[int, NodeWords],
        positions: Mapping[int, int],
        prompt: Sequence[tuple[int, str]],
        answer: Sequence[str],
        vectors: WordVectors | None,
    ) -> None:
        """Keep the words of latents, at `positions`, that are near a word of the prompt up to there or the answer's.

        `prompt` are positions and words. Without `vectors` nothing tells what is off the topic, and all words are kept.
        """
        texts = sorted(
            {word for node in words.values() for word in node.all} | {word for _, word in prompt} | {*answer}
        )
        self._at, self._vectors = {word: i for i, word in enumerate(texts)}, _units(texts, vectors)
        self._stems, self._answer = [stem(word) for word in texts], list(answer)
        near, nearest = {-1: self._nearness(texts, answer)}, self._nearness(texts, answer)
        for position, word in sorted(prompt):
            near[position] = nearest = np.maximum(nearest, self._nearness(texts, [word]))
        least = 0.0 if vectors is None else NEAR
        numbers = any(char.isdigit() for word in (*answer, *(word for _, word in prompt)) for char in word)
        self.words: dict[int, dict[str, float]] = {}
        """by number of a node: its words on the topic, each with its nearness, 0 to 1"""
        for i, node in words.items():
            values = near[max(position for position in near if position <= positions.get(i, -1))]
            known = {
                word: max(float(values[self._at[word]]), 1e-3) for word in node.all if numbers or not word.isdigit()
            }
            self.words[i] = {word: value for word, value in known.items() if value >= least}

    def _nearness(self, words: Sequence[str], others: Sequence[str]) -> Float[np.ndarray, " words"]:
        """Return the largest likeness of each word with any of the others."""
        ours, theirs = [self._at[word] for word in words], [self._at[word] for word in others]
        if not theirs:
            return np.zeros(len(ours))
        cosines = np.clip(self._vectors[ours] @ self._vectors[theirs].T, 0, 1)
        stems = {self._stems[i] for i in theirs}
        return np.where([self._stems[i] in stems for i in ours], 1.0, cosines.max(1))

    def near_answer(self, words: Sequence[str]) -> float:
        """Return how near the nearest of some words is to those of the answer, 0 to 1."""
        return float(self._nearness(words, self._answer).max(initial=0.0))

    def likeness(self, nodes: Sequence[int]) -> Float[np.ndarray, "n n"]:
        """Return how alike latents are: 1 where they share a word, else the cosine of their mean vectors."""
        sets = [list(self.words[i]) for i in nodes]
        means = np.stack([self._vectors[[self._at[word] for word in words]].sum(0) for words in sets])
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        stems = [{self._stems[self._at[word]] for word in words} for words in sets]
        shared = np.array([[bool(a & b) for b in stems] for a in stems], float)
        return np.maximum(np.clip(means @ means.T, 0, 1), shared)

    def frequent(self, lists: Iterable[Sequence[str]], most: int = 4) -> tuple[str, ...]:
        """Return the words on the topic that most lists have."""
        known = {word for words in self.words.values() for word in words}
        counts = Counter(word for words in lists for word in words if word in known)
        return tuple(word for word, _ in counts.most_common(most))


def _units(words: Sequence[str], vectors: WordVectors | None) -> Float[np.ndarray, "words d"]:
    rows = np.zeros((len(words), 1)) if vectors is None else vectors(words)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def leading_words(weights: Mapping[str, float], most: int = 2) -> list[str]:
    """Return the words of most weight, forms of one word as its heaviest form; a second only with half the weight."""
    by_stem: dict[str, dict[str, float]] = defaultdict(dict)
    for word, weight in weights.items():
        by_stem[stem(word)][word] = by_stem[stem(word)].get(word, 0.0) + weight
    ranked = sorted(by_stem.values(), key=lambda forms: -sum(forms.values()))
    totals = [sum(forms.values()) for forms in ranked]
    return [
        max(forms, key=lambda word: (forms[word], -len(word)))
        for forms, total in list(zip(ranked, totals, strict=True))[:most]
        if total >= 0.5 * totals[0]
    ]
