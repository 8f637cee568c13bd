"""*Prompt*: one text read by a model of the workspace; nothing is loaded until a prompt is run.

In reading order: the loss of every token and the likeliest continuations, the logit lens, direct logit attribution
(`why.py`), attribution to the features of a dictionary, the attention of a head with the reasons for one of its cells
(`why.py`), and the strongest features on every token. Below them: activation patching between two prompts
(`patching.py`).
"""

from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html, no_update

from dashboard.components.frame import attempt, attrs, graph, page, panel, select, stat
from dashboard.components.live import ActiveFeature, FeatureShares, PromptResult
from dashboard.components.pages import (
    Context,
    NothingYetError,
    Page,
    address_sink,
    current,
    register_address,
    whole_number,
)
from dashboard.components.tokens import (
    COLD,
    WARM,
    attention_graph,
    feature_chip,
    feature_line,
    token_bars,
    token_strip,
    token_text,
)
from dashboard.feature import data as feature_view
from dashboard.figures.heads import logit_lens
from dashboard.figures.theme import Theme, theme, visible
from dashboard.overview.data import models
from dashboard.prompt.patching import patching_panel, register_patching
from dashboard.prompt.why import logit_panel, register_why


def attribution_panel() -> html.Section:
    """Return the panel with a button (it takes some ten passes of the model); the answer is that of the panel above."""
    return panel(
        "Attribution to features",
        html.Div(
            dmc.Button("Attribute to features", id="prompt-attribution", size="xs", variant="default"),
            className="wb-controls",
        ),
        html.Div(id="prompt-feature-shares"),
        note="effect of each feature on the logit of the answer: its share of the change when all features are ablated "
        "together (integrated gradients); ablating one alone may change less, since others compensate",
    )


def register_features(app: Dash) -> None:
    """Add the callback of the button."""
    app.callback(
        Output("prompt-feature-shares", "children"),
        Input("prompt-attribution", "n_clicks"),
        State("prompt-answer", "value"),
        State("prompt-contrast", "value"),
        State("prompt-after", "value"),
        State("prompt-run-state", "data"),
        running=[(Output("prompt-attribution", "disabled"), True, False)],
        prevent_initial_call=True,
    )(_attribute)


def _attribute(
    clicks: int | None, answer: str | None, contrast: str | None, after: str, run: dict[str, Any] | None
) -> Any:
    if not clicks or not run:
        return no_update

    def body() -> html.Div:
        found = current().live.feature_shares(
            run["text"], model=run["model"], features=run["features"], answer=answer or "", contrast=contrast or "",
            after=whole_number(after),
        )  # fmt: skip
        numbers = sorted(share.feature for share in found.features)
        return shares(found, run["features"], feature_view.labels(current().workspace, run["features"], numbers))

    return attempt(body)


def shares(found: FeatureShares, features: str, labels: dict[int, str]) -> html.Div:
    """Return the sums over features and error, and the features with the largest effects, each a link."""
    against = f" − logit({visible(found.contrast, 24)})" if found.contrast is not None else " above the mean"
    rest = found.explained - sum(share.effect for share in found.features)
    left = found.n_active - len(found.features)
    numbers = [
        stat(
            f"logit({visible(found.answer, 24)}){against}",
            f"{found.total:+.3f}",
            f"after {visible(found.token, 24)}, minus its value with features and error ablated at {found.hook_point}",
        ),
        stat("all features", f"{found.explained:+.3f}", f"{found.n_active:,} active ones"),
        stat("error", f"{found.error:+.3f}", "effect of the reconstruction error, which no feature explains"),
        stat("remainder", f"{found.gap:+.3f}", "the part that the approximation by gradients misses"),
    ]
    lines = [
        feature_line(
            features,
            share.feature,
            labels.get(share.feature, ""),
            f"{share.effect:+.3f} at {visible(share.token, 12)} ({share.position})",
        )
        for share in found.features
    ]
    more = [html.P(f"The other {left:,} active features: {rest:+.3f} together.", className="wb-note")] if left else []
    return html.Div([html.Div(numbers, className="wb-stats", dir="auto"), html.Ol(lines, className="wb-lines"), *more])


