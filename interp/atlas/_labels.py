"""Short labels for regions: the terms that distinguish a region from its siblings.

Terms are ranked by class-based TF-IDF (Grootendorst 2022, BERTopic eq. 2), in which the other classes are the siblings
of a region, not the whole map:

    weight(term, region) = n(term, region) * log(1 + A / n(term, parent))

`n(term, region)` counts occurrences weighted by local density (1 at the region's densest point), so that the outskirts
of a region hardly affect its label. `A` is the mean number of terms per region within the parent; the parent's points
that lie in none of its regions count too. A region with more than half of its parent's points is compared with the
parent's parent instead, and at the top with the whole map, since nothing distinguishes it from itself. Terms in the
label of an enclosing region are not repeated. A region that is nearly all of its parent has the parent's label.

Terms are words and, for tokens, also forms: an ending, capitals, a script, punctuation, raw bytes. Each word of a
vocabulary occurs only once or twice, so words alone describe a region of token embeddings poorly. A form (`-ing`,
`Capitalised`, `Greek`) opens the label if most of a region has it and the reference far less; words follow as examples.
For activations, the label ends with words of the surrounding text that are far more frequent there than elsewhere.

A term needs more evidence than chance gives. Its evidence in a region is the log-likelihood ratio of its count `c`
against the count `e` expected from the reference, `c log(c / e) - c + e` nats. The same map with its labels shuffled
over the points has evidence too: the bound of each kind of term is exceeded somewhere on 5 % of such maps at most, all
kinds together. A region without a term above its bound has no label.
"""

import re
import unicodedata
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from interp.nulls import SHUFFLED_MAPS

UNNAMED = "no label"
WHITE = "white space"
_BYTES = re.compile(r"(<0x[0-9A-Fa-f]{2}>)+")
_ENDINGS = (2, 3, 4)
_SHORTEST_STEM = 2
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
"""Scripts written without spaces between words; pairs of characters serve as their words."""


class Terms(NamedTuple):
    """Terms of every point, one entry per occurrence, in the order of the points."""

    names: list[str]
    """each term once"""
    ids: np.ndarray
    """`[n_occurrences]` int32: index of the term in `names`"""
    points: np.ndarray
    """`[n_occurrences]` int32: the point in which it occurs"""


def words_of_labels(labels: Sequence[str], *, tokens: bool = False) -> Terms:
    """Split each label into words, at least one; a token is one word."""
    return _collect(labels, token_word if tokens else words_of)


def forms_of_tokens(labels: Sequence[str]) -> Terms:
    """Collect the forms of each token (`forms_of`); some have none."""
    return _collect(labels, forms_of)


def words_of(label: str) -> list[str]:
    """Return the words of a label, in lower case; a label without letters counts as one word.

    >>> words_of('" The" (84 %)')
    ['the']
    >>> words_of(" ==")
    ['==']
    >>> words_of("東京都")
    ['東京', '京都']
    """
    words = [word for run in _word_pattern().findall(label.lower()) for word in _split(run)]
    return words or [shown(label)]


def token_word(token: str) -> list[str]:
    """Return a token as one word, in lower case.

    >>> token_word(" Don't")
    ["don't"]
    """
    return [shown(token).lower()]


def shown(label: str) -> str:
    """Return a label as one line; one without visible characters is spelled out.

    >>> shown("\\n   "), shown("    "), shown("")
    ('\\\\n␣␣␣', '␣×4', 'no label')
    """
    spelled = plain(label) or label.encode("unicode_escape").decode().replace(" ", "␣") or UNNAMED
    return re.sub(r"([^\w])\1{3,}", lambda run: f"{run[1]}×{len(run[0])}", spelled)


def forms_of(token: str) -> list[str]:
    """Return the forms of a token: at most one of each family (`family_of`), except several endings.

    >>> forms_of(" Running")
    ['leading space', 'Capitalised', '-ng', '-ing', '-ning']
    >>> forms_of("<0xE6><0x9D>"), forms_of(" 1984"), forms_of(".."), forms_of(" Δ")
    (['bytes'], ['digits'], ['punctuation'], ['leading space', 'Greek'])
    """
    text = token.strip()
    if not text:
        return [WHITE] if token else []
    if _BYTES.fullmatch(text):
        return ["bytes"]
    if text.isdecimal():
        return ["digits"]
    letters = "".join(c for c in text if c.isalpha())
    if not letters:
        kinds = {unicodedata.category(c)[0] for c in text}
        return [name for kind, name in (("P", "punctuation"), ("S", "symbols"), ("C", "control characters"))
                if kind in kinds][:1]  # fmt: skip
    forms = ["leading space" if token[0].isspace() else "no leading space"]
    script = script_of(letters[0])
    if script != "LATIN":
        forms.append(script if script == "CJK" else script.title())
    elif len(letters) > 1:
        forms += ["CAPITALS"] * letters.isupper() + ["lower case"] * letters.islower()
        forms += ["Capitalised"] * (letters[0].isupper() and letters[1:].islower())
    if letters == text:
        low = text.lower()
        forms += [f"-{low[-k:]}" for k in _ENDINGS if len(low) >= k + _SHORTEST_STEM]
    return forms


