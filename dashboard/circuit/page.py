"""*Circuit*: the graph of a circuit, pruned by a slider and grouped by hand, with the evidence for each edge.

The browser draws the graph with its controls and groups (assets/graph/circuit.mjs, `routes`). The page has the
faithfulness curve, the panel of evidence (`side`) and a table of the same edges; these follow what the graph shows.
"""

import json
from typing import Any

import dash_ag_grid as dag
from dash import Dash, Input, Output, State, dcc, html

from dashboard.circuit import data as view
from dashboard.circuit import routes
from dashboard.circuit.drawing import View, colours
from dashboard.circuit.side import details, summary
from dashboard.components.frame import attrs, graph, page, panel
from dashboard.components.pages import (
    Context,
    Page,
    artefact_key,
    artefact_menu,
    circuit_href,
    current,
    menu_choices,
    open_artefact,
)
from dashboard.figures.circuits import faithfulness_at, faithfulness_curve
from dashboard.figures.theme import DARK, LIGHT, theme, visible
from interp.artifacts import CIRCUITS
from interp.circuits.found_circuit import CurvePoint, FoundCircuit, open_circuit

VIA_WORDS = {"q": "query", "k": "key", "v": "value", "other": "MLP or logits"}


def graph_panel(found: FoundCircuit) -> html.Section:
    """Return the empty panel that the browser fills with the graph, its controls and its groups."""
    roles = [node.role for node in found.circuit.nodes if node.role]
    source = {
        "data-graph-source": f"/circuit-data/{found.key}",
        "data-graph-name": found.key,
        "data-graph-page": "circuit",
        "data-colours": json.dumps({each.name: colours(each, roles) for each in (LIGHT, DARK)}),
    }
    return panel(
        "Graph",
        html.Div(id="circuit-graph", className="wb-graph-view", **attrs(source)),
        more="Along an edge the upper node reads the output of the lower one; input at the bottom, output at the top. "
        "Click for the evidence; Shift-click or x marks nodes, g groups them.",
    )


def curve_panel(present: bool) -> html.Section:
    return panel(
        "Faithfulness",
        graph("circuit-curve", label="Faithfulness over number of edges", height=200),
        note="1: as good as the whole model; 0: as bad as with every edge ablated; grey: random circuits",
        more="Metric of the circuit alone over its number of edges; random circuits have the same size.",
        actions=[html.Span(id="circuit-faithful", className="wb-quiet", **attrs({"aria-live": "polite"}))],
        className="" if present else "wb-hidden",
    )


def table_panel(unit: str) -> html.Section:
    """Return the edges as a table; `unit` says what their score is."""
    signed = {"function": "params.value == null ? '' : d3.format('+.3~g')(params.value)"}
    number = {"valueFormatter": signed, "type": "rightAligned"}
    columns = [
        {"field": "source", "headerName": "from", "flex": 1, "minWidth": 80},
        {"field": "target", "headerName": "to", "flex": 1, "minWidth": 80},
        {"field": "via", "headerName": "through", "width": 92},
        {"field": "position", "headerName": "position", "width": 92, "hide": True},
        {"field": "score", "headerName": "score", "width": 96, "headerTooltip": unit, **number},
        {"field": "exact", "headerName": "exact", "width": 96, **number},
        {"field": "interval", "headerName": "95 % interval", "flex": 1.3, "minWidth": 120, "sortable": False},
        {"field": "member", "headerName": "in circuit", "width": 92},
    ]
    grid = dag.AgGrid(
        id="circuit-grid", columnDefs=columns, getRowId="params.data.id", className="wb-grid", columnSize=None,
        dashGridOptions={"rowHeight": 30, "headerHeight": 32, "animateRows": False},
    )  # fmt: skip
    return panel(
        "Edges", grid, note=f"the same edges as a table, strongest first. Score: {unit}", className="wb-circuit-table"
    )


def table_row(row: view.EdgeRow) -> dict[str, Any]:
    """Return one row of the table."""
    interval = "" if row.low is None or row.high is None else f"{row.low:.3g} to {row.high:.3g}".replace("-", "−")
    return {
        **{name: getattr(row, name) for name in ("id", "source", "target", "position", "score", "exact")},
        "via": VIA_WORDS[row.via] if row.via else "",
        "interval": interval,
        "member": "yes" if row.member else "",
    }


