"""`create_app(workspace)`: the dashboard as a Dash app. No globals, no torch, nothing from outside this machine.

assets/theme.js      light or dark, before anything is drawn
assets/workbench.js  addresses and keys
assets/circuit.js    the graph of a circuit: clicks, zoom, picture
assets/atlas/        the map: a WebGL2 view of our own, loaded by assets/atlas_component.js; atlas_routes.py feeds it
pages/               one file per page; the router calls its `layout` with what the address says
"""

import logging
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import dash
from dash import ClientsideFunction, Dash, Input, Output, State, html, set_props

from dashboard.atlas import page as atlas
from dashboard.atlas import routes as atlas_routes
from dashboard.atlas.routes import EarlyDash
from dashboard.changes import page as changes
from dashboard.circuit import page as circuit
from dashboard.components.frame import attrs, explain, failure
from dashboard.context import Context, attach, current
from dashboard.dynamics import page as dynamics
from dashboard.feature import page as feature
from dashboard.geometry import page as geometry
from dashboard.heads import page as heads
from dashboard.overview import page as overview
from dashboard.prompt import page as prompt
from dashboard.prompt.results import Live
from dashboard.sae import page as sae
from dashboard.security import Guard, content_security_policy
from dashboard.shell import shell
from interp.errors import UsageError, WorkbenchError
from interp.workspace import Workspace

Layout = Callable[..., html.Div]

log = logging.getLogger("workbench.dashboard")

# module name, page, (path or template, title) of each address it answers
_ROUTES: list[tuple[str, Layout, str, str]] = [
    ("overview", overview.layout, "/", "Overview"),
    ("atlas", atlas.layout, "/atlas", "Atlas"),
    ("atlas_named", atlas.layout, "/atlas/<name>", "Atlas"),
    ("feature", feature.layout, "/feature", "Features"),
    ("feature_set", feature.layout, "/feature/<features>", "Features"),
    ("feature_one", feature.layout, "/feature/<features>/<index>", "Features"),
    ("prompt", prompt.layout, "/prompt", "Prompt"),
    ("heads", heads.layout, "/heads", "Heads"),
    ("heads_named", heads.layout, "/heads/<name>", "Heads"),
    ("circuit", circuit.layout, "/circuit", "Circuit"),
    ("circuit_named", circuit.layout, "/circuit/<name>", "Circuit"),
    ("sae", sae.layout, "/sae", "SAE"),
    ("geometry", geometry.layout, "/geometry", "Geometry"),
    ("dynamics", dynamics.layout, "/dynamics", "Dynamics"),
    ("changes", changes.layout, "/changes", "Changes"),
]


def create_app(
    workspace: Workspace, *, live: Live | None = None, hosts: tuple[str, ...] = (), token: str | None = None
) -> Dash:
    """The app on a workspace. `live` answers prompts (a lazily loaded model unless given); `hosts` and `token` as in
    `security.Guard`.
    """
    if live is None:
        from dashboard.prompt.live import LiveModel

        live = LiveModel(workspace)
    app = EarlyDash(
        "dashboard",
        assets_folder=str(Path(__file__).parent / "assets"),
        use_pages=True,
        pages_folder="",
        title="Interp workbench",
        update_title="",
        suppress_callback_exceptions=True,
        serve_locally=True,
        assets_ignore=r"\.mjs$",  # modules import each other: a script tag each would run them twice
        compress=False,
        on_error=_show_error,
        routing_callback_inputs={"scheme": Input("scheme", "data")},
    )
    attach(app.server, Context(workspace, live))
    atlas_routes.register(app.server)
    _register_pages()
    app.layout = shell(workspace)
    _register_shell(app)
    for module in (atlas, feature, prompt, heads, circuit, sae, geometry, dynamics, changes):
        module.register(app)
    app.server.wsgi_app = Guard(
        app.server.wsgi_app, policy=lambda: content_security_policy(app.csp_hashes()), hosts=hosts, token=token
    )
    return app


def _register_pages() -> None:
    dash.page_registry.clear()  # it is one per process, and may hold another app's pages
    for module, layout, path, title in _ROUTES:
        key = "path_template" if "<" in path else "path"
        dash.register_page(
            f"workbench.{module}",
            name=title,
            title=f"{title} · workbench",
            layout=_safe(layout, _base(path)),
            **attrs({key: path}),
        )
    dash.register_page(
        "workbench.not_found_404", title="Not found · workbench", layout=_safe(_not_found, "/"), path="/404"
    )


def _safe(layout: Layout, base: str) -> Layout:
    """The layout given the context of the app that answers; an error becomes a page that says what went wrong.

    `base` is the page without names in its address, where one can go on.
    """

    @wraps(layout)
    def show(scheme: str | None = None, **address: str) -> html.Div:
        if scheme is None:  # the browser has not said yet; it will in a moment
            return html.Div(className="wb-page wb-waiting")
        try:
            return layout(current(), **address)
        except WorkbenchError as error:
            return failure(error, back=base)
        except Exception as error:
            log.exception("a page failed")
            return failure(error, back=base)

    return show


def _base(path: str) -> str:
    """`/feature/<features>` -> `/feature`"""
    return "/" + path.split("/")[1]


def _not_found(context: Context, **_: Any) -> html.Div:
    raise UsageError("There is no page at this address.")


def _show_error(error: Exception) -> None:
    """Any error in a callback, shown at the top of the page; ours without a traceback in the terminal."""
    if not isinstance(error, WorkbenchError):
        log.error("a callback failed", exc_info=error)
    set_props("error-text", {"children": explain(error)})
    set_props("error-strip", {"hidden": False})


def _register_shell(app: Dash) -> None:
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
