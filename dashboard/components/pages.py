"""A page of the dashboard, and the plumbing that all pages share.

A page is a folder of `dashboard/` whose `page.py` defines `PAGE`; `find_pages` collects them, the application registers
them, and the navigation bar lists them. Shared here:

- the message of a page with nothing to show (`empty_page`);
- the menu at the top of a page that opens another artefact (`artefact_menu`): the address says which one is shown;
- the address that follows what a visitor changes (`address_sink` and `register_address`);
- the part of a page that is drawn after the page itself (`register_parts`);
- a button that runs an analysis and shows its progress in the same position (`run_button`);
- addresses (`feature_href` and others): the state of a page is in its path and query, so every view can be linked to.
"""

import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlencode

import flask
from dash import MATCH, ClientsideFunction, Dash, Input, NoUpdate, Output, State, ctx, dcc, html, no_update

from dashboard.components.frame import Part, attrs, note_controls, page, panel, quiet_link, select
from dashboard.queue import QueuedRun, RunQueue
from dashboard.sources import NothingYetError, current
from interp.artifacts import FOLDERS, KINDS, address_of
from interp.doctor.certificate import Certificate
from interp.errors import MissingError, WorkbenchError, as_typed, program
from interp.progress import duration
from interp.registry import kind_in, kinds_of
from interp.workspace import Workspace
from saes.training.stored import StoredSAE

Layout = Callable[..., html.Div]
Group = Literal["prompts", "features", "circuits", "models", "work"]
"""Menus of the bar, from left to right; the pages of a menu are about the same thing."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page: its addresses, its layout, and its text while it has nothing to show."""

    title: str
    path: str
    """The address without a name in it, such as `/atlas`."""
    layout: Layout
    """`layout(context, **address)`: the page for an address; unknown parts of the address are ignored."""
    register: Callable[[Dash], None] | None = None
    """Adds the callbacks of the page to the application."""
    templates: tuple[str, ...] = ()
    """Further addresses with names in them, such as `/atlas/<name>`."""
    group: Group = "work"
    """Menu in the navigation bar."""
    order: int = 1000
    """Place in its menu: the smallest is first, equal ones by title."""
    about: str = ""
    """What the page is for in a few words, under its title in the menu."""
    listed: bool = True
    """False for a page that is reached otherwise, and not named in the navigation bar."""
    shows: str = ""
    """One or two sentences: what the page shows once there is something."""
    command: str = ""
    """The command that fills the page, `workbench VERB ...`; `MODEL` in it becomes a model of the workspace."""
    fill: Callable[[Workspace, str], tuple[str, dict[str, object]]] | None = None
    """`fill(workspace, model)`: the verb and its options by which a button fills the page, or does the first step."""
    form: Callable[[Workspace, str], Part] | None = None
    """`form(workspace, model)`: a form that fills the page, alone or below the button; None where nothing runs."""


EMPTY_MS = 3000
"""Milliseconds between two checks of an empty page."""


def find_pages() -> list[Page]:
    """Return the page of every folder of `dashboard/` that has a `page.py`, in the order of the navigation bar."""
    folder = Path(__file__).parents[1]
    pages = [import_module(f"dashboard.{file.parent.name}.page").PAGE for file in folder.glob("*/page.py")]
    return sorted(pages, key=lambda page: (page.order, page.title))


def empty_page(which: Page, workspace: Workspace, model: str) -> html.Div:
    """Return the page of an address that has nothing to show yet: its purpose, and what fills it.

    That is a button where the server runs analyses and the page has one; the command is folded below it.
    """
    command = which.command.replace("MODEL", model).replace("workbench", program(), 1)
    full_command = f"{command} --workspace {shlex.quote(str(workspace.root))}"
    button: list[Part] = []
    if which.fill is not None and (queue := _queue()) is not None and not queue.problem:
        button += _fill_button(queue, *which.fill(workspace, model), then=which.path)
    if which.form is not None and (form := which.form(workspace, model)) is not None:
        button.append(form)
    in_terminal = [
        html.Summary("In a terminal"),
        html.Pre(full_command, className="wb-command", tabIndex=0),
        html.P("The result appears here when it is done."),
    ]
    return page(
        which.title,
        panel(
            "Nothing to show yet",
            html.P(which.shows),
            *button,
            html.Details(in_terminal, className="wb-folded", open=not button),
            className="wb-empty",
        ),
        dcc.Store(id="empty-path", data=which.path),
        dcc.Interval(id="empty-clock", interval=EMPTY_MS),
    )


