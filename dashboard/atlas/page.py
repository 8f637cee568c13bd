"""*Atlas*: a map of many vectors to pan, zoom, search, colour and select on.

Right of the map: the chosen point with its nearest neighbours in the full space, the quality of the map, its regions.
Under the map: a table of the points that are selected, found or all, sorted by any column.
"""

from typing import Any

import dash_ag_grid as dag
from dash import ClientsideFunction, Dash, Input, NoUpdate, Output, State, dcc, html, no_update

from dashboard.components.evidence import number
from dashboard.components.frame import attempt, attrs, page, panel, quiet_link, stat, verdict
from dashboard.components.pages import (
    Page,
    address_sink,
    artefact_menu,
    feature_href,
    page_of,
    register_address,
    whole_number,
)
from dashboard.components.tokens import token_text
from dashboard.figures.theme import visible
from dashboard.maps import data as view
from dashboard.maps.columns import columns, default_colour, region_text
from dashboard.maps.data import PointFilter
from dashboard.maps.view import atlas_view
from dashboard.sources import PageSources, current
from interp.atlas.vector_map import VectorMap
from interp.workspace import Workspace


def judged(made: VectorMap) -> html.Div:
    """Return how far a map can be trusted; behind it, every measure of how well it preserves the full space."""
    lines: list[str] = []
    if (q := made.quality) is not None:
        of = "each point" if q.sample == made.n_points else f"{q.sample:,} random points"
        lines += [
            f"Recall: of the 15 nearest neighbours in the full space, {q.recall:.0%} are among the 15 nearest here.",
            f"Trustworthiness {q.trustworthiness:.2f}: neighbours on the map are neighbours in full space (1: all, "
            "0.5: chance).",
            f"Continuity {q.continuity:.2f}: neighbours in the full space are neighbours on the map (same scale).",
            f"In {q.triplets:.0%} of random triplets, the map preserves which point is nearer a third (chance: 50%).",
            f"Measured on {of} against all others.",
        ]
    lines.append("Read regions, not distances; colour by “neighbours preserved” to see where the map is reliable.")
    if made.search == "approximate":
        lines.append(f"An approximate search found {made.search_recall:.0%} of the exact nearest neighbours.")
    numbers = [
        stat("points", f"{made.n_points:,}"),
        stat("dimensions", f"{made.d:,}", "of the full space"),
        stat("regions", " · ".join(f"{n:,}" for n in made.regions_per_level or (0,)), "on each zoom level"),
    ]
    notes = [html.P(visible(note, 300), className="wb-note", dir="auto") for note in made.notes]
    shown = [html.Div(numbers, className="wb-stats"), *[html.P(line) for line in lines], *notes]
    return verdict(f"{made.headline()}.", *shown)


def regions_panel(made: VectorMap, regions: list[dict[str, Any]]) -> html.Section:
    """Return the largest regions by size; a click on one selects its points."""
    rows = [
        html.Li(
            [
                html.Button(
                    visible(region_text(region), 60) or "no name",
                    **attrs({"data-atlas-region": region["region"], "dir": "auto"}),
                    className="wb-link",
                    type="button",
                ),
                html.Span(f"{region['size']:,}", className="wb-value"),
            ]
        )
        for region in regions
    ]
    body = html.Ol(rows, className="wb-lines") if rows else html.P("No dense region was found.", className="wb-none")
    null = f" With shuffled labels {number(made.naming.when_shuffled)} regions have a name." if made.naming else ""
    return panel("Regions", body, note=made.naming_sentence() or None,
                 more="Dense parts of the map, by number of points; click one to select it. A name is a term more "
                 "over-represented than any on 95 % of maps with shuffled labels; “like” gives examples where there is "
                 f"none.{null}")  # fmt: skip


