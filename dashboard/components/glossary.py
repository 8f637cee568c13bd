"""The glossary: one word per idea, and links to its entries from the texts of pages.

`glossary.toml` is its one source: the page *Glossary* and the documentation print it, texts under titles link to it,
and tests look for the words that it replaces.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dash import html

SOURCE = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True)
class Term:
    """One entry."""

    section: str
    name: str
    meaning: str
    phrases: tuple[str, ...] = ()
    """words of pages that are links to it"""
    instead_of: tuple[str, ...] = ()
    """words that it replaces"""

    @property
    def anchor(self) -> str:
        """Its id on the page *Glossary*."""
        return self.name.lower().replace(" ", "-")

    def link(self, text: str) -> html.A:
        """Return `text` as a link to the entry, in a tab of its own; pointed at, it shows the meaning."""
        address = f"/glossary#{self.anchor}"
        return html.A(text, href=address, target="_blank", title=plain(self.meaning), className="wb-link wb-term")


@cache
def glossary() -> dict[str, Term]:
    """Return all entries by name, in the order of the page."""
    sections: dict[str, dict[str, dict[str, str | list[str]]]] = tomllib.loads(SOURCE.read_text(encoding="utf-8"))
    return {
        name: Term(
            section, name, str(entry["meaning"]), tuple(entry.get("said", ())), tuple(entry.get("instead_of", ()))
        )
        for section, entries in sections.items()
        for name, entry in entries.items()
    }


def plain(meaning: str) -> str:
    """Return a meaning without the marks of code and emphasis."""
    return meaning.replace("`", "").replace("*", "")


@cache
def _said() -> tuple[re.Pattern[str], dict[str, Term]]:
    terms = {word: term for term in glossary().values() for word in term.phrases}
    longest = sorted(terms, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, longest))})(?![\w-])"), terms


def explained(text: str) -> list[str | html.A]:
    """Return a text whose terms are links to their entries, each at its first mention."""
    words, terms = _said()
    parts: list[str | html.A] = []
    seen: set[Term] = set()
    end = 0
    for match in words.finditer(text):
        term = terms[match[0]]
        if term not in seen:
            seen.add(term)
            parts += [text[end : match.start()], term.link(match[0])]
            end = match.end()
    return [part for part in (*parts, text[end:]) if part]
