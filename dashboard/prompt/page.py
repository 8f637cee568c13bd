"""*Prompt*: one text read by a model of the workspace; a model is loaded at the first run.

From the top: the routes of the prompt (`dashboard.components.routes`), tokens with the loss of each, which stay in
sight; of the chosen token its features, the next-token distribution and the attribution beside each other; the lens,
every head and the attention of one, with the reasons for one cell. Steering and activation patching against a second
prompt are folded away.

One selection is shared by all of them: a token, a layer, a head, a feature, and an answer with its contrast. It is in
the address. The browser draws the tokens, the lens and the attention itself (assets/prompt/) and asks the acts of
`saes.acts.prompt` and others for what is seen.
"""

import json
import secrets
from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html

from dashboard.components.forms import fields_data, model_choices
from dashboard.components.frame import Part, attrs, folded, page, panel, quiet_link, select
from dashboard.components.pages import Page, address_sink, prompt_href, register_address, trace_href, whole_number
from dashboard.components.routes import routes_view
from dashboard.components.tokens import COLD, WARM
from dashboard.data import features as feature_view
from dashboard.figures.theme import DARK, LIGHT, Theme, visible
from dashboard.prompt._panels import attribution_panel, patching_panel, reasons_frame, register_patching, register_why
from dashboard.sources import PageSources, current
from interp.circuits.head_scores import HeadScores
from interp.names import HeadName
from interp.routes.routes import Routes
from interp.tracing.graph import AttributionGraph
from interp.workspace import Workspace
from saes.acts.features import JudgeSteering
from saes.acts.prompt import NextTokens
from saes.acts.run import models_to_read
from saes.acts.writing import ContinuePrompt, Exchange
from saes.features.schema import Features
from saes.sets.stored import StoredSet

EXAMPLE = "The capital of France is Paris, and the capital of Italy is"
FIELDS = fields_data(
    continue_prompt=(ContinuePrompt, ("feature", "strength", "n_new", "temperature", "seed")),
    judge_steering=(JudgeSteering, ("nulls",)),
    exchange=(Exchange, ("word", "other", "layer")),
    next_tokens=(NextTokens, ("temperature",)),
)
LEAD = "A text as the model reads it: the active features of every token, the next token, and its causes."


def layout(
    context: PageSources,
    text: str = "",
    model: str = "",
    features: str = "",
    chat: str = "",
    layer: str = "",
    head: str = "",
    token: str = "",
    feature: str = "",
    answer: str = "",
    contrast: str = "",
    key: str = "",
    patching: str = "",
    routes: str = "",
    **_: object,
) -> html.Div:
    """`/prompt?text=...&model=...&features=...&layer=..&head=..`; a text in the address is run at once.

    `token` is the position that is selected, `key` the source of the attention cell whose reasons are shown, `feature`
    the one that colours the tokens; `answer` and `contrast` are those of the attributions; `chat=1` puts the text into
    the chat template; `patching` names a stored map of patches, `routes` stored routes, which are drawn without a
    model; their text and model are filled in.
    """
    workspace = context.workspace
    known = models_to_read(workspace)
    stored = workspace.open(Routes, routes) if routes else None
    sets = [{"value": "", "label": "no features"}, *feature_view.choices(workspace)]
    chosen = features or (feature_view.choose(workspace, None) if len(sets) > 1 else "")
    if model and chosen and not features and workspace.open(Features, chosen).settings.model != model:
        chosen = ""
    why = "" if features or len(sets) < 2 else feature_view.why_chosen(workspace)
    shown = text or (stored.settings.text if stored else "")
    model = model or (stored.settings.model if stored else "")
    in_chat = chat == "1" or bool(stored and stored.settings.chat)
    run = {"text": text, "model": model or known[0], "features": chosen, "chat": chat == "1"} if text else None
    question = {"answer": answer, "contrast": contrast}
    strongest = _strongest_head(workspace, model or known[0])
    selection = {
        "token": whole_number(token),
        "layer": whole_number(layer, strongest and strongest.layer),
        "head": whole_number(head, strongest and strongest.head),
        "feature": whole_number(feature),
        "key": whole_number(key),
    }
    return page(
        "Prompt",
        dcc.Store(id="prompt-visitor", data=secrets.token_hex(8)),
        dcc.Store(id="prompt-run-state", data=run),
        dcc.Store(id="prompt-selection", data=selection),
        dcc.Store(id="prompt-asked", data=question),
        dcc.Store(id="prompt-read", data=None),
        dcc.Store(id="prompt-token", data=None),
        dcc.Store(id="prompt-cell", data=None),
        address_sink("prompt"),
        html.Div(id="prompt-drawn", hidden=True),
        _editor(shown, known, model or known[0], sets, chosen, chat=in_chat),
        html.Div(
            [html.Span(COLD if context.live.state == "cold" else WARM, id="prompt-stage", role="status"),
             html.Button("Cancel", id="prompt-cancel", type="button", className="wb-link")],
            id="prompt-busy", className="wb-busy",
        ),
        html.Div(id="prompt-error", role="alert"),
        None if run or stored else _prompts_to_try(workspace, model or known[0]),
        _routes_panel(workspace, stored),
        html.Div(
            _views(answer, contrast, _trace(workspace, run, question)),
            id="prompt-views", className="wb-hidden", **_colours(),
            **FIELDS,
        ),
        patching_panel(workspace, patching),
        lead=why or LEAD,
    )  # fmt: skip


