"""*Atlas*: a map to pan, zoom, search and colour; a click opens the feature, or the point's true neighbours."""

from typing import Any

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, Patch, State, dcc, html, no_update

from dashboard.addresses import atlas_href, feature_href, whole_number
from dashboard.components.attributes import attrs
from dashboard.components.frame import graph, loading, page, select
from dashboard.context import Context, current
from dashboard.figures.atlas import COLOUR_BY, atlas_map, highlight
from dashboard.figures.theme import theme
from dashboard.pages.atlas_side import point_panel, quality_panel, regions_panel
from dashboard.views import atlas as view

_DIMMED, _FULL = 0.1, 0.85


def layout(
    context: Context, name: str | None = None, colour: str = "cluster", q: str = "", point: str = "", **_: Any
) -> html.Div:
    """`/atlas/<name>?colour=cluster|density|value|kept&q=<search>&point=<index>`."""
    manifest = view.choose(context.workspace, name)
    view.check_colour(colour, COLOUR_BY)
    chosen = whole_number(point)
    found = None if chosen is None else view.point(context.workspace, manifest.name, chosen)
    value_name, leads_to = str(manifest.summary.get("value_name") or "value"), manifest.summary.get("features")
    colours = [{"value": c, "label": value_name if c == "value" else c} for c in COLOUR_BY]
    controls = [
        select("atlas-name", "Atlas", view.choices(context.workspace), manifest.name, width=300),
        dmc.SegmentedControl(id="atlas-colour", data=colours, value=colour, size="xs"),
        dmc.TextInput(
            id="atlas-search", value=q, placeholder="search the map   /", size="xs", w=220, debounce=250,
            className="wb-search", **attrs({"aria-label": "Search the map"}),
        ),
        html.Span(
            _count(*view.search(context.workspace, manifest.name, q), q), id="atlas-count", className="wb-quiet",
            **attrs({"aria-live": "polite"}),
        ),
    ]  # fmt: skip
    canvas = graph("atlas-map", label="Map of points", config={"scrollZoom": True, "doubleClick": "reset"})
    return page(
        "Atlas",
        dcc.Store(id="atlas-state", data={"name": manifest.name, "features": leads_to}),
        dcc.Store(id="atlas-point", data=chosen),
        dcc.Store(id="atlas-shown", data=[q, chosen]),
        html.Div(id="atlas-address", hidden=True),
        html.Div(
            [
                html.Div(loading(canvas), className="wb-map"),
                html.Aside(
                    [
                        html.Div(point_panel(leads_to, found) if found else None, id="atlas-chosen"),
                        quality_panel(manifest),
                        regions_panel(view.clusters(context.workspace, manifest.name)),
                    ],
                    className="wb-side",
                ),
            ],
            className="wb-atlas",
        ),
        controls=controls,
    )


def register(app: Dash) -> None:
    """Drawing, search, clicks, and the address."""
    app.callback(
        Output("atlas-map", "figure"),
        Input("atlas-state", "data"),
        Input("atlas-colour", "value"),
        State("atlas-search", "value"),
        State("atlas-point", "data"),
        State("scheme", "data"),
    )(_draw)
    app.callback(
        Output("atlas-map", "figure", allow_duplicate=True),
        Output("atlas-count", "children"),
        Output("atlas-shown", "data"),
        Input("atlas-search", "value"),
        Input("atlas-point", "data"),
        State("atlas-shown", "data"),
        State("atlas-state", "data"),
        State("scheme", "data"),
        prevent_initial_call=True,
    )(_search)
    app.callback(
        Output("nav", "href", allow_duplicate=True),
        Output("atlas-point", "data"),
        Input("atlas-map", "clickData"),
        State("atlas-search", "value"),
        State("atlas-state", "data"),
        prevent_initial_call=True,
    )(_click)
    app.callback(Output("atlas-chosen", "children"), Input("atlas-point", "data"), State("atlas-state", "data"))(
        _chosen
    )
    app.callback(
        Output("nav", "href", allow_duplicate=True),
        Input("atlas-name", "value"),
        State("atlas-state", "data"),
        prevent_initial_call=True,
    )(lambda name, state: atlas_href(name) if name != state["name"] else no_update)
    app.clientside_callback(
        ClientsideFunction("workbench", "atlasAddress"),
        Output("atlas-address", "children"),
        Input("atlas-colour", "value"),
        Input("atlas-search", "value"),
        Input("atlas-point", "data"),
        State("atlas-state", "data"),
    )


def _draw(state: dict[str, Any], colour: str, text: str | None, chosen: int | None, scheme: str | None) -> Any:
    workspace, name = current().workspace, state["name"]
    points = view.points(workspace, name)
    value_name = str(workspace.manifest("atlas", name).summary.get("value_name") or "value")
    clusters = view.clusters(workspace, name)
    figure = atlas_map(points, clusters, theme(scheme), colour_by=colour, value_name=value_name)
    matches, _ = view.search(workspace, name, text or "")
    for i, update in enumerate(highlight(points, matches, chosen, theme(scheme)), start=1):
        figure.update_traces(update, selector=i)
    figure.update_traces(marker={"opacity": _DIMMED if text else _FULL}, selector=0)
    figure.update_layout(uirevision=name)
    return figure


def _search(text: str | None, chosen: int | None, shown: list[Any], state: dict[str, Any], scheme: str | None) -> Any:
    if shown == [text or "", chosen]:  # what the figure was drawn with: there may be nothing to patch yet
        return no_update, no_update, no_update
    workspace, name = current().workspace, state["name"]
    matches, total = view.search(workspace, name, text or "")
    patch = Patch()
    patch["data"][0]["marker"]["opacity"] = _DIMMED if text else _FULL
    updates = highlight(view.points(workspace, name), matches, chosen, theme(scheme))
    for i, update in enumerate(updates, start=1):
        for key, value in update.items():
            patch["data"][i][key] = value
    return patch, _count(matches, total, text), [text or "", chosen]


def _count(matches: list[int], total: int, text: str | None) -> str:
    shown = f" (first {len(matches):,} shown)" if total > len(matches) else ""
    return f"{total:,} found{shown}" if text else ""


def _click(click: dict[str, Any] | None, text: str | None, state: dict[str, Any]) -> Any:
    if not click or not click.get("points"):
        return no_update, no_update
    hit = click["points"][0]
    index = int(hit.get("pointIndex", hit.get("pointNumber")))
    if hit.get("curveNumber") == 1:
        index = view.search(current().workspace, state["name"], text or "")[0][index]
    if state["features"]:
        item = view.point(current().workspace, state["name"], index)["item"]
        return feature_href(state["features"], item), no_update
    return no_update, index


def _chosen(index: int | None, state: dict[str, Any]) -> Any:
    if index is None:
        return None
    found = view.point(current().workspace, state["name"], index)
    return point_panel(state["features"], found)
