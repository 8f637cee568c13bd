"""*Runs*: start an analysis from a form, follow the queue, and see what is on disk.

The form is made from the settings of the verb (`dashboard.queue.VerbForm`); the command that does the same in a
terminal is shown below it. Artefacts are listed with their size, what was made from them, and whether a parent has
changed since.
"""

from collections.abc import Iterator
from typing import Any

from dash import ALL, MATCH, Dash, Input, NoUpdate, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from dashboard.components.forms import YES_NO, help_of, text_input, text_of
from dashboard.components.frame import Part, attempt, attrs, explain, fold, notice, page, panel, quiet_link, select
from dashboard.components.pages import Page, artefact_href, run_progress, runs_href
from dashboard.data.feature_names import is_name, of_saes, proposals
from dashboard.data.workspace import stamp
from dashboard.figures.theme import visible
from dashboard.queue import QueuedRun, RunQueue, VerbForm
from dashboard.sources import PageSources, current
from interp.artifacts import PARTIAL, hash_json, partial_path
from interp.cache import size_text
from interp.errors import MissingError, UsageError, WorkbenchError, as_typed, program
from interp.options import FEATURE_MENUS, Option
from interp.workspace import Workspace, folder_bytes, outdated

FIELD = {"type": "run-field", "verb": ALL, "name": ALL}
ACT = {"type": "run-act", "act": ALL, "of": ALL}
MOST_SHOWN = 50
"""Finished runs in the list."""
MOVING, RESTING = 1000, 3000
"""Milliseconds between two looks at the queue, while something runs and while nothing does: another page, or a command
in a terminal, may start something."""


def layout(context: PageSources, verb: str | None = None, **address: str) -> html.Div:
    """Return the form of a verb, the queue, and the artefacts; the address may fill the form."""
    queue = context.runs
    if queue is None:
        parts: list[Part] = [
            notice(as_typed("This dashboard shows artefacts and runs nothing; `workbench serve` does."))
        ]
    else:
        parts = [notice(queue.problem, tone="warning")] if queue.problem else []
        parts += [html.Div([_start(queue, verb, address), _queue_panel(queue)], className="wb-two wb-runs")]
    return page(
        "Runs",
        *parts,
        html.Div(_storage(context.workspace), id="runs-storage"),
        dcc.Store(id="runs-stored", data=stamp(context.workspace)),
        lead="One analysis runs at a time, in the background, on all cores but one. Results appear on their pages.",
    )


def _start(queue: RunQueue, verb: str | None, address: dict[str, str]) -> html.Section:
    forms = queue.catalogue.forms
    chosen = verb if verb in forms else next(iter(forms))
    address = _usual(queue, forms[chosen]) | (address if verb == chosen else {})
    data = [{"value": name, "label": name} for name in forms]
    return panel(
        "Start a run",
        html.Ul([_preset(queue, name, *words, chosen) for name, words in PRESETS.items()], className="wb-presets"),
        html.Div([select("runs-verb", "Analysis", data, chosen, searchable=True), "or another analysis"],
                 className="wb-controls wb-quiet"),
        html.Div(_form(queue, forms[chosen], address), id="runs-form"),
        html.P("The same command for a terminal:", className="wb-note wb-flush"),
        html.Div(
            [
                html.Pre("", id="runs-command", className="wb-command wb-run-command", tabIndex=0),
                dcc.Clipboard(target_id="runs-command", className="wb-icon", title="Copy the command"),
            ],
            className="wb-run-copy",
        ),
        html.P("", id="runs-problem", className="wb-note", role="status"),
        html.Button("Add to the queue", id="runs-add", className="wb-act", type="button", disabled=True),
        html.P(
            ["All of it for your own model and text, in a terminal: ", html.Code(f"{program()} own MODEL --text FILE")],
            className="wb-note",
        ),
        note="Choose what to do; only what is marked with * has to be filled in.",
    )  # fmt: skip


PRESETS = {
    "record": ("Record", "a model's activations on text", ("corpus", "tokens")),
    "train": ("Train", "a dictionary on a recording", ("tokens",)),
    "features": ("Describe", "the features of a dictionary", ("dictionary",)),
    "trace": ("Trace", "why a model answers a prompt so", ("target",)),
    "heads": ("Heads", "what each attention head does", ()),
    "direction": (
        "Direction",
        "from pairs, lists or a trait",
        ("pairs", "towards", "away", "trait", "instead"),
    ),
}
"""What is done first, by verb: title, what it makes, and the fields that are shown besides the required ones."""
FIRST_FIELDS = 6
"""Fields of any other verb that are shown; the rest is folded."""


