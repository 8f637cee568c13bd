"""What a point's label is made of: words, and for tokens also their form.

Words of a vocabulary occur once or twice each, so words alone name a region of them poorly. What such a region has in
common is often a form: an ending, capitals, a script, punctuation, raw bytes.
"""

import re
import unicodedata
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

UNNAMED = "no label"
WHITE = "white space"
_GRAMMAR = frozenset({"in", "any", "form", "before", "after", "docs", "promotes", "mixed", "rare", "dense", "often"})
"""Words of `saes.explain`'s sentences that say how, not what."""
_BYTES = re.compile(r"(<0x[0-9A-Fa-f]{2}>)+")
_ENDINGS = (2, 3, 4)
_SHORTEST_STEM = 2
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
"""Scripts written without spaces between words: pairs of characters stand for their words."""


class Terms(NamedTuple):
    """The terms of every point, point after point."""

    names: list[str]
    """each term once"""
    ids: np.ndarray
    """`[n_occurrences]` int32: which"""
    points: np.ndarray
    """`[n_occurrences]` int32: whose"""


def words_of_labels(labels: Sequence[str], *, tokens: bool = False) -> Terms:
    """The words of each label, at least one; of tokens each is one word."""
    return _collect(labels, token_word if tokens else words_of)


def forms_of_tokens(labels: Sequence[str]) -> Terms:
    """The forms of each token (`forms_of`); some have none."""
    return _collect(labels, forms_of)


def words_of(label: str) -> list[str]:
    """The words of a label, in lower case; a label without letters counts as one word.

    >>> words_of('" The" (84 %)')
    ['the']
    >>> words_of(" ==")
    ['==']
    >>> words_of("東京都")
    ['東京', '京都']
    """
    words = [word for run in _word_pattern().findall(label.lower()) for word in _split(run) if word not in _GRAMMAR]
    return words or [shown(label)]


def token_word(token: str) -> list[str]:
    """A token as one word, in lower case.

    >>> token_word(" Don't")
    ["don't"]
    """
    return [shown(token).lower()]


def shown(label: str) -> str:
    """A label as one line; one that shows nothing is spelled out.

    >>> shown("\\n   "), shown("    "), shown("")
    ('\\\\n␣␣␣', '␣×4', 'no label')
    """
    spelled = plain(label) or label.encode("unicode_escape").decode().replace(" ", "␣") or UNNAMED
    return re.sub(r"([^\w])\1{3,}", lambda run: f"{run[1]}×{len(run[0])}", spelled)


def forms_of(token: str) -> list[str]:
    """The forms of a token: of each family (`family_of`) at most one, of endings several.

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
    """Forms of one family say the same kind of thing; a region is given the strongest of each."""
    if form.startswith("-"):
        return "ending"
    if form.endswith("leading space"):
        return "space"
    return "case" if form in ("CAPITALS", "Capitalised", "lower case") else "kind"


def plain(text: str) -> str:
    """Text on one line: control and direction marks go, white space becomes one space.

    Marks that turn the direction of text (such as U+202E) would otherwise turn what stands around a label too. Joiners
    stay: Indic scripts and emoji need them.
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    kept = (" " if c.isspace() else c for c in text if c.isspace() or c in _JOINERS or _visible(c))
    return " ".join("".join(kept).split())


@cache
def script_of(letter: str) -> str:
    """The script of a letter, by its Unicode name.

    >>> script_of("я"), script_of("é")
    ('CYRILLIC', 'LATIN')
    """
    return unicodedata.name(letter, "OTHER").split()[0]


def _collect(labels: Sequence[str], split: Callable[[str], list[str]]) -> Terms:
    """Labels that occur again are split once."""
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
    """Letters with the marks written on them (vowel signs of Indic scripts, accents) and joiners."""
    marks = "".join(chr(c) for c in range(0x300, 0x10000) if unicodedata.category(chr(c)).startswith("M"))
    return re.compile(rf"[^\W\d_](?:[^\W\d_]|[{marks}{_JOINERS}])*")


_JOINERS = "\u200c\u200d"
