"""Nearest neighbours of words, and analogies, with and without spelling variants.

    words = WordVectors.of(model)
    words.nearest(" king", k=5)
    words.relation([(" man", " woman"), (" king", " queen"), (" boy", " girl")])

`b - a + c` is usually closest to `b`, to `c` and to their spelling variants: `King`, ` king`, `KING`. Excluding only
the three inputs, as is usual, lets the variants win. So a *variant* is any token that is equal up to case and
surrounding space, and no variant of a word that is given counts as an answer.

Vectors are centred by default, because token embeddings share a large mean vector that dominates raw cosines. The null
of a cosine is the cosine with random words. Analogies have two baselines: the accuracy that `c` alone gives (Linzen
2016), and the accuracy with shuffled pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from interp.errors import ConfigError, UnknownNameError
from interp.geometry.points import GeometryResult, as_points, check_count
from interp.models.hooked import HookedModel
from interp.nulls import PER_PART, null_range
from interp.results import Record
from interp.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A word, and its cosine similarity to the query."""

    word: str
    cosine: float
    variant: bool
    """True if it differs from the query in case or surrounding space only"""


@dataclass(frozen=True, kw_only=True)
class Nearest(GeometryResult):
    """Nearest neighbours of one word by cosine similarity, nearest first."""

    query: str
    neighbours: tuple[Neighbour, ...]
    """nearest words other than the query; variants are marked"""
    others: tuple[Neighbour, ...]
    """the same number of neighbours, variants excluded"""
    random: float
    """mean cosine of the query with all words"""
    random_high: float
    """99.9th percentile of the cosines with all other words"""
    centred: bool

    def sentence(self) -> str:
        near = ", ".join(f"{neighbour.word!r} {neighbour.cosine:.2f}" for neighbour in self.others)
        n_variants = sum(neighbour.variant for neighbour in self.neighbours)
        return (
            f"nearest to {self.query!r}: {near} ({n_variants} of the first {len(self.neighbours)} are its variants, "
            f"left out here; random words {self.random:.2f}, one in a thousand {self.random_high:.2f})"
        )

    def to_records(self) -> list[Record]:
        """Return one row per neighbour: `query, word, cosine, variant`, and the null `random, random_high`."""
        null = {"random": self.random, "random_high": self.random_high}
        return [{"query": self.query, **vars(neighbour), **null} for neighbour in self.neighbours]


@dataclass(frozen=True, kw_only=True)
class AnalogySet(GeometryResult):
    """Accuracy of a relation over many pairs: fraction of analogies whose expected word ranks first.

    The answer to `a : b :: c : ?` is the word nearest to `b - a + c` (Mikolov et al. 2013), variants excluded.
    """

    accuracy: float
    c_alone: float
    """accuracy of the nearest neighbour of `c` alone"""
    shuffled: float
    """mean accuracy with the second words of the pairs shuffled: the offset between the kinds without the pairing"""
    shuffled_high: float
    n: int
    seed: int

    def sentence(self) -> str:
        return (
            f"{self.accuracy:.2f} of {self.n} analogies; neighbours of the third word alone {self.c_alone:.2f}, "
            + null_range("shuffled pairs", f"{self.shuffled:.2f}", f"{self.shuffled_high:.2f}")
        )


