"""A list of things to choose from, each a link: the address says which, and back goes back."""

from dataclasses import dataclass

from dash import dcc, html

from dashboard.components.attributes import attrs
from dashboard.components.frame import panel, quiet_link
from dashboard.figures.theme import visible


@dataclass(frozen=True)
class Choice:
    """One line of the list."""

    title: str
    outcome: str
    """what came out, in a word"""
    about: str
    href: str


def choice_list(title: str, choices: list[Choice], chosen: int) -> html.Nav:
    """All choices in a panel; `chosen` is the place of the one that is shown."""
    here = attrs({"aria-current": "true"})
    rows = [html.Li(_link(choice), **(here if at == chosen else {})) for at, choice in enumerate(choices)]
    return html.Nav(panel(title, html.Ul(rows, className="wb-choices")), **attrs({"aria-label": title}))


def previous_next(choices: list[Choice], chosen: int) -> list[dcc.Link]:
    """Links to the neighbours in the list; the keys k and j follow them (assets/workbench.js)."""
    links = []
    if chosen > 0:
        links.append(quiet_link("previous", choices[chosen - 1].href, id="choice-previous", title="k"))
    if chosen + 1 < len(choices):
        links.append(quiet_link("next", choices[chosen + 1].href, id="choice-next", title="j"))
    return links


def _link(choice: Choice) -> dcc.Link:
    return dcc.Link(
        [
            html.Span(visible(choice.title), className="wb-choice-title", dir="auto"),
            html.Span(choice.outcome, className="wb-choice-outcome"),
            html.Span(choice.about, className="wb-quiet"),
        ],
        href=choice.href,
        className="wb-choice",
    )
