"""*Circuit*: the graph of a circuit, pruned by a slider and grouped by hand, with the evidence for each edge.

The browser draws the graph with its controls and groups (assets/graph/circuit.mjs, `drawing`). The page has the
faithfulness curve, the panel of evidence (`side`) and a table of the same edges; these follow what the graph shows.
"""

import json
from typing import Any

import dash_ag_grid as dag
import plotly.graph_objects as go
from dash import Dash, Input, Output, State, dcc, html

from dashboard.circuit import _data as view
from dashboard.circuit import _drawing
from dashboard.circuit._drawing import CircuitView, colours
from dashboard.components.evidence import claim_fold, evidence_table, number, records_table, words
from dashboard.components.frame import Children, Part, attrs, fold, graph, page, panel, quiet_link, stat, verdict
from dashboard.components.glossary import glossary
from dashboard.components.pages import Page, artefact_menu, circuit_href, heads_href, menu_choices, prompt_href
from dashboard.figures.circuit_tests import attack_strength
from dashboard.figures.circuits import agreement, faithfulness_at, faithfulness_curve, via_colours
from dashboard.figures.heads import attention_pattern
from dashboard.figures.theme import DARK, LIGHT, Theme, theme, visible
from dashboard.sources import PageSources, current, open_artefact
from interp.artifacts import as_json, kinds_of
from interp.circuits.circuit import KeyEvidence, NodeEffect
from interp.circuits.found_circuit import EdgeCircuit, FaithfulnessPoint, FoundCircuit, ScoredNode, open_circuit
from interp.circuits.head_scores import HeadScores
from interp.circuits.induction_circuit import InductionCircuit
from interp.circuits.worst_case import WorstCase, attacks_of, mean_and_worst
from interp.errors import program
from interp.names import parse_node
from interp.results import Record
from interp.workspace import Workspace

VIA_WORDS = {"q": "query", "k": "key", "v": "value", "other": "MLP or logits"}


