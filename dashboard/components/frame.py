"""The parts that every page is made of: page, panel, statistic, message, figure, menu, link, and a list of choices.

`guarded` is a panel whose content may be missing or damaged: then it says so, and the rest of the page stays. `attempt`
is the same for anything else. `attrs` passes HTML attributes whose names are no Python names:
`html.Div(**attrs({"aria-label": "Pages"}))`. `still` makes a large part of a page cheap to draw.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import dcc, html
from dash.development.base_component import Component

from dashboard.components.glossary import explained
from dashboard.figures.theme import visible
from interp.errors import WorkbenchError, as_typed


def attrs(values: dict[str, Any]) -> dict[str, Any]:
    """Return `values` untyped: a component takes `aria-*` and `data-*` next to its own typed properties."""
    return values


Part = Component | str | int | float | None
Children = Part | Sequence[Part]
"""What a component of Dash takes as its children."""

T = TypeVar("T")

log = logging.getLogger("workbench.dashboard")
GRAPH_CONFIG = {"displaylogo": False, "displayModeBar": False, "responsive": True, "showTips": False}


def page(title: str, *children: Part, controls: Children = None, lead: Children = None) -> html.Div:
    """Return a page: its title with the controls on the same line, one leading sentence, and the content."""
    head = html.Div([html.H1(title), html.Div(controls, className="wb-controls")], className="wb-page-head")
    return html.Div(
        [head, html.P(_linked(lead), className="wb-lead") if lead is not None else None, *children],
        className="wb-page",
    )


def panel(
    title: Children,
    *children: Part,
    note: Children = None,
    more: str = "",
    actions: Children = None,
    **extra: Any,
) -> html.Section:
    """Return a titled box; `note` is a line under the title, `more` explains how to read it, behind a "?".

    On a phone it folds where it begins far down the page (assets/fold.mjs).
    """
    class_name = " ".join(["wb-panel", extra.pop("className", "")]).strip()
    head = html.Div(
        [
            html.Div([html.H2(title), question_mark(more) if more else None], className="wb-panel-title"),
            html.Div(actions, className="wb-panel-actions") if actions else None,
            html.Button(className="wb-shutter", type="button", **attrs({"aria-label": "Show or hide the section"})),
        ],
        className="wb-panel-head",
    )
    return html.Section(
        [head, html.P(_linked(note), className="wb-note") if note is not None else None, *children],
        className=class_name,
        **extra,
    )


def question_mark(text: str) -> html.Details:
    """Return a "?" that opens a text."""
    mark = html.Summary("?", title=text, **attrs({"aria-label": "How to read this"}))
    return html.Details([mark, html.P(explained(text))], className="wb-more")


def _linked(text: Children) -> Children:
    """Return a text with its terms as links to the glossary, and anything else unchanged."""
    return explained(text) if isinstance(text, str) else text


METHOD = "How it was tested"


def verdict(sentence: Part, *method: Part, id: str = "") -> html.Div:
    """Return a verdict, one sentence of at most 25 words with its null, and everything behind it folded under it.

    A test counts the words on every page.
    """
    named: dict[str, Any] = {"id": id} if id else {}
    sentence = visible(sentence, 600) if isinstance(sentence, str) else sentence
    below = fold(METHOD, *method) if method else None
    return html.Div([html.P(sentence, className="wb-verdict", dir="auto", **named), below], className="wb-judged")


def fold(summary: Children, *parts: Part, **extra: Any) -> html.Details:
    """Return parts that are shown once their summary is clicked."""
    return html.Details([html.Summary(summary), *parts], className="wb-folded", **extra)


def folded(title: str, *children: Part, note: Children = None, **extra: Any) -> html.Details:
    """Return a panel that is closed until its title is clicked; the number of clicks is that of `fold-` and its id."""
    summary: dict[str, Any] = {"id": f"fold-{extra['id']}", "n_clicks": 0} if "id" in extra else {}
    head = html.Summary(html.H2(title), **summary)
    return html.Details(
        [head, html.P(_linked(note), className="wb-note") if note is not None else None, *children],
        className="wb-panel wb-fold",
        **extra,
    )


def stat(label: str, value: str, hint: str = "") -> html.Div:
    """Return one number with its name; `hint` explains it in a tooltip."""
    return html.Div(
        [html.Span(value, className="wb-stat-value"), html.Span(label, className="wb-stat-label")],
        className="wb-stat",
        title=hint or None,
    )


def notice(*children: Part, tone: str = "info") -> html.Div:
    """Return a message in the flow of the page; `tone` is `info`, `warning` or `error`."""
    return html.Div(children, className=f"wb-notice wb-notice-{tone}", role="alert" if tone == "error" else "status")


def failure(error: Exception, *, back: str = "/") -> html.Div:
    """Return the page of an error: what went wrong, in a sentence, and links that lead on."""
    links: list[Part] = [quiet_link("Back to the overview", "/")]
    if back != "/":
        links = [quiet_link(f"Open {back[1:]} without a name", back), " · ", *links]
    return page("That did not work", notice(html.P(explain(error)), html.P(links), tone="error"))


def explain(error: Exception) -> str:
    """Return an error as one line: the message of one of ours; of any other its type, message and likely cause."""
    if isinstance(error, WorkbenchError):
        return as_typed(str(error))
    text = f"An unexpected {type(error).__name__}: {error}. The terminal that runs the dashboard has the details."
    if isinstance(error, LookupError | TypeError | ValueError | AttributeError):
        text += as_typed(" It is a defect of this page, or a damaged file: `workbench verify` checks the files.")
    return text


def graph(id: str, *, figure: go.Figure | None = None, label: str, height: int | None = None, **extra: Any) -> html.Div:
    """Return a figure without Plotly's mode bar, with a name for screen readers."""
    options: dict[str, Any] = {
        "id": id,
        "config": GRAPH_CONFIG | extra.pop("config", {}),
        "className": "wb-graph",
        **extra,
    }
    if figure is not None:
        options["figure"] = figure
    if height:
        options["style"] = {"height": f"{height}px"}
    return html.Div(dcc.Graph(**options), role="figure", **attrs({"aria-label": label}))


