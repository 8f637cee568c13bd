"""*Prompt*: type text and see what the model makes of it. Nothing is loaded until a prompt is run."""

from typing import Any

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update

from dashboard.addresses import whole_number
from dashboard.components.attributes import attrs
from dashboard.components.frame import explain, graph, loading, notice, page, select
from dashboard.context import Context, current
from dashboard.figures.pattern import attention_pattern
from dashboard.figures.theme import theme
from dashboard.pages.prompt_features import register_features
from dashboard.pages.prompt_result import lens_figure, reading
from dashboard.pages.prompt_why import register_why
from dashboard.views import features as feature_view
from dashboard.views.overview import models
from interp.errors import MissingError

EXAMPLE = "The capital of France is Paris, and the capital of Italy is"
COLD = "Loading the model: the first prompt takes a while, later ones do not."
WARM = "Reading the prompt."


def layout(
    context: Context,
    text: str = "",
    model: str = "",
    features: str = "",
    layer: str = "",
    head: str = "",
    answer: str = "",
    contrast: str = "",
    after: str = "",
    query: str = "",
    key: str = "",
    **_: Any,
) -> html.Div:
    """`/prompt?text=...&model=...&features=...&layer=..&head=..`; a text in the address is run at once.

    `answer`, `contrast` and `after` (a position) ask who wrote a logit; `query` and `key` why the head looks there.
    """
    known = models(context.workspace)
    if not known:
        raise MissingError(
            "no model here yet: a prompt runs on the model that something was made with; `workbench demo`"
        )
    sets = [{"value": "", "label": "no features"}, *feature_view.choices(context.workspace)]
    chosen = features or (feature_view.choose(context.workspace, None) if len(sets) > 1 else "")
    place = {"layer": whole_number(layer, 0), "head": whole_number(head, 0)}
    at = {"query": whole_number(query), "key": whole_number(key)}
    cell = None if None in at.values() else at
    run = {"text": text, "model": model or known[0], "features": chosen} if text else None
    return page(
        "Prompt",
        dcc.Store(id="prompt-run-state", data=run),
        dcc.Store(id="prompt-place", data=place),
        dcc.Store(id="prompt-asked", data={"answer": answer, "contrast": contrast, "after": after}),
        dcc.Store(id="prompt-cell", data=cell),
        html.Div(id="prompt-address", hidden=True),
        _editor(text, known, model or known[0], sets, chosen),
        html.Div(COLD if context.live.state == "cold" else WARM, id="prompt-busy", className="wb-busy"),
        html.Div(id="prompt-result", **attrs({"aria-live": "polite"})),
        lead="What the model expects after each token, layer by layer; where its heads look; which features fire.",
    )


def register(app: Dash) -> None:
    """Running, the attention pattern, and the address."""
    app.callback(
        Output("prompt-run-state", "data"),
        Input("prompt-go", "n_clicks"),
        State("prompt-text", "value"),
        State("prompt-model", "value"),
        State("prompt-features", "value"),
        prevent_initial_call=True,
    )(lambda _, text, model, features: {"text": text or "", "model": model, "features": features})
    app.callback(
        Output("prompt-result", "children"),
        Input("prompt-run-state", "data"),
        State("prompt-place", "data"),
        State("prompt-asked", "data"),
        State("scheme", "data"),
        running=[
            (Output("prompt-busy", "className"), "wb-busy wb-busy-on", "wb-busy"),
            (Output("prompt-go", "disabled"), True, False),
        ],
    )(_read)
    app.callback(
        Output("prompt-pattern", "children"),
        Output("prompt-place", "data"),
        Input("prompt-layer", "value"),
        Input("prompt-head", "value"),
        State("prompt-run-state", "data"),
        State("scheme", "data"),
    )(_pattern)
    app.callback(
        Output("prompt-lens-figure", "children"),
        Input("prompt-lens-kind", "value"),
        State("prompt-run-state", "data"),
        State("scheme", "data"),
        prevent_initial_call=True,
    )(_lens)
    register_why(app)
    register_features(app)
    app.clientside_callback(
        ClientsideFunction("workbench", "promptAddress"),
        Output("prompt-address", "children"),
        Input("prompt-run-state", "data"),
        Input("prompt-place", "data"),
        Input("prompt-asked", "data"),
        Input("prompt-cell", "data"),
    )


def _editor(text: str, known: list[str], model: str, sets: list[dict[str, str]], chosen: str) -> html.Section:
    return html.Section(
        [
            dmc.Textarea(
                id="prompt-text", value=text or EXAMPLE, autosize=True, minRows=2, maxRows=8, size="xs",
                className="wb-search wb-mono", **attrs({"aria-label": "Prompt"}),
            ),
            html.Div(
                [
                    dmc.Button("Run", id="prompt-go", size="xs"),
                    html.Span("Ctrl+Enter", className="wb-quiet"),
                    select("prompt-model", "Model", known, model, width=200),
                    select("prompt-features", "Features", sets, chosen, width=260),
                ],
                className="wb-controls",
            ),
        ],
        className="wb-panel wb-editor",
    )  # fmt: skip


def _read(run: dict[str, Any] | None, place: dict[str, int], asked: dict[str, Any], scheme: str | None) -> Any:
    if not run:
        return None
    try:
        result = current().live.read(run["text"], model=run["model"], features=run["features"] or None)
        names = _labels(run["features"], [f.feature for at in result.features for f in at])
        return reading(result, run["features"], names, theme(scheme), asked, layer=place["layer"], head=place["head"])
    except Exception as error:
        return notice(explain(error), tone="error")


def _lens(kind: str, run: dict[str, Any] | None, scheme: str | None) -> Any:
    if not run:
        return no_update
    result = current().live.read(run["text"], model=run["model"], features=run["features"] or None)  # remembered
    return lens_figure(result, kind, theme(scheme))


def _labels(name: str, indices: list[int]) -> dict[int, str]:
    if not name or not indices:
        return {}
    return feature_view.labels(current().workspace, name, sorted(set(indices)))


def _pattern(layer: str, head: str, run: dict[str, Any] | None, scheme: str | None) -> Any:
    if not run:
        return no_update, no_update
    at = {"layer": whole_number(layer, 0) or 0, "head": whole_number(head, 0) or 0}
    return pattern_graph(run["text"], run["model"], at["layer"], at["head"], scheme, id="prompt-pattern-graph"), at


def pattern_graph(text: str, model: str, layer: int, head: int, scheme: str | None, *, id: str) -> Any:
    """The attention of one head on a text as a figure, or the message why there is none."""
    try:
        pattern = current().live.pattern(text, model=model, layer=layer, head=head)
    except Exception as error:
        return notice(explain(error), tone="error")
    figure = attention_pattern(pattern.weights, pattern.tokens, theme(scheme), height=460)
    return loading(graph(id, figure=figure, height=460, label=f"Attention of L{layer}H{head}"))
