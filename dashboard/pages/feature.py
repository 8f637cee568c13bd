"""*Feature*: the list at the left, one feature at the right; moving between features changes only the right side."""

import secrets
from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update

from dashboard.addresses import whole_number
from dashboard.components.attributes import attrs
from dashboard.components.frame import explain, loading, notice, page, panel, select
from dashboard.context import Context, current
from dashboard.pages.feature_detail import detail
from dashboard.views import features as view

_LOG_LOW = -6
"""log10 of the lowest density that the slider tells apart; at its left end dead features are in"""
_MARKS = ((-6, "dead"), (-4, ".01%"), (-2, "1%"), (0, "all"))
_FILTERS = {"label": "agTextColumnFilter", "density": "agNumberColumnFilter"}


def layout(
    context: Context, features: str | None = None, index: str | None = None, q: str = "", d: str = "", **_: Any
) -> html.Div:
    """`/feature/<features>/<index>?q=<label text>&d=<log10 density range>`."""
    name = view.choose(context.workspace, features)
    at = whole_number(index)
    if at is None:
        at = view.most_telling(context.workspace, name)
    view.one(context.workspace, name, at)  # an unknown number fails here, with its message
    low, high = _range(d)
    controls = [
        select("feature-set", "Dictionary", view.choices(context.workspace), name, width=300),
        dmc.NumberInput(id="feature-jump", placeholder="go to #", w=104, size="xs", min=0, allowDecimal=False,
                        hideControls=True, **attrs({"aria-label": "Go to feature number"})),
        dmc.Button("Random", id="feature-random", variant="default", size="xs"),
        dmc.Button("‹", id="feature-previous", variant="default", size="xs", px=12,
                   **attrs({"aria-label": "Previous feature"})),
        dmc.Button("›", id="feature-next", variant="default", size="xs", px=12,
                   **attrs({"aria-label": "Next feature"})),
    ]  # fmt: skip
    return page(
        "Features",
        dcc.Store(id="feature-state", data={"features": name, "index": at}),
        html.Div(id="feature-address", hidden=True),
        html.Div(
            [_list_panel(name, q, low, high), html.Div(loading(html.Div(id="feature-detail")), className="wb-detail")],
            className="wb-split",
        ),
        controls=controls,
    )


def register(app: Dash) -> None:
    """Moving, listing, and the address."""
    app.callback(
        Output("feature-state", "data"),
        Input("feature-grid", "cellClicked"),
        Input("feature-previous", "n_clicks"),
        Input("feature-next", "n_clicks"),
        Input("feature-random", "n_clicks"),
        Input("feature-jump", "n_submit"),
        State("feature-jump", "value"),
        State("feature-state", "data"),
        prevent_initial_call=True,
    )(_move)
    app.callback(
        Output("feature-detail", "children"), Input("feature-state", "data"), State("scheme", "data")
    )(_show)  # fmt: skip
    app.callback(
        Output("feature-grid", "getRowsResponse"),
        Input("feature-grid", "getRowsRequest"),
        State("feature-state", "data"),
    )(_rows)
    app.callback(
        Output("nav", "href", allow_duplicate=True),
        Input("feature-set", "value"),
        State("feature-state", "data"),
        prevent_initial_call=True,
    )(lambda name, state: f"/feature/{name}/" if name != state["features"] else no_update)
    app.clientside_callback(
        ClientsideFunction("workbench", "featureAddress"),
        Output("feature-address", "children"),
        Input("feature-state", "data"),
        Input("feature-search", "value"),
        Input("feature-density", "value"),
    )
    app.clientside_callback(
        ClientsideFunction("workbench", "filterFeatures"),
        Output("feature-grid", "id"),
        Input("feature-search", "value"),
        Input("feature-density", "value"),
    )