def loading(child: Children) -> dcc.Loading:
    """Return `child` with a spinner over it while it is being drawn; it stays visible meanwhile.

    A child with an id waits for itself only, not for what is inside it.
    """
    name = getattr(child, "id", None)
    options: dict[str, Any] = {"target_components": {name: "children"}} if isinstance(name, str) else {}
    seen = {"visibility": "visible", "opacity": 0.45}
    return dcc.Loading(child, type="circle", delay_show=250, overlay_style=seen, **options)


def note_controls(key: str, *, state: dict[str, Any] | None = None, largest: float | None = None) -> html.Div:
    """Return the star, name and note of a thing, `folder/name` or `folder/name#part`, for a visitor to change.

    They are drawn in the browser (assets/notes.mjs), which asks for the `state` where none is given. `largest` is the
    largest activation of a feature: amounts of a recipe are typed in units of it.
    """
    data = {"data-note-thing": key} | ({"data-note-state": json.dumps(state)} if state is not None else {})
    data |= {"data-note-largest": str(largest)} if largest else {}
    return html.Div(className="wb-note-controls", **attrs(data))


def select(id: str, label: str, data: list[Any], value: str | None, width: int = 240, **extra: Any) -> dmc.Select:
    """Return a menu; its label is read by screen readers and takes no room on the page."""
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
    """Return a link within the dashboard."""
    return dcc.Link(text, href=href, className="wb-link", **extra)


@dataclass(frozen=True)
class ListLine:
    """One line of the list."""

    title: str
    outcome: str
    """the result, in a word or two"""
    about: str
    href: str


def choice_list(title: str, choices: list[ListLine], chosen: int) -> html.Nav:
    """Return all choices in a panel; `chosen` is the index of the one that is shown."""
    aria = attrs({"aria-current": "true"})
    rows = [html.Li(_link(choice), **(aria if at == chosen else {})) for at, choice in enumerate(choices)]
    return html.Nav(panel(title, html.Ul(rows, className="wb-choices")), **attrs({"aria-label": title}))