def graph_panel(artefact: FoundCircuit) -> html.Section:
    """Return the empty panel that the browser fills with the graph, its controls and its groups."""
    roles = [node.role for node in artefact.circuit.nodes if node.role]
    source = {
        "data-graph-source": f"/circuit-data/{artefact.key}",
        "data-graph-name": artefact.key,
        "data-graph-page": "circuit",
        "data-colours": json.dumps({theme.name: colours(theme, roles) for theme in (LIGHT, DARK)}),
    }
    return panel(
        "Graph",
        html.Div(id="circuit-graph", className="wb-graph-view", **attrs(source)),
        more="Along an edge the upper node reads the output of the lower one; input at the bottom, output at the top. "
        "Click for the evidence.",
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


def layout(
    context: PageSources, name: str | None = None, n: str = "", paths: str = "", at: str = "", **_: object
) -> html.Div:
    """`/circuit/<name or key>?n=<edges>&paths=1&at=<nodes or edges>&collapse=1` (assets/graph/circuit.mjs).

    Without `n`, the circuit as it was found.
    """
    artefact = open_circuit(context.workspace, open_artefact(context.workspace, kinds_of("circuit"), name).key)
    edges = view.scored(artefact)
    for chosen in filter(None, at.split(",")):
        view.check_chosen(chosen, edges, artefact)
    choices = menu_choices(context.workspace, kinds_of("circuit"))
    attacks = attacks_of(context.workspace, artefact.key)
    return page(
        "Circuit",
        dcc.Store(id="circuit-name", data=artefact.key),
        dcc.Store(id="circuit-view", data={"n": edges.number(n), "paths": paths == "1"}),
        dcc.Store(id="circuit-chosen", data=at or None),
        verdict(
            f"{mean_and_worst(artefact, attacks) or artefact.headline()}.",
            html.Ul([html.Li(visible(line, 600)) for line in artefact.details()], className="wb-said"),
            html.P(f"Rule: {visible(artefact.verdict.rule, 4000)}"),
        ),
        _fewer_than_attend(context.workspace, artefact),
        _tested(artefact, attacks),
        claim_fold(artefact),
        html.Div(
            [
                graph_panel(artefact),
                html.Aside(
                    [curve_panel(artefact.curve is not None), html.Div(id="circuit-side", tabIndex=-1)],
                    className="wb-circuit-side",
                ),
                table_panel(artefact.unit),
            ],
            className="wb-circuit",
        ),
        html.Div(id="circuit-tests", style={"marginTop": "14px"}),
        controls=[artefact_menu("Circuit", choices, circuit_href(artefact.key), width=220, key=artefact.key)],
    )


def _fewer_than_attend(workspace: Workspace, artefact: FoundCircuit) -> html.P | None:
    """Return why an induction circuit has fewer heads than *Heads* counts; None for other circuits."""
    model = artefact.settings.model
    scores = next((scores for scores in workspace.values(HeadScores) if scores.settings.model == model), None)
    if scores is None or not isinstance(artefact, InductionCircuit):
        return None
    n = sum(row.above_null for row in scores.of_kind("induction"))
    link = quiet_link(f"{n} heads attend by induction", heads_href(scores.name))
    return html.P([link, "; those of a circuit also read an earlier head, tested by patching it."], className="wb-note")


def _tested(artefact: FoundCircuit, attacks: list[WorstCase]) -> html.P | None:
    """Return what an attack left of a task's circuit, with a link, or the command that measures it."""
    if not isinstance(artefact, EdgeCircuit):
        return None
    if not attacks:
        command = html.Code(f"{program()} circuit attack {artefact.name}")
        return html.P(["Not attacked yet: helpers and hurters may cancel. ", command], className="wb-note")
    return html.P(["Worst case: ", quiet_link(f"{attacks[0].headline()}.", attacks[0].href)], className="wb-note")


def show_tests(name: str, scheme: str | None) -> list[html.Section]:
    """Return the panel of the strongest attack of a circuit, where there is one."""
    return [_attack_panel(attack, theme(scheme)) for attack in attacks_of(current().workspace, name)[:1]]


def _attack_panel(attack: WorstCase, colours: Theme) -> html.Section:
    """Return what is left over the number of edges attacked."""
    return panel(
        "Under attack",
        graph("circuit-attack", figure=attack_strength(attack, colours), label="Faithfulness under attack", height=230),
        note=f"Of prompts with the behaviour, {attack.worst.lost:.0%} lose more than half of it in the worst case.",
        more="Helpers are edges outside the circuit that raise the metric. Lines: the strongest of them replaced, by "
        "values of the corrupted prompt (resample), of another one (other), their mean, or zero.",
    )


def register(app: Dash) -> None:
    """Add the routes of the graph, and the callbacks that follow what it shows and what is chosen in it."""
    _drawing.register(app.server)
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
    app.callback(Output("circuit-tests", "children"), Input("circuit-name", "data"), State("scheme", "data"))(
        show_tests
    )


def draw_circuit(
    shown: dict[str, Any], name: str, scheme: str | None
) -> tuple[list[dict[str, Any]], dict[str, str], str, go.Figure]:
    """Return the table of the shown edges, its height, their faithfulness, and the curve with their mark."""
    artefact = open_circuit(current().workspace, name)
    edges = view.scored(artefact)
    rows = CircuitView(shown["n"], shown.get("paths") is True).rows(edges)
    curve = [] if artefact.curve is None else artefact.curve.rows()
    size = shown["n"] or artefact.size
    figure = faithfulness_curve(curve, edges.total, theme(scheme), current=size, height=200)
    height = {"height": f"{min(360, 36 + 30 * max(1, len(rows)))}px"}
    return [table_row(row) for row in rows], height, _faithful(curve, size, edges.total), figure


def show_evidence(chosen: str | None, shown: dict[str, Any], name: str, scheme: str | None) -> Children:
    """Return the evidence for the chosen edge or nodes; with nothing chosen, what was found."""
    artefact = open_circuit(current().workspace, name)
    if not chosen:
        return summary(artefact, theme(scheme))
    edges, names = view.scored(artefact), chosen.split(",")
    is_edge = any(row.id in names for row in edges.rows)  # an edge has its evidence also where it is not shown
    rows = edges.rows if is_edge else CircuitView(shown["n"], shown.get("paths") is True).rows(edges)
    return details(current().workspace, artefact, rows, names, theme(scheme))


def _faithful(curve: list[FaithfulnessPoint], n: int, total: int) -> str:
    """Return the faithfulness at `n` of `total` edges, interpolated between the measured sizes."""
    at = faithfulness_at(curve, n / total) if total else None
    return "" if at is None else f"about {at:.2f} with the best {n:,}"


THROUGH = {"q": "through its query", "k": "through its key", "v": "through its value"}
_NAMED = 24
"""Tokens whose names fit below the narrow pattern."""
_LISTED = 12
"""edges of a node that the side lists"""
_KINDS = {
    "head": "an attention head",
    "mlp": "an MLP",
    "embed": "the embedding",
    "logits": "the output",
}
_DROPS = {
    "q_effect": "the same, through its query",
    "k_effect": "the same, through its key",
    "v_effect": "the same, through its value",
}
"""Names of the controls for an edge of an induction circuit, whose score is a drop of the metric."""


def summary(artefact: FoundCircuit, colours: Theme) -> html.Section:
    """Return the scores with their nulls, the strongest nodes, and folded every other number and the settings."""
    tables, nulls, rest = artefact.tables(), artefact.nulls(), artefact.numbers()
    checked = view.checked(artefact)
    hints = {name: glossary()[name].meaning for name in ("faithfulness", "completeness")}
    return panel(
        "Numbers",
        html.Div([stat(_title(k), f"{v:.2f}", hints.get(k, "")) for k, v in artefact.measures()], className="wb-stats"),
        *([html.H3("Null distributions and controls"), evidence_table(as_json(nulls))] if nulls else []),
        *_strongest_nodes(*view.strongest_nodes(artefact, _LISTED)),
        *[fold(_records_title(name, records), records_table(records)) for name, records in tables.items()],
        *(
            [
                html.H3(["Exact against estimated effects", html.Span(f"{len(checked)} edges", className="wb-quiet")]),
                graph("circuit-agreement", figure=agreement(checked, colours), label="Exact against estimated"),
            ]
            if checked
            else []
        ),
        *([fold("All numbers of the evaluation", evidence_table(as_json(rest)))] if rest else []),
        fold("Settings", evidence_table(as_json(artefact.settings))),
    )


def details(
    workspace: Workspace, artefact: FoundCircuit, rows: list[view.EdgeRow], chosen: list[str], colours: Theme
) -> html.Section:
    """Return the panel of an edge, a node, the nodes of a group, or the edges of a line between groups."""
    close = html.Button("close", className="wb-link", type="button", **attrs({"data-circuit-at": ""}))
    edges = [row for row in rows if row.id in chosen]
    if len(chosen) == 1:
        if edges:
            return _edge(artefact, edges[0], colours, close)
        return _node(workspace, artefact, rows, chosen[0], colours, close)
    return _line_of(edges, close) if edges else _group(chosen, rows, close)


def _shared(row: view.EdgeRow, group: int) -> str:
    heads = view.readers(row.target, row.via, group)
    what = {"k": "key", "v": "value"}.get(row.via or "")
    return f"Heads {heads[0]} to {heads[-1]} share this {what}. " if len(heads) > 1 else ""


def _edge(artefact: FoundCircuit, row: view.EdgeRow, colours: Theme, close: Any) -> html.Section:
    drops = _DROPS if isinstance(row.evidence, KeyEvidence) else {}
    position = "" if row.position is None else f" at position {row.position}"
    via = THROUGH.get(row.via or "", "")
    colour = via_colours(colours)[row.via or "other"]
    return panel(
        html.Span([_at(row.source), " → ", _at(row.target)], className="wb-circuit-title"),
        html.P(
            [
                html.Span(className="wb-swatch", style={"background": colour}),
                f"The output of {row.source}, read by {row.target} {via}{position}".rstrip() + ". ",
                _shared(row, artefact.group_size),
                "" if row.member else "This edge is not part of the circuit as found.",
            ],
            className="wb-note",
        ),
        evidence_table(view.measured(row), names={"score": f"score: {artefact.unit}"} | drops),
        *_pattern(artefact, row.target, row.source, colours),
        actions=close,
        className="wb-circuit-chosen",
    )


def _node(
    workspace: Workspace, artefact: FoundCircuit, rows: list[view.EdgeRow], chosen: str, colours: Theme, close: Any
) -> html.Section:
    bare, _, position = chosen.partition("@")
    matches = (
        n for n in artefact.circuit.nodes if n.name == bare and (not position or n.position in (None, int(position)))
    )
    node = next(matches, None)
    stored = view.node_score(artefact, bare, int(position) if position else None)
    numbers = {} if stored is None else {key: getattr(stored, key) for key in ("score", "exact", "low", "high")}
    if node is not None and node.evidence is not None:
        if isinstance(node.evidence, NodeEffect):  # its effect is the score once more
            numbers = {"exact": numbers.get("exact")}
        numbers |= as_json(node.evidence)
    role = None if node is None else node.role
    touching = [r for r in rows if not position or str(r.position) == position]
    kind = parse_node(bare).kind
    what = _KINDS[kind]
    links = []
    if kind == "head":
        link = _heads_link(workspace, artefact.settings.model, bare)
        head = parse_node(bare)
        text = prompt_href(model=artefact.settings.model, layer=head.layer, head=head.head)
        links = [html.P([link, " · " if link else "", quiet_link("Open it on a prompt of your own", text)])]
    return panel(
        html.Span(chosen, className="wb-circuit-title"),
        html.P(f"{role.replace('_', ' ')}: {what}" if role else what.capitalize(), className="wb-note"),
        *links,
        *([evidence_table(numbers)] if numbers else []),
        html.P(f"Scores of edges: {artefact.unit}.", className="wb-note") if touching else None,
        *_edge_list("Reads from", [r for r in touching if r.target == bare], "source"),
        *_edge_list("Is read by", [r for r in touching if r.source == bare], "target"),
        *(_pattern(artefact, bare, None, colours) if kind == "head" else []),
        actions=close,
        className="wb-circuit-chosen",
    )


def _group(members: list[str], rows: list[view.EdgeRow], close: Any) -> html.Section:
    ends = [(row, *(end in members for end in row.end_ids)) for row in rows]
    return panel(
        f"A group of {len(members)} nodes",
        html.P([piece for name in members for piece in (_at(name), " ")], className="wb-members"),
        *_edge_list("Reads from", [row for row, source, target in ends if target and not source], None),
        *_edge_list("Is read by", [row for row, source, target in ends if source and not target], None),
        *_edge_list("Within", [row for row, source, target in ends if source and target], None),
        actions=close,
        className="wb-circuit-chosen",
    )


def _line_of(edges: list[view.EdgeRow], close: Any) -> html.Section:
    """Return the panel of a line that several edges share, as their ends lie in groups."""
    return panel(
        f"{len(edges)} edges {THROUGH.get(edges[0].via or '', '')}".rstrip(),
        html.P("The line is as wide as the sum of their scores.", className="wb-note"),
        *_edge_list("Edges", edges, None),
        actions=close,
        className="wb-circuit-chosen",
    )


def _pattern(artefact: FoundCircuit, reader: str, source: str | None, colours: Theme) -> list[Part]:
    """Return the attention of the reader on the stored prompt, or of the sender if the reader is not a head."""
    head = next((n for n in (reader, source) if n and parse_node(n.partition("@")[0]).kind == "head"), None)
    if head is None:
        return []
    head = head.partition("@")[0]
    tokens, weights = view.tokens(artefact), artefact.pattern(head)
    title = html.H3([f"Attention of {head}", html.Span("on the first stored prompt", className="wb-quiet")])
    if weights is None or len(weights) != len(tokens):
        at = parse_node(head)
        words = quiet_link(
            "open it on a prompt", prompt_href(model=artefact.settings.model, layer=at.layer, head=at.head)
        )
        return [title, html.P(["Its attention pattern was not stored; ", words, "."], className="wb-none")]
    height = max(320, min(660, 14 * len(tokens) + 100))
    figure = attention_pattern(weights, tokens, colours, height=height)
    figure.update_traces(showscale=False)
    if len(tokens) > _NAMED:
        figure.update_xaxes(showticklabels=False, title_text="source token, in the order of the rows")
    return [title, graph("circuit-pattern", figure=figure, height=height, label=f"Attention of {head}")]


def _edge_list(title: str, rows: list[view.EdgeRow], end: str | None) -> list[Part]:
    if not rows:
        return []
    shown = sorted(rows, key=lambda row: -row.size)
    lines = [
        html.Li(
            [
                html.Button(_line(row, end), className="wb-link", type="button", **attrs({"data-circuit-at": row.id})),
                html.Span(number(row.score, signed=True) if row.score is not None else "", className="wb-value"),
            ]
        )
        for row in shown[:_LISTED]
    ]
    more = html.Span(f"the strongest {_LISTED} of {len(rows)}" if len(rows) > _LISTED else f"{len(rows)}",
                     className="wb-quiet")  # fmt: skip
    return [html.H3([title, more]), html.Ol(lines, className="wb-lines")]


def _strongest_nodes(rows: list[ScoredNode], total: int) -> list[Part]:
    """Return the nodes with the strongest scores as links to their panels; the graph may not show all of them."""
    if not rows:
        return []
    lines = [
        html.Li(
            [
                _at(view.node_id(row.node, row.position)),
                html.Span(number(row.score, signed=True), className="wb-value"),
            ]
        )
        for row in rows
    ]
    note = html.Span(f"by the effect of their whole output, {len(rows)} of {total:,}", className="wb-quiet")
    return [html.H3(["Strongest nodes", note]), html.Ol(lines, className="wb-lines")]


def _line(row: view.EdgeRow, end: str | None) -> str:
    via = f" ({row.via})" if row.via else ""
    return f"{getattr(row, end)}{via}" if end else f"{row.source} → {row.target}{via}"


def _at(name: str) -> html.Button:
    return html.Button(name, className="wb-link wb-node", type="button", **attrs({"data-circuit-at": name}))


def _heads_link(workspace: Workspace, model: str, head: str) -> dcc.Link | None:
    scores = next((artefact for artefact in workspace.values(HeadScores) if artefact.settings.model == model), None)
    return quiet_link(f"{head} among all heads", heads_href(scores.name, head=head)) if scores else None


def _title(name: str) -> str:
    return name.upper() if name in ("cpr", "cmd") else name.replace("_", " ")


def _records_title(name: str, records: list[Record]) -> str:
    unit = ", change of loss in nats" if any(key.startswith("loss_") for key in records[0]) else ""
    return words(name).capitalize() + unit


PAGE = Page(
    title="Circuit",
    path="/circuit",
    group="circuits",
    templates=("/circuit/<name>",),
    order=60,
    about="The heads and MLPs behind one behaviour",
    layout=layout,
    register=register,
    shows="The heads and MLPs that carry out one behaviour, as a graph whose edges lead from a component to one that "
    "reads its output, with the evidence for each edge and the faithfulness of the whole.",
    command="workbench circuit induction MODEL",
    fill=lambda _, model: ("circuit induction", {"model": model}),
)
