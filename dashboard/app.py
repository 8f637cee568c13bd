"""`create_app(workspace)`: the dashboard as a Dash application; no globals, no torch, no request to another machine.

    dashboard/<page>/page.py   one folder per page: `PAGE`, the layout and the callbacks; most have a `data.py` that
                               reads the workspace, larger ones more files
    dashboard/components/      panels, tables, tokens, and the plumbing that pages share (`pages.py`)
    dashboard/figures/         tables in, plotly figures out; without Dash, so that notebooks use them too
    dashboard/assets/          ES modules: main.mjs imports what every page has (theme.mjs: light or dark;
                               workbench.mjs: addresses, keys; ...) and starts Dash; prompt/, atlas/ (the map;
                               `maps/routes.py` feeds it), graph/ (attribution graphs; `graph/routes.py`) and say/
                               (chats) are loaded when they are drawn

Pages are found by their folder (`components.pages.find_pages`), so a new one is not named here. `shell` is the frame of
every page: the bar with navigation, the switch between light and dark, help, and the error strip.
"""

import contextlib
import gzip
import json
import logging
import re
import secrets
import shlex
from functools import lru_cache, partial, wraps
from pathlib import Path
from typing import Any, cast, get_args

import dash
import dash_mantine_components as dmc
import flask
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html, set_props
from dash.exceptions import CallbackException, DependencyException

from dashboard import api, palette
from dashboard.components import http_errors
from dashboard.components.frame import attrs, explain, failure
from dashboard.components.pages import (
    Group,
    Layout,
    Page,
    empty_page,
    find_pages,
    own_page,
    register_empty,
    register_menu,
    register_runs,
)
from dashboard.data.tour import tour_steps
from dashboard.data.workspace import stamp
from dashboard.figures.theme import theme
from dashboard.maps import routes as atlas_routes
from dashboard.overview import page as overview
from dashboard.queue import RunQueue
from dashboard.search.page import box as search_box
from dashboard.security import READS, Guard, content_security_policy, refuse_callback
from dashboard.sources import Live, NothingYetError, PageSources, attach, current
from dashboard.turns import guest
from interp.artifacts import KINDS
from interp.errors import ConfigError, UnknownNameError, UsageError, WorkbenchError, program
from interp.workspace import Workspace
from saes.acts.run import models_to_read

KEYS = [
    ("/", "find features: a word, a text, a label, a number"),
    ("Ctrl K", "go to a page, an artefact, a note or a feature by its name (Cmd K too)"),
    ("f", "search or filter this page"),
    ("j  k", "next and previous feature (so do the arrow keys), hit, word list or run"),
    ("r", "a random feature"),
    ("s", "star what the page shows"),
    ("Ctrl Enter", "run the prompt"),
    ("Enter  Shift Enter  Esc", "chats: send the message, begin a line, stop the replies"),
    ("Tab  arrows", "highlighted tokens: go to the text, then from token to token; rows of a table"),
    ("Enter", "open the row of a table, a hit, a link"),
    ("+  -  0", "map and circuit: zoom in, zoom out, show everything"),
    ("arrows  Enter  Esc", "map: move, select the point in the middle (twice: open it), clear the selection"),
    ("Shift drag", "map: lasso (Alt drag: rectangle, Ctrl click: add a point)"),
    ("p  x  g  n  h", "graph: pin, mark, group the marked, name and hide a node (circuit: x, g); Ctrl Z takes back"),
    ("t", "switch between light and dark"),
    ("?", "this list"),
    ("Esc", "leave a field, deselect an edge, close this list"),
]

THEME: Any = {
    "fontFamily": "var(--wb-font)",
    "fontFamilyMonospace": "var(--wb-mono)",
    "primaryColor": "accent",
    "primaryShade": {"light": 6, "dark": 6},
    "defaultRadius": 6,
    "colors": {
        "accent": [
            *("#eaf2fe", "#d3e3fb", "#a9c9f7", "#7cabf1", "#4f8de8"),
            *("#2f77de", "#1a66d6", "#1457bd", "#0f4699", "#0b3677"),
        ],
        "dark": [
            *("#e6e9ed", "#c5ccd4", "#9aa4b0", "#6b7582", "#3a414b"),
            *("#2a2f37", "#1e2228", "#171a1f", "#111418", "#0c0e11"),
        ],
    },
}


