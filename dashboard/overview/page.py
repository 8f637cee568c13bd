"""*Overview*: a prompt to ask about, the routes of one, the findings as pictures, and the artefacts behind a fold.

Findings of a workspace: results of its artefacts, each with its null, chosen by score.

Every artefact with a measurement and a null gives candidates, by code for its kind. A candidate must exceed its null:
by an interval above the null's upper end, or by a significant test. Of many concepts some would do so by chance, so the
dictionary must also beat an untrained one on more concepts than it loses (sign test). Its strength is the part of the
measured value that the null does not reach,

    1 - null / value

A feature needs a label that exceeds its null. The strongest of each kind may be shown, `MOST` in all: those kinds that
tell a reader most (`FIRST`), and pictures of different looks. A workspace of untrained models and dictionaries has
none.
"""

import logging
import shlex
from collections.abc import Iterator
from dataclasses import replace
from operator import attrgetter
from typing import Any
from urllib.parse import quote

from dash import Dash, Input, Output, State, dcc, html, no_update

from dashboard.answers import is_object
from dashboard.components.dots import cells, dots
from dashboard.components.evidence import number
from dashboard.components.frame import Part, notice, page, panel, quiet_link, still
from dashboard.components.pages import Page, page_of, run_button, run_state
from dashboard.components.tokens import token_strip
from dashboard.data.tour import first_feature
from dashboard.data.workspace import kept, stamp
from dashboard.figures.theme import visible
from dashboard.overview._ask import asking, register_asking
from dashboard.overview._data import Card, Overview, overview
from dashboard.sources import PageSources, current
from interp.artifacts import KINDS, hash_json
from interp.circuits.induction_circuit import InductionCircuit
from interp.doctor.certificate import Certificate
from interp.errors import WorkbenchError, as_typed, program
from interp.models.short_name import short_name
from interp.registry import kind_in
from interp.view import Finding
from interp.workspace import NOT_OF_THIS_VERSION, Broken, Partial, Workspace, outdated
from saes.features.schema import NO_LABEL, Features

CLOCK = 2500
"""Milliseconds between two checks of the workspace."""


def layout(context: PageSources, **_: object) -> html.Div:
    """Return the field for a prompt with the routes of one, the findings, and every artefact as a line."""
    news = _news(context)
    return page(
        "Overview",
        asking(context.workspace),
        html.Div(news, id="overview-news"),
        html.Div(_findings(context), id="overview-cards"),
        html.Div(id="overview-artefacts"),
        dcc.Interval(id="overview-clock", interval=CLOCK),
        dcc.Store(id="overview-shown", data=_shown(context, news)),
        dcc.Store(id="overview-stamp", data=stamp(context.workspace)),
    )


def register(app: Dash) -> None:
    """Let the page follow the workspace: the progress of runs, and artefacts that appear and go."""
    register_asking(app)

    @app.callback(
        Output("overview-news", "children"),
        Output("overview-cards", "children"),
        Output("overview-shown", "data"),
        Output("overview-stamp", "data"),
        Input("overview-clock", "n_intervals"),
        State("overview-shown", "data"),
        prevent_initial_call=True,
    )
    def follow(_: int | None, shown: list[str]) -> tuple[Any, Any, Any, Any]:
        context = current()
        news = _news(context)
        now = _shown(context, news)
        same = [before == after for before, after in zip(shown, now, strict=True)]
        cards, artefacts = (no_update, no_update) if same[1] else (_findings(context), now[1])
        return no_update if same[0] else news, cards, no_update if all(same) else now, artefacts

    @app.callback(Output("overview-artefacts", "children"), Input("overview-stamp", "data"))
    def list_artefacts(_: str) -> html.Details | None:  # after the findings, as it reads what they leave unread
        return artefacts(current())


def _shown(context: PageSources, news: list[Part]) -> list[str]:
    """Return fingerprints of the news and of the cards."""
    return [hash_json(str(news)), stamp(context.workspace)]


