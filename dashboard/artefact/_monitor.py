"""A text under a monitor, on the monitor's page: a box, and its tokens with their scores."""

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html

from dashboard.components.evidence import as_table
from dashboard.components.frame import Part, attempt, panel, verdict
from dashboard.components.tokens import token_strip
from dashboard.sources import current
from interp.directions.monitor import MonitoredText
from saes.acts.monitors import RunMonitor

FULL = 8.0
"""Log-odds above the threshold of the full colour."""


def monitor_panel(name: str) -> html.Section:
    """Return the box in which a monitor runs on a text."""
    return panel(
        "Run it on a text",
        dcc.Store(id="monitor-name", data=name),
        dmc.Textarea(id="monitor-text", label="Text", autosize=True, minRows=2, maxRows=8, size="xs", value=""),
        html.Button("Run", id="monitor-run", type="button", className="wb-act"),
        dcc.Loading(html.Div(id="monitor-drawn", role="status")),
        note="coloured: tokens above the threshold; the text fires where their mean score is above 0",
        more="A score is the log-odds of the probe above its threshold. The first token is not read. In a chat, choose "
        "the monitor on the page Directions.",
    )


def register_monitor(app: Dash) -> None:
    """Add the callback that runs a monitor."""

    @app.callback(
        Output("monitor-drawn", "children"),
        Input("monitor-run", "n_clicks"),
        State("monitor-name", "data"),
        State("monitor-text", "value"),
        prevent_initial_call=True,
    )
    def run(_: int, name: str, text: str) -> Part:
        return attempt(lambda: drawn(current().live.ask(RunMonitor(monitor=name, text=text))))


def drawn(watched: MonitoredText) -> html.Div:
    """Return a text with its verdict: coloured where a token scores above the threshold."""
    scores = [max(score or 0.0, 0.0) for score in watched.scores]
    tokens = token_strip(list(watched.tokens), scores, maximum=FULL, unit="score")
    return html.Div([verdict(f"{watched.sentence()}."), tokens, as_table(watched.to_records(), "Every token")])