def _preset(queue: RunQueue, verb: str, title: str, about: str, _: tuple[str, ...], chosen: str) -> html.Li:
    usual = _usual(queue, queue.catalogue.forms[verb])
    current = attrs({"aria-current": "true"} if verb == chosen else {})
    words = [html.Strong(title), html.Span(about, className="wb-quiet")]
    return html.Li(dcc.Link(words, href=runs_href(verb, **usual)), **current)


def _usual(queue: RunQueue, form: VerbForm) -> dict[str, str]:
    """Return the values of a new form: for what it needs, the newest that the workspace has."""
    needed: dict[str, str] = {}  # by menu: of two models, the second is for the visitor to choose
    for option in form.fields:
        if option.menu and (option.required or option.name == "dictionary"):
            needed.setdefault(option.menu, option.name)
    offered = {name: queue.catalogue.suggestions(menu) for menu, name in needed.items()}
    return {name: values[0] for name, values in offered.items() if values}


def _form(queue: RunQueue, form: VerbForm, values: dict[str, str]) -> list[Part]:
    usual = [option.name for option in form.fields if not option.advanced][:FIRST_FIELDS]
    first_fields = {*(PRESETS[form.verb][2] if form.verb in PRESETS else usual), *values}
    basic = [option for option in form.fields if option.required or option.name in first_fields]
    rest = [option for option in form.fields if option not in basic]

    def inputs(options: list[Option]) -> html.Div:
        return html.Div([_input(queue, form.verb, option, values) for option in options],
                        className="wb-fields")  # fmt: skip

    first, _, about = form.about.partition("\n")
    return [
        html.Div([html.H3(first), help_of(form.fields)], className="wb-panel-title"),
        fold("More about it", html.P(about.strip(), className="wb-run-about")),
        inputs(basic) if basic else None,
        fold(f"All {len(rest)} other settings", inputs(rest)) if rest else None,
    ]


def _features(queue: RunQueue, verb: str, text: str, table: str | None) -> list[str]:
    """Return what the menu of a feature offers for a text: of the table that the form names, else of every SAE."""
    known = {option.name for option in queue.catalogue.forms[verb].fields}
    if "features" not in known:
        return proposals(queue.workspace, text, of_saes(queue.workspace))
    return proposals(queue.workspace, text, {table: ""}) if table in queue.workspace.names("features") else []


def _input(queue: RunQueue, verb: str, option: Option, values: dict[str, str]) -> Component:
    if option.menu in FEATURE_MENUS:
        offered = _features(queue, verb, "", values.get("features"))
    else:
        offered = list(option.choices) or (queue.catalogue.suggestions(option.menu) if option.menu else [])
    id = {"type": "run-field", "verb": verb, "name": option.name}
    return text_input(option, id, offered, values.get(option.name))