def shell(workspace: Workspace, pages: list[Page]) -> dmc.MantineProvider:
    """Return everything around the pages, which the router puts into the middle."""
    return dmc.MantineProvider(
        [
            dcc.Store(id="scheme"),
            dcc.Location(id="nav", refresh="callback-nav"),
            html.A("Skip to the page", href="#main", className="wb-skip"),
            _bar(workspace, pages),
            _server_gone(workspace),
            _error_strip(),
            html.Div(
                id="tour", className="wb-tour", hidden=True, role="region",
                **attrs({"aria-label": "Tour", "data-steps": json.dumps(tour_steps(workspace, stamp(workspace)))}),
            ),
            html.Main(dash.page_container, id="main", tabIndex=-1),
            _help(),
        ],
        id="provider",
        theme=THEME,
        defaultColorScheme="auto",
    )  # fmt: skip


def _bar(workspace: Workspace, pages: list[Page]) -> html.Header:
    menus = [_menu(workspace, group, [page for page in pages if page.group == group]) for group in get_args(Group)]
    logo = html.Span(className="wb-logo", **attrs({"aria-hidden": "true"}))
    return html.Header(
        [
            dcc.Link([logo, html.Span("interp workbench")], href="/", className="wb-brand", title="Overview"),
            html.Nav(menus, id="navigation", className="wb-nav", **attrs({"aria-label": "Pages"})),
            search_box(),
            html.Button(["Go to", html.Kbd("Ctrl K")], id="palette-open", className="wb-goto", type="button"),
            html.Span(workspace.name, className="wb-where", title=str(workspace.root)),
            html.Button(
                "?", id="help-open", className="wb-icon", title="Keys (?)", **attrs({"aria-label": "Keyboard help"})
            ),
            html.Button(
                html.Span(className="wb-scheme-icon"),
                id="scheme-toggle",
                className="wb-icon",
                title="Light or dark (t)",
                **attrs({"aria-label": "Switch between light and dark"}),
            ),
        ],
        className="wb-bar",
    )


def _menu(workspace: Workspace, group: str, pages: list[Page]) -> html.Details:
    """Return a menu of the bar; pages with nothing to show yet say so."""
    links = [_link(page, filled=_filled(workspace, page)) for page in pages if page.listed]
    return html.Details([html.Summary(group.capitalize()), html.Div(links)], className="wb-menu")


def _link(which: Page, *, filled: bool) -> dcc.Link:
    words = [html.Span(which.title), html.Span(which.about if filled else f"{which.about}: nothing yet")]
    return dcc.Link(words, href=which.path, className="wb-nav-link", id=f"nav-{which.title.lower()}")


def _filled(workspace: Workspace, which: Page) -> bool:
    """Return False for a page of kinds of artefact of which the workspace has none."""
    forms = (f"{which.path}/{{name}}", f"{which.path}?name={{name}}")
    kinds = [kind for kind in KINDS if own_page(kind).replace("{key}", "{name}") in forms]
    return not kinds or any(workspace.names(kind) for kind in kinds)


def _error_strip() -> html.Div:
    return html.Div(
        [
            html.Span(id="error-text"),
            html.Button("Dismiss", id="error-close", className="wb-link", type="button"),
        ],
        id="error-strip",
        className="wb-error-strip",
        hidden=True,
        role="alert",
    )


def _server_gone(workspace: Workspace) -> html.Div:
    """Return the banner that assets/server.mjs shows while no request succeeds."""
    command = f"{program()} serve --workspace {shlex.quote(str(workspace.root))}"
    if flask.has_request_context():  # the port at which this server listens, also behind another one
        command += f" --port {flask.request.environ['SERVER_PORT']}"
    return html.Div(
        [
            html.Span(
                ["The server does not answer. Start it again with ", html.Code(command), "; then this page goes on."]
            )
        ],
        id="server-gone",
        className="wb-error-strip wb-server-gone",
        hidden=True,
        role="alert",
    )


