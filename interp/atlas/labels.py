"""A few words for every region: what its points are, and what sets it apart from its siblings.

Class-based TF-IDF (Grootendorst 2022, BERTopic eq. 2) with the siblings of a region, not all of the map, as the other
classes:

    weight(term, region) = n(term, region) * log(1 + A / n(term, parent))

`n(term, region)` counts occurrences, each by how crowded its place is (1 at the region's densest point): the outskirts
of a region do not name it. `A` is the mean number of terms per region within the parent. The parent's points that lie
in none of its regions count too. A region that is more than half of its parent is held against the parent's parent, and
in the end against the map: against itself nothing stands out. What a region above already says is left to it; a region
that is nearly all of its parent has its name.

Of tokens a form (`-ing`, `Capitalised`, `Greek`) is said first where most of a region has it and the region's
surroundings have it far less; the words follow as examples. Of activations, words of the text around them follow that
are far more frequent there than elsewhere.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from interp.atlas.terms import UNNAMED, Terms, family_of

N_WORDS = 3
N_FORMS = 2
MOST = 0.6
"""Share of a region that must have a form for the region to be called by it."""
LIFT = 1.5
"""So many times the share in what the region is held against."""
ONE_WORD = 1 / 3
"""A region of which one word is this share is called by the word, not by a form."""
N_NEAR = 2
NEAR, NEAR_LIFT = 0.3, 3.0
"""The same two of a word in the text around activations."""
THE_SAME = 0.9
"""A region with this share of its parent's points is the same to a reader."""
LONGEST_WORD = 24
"""Characters of one word in a label; the rest becomes an ellipsis."""


class Tree(NamedTuple):
    """The regions of a map, the coarsest level first, and what each is held against."""

    levels: np.ndarray
    """`[n_levels, n]` the region of each point on each level, -1 for none"""
    parents: list[np.ndarray]
    """per level `[n_regions]`: the region of the level before that holds it, -1 for none"""
    crowded: np.ndarray
    """`[n_levels, n]` the density at each point, as a share of its region's highest"""

    def sizes(self, level: int) -> np.ndarray:
        """`[n_regions]` points of each region."""
        row = self.levels[level]
        return np.bincount(row[row >= 0], minlength=len(self.parents[level]))

    def reference(self, level: int) -> np.ndarray:
        """`[n_regions, 2]`: the level and region that each region is held against; (-1, -1) is the whole map."""
        sizes = [self.sizes(each) for each in range(level + 1)]
        reference = np.full((len(self.parents[level]), 2), -1, np.int64)
        for r in range(len(reference)):
            up, around = level - 1, int(self.parents[level][r])
            while around >= 0 and sizes[level][r] > sizes[up][around] / 2:
                up, around = up - 1, int(self.parents[up][around])
            if around >= 0:
                reference[r] = up, around
        return reference


class Ranked(NamedTuple):
    """The terms of one region, the heaviest first."""

    terms: list[str]
    share: np.ndarray
    """of the region's occurrences"""
    lift: np.ndarray
    """share here over share in what the region is held against"""


def name_regions(
    tree: Tree, words: Terms, forms: Terms | None = None, contexts: Terms | None = None
) -> list[list[str]]:
    """The label of every region of every level; none is empty."""
    found: list[list[str]] = []
    above: list[frozenset[str]] = []
    by_words = rank(tree, words)
    by_forms = None if forms is None else rank(tree, forms)
    by_contexts = None if contexts is None else rank(tree, contexts)
    for level, parents in enumerate(tree.parents):
        names: list[str] = []
        said: list[frozenset[str]] = []
        sizes = tree.sizes(level)
        for r, parent in enumerate(parents.tolist()):
            if parent >= 0 and sizes[r] >= THE_SAME * tree.sizes(level - 1)[parent]:
                names.append(found[-1][parent])
                said.append(above[parent])
                continue
            taken = above[parent] if parent >= 0 else frozenset[str]()
            own = by_words[level][r]
            varied = own.share.max(initial=0) < ONE_WORD
            shape = choose_forms(by_forms[level][r], taken) if by_forms and varied else []
            new = [word for word in own.terms if word not in taken and word not in shape][:N_WORDS] or own.terms[:1]
            near = choose_near(by_contexts[level][r], taken | frozenset(new)) if by_contexts else []
            names.append(say(shape, new, near))
            said.append(taken | frozenset((*new, *shape, *near)))
        above = said
        found.append(names)
    return found