def entered(form: VerbForm, values: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were entered in a form; those left at their default are omitted."""
    options = {}
    for option in form.fields:
        value = values.get(option.name)
        if option.kind == "switch" and value in YES_NO:
            value = YES_NO[value]
        if option.menu in FEATURE_MENUS and isinstance(value, str):  # its label follows, where it was chosen
            name, _, _ = value.strip().partition(" ")
            value = name if is_name(name) or name.isdecimal() else value
        standing = [text_of(default) for default in option.default or ()] if option.many else text_of(option.default)
        if value in (None, "", []) or value == option.default or value == standing:
            continue
        options[option.name] = value
    return options


def _queue_panel(queue: RunQueue) -> html.Section:
    runs = queue.all()
    return panel(
        "Queue",
        html.Ul(_items(runs), id="runs-list", className="wb-run-list"),
        dcc.Interval(id="runs-clock", interval=_pace(runs)),
        dcc.Store(id="runs-shown", data=_fingerprint(runs)),
        dcc.Store(id="runs-changed", data=0),
    )


def _pace(runs: list[QueuedRun]) -> int:
    return MOVING if any(run.active for run in runs) else RESTING


def _fingerprint(runs: list[QueuedRun]) -> str:
    return hash_json([[run.id, run.state, run.fraction, run.stage, run.log, run.made] for run in runs])


def _items(runs: list[QueuedRun]) -> list[html.Li]:
    """Return the active and waiting runs in their order, then the finished ones, newest first."""
    if not runs:
        return [html.Li("Nothing was run from here yet.", className="wb-none")]
    ended = sorted((run for run in runs if not run.active), key=lambda run: run.ended or 0, reverse=True)
    return [_item(run) for run in [*(run for run in runs if run.active), *ended[:MOST_SHOWN]]]


def _item(run: QueuedRun) -> html.Li:
    acts = [("cancel", "Cancel")] if run.active else [("forget", "Remove")]
    if run.state in ("failed", "cancelled", "interrupted"):
        acts.insert(0, ("resume", "Resume"))
    buttons = [
        html.Button(
            words,
            id={"type": "run-act", "act": act, "of": run.id},
            className="wb-act wb-act-quiet",
            type="button",
            **attrs({"aria-label": f"{words} run {run.id}"}),
        )
        for act, words in acts
    ]
    folded = html.Details([html.Summary("Log"), html.Pre(run.log, className="wb-run-log", tabIndex=0)])
    return html.Li(
        [
            html.Div(
                [html.Span(run.id, className="wb-value"), html.Div(buttons, className="wb-panel-actions")],
                className="wb-panel-head",
            ),
            html.Code(visible(run.command, 400), className="wb-run-code"),
            html.Div(run_progress(run), className="wb-run-shown"),
            folded if run.log else None,
        ],
        className="wb-run",
        key=run.id,
    )


def register(app: Dash) -> None:
    """Add the callbacks of the page."""
    _register_form(app)
    _register_queue(app)


def _runs() -> RunQueue:
    queue = current().runs
    if queue is None:
        raise MissingError("this dashboard runs nothing; `workbench serve` starts one that does")
    return queue


def _values(verb: str, ids: list[dict[str, str]], values: list[Part]) -> tuple[VerbForm, dict[str, Any]]:
    forms = _runs().catalogue.forms
    if verb not in forms:
        raise UsageError(f"{verb!r} is not offered here")
    inputs = {id["name"]: value for id, value in zip(ids, values, strict=True) if id["verb"] == verb}
    return forms[verb], entered(forms[verb], inputs)


def _register_form(app: Dash) -> None:
    @app.callback(Output("runs-form", "children"), Input("runs-verb", "value"), prevent_initial_call=True)
    def show(verb: str) -> list[Part]:
        queue = _runs()
        form = queue.catalogue.forms[verb]
        return _form(queue, form, _usual(queue, form))

    @app.callback(
        Output("runs-command", "children"),
        Output("runs-problem", "children"),
        Output("runs-add", "disabled"),
        Input(FIELD, "value"),
        State(FIELD, "id"),
        State("runs-verb", "value"),
    )
    def state_command(values: list[Part], ids: list[dict[str, str]], verb: str) -> tuple[str, str, bool]:
        queue = _runs()
        form, options = _values(verb, ids, values)
        try:
            return queue.catalogue.command(form.verb, options), "", bool(queue.problem)
        except WorkbenchError as error:
            return "", explain(error), True

    @app.callback(
        Output({"type": "run-field", "verb": MATCH, "name": "feature"}, "data"),
        Input({"type": "run-field", "verb": MATCH, "name": "feature"}, "value"),
        State({"type": "run-field", "verb": MATCH, "name": ALL}, "value"),
        State({"type": "run-field", "verb": MATCH, "name": ALL}, "id"),
        prevent_initial_call=True,
    )
    def propose(text: str | None, values: list[Part], ids: list[dict[str, str]]) -> list[str]:
        table = next((str(value) for id, value in zip(ids, values, strict=True) if id["name"] == "features"), None)
        return _features(_runs(), ids[0]["verb"], text or "", table)

    @app.callback(
        Output("runs-changed", "data", allow_duplicate=True),
        Input("runs-add", "n_clicks"),
        State(FIELD, "value"),
        State(FIELD, "id"),
        State("runs-verb", "value"),
        prevent_initial_call=True,
    )
    def add(clicks: int | None, values: list[Part], ids: list[dict[str, str]], verb: str) -> str | NoUpdate:
        if not clicks:
            return no_update
        form, options = _values(verb, ids, values)
        return _runs().add(form.verb, options)


def _register_queue(app: Dash) -> None:
    @app.callback(
        Output("runs-list", "children"),
        Output("runs-clock", "interval"),
        Output("runs-shown", "data"),
        Output("runs-storage", "children", allow_duplicate=True),
        Output("runs-stored", "data"),
        Input("runs-clock", "n_intervals"),
        Input("runs-changed", "data"),
        State("runs-shown", "data"),
        State("runs-stored", "data"),
        prevent_initial_call=True,
    )
    def follow(_: int | None, __: Any, shown: str, stored: str) -> tuple[Any, ...]:
        runs = _runs().all()
        now, kept = _fingerprint(runs), stamp(current().workspace)
        listed = (no_update, no_update) if now == shown else (_items(runs), now)
        artefacts = (no_update, no_update) if kept == stored else (_storage(current().workspace), kept)
        return listed[0], _pace(runs), listed[1], *artefacts

    @app.callback(
        Output("runs-changed", "data", allow_duplicate=True), Input(ACT, "n_clicks"), prevent_initial_call=True
    )
    def act(_: list[int | None]) -> str | NoUpdate:
        if not ctx.triggered_id or not ctx.triggered[0]["value"]:  # a button that has just been drawn
            return no_update
        queue = _runs()
        acts = {"cancel": queue.cancel, "resume": queue.resume, "forget": queue.forget}
        name, run = str(ctx.triggered_id["act"]), str(ctx.triggered_id["of"])
        if name not in acts:
            raise UsageError(f"a run takes {', '.join(acts)}, got {name!r}; use its buttons")
        acts[name](run)
        return f"{name} {run} {ctx.triggered[0]['value']}"


def _storage(workspace: Workspace) -> Part:
    """Return the table of artefacts with sizes, the largest first."""
    return attempt(lambda: _artefacts(workspace))


def _artefacts(workspace: Workspace) -> html.Section:
    rows = sorted(_rows(workspace), key=lambda row: -row[1])
    if not rows:
        return panel("Artefacts on disk", html.P("None yet.", className="wb-none"))
    total = sum(row[1] for row in rows)
    head = html.Tr([html.Th(name, scope="col") for name in ("artefact", "size", "made", "used by", "state")])
    body = [_row(workspace, *row) for row in rows]
    table = html.Table([html.Thead(head), html.Tbody(body)], className="wb-evidence wb-records wb-artefacts")
    return panel(
        "Artefacts on disk",
        html.Div(table, className="wb-wide-table", tabIndex=0, role="region", **attrs({"aria-label": "Artefacts"})),
        note=f"{len(rows)} artefacts, {size_text(total)}",
        more="Outdated: an artefact that it was made from has changed since; make it again before you compare it. "
        "An artefact is a folder of the workspace: delete that, and it is gone.",
    )


def _rows(workspace: Workspace) -> Iterator[tuple[str, int, str, int, str]]:
    """Yield key, bytes, time, number of artefacts made from it, and state, of every artefact and unfinished one."""
    manifests = workspace.artifacts()
    old = outdated(manifests, workspace.key)
    for manifest in manifests:
        key = workspace.key(manifest)
        changed = f"outdated: {', '.join(old[key])} has changed" if old[key] else "up to date"
        size = sum(int(file.get("bytes", 0)) for file in manifest.files.values())
        made = manifest.created.replace("T", " ").removesuffix("Z")[:16]
        yield key, size, made, sum(key in child.parents for child in manifests), changed
    for partial in workspace.partials():
        folder = partial_path(workspace.path(partial.kind, partial.name))
        started = str(partial.status.get("started", "")).replace("T", " ").removesuffix("Z")[:16]
        yield folder.relative_to(workspace.root).as_posix(), folder_bytes(folder), started, 0, "unfinished"


def _row(workspace: Workspace, key: str, size: int, made: str, children: int, state: str) -> html.Tr:
    href = "/" if key.endswith(PARTIAL) else artefact_href(workspace, key)
    name = html.Th(quiet_link(key, href) if href != "/" else key, scope="row")
    status = html.Td(state, className="wb-run-interrupted" if state != "up to date" else "")
    return html.Tr([name, html.Td(size_text(size)), html.Td(made), html.Td(str(children)), status])


PAGE = Page(
    title="Runs",
    path="/runs",
    group="work",
    order=900,
    about="Start an analysis, and follow it",
    layout=layout,
    register=register,
    shows="Analyses started from the page, and the artefacts on disk.",
    command="workbench serve",
)