def _help() -> dmc.Modal:
    rows = [html.Div([html.Dt(html.Kbd(key)), html.Dd(words)]) for key, words in KEYS]
    tour = html.Button("Show the tour", id="help-tour", className="wb-link", type="button")
    terms = html.A("Glossary", href="/glossary", className="wb-link")
    return dmc.Modal(
        [html.Dl(rows, className="wb-keys"), tour, " · ", terms],
        id="help",
        title="Keys",
        opened=False,
        size="sm",
        **attrs({"closeButtonProps": {"aria-label": "Close"}}),
    )


log = logging.getLogger("workbench.dashboard")


def create_app(
    workspace: Workspace,
    *,
    live: Live | None = None,
    hosts: tuple[str, ...] = (),
    token: str | None = None,
    runs: RunQueue | None = None,
) -> Dash:
    """Return the application on a workspace.

    Args:
        workspace: the folder that its pages show.
        live: answers prompts. Default: models of the workspace, loaded at the first prompt.
        hosts: names under which it may be reached, and `token` what a browser must know: those of `security.Guard`.
        runs: the queue of analyses; without one, pages only show commands.
    Returns: a Dash application; `create_app(...).run()` serves it.

    >>> create_app(Workspace(folder / "workspace", create=True)).title
    'Interp workbench'
    """
    if live is None:
        from dashboard.live import LiveModel

        live = LiveModel(workspace)
    app = LeanDash(
        "dashboard",
        assets_folder=str(Path(__file__).parent / "assets"),
        use_pages=True,
        pages_folder="",
        title="Interp workbench",
        update_title="",
        suppress_callback_exceptions=True,
        serve_locally=True,
        assets_ignore=r"\.mjs$",  # one module imports the others (`LeanDash`)
        compress=False,
        on_error=_show_error,
        routing_callback_inputs={"scheme": Input("scheme", "data")},
    )
    app.renderer = ""  # assets/main.mjs starts it
    attach(app.server, PageSources(workspace, live, runs))
    atlas_routes.register(app.server)
    api.register(app.server)
    palette.register(app.server)
    pages = find_pages()
    _register_pages(pages)
    app.layout = cast(Any, partial(shell, workspace, pages))  # a function: made anew for every visit, as pages fill
    _register_shell(app)
    for page in pages:
        if page.register is not None:
            page.register(app)
    _register_answers(app, pages)
    _tell_browsers_apart(app)
    app.server.before_request(_small_plotly)
    app.server.after_request(_lighten)
    app.server.wsgi_app = Guard(
        app.server.wsgi_app,
        policy=lambda: content_security_policy(app.csp_hashes()),
        hosts=hosts,
        token=token,
        run_key=secrets.token_urlsafe(24),
    )
    return app


def warm(server: flask.Flask) -> None:
    """Draw the overview once before somebody opens it: what it reads of the workspace then stays in memory."""
    with contextlib.suppress(Exception), server.app_context():  # the page itself says what is wrong
        overview.layout(current())
        overview.artefacts(current())
        theme(None)  # loads what figures need


BROWSER = "workbench-browser"
"""Cookie that tells browsers apart; it grants nothing."""
LIBRARIES = {
    "dash_ag_grid": ("AgGrid", ("atlas", "circuit", "feature", "heads")),
}
"""Large libraries: their component, and the pages that load them at once; other pages load one when they draw it."""

_MODULES = (("theme.mjs", ' blocking="render"'), ("main.mjs", ""))  # without the theme, a dark page would flash light
_PRELOADED = sorted(path.name for path in (Path(__file__).parent / "assets").glob("*.mjs"))
_LIBRARY = re.compile(rf'<script src="([^"]*/_dash-component-suites/({"|".join(LIBRARIES)})/[^"]*)"></script>')
_FIXED = ("/_dash-component-suites/", "/assets/", "/_dash-dependencies")
"""Addresses whose answers stay the same while the server runs."""
_WORTH_IT = 4096
"""Smallest answer, in bytes, whose compression saves more than it costs."""
_TEXTS = ("text/html", "text/javascript", "application/javascript", "text/css", "application/json", "image/svg+xml")