def _news(context: PageSources) -> list[Part]:
    """Return the runs that wait or run, the unfinished artefacts and the unreadable ones, each as a notice."""
    runs = context.runs.active() if context.runs else []
    workspace = context.workspace
    return [
        *(notice(html.Strong(quiet_link(f"Run {run.id}", "/runs")), f" {run_state(run)}") for run in runs),
        *map(_partial, workspace.partials()),
        *map(_broken, workspace.broken()),
        *(notice(html.Strong(f"{key}: "), f"{NOT_OF_THIS_VERSION}.") for key in workspace.foreign()),
    ]


@kept
def _summary(workspace: Workspace, stamp: str) -> Overview:
    """Return the artefacts."""
    return overview(workspace)


def _findings(context: PageSources) -> list[Part]:
    workspace = context.workspace
    if not (workspace.artifacts() or workspace.partials() or workspace.broken()):
        return [_empty(str(workspace.root), runs=context.runs is not None)]
    return [findings_panel(findings(workspace, stamp(workspace)))]


def artefacts(context: PageSources) -> html.Details | None:
    """Return the artefacts behind a fold, newest first, a line each; None without any."""
    workspace = context.workspace
    summary = _summary(workspace, stamp(workspace))
    if summary.empty:
        return None
    cards = sorted(
        (card for of_kind in summary.cards.values() for card in of_kind), key=attrgetter("created"), reverse=True
    )
    made = f", made with {', '.join(map(short_name, summary.models))}" if summary.models else ""
    about = [f" {len(cards)} in ", html.Code(workspace.name), f"{made}, newest first"]
    head = html.Summary([html.H2("Artefacts"), html.Span(about, className="wb-quiet")])
    lines = html.Ol(list(map(_line, cards)), className="wb-made")
    return html.Details([head, still(lines)], className="wb-panel wb-fold", id="overview-made")


def findings_panel(findings: tuple[Finding, ...]) -> html.Section | None:
    """Return the strongest findings as pictures; None without any."""
    if not findings:
        return None
    note = "picked automatically: the result furthest above its null of each kind"
    head = html.Div([html.H2("Found here"), html.Span(note)], className="wb-column-head")
    return html.Section([head, html.Ol(list(map(_finding, findings)), className="wb-found")], id="overview-found")


def _finding(finding: Finding) -> html.Li:
    top = max(finding.value, finding.null)
    bars = [
        html.Div(
            [
                html.Span(html.Span(style={"width": f"{max(value, 0) / top:.1%}"}), className="wb-track"),
                html.Span(f"{name} {number(value) if value > 0 else 'no effect'}", className="wb-value"),
            ],
            className=f"wb-against wb-{name}",
        )
        for name, value in (("measured", finding.value), ("null", finding.null))
    ]
    picture = cells(finding.grid, finding.sentence) if finding.grid else None
    if finding.dots is not None:
        picture = dots(finding.dots, finding.sentence)
    if finding.example is not None:
        activations, peak = finding.example["activations"], finding.example["peak"]
        picture = token_strip(finding.example["tokens"], activations, peak=peak, maximum=max(activations))
    return html.Li(
        [
            html.H3(finding.title, dir="auto"),
            picture,
            html.P(finding.sentence, dir="auto", title=finding.more or None),
            html.Div([*bars, html.P(finding.about, className="wb-note")], className="wb-againsts"),
            quiet_link(finding.proof, page_of(finding.href)),
        ],
        className="wb-card",
    )


def _line(card: Card) -> html.Li:
    """Return an artefact on one line; its numbers and what it was made from are the tip of the line."""
    origin = _origin(card.parents)
    tip = "; ".join([*(f"{name} {value}" for name, value in card.facts), *([f"made from {origin}"] if origin else [])])
    return html.Li(
        [
            html.Span(_title(card.kind), className="wb-made-kind"),
            quiet_link(card.name, card.href),
            html.Span(card.sentence, className="wb-made-result", dir="auto"),
            html.Time(f"{_when(card.created)} UTC", dateTime=card.created),
        ],
        title=tip or None,
    )