FULL_SURPRISE = 10.0
"""Loss in nats at which a token is coloured fully: a probability of 1 in 22,000."""


def reading(
    result: PromptResult,
    features: str,
    names: dict[int, str],
    colours: Theme,
    asked: dict[str, Any] | None = None,
    *,
    layer: int,
    head: int,
) -> html.Div:
    """Return the panels of a prompt in reading order."""
    return html.Div(
        [
            html.Div([_surprise(result), _continuations(result)], className="wb-two"),
            _lens_section(result, colours),
            html.Div(logit_panel(result, asked or {}), className="wb-row"),
            *([html.Div(attribution_panel(), className="wb-row")] if features else []),
            html.Div([_attention(result, layer, head), _why()], className="wb-two wb-even"),
            _features(result, features, names),
        ]
    )


def _surprise(result: PromptResult) -> html.Section:
    losses = [loss or 0.0 for loss in result.losses]
    known = [loss for loss in result.losses if loss is not None]
    mean = f"{sum(known) / len(known):.2f}" if known else "none"
    return panel(
        "Loss of every token",
        token_strip(result.tokens, losses, maximum=FULL_SURPRISE, unit="loss in nats"),
        html.Div(
            [
                stat("tokens", f"{len(result.tokens)}"),
                stat("mean loss, nats", mean, "average of -log(probability) of each token given those before it"),
                stat("seconds", f"{result.seconds:.2g}"),
            ],
            className="wb-stats",
        ),
        note="the stronger the colour, the less probable the token was for the model: -log(probability) in nats",
    )


def _continuations(result: PromptResult) -> html.Section:
    bars = token_bars(result.next_tokens, label="Likeliest next tokens", maximum=1.0, form="{:.1%}".format)
    return panel("Next token", bars, note="the most probable next tokens")


def _why() -> html.Section:
    return panel("Reasons for one cell", html.Div(id="prompt-reasons"))


def lens_figure(result: PromptResult, kind: str, colours: Theme) -> html.Div:
    """Return the figure of a lens, `logit` or `tuned`."""
    cells = result.tuned if kind == "tuned" else result.lens
    figure = logit_lens(cells, result.layers, result.tokens, colours)
    return graph("prompt-lens", figure=figure, label=f"{kind.capitalize()} lens")


def _lens_section(result: PromptResult, colours: Theme) -> html.Section:
    kinds = [{"value": "logit", "label": "logit lens"}, {"value": "tuned", "label": "tuned lens"}]
    choice = dmc.SegmentedControl(id="prompt-lens-kind", data=kinds if result.tuned else kinds[:1], value="logit",
                                  size="xs", className="" if result.tuned else "wb-hidden")  # fmt: skip
    return panel(
        "After each layer",
        html.Div(lens_figure(result, "logit", colours), id="prompt-lens-figure", className="wb-scroll"),
        actions=[choice],
        note="the most probable next token when the residual stream after that layer is unembedded; the input is at "
        "the bottom, the output at the top",
    )


def _attention(result: PromptResult, layer: int, head: int) -> html.Section:
    layers = [{"value": str(i), "label": f"layer {i}"} for i in range(result.n_layers)]
    heads = [{"value": str(i), "label": f"head {i}"} for i in range(result.n_heads)]
    layer, head = min(layer, result.n_layers - 1), min(head, result.n_heads - 1)
    return panel(
        "Attention",
        html.Div(id="prompt-pattern", className="wb-scroll"),
        actions=[
            select("prompt-layer", "Layer", layers, str(layer), width=112),
            select("prompt-head", "Head", heads, str(head), width=112),
        ],
        note="each row is one token (destination), and sums to 1 over the tokens that it attends to (sources)",
    )