def register_empty(app: Dash) -> None:
    """Let an empty page check every few seconds for something to show, and then reopen itself."""
    app.callback(
        Output("nav", "href", allow_duplicate=True),
        Input("empty-clock", "n_intervals"),
        State("empty-path", "data"),
        prevent_initial_call=True,
    )(open_again)


def open_again(n: int | None, path: str) -> str | NoUpdate:
    """Return the address of a page that is no longer empty; no change while it is. `n` counts the looks."""
    which = next((page for page in find_pages() if page.path == path), None)
    if which is None or not n:
        return no_update
    try:
        which.layout(current())
    except NothingYetError:
        return no_update
    except WorkbenchError:  # the page itself says what is wrong
        pass
    return f"{path}?again={n}"


def _fill_button(queue: RunQueue, verb: str, options: Mapping[str, object], *, then: str) -> list[Part]:
    """Return the button that runs the verb; where it needs more than these options, a link to its form."""
    form = queue.catalogue.forms.get(verb)
    about = [] if form is None else [html.P(form.about.splitlines()[0])]
    try:
        queue.catalogue.command(verb, options)
    except WorkbenchError:  # an input that only the visitor knows
        return [*about, dcc.Link(f"Choose and run {verb}", href=runs_href(verb, **options), className="wb-act")]
    of = next((str(value) for value in options.values()), "")
    return [
        *about,
        run_button(verb, options, id="fill", text=f"Run {verb} {of}".strip(), then=then),
        html.P("It runs in the background; its result appears here.", className="wb-note"),
    ]


def first_step(workspace: Workspace, model: str) -> tuple[str, dict[str, object]]:
    """Return the next step towards described features: record a model, train on it, describe the dictionary."""
    dictionaries = workspace.values(StoredSAE)
    if dictionaries:
        return "features", {"dictionary": next((sae for sae in dictionaries if sae.recording), dictionaries[0]).name}
    if recording := workspace.default("recording"):
        return "train", {"recording": recording.name}
    return "record", {"model": model}


def run_button(
    verb: str, options: Mapping[str, object], *, id: str, text: str, then: str = "", opens: bool = False
) -> html.Div:
    """Return a button that queues an analysis, and shows its progress and a link to its result in its own position.

    Args:
        verb: a verb that runs from the page, such as `atlas`.
        options: the fields of the verb, by name.
        id: tells the buttons of one page apart.
        text: words on the button.
        then: address to go to when the run is done; by default a link to each artefact that it made.
        opens: open what the run makes as soon as it is there.
    """
    queue = _queue()
    if queue is None or queue.problem:
        reason = queue.problem if queue else "This dashboard runs no analyses; start it with `workbench serve`."
        return html.Div(html.P(as_typed(reason)), className="wb-run-here")
    run = next((run for run in queue.active() if run.verb == verb and run.options == options), None)
    state = {"verb": verb, "options": options, "run": run.id if run else None, "then": then, "opens": opens}
    return html.Div(
        [
            dcc.Store(id={"type": "run-ask", "of": id}, data=state),
            html.Button(
                text, id={"type": "run-go", "of": id}, className="wb-act", disabled=run is not None, type="button"
            ),
            html.Div(
                run_progress(run) if run else None, id={"type": "run-shown", "of": id}, className="wb-run-shown",
                role="status",
            ),
            dcc.Interval(id={"type": "run-clock", "of": id}, interval=1000, disabled=run is None),
        ],
        className="wb-run-here",
    )  # fmt: skip


def run_progress(run: QueuedRun, *, then: str = "") -> list[Part]:
    """Return the progress of a run: its state in words, a bar, the time left, and links to what it made."""
    shown: list[Part] = [html.Span(run_state(run), className=f"wb-run-state wb-run-{run.state}")]
    if run.state == "running":
        known = {} if run.fraction is None else {"value": f"{run.fraction:.3f}", "max": "1"}
        shown.append(html.Progress(**known, **attrs({"aria-label": f"Progress of {run.verb}"})))
    if run.problem:
        shown.append(html.P(run.problem, className="wb-run-problem"))
    if run.state == "done" and then:
        return [*shown, dcc.Link("Show it", href=then, refresh=True, className="wb-link")]
    if run.state not in ("running", "done"):
        return shown
    return [*shown, *(quiet_link(f"Open {key}", artefact_href(current().workspace, key)) for key in run.made)]