class WordVectors:
    """Words with one vector each, searched by cosine similarity."""

    def __init__(self, words: Sequence[str], vectors: ArrayLike, *, centre: bool = True):
        points = as_points(vectors, what="the word vectors")
        if len(words) != len(points):
            raise ConfigError(f"{len(words)} words and {len(points)} vectors; give one vector for each word")
        points = points - points.mean(0) if centre else points
        self.units = points / np.linalg.norm(points, axis=1, keepdims=True).clip(min=1e-300)
        self.words, self.centre = list(words), centre
        self._number = {word: number for number, word in reversed(list(enumerate(words)))}

    @classmethod
    def of(cls, model: HookedModel, *, centre: bool = True) -> "WordVectors":
        """Return the token embeddings of a model, special tokens excluded."""
        from interp.models.adapter import ordinary_tokens, token_strings, widened

        ids = ordinary_tokens(model)
        return cls(token_strings(model, ids), widened(model.W_E[ids].detach()), centre=centre)

    def __len__(self) -> int:
        return len(self.words)

    def number(self, word: str) -> int:
        """Return the index of a word. Raises `UnknownNameError` for one not in the list, as one of several tokens."""
        if word not in self._number:
            raise UnknownNameError(
                "word",
                word,
                self.words,
                "A word of several tokens has no embedding of its own; mind the leading space.",
            )
        return self._number[word]

    @cached_property
    def family(self) -> np.ndarray:
        """Number `[n]` of each word's family; words equal up to case and surrounding space share one."""
        known: dict[str, int] = {}
        return np.array([known.setdefault(word.strip().casefold(), len(known)) for word in self.words])

    def variants(self, *words: str) -> np.ndarray:
        """Return a mask `[n]` of the words themselves and their variants."""
        return np.isin(self.family, [self.family[self.number(word)] for word in words])

    def nearest(self, word: str, k: int = 10) -> Nearest:
        """Return the `k` nearest words by cosine similarity, without the word itself."""
        number = self.number(word)
        cosines = self.units @ self.units[number]
        mask, same = np.zeros(len(self), bool), self.variants(word)
        if same.all():
            raise ConfigError(f"all {len(self)} words are variants of {word!r}; neighbours need other words")
        mask[number] = True
        far = cosines[~same]

        def first(left_out: np.ndarray) -> tuple[Neighbour, ...]:
            best = _order(cosines, left_out)[:k]
            return tuple(Neighbour(word=self.words[i], cosine=float(cosines[i]), variant=bool(same[i])) for i in best)

        return Nearest(
            query=word,
            neighbours=first(mask),
            others=first(same),
            random=float(far.mean()),
            random_high=float(np.quantile(far, 0.999)),
            centred=self.centre,
        )

    def relation(self, pairs: Sequence[tuple[str, str]], *, n_shuffles: int = PER_PART, seed: int = 0) -> AnalogySet:
        """Apply every pair's offset to the first word of every other pair. Raises `ConfigError` below three pairs."""
        if len(pairs) < 3:
            raise ConfigError(f"{len(pairs)} pairs; at least three are needed to shuffle them")
        check_count("n_shuffles", n_shuffles, 1, "shuffled pairs are the baseline of an accuracy")
        first, second = (np.array([self.number(pair[side]) for pair in pairs]) for side in (0, 1))
        rng = np.random.default_rng(derive_seed(seed, "shuffled pairs"))
        shuffled = [self._share_right(first, rng.permutation(second), second) for _ in range(n_shuffles)]
        return AnalogySet(
            accuracy=self._share_right(first, second, second),
            c_alone=self._share_right(first, None, second),
            shuffled=float(np.mean(shuffled)),
            shuffled_high=float(np.max(shuffled)),
            n=len(pairs) * (len(pairs) - 1),
            seed=seed,
        )

    def _share_right(self, first: np.ndarray, second: np.ndarray | None, right: np.ndarray) -> float:
        """Return the fraction of right answers; with `second` None, for the vector of `c` alone.

        The words used cannot be answers. Where that excludes the right answer, the analogy is skipped.
        """
        hits: list[bool] = []
        used = right if second is None else second
        units = self.units.astype(np.float32)
        for i in range(len(first)):
            others = np.delete(np.arange(len(first)), i)
            offset = 0.0 if second is None else units[second[i]] - units[first[i]]
            cosines = (units[first[others]] + offset) @ units.T
            for row, j in zip(cosines, others, strict=True):
                inputs = self.variants(*(self.words[n] for n in (first[i], used[i], first[j])))
                if not inputs[right[j]]:
                    hits.append(int(np.where(inputs, -np.inf, row).argmax()) == right[j])
        if not hits:
            raise ConfigError(
                "every expected word is a variant of an input word, so no analogy can be tested; give other pairs"
            )
        return float(np.mean(hits))


def _order(cosines: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Return the indices of the words, nearest first."""
    order = np.argsort(-cosines, kind="stable")
    return order[~left_out[order]]
