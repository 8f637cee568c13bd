"""*Circuit*: the graph of a circuit, pruned by a slider and grouped by hand, with the evidence for each edge.

The page has the graph with its slider and groups, the faithfulness curve, the panel of evidence (`side.py`), and a
table of the same edges.
"""

import json
import math
from typing import Any

import dash_ag_grid as dag
import dash_cytoscape as cyto
import dash_mantine_components as dmc
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update

from dashboard.answers import is_object
from dashboard.circuit.figure import LETTERED, Drawing, draw, group_colour, stylesheet
from dashboard.circuit.side import details, summary
from dashboard.components.frame import attrs, graph, page, panel
from dashboard.components.pages import (
    Context,
    Page,
    address_sink,
    artefact_key,
    artefact_menu,
    circuit_href,
    current,
    menu_choices,
    open_artefact,
    register_address,
    whole_number,
)
from dashboard.data import circuits as grouping
from dashboard.data import circuits as view
from dashboard.figures.circuits import faithfulness_at, faithfulness_curve, role_colours, via_colours
from dashboard.figures.theme import Theme, theme, visible
from interp.artifacts import CIRCUITS
from interp.circuits.found_circuit import CurvePoint, FoundCircuit, open_circuit

_STEPS = 100
"""Positions of the slider, which runs over the logarithm of the number of edges."""
VIA_WORDS = {"q": "query", "k": "key", "v": "value", "other": "MLP or logits"}


def graph_panel(scored: view.Scored, shown: int | None, paths: bool) -> html.Section:
    position = to_position(shown if shown is not None else min(scored.found, scored.limit), scored.limit)
    slider = dmc.Slider(
        id="circuit-slider", min=0, max=_STEPS, step=1, value=position, label=None, size="sm", flex=1, miw=140,
        className="wb-circuit-slider", thumbLabel="Number of edges",
    )  # fmt: skip
    thin = html.Div(
        [
            html.Span("Edges", className="wb-quiet"),
            slider,
            html.Span(id="circuit-count", className="wb-circuit-count", **attrs({"aria-live": "polite"})),
            dmc.NumberInput(
                id="circuit-score", placeholder="|score| ≥", size="xs", w=88, min=0, debounce=400, hideControls=True,
                decimalScale=6, **attrs({"aria-label": "Smallest score, by size"}),
            ),
            dmc.Button("As found", id="circuit-found", size="compact-xs", variant="default"),
            dmc.Switch(
                id="circuit-paths", label="only edges on a path from input to output", checked=paths, size="xs",
                className="" if scored.has_ends else "wb-hidden",
            ),
        ],
        className="wb-circuit-thin",
    )  # fmt: skip
    picture = cyto.Cytoscape(
        id="circuit-graph", elements=[], layout={"name": "preset", "fit": False}, responsive=False,
        boxSelectionEnabled=True, autoungrabify=True, userZoomingEnabled=False, minZoom=0.15, maxZoom=1.6,
        style={"width": "100%", "height": "100%"},
    )  # fmt: skip
    zoom = [
        html.Button(sign, id=f"circuit-zoom-{key}", className="wb-icon", type="button", title=title,
                    **attrs({"data-circuit-zoom": key, "aria-label": title}))
        for sign, key, title in (("+", "in", "Closer (+)"), ("−", "out", "Farther (-)"), ("⤢", "fit", "All of it (0)"))
    ]  # fmt: skip
    return panel(
        "Graph",
        thin,
        html.Div(
            [picture, html.P(id="circuit-empty", className="wb-circuit-empty")],
            id="circuit-canvas",
            className="wb-circuit-canvas",
            role="figure",
            **attrs({"aria-label": "Graph of the circuit; the table below lists the same edges"}),
        ),
        html.Div(id="circuit-legend", className="wb-legend"),
        _group_controls(),
        actions=zoom,
        more="Along an edge the upper node reads the output of the lower one; input at the bottom, output at the top. "
        "Click for the evidence; Shift-click selects several nodes.",
    )


def _group_controls() -> html.Div:
    proposals = [{"value": k, "label": words} for k, words in grouping.PROPOSALS.items()]
    return html.Div(
        [
            dmc.MultiSelect(id="circuit-members", data=[], value=[], placeholder="nodes to group", size="xs",
                            searchable=True, clearable=True, flex=1, miw=200,
                            **attrs({"aria-label": "Nodes to group"})),
            dmc.TextInput(id="circuit-group-name", placeholder="name", size="xs", w=130,
                          **attrs({"aria-label": "Name of the group"})),
            dmc.Button("Group", id="circuit-group", size="xs", variant="default"),
            dmc.Select(id="circuit-propose", data=proposals, placeholder="group automatically", size="xs", w=170,
                       clearable=True, **attrs({"aria-label": "Group automatically"})),
            html.Div(id="circuit-groups", className="wb-groups"),
        ],
        className="wb-controls wb-group-controls",
    )  # fmt: skip


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