def family_of(form: str) -> str:
    """Return the family of a form; a label has the strongest form of each family only."""
    if form.startswith("-"):
        return "ending"
    if form.endswith("leading space"):
        return "space"
    return "case" if form in ("CAPITALS", "Capitalised", "lower case") else "kind"


def plain(text: str) -> str:
    """Return text on one line, without control and direction marks, each run of white space as one space.

    Marks that change the direction of text (such as U+202E) would also affect the text around a label. Joiners are
    retained, since Indic scripts and emoji need them.
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    shown_characters = (" " if c.isspace() else c for c in text if c.isspace() or c in _JOINERS or _visible(c))
    return " ".join("".join(shown_characters).split())


@cache
def script_of(letter: str) -> str:
    """Return the script of a letter, from its Unicode name.

    >>> script_of("я"), script_of("é")
    ('CYRILLIC', 'LATIN')
    """
    return unicodedata.name(letter, "OTHER").split()[0]


def _collect(labels: Sequence[str], split: Callable[[str], list[str]]) -> Terms:
    """Split every label into terms; equal labels are split once."""
    number: dict[str, int] = {}
    which = np.fromiter((number.setdefault(label, len(number)) for label in labels), np.int64, len(labels))
    known: dict[str, int] = {}
    ids, ends = array("i"), array("q", [0])
    for label in number:
        ids.extend([known.setdefault(term, len(known)) for term in split(label)])
        ends.append(len(ids))
    starts = np.array(ends)
    lengths = np.diff(starts)[which]
    first = np.repeat(starts[which] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    taken = np.array(ids, np.int32)[first + np.arange(len(first))]
    return Terms(list(known), taken, np.repeat(np.arange(len(labels), dtype=np.int32), lengths))


def _split(run: str) -> list[str]:
    if run.isascii() or script_of(run[0]) not in _UNSPACED or len(run) < 3:
        return [run]
    return [run[i : i + 2] for i in range(len(run) - 1)]


@cache
def _visible(c: str) -> bool:
    return unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn")


@cache
def _word_pattern() -> re.Pattern[str]:
    """Return a pattern of words: letters with their marks (vowel signs of Indic scripts, accents) and joiners."""
    marks = "".join(chr(c) for c in range(0x300, 0x10000) if unicodedata.category(chr(c)).startswith("M"))
    return re.compile(rf"[^\W\d_](?:[^\W\d_]|[{marks}{_JOINERS}])*")


_JOINERS = "\u200c\u200d"


N_WORDS = 3
N_FORMS = 2
MOST = 0.6
"""Smallest fraction of a region's points that must have a form for its label to use the form."""
LIFT = 1.5
"""Smallest ratio of that fraction to the fraction in the region's reference."""
ONE_WORD = 1 / 3
"""Fraction of a region from which one word on its label uses words, not forms."""
N_NEAR = 2
NEAR, NEAR_LIFT = 0.3, 3.0
"""Smallest fraction and ratio, as above, for a word of the text around activations."""
THE_SAME = 0.9
"""Fraction of its parent's points from which on a region gets the parent's label."""
LONGEST_WORD = 24
"""Characters of one word in a label; the rest becomes an ellipsis."""


class Tree(NamedTuple):
    """Nested regions of a map, the coarsest level first."""

    levels: np.ndarray
    """`[n_levels, n]`: region of each point on each level, -1 for none"""
    parents: list[np.ndarray]
    """per level `[n_regions]`: enclosing region of the next coarser level, -1 for none"""
    density: np.ndarray
    """`[n_levels, n]`: density at each point, as a fraction of its region's maximum"""

    def sizes(self, level: int) -> np.ndarray:
        """Return the number of points of each region, `[n_regions]`."""
        row = self.levels[level]
        return np.bincount(row[row >= 0], minlength=len(self.parents[level]))

    def reference(self, level: int) -> np.ndarray:
        """Return the level and region with which each region is compared, `[n_regions, 2]`; (-1, -1): the whole map."""
        sizes = [self.sizes(upper) for upper in range(level + 1)]
        reference = np.full((len(self.parents[level]), 2), -1, np.int64)
        for r in range(len(reference)):
            up, around = level - 1, int(self.parents[level][r])
            while around >= 0 and sizes[level][r] > sizes[up][around] / 2:
                up, around = up - 1, int(self.parents[up][around])
            if around >= 0:
                reference[r] = up, around
        return reference