def run_state(run: QueuedRun) -> str:
    """Return the state of a run in words, `running: training, 40 %, about 3 minutes left` for example."""
    if run.state != "running":
        return run.state
    left = "" if run.seconds_left is None else f"about {duration(run.seconds_left)} left"
    parts = [run.stage, "" if run.fraction is None else f"{run.fraction:.0%}", left]
    if run.stage == "stopping":
        return "stopping"
    return "running: " + ", ".join(part for part in parts if part)


def register_runs(app: Dash) -> None:
    """Let every `run_button` of any page queue its run, and follow it once a second."""

    @app.callback(
        Output({"type": "run-ask", "of": MATCH}, "data"),
        Output({"type": "run-shown", "of": MATCH}, "children"),
        Output({"type": "run-clock", "of": MATCH}, "disabled"),
        Output({"type": "run-go", "of": MATCH}, "disabled"),
        Input({"type": "run-go", "of": MATCH}, "n_clicks"),
        Input({"type": "run-clock", "of": MATCH}, "n_intervals"),
        State({"type": "run-ask", "of": MATCH}, "data"),
        prevent_initial_call=True,
    )
    def follow(
        clicks: int | None, _: int | None, state: dict[str, Any]
    ) -> tuple[dict[str, Any] | NoUpdate, list[Part] | NoUpdate, bool, bool]:
        queue = _queue()
        if queue is None:
            raise MissingError("this dashboard runs no analyses; start it with `workbench serve`")
        pressed = any(trigger["type"] == "run-go" for trigger in ctx.triggered_prop_ids.values())  # not the clock
        if clicks and pressed and not state["run"]:
            state = {**state, "run": queue.add(state["verb"], state["options"])}
        if not state["run"]:
            return no_update, no_update, True, False
        run = queue.get(state["run"])
        lead = run_progress(run, then=state["then"])
        if state.get("opens") and run.made:
            lead.append(
                dcc.Location(id="run-opens", href=artefact_href(current().workspace, run.made[0]), refresh=True)
            )
        log = [html.Pre(run.log, className="wb-run-log")] if run.state == "failed" else []
        more = [quiet_link("All runs", "/runs")]
        again = not run.active and run.state != "done"
        return {**state, "run": None} if again else state, [*lead, *more, *log], not run.active, not again


def _queue() -> RunQueue | None:
    return current().runs if flask.has_app_context() else None


def artefact_href(workspace: Workspace, key: str) -> str:
    """Return the address of the page that shows an artefact, by its key `folder/name`; else that of the overview."""
    kind = kind_in(key.partition("/")[0])
    if kind and own_page(kind):
        return page_of(address_of(key))
    try:
        return page_of(workspace.open_key(key).href)  # the page of a proof is that of its feature
    except WorkbenchError:  # not made yet, deleted or damaged
        return "/"


OWN_PAGES = {
    "sae": "/sae?name={name}",
    "features": "/feature/{name}",
    "atlas": "/atlas/{name}",
    "heads": "/heads/{name}",
    "heads_in_text": "/heads?texts={name}",
    "circuit": "/circuit/{key}",
    "attribution_graph": "/graph/{name}",
    "patching": "/prompt?patching={name}",
    "routes": "/prompt?routes={name}",
    "geometry": "/geometry?name={key}",
    "direction": "/directions/{name}",
    "study": "/dynamics?name={key}",
    "changes": "/changes?name={key}",
    "certificate": "/doctor/{name}",
    "counterparts": "/compare?pairs={name}",
}
"""Page of the kinds that have one of their own, by kind or group: its address, with the name or key of the artefact."""
_ADDRESS = re.compile(r"/artefact/([^/?#]+)/([^/?#]+)(.*)")


def own_page(kind: str) -> str:
    """Return the form of the address of the page that a kind has for its own; empty where it has none."""
    return OWN_PAGES.get(KINDS[kind].group or kind, "")


def kinds_by_page() -> list[str]:
    """Return every kind: those with a page of their own first, in the order of `OWN_PAGES`."""
    shown = [kind for form in OWN_PAGES for kind in kinds_of(form)]
    return list(dict.fromkeys([*shown, *KINDS]))


def page_of(address: str) -> str:
    """Return the address of the page of its own that a kind has, for the one of any artefact: `Artefact.href`.

    What follows the name, a query or a fragment, stays. Other addresses are returned as they are.
    """
    match = _ADDRESS.fullmatch(address)
    form = own_page(kind) if match and (kind := kind_in(match[1])) else ""
    if match is None or not form:
        return address
    rest = match[3].replace("?", "&", 1) if "?" in form else match[3]
    return form.format(name=match[2], key=f"{match[1]}/{match[2]}") + rest