def _list_panel(name: str, text: str, low: float, high: float) -> html.Section:
    columns = [
        {"field": "feature", "headerName": "#", "width": 62, "type": "rightAligned"},
        {"field": "label", "headerName": "label", "flex": 1, "minWidth": 120, "tooltipField": "label"},
        {
            "field": "density",
            "headerName": "density",
            "width": 86,
            "type": "rightAligned",
            "valueFormatter": {"function": "params.value == null ? '' : d3.format('.2%')(params.value)"},
        },
    ]
    for column in columns:
        column |= {"filter": _FILTERS.get(column["field"], False), "sortable": True, "suppressHeaderFilterButton": True}
    marks: list[Any] = [
        {"value": e, "label": label} for e, label in ((-6, "dead"), (-4, ".01%"), (-2, "1%"), (0, "all"))
    ]
    return panel(
        "All features",
        dmc.TextInput(
            id="feature-search", value=text, placeholder="search labels   /", size="xs", debounce=250,
            className="wb-search", **attrs({"aria-label": "Search labels"}),
        ),
        html.Div(
            [html.Span("fires on", className="wb-quiet"),
             dmc.RangeSlider(id="feature-density", value=[low, high], min=_LOG_LOW, max=0, step=0.25, minRange=0.25,
                             marks=marks, label=None, size="xs", flex=1)],
            className="wb-density",
        ),
        dag.AgGrid(
            id="feature-grid",
            columnDefs=columns,
            rowModelType="infinite",
            getRowId="params.data.id",
            className="wb-grid",
            columnSize=None,
            dashGridOptions={
                "cacheBlockSize": 100, "maxBlocksInCache": 20, "rowHeight": 30, "headerHeight": 32,
                "suppressCellFocus": False, "rowSelection": {"mode": "singleRow", "checkboxes": False,
                                                             "enableClickSelection": True},
                "tooltipShowDelay": 400, "animateRows": False,
            },
        ),
        className="wb-list",
    )  # fmt: skip


def _range(text: str) -> tuple[float, float]:
    """`"-4,-2"` -> `(-4.0, -2.0)`; anything else is the whole range."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        return _LOG_LOW, 0.0
    return (low, high) if _LOG_LOW <= low < high <= 0 else (_LOG_LOW, 0.0)


def _move(
    cell: dict[str, Any] | None, back: int, forth: int, random: int, submit: int, jump: Any, state: dict[str, Any]
) -> Any:
    name, index = state["features"], state["index"]
    last = int(current().workspace.manifest("features", name).summary["n_features"]) - 1
    match ctx.triggered_id:
        case "feature-grid":
            index = whole_number((cell or {}).get("rowId"), index)
        case "feature-previous":
            index = max(0, index - 1)
        case "feature-next":
            index = min(last, index + 1)
        case "feature-random":
            index = view.random_live(current().workspace, name, seed=secrets.randbits(30))
        case "feature-jump":
            index = int(whole_number(jump, index) or 0)
            view.one(current().workspace, name, index)
    return no_update if index == state["index"] else {"features": name, "index": index}


def _show(state: dict[str, Any], scheme: str | None) -> html.Div:
    try:
        return detail(current().workspace, state["features"], state["index"], scheme)
    except Exception as error:
        return html.Div(notice(explain(error), tone="error"))


def _rows(request: dict[str, Any] | None, state: dict[str, Any]) -> Any:
    if not request:
        return no_update
    filters = request.get("filterModel") or {}
    density = filters.get("density") or {}
    sort = (request.get("sortModel") or [{"colId": "feature", "sort": "asc"}])[0]
    query = view.Query(
        text=str((filters.get("label") or {}).get("filter", "")),
        density_low=float(density.get("filter", 0.0)),
        density_high=float(density.get("filterTo", 1.0)),
        sort=sort["colId"],
        descending=sort["sort"] == "desc",
    )
    found = view.listing(
        current().workspace, state["features"], query, int(request["startRow"]), int(request["endRow"])
    )
    return {"rowData": found.rows, "rowCount": found.total}
