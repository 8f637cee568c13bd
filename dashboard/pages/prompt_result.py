"""What came of a prompt: continuations, surprise per token, the logit lens, a head's attention, and features."""

from typing import Any

import dash_mantine_components as dmc
from dash import html

from dashboard.components.bars import token_bars
from dashboard.components.feature_links import feature_chip
from dashboard.components.frame import graph, panel, select, stat
from dashboard.components.token_strip import token_strip, token_text
from dashboard.figures.lens import logit_lens
from dashboard.figures.theme import Theme
from dashboard.pages.prompt_features import rests_panel
from dashboard.pages.prompt_why import logit_panel
from dashboard.results import ActiveFeature, PromptResult

FULL_SURPRISE = 10.0
"""nats at which a token is coloured fully: a chance of 1 in 22,000"""


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
    """Panels in reading order."""
    return html.Div(
        [
            html.Div([_surprise(result), _continuations(result)], className="wb-two"),
            _lens_section(result, colours),
            html.Div(logit_panel(result, asked or {}), className="wb-row"),
            *([html.Div(rests_panel(), className="wb-row")] if features else []),
            html.Div([_attention(result, layer, head), _why()], className="wb-two wb-even"),
            _features(result, features, names),
        ]
    )


def _surprise(result: PromptResult) -> html.Section:
    losses = [loss or 0.0 for loss in result.losses]
    known = [loss for loss in result.losses if loss is not None]
    mean = f"{sum(known) / len(known):.2f}" if known else "none"
    return panel(
        "Surprise",
        token_strip(result.tokens, losses, maximum=FULL_SURPRISE, unit="loss in nats"),
        html.Div(
            [
                stat("tokens", f"{len(result.tokens)}"),
                stat("mean loss, nats", mean, "average of -log(probability) of each token given those before it"),
                stat("seconds", f"{result.seconds:.2g}"),
            ],
            className="wb-stats",
        ),
        note="the stronger the colour, the less the model expected the token (loss in nats; hover for the value)",
    )


def _continuations(result: PromptResult) -> html.Section:
    bars = token_bars(result.next_tokens, label="Likeliest next tokens", maximum=1.0, form="{:.1%}".format)
    return panel("What comes next", bars, note="the likeliest next tokens")


def _why() -> html.Section:
    return panel("Why it looks there", html.Div(id="prompt-reasons"))


def lens_figure(result: PromptResult, kind: str, colours: Theme) -> html.Div:
    """The lens of one kind, `logit` or `tuned`."""
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
        note="the top token if the model stopped after that layer; the input is at the bottom, the output at the top",
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
        note="each row shows where one token looks; a row sums to 1",
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
        "Features", html.Ol(rows, className="wb-token-features"), note="the strongest on each token; a click opens one"
    )


def _chips(at: list[ActiveFeature], features: str, names: dict[int, str], strongest: float) -> list:
    if not at:
        return [html.Span("none", className="wb-quiet")]
    return [
        feature_chip(features, f.feature, names.get(f.feature, ""), f.activation, f.activation / strongest) for f in at
    ]
