"""Nearest words and analogies, with and without the words that win for the wrong reason.

    words = WordVectors.of(model)
    words.nearest(" king", k=5)
    words.analogy(" man", " king", " woman", expect=" queen")

`b - a + c` is mostly close to `b` and `c`, and to their spelling variants: `King`, ` king`, `KING`. Leaving out the
three inputs only, as is usual, lets the variants win; so a *variant* is any token that is the same without case and
surrounding space, and every answer is ranked three times: nothing left out, inputs left out, variants left out too.

Vectors are centred by default: token embeddings share a large mean vector, and raw cosines are mostly that.
The null of a cosine is the cosine of random words; that of an analogy, the rank that `c` alone gives (Linzen 2016), and
the ranks when the pairs are shuffled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from interp.errors import ConfigError, UnknownNameError
from interp.geometry.points import Finding, as_points, check_count
from interp.runtime import derive_seed


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """One word near another."""

    word: str
    cosine: float
    variant: bool
    """differs from the query in case or surrounding space only"""


@dataclass(frozen=True, kw_only=True)
class Nearest(Finding):
    """Neighbours of one word, nearest first."""

    query: str
    neighbours: tuple[Neighbour, ...]
    """variants among them are marked"""
    others: tuple[Neighbour, ...]
    """as many, without variants"""
    random: float
    """mean cosine of the query with all words"""
    random_high: float
    """cosine that one word in a thousand reaches"""
    centred: bool

    def sentence(self) -> str:
        near = ", ".join(f"{each.word!r} {each.cosine:.2f}" for each in self.others)
        n_variants = sum(each.variant for each in self.neighbours)
        return (
            f"nearest to {self.query!r}: {near} ({n_variants} of the first {len(self.neighbours)} are its variants, "
            f"left out here; random words {self.random:.2f}, one in a thousand {self.random_high:.2f})"
        )


@dataclass(frozen=True, kw_only=True)
class Analogy(Finding):
    """`a` is to `b` as `c` is to what?"""

    a: str
    b: str
    c: str
    answers: dict[str, tuple[str, ...]]
    """the first words with `nothing`, `inputs`, `variants` left out"""
    expect: str | None
    ranks: dict[str, int] | None
    """of the expected word, 1 is first; where `inputs` are left out its own variants still count as wrong"""
    rank_of_c_alone: int | None
    """of the expected word among the neighbours of `c`, variants left out: what the offset has to beat"""
    centred: bool

    def sentence(self) -> str:
        text = f"{self.a!r} is to {self.b!r} as {self.c!r} is to {self.answers['variants'][0]!r}"
        text += f" (inputs left out only: {self.answers['inputs'][0]!r}; nothing: {self.answers['nothing'][0]!r})"
        if self.ranks is not None:
            text += (
                f"; {self.expect!r} has rank {self.ranks['variants']}, {self.ranks['inputs']}, {self.ranks['nothing']}"
                f", and {self.rank_of_c_alone} near {self.c!r} alone"
            )
        return text


@dataclass(frozen=True, kw_only=True)
class AnalogySet(Finding):
    """A relation over many pairs: shares of analogies whose expected word comes first, variants left out."""

    accuracy: float
    c_alone: float
    """by the neighbours of `c` alone"""
    shuffled: float
    """with second words of the pairs shuffled: what the offset of the two kinds of words gives without the pairing"""
    shuffled_high: float
    n: int
    seed: int

    def sentence(self) -> str:
        return (
            f"{self.accuracy:.2f} of {self.n} analogies; neighbours of the third word alone {self.c_alone:.2f}, pairs "
            f"shuffled {self.shuffled:.2f}, at most {self.shuffled_high:.2f}"
        )


class WordVectors:
    """Words with a vector each, and searches among them."""

    def __init__(self, words: Sequence[str], vectors: Any, *, centre: bool = True):
        points = as_points(vectors, what="the word vectors")
        if len(words) != len(points):
            raise ConfigError(f"{len(words)} words and {len(points)} vectors; one for each was expected")
        points = points - points.mean(0) if centre else points
        self.units = points / np.linalg.norm(points, axis=1, keepdims=True).clip(min=1e-300)
        self.words, self.centre = list(words), centre
        self._number = {word: number for number, word in reversed(list(enumerate(words)))}

    @classmethod
    def of(cls, model: Any, *, centre: bool = True) -> "WordVectors":
        """The token embeddings of a model, special tokens left out."""
        from interp.models.adapter import ordinary_tokens, token_strings

        ids = ordinary_tokens(model)
        return cls(token_strings(model, ids), model.W_E[ids].detach(), centre=centre)

    def __len__(self) -> int:
        return len(self.words)

    def number(self, word: str) -> int:
        """Raises `UnknownNameError` for what is not one word here, such as a word of several tokens."""
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
        """`[n]` a number for each word; the same for words that are equal without case and surrounding space."""
        known: dict[str, int] = {}
        return np.array([known.setdefault(word.strip().casefold(), len(known)) for word in self.words])

    def variants(self, *words: str) -> np.ndarray:
        """`[n]` bool: the words themselves and their variants."""
        return np.isin(self.family, [self.family[self.number(word)] for word in words])

    def nearest(self, word: str, k: int = 10) -> Nearest:
        """The `k` nearest words by cosine, the word itself left out."""
        number = self.number(word)
        cosines = self.units @ self.units[number]
        own, same = np.zeros(len(self), bool), self.variants(word)
        if same.all():
            raise ConfigError(f"all {len(self)} words are variants of {word!r}; neighbours need other words")
        own[number] = True
        far = cosines[~same]

        def first(left_out: np.ndarray) -> tuple[Neighbour, ...]:
            best = _order(cosines, left_out)[:k]
            return tuple(Neighbour(word=self.words[i], cosine=float(cosines[i]), variant=bool(same[i])) for i in best)

        return Nearest(
            query=word,
            neighbours=first(own),
            others=first(same),
            random=float(far.mean()),
            random_high=float(np.quantile(far, 0.999)),
            centred=self.centre,
        )

    def analogy(self, a: str, b: str, c: str, *, expect: str | None = None, k: int = 5) -> Analogy:
        """Words near `b - a + c`; with `expect` the rank of the right one each way."""
        numbers = [self.number(word) for word in (a, b, c)]
        cosines, alone = self.units @ self._offset(*numbers), self.units @ self.units[numbers[2]]
        nothing = np.zeros(len(self), bool)
        inputs = nothing.copy()
        inputs[numbers] = True
        left_out = {"nothing": nothing, "inputs": inputs, "variants": self.variants(a, b, c)}
        if left_out["variants"].all():
            raise ConfigError(f"all {len(self)} words are variants of the three; an answer needs other words")
        answers = {name: tuple(self.words[i] for i in _order(cosines, out)[:k]) for name, out in left_out.items()}
        ranks, rank_alone = None, None
        if expect is not None:
            right = self.number(expect)
            if left_out["variants"][right]:
                raise ConfigError(f"{expect!r} is a variant of one of the three words; there is nothing to find")
            ranks = {name: _rank(cosines, out, right) for name, out in left_out.items()}
            rank_alone = _rank(alone, left_out["variants"], right)
        return Analogy(
            a=a, b=b, c=c, answers=answers, expect=expect, ranks=ranks, rank_of_c_alone=rank_alone, centred=self.centre
        )

    def relation(self, pairs: Sequence[tuple[str, str]], *, n_shuffles: int = 9, seed: int = 0) -> AnalogySet:
        """Every pair's offset applied to the first word of every other pair. Raises `ConfigError` below three pairs."""
        if len(pairs) < 3:
            raise ConfigError(f"{len(pairs)} pairs; at least three are needed to shuffle them")
        check_count("n_shuffles", n_shuffles, 1, "an accuracy is held against shuffled pairs")
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

    def _offset(self, a: int, b: int, c: int) -> np.ndarray:
        """`b - a + c` of unit vectors (Mikolov et al. 2013)."""
        return self.units[b] - self.units[a] + self.units[c]

    def _share_right(self, first: np.ndarray, second: np.ndarray | None, right: np.ndarray) -> float:
        """`second` None: the vector of `c` alone. The words used are no answers; where that leaves the right one out,
        nothing is asked."""
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
            raise ConfigError("every second word is a variant of a word it is asked by; there is nothing to find")
        return float(np.mean(hits))


def _order(cosines: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Numbers of the words, nearest first."""
    order = np.argsort(-cosines, kind="stable")
    return order[~left_out[order]]


def _rank(cosines: np.ndarray, left_out: np.ndarray, right: int) -> int:
    return int((cosines[~left_out] > cosines[right]).sum()) + 1
