"""*Heads*: the score of every attention head for every kind of head, as a heat map and a table.

A click shows the attention of that head on a prompt. Below is the causal evidence of a circuit of the same model:
verdicts, ablations, and the composition of the weights. The kinds of scores are those of the artefact.
"""

from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import Dash, Input, NoUpdate, Output, State, ctx, dcc, html, no_update

from dashboard.components.evidence import as_table
from dashboard.components.frame import Children, Part, attempt, attrs, graph, loading, page, panel, quiet_link, verdict
from dashboard.components.glossary import glossary
from dashboard.components.pages import (
    Page,
    address_sink,
    artefact_menu,
    circuit_href,
    head_href,
    heads_href,
    page_of,
    prompt_href,
    register_address,
)
from dashboard.components.tokens import COLD, WARM, attention_graph
from dashboard.figures.circuits import MAX_SENDERS, VIAS, ablation_bars, composition_map, senders
from dashboard.figures.heads import head_scores
from dashboard.figures.theme import theme, visible
from dashboard.heads._browser import browser, register_browser
from dashboard.heads._table import table_panel, table_rows
from dashboard.sources import PageSources, current, open_artefact
from interp.artifacts import address_of
from interp.circuits.head_scores import HeadScores, HeadSettings
from interp.circuits.heads_in_text import HeadsInText
from interp.circuits.induction_circuit import HeadVerdict, InductionCircuit
from interp.errors import UnknownNameError, program
from interp.names import HEAD_KINDS, parse_head
from interp.workspace import Workspace


def evidence(workspace: Workspace, model: str) -> html.Div:
    """Return verdicts, ablations and composition of the newest circuit; else the command that measures them."""
    circuit = next((circuit for circuit in workspace.values(InductionCircuit) if circuit.settings.model == model), None)
    if circuit is None:
        why = (
            "An attention pattern alone does not show that the model uses the head. This command measures the effect "
            "of patching and ablating heads against random heads:"
        )
        command = html.Pre(f"{program()} circuit induction {model}", className="wb-command", tabIndex=0)
        return html.Div(panel("Causal evidence", html.P(why), command), className="wb-proof")
    store = dcc.Store(id="heads-proof-state", data=circuit.name)
    return html.Div([store, attempt(lambda: _judged(circuit)), _causes(circuit)], className="wb-proof")


def register_evidence(app: Dash) -> None:
    """Add the callbacks of the two figures, and the choice of a head in the table."""
    app.callback(
        Output("heads-chosen", "data", allow_duplicate=True),
        Input("heads-proof-grid", "cellClicked"),
        prevent_initial_call=True,
    )(_row_of)
    app.callback(
        Output("heads-ablation", "figure"),
        Input("heads-proof-state", "data"),
        State("scheme", "data"),
    )(_ablation)
    app.callback(
        Output("heads-composition", "figure"),
        Output("heads-composition-note", "children"),
        Input("heads-via", "value"),
        State("heads-proof-state", "data"),
        State("scheme", "data"),
    )(draw_composition)


def _judged(circuit: InductionCircuit) -> html.Section:
    """Return the heads that pass every test, why they are fewer than those that attend alike, and each with numbers."""
    rows, settings = _rows(circuit.verdicts), circuit.settings
    proved, tested = sum(row["verdict"] == "induction" for row in rows), sum(row["candidate"] for row in rows)
    sentence = (
        f"{proved} of the heads that attend by induction also read an earlier head through their keys, more than "
        "through queries, values or control heads."
    )
    scored = (
        f"The map scores attention alone; here the {tested} heads with the highest scores were tested for "
        f"what they do, and {proved} pass. Scores differ a little from the map's: "
        f"{len(settings.seeds) * settings.prompts_per_seed} prompts of {circuit.context_length} tokens of their own."
    )
    names = {"name": "head", "verdict": "role", "strict": "induction", "tl": "by stripe"}
    shown = [{names.get(key, key.replace("_", " ")): row[key] for key in _MEASURED} for row in rows if row["candidate"]]
    return panel(
        "Causal evidence",
        verdict(sentence, html.P(visible(circuit.verdict.rule, 4000)), as_table(shown, "All measures")),
        _grid(rows),
        note=scored,
        actions=[quiet_link("open the circuit", circuit_href(circuit.key))],
        className="wb-heads-proof",
    )


