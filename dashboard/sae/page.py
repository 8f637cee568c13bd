"""*SAE*: the dictionaries of the workspace, the health of their training as it goes on, and their quality.

The list of dictionaries is at the left. The chosen one is shown by a card (settings, scores, origin), the curves
of its training log, and its scores among other dictionaries: error against sparsity, firing density, scaling law.
"""

from typing import Any

import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import Dash, Input, Output, State, dcc, html, no_update

from dashboard.components.evidence import number as shown
from dashboard.components.evidence import records_table
from dashboard.components.frame import (
    Children,
    Part,
    attrs,
    explain,
    graph,
    guarded,
    note_controls,
    notice,
    page,
    panel,
    quiet_link,
    stat,
    verdict,
)
from dashboard.components.pages import Page, atlas_href, compare_href, first_step, sae_href
from dashboard.figures.saes import HEIGHT, HealthRun, health_figure
from dashboard.figures.scaling import density_histogram, pareto_plane, scaling_curves
from dashboard.figures.theme import message_figure, number, theme
from dashboard.sae import data as view
from dashboard.sae._evidence import concept_panel, null_panel
from dashboard.sae.data import Entry, Log, fingerprint, first_not_finite, read_log
from dashboard.sources import PageSources, current
from interp.artifacts import Manifest, hash_json
from interp.errors import as_typed
from interp.models.short_name import short_name
from interp.progress import duration
from interp.workspace import Workspace
from saes.evaluation.sae_comparison import MatchedPair
from saes.evaluation.scores import InModel
from saes.training.stored import Reconstruction
from saes.weights.imported import ImportedSettings

HINTS = {
    "FVU": "Fraction of variance unexplained, on held-out documents: 0 is perfect, 1 no better than the mean.",
    "L0": "Features active per token, on those documents.",
    "dead": "Fraction of features never active on those documents; with few tokens, rare features count as dead.",
    "dense": "Fraction of features active on more than a tenth of those tokens; few of them are interpretable.",
    "CE recovered": "Cross-entropy recovered with the reconstruction in place of the activation: 1 keeps the loss of "
    "the model, 0 is as bad as zero ablation, a baseline that is easy to beat.",
    "CE recovered (mean ablation)": "The same against mean ablation instead of zero ablation: the harder baseline.",
    "FVU now": "Fraction of variance unexplained on the last training batches.",
    "L0 now": "Features active per token on those batches.",
    "dead now": "Fraction of features that were not active for the dead window.",
    "dense now": "Fraction of features active on more than a tenth of recent tokens.",
    "l2 ratio": "Mean length of the reconstruction over that of the activation: below 1 it shrinks activations.",
    "features": "Latents of the dictionary (d_sae).",
    "tokens": "Tokens seen in training; a token of the recording counts once per epoch.",
    "tokens/s": "Training speed, over its own steps; dictionaries that are trained together take turns.",
}
MAX_LISTED = 200
N_MATCHES = 12
"""Closest pairs of matched features that are shown."""
_SETTINGS = (
    "k",
    "l1_coefficient",
    "sparsity",
    "prefixes",
    "target",
    "batch_size",
    "lr",
    "aux_coefficient",
    "null",
    "seed",
)
_STATES = {
    "training": "in training",
    "finishing": "being scored and written",
    "silent": "silent",
    "finished": "",
    "broken": "cannot be read",
}


def listing(entries: list[Entry], chosen: str) -> html.Ul:
    """Return every dictionary (at most `MAX_LISTED`) as a link, those in training with their progress."""
    aria = attrs({"aria-current": "true"})
    rows = [html.Li(_link(entry), **(aria if entry.name == chosen else {})) for entry in entries[:MAX_LISTED]]
    more = len(entries) - len(rows)
    return html.Ul([*rows, *[html.Li(f"and {more:,} older", className="wb-none")] * bool(more)])


def _link(entry: Entry) -> dcc.Link:
    size = f"{entry.d_sae:,} features" if entry.d_sae else ""
    words = [entry.kind, size, f"k {entry.k}" if entry.k else ""]
    state = _STATES[entry.state]
    share = entry.share if entry.unfinished else None
    quality = entry.scores
    scores = [] if quality is None else [f"FVU {shown(quality.fvu)}", f"L0 {shown(quality.l0)}"]
    if share is not None:
        state = f"{state} · {share:.0%}"
    return dcc.Link(
        [
            html.Span([html.Span(entry.name, className="wb-sae-name"), html.Span(state, className="wb-sae-state")]),
            html.Span(" · ".join(word for word in words if word), className="wb-quiet"),
            html.Span("   ".join(scores), className="wb-sae-scores") if scores else None,
            html.Progress(value=f"{share:.4f}", max="1", **attrs({"aria-label": f"{entry.name} trained"}))
            if share is not None
            else None,
        ],
        href=sae_href(entry.name),
        className=f"wb-sae wb-sae-{entry.state}",
    )


