"""Settings of a proof, and one feature with its text, its controls and the words that it reads.

The strong examples of a feature are split into two halves without a document in common. One half names the words: the
tokens of its peaks, in every form of them that the vocabulary has. What is proved of these words is measured on the
documents that did not choose them. Torch-free.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from interp.artifacts import read_manifest, read_table
from interp.errors import ConfigError, UsageError
from interp.lenses.vocabulary import Vocabulary
from interp.nulls import DRAWS
from interp.options import check_least
from interp.seeds import derive_seed

WORDS = 6
"""Most words of a feature that are tested, each in all its forms."""


@dataclass(frozen=True, kw_only=True)
class ProofConfig:
    """Settings of the standard proof of a feature."""

    draws: int = DRAWS["thorough"]
    """Directions of each null. The smallest p-value is 1 / (draws + 1); four tests need 79 for Holm's correction."""
    examples: int = 8
    """Examples of the feature on which it is ablated: the strongest, of different documents where possible."""
    others: int = 24
    """Passages of other text, examples of features drawn at random."""
    before: int = 10
    """Tokens of an example before its peak."""
    after: int = 10
    """Tokens of an example after its peak."""
    strength: float | None = None
    """Strength of steering, in units of the feature's largest activation. Default: 0.5, 1 or 2, whichever raises its
    words most on the first prompts."""
    new_tokens: int = 12
    """Tokens of the continuations shown."""

    def __post_init__(self) -> None:
        check_least(self, {"draws": 1, "examples": 1, "others": 1, "before": 0, "after": 1, "new_tokens": 1})
        if self.strength is not None and not (math.isfinite(self.strength) and self.strength > 0):
            raise ConfigError(f"strength must be a number above 0, got {self.strength}; leave it out for the default")


def can_be_named(word: str) -> bool:
    """Return False for white space, parts of characters and what cannot be printed."""
    return "\ufffd" not in word and any(char.isprintable() for char in word)


def first_words(tokens: Iterable[int], n: int, vocabulary: Vocabulary, left_out: Collection[int] = ()) -> list[int]:
    """Return the first `n` different words among some tokens, each in all its forms."""
    words: dict[str, dict[int, None]] = {}
    for token in tokens:
        word = vocabulary.texts[token].strip()
        if token in left_out or not can_be_named(word):
            continue
        if word.casefold() not in words and len(words) == n:
            break
        words.setdefault(word.casefold(), {}).update(dict.fromkeys([token, *vocabulary.spelled(word)]))
    return [token for forms in words.values() for token in forms]


