"""*Atlas*: a map to pan, zoom, search, colour and select on, true neighbours of a point, a table of what is chosen."""

from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update

from dashboard.addresses import atlas_href, feature_href, whole_number
from dashboard.components.atlas_view import atlas_view
from dashboard.components.frame import page, select
from dashboard.context import Context, current
from dashboard.pages.atlas_side import point_panel, quality_panel, regions_panel
from dashboard.pages.atlas_table import fill, table_panel
from dashboard.views import atlas as view
from dashboard.views.atlas_columns import columns, default_colour
from dashboard.views.atlas_selection import Choice, brightness

NARROWING = ("search", "filter", "selection")


def layout(context: Context, name: str | None = None, **address: Any) -> html.Div:
    """`/atlas/<name>?colour=&size=&q=&filter=&selection=&point=&at=x,y,span&overlays=` (views/atlas_selection.py)."""
    workspace, manifest = context.workspace, view.choose(context.workspace, name)
    name = manifest.name
    given = {
        key: str(address.get(key) or "") for key in ("colour", "size", "q", "filter", "selection", "at", "overlays")
    }
    view.check_colour(workspace, name, given["colour"])
    brightness(
        workspace, name, Choice(given["q"], given["selection"], given["filter"])
    )  # says here what cannot be read
    chosen = whole_number(address.get("point"))
    found = None if chosen is None else view.point(workspace, name, chosen)
    colour = default_colour(columns(workspace, name))
    leads_to = manifest.summary.get("features")
    shown = atlas_view(
        workspace,
        name,
        colour=given["colour"] or colour,
        size=given["size"],
        search=given["q"],
        filter=given["filter"],
        selection=given["selection"],
        point=chosen,
        at=given["at"],
        overlays=_overlays(given["overlays"]),
    )
    side = [
        html.Div(point_panel(leads_to, found) if found else None, id="atlas-chosen"),
        quality_panel(manifest),
        regions_panel(view.largest_regions(workspace, name)),
    ]
    return page(
        "Atlas",
        dcc.Store(id="atlas-state", data={"name": name, "features": leads_to, "colour": colour}),
        dcc.Store(id="atlas-narrowing"),
        html.Div(id="atlas-address", hidden=True),
        html.Div(
            [html.Div(shown.component("atlas-map"), className="wb-map"), html.Aside(side, className="wb-side")],
            className="wb-atlas",
        ),
        table_panel(workspace, name),
        controls=[select("atlas-name", "Atlas", view.choices(workspace), name, width=300)],
    )


def register(app: Dash) -> None:
    """The chosen point, the table, and the address."""
    app.callback(
        Output("atlas-chosen", "children"),
        Output("atlas-map", "neighbours"),
        Input("atlas-map", "point"),
        State("atlas-state", "data"),
    )(_chosen)
    app.callback(
        Output("nav", "href", allow_duplicate=True),
        Input("atlas-map", "opened"),
        State("atlas-state", "data"),
        prevent_initial_call=True,
    )(_open)
    app.callback(
        Output("nav", "href", allow_duplicate=True),
        Input("atlas-name", "value"),
        State("atlas-state", "data"),
        prevent_initial_call=True,
    )(lambda name, state: atlas_href(name) if name != state["name"] else no_update)
    app.callback(
        Output("atlas-grid", "getRowsResponse"),
        Output("atlas-table-title", "children"),
        Input("atlas-grid", "getRowsRequest"),
        State("atlas-narrowing", "data"),
        State("atlas-state", "data"),
    )(fill)
    _register_browser(app)


def _register_browser(app: Dash) -> None:
    browser = [
        ("address", Output("atlas-address", "children"), [*_inputs("colour", "size", "search", "filter", "selection",
         "point", "at", "overlays"), State("atlas-state", "data")], {}),
        ("narrowing", Output("atlas-narrowing", "data"), _inputs(*NARROWING), {}),
        ("refresh", Output("atlas-grid", "id"), [Input("atlas-narrowing", "data")], {"prevent_initial_call": True}),
        ("pressed", Output("atlas-map", "point"), [Input("atlas-grid", "cellClicked")], {"prevent_initial_call": True}),
    ]  # fmt: skip
    for function, output, inputs, options in browser:
        app.clientside_callback(ClientsideFunction("atlas", function), output, *inputs, **options)


def _inputs(*names: str) -> list[Input]:
    return [Input("atlas-map", name) for name in names]


def _overlays(text: str) -> list[str] | None:
    """`"labels,grid"` -> `["labels", "grid"]`; `"none"` -> `[]`; nothing given -> the usual ones."""
    if not text:
        return None
    return [part for part in text.split(",") if part in ("labels", "contours", "minimap", "grid")]


def _chosen(index: int | None, state: dict[str, Any]) -> Any:
    if index is None:
        return None, []
    found = view.point(current().workspace, state["name"], index)
    return point_panel(state["features"], found), [number for number, *_ in found["neighbours"]]


def _open(index: int | None, state: dict[str, Any]) -> Any:
    if index is None or not state["features"]:
        return no_update
    return feature_href(state["features"], view.point(current().workspace, state["name"], index)["item"])