def choose_forms(ranked: Ranked, taken: frozenset[str]) -> list[str]:
    """The forms that most of a region has and its surroundings have far less, at most one per family."""
    chosen: dict[str, str] = {}
    shares: dict[str, float] = {}
    for form, share, lift in zip(ranked.terms, ranked.share.tolist(), ranked.lift.tolist(), strict=True):
        if share >= MOST and lift >= LIFT and form not in taken:
            family = family_of(form)
            same = family == "ending" and family in chosen and form.endswith(chosen[family][1:])
            if family not in chosen or (same and share >= THE_SAME * shares[chosen[family]]):
                chosen[family] = form  # of two endings as common as each other the longer one
                shares[form] = share
    return list(chosen.values())[:N_FORMS]


def choose_near(ranked: Ranked, taken: frozenset[str]) -> list[str]:
    """Words of the text around a region's points that are far more frequent there than in the region's surroundings."""
    found = zip(ranked.terms, ranked.share.tolist(), ranked.lift.tolist(), strict=True)
    return [word for word, share, lift in found if share >= NEAR and lift >= NEAR_LIFT and word not in taken][:N_NEAR]


def say(forms: list[str], words: list[str], near: Sequence[str] = ()) -> str:
    """`form, form: word, word; near word, word`."""
    after = ", ".join(shortened(word) for word in words)
    said = ": ".join(part for part in (", ".join(forms), after) if part) or UNNAMED
    return said + ("; near " + ", ".join(shortened(word) for word in near) if near else "")


def shortened(word: str) -> str:
    """At most `LONGEST_WORD` characters."""
    return word if len(word) <= LONGEST_WORD else word[: LONGEST_WORD - 1] + "…"


def rank(tree: Tree, terms: Terms, most: int = 40) -> list[list[Ranked]]:
    """For every region of every level its heaviest terms, by the class-based TF-IDF above, at most `most`."""
    n_terms = max(len(terms.names), 1)
    everywhere = np.bincount(terms.ids, minlength=n_terms)
    counted: list[_Counts] = []
    found = []
    for level in range(len(tree.levels)):
        here = _count(tree, level, terms, n_terms)
        region, term = here.keys // n_terms, here.keys % n_terms
        reference = tree.reference(level)
        around = everywhere[term].astype(np.float64)
        points = np.full(len(reference), tree.levels.shape[1], np.float64)
        occurrences = np.full(len(reference), everywhere.sum(), np.float64)
        for up, outer in enumerate(counted):
            mine = reference[:, 0] == up
            points[mine], occurrences[mine] = tree.sizes(up)[reference[mine, 1]], outer.totals[reference[mine, 1]]
            held = mine[region]
            around[held] = outer.of(reference[region[held], 1] * n_terms + term[held])
        weight = here.weights * np.log1p((occurrences / _siblings(reference))[region] / around)
        share = here.counts / tree.sizes(level)[region]
        order = np.lexsort((-weight, region))
        starts = np.searchsorted(region[order], np.arange(len(reference) + 1))
        best = [order[first : min(last, first + most)] for first, last in pairwise(starts.tolist())]
        lift = share * points[region] / around
        found.append([Ranked([terms.names[t] for t in term[b].tolist()], share[b], lift[b]) for b in best])
        counted.append(here)
    return found


class _Counts(NamedTuple):
    """How often each term occurs in each region of one level."""

    keys: np.ndarray
    """`[m]` int64, rising: region * n_terms + term"""
    counts: np.ndarray
    """`[m]` occurrences"""
    weights: np.ndarray
    """`[m]` the same, each by how crowded its place is"""
    totals: np.ndarray
    """`[n_regions]` occurrences of all terms"""

    def of(self, keys: np.ndarray) -> np.ndarray:
        """The counts of some keys, all of which exist."""
        return self.counts[np.searchsorted(self.keys, keys)]


def _count(tree: Tree, level: int, terms: Terms, n_terms: int) -> _Counts:
    region = tree.levels[level][terms.points]
    inside = region >= 0
    keys = region[inside].astype(np.int64) * n_terms + terms.ids[inside]
    unique, which, counts = np.unique(keys, return_inverse=True, return_counts=True)
    weights = np.bincount(which, tree.crowded[level][terms.points[inside]], len(unique))
    totals = np.bincount(unique // n_terms, counts, len(tree.parents[level]))
    return _Counts(unique, counts, weights, totals)


def _siblings(reference: np.ndarray) -> np.ndarray:
    """`[n_regions]`: how many regions are held against the same."""
    _, which, counts = np.unique(reference, axis=0, return_inverse=True, return_counts=True)
    return counts[which.ravel()]