@dataclass(frozen=True)
class ProofWords:
    """Tokens that a proof measures, the same for every direction."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    """of each word once, the most frequent first, with escapes"""
    chosen_by: Literal["firings", "lens", "claim"] = "firings"
    """`lens`: it fires on nothing that can be named, so these are words that its direction raises; `claim`: given"""

    @property
    def any_direction_may_pass(self) -> bool:
        """True where its own direction chose the words: random directions raise their own words, too."""
        return self.chosen_by == "lens"

    @classmethod
    def of(
        cls, ids: Collection[int], vocabulary: Vocabulary, chosen_by: Literal["firings", "lens", "claim"]
    ) -> "ProofWords":
        """Return some tokens with their texts; a part of words, which no token has after a space, begins with -."""
        words: dict[str, str] = {}
        for token in ids:
            text = vocabulary.texts[token].strip() or vocabulary.texts[token]
            part = text.isalpha() and text.islower() and f" {text}" not in vocabulary.numbers
            shown = text if text.isprintable() else repr(text)[1:-1]
            words.setdefault(text.casefold(), "-" * part + shown)
        return cls(tuple(ids), tuple(words.values()), chosen_by)


@dataclass(frozen=True)
class Passage:
    """Some tokens of recorded text, in which a feature peaks."""

    token_ids: tuple[int, ...]
    peak: int
    document: int
    activation: float


@dataclass(frozen=True, kw_only=True)
class FeatureCase:
    """One feature with its text and its controls, read from the feature tables."""

    features: str
    """Name of the features artefact."""
    feature: int
    density: float
    max_activation: float
    label: str
    examples: tuple[Passage, ...]
    """All stored examples, strongest group first."""
    other: tuple[Passage, ...]
    """Examples of features drawn at random, from documents without an example of this one where possible."""
    alike: tuple[int, ...]
    """Live features with the nearest density."""

    @property
    def strong(self) -> tuple[Passage, ...]:
        """Examples of at least half of the largest activation, and four at least: weak ones peak on other tokens."""
        most = max(example.activation for example in self.examples)
        strong = tuple(example for example in self.examples if example.activation >= most / 2)
        return strong if len(strong) >= 4 else self.examples[:4]

    def halves(self) -> tuple[tuple[Passage, ...], tuple[Passage, ...]]:
        """Split the strong examples into two halves without a document in common, alternating by strength."""
        strong = self.strong
        first = set(list(dict.fromkeys(example.document for example in strong))[::2])
        first_half = tuple(example for example in strong if example.document in first)
        two = tuple(example for example in strong if example.document not in first)
        return (first_half, two) if two else (strong[::2], strong[1::2])

    def judging(self) -> tuple[Passage, ...]:
        """Return the examples of documents that chose no word, the weak ones too."""
        choosing, other_half = self.halves()
        documents = {example.document for example in choosing}
        return tuple(example for example in self.examples if example.document not in documents) or other_half

    def words(self, vocabulary: Vocabulary, left_out: Collection[int] = ()) -> ProofWords | None:
        """Return the words on which it peaks in the first half; None if none can be named.

        The most frequent come first, among equals those that are whole words. White space, parts of characters and the
        tokens `left_out` (BOS) are no words.
        """
        counts: Counter[str] = Counter()
        forms: dict[str, dict[int, None]] = {}
        for example in self.halves()[0]:
            token = example.token_ids[example.peak]
            word = vocabulary.texts[token].strip()
            if token in left_out or not can_be_named(word):
                continue
            counts[word.casefold()] += 1
            forms.setdefault(word.casefold(), {}).update(dict.fromkeys([token, *vocabulary.spelled(word)]))

        def rank(word: str) -> tuple[int, bool]:
            return -counts[word], not any(vocabulary.texts[token].startswith(" ") for token in forms[word])

        chosen = [token for word in sorted(counts, key=rank)[:WORDS] for token in forms[word]]
        return ProofWords.of(chosen, vocabulary, "firings") if chosen else None

    @staticmethod
    def strongest(passages: Sequence[Passage], n: int) -> list[Passage]:
        """Return the `n` strongest passages that a token follows, one of each document first."""
        followed = [example for example in passages if example.peak + 1 < len(example.token_ids)]
        seen: set[int] = set()
        ranked = sorted(
            range(len(followed)),
            key=lambda at: (followed[at].document in seen or seen.add(followed[at].document) is not None, at),
        )
        return [followed[at] for at in ranked[:n]]


def read_case(folder: Path, feature: int, config: ProofConfig, *, seed: int = 0) -> FeatureCase:
    """Read one feature of a features artefact, other text, and features of like density.

    Raises `UsageError` for a feature that does not exist, or that never fires.
    """
    manifest, path = read_manifest(folder), folder / "features.parquet"
    table = read_table(path, ["feature", "density", "n_fired", "max_activation", "decoder_norm", "label"])
    if not 0 <= feature < len(table):
        raise UsageError(f"feature {feature} is not in {folder.name!r}: its features are 0 to {len(table) - 1}")
    density, norm = table["density"].to_numpy(), table["decoder_norm"].to_numpy()
    examples = _passages(folder, [feature], config)
    if density[feature] == 0 or not examples:
        raise UsageError(f"feature {feature} of {manifest.name!r} never fires, so there is no text to prove it with")
    live = np.flatnonzero((density > 0) & (norm > 0))
    live = live[live != feature]
    distance = np.abs(np.log(density[live]) - np.log(density[feature]))
    alike = live[np.argsort(distance, kind="stable")[: config.draws]]
    rng = np.random.default_rng(derive_seed(seed, "other text", feature))
    drawn = rng.permutation(live)[: 2 * config.others].tolist()
    documents = {example.document for example in examples}
    passages = [passage for passage in _passages(folder, drawn, config, only_best=True) if len(passage.token_ids) > 2]
    passages = sorted(passages, key=lambda passage: passage.document in documents)[: config.others]
    return FeatureCase(
        features=manifest.name,
        feature=feature,
        density=float(density[feature]),
        max_activation=float(table["max_activation"][feature].as_py()),
        label=table["label"][feature].as_py() or "",
        examples=tuple(examples),
        other=tuple(passages),
        alike=tuple(alike.tolist()),
    )


def random_passages(folder: Path, n: int, before: int, *, seed: int = 0) -> tuple[Passage, ...]:
    """Return the strongest example of each of `n` features drawn at random: its peak and `before` tokens."""
    strongest = [("group_order", "==", 0), ("rank", "==", 0)]
    rows = read_table(folder / "examples.parquet", ["activation", "document", "token_ids", "peak"], filters=strongest)
    drawn = np.random.default_rng(derive_seed(seed, "random passages")).permutation(len(rows))[:n]
    passages = []
    for row in rows.take(drawn).to_pylist():
        ids = tuple(row["token_ids"][max(0, row["peak"] - before) : row["peak"] + 1])
        passages.append(Passage(ids, len(ids) - 1, row["document"], row["activation"]))
    return tuple(passages)


def passages_with(
    folder: Path, ids: Collection[int], n: int, *, but: Collection[int] = (), seed: int = 0
) -> tuple[Passage, ...]:
    """Return up to `n` examples of any feature that contain one of some tokens, one of a document, drawn at random.

    `but`: documents that are left out.
    """
    rows = read_table(folder / "examples.parquet", ["activation", "document", "token_ids", "peak"])
    tokens = rows["token_ids"].combine_chunks()
    at = np.flatnonzero(np.isin(tokens.flatten().to_numpy(), list(ids)))
    containing = np.unique(np.searchsorted(tokens.offsets.to_numpy(), at, side="right") - 1)
    passages: dict[int, Passage] = {}
    for row in np.random.default_rng(derive_seed(seed, "passages with words")).permutation(containing).tolist():
        document = rows["document"][row].as_py()
        if document not in but and document not in passages:
            peak, activation = rows["peak"][row].as_py(), rows["activation"][row].as_py()
            passages[document] = Passage(tuple(tokens[row].as_py()), peak, document, activation)
        if len(passages) == n:
            break
    return tuple(passages.values())


def _passages(folder: Path, features: Sequence[int], config: ProofConfig, *, only_best: bool = False) -> list[Passage]:
    """Return the examples of some features, cut to the tokens around the peak that are needed."""
    columns = ["group_order", "rank", "activation", "document", "token_ids", "peak"]
    wanted: list[Any] = [("feature", "in", list(features))]
    wanted += [("group_order", "==", 0), ("rank", "==", 0)] * only_best
    rows = read_table(folder / "examples.parquet", columns, filters=wanted).to_pylist()
    passages = []
    for row in sorted(rows, key=lambda row: (row["group_order"], row["rank"])):
        start = max(0, row["peak"] - config.before)
        ids = tuple(row["token_ids"][start : row["peak"] + config.after + 1])
        passages.append(Passage(ids, row["peak"] - start, row["document"], row["activation"]))
    return passages