class RegionTerms(NamedTuple):
    """Terms of one region, the largest weight first."""

    terms: list[str]
    share: np.ndarray
    """occurrences of each term per point of the region"""
    lift: np.ndarray
    """that share over the same share in the region's reference"""
    evidence: np.ndarray
    """log-likelihood ratio of its count against that expected from the reference, nats; 0 for no more than expected"""

    def above(self, bound: float) -> "RegionTerms":
        """Return the terms with more evidence than `bound`."""
        keep = np.flatnonzero(self.evidence > bound)
        return RegionTerms([self.terms[i] for i in keep], *(column[keep] for column in self[1:]))


BEYOND = 0.95
"""Fraction of shuffled maps on which no term of any region has more evidence than its bound."""


class Chance(NamedTuple):
    """Evidence on maps with shuffled labels, by kind of term: `words`, `forms`, `contexts`."""

    bounds: dict[str, float]
    """evidence that a term must exceed, nats"""
    named: float
    """mean number of regions that a shuffled map names"""


def shuffled_evidence(tree: Tree, kinds: dict[str, Terms], seed: int, n_shuffles: int = SHUFFLED_MAPS) -> Chance:
    """Return the evidence that chance gives: labels are moved together over the points, `n_shuffles` times."""
    rng = np.random.default_rng(seed)
    sizes = [len(parents) for parents in tree.parents]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    best = {kind: np.zeros((n_shuffles, starts[-1])) for kind in kinds}
    for row in range(n_shuffles):
        moved = rng.permutation(tree.levels.shape[1]).astype(np.int32)
        for kind, terms in kinds.items():
            for level, compared in enumerate(_compared(tree, terms._replace(points=moved[terms.points]))):
                np.maximum.at(best[kind][row], starts[level] + compared.region, compared.evidence)
    highest = 1 - (1 - BEYOND) / len(kinds)
    bounds = {kind: float(np.quantile(evidence.max(1), highest)) for kind, evidence in best.items()}
    beyond = np.any([evidence > bounds[kind] for kind, evidence in best.items()], axis=0)
    return Chance(bounds, float(beyond.sum(1).mean()))


def name_regions(
    tree: Tree,
    words: Terms,
    forms: Terms | None = None,
    contexts: Terms | None = None,
    *,
    bounds: dict[str, float] | None = None,
) -> list[list[str]]:
    """Return the label of every region of every level, "" where no term has more evidence than its bound.

    Without `bounds` (`shuffled_evidence`) every region has a label. After a form, words are examples and need none.
    """
    labels: list[list[str]] = []
    used_above: list[frozenset[str]] = []
    by_words = rank(tree, words)
    by_forms = None if forms is None else rank(tree, forms)
    by_contexts = None if contexts is None else rank(tree, contexts)
    least = bounds or dict.fromkeys(("words", "forms", "contexts"), -np.inf)
    for level, parents in enumerate(tree.parents):
        names: list[str] = []
        used: list[frozenset[str]] = []
        sizes = tree.sizes(level)
        for r, parent in enumerate(parents.tolist()):
            if parent >= 0 and sizes[r] >= THE_SAME * tree.sizes(level - 1)[parent]:
                names.append(labels[-1][parent])
                used.append(used_above[parent])
                continue
            taken = used_above[parent] if parent >= 0 else frozenset[str]()
            best = by_words[level][r]
            varied = best.share.max(initial=0) < ONE_WORD
            shape = choose_forms(by_forms[level][r].above(least["forms"]), taken) if by_forms and varied else []
            best = best if shape else best.above(least["words"])
            new = [word for word in best.terms if word not in taken and word not in shape][:N_WORDS] or best.terms[:1]
            around = by_contexts[level][r].above(least["contexts"]) if by_contexts else None
            near = choose_near(around, taken | frozenset(new)) if around else []
            names.append(compose(shape, new, near) if shape or new or near or bounds is None else "")
            used.append(taken | frozenset((*new, *shape, *near)))
        used_above = used
        labels.append(names)
    return labels


def choose_forms(ranked: RegionTerms, taken: frozenset[str]) -> list[str]:
    """Choose the forms that most of a region has and its reference far less, at most one per family."""
    chosen: dict[str, str] = {}
    shares: dict[str, float] = {}
    for form, share, lift in zip(ranked.terms, ranked.share.tolist(), ranked.lift.tolist(), strict=True):
        if share >= MOST and lift >= LIFT and form not in taken:
            family = family_of(form)
            same = family == "ending" and family in chosen and form.endswith(chosen[family][1:])
            if family not in chosen or (same and share >= THE_SAME * shares[chosen[family]]):
                chosen[family] = form  # of two equally common endings the longer one
                shares[form] = share
    return list(chosen.values())[:N_FORMS]


