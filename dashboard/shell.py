"""The frame of every page: the bar with navigation, the switch between light and dark, help, and the error strip."""

from typing import Any

import dash
import dash_mantine_components as dmc
from dash import dcc, html

from dashboard.components.frame import attrs
from dashboard.components.pages import Page
from interp.workspace import Workspace

KEYS = [
    ("/", "search this page"),
    ("j  k", "next and previous feature (so do the arrow keys), word list or run"),
    ("r", "a random feature"),
    ("Ctrl Enter", "run the prompt"),
    ("+  -  0", "map and circuit: zoom in, zoom out, show everything"),
    ("arrows  Enter  Esc", "map: move, select the point in the middle (twice: open it), clear the selection"),
    ("Shift drag", "map: lasso (Alt drag: rectangle, Ctrl click: add a point)"),
    ("t", "switch between light and dark"),
    ("?", "this list"),
    ("Esc", "leave a field, deselect an edge, close this list"),
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


def shell(workspace: Workspace, pages: list[Page]) -> dmc.MantineProvider:
    """Return everything around the pages, which the router puts into the middle."""
    return dmc.MantineProvider(
        [
            dcc.Store(id="scheme"),
            dcc.Location(id="nav", refresh="callback-nav"),
            html.A("Skip to the page", href="#main", className="wb-skip"),
            _bar(workspace, pages),
            _error_strip(),
            html.Main(dash.page_container, id="main", tabIndex=-1),
            _help(),
        ],
        id="provider",
        theme=THEME,
        defaultColorScheme="auto",
    )


def _bar(workspace: Workspace, pages: list[Page]) -> html.Header:
    links = [
        dcc.Link(each.title, href=each.path, className="wb-nav-link", id=f"nav-{each.title.lower()}") for each in pages
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
