"""*Runs*: start an analysis from a form, follow the queue, and manage artefacts.

The form is made from the settings of the verb (`dashboard.queue.Form`); the command that does the same in a terminal is
shown below it. Artefacts are listed with their size, what was made from them, and whether a parent has
changed since; a deleted one goes to the trash of the workspace, from which it can be restored.
"""

from typing import Any

from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update

from dashboard.components.forms import YES_NO, text_input, text_of
from dashboard.components.frame import attrs, explain, notice, page, panel, select
from dashboard.components.pages import Context, Page, current, run_progress
from dashboard.data.workspace import stamp
from dashboard.queue import Form, Run, RunQueue
from dashboard.runs import storage
from interp.artifacts import hash_json
from interp.errors import MissingError, UsageError, WorkbenchError, as_typed
from interp.options import Option

FIELD = {"type": "run-field", "verb": ALL, "name": ALL}
ACT = {"type": "run-act", "act": ALL, "of": ALL}
MOST_SHOWN = 50
"""Finished runs in the list."""
MOVING, RESTING = 1000, 3000
"""Milliseconds between two looks at the queue, while something runs and while nothing does: another page, or a command
in a terminal, may start something."""


def layout(context: Context, verb: str | None = None, **address: str) -> html.Div:
    """Return the form of a verb, the queue, and the artefacts; the address may fill the form."""
    queue = context.runs
    if queue is None:
        parts: list[Any] = [
            notice(as_typed("This dashboard shows artefacts and runs nothing; `workbench serve` does."))
        ]
    else:
        parts = [notice(queue.problem, tone="warning")] if queue.problem else []
        parts += [html.Div([_start(queue, verb, address), _queue_panel(queue)], className="wb-two wb-runs")]
    return page(
        "Runs",
        *parts,
        html.Div(storage.storage(context), id="runs-storage"),
        dcc.Store(id="runs-stored", data=stamp(context.workspace)),
        *storage.modal(),
        lead="One analysis runs at a time, in the background, on all cores but one. Results appear on their pages.",
    )


def _start(queue: RunQueue, verb: str | None, address: dict[str, str]) -> html.Section:
    forms = queue.catalogue.forms
    chosen = verb if verb in forms else next(iter(forms))
    data = [{"value": name, "label": name} for name in forms]
    return panel(
        "Start a run",
        select("runs-verb", "Analysis", data, chosen, searchable=True),
        html.Div(_form(queue, forms[chosen], address if verb == chosen else {}), id="runs-form"),
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
        note="Fields marked with * are required; the others have defaults.",
    )


def _form(queue: RunQueue, form: Form, given: dict[str, str]) -> list[Any]:
    basic = [_input(queue, form.verb, each, given.get(each.name)) for each in form.fields if not each.advanced]
    advanced = [_input(queue, form.verb, each, given.get(each.name)) for each in form.fields if each.advanced]
    more = html.Details(
        [html.Summary(f"{len(advanced)} more settings"), html.Div(advanced, className="wb-fields")],
        className="wb-folded",
        open=any(each.name in given for each in form.fields if each.advanced),
    )
    first, _, rest = form.about.partition("\n")
    about = html.Details([html.Summary(first), html.P(rest.strip(), className="wb-run-about")], className="wb-folded")
    return [
        about,
        html.Div(basic, className="wb-fields"),
        more if advanced else None,
    ]


def _input(queue: RunQueue, verb: str, option: Option, given: str | None) -> Any:
    offered = list(option.choices) or (queue.catalogue.suggestions(option.menu) if option.menu else [])
    return text_input(option, {"type": "run-field", "verb": verb, "name": option.name}, offered, given)


