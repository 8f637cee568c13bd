"""*Features*: the list of all features at the left, one feature at the right.

One feature is shown by its statistics, the tokens that it promotes and suppresses, its nearest neighbours, the text
on which it fires, and its labels. Each label has its source and its scores on held-out text. Moving from feature to
feature changes only the right side.
"""

import secrets
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, NoUpdate, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from dashboard.components.evidence import percent
from dashboard.components.frame import (
    Part,
    attempt,
    attrs,
    folded,
    loading,
    note_controls,
    notice,
    page,
    panel,
    quiet_link,
    still,
    verdict,
)
from dashboard.components.pages import (
    Page,
    address_sink,
    artefact_menu,
    compare_href,
    directions_href,
    feature_href,
    first_step,
    register_address,
    run_button,
    whole_number,
)
from dashboard.data import features as view
from dashboard.data.meaning import said_by
from dashboard.feature import _examples, _prove, export, sections
from dashboard.feature.sections import downloads_panel, uses_panel
from dashboard.sources import PageSources, current
from interp.workspace import Workspace
from saes.explain.endpoint import named_endpoint
from saes.features.proof import newest_proof
from saes.features.schema import Features
from saes.training.config import DENSE


def detail(
    workspace: Workspace, name: str, index: int, scheme: str | None, reading: dict[str, str] | None = None
) -> html.Div:
    """Return the right side of the page; `reading` sets the switches of the examples.

    Raises `UsageError` when there is no such feature.
    """
    feature = view.one(workspace, name, index)
    features, row = feature
    named = view.names(workspace, name)
    near = view.labels(workspace, name, row.neighbours)
    near = {neighbour: view.named(neighbour, label, named) for neighbour, label in near.items()}
    explained = view.explanations(workspace, features, index)
    compare = quiet_link("Compare with…", compare_href(f"{name}:{index}"))
    chat = None if features.neurons else quiet_link("Chat along it", directions_href("", feature=f"{name}:{index}"))
    proof = newest_proof(workspace, name, index)
    badge = attempt(lambda: _prove.badge(workspace, proof)) if row.n_fired else None
    ask = ask_for(features, [index], f"{name} {index}") if row.n_fired else None
    controls = html.Div(
        [note_controls(f"features/{name}#{index}", largest=row.max_activation), badge, compare, chat, ask],
        className="wb-controls",
    )
    lens = said_by(workspace, features, index)
    related = view.relations(features, index)
    says = sections.says_sentence(row, related, lens)
    parts: list[Part] = [
        html.Div([sections.heading(row, explained, named.get(index, "")), controls], className="wb-feature-top"),
        verdict(says, html.P(sections.LENS_METHOD)) if says else None,
    ]
    if row.n_fired == 0:
        parts.append(
            notice(
                html.Strong("A dead feature. "),
                "It fired on no token of this recording, so it has no examples and no label.",
                tone="warning",
            )
        )
    elif row.density > DENSE:
        parts.append(
            notice(
                html.Strong("A dense feature. "),
                f"It is active on {percent(row.density)} of all tokens.",
                tone="warning",
            )
        )
    if row.n_fired:
        prove = _prove.prove_panel(workspace, feature, proof, scheme)
        beside = html.Div([prove, _examples.histogram_panel(feature)])  # examples of another length do not move it
        parts.append(
            html.Div([_examples.examples_panel(feature, reading), beside], className="wb-two wb-even wb-evidence")
        )
    parts.append(html.Div(sections.effects(row, related, lens), className="wb-two wb-even"))
    parts.append(sections.numbers(feature))
    if explained:
        parts.append(sections.labels_panel(row, explained))
    around = [sections.neighbours(workspace, feature, near), uses_panel(workspace, features, index)]
    parts.append(html.Div(around, className="wb-two wb-even"))
    more = sections.related_panels(workspace, name, related, named)
    parts.append(folded("Logits, neurons and co-active features", more))
    parts.append(downloads_panel(name, index))
    return html.Div(parts)


_LOG_LOW = -6
"""Base-10 logarithm of the lowest density on the slider; its left end includes dead features."""
_MARKS = ((-6, "dead"), (-4, "0.01%"), (-2, "1%"), (0, "all"))
_FILTERS = {"label": "agTextColumnFilter", "density": "agNumberColumnFilter"}