def point_panel(features: str | None, point: dict[str, Any]) -> html.Section:
    """Return the panel of the chosen point, with its nearest neighbours in the full space."""
    lines = [
        html.Li(
            [
                html.Button(
                    token_text(label, 40),
                    **attrs({"data-atlas-point": n}),
                    className="wb-link",
                    type="button",
                ),
                html.Span(f"{cosine:.2f}", className="wb-value"),
            ]
        )
        for n, label, _, cosine in point["neighbours"]
    ]
    link = quiet_link("Open the feature", feature_href(features, point["item"])) if features else None
    return panel(
        token_text(point["label"] or "no label", 60),
        html.P(
            f"{visible(point['region'], 60) or 'between regions'} · number {point['item']:,}",
            className="wb-note",
            dir="auto",
        ),
        html.P(visible(point["context"], 400), className="wb-tokens", dir="auto") if point["context"] else None,
        link,
        html.H3("Nearest neighbours in the full space"),
        html.Ol(lines, className="wb-lines"),
        className="wb-chosen",
    )


_NUMBER = {"function": "params.value == null ? '' : d3.format('.3~g')(params.value)"}


def table_panel(workspace: Workspace, name: str) -> html.Section:
    """Return the table under the map, filled in blocks as the visitor scrolls."""
    shown: list[dict[str, Any]] = [
        {"field": "point", "headerName": "#", "width": 90, "type": "rightAligned"},
        {"field": "label", "headerName": "label", "flex": 2, "minWidth": 140, "tooltipField": "label"},
        {
            "field": "region",
            "headerName": "region",
            "flex": 2,
            "minWidth": 120,
            "sortable": False,
            "tooltipField": "region",
        },
    ]
    for column in columns(workspace, name):
        if column.kind == "number":
            shown.append(
                {
                    "field": column.name,
                    "headerName": column.title,
                    "width": 172,
                    "type": "rightAligned",
                    "valueFormatter": _NUMBER,
                }
            )
        elif column.kind == "category":
            shown.append({"field": column.name, "headerName": column.title, "flex": 1, "minWidth": 110})
    for column in shown:
        column |= {"suppressHeaderFilterButton": True, "sortable": column.get("sortable", True)}
    grid = dag.AgGrid(
        id="atlas-grid",
        columnDefs=shown,
        rowModelType="infinite",
        getRowId="params.data.id",
        className="wb-grid wb-atlas-grid",
        columnSize=None,
        dashGridOptions={
            "cacheBlockSize": 100, "maxBlocksInCache": 20, "rowHeight": 30, "headerHeight": 32, "tooltipShowDelay": 400,
            "animateRows": False,
            "rowSelection": {"mode": "singleRow", "checkboxes": False, "enableClickSelection": True},
        },
    )  # fmt: skip
    title = html.Span(id="atlas-table-title", **attrs({"aria-live": "polite"}))
    how = (
        "Select points with a lasso (Shift-drag on the map) or a rectangle (Alt-drag). Click a row to choose its point."
    )
    return panel(title, grid, more=how, className="wb-atlas-table")


def fill(
    request: dict[str, Any] | None, narrowing: dict[str, str] | None, state: dict[str, str]
) -> tuple[dict[str, object] | NoUpdate, str | NoUpdate]:
    """Return a block of rows of the selected points, and the title of the table with their number."""
    if not request:
        return no_update, no_update
    sort = (request.get("sortModel") or [{"colId": "rank", "sort": "asc"}])[0]
    choice = PointFilter(**(narrowing or {}))
    rows, total = view.rows(
        current().workspace, state["name"], choice, sort=sort["colId"], descending=sort["sort"] == "desc",
        start=int(request["startRow"]), end=int(request["endRow"]),
    )  # fmt: skip
    lines = [
        row | {"id": str(row["point"]), "label": visible(row["label"], 200), "region": visible(row["region"], 120)}
        for row in rows
    ]
    what = "All points" if choice == PointFilter() else "Chosen points"
    return {"rowData": lines, "rowCount": total}, f"{what}: {total:,}"


NARROWING = ("search", "filter", "selection")