_MEASURED = ("name", "verdict", "strict", "tl", "previous_token", "k_effect", "q_effect", "v_effect", "loss_first_half",
             "loss_second_half", "ov_eigenvalue", "ov_top1", "p_holm")  # fmt: skip


def _causes(circuit: InductionCircuit) -> html.Div:
    via = dmc.SegmentedControl(
        id="heads-via", data=[{"value": k, "label": v} for k, v in VIAS.items()], value="k", size="xs"
    )
    ablation = panel(
        "Effect of ablating heads",
        loading(graph("heads-ablation", label="Change of loss when heads are ablated")),
        note="change of the loss (nats per token) on repeated random tokens",
        more="Only the second half can be copied from the first.",
    )
    composition = panel(
        "Composition of the weights",
        loading(graph("heads-composition", label="Composition between heads")),
        html.P(id="heads-composition-note", className="wb-note"),
        note="dot: above the null; ring: the strongest sender of a reader",
        more="How strongly the weights let a head read the output of an earlier head.",
        actions=[via],
        className="wb-hidden" if circuit.composition is None else "",
    )
    return html.Div([ablation, composition], className="wb-two wb-even")


def _grid(rows: list[dict[str, Any]]) -> dag.AgGrid:
    def column(field: str, title: str, form: str, width: int, hint: str) -> dict[str, Any]:
        text = f"params.value == null ? '' : d3.format('{form}')(params.value)"
        return {"field": field, "headerName": title, "width": width, "type": "rightAligned", "headerTooltip": hint,
                "valueFormatter": {"function": text}}  # fmt: skip

    columns = [
        {"field": "name", "headerName": "head", "width": 84, "pinned": "left"},
        {"field": "verdict", "headerName": "role", "width": 130},
        column("k_effect", "through its key", "+.3f", 130, "fall of the induction score, 0 to 1, by patching its "
               "strongest sender into its key"),
        {"field": "best_sender", "headerName": "sender", "width": 92, "headerTooltip": "the sender of that effect"},
        column("loss_second_half", "loss when ablated", "+.3f", 150, "change of the loss on the repeat, nats"),
        column("p_holm", "p (Holm)", ".2~g", 92, glossary()["Holm correction"].meaning),
    ]  # fmt: skip
    return dag.AgGrid(
        id="heads-proof-grid", columnDefs=columns, rowData=rows, getRowId="params.data.name", className="wb-grid",
        columnSize=None, style={"height": f"{min(310, 38 + 30 * max(1, len(rows)))}px"},
        dashGridOptions={"rowHeight": 30, "headerHeight": 32, "animateRows": False, "tooltipShowDelay": 300},
    )  # fmt: skip


def _rows(rows: list[HeadVerdict]) -> list[dict[str, Any]]:
    """Name the rows, those with a verdict first, then by induction score."""
    return [
        {**vars(row), "name": str(row.name), "verdict": (row.verdict or "").replace("_", " ")}
        for row in sorted(rows, key=lambda row: (not row.verdict, -row.strict))
    ]


def _ablation(name: str, scheme: str | None) -> go.Figure:
    return ablation_bars(current().workspace.open(InductionCircuit, name).ablations.rows(), theme(scheme))


def draw_composition(via: str, name: str, scheme: str | None) -> tuple[go.Figure, Children]:
    """Return the composition scores of senders and readers through Q, K or V as a figure, a table and a note."""
    composition = current().workspace.open(InductionCircuit, name).composition
    rows = [] if composition is None else composition.rows()
    shown, total = senders(rows, via)
    note = f"The {len(shown)} strongest of {total} senders are shown." if total > MAX_SENDERS else ""
    return composition_map(rows, via, theme(scheme)), note


def kinds_of(scores: HeadScores) -> list[str]:
    """Return the kinds of heads that were scored, those with a meaning first."""
    known = [kind for kind in HEAD_KINDS if kind in scores.kinds]
    return known + [kind for kind in scores.kinds if kind not in HEAD_KINDS]


EXAMPLE = "The small cat sat on the wide mat. The small cat sat on the wide mat."