def to_position(n: int, limit: int) -> int:
    """Return the position of the slider, 0 to 100, for `n` of at most `limit` edges."""
    return round(_STEPS * math.log(max(1, n)) / math.log(limit)) if limit > 1 else _STEPS


def to_number(position: float, limit: int) -> int:
    """Return the number of edges at a position of the slider."""
    return max(1, min(limit, round(limit ** (position / _STEPS))))


def table_row(row: view.EdgeRow) -> dict[str, Any]:
    """Return one row of the table."""
    interval = "" if row.low is None or row.high is None else f"{row.low:.3g} to {row.high:.3g}".replace("-", "−")
    return {
        **{name: getattr(row, name) for name in ("id", "source", "target", "position", "score", "exact")},
        "via": VIA_WORDS[row.via] if row.via else "",
        "interval": interval,
        "member": "yes" if row.member else "",
    }


def legend(rows: list[view.EdgeRow], roles: list[str], colours: Theme) -> list[Any]:
    vias = {row.via or "other" for row in rows}
    lines = [
        html.Span([html.I(className="wb-line", style={"background": colour}), _via_words(via)])
        for via, colour in via_colours(colours).items()
        if via in vias
    ]
    if any((row.score or 0.0) < 0 for row in rows):
        lines.append(html.Span([html.I(className="wb-line wb-line-dashed"), "negative score"]))
    if any(row.position is not None for row in rows):
        lines.append(html.Span([html.I(className="wb-line wb-line-dotted"), "one head, from position to position"]))
    boxes = [
        html.Span([html.I(className="wb-box", style={"borderColor": colour}), role.replace("_", " ")])
        for role, colour in role_colours(colours, roles).items()
    ]
    return lines + boxes


def _via_words(via: str) -> str:
    return "into an MLP or the logits" if via == "other" else f"{via}: {VIA_WORDS[via]}"


def chips(groups: tuple[grouping.Group, ...], colours: Theme) -> list[Any]:
    return [
        html.Span(
            [
                html.I(className="wb-box wb-box-full", style={"background": group_colour(i, colours)}),
                html.Span(visible(group.name, 32), dir="auto"),
                html.Span(f"{len(group.members)}", className="wb-quiet"),
                html.Button("unfold" if group.folded else "fold", id={"type": "circuit-fold", "index": i},
                            className="wb-link", type="button"),
                html.Button("×", id={"type": "circuit-ungroup", "index": i}, className="wb-link", type="button",
                            title="Ungroup", **attrs({"aria-label": f"Ungroup {visible(group.name, 32)}"})),
            ],
            className="wb-group",
        )
        for i, group in enumerate(groups)
    ]  # fmt: skip


def layout(
    context: Context, name: str | None = None, n: str = "", paths: str = "", at: str = "", groups: str = "", **_: Any
) -> html.Div:
    """`/circuit/<name or key>?n=<edges>&paths=1&at=<node or edge>&groups=<name:members;...>`.

    Without `n`, the circuit as it was found.
    """
    found = open_circuit(context.workspace, artefact_key(open_artefact(context.workspace, CIRCUITS, name)))
    key, scored = found.key, view.scored(found)
    parsed = grouping.parse_groups(groups)
    asked = whole_number(n)
    shown = None if asked is None else max(1, min(asked, scored.limit))
    if at and not at.startswith(grouping.PREFIX) and "|" not in at:
        view.check_chosen(at, scored, found)
    state = {"name": key, "limit": scored.limit, "found": scored.found}
    controls = [
        artefact_menu(
            "Circuit", menu_choices(context.workspace, CIRCUITS, circuit_href), circuit_href(key), width=220, key=key
        ),
        dmc.Button("JSON", id="circuit-json", size="xs", variant="default", **attrs({"aria-label": "Export as JSON"})),
        dmc.Button("PNG", id="circuit-png", size="xs", variant="default", **attrs({"aria-label": "Save as PNG"})),
    ]
    return page(
        "Circuit",
        dcc.Store(id="circuit-state", data=state),
        dcc.Store(
            id="circuit-view", data={"n": shown, "paths": paths == "1", "groups": grouping.format_groups(parsed)}
        ),
        dcc.Store(id="circuit-chosen", data=at or None),
        dcc.Download(id="circuit-file"),
        address_sink("circuit"),
        html.Div(
            [
                graph_panel(scored, shown, paths == "1"),
                html.Aside(
                    [curve_panel(found.curve is not None), html.Div(id="circuit-side")], className="wb-circuit-side"
                ),
                table_panel(found.unit),
            ],
            className="wb-circuit",
        ),
        controls=controls,
        lead=visible(found.headline(), 240),
    )