def _routes_panel(workspace: Workspace, stored: Routes | None) -> html.Section:
    """Return the panel of the routes; it is shown once there are any."""
    return panel(
        "Which word tells which word what",
        routes_view(workspace, stored.key if stored else "", id="prompt-routes"),
        more="An arc leads from a word to a later one that attends to it. Width: what the answer loses, in nats, where "
        "the arc is cut in all layers and heads. Blue speaks for the answer, orange against it. On an arc: the words "
        "that it carries, and its layers. Shade of a word: what the answer loses where no later word sees it.",
        className="" if stored else "wb-hidden",
    )


def _strongest_head(workspace: Workspace, model: str) -> HeadName | None:
    """Return the head that is shown first, the strongest induction head; None where heads were not scored."""
    scored = (scores for scores in workspace.values(HeadScores) if scores.settings.model == model)
    return next((scores.strongest("induction", 1)[0][0] for scores in scored if "induction" in scores.kinds), None)


def _prompts_to_try(workspace: Workspace, model: str) -> html.Section:
    """Return links that read the example, and the prompts of the newest graphs of the model."""
    graphs = [graph.prompt for graph in workspace.values(AttributionGraph) if graph.model == model]
    links = [quiet_link(visible(text, 60), prompt_href(text=text, model=model)) for text in (EXAMPLE, *graphs[:3])]
    return panel("Prompts to try", html.Ul([html.Li(link) for link in links], className="wb-lines"))


def register(app: Dash) -> None:
    """Add the routes and the callbacks: running a prompt, the panels of its result, and the address."""
    app.callback(
        Output("prompt-run-state", "data"),
        Input("prompt-go", "n_clicks"),
        State("prompt-text", "value"),
        State("prompt-model", "value"),
        State("prompt-features", "value"),
        State("prompt-chat", "checked"),
        prevent_initial_call=True,
    )(_run)
    app.clientside_callback(
        ClientsideFunction("workbenchPrompt", "run"),
        Output("prompt-drawn", "children"),
        Input("prompt-run-state", "data"),
        State("prompt-visitor", "data"),
        State("prompt-selection", "data"),
        State("prompt-asked", "data"),
    )
    app.clientside_callback(
        ClientsideFunction("workbenchPrompt", "answer"),
        Output("prompt-asked", "data"),
        Input("prompt-answer", "value"),
        Input("prompt-contrast", "value"),
        State("prompt-asked", "data"),
        prevent_initial_call=True,
    )
    inputs = (Input(f"prompt-{part}", "data") for part in ("run-state", "asked"))
    app.callback(Output("prompt-trace", "href"), *inputs, prevent_initial_call=True)(_trace_here)
    register_why(app)
    register_patching(app)
    register_address(app, "prompt", *(Input(f"prompt-{part}", "data") for part in ("run-state", "selection", "asked")))


def _run(_: int | None, text: str | None, model: str, features: str | None, chat: bool | None) -> dict[str, object]:
    return {"text": text or "", "model": model, "features": features or "", "chat": bool(chat)}


def _trace_here(run: dict[str, Any] | None, question: dict[str, str] | None) -> str:
    return _trace(current().workspace, run, question or {})