def _origin(parents: list[str]) -> str:
    """`recordings/demo` -> `Recording demo`; certificates, which say that it could be made, are left out."""
    named: list[str] = []
    for parent in parents:
        folder, _, name = parent.replace("model:", "model/").replace("text:", "text/").partition("/")
        kind = kind_in(folder)
        if kind == Certificate.kind:
            continue
        title = _title(kind) if kind else folder.capitalize()
        named.append(f"{title} {short_name(name) if folder == 'model' else name}")
    return ", ".join(named)


def _title(kind: str) -> str:
    return KINDS[kind].load().title


def _when(created: str) -> str:
    return created.replace("T", " ").removesuffix("Z")[:16]


def _partial(partial: Partial) -> html.Div:
    report = partial.status.get("progress")
    progress = dict(report) if is_object(report) else {}
    done, total = progress.pop("done", None), progress.pop("total", None)
    counted = isinstance(done, int | float) and isinstance(total, int | float) and total
    share = f"{done / total:.0%} done" if counted else ""
    details = ", ".join(
        f"{key} {_short(value)}" for key, value in progress.items() if not isinstance(value, dict | list)
    )
    words = " · ".join(part for part in (share, details) if part) or partial.status.get("problem", "just started")
    updated = _when(str(partial.status.get("updated") or partial.status.get("started") or ""))
    return notice(
        html.Strong(f"Unfinished {partial.kind.replace('_', ' ')} {partial.name}"),
        html.Span(f" {words}. ", className="wb-notice-text"),
        html.Span(f"Last update {updated} UTC; the same command resumes it." if updated else ""),
        html.Progress(value=str(done), max=str(total)) if share else None,
    )


def _broken(broken: Broken) -> html.Div:
    return notice(html.Strong(f"Cannot read {broken.key}. "), html.Span(as_typed(broken.problem)), tone="error")


def _short(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)


STEPS = (
    "record smollm2-135m --name mine",
    "train mine",
    "features mine",
    "heads smollm2-135m",
    "atlas sae:mine",
)
"""Arguments of the commands that fill a workspace step by step."""


def _empty(root: str, *, runs: bool) -> html.Section:
    first = {"model": "smollm2-135m", "name": "mine"}
    start = [
        html.P("Record what a model computes, in the background; the page Features then offers the next steps:"),
        run_button("record", first, id="first", text="Record smollm2-135m", then="/"),
    ]
    commands = [f"{program()} {step} --workspace {shlex.quote(root)}" for step in STEPS]
    in_terminal = [
        html.P("One command records a real model, opens a dictionary of its features and maps them, within minutes:"),
        html.Pre(f"{program()} demo --workspace {shlex.quote(root)}", className="wb-command", tabIndex=0),
        html.P("Or step by step:"),
        html.Pre("\n".join(commands), className="wb-command", tabIndex=0),
    ]
    return panel(
        "Nothing here yet",
        html.P("This page will show what was found in a model, each finding with its null, and every artefact."),
        *(start if runs else []),
        html.Details([html.Summary("In a terminal"), *in_terminal], className="wb-folded", open=not runs),
        html.P(["Then ", dcc.Link("look again", href="/", refresh=True, className="wb-link"), "."]),
    )


log = logging.getLogger("workbench.dashboard")
MOST = 3
FIRST = ("proof", "feature", "graph", "ring", "circuit", "head", "map", "concept", "direction")
"""Kinds of findings that tell a reader most, in this order; others follow, the strongest first."""
LEAST = 0.1
"""Smallest strength. Scores of graphs have no interval: an untrained set differs from another one by less than this."""
TOKENS = 12
"""Tokens of an example on each side of its peak."""


@kept
def findings(workspace: Workspace, stamp: str) -> tuple[Finding, ...]:
    """Return the findings to show."""
    by_kind: dict[str, list[Finding]] = {}
    for finding in _found(workspace):
        if finding.strength >= LEAST:
            by_kind.setdefault(finding.kind, []).append(finding)
    best = (_first_labelled(workspace, sorted(group, key=_weakness)) for group in by_kind.values())
    ranked = sorted(filter(None, best), key=lambda finding: (_rank(finding), _weakness(finding)))
    looks = [finding.picture for finding in ranked]
    again = [looks.index(look) < n for n, look in enumerate(looks)]
    chosen = sorted(sorted(range(len(ranked)), key=lambda n: (again[n], n))[:MOST])
    return tuple(_with_example(workspace, ranked[n]) for n in chosen)


