"""*SAE*: the dictionaries of the workspace, the health of their training as it goes on, and how good they are."""

from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html, no_update

from dashboard.components.attributes import attrs
from dashboard.components.frame import explain, graph, notice, page, panel, quiet_link
from dashboard.context import Context, current
from dashboard.figures.health import HEIGHT, HealthRun, health_figure
from dashboard.figures.pareto import density_histogram, pareto_plane
from dashboard.figures.scaling import scaling_curves
from dashboard.figures.theme import message_figure, theme
from dashboard.pages.sae_card import card, listing, live_notice, log_notices
from dashboard.views import sae as view
from dashboard.views import sae_scores as scores
from dashboard.views.sae_log import fingerprint, read_log
from interp.artifacts import hash_json
from interp.workspace import Workspace

_EMPTY: Any = {"layout": {"xaxis": {"visible": False}, "yaxis": {"visible": False}, "paper_bgcolor": "rgba(0,0,0,0)",
                          "plot_bgcolor": "rgba(0,0,0,0)"}}  # fmt: skip
TICK = 2000
"""milliseconds between looks at a run that goes on"""


def layout(context: Context, name: str | None = None, alone: str = "", **_: Any) -> html.Div:
    """`/sae?name=<dictionary>&alone=1`; without a name, a run that goes on, else the newest."""
    found = view.entries(context.workspace)
    chosen = view.choose(context.workspace, name, found)
    return page(
        "SAE",
        dcc.Store(id="sae-state", data={"name": chosen.name}),
        dcc.Store(id="sae-status", data=chosen.state),
        dcc.Store(id="sae-logs", data=_logs(context.workspace, chosen, found)),
        dcc.Store(id="sae-listed", data=_listed(found)),
        dcc.Interval(id="sae-tick", interval=TICK, disabled=not any(entry.unfinished for entry in found)),
        html.Div(
            [
                html.Nav(
                    panel("Dictionaries", html.Div(listing(found, chosen.name), id="sae-list"), className="wb-list"),
                    **attrs({"aria-label": "Dictionaries"}),
                ),
                html.Div(
                    [
                        html.Div(live_notice(chosen), id="sae-live", **attrs({"aria-live": "polite"})),
                        html.Div(id="sae-card"),
                        _health_panel(alone == "1"),
                        html.Div(id="sae-scores"),
                    ],
                    className="wb-detail",
                ),
            ],
            className="wb-split",
        ),
        lead=_lead(found),
    )


def register(app: Dash) -> None:
    """What is shown of the chosen one, and what changes while a run goes on."""
    app.callback(
        Output("sae-card", "children"),
        Output("sae-scores", "children"),
        Input("sae-state", "data"),
        Input("sae-status", "data"),
        State("scheme", "data"),
    )(_show)
    app.callback(
        Output("sae-health", "figure"),
        Output("sae-log", "children"),
        Input("sae-state", "data"),
        Input("sae-overlay", "checked"),
        Input("sae-logs", "data"),
        State("scheme", "data"),
    )(_health)
    app.callback(
        Output("sae-list", "children"),
        Output("sae-live", "children"),
        Output("sae-status", "data"),
        Output("sae-logs", "data"),
        Output("sae-listed", "data"),
        Output("sae-tick", "disabled"),
        Input("sae-tick", "n_intervals"),
        State("sae-state", "data"),
        State("sae-status", "data"),
        State("sae-logs", "data"),
        State("sae-listed", "data"),
        prevent_initial_call=True,
        running=[(Output("sae-tick", "max_intervals"), 0, -1)],  # a slow machine answers one look before the next
    )(_tick)


def _health_panel(alone: bool) -> html.Section:
    words = "with the runs of its sweep"
    name = attrs({"aria-label": words})
    overlay = dmc.Switch(id="sae-overlay", label=words, checked=not alone, size="xs", **name)
    return panel(
        "Health of the training",
        html.Div(id="sae-log"),
        graph("sae-health", figure=_EMPTY, label="Loss, FVU, L0, threshold, dead and dense features", height=HEIGHT),
        note="on the batches it learns from; point at a title to read what it means, click in the legend to hide a run",
        actions=[overlay],
        className="wb-row",
    )


def _lead(found: list[view.Entry]) -> str:
    going = sum(entry.state in ("training", "finishing") for entry in found)
    silent = sum(entry.state == "silent" for entry in found)
    words = [f"{sum(entry.state == 'finished' for entry in found)} finished"]
    words += [f"{going} in training"] * bool(going) + [f"{silent} silent"] * bool(silent)
    return "Sparse dictionaries: directions that a model's activations are sums of, few at a time. " + (
        ", ".join(words) + " here."
    )