def live_notice(entry: Entry) -> html.Div | None:
    """Return the progress of an unfinished run, and a warning when it has stopped writing."""
    if entry.state == "broken":
        return notice(html.Strong(f"Cannot read {entry.name}. "), html.Span(entry.problem), tone="error")
    if not entry.unfinished:
        return None
    done, total = number(entry.progress.get("tokens")), number(entry.progress.get("total_tokens"))
    parts = [f"step {entry.progress['step']:,}" if isinstance(entry.progress.get("step"), int) else "",
             f"{done:,.0f} of {total:,.0f} tokens" if done is not None and total else "",
             f"{speed:,.0f} tokens/s" if (speed := number(entry.progress.get("tokens_per_second"))) else "",
             f"about {duration(entry.seconds_left)} left" if entry.seconds_left is not None else ""]  # fmt: skip
    progress = " · ".join(part for part in parts if part) or "no step is logged yet"
    instead = " It will replace the finished dictionary of this name." if entry.replaces else ""
    bar = (
        html.Progress(value=f"{entry.share:.4f}", max="1", **attrs({"aria-label": "trained"})) if entry.share else None
    )
    if entry.state == "silent":
        return notice(
            html.Strong(f"No log line for {duration(entry.quiet)}. "),
            html.Span(f"Its progress is {progress}. If it was stopped, the same command resumes it.{instead}"),
            bar,
            tone="warning",
        )
    title = "In training" if entry.state == "training" else "Trained; it is being scored and written"
    return notice(html.Strong(f"{title}: "), html.Span(f"{progress}.{instead}", className="wb-notice-text"), bar)


def log_notices(log: Log) -> list[Part]:
    """Return messages about a damaged log, or a loss that is no longer finite."""
    shown_: list[Part] = []
    lost = first_not_finite(log.rows)
    if lost:
        words = f"The loss is not finite from step {lost['step']:,} on; train it again with a lower learning rate."
        shown_.append(notice(html.Span(words), tone="error"))
    if log.unreadable:
        lines = "1 line" if log.unreadable == 1 else f"{log.unreadable:,} lines"
        shown_.append(notice(html.Span(f"{lines} of the log cannot be read and are left out."), tone="warning"))
    return shown_


_METHOD = (
    "Variance explained and active latents are measured on held-out documents. Baselines: always the mean activation "
    "explains 0 %; the loss of the model is compared with that under ablation of the hook point."
)


def card(entry: Entry, inside: tuple[InModel, str] | None, made: list[Manifest]) -> html.Section:
    """Return the card of one dictionary: scores, settings and origin, links to its features and maps."""
    quality, run = entry.scores, entry.stored and entry.stored.training
    now = entry.progress if entry.unfinished else {}
    stats = [
        *[_stat(f"{name} now", _short(now.get(key))) for name, key in (("FVU", "fvu"), ("L0", "l0"))],
        *[_stat(f"{name} now", _percent(now.get(key))) for name, key in (("dead", "dead"), ("dense", "dense"))],
        _stat("features", f"{entry.d_sae:,}" if entry.d_sae else None),
        _stat("FVU", _short(quality and quality.fvu)),
        _stat("L0", _short(quality and quality.l0)),
        _stat("dead", _percent(quality and quality.dead_fraction)),
        _stat("dense", _percent(quality and quality.dense_fraction)),
        _stat("l2 ratio", _short(quality.l2_ratio if isinstance(quality, Reconstruction) else None)),
        _stat("CE recovered", _short(inside and inside[0].ce_recovered)),
        _stat("CE recovered (mean ablation)", _short(inside and inside[0].ce_recovered_from_mean)),
        _stat("tokens", _count(run and run.tokens_seen)),
        _stat("tokens/s", _count(run and run.tokens_per_second)),
    ]
    return panel(
        html.Span(entry.name, className="wb-circuit-title"),
        verdict(f"{entry.stored.headline()}.", html.P(_METHOD)) if entry.stored else None,
        html.Div([part for part in stats if part], className="wb-stats"),
        html.Table(html.Tbody([_row(name, value) for name, value in _facts(entry, inside)]), className="wb-evidence"),
        None if entry.unfinished else _links(made),
        note=_card_lead(entry),
        className="wb-sae-card",
    )