def _rank(finding: Finding) -> int:
    return FIRST.index(finding.kind) if finding.kind in FIRST else len(FIRST)


def _weakness(finding: Finding) -> float:
    return -finding.strength


def _first_labelled(workspace: Workspace, findings: list[Finding]) -> Finding | None:
    """Return the first finding, without features whose labels do not exceed their null."""
    return next((finding for finding in findings if _has_label(workspace, finding)), None)


def _has_label(workspace: Workspace, finding: Finding) -> bool:
    """Return False for a finding on a feature whose label does not exceed its null."""
    if finding.feature is None:
        return True
    name, at = finding.feature
    sql = "select 1 from f where feature = ? and label_kind = ?"
    try:
        path = workspace.table_path("features", name, "features")
        return not workspace.query(sql, at, NO_LABEL, f=path).num_rows
    except WorkbenchError:  # its own page says what is wrong
        return True


def _found(workspace: Workspace) -> Iterator[Finding]:
    """Yield the candidates of artefacts, newest first; heads only if no circuit of the model proves them.

    Outdated and damaged artefacts give none.
    """
    stale = outdated(workspace.artifacts(), workspace.key)
    proved = {circuit.settings.model for circuit in workspace.values(InductionCircuit) if circuit.verdict.holds}
    for manifest in workspace.newest(*KINDS):
        if stale.get(manifest.key):
            continue
        try:
            candidates = workspace.value(manifest).findings()
        except (WorkbenchError, OSError) as error:
            log.warning("no findings of %s: %r", manifest.key, error)
            continue
        yield from (finding for finding in candidates if not (finding.in_circuit and manifest.model in proved))
    yield from _feature(workspace)


def _feature(workspace: Workspace) -> Iterator[Finding]:
    """Yield the feature that the tour opens, with its label's score."""
    try:
        first = first_feature(workspace, stamp(workspace))
        if first is None:
            return
        table = workspace.open(Features, first.features).features
        (row,) = table.query("select label_score, label_null_high from t where feature = ?", first.feature).to_pylist()
    except WorkbenchError as error:
        log.warning("no feature to show first: %r", error)
        return
    label = first.label.partition(" (")[0]
    words = ", ".join(word.strip() for word in first.says)
    says = f"it makes the model say {words}" if words else f"it fires on “{first.word}”"
    yield Finding(
        kind="feature",
        title=f"A feature for {visible(label, 60)}",
        sentence=f"Feature {first.feature} of {first.features}: {says}.",
        value=row["label_score"],
        null=row["label_null_high"],
        about="label right on held-out firings; null: labels of other features",
        href=f"/feature/{quote(first.features)}/{first.feature}",
        proof="Open the feature",
        feature=(first.features, first.feature),
    )


def _with_example(workspace: Workspace, finding: Finding) -> Finding:
    """Return a finding about a feature without a picture with the feature's strongest example, cut around its peak."""
    if finding.feature is None or finding.dots is not None:
        return finding
    features, at = finding.feature
    sql = "select tokens, activations, peak from e where feature = ? order by activation desc limit 1"
    try:
        rows = workspace.query(sql, at, e=workspace.table_path("features", features, "examples")).to_pylist()
    except WorkbenchError as error:
        log.warning("no example of feature %s of %s: %r", at, features, error)
        return finding
    if not rows:
        return finding
    row = rows[0]
    start = max(0, row["peak"] - TOKENS)
    part = slice(start, row["peak"] + TOKENS + 1)
    shown = {"tokens": row["tokens"][part], "activations": row["activations"][part], "peak": row["peak"] - start}
    return replace(finding, example=shown)


PAGE = Page(
    title="Overview",
    path="/",
    group="work",
    order=10,
    about="What was found here, and every artefact",
    layout=layout,
    register=register,
)