def _show(state: dict[str, Any], _status: str, scheme: str | None) -> Any:
    workspace = current().workspace
    found = view.entries(workspace)
    chosen = view.choose(workspace, state["name"], found)
    if chosen.state == "broken":
        return None, None
    inside = scores.in_the_model(workspace, chosen.name)
    made = [] if chosen.unfinished else scores.described(workspace, chosen.name)
    boxes = [] if chosen.unfinished else [_plane(workspace, chosen, found, scheme), _density(workspace, made, scheme)]
    return card(chosen, inside, made), [
        html.Div(boxes, className="wb-two wb-even"),
        _scaling(workspace, chosen, scheme),
    ]


def _plane(workspace: Workspace, chosen: view.Entry, found: list[view.Entry], scheme: str | None) -> html.Section:
    points = scores.points(workspace, chosen, found)
    foreign = len({point.recording for point in points}) > 1
    note = "every dictionary at this hook point, on held-out tokens; lower left is better. A lower error at another L0 "
    note += "says little" + (". Open marks were scored on other documents" if foreign else "")
    figure = pareto_plane(points, chosen.name, theme(scheme))
    return panel("Error against sparsity", graph("sae-plane", figure=figure, label="FVU against L0"), note=note)


def _density(workspace: Workspace, made: list[Any], scheme: str | None) -> html.Section:
    tables = next((m.name for m in made if m.kind == "features"), None)
    title = "How often its features fire"
    if tables is None:
        figure = message_figure("no feature tables yet", theme(scheme), height=320)
        note = "`workbench features` counts every feature over a recording"
        return panel(title, graph("sae-density", figure=figure, label="no density histogram"), note=note)
    try:
        found = scores.densities(workspace, tables)
    except Exception as error:
        return panel(title, notice(explain(error), tone="error"))
    rest = [f"{found.dead:,} never fired", " in " if found.n_tokens else "",
            f"{found.n_tokens:,} tokens" if found.n_tokens else "", f", {found.dense:,} are "]  # fmt: skip
    dense = quiet_link("dense", f"/feature/{tables}/?d=-1,0", title="fire on more than a tenth of the tokens")
    figure = density_histogram(found, theme(scheme))
    return panel(title, graph("sae-density", figure=figure, label="Histogram of density"), note=[*rest, dense])


def _scaling(workspace: Workspace, chosen: view.Entry, scheme: str | None) -> Any:
    found = scores.scaling(workspace, chosen.name)
    if found is None:
        return None
    figure = scaling_curves(found, theme(scheme), chosen=chosen.name)
    said = [html.Li(str(each)) for each in found.get("findings") or []]
    return panel(
        "How the error falls with size",
        graph("sae-scaling", figure=figure, label="Held-out FVU over number of latents, with the fitted law"),
        html.Ul(said, className="wb-said"),
        note=f"scaling fit {found['artefact']}: one colour per k, the band is the 95 % interval of the fitted law, "
        "a cross what the smaller sizes predict for the largest",
        className="wb-row",
    )


def _health(state: dict[str, Any], overlay: bool, _logs: Any, scheme: str | None) -> Any:
    workspace = current().workspace
    found = view.entries(workspace)
    chosen = view.choose(workspace, state["name"], found)
    if chosen.state == "broken":
        return message_figure("it cannot be read", theme(scheme), height=HEIGHT), None
    shown = view.sweep(workspace, chosen, found) if overlay else [chosen]
    logs = {entry.name: read_log(view.log_path(workspace, entry)) for entry in shown}
    notes = log_notices(logs[chosen.name])
    if not logs[chosen.name].rows:
        words = "it was imported: how it was trained is not known here" if chosen.imported else "no health line yet"
        return message_figure(words, theme(scheme), height=HEIGHT), notes
    return health_figure([HealthRun(name, log.rows) for name, log in logs.items()], theme(scheme)), notes


def _tick(_n: int | None, state: dict[str, Any], status: str, logs: list[str], listed: str) -> Any:
    """What has changed since the last look, and only that."""
    workspace = current().workspace
    found = view.entries(workspace)
    chosen = view.choose(workspace, state["name"], found)
    now_logs, now_listed = _logs(workspace, chosen, found), _listed(found)
    same = now_listed == listed
    return (
        no_update if same else listing(found, chosen.name),
        no_update if same else live_notice(chosen),
        no_update if chosen.state == status else chosen.state,
        no_update if now_logs == logs else now_logs,
        no_update if same else now_listed,
        not any(entry.unfinished for entry in found),
    )


def _logs(workspace: Workspace, chosen: view.Entry, found: list[view.Entry]) -> list[str]:
    """Changes whenever a log of the health figure does."""
    if chosen.state == "broken":
        return []
    return [fingerprint(view.log_path(workspace, entry)) for entry in view.sweep(workspace, chosen, found)]


def _listed(found: list[view.Entry]) -> str:
    """Changes whenever the list of dictionaries, or how far one has come, does."""
    return hash_json([(e.name, e.state, e.when, e.share, e.quiet // 60 if e.state == "silent" else 0) for e in found])
