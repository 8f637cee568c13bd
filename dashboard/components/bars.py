"""Tokens with a bar each: what a feature promotes, what the model would say next."""

from collections.abc import Callable

from dash import html

from dashboard.components.attributes import attrs
from dashboard.components.token_strip import token_text


def token_bars(
    rows: list[tuple[str, float]],
    *,
    label: str,
    signed: bool = False,
    maximum: float | None = None,
    form: Callable[[float], str] = "{:.2f}".format,
) -> html.Ol:
    """One line per `(token, value)`; bar length is `|value| / maximum`. `signed` colours it as the opposite sign."""
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
            html.Span(form(value), className="wb-value"),
        ]
    )
