"""*Glossary*: every term with its meaning, and the words that it replaces."""

import re
from itertools import groupby

from dash import html

from dashboard.components.frame import Part, page, panel
from dashboard.components.glossary import Term, glossary
from dashboard.components.pages import Page
from dashboard.sources import PageSources

_MARKS = {"`": html.Code, "*": html.Em}


def layout(_context: PageSources, **_: object) -> html.Div:
    """`/glossary`; `/glossary#null` is one entry."""
    sections = groupby(glossary().values(), key=lambda term: term.section)
    return page(
        "Glossary",
        *(panel(title, html.Dl([part for term in terms for part in _entry(term)], className="wb-terms"))
          for title, terms in sections),
        lead=[PAGE.shows, " Every score, with its 0, its 1 and its null: ", html.Code("docs/explanation/scores.md"),
              " of the documentation."],
    )  # fmt: skip


def _entry(term: Term) -> list[html.Dt | html.Dd]:
    return [html.Dt(term.name, id=term.anchor), html.Dd(_marked(term.meaning))]


def _marked(meaning: str) -> list[Part]:
    parts = re.split(r"(`[^`]+`|\*[^*]+\*)", meaning)
    return [_MARKS[part[0]](part[1:-1]) if i % 2 else part for i, part in enumerate(parts) if part]


PAGE = Page(
    title="Glossary",
    path="/glossary",
    group="work",
    order=98,
    listed=False,
    about="What the words on these pages mean",
    layout=layout,
    shows="One word per idea: what the words on these pages mean.",
    command="workbench demo --no-serve",
)
