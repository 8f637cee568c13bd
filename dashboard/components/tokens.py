"""Tokens in a row coloured by activation, tokens with a bar each, attention between them, and links to features.

Texts are set as text, never as HTML. The colour of a token is one hue with alpha = activation / maximum; the peak is
outlined. Tab reaches the first highlighted token of a text, the arrow keys the others. Runs of inactive tokens are one
element, so that a page of examples stays small; assets/tokens.mjs finds the one under the pointer.
"""

from collections.abc import Callable, Sequence

from dash import dcc, html

from dashboard.components.frame import attempt, attrs, graph, loading
from dashboard.components.pages import feature_href
from dashboard.figures.heads import attention_pattern
from dashboard.figures.theme import theme, visible
from dashboard.sources import current
from saes.acts.prompt import ShowAttention

COLD = "Loading the model: the first prompt takes a while, later ones do not."
WARM = "Reading the prompt."

MIN_ALPHA, MAX_ALPHA = 0.12, 0.72
"""Bounds of alpha: the weakest token is visible, the strongest readable, in both schemes."""


def token_strip(
    tokens: list[str],
    activations: list[float],
    *,
    maximum: float,
    peak: int | None = None,
    unit: str = "activation",
    ids: list[int] | None = None,
    first: int | None = None,
) -> html.Div:
    """Return `tokens [n]` coloured by `activations [n]` (>= 0); `maximum` is the activation of full colour.

    With `ids [n]` and the position `first` of the first token, the tooltip of every token has its position and id.
    """
    children: list[html.Span | html.Mark] = []
    silent: list[str] = []
    where = [""] * len(tokens) if ids is None or first is None else [
        f", position {first + i}, token {id}" for i, id in enumerate(ids)
    ]  # fmt: skip
    for i, (token, activation) in enumerate(zip(tokens, activations, strict=True)):
        if activation <= 0 and i != peak:
            silent.append(visible(token))
            continue
        if silent:
            children.append(_silent(silent, i - len(silent), bool(where[i])))
            silent = []
        tab = -1 if any(isinstance(child, html.Mark) for child in children) else 0
        mark = _active(token, activation, maximum, peak=i == peak, unit=unit, tab=tab, where=where[i])
        children.append(mark)
    if silent:
        children.append(_silent(silent, len(tokens) - len(silent), bool(where and where[-1])))
    known = {} if ids is None or first is None else {"data-ids": ",".join(map(str, ids)), "data-first": str(first)}
    return html.Div(children, className="wb-tokens", dir="auto", **attrs(known))


def alpha(activation: float, maximum: float) -> float:
    """Return the opacity of the highlight: 0 for no activation, else between `MIN_ALPHA` and `MAX_ALPHA`."""
    if activation <= 0 or maximum <= 0:
        return 0.0
    return MIN_ALPHA + (MAX_ALPHA - MIN_ALPHA) * min(activation / maximum, 1.0)


def token_text(token: str, limit: int = 32) -> html.Span:
    """Return one token as it is, in the token typeface; the full text is in its tooltip."""
    return html.Span(visible(token, limit), className="wb-token", title=repr(token)[:400], dir="auto")


def _silent(texts: list[str], at: int, tips: bool) -> html.Span:
    """Return a run of inactive tokens; with `tips`, assets/tokens.mjs finds the token under the pointer by its length.

    Lengths are in UTF-16 units, those of a browser.
    """
    if not tips:
        return html.Span("".join(texts))
    lengths = ",".join(str(len(text.encode("utf-16-le", "surrogatepass")) // 2) for text in texts)
    return html.Span("".join(texts), **attrs({"data-at": str(at), "data-lengths": lengths}))


def _active(
    token: str, activation: float, maximum: float, *, peak: bool, unit: str, tab: int, where: str = ""
) -> html.Mark:
    shown = visible(token)
    return html.Mark(
        shown,
        className="wb-mark wb-peak" if peak else "wb-mark",
        style={"--a": f"{alpha(activation, maximum):.3f}"},
        tabIndex=tab,
        **attrs(
            {
                "data-tip": f"{activation:.3g}{where}",
                "aria-label": f"{shown.strip() or shown}, {unit} {activation:.3g}{where}",
            }
        ),
    )


def token_bars(
    rows: list[tuple[str, float]],
    *,
    label: str,
    signed: bool = False,
    maximum: float | None = None,
    form: Callable[[float], str] = "{:.2f}".format,
) -> html.Ol:
    """Return one line per `(token, value)`; bar length is `|value| / maximum`. `signed` takes the negative colour."""
    top = maximum or max((abs(value) for _, value in rows), default=0.0) or 1.0
    return html.Ol(
        [_line(token, value, min(abs(value) / top, 1.0), form) for token, value in rows],
        className="wb-bars wb-bars-opposite" if signed else "wb-bars",
        **attrs({"aria-label": label}),
    )


def _line(token: str, value: float, share: float, form: Callable[[float], str]) -> html.Li:
    return html.Li(
        [
            token_text(token, 22),
            html.Span(
                html.Span(style={"width": f"{share:.1%}"}), className="wb-track", **attrs({"aria-hidden": "true"})
            ),
            html.Span(form(value).replace("-", "−"), className="wb-value"),
        ]
    )


def feature_line(
    features: str, index: int, label: str, value: str, *, title: str | None = None, words: Sequence[str] = ()
) -> html.Li:
    """Return a link to a feature: number, label, the tokens that it makes the model say, and a value such as a cosine
    similarity; `title` explains it."""
    says = (
        html.Span(" says " + ", ".join(visible(word.strip() or word, 24) for word in words), className="wb-quiet")
        if words
        else None
    )
    return html.Li(
        dcc.Link(
            [
                html.Span(f"{index}", className="wb-feature-number"),
                html.Span([visible(label, 80) or "no label", says], className="wb-feature-label", dir="auto"),
                html.Span(value, className="wb-value"),
            ],
            href=feature_href(features, index),
            className="wb-feature-line",
            title=title,
        )
    )


def attention_graph(
    text: str, model: str, layer: int, head: int, scheme: str | None, *, id: str
) -> dcc.Loading | html.Div:
    """Return the attention of one head on a text as a figure, or the reason why it is missing."""

    def body() -> dcc.Loading:
        pattern = current().live.ask(ShowAttention(text=text, model=model, layer=layer, head=head))
        figure = attention_pattern(pattern.weights, pattern.tokens, theme(scheme), height=460)
        return loading(graph(id, figure=figure, height=460, label=f"Attention of L{layer}H{head}"))

    return attempt(body)