def _trace(workspace: Workspace, run: dict[str, Any] | None, question: Mapping[str, str]) -> str:
    """Return the address that traces the prompt, by the newest set of transcoders of its model.

    The answer and the contrast that were asked for are its target and its contrast.
    """
    if not run:
        return trace_href()
    sets = workspace.values(StoredSet)
    of_model = next((transcoders.name for transcoders in sets if transcoders.model == run["model"]), None)
    words = {"target": question.get("answer"), "contrast": question.get("contrast")}
    return trace_href(run["text"], model=run["model"], set=of_model, chat=run["chat"] or None, **words)


def _views(answer: str, contrast: str, trace: str) -> list[Part]:
    """Return empty panels, which the browser and the callbacks fill once a prompt was read.

    `trace` is the address that traces the prompt.
    """
    return [
        panel(
            html.Span(id="prompt-selected", **attrs({"aria-live": "polite"})),
            html.Div(id="prompt-tokens"),
            more="Choose a token by a click or with the arrow keys; everything below is about it.",
            actions=[html.Span(id="prompt-facts", className="wb-quiet"), html.Div(id="prompt-colour-choice")],
            className="wb-sticky",
        ),
        html.Div(
            [
                panel(
                    "Features",
                    html.Div(id="prompt-token-features"),
                    more="The most active features on the chosen token. Bar: activation, relative to the strongest. "
                    "Percentile: share of the feature's recorded activations that are smaller. The number opens the "
                    "feature, the label colours the tokens by it. Null under the list: random vectors as far from the "
                    "mean of the activations as those of the prompt.",
                ),
                panel(
                    "Next token",
                    html.Div(id="prompt-next"),
                    actions=dcc.Link("Trace it", id="prompt-trace", href=trace, className="wb-link"),
                ),
                attribution_panel(answer, contrast),
            ],
            className="wb-beside",
        ),
        html.Div(
            [
                panel(
                    "After each layer",
                    html.Div(id="prompt-lens"),
                    actions=[html.Div(id="prompt-lens-choice")],
                    more="The residual stream after each layer, decoded by the final norm and the unembedding: the "
                    "most probable next token, or the answer's probability or rank.",
                ),
                panel(
                    "Every head",
                    html.Div(id="prompt-heads"),
                    more="The attention of each head; choose one by a click or with the arrow keys. Colour is the "
                    "square root of the attention, here and in the enlarged head.",
                ),
                panel(
                    html.Span("Attention", id="prompt-pattern-title"),
                    html.Div(id="prompt-pattern"),
                    more="Each row is one token (destination) and sums to 1 over the tokens that it attends to "
                    "(sources). A click selects a cell and explains its score.",
                ),
            ],
            className="wb-layers",
        ),
        reasons_frame(),
        folded(
            "Continuation under steering",
            html.Div(id="prompt-steer"),
            note="The continuation unchanged, changed, and changed as much in a random direction (control).",
        ),
    ]


def _colours() -> dict[str, Any]:
    """Return the colours that the browser draws with, in both schemes."""

    def of(colours: Theme) -> dict[str, object]:
        return {
            "scale": colours.sequential, "on": colours.on_scale, "muted": colours.muted, "accent": colours.accent,
            "opposite": colours.opposite, "text": colours.text, "grid": colours.grid,
        }  # fmt: skip

    return attrs({"data-colours": json.dumps({"light": of(LIGHT), "dark": of(DARK)})})


def _editor(
    text: str, known: list[str], model: str, sets: list[dict[str, str]], chosen: str, *, chat: bool
) -> html.Section:
    return html.Section(
        [
            dmc.Textarea(
                id="prompt-text", value=text or EXAMPLE, autosize=True, minRows=1, maxRows=5, size="xs",
                className="wb-search wb-mono", persistence=True, persistence_type="session",
                **attrs({"aria-label": "Prompt"}),
            ),
            html.Div(
                [
                    html.Span(dmc.Button("Run", id="prompt-go", size="xs"), title="Ctrl+Enter"),
                    select("prompt-model", "Model", model_choices(known), model, width=200),
                    select("prompt-features", "Features", sets, chosen, width=260),
                    dmc.Switch(id="prompt-chat", label="chat template", checked=chat, size="xs"),
                ],
                className="wb-controls",
            ),
        ],
        className="wb-panel wb-editor",
    )  # fmt: skip


PAGE = Page(
    title="Prompt",
    path="/prompt",
    group="prompts",
    order=40,
    about="What the model reads in your text, and says next",
    layout=layout,
    register=register,
    shows="Any text read by a model of the workspace: its tokens and their features, the prediction after every "
    "layer, the attention of its heads, and continuations under steering. It offers the models that artefacts were "
    "made with.",
    command="workbench demo",
)