def layout(
    context: PageSources, features: str | None = None, index: str | None = None, q: str = "", d: str = "", **_: object
) -> html.Div:
    """`/feature/<features>/<index>?q=<label text>&d=<log10 density range>`."""
    name = view.choose(context.workspace, features)
    at = whole_number(index)
    if at is None:
        at = view.most_telling(context.workspace, name)
    view.one(context.workspace, name, at)  # an unknown number fails here, with its message
    low, high = _range(d)
    names = [(choice["label"], _href(choice["value"])) for choice in view.choices(context.workspace)]
    controls = [
        artefact_menu("Dictionary", names, _href(name), width=300),
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
        dcc.Store(id="feature-reading", data=_examples.READING),
        address_sink("feature"),
        html.Div(
            [
                _list_panel(context.workspace, name, q, low, high),
                html.Div(loading(html.Div(id="feature-detail")), className="wb-detail"),
            ],
            className="wb-split",
        ),
        controls=controls,
        lead=view.why_chosen(context.workspace) if features is None else None,
    )


def register(app: Dash) -> None:
    """Add the callbacks: moving from feature to feature, the list, and the address."""
    app.callback(
        Output("feature-state", "data"),
        Input("feature-grid", "cellClicked"),
        Input("feature-previous", "n_clicks"),
        Input("feature-next", "n_clicks"),
        Input("feature-random", "n_clicks"),
        Input("feature-jump", "n_submit"),
        State("feature-jump", "value"),
        State("feature-state", "data"),
        State("feature-grid", "getRowsRequest"),
        prevent_initial_call=True,
    )(_move)
    app.callback(
        Output("feature-detail", "children"), Input("feature-state", "data"), State("scheme", "data"),
        State("feature-reading", "data"),
    )(show_feature)  # fmt: skip
    app.callback(
        Output("feature-grid", "getRowsResponse"),
        Input("feature-grid", "getRowsRequest"),
        State("feature-state", "data"),
    )(_rows)
    _prove.register(app)
    _examples.register(app)
    export.register(app)
    shown = (Input("feature-state", "data"), Input("feature-search", "value"), Input("feature-density", "value"))
    register_address(app, "feature", *shown)
    app.clientside_callback(
        ClientsideFunction("workbench", "filterFeatures"),
        Output("feature-grid", "id"),
        Input("feature-search", "value"),
        Input("feature-density", "value"),
    )