def layout(context: Context, name: str | None = None, n: str = "", paths: str = "", at: str = "", **_: Any) -> html.Div:
    """`/circuit/<name or key>?n=<edges>&paths=1&at=<nodes or edges>&collapse=1` (assets/graph/circuit.mjs).

    Without `n`, the circuit as it was found.
    """
    found = open_circuit(context.workspace, artefact_key(open_artefact(context.workspace, CIRCUITS, name)))
    edges = view.scored(found)
    for chosen in filter(None, at.split(",")):
        view.check_chosen(chosen, edges, found)
    choices = menu_choices(context.workspace, CIRCUITS, circuit_href)
    return page(
        "Circuit",
        dcc.Store(id="circuit-name", data=found.key),
        dcc.Store(id="circuit-view", data={"n": edges.number(n), "paths": paths == "1"}),
        dcc.Store(id="circuit-chosen", data=at or None),
        html.Div(
            [
                graph_panel(found),
                html.Aside(
                    [curve_panel(found.curve is not None), html.Div(id="circuit-side", tabIndex=-1)],
                    className="wb-circuit-side",
                ),
                table_panel(found.unit),
            ],
            className="wb-circuit",
        ),
        controls=[artefact_menu("Circuit", choices, circuit_href(found.key), width=220, key=found.key)],
        lead=visible(found.headline(), 240),
    )


def register(app: Dash) -> None:
    """Add the routes of the graph, and the callbacks that follow what it shows and what is chosen in it."""
    routes.register(app.server)
    app.callback(
        Output("circuit-grid", "rowData"),
        Output("circuit-grid", "style"),
        Output("circuit-faithful", "children"),
        Output("circuit-curve", "figure"),
        Input("circuit-view", "data"),
        State("circuit-name", "data"),
        State("scheme", "data"),
    )(draw_circuit)
    app.callback(
        Output("circuit-side", "children"),
        Input("circuit-chosen", "data"),
        Input("circuit-view", "data"),
        State("circuit-name", "data"),
        State("scheme", "data"),
    )(show_evidence)


def draw_circuit(shown: dict[str, Any], name: str, scheme: str | None) -> Any:
    """Return the table of the shown edges, its height, their faithfulness, and the curve with their mark."""
    found = open_circuit(current().workspace, name)
    edges = view.scored(found)
    rows = View(shown["n"], shown.get("paths") is True).rows(edges)
    curve = [] if found.curve is None else found.curve.rows()
    size = shown["n"] or found.size
    figure = faithfulness_curve(curve, edges.total, theme(scheme), current=size, height=200)
    height = {"height": f"{min(360, 36 + 30 * max(1, len(rows)))}px"}
    return [table_row(row) for row in rows], height, _faithful(curve, size, edges.total), figure


def show_evidence(chosen: str | None, shown: dict[str, Any], name: str, scheme: str | None) -> Any:
    """Return the evidence for the chosen edge or nodes; with nothing chosen, what was found."""
    found = open_circuit(current().workspace, name)
    if not chosen:
        return summary(found, theme(scheme))
    edges, names = view.scored(found), chosen.split(",")
    is_edge = any(row.id in names for row in edges.rows)  # an edge has its evidence also where it is not shown
    rows = edges.rows if is_edge else View(shown["n"], shown.get("paths") is True).rows(edges)
    return details(current().workspace, found, rows, names, theme(scheme))


def _faithful(curve: list[CurvePoint], n: int, total: int) -> str:
    """Return the faithfulness at `n` of `total` edges, interpolated between the measured sizes."""
    at = faithfulness_at(curve, n / total) if total else None
    return "" if at is None else f"about {at:.2f} with the best {n:,}"


PAGE = Page(
    title="Circuit",
    path="/circuit",
    templates=("/circuit/<name>",),
    order=60,
    layout=layout,
    register=register,
    shows="The heads and MLPs that carry out one behaviour, as a graph whose edges lead from a component to one that "
    "reads its output, with the evidence for each edge and the faithfulness of the whole.",
    command="workbench circuit induction MODEL",
    fill=lambda _, model: ("circuit induction", {"model": model}),
)