def _card_lead(entry: Entry) -> str:
    at = f" at {entry.hook_point}" if entry.hook_point else ""
    of = f" of {short_name(entry.model)}" if entry.model else ""
    if entry.imported:
        return f"Imported: a dictionary{of}{at}, {entry.kind or 'architecture unknown'}, written by another tool."
    quality = entry.scores
    scored = f"; scores on {quality.n_tokens:,} held-out tokens" if isinstance(quality, Reconstruction) else ""
    return f"A {entry.kind} dictionary{of}{at}{scored}." if entry.kind else "No settings are stored with it."


def _facts(entry: Entry, inside: tuple[InModel, str] | None) -> list[tuple[str, str]]:
    made, of = entry.stored, entry.settings
    run, check = made and made.training, made and made.self_check
    facts: list[tuple[str, Any]] = [("plan", run.plan if run else entry.progress.get("plan"))]
    if isinstance(of, ImportedSettings):
        facts += [("format", of.format), ("from", of.source)]
    elif entry.recording:
        facts.append(("trained on", f"recording {entry.recording}"))
    if check is not None:
        agreement = f"agrees with the forward pass of that format to {check.largest_error:.1e} on {check.rows} rows"
        facts.append(("self-check", agreement))
    values = {name: getattr(cfg, name) for cfg in (entry.sae, entry.train) for name in _SETTINGS if hasattr(cfg, name)}
    facts += [(name.replace("_", " "), values.get(name)) for name in _SETTINGS]
    if inside:
        loss, artefact = inside
        facts.append(("loss in the model", f"{_short(loss.ce_clean)} → {_short(loss.ce_spliced)} nats"))
        facts.append(("from evaluation", artefact))
    return [(name, shown(value)) for name, value in facts if value not in (None, "", "none")]


def _links(made: list[Manifest]) -> html.P:
    links: list[Part] = []
    for manifest in made:
        href = f"/feature/{manifest.name}" if manifest.kind == "features" else atlas_href(manifest.name)
        words = "its features" if manifest.kind == "features" else "its map"
        links += [quiet_link(f"{words} ({manifest.name})", href), " · "]
    if not links:
        return html.P(
            as_typed("Its features are not described yet; `workbench features` makes the tables."),
            className="wb-note wb-flush",
        )
    return html.P(links[:-1], className="wb-flush")


def _stat(name: str, value: str | None) -> html.Div | None:
    return stat(name, value, HINTS.get(name, "")) if value else None


def _row(name: str, value: str) -> html.Tr:
    return html.Tr([html.Th(name, scope="row"), html.Td(value, dir="auto")])


def _short(value: Any) -> str:
    return shown(scalar) if (scalar := number(value)) is not None else ""


def _percent(value: Any) -> str:
    return f"{scalar:.1%}" if (scalar := number(value)) is not None else ""


def _count(value: Any) -> str:
    scalar = number(value)
    return "" if scalar is None else f"{scalar / 1e6:.1f} million" if scalar >= 1e6 else f"{scalar:,.0f}"


_EMPTY: Any = {"layout": {"xaxis": {"visible": False}, "yaxis": {"visible": False}, "paper_bgcolor": "rgba(0,0,0,0)",
                          "plot_bgcolor": "rgba(0,0,0,0)"}}  # fmt: skip
TICK = 2000
"""milliseconds between looks at a run that goes on"""


