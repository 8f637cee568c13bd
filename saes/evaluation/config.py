"""Settings of probing and of absorption, lists of concepts, scores of a comparison. Torch-free: pages read them."""

import tomllib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from interp.errors import ConfigError, CorruptError
from interp.seeds import derive_seed

GOOD_F1 = 0.7
"""Smallest F1 with which a latent counts as detecting a concept."""
MIN_ROWS = 20
"""Smallest number of rows of each answer of a probing task, in training and in test rows."""


NEAR_COPY = 0.9
"""Cosine similarity with another decoder row above which a latent is nearly a copy of it."""


@dataclass(frozen=True)
class Score:
    """A score of one dictionary in a comparison, shown as a column."""

    title: str
    path: str
    """Fields that lead to it from a row, such as `own.fvu`."""
    form: str = ".3f"
    averaged: bool = False
    """True where runs that differ in their seed are averaged."""

    def of(self, row: Any) -> float | None:
        """Return the score of a row of a comparison; None where it was not measured."""
        for name in self.path.split("."):
            row = getattr(row, name, None)
        return row

    def text(self, row: Any) -> str:
        """Return the score of a row as text; empty where it was not measured."""
        value = self.of(row)
        return "" if value is None else format(value, self.form)


SCORES = (
    Score("L0", "own.l0", ".1f", averaged=True),
    Score("FVU", "own.fvu", ".4f", averaged=True),
    Score("L0 cut", "matched.l0", ".1f"),
    Score("FVU cut", "matched.fvu", ".4f", averaged=True),
    Score("dead", "own.dead_fraction", ".1%", averaged=True),
    Score("dense", "own.dense_fraction", ".1%"),
    Score("nearest cos", "nearest_cosine", ".2f", averaged=True),
    Score(f"cos > {NEAR_COPY}", "near_copies", ".1%"),
    Score("rel. bias", "own.relative_bias"),
    Score("l2 ratio", "own.l2_ratio"),
    Score("CE recovered", "model.ce_recovered", averaged=True),
    Score("from mean", "model.ce_recovered_from_mean"),
    *(
        Score(title, f"recovery.{field}", averaged=True)
        for title, field in {"MCC": "mcc", "F1": "f1", "unique": "uniqueness", "strength": "shrinkage"}.items()
    ),
)
"""Scores in the order of the columns. `cut` is at the L0 of the sparsest dictionary; the model runs with that one."""


@dataclass(frozen=True, kw_only=True)
class ProbingConfig:
    """Settings of sparse probing."""

    ks: tuple[int, ...] = (1, 2, 5)
    """Numbers of latents that a probe reads."""
    n_train: int = 8192
    """Tokens of training documents that a probe is fitted to, drawn anew for every seed."""
    n_test: int = 8192
    """Tokens of held-out documents that probes are tested on."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds over which scores are averaged."""

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1 or min(self.n_train, self.n_test) < 2 * MIN_ROWS or not self.seeds:
            raise ConfigError(
                f"probing needs k of 1 or more, at least {2 * MIN_ROWS} training and test tokens and a seed, got ks "
                f"{self.ks}, n_train {self.n_train}, n_test {self.n_test} and seeds {self.seeds}"
            )


@dataclass(frozen=True, kw_only=True)
class AbsorptionConfig:
    """Settings of the measurement of feature absorption."""

    n_rows: int = 12_000
    """Largest number of words whose first letter is asked for."""
    per_word: int = 4
    """Largest number of occurrences of each word type among them."""
    test_share: float = 0.4
    """Share of word types that the probes do not see, drawn anew for every seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the splits over which scores are averaged; the first also draws the words."""

    def __post_init__(self) -> None:
        if min(self.n_rows, self.per_word) < 1 or not 0 < self.test_share < 1 or not self.seeds:
            raise ConfigError(
                "absorption needs n_rows and per_word of at least 1, test_share between 0 and 1 and a seed, got "
                f"{self.n_rows}, {self.per_word}, {self.test_share} and {self.seeds}"
            )


LIST = Path(__file__).with_name("concepts.toml")
"""The list that ships."""
NEGATIVES = 4
"""Words of other concepts for every word of a concept, so that always saying yes has F1 1/3."""
LEAST_WORDS, LEAST_SENTENCES = 7, 40
"""Fewest words of a concept, and fewest sentences that contain one of them."""

Set = Literal["choose", "judge"]
Half = Literal[0, 1]
"""0: the words that choose a latent and its threshold; 1: those that judge them."""


