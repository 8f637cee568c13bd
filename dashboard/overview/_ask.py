"""The head of the overview: a field for a prompt, and the stored routes of one, which the browser draws."""

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, html

from dashboard.components.frame import attrs, panel, quiet_link
from dashboard.components.pages import page_of
from dashboard.components.routes import routes_view
from dashboard.figures.theme import visible
from interp.models.short_name import short_name
from interp.routes.routes import Routes
from interp.workspace import Workspace
from saes.acts.run import models_to_read

FIRST = "capital"
"""Name of the routes that are drawn where the workspace has them, else the newest."""
OTHERS = 8
"""Other prompts with routes that are named."""


def asking(workspace: Workspace) -> html.Div:
    """Return the field for a prompt and, where the workspace has routes of one, their picture below it."""
    stored = workspace.values(Routes)
    drawn = next((routes for routes in stored if routes.name == FIRST), next(iter(stored), None))
    others = [routes for routes in stored if routes is not drawn][:OTHERS]
    return html.Div(
        [_question(workspace, drawn, others), *([_answered(workspace, drawn)] if drawn else [])], className="wb-asking"
    )


def _question(workspace: Workspace, drawn: Routes | None, others: list[Routes]) -> html.Section:
    model = short_name(models_to_read(workspace)[0])
    prompt = drawn.settings.text.strip() if drawn else "The capital of France is"
    links = [
        quiet_link(f"{visible(routes.settings.text.strip(), 48)} → {_answer(routes)}", page_of(routes.href))
        for routes in others
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
        html.P(f"{model} reads your text: what it says next, and which word tells which word what."),
        html.P(["Answered already: ", *links], className="wb-note wb-ask-others") if links else None,
    )


def _answered(workspace: Workspace, routes: Routes) -> html.Section:
    """Return the panel that assets/routes/ fills with the picture of stored routes."""
    text = html.Q(visible(routes.settings.text.strip(), 80), dir="auto")
    return panel(
        ["After ", text],
        routes_view(workspace, routes.key),
        actions=quiet_link("Open on Prompt", page_of(routes.href)),
        className="wb-told",
    )


def _answer(routes: Routes) -> str:
    return visible(routes.answer.strip(), 30)


def register_asking(app: Dash) -> None:
    """Let the button, and Enter in the field, open the page *Prompt* on the text."""
    app.clientside_callback(
        ClientsideFunction("workbench", "ask"),
        Output("nav", "href", allow_duplicate=True),
        Input("ask-go", "n_clicks"),
        Input("ask-text", "n_submit"),
        prevent_initial_call=True,
    )