def register(app: Dash) -> None:
    """Add the callbacks: the view (slider, switch, groups), its drawing, the chosen edge, exports and the address."""
    app.callback(
        Output("circuit-view", "data"),
        Output("circuit-slider", "value"),
        Output("circuit-group-name", "value"),
        Input("circuit-slider", "value"),
        Input("circuit-score", "value"),
        Input("circuit-found", "n_clicks"),
        Input("circuit-paths", "checked"),
        Input("circuit-group", "n_clicks"),
        Input("circuit-propose", "value"),
        Input({"type": "circuit-fold", "index": ALL}, "n_clicks"),
        Input({"type": "circuit-ungroup", "index": ALL}, "n_clicks"),
        State("circuit-members", "value"),
        State("circuit-group-name", "value"),
        State("circuit-view", "data"),
        State("circuit-state", "data"),
        prevent_initial_call=True,
    )(_change)
    app.callback(
        Output("circuit-graph", "elements"),
        Output("circuit-grid", "rowData"),
        Output("circuit-count", "children"),
        Output("circuit-faithful", "children"),
        Output("circuit-groups", "children"),
        Output("circuit-members", "data"),
        Output("circuit-curve", "figure"),
        Output("circuit-legend", "children"),
        Output("circuit-empty", "children"),
        Output("circuit-canvas", "style"),
        Output("circuit-grid", "style"),
        Input("circuit-view", "data"),
        State("circuit-state", "data"),
        State("scheme", "data"),
    )(draw_circuit)
    app.callback(
        Output("circuit-graph", "stylesheet"),
        Output("circuit-side", "children"),
        Input("circuit-chosen", "data"),
        Input("circuit-view", "data"),
        State("circuit-state", "data"),
        State("scheme", "data"),
    )(show_evidence)
    app.callback(
        Output("circuit-file", "data"),
        Input("circuit-json", "n_clicks"),
        State("circuit-view", "data"),
        State("circuit-state", "data"),
        prevent_initial_call=True,
    )(export_circuit)
    _register_browser(app)