def previous_next(choices: list[ListLine], chosen: int) -> list[dcc.Link]:
    """Return links to the previous and next choice; the keys k and j follow them (assets/workbench.mjs)."""
    links: list[dcc.Link] = []
    if chosen > 0:
        links.append(quiet_link("previous", choices[chosen - 1].href, id="choice-previous", title="k"))
    if chosen + 1 < len(choices):
        links.append(quiet_link("next", choices[chosen + 1].href, id="choice-next", title="j"))
    return links


def _link(choice: ListLine) -> dcc.Link:
    return dcc.Link(
        [
            html.Span(visible(choice.title), className="wb-choice-title", dir="auto"),
            html.Span(choice.outcome, className="wb-choice-outcome"),
            html.Span(choice.about, className="wb-quiet"),
        ],
        href=choice.href,
        className="wb-choice",
    )


def guarded(title: str, body: Callable[[], Sequence[Part]], *, note: str = "") -> html.Section:
    """Return the panel with what `body` returns, or with the reason why it could not."""
    try:
        return panel(title, *body(), note=note or None)
    except WorkbenchError as error:
        return panel(title, notice(explain(error), tone="error"))


def attempt(body: Callable[[], T]) -> T | html.Div:
    """Return what `body` returns, or a message with the reason why it could not, whatever went wrong."""
    try:
        return body()
    except Exception as error:
        if not isinstance(error, WorkbenchError):
            log.exception("a part of a page failed")
        return notice(explain(error), tone="error")


class Still(Component):
    """HTML that no callback addresses, as one component (assets/still.mjs).

    `tree`: a list of texts and of `[tag, properties, *children]`, in which the tag `Link` is a `dcc.Link`.
    """

    _children_props: list[str] = []  # noqa: RUF012 - as Dash declares it
    _base_nodes = ["children"]  # noqa: RUF012
    _namespace = "workbench_still"
    _type = "Still"
    _prop_names = ["tree"]  # noqa: RUF012
    _valid_wildcard_attributes: list[str] = []  # noqa: RUF012
    available_properties = _prop_names
    available_wildcard_properties: list[str] = []  # noqa: RUF012

    def __init__(self, tree: list[Any]):
        super().__init__(tree=tree)
        self.tree: list[Any] = tree


def still(node: Component) -> Component:
    """Return a part of a page with all HTML that has no id as `Still`; it looks the same and is drawn far faster.

    Dash runs several subscriptions of every component after every change of a page, so that its cost grows with the
    square of their number. What has an id, and what is no HTML, stays a component; `node` itself is changed.
    """
    return _together([_settled(node)])[0]


def _together(parts: list[Any]) -> list[Any]:
    """Return parts with each run of plain ones as one `Still`."""
    nodes = (part for part in parts if part is not None)
    runs = [(alive, list(run)) for alive, run in groupby(nodes, lambda part: isinstance(part, Component))]
    return [node for alive, run in runs for node in (run if alive else [Still(run)])]


def _settled(node: Any) -> Any:
    """Return HTML as a plain tree, or as a component if it has an id or a part that is not HTML."""
    if not isinstance(node, Component):
        return node
    if isinstance(node, Still):
        return node.tree[0] if len(node.tree) == 1 else node
    tag = node._type.lower() if node._namespace == "dash_html_components" else None
    tag = "Link" if isinstance(node, dcc.Link) else tag
    props = node.to_plotly_json()["props"]
    if tag is None and not isinstance(node, dcc.Loading):
        return node
    children = props.pop("children", None)
    parts = [_settled(child) for child in (children if isinstance(children, list | tuple) else [children])]
    if tag is None or props.keys() & {"id", "n_clicks"} or any(isinstance(part, Component) for part in parts):
        if any(part is not None for part in parts):
            node.children = _together(parts)
        return node
    return [tag, props, *(part for part in parts if part is not None)]