def layout(
    context: PageSources,
    name: str | None = None,
    kind: str = "",
    head: str = "",
    text: str = "",
    texts: str = "",
    **_: object,
) -> html.Div:
    """`/heads?texts=<name>`: every head over a text, by default the newest; `/heads/<name>`: scores on random tokens.

    `/heads/<name>?kind=<score>&head=L5H1&text=<prompt>`: a head in the address is shown at once.
    """
    if texts and head:
        return html.Div(dcc.Location(id="heads-leads-on", href=head_href(texts, head), refresh=True))
    read = context.workspace.newest("heads_in_text")
    if texts or (read and not (name or kind or head or text)):
        found = context.workspace.open(HeadsInText, texts or read[0].name)
        return page(
            "Heads in a text", *_other(context, "heads", found.settings.model), browser(context.workspace, found)
        )
    kind = kind or "induction"
    scores = context.workspace.open(HeadScores, open_artefact(context.workspace, ("heads",), name).name)
    kinds = kinds_of(scores)
    if kind not in kinds:
        raise UnknownNameError("head score", kind, kinds)
    if head:
        _check_head(head, scores)
    names = [(m.name, heads_href(m.name)) for m in context.workspace.newest("heads")]
    choices = [{"value": option, "label": option.replace("_", " ")} for option in kinds]
    controls = [
        artefact_menu("Model", names, heads_href(scores.name), width=200, key=scores.key),
        dmc.SegmentedControl(id="heads-kind", data=choices, value=kind, size="xs"),
    ]
    model = scores.settings.model
    return page(
        "Heads",
        dcc.Store(id="heads-state", data={"name": scores.name, "model": model}),
        dcc.Store(id="heads-chosen", data=head or None),
        dcc.Store(id="heads-text-run", data=text or EXAMPLE),
        address_sink("heads"),
        *_other(context, "heads_in_text", model),
        verdict(html.Span(id="heads-lead"), *_method(scores.settings, kinds)),
        html.Div([_scores_panel(), table_panel(), _pattern_panel(context, text)], className="wb-heads"),
        evidence(context.workspace, model),
        controls=controls,
    )


def _other(context: PageSources, kind: str, model: str) -> list[html.P]:
    """Return a link to the newest measurement of the other kind on the same model, if there is one."""
    words = {
        "heads": "Scores on repeated random tokens, and causal evidence",
        "heads_in_text": "Every head over a text",
    }
    same = [manifest for manifest in context.workspace.newest(kind) if manifest.model == model][:1]
    return [html.P(quiet_link(words[kind], page_of(address_of(manifest.key)))) for manifest in same]


def _method(settings: HeadSettings, kinds: list[str]) -> list[Part]:
    """Return how the scores were measured, and the meaning of each kind."""
    drawn = (
        f"Score: mean share of attention on the tokens of its kind, over {settings.prompts * len(settings.seeds)} "
        f"prompts of {settings.context_length} random tokens that repeat. Null: the same "
        "on prompts without repeats; for kinds that need no repeat, an untrained model and uniform attention."
    )
    meanings = (f"{kind.replace('_', '-')} head: {HEAD_KINDS[kind]}" for kind in kinds if kind in HEAD_KINDS)
    return [html.P(drawn), html.Ul([html.Li(meaning) for meaning in meanings])]


def register(app: Dash) -> None:
    """Add the callbacks: scores, the chosen head, its attention pattern, and the address."""
    app.callback(
        Output("heads-map", "figure"),
        Output("heads-grid", "rowData"),
        Output("heads-lead", "children"),
        Input("heads-kind", "value"),
        State("heads-state", "data"),
        State("scheme", "data"),
    )(draw_scores)
    app.callback(
        Output("heads-chosen", "data"),
        Input("heads-map", "clickData"),
        Input("heads-grid", "cellClicked"),
        prevent_initial_call=True,
    )(_choose)
    register_evidence(app)
    register_browser(app)
    app.callback(
        Output("heads-text-run", "data"),
        Input("heads-go", "n_clicks"),
        State("heads-text", "value"),
        prevent_initial_call=True,
    )(_said)
    app.callback(
        Output("heads-pattern", "children"),
        Output("heads-pattern-title", "children"),
        Input("heads-chosen", "data"),
        Input("heads-text-run", "data"),
        State("heads-state", "data"),
        State("scheme", "data"),
        running=[(Output("heads-busy", "className"), "wb-busy wb-busy-on", "wb-busy")],
    )(_pattern)
    register_address(
        app,
        "heads",
        Input("heads-kind", "value"),
        Input("heads-chosen", "data"),
        Input("heads-text-run", "data"),
        State("heads-state", "data"),
    )