def _list_panel(workspace: Workspace, name: str, text: str, low: float, high: float) -> html.Section:
    columns: list[dict[str, Any]] = [
        {"field": "feature", "headerName": "#", "width": 60, "type": "rightAligned"},
        {"field": "label", "headerName": "label", "flex": 1, "minWidth": 120, "tooltipField": "label"},
        {
            "field": "label_score",
            "headerName": "score",
            "headerTooltip": "accuracy of the label on held-out firings: 0.5 is chance, 1 is perfect; empty if no "
            "candidate scored above other features' labels",
            "width": 68,
            "type": "rightAligned",
            "valueFormatter": {"function": "params.value == null ? '' : d3.format('.2f')(params.value)"},
            "sortingOrder": ["desc", "asc"],
        },
        {
            "field": "density",
            "headerName": "density",
            "headerTooltip": "fraction of tokens on which a feature is active",
            "width": 80,
            "type": "rightAligned",
            "valueFormatter": {"function": "params.value == null ? '' : d3.format('.2%')(params.value)"},
            "sortingOrder": ["desc", "asc"],
        },
    ]
    for column in columns:
        column |= {"filter": _FILTERS.get(column["field"], False), "sortable": True, "suppressHeaderFilterButton": True}
    marks: list[Any] = [{"value": exponent, "label": label} for exponent, label in _MARKS]
    return panel(
        "All features",
        dmc.TextInput(
            id="feature-search", value=text, placeholder="search labels and names   f", size="xs", debounce=250,
            className="wb-search", **attrs({"aria-label": "Search labels and own names"}),
        ),
        ask_for_list(workspace, name),
        html.Div(
            [html.Span("density", className="wb-quiet", title="fraction of tokens on which a feature is active"),
             dmc.RangeSlider(id="feature-density", value=[low, high], min=_LOG_LOW, max=0, step=0.25, minRange=0.25,
                             marks=marks, label=None, size="xs", flex=1, thumbFromLabel="Lowest density, log10",
                             thumbToLabel="Highest density, log10")],
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


def _href(name: str) -> str:
    return f"/feature/{quote(name)}"


def _range(text: str) -> tuple[float, float]:
    """`"-4,-2"` -> `(-4.0, -2.0)`; anything else is the whole range."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        return _LOG_LOW, 0.0
    return (low, high) if _LOG_LOW <= low < high <= 0 else (_LOG_LOW, 0.0)


def _move(
    cell: dict[str, Any] | None, back: int, forth: int, random: int, submit: int, jump: Any, state: view.FeatureState,
    listed: dict[str, Any] | None,
) -> dict[str, Any] | NoUpdate:  # fmt: skip
    name, index = state["features"], state["index"]
    match ctx.triggered_id:
        case "feature-grid":
            index = whole_number((cell or {}).get("rowId"), index)
        case "feature-previous":
            index = _step(name, listed, index, -1)
        case "feature-next":
            index = _step(name, listed, index, 1)
        case "feature-random":
            index = view.random_live(current().workspace, name, seed=secrets.randbits(30))
        case "feature-jump":
            index = int(whole_number(jump, index) or 0)
            view.one(current().workspace, name, index)
    return no_update if index == state["index"] else {"features": name, "index": index}


def _step(name: str, listed: dict[str, Any] | None, index: int, by: int) -> int:
    """Return the feature `by` rows further on in the list as last requested."""
    workspace = current().workspace
    return view.step(workspace, name, _query(listed or {}, view.names(workspace, name)), index, by)


def show_feature(state: view.FeatureState, scheme: str | None, reading: dict[str, str] | None) -> Component:
    """Return everything about the chosen feature."""
    return attempt(lambda: still(detail(current().workspace, state["features"], state["index"], scheme, reading)))


def _rows(request: dict[str, Any] | None, state: view.FeatureState) -> dict[str, object] | NoUpdate:
    if not request:
        return no_update
    start, end = int(request["startRow"]), int(request["endRow"])
    workspace, name = current().workspace, state["features"]
    listing = view.listing(workspace, name, _query(request, view.names(workspace, name)), start, end)
    return {"rowData": listing.rows, "rowCount": listing.total}


def _query(request: dict[str, Any], names: dict[int, str]) -> view.ListQuery:
    """Return the filter and order that the grid last requested; `names` are the user's own."""
    filters: dict[str, dict[str, Any]] = request.get("filterModel") or {}
    density = filters.get("density") or {}
    sort = (request.get("sortModel") or [{"colId": "", "sort": "asc"}])[0]
    return view.ListQuery(
        text=str((filters.get("label") or {}).get("filter", "")),
        density_low=float(density.get("filter", 0.0)),
        density_high=float(density.get("filterTo", 1.0)),
        sort=sort["colId"],
        descending=sort["sort"] == "desc",
        names=names,
    )


AT_ONCE = 25
"""Features of a list that one click asks about."""


def ask_for(features: Features, indices: Sequence[int], id: str) -> html.Div | None:
    """Return the button that asks for labels of some features; None where no endpoint is chosen."""
    named = named_endpoint()
    if named is None or not indices:
        return None
    where, model = named
    what = "a label" if len(indices) == 1 else f"labels of {len(indices)} features without one"
    options = {"source": features.name, "features": list(indices), "yes": True, "overwrite": True}
    shown = feature_href(features.name, indices[0])
    button = run_button("explain", options, id=id, text=f"Ask {model} for {what}", then=shown)
    return html.Div(button, title=f"sends excerpts of the recorded text to {where}")


def ask_for_list(workspace: Workspace, name: str) -> html.Div | None:
    """Return the button for the most used features that have no label."""
    if named_endpoint() is None:
        return None
    return ask_for(workspace.open(Features, name), view.unlabelled(workspace, name, AT_ONCE), f"{name} list")


PAGE = Page(
    title="Features",
    path="/feature",
    templates=("/feature/<features>/<index>", "/feature/<features>"),
    group="features",
    order=15,
    about="What each latent fires on and makes the model say",
    layout=layout,
    register=register,
    shows="Every latent of a sparse autoencoder (or every neuron): the text on which it fires, the next tokens that "
    "it promotes, its nearest neighbours, and its label.",
    command="workbench demo --no-serve",
    fill=first_step,
)