def layout(context: PageSources, name: str | None = None, **address: Any) -> html.Div:
    """`/atlas/<name>?colour=&q=&filter=&selection=&point=&at=x,y,span&overlays=` (`dashboard.maps.view`)."""
    workspace, made = context.workspace, view.choose(context.workspace, name)
    name = made.name
    query = {key: str(address.get(key) or "") for key in ("colour", "q", "filter", "selection", "at", "overlays")}
    view.check_colour(workspace, name, query["colour"])
    view.chosen(
        workspace, name, PointFilter(query["q"], query["selection"], query["filter"])
    )  # says here what is malformed
    chosen = whole_number(address.get("point"))
    point = None if chosen is None else view.point(workspace, name, chosen)
    colour = default_colour(columns(workspace, name), made.item_kind)
    shown = atlas_view(
        workspace,
        name,
        colour=query["colour"] or colour,
        search=query["q"],
        filter=query["filter"],
        selection=query["selection"],
        point=chosen,
        at=query["at"],
        overlays=_overlays(query["overlays"]),
    )
    side = [
        attempt(lambda: judged(made)),
        html.Div(point_panel(made.features, point) if point else None, id="atlas-chosen"),
        regions_panel(made, view.largest_regions(workspace, name)),
    ]
    maps = sorted(workspace.values(VectorMap), key=lambda atlas: atlas.trust, reverse=True)
    names = [(f"{atlas.name} · {atlas.settings.source}", page_of(atlas.href)) for atlas in maps]
    return page(
        "Atlas",
        dcc.Store(id="atlas-state", data={"name": name, "features": made.features, "colour": colour}),
        dcc.Store(id="atlas-narrowing"),
        address_sink("atlas"),
        html.Div(
            [html.Div(shown.component("atlas-map"), className="wb-map"), html.Aside(side, className="wb-side")],
            className="wb-atlas",
        ),
        table_panel(workspace, name),
        controls=artefact_menu("Atlas", names, page_of(made.href), width=300, key=made.key),
    )


def register(app: Dash) -> None:
    """Add the callbacks: the chosen point, the table, and the address."""
    app.callback(
        Output("atlas-chosen", "children"),
        Output("atlas-map", "neighbours"),
        Input("atlas-map", "point"),
        State("atlas-state", "data"),
    )(show_point)
    app.callback(
        Output("nav", "href", allow_duplicate=True),
        Input("atlas-map", "opened"),
        State("atlas-state", "data"),
        prevent_initial_call=True,
    )(_open)
    app.callback(
        Output("atlas-grid", "getRowsResponse"),
        Output("atlas-table-title", "children"),
        Input("atlas-grid", "getRowsRequest"),
        State("atlas-narrowing", "data"),
        State("atlas-state", "data"),
    )(fill)
    _register_browser(app)


def _register_browser(app: Dash) -> None:
    shown = ("colour", "search", "filter", "selection", "point", "at", "overlays")
    register_address(app, "atlas", *_inputs(*shown), State("atlas-state", "data"), script="atlas")
    browser = [
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
    return [part for part in text.split(",") if part in ("labels", "grid")]


def show_point(index: int | None, state: dict[str, str]) -> tuple[html.Section | None, list[int]]:
    """Return the panel of a chosen point, and the numbers of its neighbours; nothing without one."""
    if index is None:
        return None, []
    point = view.point(current().workspace, state["name"], index)
    return point_panel(state["features"], point), [number for number, *_ in point["neighbours"]]


def _open(index: int | None, state: dict[str, str]) -> str | NoUpdate:
    if index is None or not state["features"]:
        return no_update
    return feature_href(state["features"], view.point(current().workspace, state["name"], index)["item"])


PAGE = Page(
    title="Atlas",
    path="/atlas",
    templates=("/atlas/<name>",),
    group="features",
    order=20,
    about="A map on which similar vectors lie together",
    layout=layout,
    register=register,
    shows="A map of thousands of vectors (tokens, features, activations, heads): similar ones lie together, dense "
    "regions are labelled, and a click shows the nearest neighbours in the full space.",
    command="workbench atlas embeddings:MODEL",
    fill=lambda _, model: ("atlas", {"source": f"embeddings:{model}"}),
)
