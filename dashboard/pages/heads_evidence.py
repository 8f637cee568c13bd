"""Beyond the pattern: the evidence that a head is what it looks like, from a circuit of the same model."""

from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html

from dashboard.addresses import circuit_href
from dashboard.components.frame import graph, loading, panel, quiet_link
from dashboard.context import current
from dashboard.figures.ablation import ablation_bars
from dashboard.figures.composition import MAX_SENDERS, VIAS, composition_map, senders
from dashboard.figures.theme import theme
from dashboard.views import circuit as view
from interp.workspace import Workspace


def evidence(workspace: Workspace, model: str) -> html.Div:
    """Verdicts, ablations and composition, each where it was measured; else the command that measures it."""
    found = {which: view.of_model(workspace, model, which) for which in ("heads", "ablations", "composition")}
    sources = {which: m.name if m else None for which, m in found.items()}
    store = dcc.Store(id="heads-proof-state", data=sources)
    grid = _grid([] if not sources["heads"] else _rows(view.table(workspace, sources["heads"], "heads")))
    if not any(sources.values()):
        return html.Div(
            [
                store,
                panel(
                    "From pattern to proof",
                    html.P(
                        "A pattern alone does not show that a head matters. This command patches, ablates and tests:"
                    ),
                    html.Pre(f"workbench circuit induction {model}", className="wb-command"),
                    html.Div([grid, *_unused()], className="wb-hidden"),
                ),
            ],
            className="wb-proof",
        )
    return html.Div([store, _verdicts(sources["heads"], grid), _causes(sources)], className="wb-proof")


def register_evidence(app: Dash) -> None:
    """The figures; the table is written at once."""
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
    )(_composition)


def _verdicts(name: str | None, grid: Any) -> html.Section:
    link = quiet_link("open the circuit", circuit_href(name)) if name else None
    return panel(
        "Evidence for each head",
        grid,
        note="induction by attention, then what patching and ablation say; a verdict needs all of it",
        actions=[link],
        className="wb-heads-proof",
    )


def _causes(sources: dict[str, str | None]) -> html.Div:
    via = dmc.SegmentedControl(
        id="heads-via", data=[{"value": k, "label": v} for k, v in VIAS.items()], value="k", size="xs"
    )
    ablation = panel(
        "When it is taken out",
        loading(graph("heads-ablation", label="Change of loss when heads are ablated")),
        note="change of the loss on repeated random tokens: the second half can be copied, the first cannot",
        className="" if sources["ablations"] else "wb-hidden",
    )
    composition = panel(
        "Composition of the weights",
        loading(graph("heads-composition", label="Composition between heads")),
        html.P(id="heads-composition-note", className="wb-note"),
        note="how far a sender's output reaches into a reader; a dot is above chance, a ring the reader's strongest",
        actions=[via],
        className="" if sources["composition"] else "wb-hidden",
    )
    return html.Div([ablation, composition], className="wb-two wb-even")


def _unused() -> list[Any]:
    """What the callbacks name, for a page that has nothing to show in them."""
    via = dmc.SegmentedControl(id="heads-via", data=["k"], value="k")
    return [dcc.Graph(id="heads-ablation"), dcc.Graph(id="heads-composition"), html.P(id="heads-composition-note"), via]


def _grid(rows: list[dict[str, Any]]) -> dag.AgGrid:
    def column(field: str, title: str, form: str, width: int, hint: str) -> dict[str, Any]:
        text = f"params.value == null ? '' : d3.format('{form}')(params.value)"
        return {"field": field, "headerName": title, "width": width, "type": "rightAligned", "headerTooltip": hint,
                "valueFormatter": {"function": text}}  # fmt: skip

    columns = [
        {"field": "name", "headerName": "head", "width": 84, "pinned": "left"},
        {"field": "verdict", "headerName": "verdict", "width": 130},
        column("strict", "induction", ".3f", 98, "attention on the token after an earlier copy; strict convention"),
        column("tl", "by stripe", ".3f", 92, "the same along the whole stripe, TransformerLens' convention"),
        column("previous_token", "previous", ".3f", 92, "attention on the previous token"),
        column("k_effect", "K effect", "+.3f", 90, "largest change of the score by patching a sender into its key"),
        column("q_effect", "Q effect", "+.3f", 90, "the same into its query: a control"),
        column("v_effect", "V effect", "+.3f", 90, "the same into its value: a control"),
        {"field": "best_sender", "headerName": "sender", "width": 92, "headerTooltip": "the sender with the K effect"},
        column("loss_second_half", "loss, 2nd", "+.3f", 96, "change of loss in the second half when ablated, nats"),
        column("loss_first_half", "loss, 1st", "+.3f", 92, "the same in the first half"),
        column("ov_eigenvalue", "OV eigen", "+.2f", 92, "copying by eigenvalues, -1 to 1"),
        column("ov_top1", "OV top 1", ".2f", 92, "share of tokens that its OV copies first"),
        column("p_holm", "p (Holm)", ".2~g", 92, "corrected for all heads"),
    ]
    return dag.AgGrid(
        id="heads-proof-grid", columnDefs=columns, rowData=rows, getRowId="params.data.name", className="wb-grid",
        columnSize=None, style={"height": f"{min(310, 38 + 30 * max(1, len(rows)))}px"},
        dashGridOptions={"rowHeight": 30, "headerHeight": 32, "animateRows": False, "tooltipShowDelay": 300},
    )  # fmt: skip


def _rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Verdicts first, then by induction score."""
    named = [
        {**row, "name": f"L{row['layer']}H{row['head']}", "verdict": (row.get("verdict") or "").replace("_", " ")}
        for row in rows
    ]
    return sorted(named, key=lambda row: (not row["verdict"], -(row["strict"] or 0.0)))


def _ablation(sources: dict[str, str | None], scheme: str | None) -> Any:
    name = sources["ablations"]
    return ablation_bars(view.table(current().workspace, name, "ablations") if name else [], theme(scheme))


def _composition(via: str, sources: dict[str, str | None], scheme: str | None) -> Any:
    name = sources["composition"]
    rows = view.table(current().workspace, name, "composition") if name else []
    shown, total = senders(rows, via)
    note = f"{len(shown)} of {total} senders are shown: the strongest for any reader." if total > MAX_SENDERS else ""
    return composition_map(rows, via, theme(scheme)), note
