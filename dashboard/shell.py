"""What stands around every page: the bar with navigation, the light and dark switch, help, and the error strip."""

from typing import Any

import dash
import dash_mantine_components as dmc
from dash import dcc, html

from dashboard.addresses import PAGES
from dashboard.components.frame import attrs
from interp.workspace import Workspace

KEYS = [
    ("/", "search this page"),
    ("j  k", "next, previous feature (arrows do the same), list or run"),
    ("r", "a random feature"),
    ("Ctrl Enter", "run the prompt"),
    ("+  -  0", "map and circuit: closer, farther, all of it"),
    ("arrows  Enter  Esc", "map: move, choose the point in the middle (twice: open it), let go of everything"),
    ("Shift drag", "map: lasso (Alt drag: rectangle, Ctrl click: one more point)"),
    ("t", "light or dark"),
    ("?", "this list"),
    ("Esc", "leave a field, let go of an edge, close this list"),
]

THEME: Any = {
    "fontFamily": "var(--wb-font)",
    "fontFamilyMonospace": "var(--wb-mono)",
    "primaryColor": "accent",
    "primaryShade": {"light": 6, "dark": 5},
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


def shell(workspace: Workspace) -> dmc.MantineProvider:
    """The whole page; the router fills its middle."""
    return dmc.MantineProvider(
        [
            dcc.Store(id="scheme"),
            dcc.Location(id="nav", refresh="callback-nav"),
            html.A("Skip to the page", href="#main", className="wb-skip"),
            _bar(workspace),
            _error_strip(),
            html.Main(dash.page_container, id="main", tabIndex=-1),
            _help(),
        ],
        id="provider",
        theme=THEME,
        defaultColorScheme="auto",
    )


def _bar(workspace: Workspace) -> html.Header:
    links = [
        dcc.Link(name, href=href, className="wb-nav-link", id=f"nav-{name.lower()}") for name, href in PAGES.items()
    ]
    return html.Header(
        [
            dcc.Link(
                [html.Span(className="wb-logo", **attrs({"aria-hidden": "true"})), "interp workbench"],
                href="/",
                className="wb-brand",
            ),
            html.Nav(links, id="navigation", className="wb-nav", **attrs({"aria-label": "Pages"})),
            html.Span(workspace.root.name, className="wb-where", title=str(workspace.root)),
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


def _help() -> dmc.Modal:
    rows = [html.Div([html.Dt(html.Kbd(key)), html.Dd(words)]) for key, words in KEYS]
    return dmc.Modal(html.Dl(rows, className="wb-keys"), id="help", title="Keys", opened=False, size="sm")
