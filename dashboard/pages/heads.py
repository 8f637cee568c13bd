"""*Heads*: how much each head does of each thing, as a heat map and a table; a click shows it on a prompt."""

from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update

from dashboard.addresses import heads_href
from dashboard.components.attributes import attrs
from dashboard.components.frame import graph, page, panel, select
from dashboard.context import Context, current
from dashboard.figures.heads import head_scores
from dashboard.figures.theme import theme
from dashboard.pages.heads_evidence import evidence, register_evidence
from dashboard.pages.prompt import COLD, WARM, pattern_graph
from dashboard.views import heads as view
from interp.errors import UnknownNameError
from interp.names import parse_head

EXAMPLE = "The small cat sat on the wide mat. The small cat sat on the wide mat."


def layout(
    context: Context, name: str | None = None, kind: str = "induction", head: str = "", text: str = "", **_: Any
) -> html.Div:
    """`/heads/<name>?kind=<score>&head=L5H1&text=<prompt>`; a head in the address is shown at once."""
    manifest = view.choose(context.workspace, name)
    view.check_kind(kind)
    rows = view.scores(context.workspace, manifest.name)
    if head:
        _check_head(head, rows)
    names = [m.name for m in context.workspace.artifacts("heads")]
    kinds = [{"value": k, "label": k.replace("_", " ")} for k in view.KINDS]
    controls = [
        select("heads-name", "Model", names, manifest.name, width=200),
        dmc.SegmentedControl(id="heads-kind", data=kinds, value=kind, size="xs"),
    ]
    model = manifest.config.get("model", manifest.name)
    return page(
        "Heads",
        dcc.Store(id="heads-state", data={"name": manifest.name, "model": model}),
        dcc.Store(id="heads-chosen", data=head or None),
        dcc.Store(id="heads-text-run", data=text or EXAMPLE),
        html.Div(id="heads-address", hidden=True),
        html.Div([_scores_panel(), _table_panel(), _pattern_panel(context, text)], className="wb-heads"),
        evidence(context.workspace, model),
        controls=controls,
        lead=html.Span(id="heads-lead"),
    )


def register(app: Dash) -> None:
    """Scores, the chosen head, its pattern, and the address."""
    app.callback(
        Output("heads-map", "figure"),
        Output("heads-grid", "rowData"),
        Output("heads-lead", "children"),
        Input("heads-kind", "value"),
        State("heads-state", "data"),
        State("scheme", "data"),
    )(_draw)
    app.callback(
        Output("heads-chosen", "data"),
        Input("heads-map", "clickData"),
        Input("heads-grid", "cellClicked"),
        Input("heads-proof-grid", "cellClicked"),
        prevent_initial_call=True,
    )(_choose)
    register_evidence(app)
    app.callback(
        Output("heads-text-run", "data"),
        Input("heads-go", "n_clicks"),
        State("heads-text", "value"),
        prevent_initial_call=True,
    )(lambda _, text: text or "")
    app.callback(
        Output("heads-pattern", "children"),
        Output("heads-pattern-title", "children"),
        Input("heads-chosen", "data"),
        Input("heads-text-run", "data"),
        State("heads-state", "data"),
        State("scheme", "data"),
        running=[(Output("heads-busy", "className"), "wb-busy wb-busy-on", "wb-busy")],
    )(_pattern)
    app.callback(
        Output("nav", "href", allow_duplicate=True),
        Input("heads-name", "value"),
        State("heads-state", "data"),
        prevent_initial_call=True,
    )(lambda name, state: heads_href(name) if name != state["name"] else no_update)
    app.clientside_callback(
        ClientsideFunction("workbench", "headsAddress"),
        Output("heads-address", "children"),
        Input("heads-kind", "value"),
        Input("heads-chosen", "data"),
        Input("heads-text-run", "data"),
        State("heads-state", "data"),
    )