def menu_choices(
    workspace: Workspace, kinds: Sequence[str], href: Callable[[str], str] = lambda key: page_of(address_of(key))
) -> list[tuple[str, str]]:
    """Return (text, address) of every artefact of some kinds, newest first; `href` turns a key into an address.

    The text is the name, with the kind where artefacts of two kinds share the name.
    """
    manifests = workspace.newest(*kinds)
    names = Counter(manifest.name for manifest in manifests)
    texts = [m.name if names[m.name] == 1 else f"{m.name} · {m.kind.replace('_', ' ')}" for m in manifests]
    return [(text, href(manifest.key)) for text, manifest in zip(texts, manifests, strict=True)]


def artefact_menu(
    label: str, choices: list[tuple[str, str]], shown: str, *, width: int = 240, key: str = ""
) -> html.Div:
    """Return the menu that opens another artefact: `choices` are (text, address), `shown` is the address of this one.

    With the `key` of this one, its star and note are next to the menu. The menu's callback is registered once for all
    pages (`register_menu`).
    """
    data = [{"value": address, "label": text} for text, address in choices]
    mark = certified(current().workspace, key) if key and flask.has_app_context() else None
    return html.Div(
        [
            dcc.Store(id="artefact-shown", data=shown),
            select("artefact-menu", label, data, shown, width=width),
            *([note_controls(key), mark] if key else []),
        ],
        className="wb-artefact",
    )


def register_menu(app: Dash) -> None:
    """Let the menu of any page open the address that was chosen in it."""
    # a menu that has just been drawn triggers its callback too: then the chosen address is the one that is shown
    app.clientside_callback(
        "(chosen, shown) => chosen && chosen !== shown ? chosen : window.dash_clientside.no_update",
        Output("nav", "href"),
        Input("artefact-menu", "value"),
        State("artefact-shown", "data"),
        prevent_initial_call=True,
    )


def address_sink(which: str) -> html.Div:
    """Return the invisible element that `register_address` needs as the output of its callback."""
    return html.Div(id=f"{which}-address", hidden=True)


def register_address(app: Dash, which: str, *inputs: Input | State, script: str = "workbench") -> None:
    """Let the address follow what a visitor changes on the page `which`.

    The function `<which>Address` of `window.dash_clientside.<script>` (in `assets/`) turns the values into an address.
    """
    address = ClientsideFunction(script, f"{which}Address")
    app.clientside_callback(address, Output(f"{which}-address", "children"), *inputs)


def register_parts(app: Dash, which: str, draw: Callable[[Any, str | None], Any]) -> None:
    """Draw the parts of a page after the page itself: `draw(state, scheme)` fills the element `<which>-parts`."""
    app.callback(Output(f"{which}-parts", "children"), Input(f"{which}-state", "data"), State("scheme", "data"))(draw)


def feature_href(features: str, index: int) -> str:
    """Address of one feature."""
    return f"/feature/{quote(features)}/{index}"


def atlas_href(name: str, **query: object) -> str:
    """Address of a map; `None` and empty values of the query are left out."""
    return f"/atlas/{quote(name)}" + _query(query)


def heads_href(name: str, **query: object) -> str:
    """Address of the scores of attention heads."""
    return f"/heads/{quote(name)}" + _query(query)


def head_href(name: str, head: str) -> str:
    """Address of one head over a text, by the name of the artefact."""
    return f"/head/{quote(name)}/{quote(head)}"


def circuit_href(name: str, **query: object) -> str:
    """Address of a circuit, by its name or key; this and the next ones take either. A bare name opens the newest."""
    return f"/circuit/{quote(name)}" + _query(query)


def graph_href(name: str, **query: object) -> str:
    """Address of an attribution graph."""
    return f"/graph/{quote(name)}" + _query(query)


def trace_href(prompt: str | None = None, **options: object) -> str:
    """Address that traces a prompt with options of the verb, and opens its graph; without one, the page of graphs."""
    return "/graph" + _query({"trace": prompt, **options})


def sae_href(name: str, **query: object) -> str:
    """Address of a dictionary, in training or finished."""
    return "/sae" + _query({"name": name, **query})


def geometry_href(name: str, **query: object) -> str:
    """Address of a geometry artefact: shapes of word lists, a direction, a space."""
    return "/geometry" + _query({"name": name, **query})


def directions_href(name: str, **query: object) -> str:
    """Address of a direction, without a name the newest; `chat` opens a conversation that was kept."""
    return "/directions" + (f"/{quote(name)}" if name else "") + _query(query)


