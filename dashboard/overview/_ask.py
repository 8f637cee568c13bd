"""The head of the overview: a field for a prompt, and the story of a stored graph, which the browser draws."""

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, html

from dashboard.components.frame import attrs, panel, quiet_link
from dashboard.components.pages import graph_href, page_of
from dashboard.figures.theme import visible
from interp.models.short_name import short_name
from interp.tracing.graph import AttributionGraph
from interp.workspace import Workspace
from saes.acts.session import models_to_read

FIRST_ANSWER = "Paris"
"""Answer of the graph that is told where the workspace has it."""
OTHERS = 3
"""Other graphs that are named."""


def asking(workspace: Workspace) -> html.Div:
    """Return the field for a prompt and, where the workspace has a graph, its story below it."""
    graphs = [graph for graph in workspace.values(AttributionGraph) if graph.targets and not graph.first_picture]
    told = next((graph for graph in graphs if _answer(graph) == FIRST_ANSWER), next(iter(graphs), None))
    others = [graph for graph in graphs if graph is not told][:OTHERS]
    return html.Div([_question(workspace, told, others), *([_story(told)] if told else [])], className="wb-asking")


def _question(workspace: Workspace, told: AttributionGraph | None, others: list[AttributionGraph]) -> html.Section:
    model = short_name(models_to_read(workspace)[0])
    prompt = told.prompt.strip() if told else "The capital of France is"
    links = [
        quiet_link(f"{visible(graph.prompt.strip(), 48)} → {_shown(graph)}", page_of(graph.href)) for graph in others
    ]
    return panel(
        "Ask the model why",
        html.Div(
            [
                dmc.TextInput(id="ask-text", value=prompt, className="wb-search", **attrs({"aria-label": "Prompt"})),
                dmc.Button("Ask", id="ask-go"),
            ],
            className="wb-ask-line",
        ),
        html.P(f"{model} reads your text: what it says next, the features of each word, and the words that caused it."),
        html.P(["Told already: ", *links], className="wb-note wb-ask-others") if links else None,
    )


def _story(graph: AttributionGraph) -> html.Section:
    """Return the element that assets/graph.mjs fills with the story."""
    source = {"data-story-source": f"/graph-data/{graph.name}/story.json", "data-story-href": graph_href(graph.name)}
    return panel(
        ["Why it says ", html.Em(_shown(graph)), " after ", html.Q(visible(graph.prompt.strip(), 80), dir="auto")],
        html.Div(html.P("Reading the graph…", className="wb-none"), className="wb-story", **attrs(source)),
        actions=quiet_link("Open the graph", page_of(graph.href)),
        className="wb-told",
    )


def _answer(graph: AttributionGraph) -> str:
    return graph.targets[0].sides[0].strip()


def _shown(graph: AttributionGraph) -> str:
    return visible(_answer(graph), 30)


def register_asking(app: Dash) -> None:
    """Let the button, and Enter in the field, open the page *Prompt* on the text."""
    app.clientside_callback(
        ClientsideFunction("workbench", "ask"),
        Output("nav", "href", allow_duplicate=True),
        Input("ask-go", "n_clicks"),
        Input("ask-text", "n_submit"),
        prevent_initial_call=True,
    )
