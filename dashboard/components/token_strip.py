"""Tokens in a row, coloured by activation: one hue, alpha = activation / maximum, the peak outlined.

Texts are set as text, never as HTML. Runs of silent tokens are one element, so that a page of examples stays light.
"""

from dash import html

from dashboard.components.attributes import attrs
from dashboard.figures.theme import visible

MIN_ALPHA, MAX_ALPHA = 0.12, 0.72
"""the weakest token stays visible, the strongest keeps its text readable in both schemes"""


def token_strip(
    tokens: list[str], activations: list[float], *, maximum: float, peak: int | None = None, unit: str = "activation"
) -> html.Div:
    """`tokens [n]` with `activations [n]` (>= 0); `maximum` is what full colour means."""
    children: list[html.Span | html.Mark] = []
    silent: list[str] = []
    for i, (token, activation) in enumerate(zip(tokens, activations, strict=True)):
        if activation <= 0 and i != peak:
            silent.append(visible(token))
            continue
        if silent:
            children.append(_silent(silent))
            silent = []
        children.append(_active(token, activation, maximum, peak=i == peak, unit=unit))
    if silent:
        children.append(_silent(silent))
    return html.Div(children, className="wb-tokens", dir="auto")


def alpha(activation: float, maximum: float) -> float:
    """Opacity of the highlight: 0 for silence, else between `MIN_ALPHA` and `MAX_ALPHA`."""
    if activation <= 0 or maximum <= 0:
        return 0.0
    return MIN_ALPHA + (MAX_ALPHA - MIN_ALPHA) * min(activation / maximum, 1.0)


def token_text(token: str, limit: int = 32) -> html.Span:
    """One token as it is, in the token typeface; the full text is in its title."""
    return html.Span(visible(token, limit), className="wb-token", title=repr(token)[:400], dir="auto")


def _silent(texts: list[str]) -> html.Span:
    return html.Span("".join(texts))


def _active(token: str, activation: float, maximum: float, *, peak: bool, unit: str) -> html.Mark:
    shown = visible(token)
    return html.Mark(
        shown,
        className="wb-mark wb-peak" if peak else "wb-mark",
        style={"--a": f"{alpha(activation, maximum):.3f}"},
        **attrs({"data-tip": f"{activation:.3g}", "aria-label": f"{shown.strip() or shown}, {unit} {activation:.3g}"}),
    )