def dynamics_href(name: str, **query: object) -> str:
    """Address of a study of training."""
    return "/dynamics" + _query({"name": name, **query})


def changes_href(name: str) -> str:
    """Address of a comparison of two models."""
    return "/changes" + _query({"name": name})


def compare_href(a: str, b: str = "") -> str:
    """Address of the comparison of two named things; with one, the page asks for the other."""
    return "/compare" + _query({"a": a, "b": b})


def runs_href(verb: str, **options: object) -> str:
    """Address of the form that runs a verb, filled with these options."""
    return "/runs" + _query({"verb": verb, **options})


def prompt_href(**query: object) -> str:
    """Address of a prompt."""
    return "/prompt" + _query(query)


def _query(values: Mapping[str, object]) -> str:
    fields = {key: value for key, value in values.items() if value not in (None, "")}
    return f"?{urlencode(fields, safe='/')}" if fields else ""


def whole_number(text: object, default: int | None = None) -> int | None:
    """Return the whole number in an address, or `default` when the text is none."""
    try:
        return int(str(text))
    except ValueError:
        return default


CERTIFICATE = Certificate.kind


def certified(workspace: Workspace, key: str) -> html.A | None:
    """Return a link to the certificate under which the artefact of a key was made, or one that says there was none.

    Of several certificates, of a model and of a dictionary in it, it is the one that has most to say. An artefact made
    before the examination, or elsewhere, has that of the same weights. None for a certificate itself.
    """
    folder, _, name = key.partition("/")
    kind = kind_in(folder)
    if kind in ("", CERTIFICATE):
        return None
    parents, known = workspace.manifest(kind, name).parents, {cert.key: cert for cert in workspace.values(Certificate)}
    under = {parent: digest for parent, digest in parents.items() if parent.startswith(f"{FOLDERS[CERTIFICATE]}/")}
    weights = set[str]() if under else _weights(workspace, key)
    same = [
        certificate
        for certificate in known.values()
        if certificate.settings.weight_hash in weights and not certificate.settings.dictionary
    ]
    if same:
        (_, mark, _), cert = max(
            ((_standing(certificate, certificate.about.content_hash), certificate) for certificate in same),
            key=lambda pair: pair[0],
        )
        hint = f"{cert.subject} has the same weights and was examined, though not by the run that made these numbers"
        return _certificate_link(mark, cert.key, hint)
    if not under:
        hint = (
            f"Model and dictionary were not examined before these numbers were made: {program()} doctor MODEL does it"
        )
        return html.A("no certificate", href="/doctor", title=hint, className="wb-certified")
    (_, mark, hint), shown = max((_standing(known.get(parent), digest), parent) for parent, digest in under.items())
    return _certificate_link(mark, shown, hint)


def _certificate_link(mark: str, key: str, hint: str) -> html.A:
    """Return the mark as a link to the certificate."""
    failed = " wb-sign-failed" * (" failed" in mark)
    return html.A(mark, href=page_of(address_of(key)), title=hint, className=f"wb-certified{failed}")


def _weights(workspace: Workspace, key: str) -> set[str]:
    """Return the hashes of the weights that an artefact was made from, itself or through its parents."""
    known = {workspace.key(manifest): manifest.parents for manifest in workspace.artifacts()}
    waiting, seen = [key], set[str]()
    while waiting:
        parents = known.get(waiting.pop(), {})
        waiting += [parent for parent in parents if parent in known and parent not in seen]
        seen |= {*parents}
    return {digest for parents in [known.get(at, {}) for at in (key, *seen)] for parent, digest in parents.items()
            if parent.startswith("model:")}  # fmt: skip


def _standing(cert: Certificate | None, digest: str) -> tuple[int, str, str]:
    """Return how much a reader has to know of a certificate, the mark, and what it means."""
    if cert is None:
        return 2, "certificate deleted", "Model or dictionary were examined before; the certificate is gone"
    if cert.about.content_hash != digest:
        return 3, "examined anew since", "Model or dictionary were examined before, and again since: see the result"
    if cert.failed:
        failed = cert.with_verdict("failed")
        names = ", ".join(f"{check.part} {check.name}" for check in failed)
        return 4, f"{len(failed)} checks failed" if len(failed) > 1 else "1 check failed", f"{cert.subject}: {names}"
    if cert.settings.quick:
        return 1, "quick checks passed", f"{cert.subject}: the quick checks were run before these numbers were made"
    return 0, "certified", f"{cert.subject}: all checks were run before these numbers were made"
