"""Sets of words at a firing and near it: readings such as 'words like "oven", "chef", "kitchen" (64 %)'.

A set is what a feature's direction makes the model say, read through the Jacobian lens (`saes/features/meaning.py`): it
is chosen without looking at any text, so it may be large. Words are compared in any case and spacing. A reading holds
where the token itself is in the set, or where one of the `REACH` tokens on either side in the same passage is.
Fractions of all tokens are estimated from `SAMPLED` tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

REACH = 16
SAMPLED = 1 << 15
OWN, NEAR = "own", "near"
"""Tokens at which a set of words is looked for: the token itself, or its neighbours."""
LEAST_LETTERS = 3
"""Fewest letters of a word of a set."""
_BLOCK = 1 << 15

Sets = Mapping[int, np.ndarray]
"""Numbers of words by feature, each an array without repetitions."""


class Windows(NamedTuple):
    """Numbers of the words around tokens."""

    own: np.ndarray
    """number of the token's own text, `[n]` int32"""
    near: np.ndarray
    """those around it, `[n, 2 * REACH]` int32; -1 outside its passage and for white space"""

    @classmethod
    def join(cls, parts: "Sequence[Windows]") -> "Windows":
        """Return the windows of several shards as one."""
        empty = cls(np.zeros(0, np.int32), np.zeros((0, 2 * REACH), np.int32))
        return cls(*map(np.concatenate, zip(empty, *parts, strict=True)))

    def of(self, where: str) -> np.ndarray:
        """Return the numbers to look in, `[n, width]`."""
        return self.own[:, None] if where == OWN else self.near


def windows_at(folded: np.ndarray, passage: np.ndarray, at: np.ndarray) -> Windows:
    """Return the windows of the tokens `at [n]`; `folded` and `passage` are word and passage of all tokens."""
    offsets = np.concatenate([np.arange(-REACH, 0), np.arange(1, REACH + 1)])
    places = at[:, None] + offsets
    inside = (places >= 0) & (places < len(folded))
    places = np.clip(places, 0, max(len(folded) - 1, 0))
    inside &= passage[places] == passage[at][:, None]
    return Windows(folded[at].astype(np.int32), np.where(inside, folded[places], -1).astype(np.int32))


class Nearby:
    """Windows of all firings and of sampled tokens, sorted by feature, in which sets of words are looked for."""

    def __init__(self, names: Sequence[str], firings: Windows, tokens: Windows, feature: np.ndarray, n_features: int):
        order = np.argsort(feature, kind="stable")
        self.order, self.feature, self.n_features = order, feature[order], n_features
        self.firings = Windows(firings.own[order], firings.near[order])
        self.tokens, self.names = tokens, names
        self.bounds = np.searchsorted(self.feature, np.arange(n_features + 1))
        self.letters = np.array([len(name) >= LEAST_LETTERS and name.isalpha() for name in names])

    def holds(self, sets: Sets, where: str) -> np.ndarray:
        """Return for each firing whether a word of its feature's set is there, `[n]` bool in the order given."""
        size = len(self.names)
        keys = np.sort(np.concatenate([np.zeros(0, np.int64), *(f * size + words for f, words in sets.items())]))
        found = np.zeros(len(self.feature), bool)
        windows = self.firings.of(where)
        for start in range(0, len(windows), _BLOCK):
            block = windows[start : start + _BLOCK].astype(np.int64)
            asked = np.where(block >= 0, self.feature[start : start + _BLOCK, None] * size + block, -1)
            at = np.searchsorted(keys, asked).clip(max=max(len(keys) - 1, 0))
            found[start : start + _BLOCK] = (keys[at] == asked).any(1) if len(keys) else False
        out = np.empty_like(found)
        out[self.order] = found
        return out

    def counts(self, sets: Sets, where: str, chosen: np.ndarray) -> np.ndarray:
        """Return for every feature the number of its firings in `chosen` for which its set holds, `[n_features]`."""
        held = (self.holds(sets, where) & chosen)[self.order]
        return np.bincount(self.feature[held], minlength=self.n_features)

    def most_frequent(self, feature: int, words: np.ndarray, where: str, k: int = 3) -> tuple[str, ...]:
        """Return the names of the `k` words of a set that are there for most firings of a feature."""
        windows = self.firings.of(where)[self.bounds[feature] : self.bounds[feature + 1]]
        counts: dict[int, int] = {word: int((windows == word).any(1).sum()) for word in words.tolist()}
        best = sorted(counts, key=lambda word: (-counts[word], word))[:k]
        return tuple(self.names[word] for word in best if counts[word])

    def fractions(self, sets: Sets, where: str) -> dict[int, float]:
        """Return for each set the fraction of all tokens for which it holds."""
        listed = list(sets)
        counts = np.zeros(len(listed))
        for start, held in self._blocks(self.tokens.of(where), [sets[f] for f in listed]):
            counts[start : start + held.shape[1]] += held.sum(0)
        return dict(zip(listed, (counts / max(len(self.tokens.own), 1)).tolist(), strict=True))

    def shares(self, sets: Sequence[np.ndarray], where: str, chosen: np.ndarray) -> np.ndarray:
        """Return for every feature the fraction of its firings in `chosen` for which each set holds,
        `[n_features, len(sets)]`."""
        mine = chosen[self.order]
        feature, windows = self.feature[mine], self.firings.of(where)[mine]
        n = np.maximum(np.bincount(feature, minlength=self.n_features), 1)
        counts = np.zeros((self.n_features, len(sets)))
        for start, held in self._blocks(windows, sets):
            for column in range(held.shape[1]):
                counts[:, start + column] = np.bincount(feature[held[:, column]], minlength=self.n_features)
        return counts / n[:, None]

    def _blocks(self, windows: np.ndarray, sets: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield for some sets at a time the first one's index, and where they hold, `[n, n_sets]` bool."""
        for start in range(0, len(sets), 64):
            part = sets[start : start + 64]
            member = np.zeros(len(self.names) + 1, np.uint64)
            for bit, chosen in enumerate(part):
                member[chosen] |= np.uint64(1) << np.uint64(bit)
            held = np.bitwise_or.reduce(member[windows], axis=1)
            yield start, (held[:, None] >> np.arange(len(part), dtype=np.uint64) & np.uint64(1)).astype(bool)
