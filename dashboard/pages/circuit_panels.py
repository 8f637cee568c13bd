"""The parts of the circuit page: slider, graph, groups, curve, table, and what stands in them."""

import math
from typing import Any

import dash_ag_grid as dag
import dash_cytoscape as cyto
import dash_mantine_components as dmc
from dash import html

from dashboard.components.attributes import attrs
from dashboard.components.frame import graph, panel
from dashboard.figures.circuit import group_colour
from dashboard.figures.circuit_style import role_colours, via_colours
from dashboard.figures.theme import Theme, visible
from dashboard.views import circuit as view
from dashboard.views import circuit_groups as grouping

_STEPS = 100
"""the slider runs over the logarithm of the number of edges"""
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
                id="circuit-paths", label="only whole paths", checked=paths, size="xs",
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
            **attrs({"aria-label": "Graph of the circuit; the table below holds the same edges"}),
        ),
        html.Div(id="circuit-legend", className="wb-legend"),
        _group_controls(),
        actions=zoom,
        note="input below, output above; a click shows the evidence, Shift selects several",
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
        note="1 is the whole model; grey: random circuits of that size",
        actions=[html.Span(id="circuit-faithful", className="wb-quiet", **attrs({"aria-live": "polite"}))],
        className="" if present else "wb-hidden",
    )


def table_panel() -> html.Section:
    signed = {"function": "params.value == null ? '' : d3.format('+.4~g')(params.value)"}
    number = {"valueFormatter": signed, "type": "rightAligned"}
    columns = [
        {"field": "source", "headerName": "from", "flex": 1, "minWidth": 80},
        {"field": "target", "headerName": "to", "flex": 1, "minWidth": 80},
        {"field": "via", "headerName": "through", "width": 92},
        {"field": "position", "headerName": "position", "width": 92, "hide": True},
        {"field": "score", "headerName": "score", "width": 96, **number},
        {"field": "exact", "headerName": "exact", "width": 96, **number},
        {"field": "interval", "headerName": "95 % interval", "flex": 1.3, "minWidth": 120, "sortable": False},
        {"field": "member", "headerName": "in circuit", "width": 92},
    ]
    grid = dag.AgGrid(
        id="circuit-grid", columnDefs=columns, getRowId="params.data.id", className="wb-grid", columnSize=None,
        dashGridOptions={"rowHeight": 30, "headerHeight": 32, "animateRows": False},
    )  # fmt: skip
    return panel("Edges", grid, note="the same edges as a table, strongest first", className="wb-circuit-table")


def to_position(n: int, limit: int) -> int:
    """The slider's position, 0 to 100, for `n` of at most `limit` edges."""
    return round(_STEPS * math.log(max(1, n)) / math.log(limit)) if limit > 1 else _STEPS


def to_number(position: float, limit: int) -> int:
    """The number of edges at a position of the slider."""
    return max(1, min(limit, round(limit ** (position / _STEPS))))


def table_row(row: view.Row) -> dict[str, Any]:
    known = row["low"] is not None and row["high"] is not None
    return {
        **{k: row[k] for k in ("id", "source", "target", "position", "exact")},
        **{"via": VIA_WORDS[row["via"]] if row["via"] else "", "score": row["score"]},
        **{"interval": f"{row['low']:.4g} to {row['high']:.4g}".replace("-", "−") if known else ""},
        "member": "yes" if row["member"] else "",
    }


def legend(rows: list[view.Row], roles: list[str], colours: Theme) -> list[Any]:
    vias = {row["via"] or "other" for row in rows}
    lines = [
        html.Span([html.I(className="wb-line", style={"background": colour}), _via_words(via)])
        for via, colour in via_colours(colours).items()
        if via in vias
    ]
    if any((row["score"] or 0.0) < 0 for row in rows):
        lines.append(html.Span([html.I(className="wb-line wb-line-dashed"), "negative score"]))
    if any(row["position"] is not None for row in rows):
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