@dataclass(frozen=True, kw_only=True)
class Concept:
    """One concept of a list."""

    name: str
    kind: str
    """class of words; its templates fit each of them"""
    set: Set
    """`choose`: may guide the choice of a dictionary; `judge`: judges once at the end"""
    words: tuple[str, ...]

    def half(self, half: Half) -> tuple[str, ...]:
        """Return the words at even (0) or odd (1) positions."""
        return self.words[half::2]


@dataclass(frozen=True, kw_only=True)
class ConceptList:
    """Concepts, and the templates and other words of their classes."""

    concepts: tuple[Concept, ...]
    measured: tuple[Concept, ...]
    """those to score"""
    templates: dict[str, tuple[str, ...]]
    """class -> sentences with one `{}`"""
    others: dict[str, tuple[str, ...]]
    """class -> words of no concept"""

    def negatives(self, concept: Concept, half: Half, *, seed: int = 0) -> tuple[str, ...]:
        """Draw `NEGATIVES` times as many words of other concepts of the class as the half has, from their same half."""
        pool = [w for c in self.concepts if c.kind == concept.kind and c != concept for w in c.half(half)]
        pool += self.others[concept.kind][half::2]
        rng = np.random.default_rng(derive_seed(seed, "concepts", concept.name, half))
        drawn = rng.permutation(len(pool))[: NEGATIVES * len(concept.half(half))]
        return tuple(pool[i] for i in sorted(drawn))

    def only(self, wanted: Literal["all", "choose", "judge"]) -> "ConceptList":
        """Return the list that measures concepts of one set; the words of all others remain negatives.

        Raises `ConfigError` for a set without concepts.
        """
        measured = tuple(c for c in self.measured if wanted in ("all", c.set))
        if not measured:
            raise ConfigError(f"no concept of the list is in the set {wanted!r}; choose another set")
        return replace(self, measured=measured)

    def sentences(self) -> "dict[tuple[str, str, int], tuple[str, int, int]]":
        """Return `(class, word, template) -> (text, start, end)`, with the characters of the word."""
        found = {}
        for kind, templates in self.templates.items():
            words = dict.fromkeys([w for c in self.concepts if c.kind == kind for w in c.words])
            for word in [*words, *self.others[kind]]:
                for number, template in enumerate(templates):
                    start = template.index("{}")
                    text = template[:start] + word + template[start + 2 :]
                    found[kind, word, number] = (text, start, start + len(word))
        return found


def read_concepts(path: Path = LIST) -> ConceptList:
    """Read a list of concepts, by default the one that ships.

    Raises `CorruptError` for a file of another shape, `ConfigError` for a list that cannot be measured: a word of two
    concepts of one class, or too few words, sentences or negatives.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        concepts = tuple(
            Concept(name=c["name"], kind=c["class"], set=c.get("set", "choose"), words=tuple(c["words"]))
            for c in found["concepts"]
        )
        templates = {name: tuple(each["templates"]) for name, each in found["classes"].items()}
        others = {name: tuple(each.get("others", ())) for name, each in found["classes"].items()}
        listed = ConceptList(concepts=concepts, measured=concepts, templates=templates, others=others)
        _check(listed)
    except OSError as error:
        raise ConfigError(f"no list of concepts can be read at {path} ({error.strerror}); give a .toml file") from error
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:  # not TOML, not text, other shapes
        raise CorruptError(f"{path} is not a list of concepts ({error!r}); {LIST} shows the format") from error
    return listed


def _check(listed: ConceptList) -> None:
    names = Counter(c.name for c in listed.concepts)
    problems = [f"{name} is listed {n} times" for name, n in names.items() if n > 1]
    for kind, templates in listed.templates.items():
        problems += [f"a template of {kind} has not one {{}}: {t!r}" for t in templates if t.count("{}") != 1]
        words = Counter([w for c in listed.concepts if c.kind == kind for w in c.words] + list(listed.others[kind]))
        problems += [f"{word!r} is listed {n} times in class {kind}" for word, n in words.items() if n > 1]
    for c in listed.concepts:
        n = len(c.words) * len(listed.templates[c.kind])
        if len(c.words) < LEAST_WORDS or n < LEAST_SENTENCES:
            problems.append(
                f"{c.name} has {len(c.words)} words and {n} sentences, needs {LEAST_WORDS} and {LEAST_SENTENCES}"
            )
        for half in (0, 1):
            wanted, found = NEGATIVES * len(c.half(half)), len(listed.negatives(c, half))
            if found < wanted:
                problems.append(f"class {c.kind} has {found} other words in half {half}, {c.name} needs {wanted}")
    if problems:
        raise ConfigError(f"the list of concepts cannot be measured: {'; '.join(problems)}")
