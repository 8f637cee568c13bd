"""The browser of heads over a text: a small map for each kind, filters, and a list whose heads are links."""

from typing import Any

import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import Dash, Input, NoUpdate, Output, State, dcc, html, no_update

from dashboard.components.frame import Children, attempt, attrs, graph, panel, quiet_link, select, still, verdict
from dashboard.components.pages import artefact_menu, head_href, menu_choices
from dashboard.data.heads import HeadLine, HeadQuery, choices, choose
from dashboard.figures.heads import head_multiples
from dashboard.figures.theme import theme, visible
from dashboard.sources import current
from interp.circuits.heads_in_text import HeadsInText
from interp.workspace import Workspace

SHOWN = 40
"""Heads in the list; a filter finds the others."""


def browser(workspace: Workspace, text_heads: HeadsInText) -> html.Div:
    """Return the browser of one artefact."""
    ways = [
        {"value": "", "label": "of any kind"},
        *({"value": k, "label": v} for k, v in choices(text_heads).items()),
    ]
    layers = [{"value": "", "label": "all layers"}]
    layers += [{"value": str(layer), "label": f"layer {layer}"} for layer in range(text_heads.shape[0])]
    filters = html.Div(
        [
            select("heads-way", "Heads that", ways, "", width=330),
            select("heads-layer", "Layer", layers, "", width=130),
            dmc.TextInput(id="heads-word", size="xs", placeholder="a word it attends to or from", debounce=300,
                          **attrs({"aria-label": "Word that a head attends to or from"})),
        ],
        className="wb-controls",
    )  # fmt: skip
    names = menu_choices(workspace, ("heads_in_text",))
    shown = next((address for text, address in names if text == text_heads.name), "")
    return html.Div(
        [
            dcc.Store(id="heads-text-state", data=text_heads.name),
            verdict(_lead(text_heads), html.P(f"{text_heads.details()[0]}."), html.P(_METHOD)),
            panel(
                "By kind",
                html.Div(graph("heads-multiples", label="Score of every head for every kind on text"),
                         className="wb-scroll wb-head-maps", tabIndex=0),
                note="dot: above shuffled keys and an untrained model; click a cell to open its head",
                more="Kinds that say what a head writes show found heads alone.",
                actions=[artefact_menu("Text", names, shown, width=180, key=text_heads.key)],
            ),
            panel("Find heads", filters, html.Div(id="heads-found")),
        ]
    )  # fmt: skip


def _lead(text_heads: HeadsInText) -> str:
    n = len({row.name for row in text_heads.scores if row.found and row.kind != "sink"})
    return (
        f"{n} of {len(text_heads.rows)} heads attend to more than the first position in a way that shuffled keys and "
        "an untrained model do not."
    )


_METHOD = (
    "Score: mean attention to the targets of a kind, over queries that have one. Nulls: the keys of each query "
    "shuffled; the heads of an untrained model. Intervals are over groups of documents, corrected for all heads."
)


def register_browser(app: Dash) -> None:
    """Add the callbacks: the maps, the list, and a click on a map."""
    app.callback(Output("heads-multiples", "figure"), Input("heads-text-state", "data"), State("scheme", "data"))(
        draw_multiples
    )
    app.callback(
        Output("heads-found", "children"),
        Input("heads-way", "value"),
        Input("heads-layer", "value"),
        Input("heads-word", "value"),
        State("heads-text-state", "data"),
    )(list_heads)
    app.callback(
        Output("nav", "href", allow_duplicate=True),
        Input("heads-multiples", "clickData"),
        State("heads-text-state", "data"),
        prevent_initial_call=True,
    )(_open)


def draw_multiples(name: str, scheme: str | None) -> go.Figure:
    """Return the small maps of all kinds."""
    return head_multiples(current().workspace.open(HeadsInText, name), theme(scheme))


def list_heads(way: str | None, layer: str | None, word: str | None, name: str) -> Children:
    """Return the heads that the filters leave, as a table of links."""

    def body() -> Children:
        text_heads = current().workspace.open(HeadsInText, name)
        query = HeadQuery(kind=way or "", layer=int(layer) if layer else None, text=word or "")
        lines = choose(text_heads, query)
        n = f"{len(lines)} of {len(text_heads.rows)} heads"
        note = f"{n}; the first {SHOWN} are shown" if len(lines) > SHOWN else n
        return [html.P(f"{note}.", className="wb-note"), still(_table(lines[:SHOWN], name, bool(way)))]

    return attempt(body)


def _table(lines: list[HeadLine], name: str, ranked: bool) -> html.Div:
    titles = ("head", "score", "shuffled", "kinds", "attends to", "writes", "entropy", "distance")
    head = html.Tr([html.Th(title, scope="col") for title in titles])
    return html.Div(
        html.Table([html.Thead(head), html.Tbody([_row(line, name) for line in lines])]),
        className="wb-scroll wb-heads-list",
    )


def _row(line: HeadLine, name: str) -> html.Tr:
    null = "" if line.null != line.null else f"{line.null:.2f}"
    return html.Tr([
        html.Td(quiet_link(line.head, head_href(name, line.head))), html.Td(f"{line.value:.2f}" if line.value else ""),
        html.Td(null), html.Td(", ".join(kind.replace("_", " ") for kind in line.kinds)), html.Td(_texts(line.reads)),
        html.Td(_texts(line.writes)), html.Td(f"{line.row.entropy:.2f}"), html.Td(f"{line.row.distance:.1f}"),
    ])  # fmt: skip


def _texts(texts: tuple[str, ...]) -> str:
    return " ".join(visible(text.strip() or text, 20) for text in texts)


def _open(click: dict[str, Any] | None, name: str) -> str | NoUpdate:
    head = click["points"][0].get("customdata") if click else None
    return head_href(name, str(head)) if head else no_update