def entered(form: Form, values: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were entered in a form; those left at their default are omitted."""
    found = {}
    for each in form.fields:
        value = values.get(each.name)
        if each.kind == "switch" and value in YES_NO:
            value = YES_NO[value]
        standing = [text_of(one) for one in each.default or ()] if each.many else text_of(each.default)
        if value in (None, "", []) or value == each.default or value == standing:
            continue
        found[each.name] = value
    return found


def _queue_panel(queue: RunQueue) -> html.Section:
    runs = queue.all()
    return panel(
        "Queue",
        html.Ul(_items(runs), id="runs-list", className="wb-run-list"),
        dcc.Interval(id="runs-clock", interval=_pace(runs)),
        dcc.Store(id="runs-shown", data=_fingerprint(runs)),
        dcc.Store(id="runs-changed", data=0),
    )


def _pace(runs: list[Run]) -> int:
    return MOVING if any(run.active for run in runs) else RESTING


def _fingerprint(runs: list[Run]) -> str:
    return hash_json([[run.id, run.state, run.fraction, run.stage, run.log, run.made] for run in runs])


def _items(runs: list[Run]) -> list[html.Li]:
    """Return the active and waiting runs in their order, then the finished ones, newest first."""
    if not runs:
        return [html.Li("Nothing was run from here yet.", className="wb-none")]
    ended = sorted((run for run in runs if not run.active), key=lambda run: run.ended or 0, reverse=True)
    return [_item(run) for run in [*(run for run in runs if run.active), *ended[:MOST_SHOWN]]]


def _item(run: Run) -> html.Li:
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
            html.Code(run.command, className="wb-run-code"),
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
    storage.register(app)


def _runs() -> RunQueue:
    queue = current().runs
    if queue is None:
        raise MissingError("this dashboard runs nothing; `workbench serve` starts one that does")
    return queue


def _values(verb: str, ids: list[dict[str, str]], values: list[Any]) -> tuple[Form, dict[str, Any]]:
    forms = _runs().catalogue.forms
    if verb not in forms:
        raise UsageError(f"{verb!r} is not offered here")
    inputs = {id["name"]: value for id, value in zip(ids, values, strict=True) if id["verb"] == verb}
    return forms[verb], entered(forms[verb], inputs)


def _register_form(app: Dash) -> None:
    @app.callback(Output("runs-form", "children"), Input("runs-verb", "value"), prevent_initial_call=True)
    def show(verb: str) -> list[Any]:
        queue = _runs()
        return _form(queue, queue.catalogue.forms[verb], {})

    @app.callback(
        Output("runs-command", "children"),
        Output("runs-problem", "children"),
        Output("runs-add", "disabled"),
        Input(FIELD, "value"),
        State(FIELD, "id"),
        State("runs-verb", "value"),
    )
    def state_command(values: list[Any], ids: list[dict[str, str]], verb: str) -> tuple[str, str, bool]:
        queue = _runs()
        form, options = _values(verb, ids, values)
        try:
            return queue.catalogue.command(form.verb, options), "", bool(queue.problem)
        except WorkbenchError as error:
            return "", explain(error), True

    @app.callback(
        Output("runs-changed", "data", allow_duplicate=True),
        Input("runs-add", "n_clicks"),
        State(FIELD, "value"),
        State(FIELD, "id"),
        State("runs-verb", "value"),
        prevent_initial_call=True,
    )
    def add(clicks: int | None, values: list[Any], ids: list[dict[str, str]], verb: str) -> Any:
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
        held = (no_update, no_update) if kept == stored else (storage.storage(current()), kept)
        return listed[0], _pace(runs), listed[1], *held

    @app.callback(
        Output("runs-changed", "data", allow_duplicate=True), Input(ACT, "n_clicks"), prevent_initial_call=True
    )
    def act(_: list[int | None]) -> Any:
        if not ctx.triggered_id or not ctx.triggered[0]["value"]:  # a button that has just been drawn
            return no_update
        queue = _runs()
        acts = {"cancel": queue.cancel, "resume": queue.resume, "forget": queue.forget}
        name, run = str(ctx.triggered_id["act"]), str(ctx.triggered_id["of"])
        if name not in acts:
            raise UsageError(f"a run takes {', '.join(acts)}, got {name!r}; use its buttons")
        acts[name](run)
        return f"{name} {run} {ctx.triggered[0]['value']}"


PAGE = Page(
    title="Runs",
    path="/runs",
    group="work",
    order=900,
    layout=layout,
    register=register,
    shows="Analyses started from the page, and the artefacts on disk.",
    command="workbench serve",
)
