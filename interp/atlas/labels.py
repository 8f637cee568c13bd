"""A few words for every region: what its points are, and what sets it apart from its siblings.

Class-based TF-IDF (Grootendorst 2022, BERTopic eq. 2) with the siblings of a region, not all of the map, as the other
classes:

    weight(term, region) = n(term, region) * log(1 + A / n(term, parent))

`n` counts occurrences, `A` is the mean number of terms per region within the parent. The parent's points that lie in
none of its regions count too. A region that is more than half of its parent is held against the parent's parent, and in
the end against the map: against itself nothing stands out. Words that a region above already carries are left to it.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

N_WORDS = 3
LONGEST_WORD = 24
"""Characters of one word in a label; the rest becomes an ellipsis."""
UNNAMED = "no label"
_GRAMMAR = frozenset({"in", "any", "form", "before", "after", "docs", "promotes", "mixed", "rare", "dense", "often"})
"""Words of `saes.explain`'s sentences that say how, not what."""


class Terms(NamedTuple):
    """The terms of every point, point after point."""

    names: list[str]
    """each term once"""
    ids: np.ndarray
    """`[n_occurrences]` int64: which"""
    points: np.ndarray
    """`[n_occurrences]` int64: whose"""


def terms_of(labels: Sequence[str]) -> Terms:
    """The words of each label; every label has at least one."""
    known: dict[str, int] = {}
    ids: list[int] = []
    lengths = np.empty(len(labels), np.int64)
    for i, label in enumerate(labels):
        words = words_of(label)
        lengths[i] = len(words)
        ids.extend(known.setdefault(word, len(known)) for word in words)
    return Terms(list(known), np.array(ids, np.int64), np.repeat(np.arange(len(labels)), lengths))


def words_of(label: str) -> list[str]:
    """The words of a label, in lower case; a label without letters counts as one word.

    >>> words_of('" The" (84 %)')
    ['the']
    >>> words_of(" ==")
    ['==']
    """
    words = [word for word in _word_pattern().findall(label.lower()) if word not in _GRAMMAR]
    return words or [plain(label) or UNNAMED]


def plain(text: str) -> str:
    """Text on one line: control and direction marks go, white space becomes one space.

    Marks that turn the direction of text (such as U+202E) would otherwise turn what stands around a label too.
    """
    kept = "".join(
        " " if c.isspace() else c for c in text if unicodedata.category(c) not in ("Cc", "Cf") or c.isspace()
    )
    return " ".join(kept.split())


def name_regions(
    levels: np.ndarray,
    parents: Sequence[np.ndarray],
    terms: Terms,
    positions: np.ndarray,
    anchors: Sequence[np.ndarray],
) -> list[list[str]]:
    """The label of every region of every level, the coarsest level first.

    `levels [n_levels, n]` holds the region of each point (-1 for none), `parents[l]` the region of level `l - 1` around
    each region of level `l` (-1 for none), `anchors[l] [n_regions, 2]` the place whose nearest words come first where
    weights are equal.
    """
    n_terms = max(len(terms.names), 1)
    everywhere = np.bincount(terms.ids, minlength=n_terms)
    above: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # per level: keys, counts, terms per region
    said: list[list[frozenset[str]]] = []
    found: list[list[str]] = []
    for level, region in enumerate(levels):
        n_regions = len(parents[level])
        keys, counts, order = _count(region, terms, n_terms, positions, anchors[level])
        totals = np.bincount(keys // n_terms, counts, n_regions)
        reference = _reference(level, parents, above, totals)
        around, size = _counts_around(keys, reference, above, everywhere, n_terms)
        classes = _siblings(reference, totals)
        weight = counts * np.log1p(size / classes[keys // n_terms] / around)
        starts = np.searchsorted(keys // n_terms, np.arange(n_regions + 1))
        names: list[str] = []
        carried: list[frozenset[str]] = []
        for r in range(n_regions):
            mine = slice(starts[r], starts[r + 1])
            best = np.lexsort((order[mine], -weight[mine]))
            parent = int(parents[level][r])
            taken = said[-1][parent] if parent >= 0 else frozenset[str]()
            words = [terms.names[t] for t in (keys[mine][best[: N_WORDS + len(taken)]] % n_terms).tolist()]
            new = [word for word in words if word not in taken][:N_WORDS] or words[:N_WORDS]
            names.append(", ".join(shortened(word) for word in new) or UNNAMED)
            carried.append(taken | frozenset(new))
        above.append((keys, counts, totals))
        said.append(carried)
        found.append(names)
    return found


def shortened(word: str) -> str:
    """At most `LONGEST_WORD` characters."""
    return word if len(word) <= LONGEST_WORD else word[: LONGEST_WORD - 1] + "…"


def _count(
    region: np.ndarray, terms: Terms, n_terms: int, positions: np.ndarray, anchors: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted keys `region * n_terms + term`, their counts, and the distance of their nearest point to the anchor."""
    of = region[terms.points]
    inside = of >= 0
    keys = of[inside] * n_terms + terms.ids[inside]
    points = terms.points[inside]
    distance = np.square(positions[points] - anchors[of[inside]]).sum(1) if len(keys) else np.zeros(0)
    order = np.lexsort((distance, keys))
    unique, first, counts = np.unique(keys[order], return_index=True, return_counts=True)
    return unique, counts, distance[order][first]


def _reference(level: int, parents: Sequence[np.ndarray], above: list, totals: np.ndarray) -> np.ndarray:
    """`[n_regions, 2]`: the level and region that each region is held against; (-1, -1) is the whole map."""
    reference = np.full((len(totals), 2), -1, np.int64)
    for r in range(len(totals)):
        up, around = level - 1, int(parents[level][r])
        while around >= 0 and totals[r] > above[up][2][around] / 2:
            up, around = up - 1, int(parents[up][around])
        if around >= 0:
            reference[r] = up, around
    return reference


def _counts_around(
    keys: np.ndarray, reference: np.ndarray, above: list, everywhere: np.ndarray, n_terms: int
) -> tuple[np.ndarray, np.ndarray]:
    """For every key: how often its term occurs in what its region is held against, and how many terms that has."""
    region, term = keys // n_terms, keys % n_terms
    around = everywhere[term].astype(np.float64)
    size = np.full(len(keys), everywhere.sum(), np.float64)
    for up, (known, counts, totals) in enumerate(above):
        mine = reference[region, 0] == up
        outer = reference[region[mine], 1]
        around[mine] = counts[np.searchsorted(known, outer * n_terms + term[mine])]
        size[mine] = totals[outer]
    return around, size


def _siblings(reference: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """`[n_regions]`: how many regions are held against the same."""
    _, which, counts = np.unique(reference, axis=0, return_inverse=True, return_counts=True)
    return counts[which.ravel()] if len(totals) else np.ones(0)


@cache
def _word_pattern() -> re.Pattern[str]:
    """Letters with the marks written on them (vowel signs of Indic scripts, accents) and joiners."""
    marks = "".join(chr(c) for c in range(0x300, 0x10000) if unicodedata.category(chr(c)).startswith("M"))
    return re.compile(rf"[^\W\d_](?:[^\W\d_]|[{marks}\u200c\u200d])*")
