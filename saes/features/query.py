"""A search query: words to find, joined by AND, and words to leave out after NOT. Torch-free.

    parse_query("cooking AND french").wanted           # ("cooking", "french"): each has to be found
    parse_query("bank NOT river").unwanted             # ("river",)
    parse_query("def ").wanted                         # ("def ",): "def" as a whole word and in this case

AND and NOT are written in capitals. What stands between them is a text: one word, a list of words, or a phrase.
"""

import re
from dataclasses import dataclass

from interp.errors import ConfigError

MAX_TEXT = 2000
"""Characters of a query."""
MAX_TEXTS = 6
"""Texts that AND and NOT join."""
_JOINT = re.compile(r"(?:^|(?<=\s))(AND NOT|AND|NOT)(?=\s|$)")


@dataclass(frozen=True)
class Query:
    """The texts of a query."""

    wanted: tuple[str, ...]
    unwanted: tuple[str, ...] = ()


def parse_query(text: str) -> Query:
    """Return the texts of a query.

    A space at the end of a text counts, one at its beginning does not: with or without it, a word is the same. Raises
    `ConfigError` for a query that is empty, too long, or names nothing to find.

    >>> parse_query("bank NOT river")
    Query(wanted=('bank',), unwanted=('river',))
    """
    if not text.strip() or len(text) > MAX_TEXT:
        raise ConfigError(f"a query has 1 to {MAX_TEXT:,} characters, got {len(text):,}; type a word")
    first, *rest = _JOINT.split(text)
    parts = [("AND", first), *zip(rest[::2], rest[1::2], strict=True)]
    last = len(parts) - 1
    cleaned = [(joint, part.lstrip() if i == last else part.strip()) for i, (joint, part) in enumerate(parts)]
    wanted = [part for joint, part in cleaned if joint == "AND" and part.strip()]
    unwanted = [part for joint, part in cleaned if joint != "AND" and part.strip()]
    if not wanted or len(wanted) + len(unwanted) < len(parts) - (not first.strip()):
        raise ConfigError(f"{text.strip()!r} names nothing on one side of AND or NOT; write `bank NOT river`")
    if len(parts) > MAX_TEXTS:
        raise ConfigError(f"a query joins at most {MAX_TEXTS} texts by AND and NOT, got {len(parts)}; leave some out")
    return Query(tuple(dict.fromkeys(wanted)), tuple(dict.fromkeys(unwanted)))