class LeanDash(Dash):
    """Dash with our modules, whose pages load large libraries only where they are used (assets/later.mjs)."""

    def interpolate_index(self, metas: str = "", *parts: Any, scripts: str = "", **named: Any) -> str:
        """Return the page as Dash builds it, with our modules; libraries that it does not need load later."""
        section = flask.request.path.split("/")[1]

        def later(match: re.Match[str]) -> str:
            component, pages = LIBRARIES[match[2]]
            if section in pages:
                return match[0]
            return (
                f'<template class="wb-later" data-namespace="{match[2]}" data-components="{component}" '
                f'data-address="{match[1]}"></template>'
            )

        ours = [f'<script type="module" src="{self.get_asset_url(name)}"{when}></script>' for name, when in _MODULES]
        ours += [f'<link rel="modulepreload" href="{self.get_asset_url(name)}">' for name in _PRELOADED]
        metas = "\n".join([metas, *ours, atlas_routes.head(self.get_asset_url)])
        page = super().interpolate_index(metas, *parts, scripts=_LIBRARY.sub(later, scripts), **named)
        return page.replace("<html>", '<html lang="en">', 1)


PLOTLY = Path(__file__).parent / "assets" / "plotly" / "plotly-cartesian.min.js.gz"
"""plotly.js with the traces of plane axes only (npm's plotly.js-cartesian-dist-min 4.1.1): a third of the whole.

Pages draw `scatter`, `bar` and `heatmap`; a test compares them with the bundle.
"""
ADDRESS_OF_PLOTLY = "/_dash-component-suites/plotly/package_data/plotly.min.js"


def _small_plotly() -> flask.Response | None:
    """Answer a request for plotly.js with the bundle that is stored compressed."""
    if flask.request.path != ADDRESS_OF_PLOTLY or not flask.request.accept_encodings["gzip"]:
        return None
    response = flask.send_file(PLOTLY, mimetype="text/javascript", conditional=True)
    response.content_encoding = "gzip"
    return response


def _lighten(response: flask.Response) -> flask.Response:
    """Compress texts, and let a browser keep what has its version in its address.

    Sizes reveal no secret, as no body contains one: token and key are in cookies, which scripts cannot read.
    """
    path = flask.request.path
    if response.status_code != 200:
        return response
    fixed = path.startswith(_FIXED)
    versioned = path.startswith("/assets/") and "m" in flask.request.args
    if versioned or (fixed and response.cache_control.max_age):
        response.cache_control.no_cache = None
        response.cache_control.max_age, response.cache_control.immutable = 31_536_000, True
    if response.mimetype not in _TEXTS or (response.is_streamed and not fixed):
        return response
    response.vary.add("Accept-Encoding")
    if flask.request.method == "HEAD" or not flask.request.accept_encodings["gzip"] or response.content_encoding:
        return response
    response.direct_passthrough = False
    content = response.get_data()
    if fixed:
        response.set_data(_zipped(content))
    elif len(content) >= _WORTH_IT:
        response.set_data(gzip.compress(content, 3, mtime=0))
    else:
        return response
    response.content_encoding = "gzip"
    if (tag := response.get_etag()[0]) is not None:
        response.set_etag(tag, weak=True)  # the same content in other bytes
        response.make_conditional(flask.request)
    return response


@lru_cache(maxsize=128)
def _zipped(content: bytes) -> bytes:
    return gzip.compress(content, 6, mtime=0)


def _tell_browsers_apart(app: Dash) -> None:
    """Give every browser turns of its own on the live model, by a cookie with a random name."""

    @app.server.before_request
    def take_turns() -> None:
        guest(flask.request.cookies.get(BROWSER) or flask.request.remote_addr or "")

    @app.server.after_request
    def name(response: flask.Response) -> flask.Response:
        if response.mimetype == "text/html" and BROWSER not in flask.request.cookies:
            response.set_cookie(BROWSER, secrets.token_hex(8), httponly=True, samesite="Strict")
        return response