def _scores_panel() -> html.Section:
    return panel(
        "Every head",
        graph("heads-map", label="Heat map of head scores"),
        note="dot: above its null; click a cell to see its attention on a prompt",
        className="wb-heads-map",
    )


def _pattern_panel(context: PageSources, text: str) -> html.Section:
    return panel(
        html.Span("On a prompt", id="heads-pattern-title"),
        html.Div(
            [
                dmc.Textarea(id="heads-text", value=text or EXAMPLE, autosize=True, minRows=1, maxRows=4, size="xs",
                             flex=1, className="wb-mono", persistence=True, persistence_type="session",
                             **attrs({"aria-label": "Prompt for the pattern"})),
                dmc.Button("Run", id="heads-go", size="xs", variant="default"),
            ],
            className="wb-controls",
        ),
        html.Div(COLD if context.live.state == "cold" else WARM, id="heads-busy", className="wb-busy"),
        html.Div(id="heads-pattern", className="wb-scroll"),
        note="each row is one token (destination) and sums to 1 over the sources",
        className="wb-heads-pattern",
    )  # fmt: skip


def draw_scores(kind: str, state: dict[str, str], scheme: str | None) -> tuple[go.Figure, list[dict[str, Any]], str]:
    """Return the map of the scores of one kind of head, the same as a table, and what was found in a sentence."""
    rows = current().workspace.open(HeadScores, state["name"]).of_kind(kind)
    heads = sorted((row for row in rows if row.above_null), key=lambda row: -row.score)
    words = f"{len(heads)} of {len(rows)} heads are above their null as {kind.replace('_', '-')} heads"
    words += "".join(f": {row.name} most, {row.score:.2f} (null {row.null_high:.2f})" for row in heads[:1])
    height = max(260, 22 * (1 + max(row.layer for row in rows)) + 70)
    return head_scores(rows, theme(scheme), height=height), table_rows(rows), f"{words}."


def _said(_presses: object, text: str | None) -> str:
    return text or ""


def _row_of(cell: dict[str, Any] | None) -> str | NoUpdate:
    return (cell or {}).get("rowId", no_update)


def _choose(click: dict[str, Any] | None, cell: dict[str, Any] | None) -> str | NoUpdate:
    if ctx.triggered_id == "heads-grid":
        return _row_of(cell)
    if not click:
        return no_update
    at = click["points"][0]
    return f"L{at['y']}H{at['x']}"


def _pattern(chosen: str | None, text: str, state: dict[str, str], scheme: str | None) -> tuple[Children, str]:
    if not chosen:
        return html.P("Choose a head in the heat map or the table.", className="wb-none"), "On a prompt"
    head = parse_head(chosen)
    figure = attention_graph(text, state["model"], head.layer, head.head, scheme, id="heads-pattern-graph")
    href = prompt_href(text=text, model=state["model"], layer=head.layer, head=head.head)
    more = html.P(quiet_link("Open this prompt with the head chosen: why it looks there, and what it predicts", href))
    return [figure, more], f"{chosen} on a prompt"


def _check_head(head: str, scores: HeadScores) -> None:
    known = list(dict.fromkeys(row.name for row in scores.rows))
    if str(parse_head(head)) not in known:
        raise UnknownNameError("head", head, known)


PAGE = Page(
    title="Heads",
    path="/heads",
    templates=("/heads/<name>",),
    group="circuits",
    order=50,
    about="What each attention head attends to",
    layout=layout,
    register=register,
    shows="How strongly each attention head behaves as an induction head, a previous-token head and so on, with the "
    "null of each score, and the attention of any head on a prompt.",
    command="workbench heads MODEL",
    fill=lambda _, model: ("heads", {"model": model}),
)