def layout(context: PageSources, name: str | None = None, alone: str = "", **_: object) -> html.Div:
    """`/sae?name=<dictionary>&alone=1`; without a name, one that is in training, else the newest."""
    entries = view.entries(context.workspace)
    chosen = view.choose(context.workspace, name, entries)
    return page(
        "SAE",
        dcc.Store(id="sae-state", data={"name": chosen.name}),
        dcc.Store(id="sae-status", data=chosen.state),
        dcc.Store(id="sae-logs", data=_logs(context.workspace, chosen, entries)),
        dcc.Store(id="sae-listed", data=_listed(entries)),
        dcc.Interval(id="sae-tick", interval=TICK, disabled=not any(entry.unfinished for entry in entries)),
        html.Div(
            [
                html.Nav(
                    panel("Dictionaries", html.Div(listing(entries, chosen.name), id="sae-list"), className="wb-list"),
                    **attrs({"aria-label": "Dictionaries"}),
                ),
                html.Div(
                    [
                        note_controls(f"saes/{chosen.name}"),
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
        lead=_lead(entries),
    )


def register(app: Dash) -> None:
    """Add the callbacks: the panels of the chosen dictionary, and their updates while it is in training."""
    app.callback(
        Output("sae-card", "children"),
        Output("sae-scores", "children"),
        Input("sae-state", "data"),
        Input("sae-status", "data"),
        State("scheme", "data"),
    )(show_dictionary)
    app.callback(
        Output("sae-health", "figure"),
        Output("sae-log", "children"),
        Input("sae-state", "data"),
        Input("sae-overlay", "checked"),
        Input("sae-logs", "data"),
        State("scheme", "data"),
    )(show_training)
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
    )(follow_training)


def _health_panel(alone: bool) -> html.Section:
    words = "with other runs of its sweep"
    name = attrs({"aria-label": words})
    overlay = dmc.Switch(id="sae-overlay", label=words, checked=not alone, size="xs", **name)
    return panel(
        "Training curves",
        html.Div(id="sae-log"),
        graph("sae-health", figure=_EMPTY, label="Loss, FVU, L0, threshold, dead and dense features", height=HEIGHT),
        note="measured on the training batches",
        more="Point at a title for its meaning; click a run in the legend to hide it.",
        actions=[overlay],
        className="wb-row",
    )


def _lead(entries: list[view.Entry]) -> str:
    going = sum(entry.state in ("training", "finishing") for entry in entries)
    silent = sum(entry.state == "silent" for entry in entries)
    words = [f"{sum(entry.state == 'finished' for entry in entries)} finished"]
    words += [f"{going} in training"] * bool(going) + [f"{silent} without a new log line"] * bool(silent)
    return "Sparse dictionaries: an activation is reconstructed as a sum of few decoder directions. " + (
        ", ".join(words) + " here."
    )


def show_dictionary(state: dict[str, str], _status: str, scheme: str | None) -> tuple[Children, Children]:
    """Return the card of a dictionary, and the panels below: scores, concepts and scaling law."""
    workspace = current().workspace
    entries = view.entries(workspace)
    chosen = view.choose(workspace, state["name"], entries)
    if chosen.state == "broken":
        return None, None
    inside = view.in_the_model(workspace, chosen.name)
    made = [] if chosen.unfinished else view.described(workspace, chosen.name)
    boxes = [] if chosen.unfinished else [_plane(workspace, chosen, entries, scheme), _density(workspace, made, scheme)]
    return card(chosen, inside, made), [
        html.Div(boxes, className="wb-two wb-even"),
        None if chosen.unfinished else _compared(workspace, chosen),
        None if chosen.unfinished else null_panel(workspace, chosen),
        None if chosen.unfinished else concept_panel(workspace, chosen, made),
        _scaling(workspace, chosen, scheme),
    ]


def _plane(workspace: Workspace, chosen: view.Entry, entries: list[view.Entry], scheme: str | None) -> html.Section:
    points = view.points(workspace, chosen, entries)
    foreign = len({point.recording for point in points}) > 1
    note = "lower left is better; compare at the same L0"
    note += "; open marks were scored on other documents" if foreign else ""
    figure = pareto_plane(points, chosen.name, theme(scheme))
    plane = graph("sae-plane", figure=figure, label="FVU against L0")
    more = "Every dictionary at this hook point, scored on held-out documents."
    return panel("Error against sparsity", plane, note=note, more=more)


def _compared(workspace: Workspace, chosen: view.Entry) -> html.Section | None:
    """Return the newest comparison of a dictionary with others; None without one."""
    comparison = next((comparison for comparison in view.comparisons(workspace) if comparison.of(chosen.name)), None)
    if comparison is None:
        return None

    def body() -> list[Part]:
        overlaps = [html.Li(f"{pair}: {shared}.") for pair, shared in comparison.shared.items()]
        closest = comparison.matches.rows(order="cosine desc", limit=N_MATCHES) if comparison.matches else []
        lines = [html.Li([_match(row), html.Span(f"{row.cosine:.2f}", className="wb-value")]) for row in closest]
        return [
            records_table(comparison.to_records()),
            html.Ul(overlaps, className="wb-said") if overlaps else None,
            html.H3("Closest matched features") if lines else None,
            html.Ol(lines, className="wb-lines") if lines else None,
        ]

    return guarded(
        "Compared at one L0", body, note=f"cut: reduced to L0 {comparison.l0:.1f}; comparison {comparison.name}"
    )


def _match(row: MatchedPair) -> dcc.Link:
    """Return a link to the comparison of two matched features."""
    first, second = (f"{name}:{at}" for name, at in zip(row.pair.split(", "), (row.first, row.second), strict=True))
    return quiet_link(f"{first} and {second}", compare_href(first, second))


def _density(workspace: Workspace, made: list[Manifest], scheme: str | None) -> html.Section:
    tables = next((m.name for m in made if m.kind == "features"), None)
    title = "Firing density of its features"
    if tables is None:
        figure = message_figure("there are no feature tables yet", theme(scheme), height=320)
        note = as_typed("`workbench features` measures the density of every feature on a recording")
        return panel(title, graph("sae-density", figure=figure, label="no density histogram"), note=note)
    try:
        densities = view.densities(workspace, tables)
    except Exception as error:
        return panel(title, notice(explain(error), tone="error"))
    rest = [f"{densities.dead:,} are dead", " in " if densities.n_tokens else "",
            f"{densities.n_tokens:,} tokens" if densities.n_tokens else "", f", {densities.dense:,} are "]  # fmt: skip
    dense = quiet_link("dense", f"/feature/{tables}/?d=-1,0", title="fire on more than a tenth of the tokens")
    figure = density_histogram(densities, theme(scheme))
    return panel(title, graph("sae-density", figure=figure, label="Histogram of density"), note=[*rest, dense])


def _scaling(workspace: Workspace, chosen: view.Entry, scheme: str | None) -> html.Section | None:
    law = view.scaling(workspace, chosen.name)
    if law is None:
        return None
    figure = scaling_curves(law, theme(scheme), chosen=chosen.name)
    lines = [html.Li(line) for line in law.details()]
    return panel(
        "Error as a law of size",
        graph("sae-scaling", figure=figure, label="Held-out FVU over number of latents, with the fitted law"),
        html.Ul(lines, className="wb-said"),
        note=f"fit {law.name}",
        more="One colour per k. Band: 95 % interval of the fitted law. Cross: the prediction for the largest size from "
        "the smaller ones.",
        className="wb-row",
    )


def show_training(
    state: dict[str, str], overlay: bool, _logs: object, scheme: str | None
) -> tuple[go.Figure, Children]:
    """Return the training curves of a dictionary, with its sweep's under `overlay`, and notices from its log."""
    workspace = current().workspace
    entries = view.entries(workspace)
    chosen = view.choose(workspace, state["name"], entries)
    if chosen.state == "broken":
        return message_figure("this dictionary cannot be read", theme(scheme), height=HEIGHT), None
    shown = view.sweep(workspace, chosen, entries) if overlay else [chosen]
    logs = {entry.name: read_log(view.log_path(workspace, entry)) for entry in shown}
    notes = log_notices(logs[chosen.name])
    if not logs[chosen.name].rows:
        words = "imported dictionaries have no training log" if chosen.imported else "no line of the log is written yet"
        return message_figure(words, theme(scheme), height=HEIGHT), notes
    return health_figure([HealthRun(name, log.rows) for name, log in logs.items()], theme(scheme)), notes


def follow_training(
    _n: int | None, state: dict[str, str], status: str, logs: list[str], listed: str
) -> tuple[Any, ...]:
    """Return what has changed since the last call, and `no_update` for the rest."""
    workspace = current().workspace
    entries = view.entries(workspace)
    chosen = view.choose(workspace, state["name"], entries)
    now_logs, now_listed = _logs(workspace, chosen, entries), _listed(entries)
    same = now_listed == listed
    return (
        no_update if same else listing(entries, chosen.name),
        no_update if same else live_notice(chosen),
        no_update if chosen.state == status else chosen.state,
        no_update if now_logs == logs else now_logs,
        no_update if same else now_listed,
        not any(entry.unfinished for entry in entries),
    )


def _logs(workspace: Workspace, chosen: view.Entry, entries: list[view.Entry]) -> list[str]:
    """Return a fingerprint of the logs in the training curves."""
    if chosen.state == "broken":
        return []
    return [fingerprint(view.log_path(workspace, entry)) for entry in view.sweep(workspace, chosen, entries)]


def _listed(entries: list[view.Entry]) -> str:
    """Return a fingerprint of the list of dictionaries and their progress."""
    return hash_json([(e.name, e.state, e.when, e.share, e.quiet // 60 if e.state == "silent" else 0) for e in entries])


PAGE = Page(
    title="SAE",
    path="/sae",
    group="features",
    order=70,
    about="Dictionaries: training, error and sparsity",
    layout=layout,
    register=register,
    shows="Sparse dictionaries (SAEs): the curves of their training while it runs, their reconstruction error and "
    "sparsity on held-out documents, and the loss of the model with the reconstruction in place.",
    command="workbench demo --no-serve",
    fill=first_step,
)