def _register_answers(app: Dash, pages: list[Page]) -> None:
    """Answer a malformed request with 400 and a missing thing with 404; its page explains itself too."""
    known = [re.compile(re.sub(r"<\w+>", "(.+)", path)) for page in pages for path in (page.path, *page.templates)]

    @app.server.before_request
    def check() -> flask.Response | None:
        if flask.request.endpoint != "/_dash-update-component" or flask.request.method in READS:
            return None
        try:
            body = flask.request.get_json()
        except RecursionError:
            return flask.Response("This body is nested too deeply.\n", 400, mimetype="text/plain")
        refusal = refuse_callback(body, app.callback_map)
        return refusal and flask.Response(refusal[1], refusal[0], mimetype="text/plain")

    @app.server.after_request
    def missing(response: flask.Response) -> flask.Response:
        if flask.request.endpoint == "/<path:path>" and response.status_code == 200:
            matches = [match for pattern in known if (match := pattern.fullmatch(flask.request.path.rstrip("/")))]
            if not any(_has_named(*match.groups()) for match in matches):
                response.status_code = 404
        return response

    @app.server.errorhandler(CallbackException)
    def malformed(error: Exception) -> flask.Response:
        if type(error) is not CallbackException:  # a callback of ours returned what it must not
            raise error
        return flask.Response(f"{error}\n", 400, mimetype="text/plain")

    http_errors.register(app.server)

    @app.server.errorhandler(DependencyException)
    def no_file(_: Exception) -> flask.Response:
        return flask.Response("There is no such file.\n", 404, mimetype="text/plain")


def _has_named(name: str | None = None, *_: str) -> bool:
    """Return True when the workspace has the artefact that an address names first, finished or not."""
    try:
        return name is None or bool(current().workspace.find(name, *KINDS))
    except UsageError as error:
        return not isinstance(error, UnknownNameError | ConfigError)
    except WorkbenchError:
        return True


def _register_pages(pages: list[Page]) -> None:
    dash.page_registry.clear()  # it is one per process, and may hold another application's pages
    for page in pages:
        # Dash takes the first template that fits, and a name in one takes the rest of an address, slashes included
        for n, path in enumerate(sorted((page.path, *page.templates), key=lambda path: -path.count("/"))):
            dash.register_page(
                f"workbench.{page.title.lower()}_{n}",
                name=page.title,
                title=f"{page.title} · workbench",
                layout=safe_layout(page),
                **attrs({"path_template" if "<" in path else "path": path}),
            )
    lost = Page(title="Not found", path="/", layout=_not_found)
    dash.register_page("workbench.not_found_404", title="Not found · workbench", layout=safe_layout(lost), path="/404")


def safe_layout(which: Page) -> Layout:
    """Return the page's layout, given the context of the application that answers.

    An error becomes a page that says what went wrong and leads back; a page with nothing to show explains itself.
    """

    @wraps(which.layout)
    def show(scheme: str | None = None, **address: str) -> html.Div:
        if scheme is None:  # the browser has not said yet which one it has; it will in a moment
            return html.Div(className="wb-page wb-waiting")
        try:
            return which.layout(current(), **address)
        except NothingYetError:
            workspace = current().workspace
            return empty_page(which, workspace, models_to_read(workspace)[0])
        except Exception as error:
            if not isinstance(error, WorkbenchError):
                log.exception("a page failed")
            return failure(error, back=which.path)

    return show


def _not_found(context: PageSources, **_: object) -> html.Div:
    raise UsageError("There is no page at this address.")


def _show_error(error: Exception) -> None:
    """Show an error of a callback at the top of the page; log the traceback of an unexpected one."""
    if not isinstance(error, WorkbenchError):
        log.error("a callback failed", exc_info=error)
    set_props("error-text", {"children": explain(error)})
    set_props("error-strip", {"hidden": False})


def _register_shell(app: Dash) -> None:
    register_menu(app)
    register_empty(app)
    register_runs(app)
    app.clientside_callback(
        ClientsideFunction("workbench", "scheme"),
        Output("scheme", "data"),
        Output("provider", "forceColorScheme"),
        Input("scheme-toggle", "n_clicks"),
    )
    app.clientside_callback(
        ClientsideFunction("workbench", "navigation"),
        Output("navigation", "data-page"),
        Input("_pages_location", "pathname"),
    )
    app.clientside_callback(
        "function() { return true; }",
        Output("error-strip", "hidden"),
        Input("error-close", "n_clicks"),
        Input("_pages_location", "pathname"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        "function(n, opened) { return !opened; }",
        Output("help", "opened"),
        Input("help-open", "n_clicks"),
        State("help", "opened"),
        prevent_initial_call=True,
    )
