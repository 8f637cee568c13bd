"""The head of the overview: a field for a prompt, and links to graphs of prompts that were traced."""

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, html

from dashboard.components.frame import attrs, panel, quiet_link
from dashboard.components.pages import page_of
from dashboard.figures.theme import visible
from interp.models.short_name import short_name
from interp.tracing.graph import AttributionGraph
from interp.workspace import Workspace
from saes.acts.session import models_to_read

MOST = 4
"""Graphs that are named."""


def asking(workspace: Workspace) -> html.Section:
    """Return the field for a prompt with, below it, links to graphs of the workspace."""
    graphs = [graph for graph in workspace.values(AttributionGraph) if graph.targets and not graph.first_picture]
    model = short_name(models_to_read(workspace)[0])
    links = [
        quiet_link(
            f"{visible(graph.prompt.strip(), 48)} → {visible(graph.targets[0].sides[0].strip(), 30)}",
            page_of(graph.href),
        )
        for graph in graphs[:MOST]
    ]
    return panel(
        "Ask the model why",
        html.Div(
            [
                dmc.TextInput(
                    id="ask-text",
                    value="The capital of France is",
                    className="wb-search",
                    **attrs({"aria-label": "Prompt"}),
                ),
                dmc.Button("Ask", id="ask-go"),
            ],
            className="wb-ask-line",
        ),
        html.P(f"{model} reads your text: what it says next, the features of each word, and the words that caused it."),
        html.P(["Traced already: ", *links], className="wb-note wb-ask-others") if links else None,
        className="wb-asking",
    )


def register_asking(app: Dash) -> None:
    """Let the button, and Enter in the field, open the page *Prompt* on the text."""
    app.clientside_callback(
        ClientsideFunction("workbench", "ask"),
        Output("nav", "href", allow_duplicate=True),
        Input("ask-go", "n_clicks"),
        Input("ask-text", "n_submit"),
        prevent_initial_call=True,
    )
