"""Panels, statistics and messages: the furniture that every page is made of.

HTML attributes whose names are no Python names: `html.Div(**attrs({"aria-label": "Pages"}))`.

A list of things to choose from, each a link: the address says which, and back goes back.

A panel whose content may be missing or damaged: it says so, and the rest of the page stays.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from dashboard.figures.theme import visible
from interp.errors import WorkbenchError


def attrs(values: dict[str, Any]) -> dict[str, Any]:
    """The same values, of any type: a component takes `aria-*` and `data-*` next to its own typed properties."""
    return values


Children = Any

GRAPH_CONFIG = {"displaylogo": False, "displayModeBar": False, "responsive": True, "showTips": False}


def page(title: str, *children: Children, controls: Children = None, lead: Children = None) -> html.Div:
    """A page: title, controls on the same line, one leading sentence, content."""
    head = html.Div([html.H1(title), html.Div(controls, className="wb-controls")], className="wb-page-head")
    return html.Div(
        [head, html.P(lead, className="wb-lead") if lead is not None else None, *children], className="wb-page"
    )


def panel(
    title: Children, *children: Children, note: Children = None, actions: Children = None, **extra: Any
) -> html.Section:
    """A titled box; `note` is a quiet line under the title that says how to read it."""
    class_name = " ".join(["wb-panel", extra.pop("className", "")]).strip()
    head = html.Div(
        [html.H2(title), html.Div(actions, className="wb-panel-actions") if actions else None],
        className="wb-panel-head",
    )
    return html.Section(
        [head, html.P(note, className="wb-note") if note is not None else None, *children],
        className=class_name,
        **extra,
    )


def stat(label: str, value: str, hint: str = "") -> html.Div:
    """One number with its name; `hint` says what it means."""
    return html.Div(
        [html.Span(value, className="wb-stat-value"), html.Span(label, className="wb-stat-label")],
        className="wb-stat",
        title=hint or None,
    )


def notice(*children: Children, tone: str = "info") -> html.Div:
    """A message in the flow of the page; `tone` is `info`, `warning` or `error`."""
    return html.Div(children, className=f"wb-notice wb-notice-{tone}", role="alert" if tone == "error" else "status")


def failure(error: Exception, *, back: str = "/") -> html.Div:
    """What went wrong, in a sentence, and where to go on."""
    links = [quiet_link("Back to the overview", "/")]
    if back != "/":
        links = [quiet_link(f"Open {back[1:]} without a name", back), " · ", *links]
    return page("That did not work", notice(html.P(explain(error)), html.P(links), tone="error"))


def explain(error: Exception) -> str:
    """One line: our own errors speak for themselves, others name their type."""
    if isinstance(error, WorkbenchError):
        return str(error)
    return f"An unexpected {type(error).__name__}: {error}. The terminal that runs the dashboard has the details."


def graph(id: str, *, figure: Any = None, label: str, height: int | None = None, **extra: Any) -> html.Div:
    """A figure without the mode bar, with a name for screen readers."""
    options = {"id": id, "config": GRAPH_CONFIG | extra.pop("config", {}), "className": "wb-graph", **extra}
    if figure is not None:
        options["figure"] = figure
    if height:
        options["style"] = {"height": f"{height}px"}
    return html.Div(dcc.Graph(**options), role="figure", **attrs({"aria-label": label}))


def loading(child: Children) -> dcc.Loading:
    """Keeps `child` in place and shows a quiet spinner over it while it is being made."""
    return dcc.Loading(child, type="circle", delay_show=250, overlay_style={"visibility": "visible", "opacity": 0.45})


def select(id: str, label: str, data: list[Any], value: Any, width: int = 240, **extra: Any) -> dmc.Select:
    """A choice with a label that screen readers hear and the page keeps small."""
    return dmc.Select(
        id=id,
        data=data,
        value=value,
        w=width,
        size="xs",
        allowDeselect=False,
        comboboxProps={"shadow": "md"},
        **attrs({"aria-label": label}),
        **extra,
    )


def quiet_link(text: Children, href: str, **extra: Any) -> dcc.Link:
    """A link within the dashboard."""
    return dcc.Link(text, href=href, className="wb-link", **extra)


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


def guarded(title: str, body: Callable[[], list[Any]], *, note: str = "") -> html.Section:
    """The panel with what `body` returns, or with the reason why there is nothing."""
    try:
        return panel(title, *body(), note=note or None)
    except WorkbenchError as error:
        return panel(title, notice(explain(error), tone="error"))
