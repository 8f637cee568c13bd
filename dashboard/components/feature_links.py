"""Links to features, with their labels."""

from dash import dcc, html

from dashboard.addresses import feature_href
from dashboard.figures.theme import visible


def feature_line(features: str, index: int, label: str, value: str) -> html.Li:
    """A neighbour: number, label, cosine."""
    return html.Li(
        dcc.Link(
            [
                html.Span(f"{index}", className="wb-feature-number"),
                html.Span(visible(label, 80) or "no label", className="wb-feature-label", dir="auto"),
                html.Span(value, className="wb-value"),
            ],
            href=feature_href(features, index),
            className="wb-feature-line",
        )
    )


def feature_chip(features: str, index: int, label: str, activation: float, share: float) -> dcc.Link:
    """A feature that fires on a token; `share` (0 to 1) sets how strongly it is coloured."""
    return dcc.Link(
        [
            html.Span(f"{index}", className="wb-feature-number"),
            html.Span(visible(label, 30) or "no label", dir="auto"),
            html.Span(f"{activation:.2g}", className="wb-value"),
        ],
        href=feature_href(features, index),
        className="wb-chip",
        style={"--a": f"{0.1 + 0.5 * share:.2f}"},
        title=visible(label, 200),
    )