def _scores_panel() -> html.Section:
    return panel(
        "Every head",
        graph("heads-map", label="Heat map of head scores"),
        note="a dot marks a head found above chance; click a cell to see it on a prompt",
        className="wb-heads-map",
    )


def _table_panel() -> html.Section:
    number = {"valueFormatter": {"function": "d3.format('.3f')(params.value)"}, "type": "rightAligned"}
    columns = [
        {"field": "name", "headerName": "head", "width": 84},
        {"field": "score", "headerName": "score", "width": 88, "sort": "desc", **number},
        {"field": "interval", "headerName": "95 % interval", "flex": 1, "minWidth": 120, "sortable": False},
        {"field": "null", "headerName": "chance", "width": 88, **number},
        {"field": "verdict", "headerName": "verdict", "width": 92},
    ]
    grid = dag.AgGrid(
        id="heads-grid",
        columnDefs=columns,
        getRowId="params.data.name",
        className="wb-grid",
        columnSize=None,
        dashGridOptions={"rowHeight": 30, "headerHeight": 32, "animateRows": False},
    )
    return panel("By score", grid, className="wb-heads-table")


def _pattern_panel(context: Context, text: str) -> html.Section:
    return panel(
        html.Span("On a prompt", id="heads-pattern-title"),
        html.Div(
            [
                dmc.Textarea(id="heads-text", value=text or EXAMPLE, autosize=True, minRows=1, maxRows=4, size="xs",
                             flex=1, className="wb-mono", **attrs({"aria-label": "Prompt for the pattern"})),
                dmc.Button("Run", id="heads-go", size="xs", variant="default"),
            ],
            className="wb-controls",
        ),
        html.Div(COLD if context.live.state == "cold" else WARM, id="heads-busy", className="wb-busy"),
        html.Div(id="heads-pattern", className="wb-scroll"),
        note="where the chosen head looks: each row is one token, a row sums to 1",
        className="wb-heads-pattern",
    )  # fmt: skip


def _draw(kind: str, state: dict[str, Any], scheme: str | None) -> Any:
    rows = view.scores(current().workspace, state["name"])
    table = [
        {
            "name": view.name_of(row),
            "score": row[kind],
            "interval": f"{row[f'{kind}_low']:.3f} to {row[f'{kind}_high']:.3f}",
            "null": row[f"{kind}_null"],
            "verdict": "found" if row[f"{kind}_found"] else "",
        }
        for row in rows
    ]
    found = view.found(rows, kind)
    strongest = ", ".join(view.name_of(row) for row in found[:5])
    article = "An" if kind[0] in "aeiou" else "A"
    words = (
        f"{article} {kind.replace('_', ' ')} head {view.KINDS[kind]}. {len(found)} of {len(rows)} do it beyond chance"
    )
    height = max(260, 22 * (1 + max(row["layer"] for row in rows)) + 70)
    return head_scores(rows, kind, theme(scheme), height=height), table, words + (f": {strongest}." if found else ".")


def _choose(click: dict[str, Any] | None, cell: dict[str, Any] | None, proof: dict[str, Any] | None) -> Any:
    if ctx.triggered_id in ("heads-grid", "heads-proof-grid"):
        return ((cell if ctx.triggered_id == "heads-grid" else proof) or {}).get("rowId", no_update)
    if not click:
        return no_update
    at = click["points"][0]
    return f"L{at['y']}H{at['x']}"


def _pattern(chosen: str | None, text: str, state: dict[str, Any], scheme: str | None) -> Any:
    if not chosen:
        return html.P("Choose a head in the map or the table.", className="wb-none"), "On a prompt"
    head = parse_head(chosen)
    figure = pattern_graph(text, state["model"], head.layer, head.head, scheme, id="heads-pattern-graph")
    return figure, f"{chosen} on a prompt"


def _check_head(head: str, rows: list[dict[str, Any]]) -> None:
    known = [view.name_of(row) for row in rows]
    if str(parse_head(head)) not in known:
        raise UnknownNameError("head", head, known)