def _features(result: PromptResult, features: str, names: dict[int, str]) -> html.Section:
    if not result.features:
        return panel("Features", html.P("No dictionary was chosen.", className="wb-none"))
    strongest = max((f.activation for at in result.features for f in at), default=0.0) or 1.0
    rows = [
        html.Li([token_text(token, 20), html.Div(_chips(at, features, names, strongest))])
        for token, at in zip(result.tokens, result.features, strict=True)
    ]
    return panel(
        "Features",
        html.Ol(rows, className="wb-token-features"),
        note="the most active features on each token; a click opens one",
    )


def _chips(at: list[ActiveFeature], features: str, names: dict[int, str], strongest: float) -> list:
    if not at:
        return [html.Span("none", className="wb-quiet")]
    return [
        feature_chip(features, f.feature, names.get(f.feature, ""), f.activation, f.activation / strongest) for f in at
    ]


EXAMPLE = "The capital of France is Paris, and the capital of Italy is"


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
    patching: str = "",
    **_: Any,
) -> html.Div:
    """`/prompt?text=...&model=...&features=...&layer=..&head=..`; a text in the address is run at once.

    `answer`, `contrast` and `after` (a position) are those of the direct logit attribution; `query` and `key` name the
    cell of the attention pattern whose reasons are shown; `patching` names a stored map of activation patches.
    """
    known = models(context.workspace)
    if not known:
        raise NothingYetError("a prompt runs on a model that an artefact was made with, and there is none yet")
    sets = [{"value": "", "label": "no features"}, *feature_view.choices(context.workspace)]
    chosen = features or (feature_view.choose(context.workspace, None) if len(sets) > 1 else "")
    head_shown = {"layer": whole_number(layer, 0), "head": whole_number(head, 0)}
    at = {"query": whole_number(query), "key": whole_number(key)}
    cell = None if None in at.values() else at
    run = {"text": text, "model": model or known[0], "features": chosen} if text else None
    return page(
        "Prompt",
        dcc.Store(id="prompt-run-state", data=run),
        dcc.Store(id="prompt-head-shown", data=head_shown),
        dcc.Store(id="prompt-asked", data={"answer": answer, "contrast": contrast, "after": after}),
        dcc.Store(id="prompt-cell", data=cell),
        address_sink("prompt"),
        _editor(text, known, model or known[0], sets, chosen),
        html.Div(COLD if context.live.state == "cold" else WARM, id="prompt-busy", className="wb-busy"),
        html.Div(id="prompt-result", **attrs({"aria-live": "polite"})),
        html.Div(patching_panel(context.workspace, patching), className="wb-row"),
        lead="One text, read by a model: its loss and predictions, layer by layer, the attention of its heads, and the "
        "active features.",
    )


def register(app: Dash) -> None:
    """Add the callbacks: running a prompt, the panels of its result, and the address."""
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
        State("prompt-head-shown", "data"),
        State("prompt-asked", "data"),
        State("scheme", "data"),
        running=[
            (Output("prompt-busy", "className"), "wb-busy wb-busy-on", "wb-busy"),
            (Output("prompt-go", "disabled"), True, False),
        ],
    )(_read)
    app.callback(
        Output("prompt-pattern", "children"),
        Output("prompt-head-shown", "data"),
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
    register_patching(app)
    register_address(
        app, "prompt", *(Input(f"prompt-{part}", "data") for part in ("run-state", "head-shown", "asked", "cell"))
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


def _read(run: dict[str, Any] | None, head: dict[str, int], asked: dict[str, Any], scheme: str | None) -> Any:
    if not run:
        return None

    def body() -> html.Div:
        result = current().live.read(run["text"], model=run["model"], features=run["features"] or None)
        names = _labels(run["features"], [f.feature for at in result.features for f in at])
        return reading(result, run["features"], names, theme(scheme), asked, layer=head["layer"], head=head["head"])

    return attempt(body)


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
    return attention_graph(run["text"], run["model"], at["layer"], at["head"], scheme, id="prompt-pattern-graph"), at


PAGE = Page(
    title="Prompt",
    path="/prompt",
    order=40,
    layout=layout,
    register=register,
    shows="Any text read by a model of the workspace: the loss of every token, the model's guess after every layer, "
    "the attention of its heads, and the features that are active. It offers the models that artefacts were made with.",
    command="workbench heads MODEL",
)