def _register_browser(app: Dash) -> None:
    """Add the callbacks that run in the browser."""
    app.clientside_callback(
        ClientsideFunction("circuit", "choose"),
        Output("circuit-chosen", "data"),
        Output("circuit-graph", "tapNodeData"),
        Output("circuit-graph", "tapEdgeData"),
        Input("circuit-graph", "tapNodeData"),
        Input("circuit-graph", "tapEdgeData"),
        Input("circuit-grid", "cellClicked"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("circuit", "selected"),
        Output("circuit-members", "value"),
        Input("circuit-graph", "selectedNodeData"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("circuit", "fit"),
        Output("circuit-canvas", "title"),
        Input("circuit-graph", "elements"),
    )
    app.clientside_callback(
        ClientsideFunction("circuit", "picture"),
        Output("circuit-graph", "generateImage"),
        Input("circuit-png", "n_clicks"),
        State("circuit-state", "data"),
        prevent_initial_call=True,
    )
    given = (Input("circuit-view", "data"), Input("circuit-chosen", "data"), State("circuit-state", "data"))
    register_address(app, "circuit", *given, script="circuit")


def _change(
    position: float, score: float | str | None, _found: Any, paths: bool, _group: Any, proposal: str | None,
    _fold: Any, _ungroup: Any, members: list[str] | None, name: str | None, shown: dict[str, Any],
    state: dict[str, Any],
) -> Any:  # fmt: skip
    """Return the next view, the position of the slider and the name of the next group."""
    trigger, groups = ctx.triggered_id, grouping.parse_groups(shown["groups"])
    slider, title = no_update, no_update
    if not ctx.triggered or (isinstance(trigger, dict) and not ctx.triggered[0]["value"]):
        return no_update, slider, title  # a button that has just been drawn
    if trigger == "circuit-slider":
        before = state["found"] if shown["n"] is None else shown["n"]
        if position == to_position(min(before, state["limit"]), state["limit"]):
            return no_update, slider, title
        shown = shown | {"n": to_number(position, state["limit"])}
    elif trigger == "circuit-score":
        if not isinstance(score, int | float):
            return no_update, slider, title
        number = max(1, view.scored(_open(state)).at_least(score))
        shown, slider = shown | {"n": number}, to_position(number, state["limit"])
    elif trigger == "circuit-found":
        shown, slider = shown | {"n": None}, to_position(min(state["found"], state["limit"]), state["limit"])
    elif trigger == "circuit-paths":
        shown = shown | {"paths": bool(paths)}
    elif trigger == "circuit-group":
        groups, title = grouping.add(groups, name or f"group {len(groups) + 1}", members or []), ""
    elif trigger == "circuit-propose":
        found = _open(state)
        groups = grouping.propose(proposal, found.circuit, _rows(found, shown)) if proposal else ()
    elif is_object(trigger) and trigger["type"] == "circuit-fold":
        groups = grouping.toggle(groups, trigger["index"])
    elif is_object(trigger):
        groups = tuple(g for i, g in enumerate(groups) if i != trigger["index"])
    return shown | {"groups": grouping.format_groups(groups)}, slider, title


def _open(state: dict[str, Any]) -> FoundCircuit:
    return open_circuit(current().workspace, state["name"])


def _rows(found: FoundCircuit, shown: dict[str, Any]) -> list[view.EdgeRow]:
    """Return the edges of an export: all of a circuit as it was found, also beyond `MAX_EDGES`."""
    return view.scored(found).strongest(shown["n"], paths=shown["paths"], limit=None)


def draw_circuit(shown: dict[str, Any], state: dict[str, Any], scheme: str | None) -> Any:
    """Return the drawing of a view with its table, counts, groups, curve and legend, in the order of the outputs."""
    found, colours = _open(state), theme(scheme)
    scored = view.scored(found)
    rows = scored.strongest(shown["n"], paths=shown["paths"])
    groups = grouping.parse_groups(shown["groups"])
    nodes = found.circuit.nodes
    alone = tuple(view.node_id(n.name, n.position) for n in nodes) if _whole(shown) else ()
    roles = {n.name: n.role for n in nodes if n.role}
    drawing = draw(rows, colours, roles=roles, groups=groups, alone=alone, tokens=view.tokens(found))
    curve = [] if found.curve is None else found.curve.rows()
    size = shown["n"] or found.size
    figure = faithfulness_curve(curve, scored.total, colours, current=size, height=200)
    lines = legend(rows, [roles[n] for n in _bare(drawing) if n in roles], colours)
    return (
        drawing.elements,
        [table_row(row) for row in rows],
        _count(rows, scored),
        _faithful(curve, size, scored.total),
        chips(groups, colours),
        drawing.nodes,
        figure,
        lines,
        "" if drawing.elements else _nothing(scored),
        {"height": f"{max(420, min(1200, 100 + 56 * drawing.n_rows))}px"},
        {"height": f"{min(360, 36 + 30 * max(1, len(rows)))}px"},
    )


def show_evidence(chosen: str | None, shown: dict[str, Any], state: dict[str, Any], scheme: str | None) -> Any:
    """Return the style of the graph with one node or edge chosen, and the evidence for it; of none, a summary."""
    found, colours = _open(state), theme(scheme)
    scored = view.scored(found)
    rows = scored.strongest(shown["n"], paths=shown["paths"])
    roles = [n.role for n in found.circuit.nodes if n.role]
    rules = stylesheet(colours, roles, chosen, many=len(rows) > 4 * LETTERED)
    if not chosen:
        return rules, summary(found, colours)
    here = rows if any(row.id == chosen for row in rows) else scored.rows if "-" in chosen else rows
    groups = grouping.parse_groups(shown["groups"])
    return rules, details(current().workspace, found, here, chosen, groups, colours)


def export_circuit(clicks: int | None, shown: dict[str, Any], state: dict[str, Any]) -> Any:
    """Return the circuit as shown, with its groups, as a file that `Circuit.load` reads."""
    if not clicks:
        return no_update
    found = _open(state)
    rows = _rows(found, shown)
    text = json.dumps(view.export(found, rows, shown, whole=_whole(shown)), indent=1, ensure_ascii=False)
    size = "" if shown["n"] is None else f"-{len(rows)}-edges"
    return {"content": text, "filename": f"{state['name'].rpartition('/')[2]}{size}.json", "type": "application/json"}


def _whole(shown: dict[str, Any]) -> bool:
    return shown["n"] is None and not shown["paths"]


def _bare(drawing: Drawing) -> list[str]:
    return [i.partition("@")[0] for i in drawing.nodes]


def _nothing(scored: view.Scored) -> str:
    if scored.limit:
        return "No edge lies on a path from the embedding to the logits; move the slider to show more edges."
    return "The search found no circuit. The verdict names the condition that failed."


def _faithful(curve: list[CurvePoint], n: int, total: int) -> str:
    """Return the faithfulness at `n` of `total` edges, interpolated between the measured sizes."""
    at = faithfulness_at(curve, n / total) if total else None
    return "" if at is None else f"about {at:.2f} with the best {n:,}"


def _count(rows: list[view.EdgeRow], scored: view.Scored) -> str:
    weakest = min((row.size for row in rows if row.score is not None), default=None)
    words = f"{len(rows):,} of {scored.total:,}"
    if weakest is not None:
        words += f", |score| ≥ {weakest:.3g}"
    capped = scored.total > view.MAX_EDGES and len(rows) >= min(scored.limit, view.MAX_EDGES)
    return words + (f" (at most {view.MAX_EDGES:,} are drawn)" if capped else "")


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