def choose_near(ranked: RegionTerms, taken: frozenset[str]) -> list[str]:
    """Choose words of the text around a region's points that are far more frequent there than in its reference."""
    scored = zip(ranked.terms, ranked.share.tolist(), ranked.lift.tolist(), strict=True)
    return [word for word, share, lift in scored if share >= NEAR and lift >= NEAR_LIFT and word not in taken][:N_NEAR]


def compose(forms: list[str], words: list[str], near: Sequence[str] = ()) -> str:
    """Return the label `form, form: word, word; near word, word`."""
    after = ", ".join(shortened(word) for word in words)
    label = ": ".join(part for part in (", ".join(forms), after) if part) or UNNAMED
    return label + ("; near " + ", ".join(shortened(word) for word in near) if near else "")


def shortened(word: str) -> str:
    """Cut a word to at most `LONGEST_WORD` characters, with an ellipsis."""
    return word if len(word) <= LONGEST_WORD else word[: LONGEST_WORD - 1] + "…"


def rank(tree: Tree, terms: Terms, most: int = 40) -> list[list[RegionTerms]]:
    """Rank the terms of every region of every level by class-based TF-IDF; at most `most` per region."""
    ranked = []
    for level, compared in enumerate(_compared(tree, terms)):
        order = np.lexsort((-compared.weight, compared.region))
        starts = np.searchsorted(compared.region[order], np.arange(len(tree.parents[level]) + 1))
        best = [order[first : min(last, first + most)] for first, last in pairwise(starts.tolist())]
        of = [(compared.term[b].tolist(), compared.share[b], compared.lift[b], compared.evidence[b]) for b in best]
        ranked.append([RegionTerms([terms.names[t] for t in chosen], *values) for chosen, *values in of])
    return ranked


class _Compared(NamedTuple):
    """Every term of every region of one level with the region's reference, `[m]` each."""

    region: np.ndarray
    term: np.ndarray
    weight: np.ndarray
    share: np.ndarray
    lift: np.ndarray
    evidence: np.ndarray


def _compared(tree: Tree, terms: Terms) -> Iterator[_Compared]:
    """Yield each level's terms with the references of their regions, the coarsest level first."""
    n_terms = max(len(terms.names), 1)
    everywhere = np.bincount(terms.ids, minlength=n_terms)
    counted: list[_Counts] = []
    for level in range(len(tree.levels)):
        counts = _count(tree, level, terms, n_terms)
        region, term = counts.keys // n_terms, counts.keys % n_terms
        reference = tree.reference(level)
        around = everywhere[term].astype(np.float64)
        points = np.full(len(reference), tree.levels.shape[1], np.float64)
        occurrences = np.full(len(reference), everywhere.sum(), np.float64)
        for up, outer in enumerate(counted):
            mine = reference[:, 0] == up
            points[mine], occurrences[mine] = tree.sizes(up)[reference[mine, 1]], outer.totals[reference[mine, 1]]
            compared = mine[region]
            around[compared] = outer.of(reference[region[compared], 1] * n_terms + term[compared])
        weight = counts.weights * np.log1p((occurrences / _siblings(reference))[region] / around)
        share = counts.counts / tree.sizes(level)[region]
        lift = share * points[region] / around
        more = np.maximum(lift, 1.0)
        yield _Compared(region, term, weight, share, lift, counts.counts * (np.log(more) - 1 + 1 / more))
        counted.append(counts)


class _Counts(NamedTuple):
    """Occurrences of each term in each region of one level."""

    keys: np.ndarray
    """`[m]` int64, ascending: region * n_terms + term"""
    counts: np.ndarray
    """`[m]` occurrences"""
    weights: np.ndarray
    """`[m]` occurrences weighted by the density at their points"""
    totals: np.ndarray
    """`[n_regions]` occurrences of all terms"""

    def of(self, keys: np.ndarray) -> np.ndarray:
        """Return the counts of some keys, all of which exist."""
        return self.counts[np.searchsorted(self.keys, keys)]


def _count(tree: Tree, level: int, terms: Terms, n_terms: int) -> _Counts:
    region = tree.levels[level][terms.points]
    inside = region >= 0
    keys = region[inside].astype(np.int64) * n_terms + terms.ids[inside]
    unique, which, counts = np.unique(keys, return_inverse=True, return_counts=True)
    weights = np.bincount(which, tree.density[level][terms.points[inside]], len(unique))
    totals = np.bincount(unique // n_terms, counts, len(tree.parents[level]))
    return _Counts(unique, counts, weights, totals)


def _siblings(reference: np.ndarray) -> np.ndarray:
    """Return the number of regions with the same reference as each region, `[n_regions]`."""
    _, which, counts = np.unique(reference, axis=0, return_inverse=True, return_counts=True)
    return counts[which.ravel()]
