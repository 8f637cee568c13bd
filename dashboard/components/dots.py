"""A small picture of points, drawn by the page's own styles: no script, and one for both schemes."""

from typing import Any

from dash import html

from dashboard.components.frame import attrs
from dashboard.figures.theme import visible
from interp.artifacts import Dots

MARGIN = 8.0
"""Per cent of the picture around the points."""
RIGHT = 70.0
"""Per cent from the left beyond which a text stands on the other side of its point."""


def dots(shown: Dots, words: str) -> html.Div:
    """Return the picture; `words` say what it shows to those who cannot see it."""
    left, bottom = _places(shown)
    texts = shown.texts or ("",) * len(left)
    marks: list[Any] = []
    for x, y, text in zip(left, bottom, texts, strict=True):
        label = html.Span(visible(text.strip(), 14)) if text else None
        side = "wb-dots-left" if x > RIGHT else None
        marks.append(html.I(label, className=side, style={"left": f"{x:.1f}%", "bottom": f"{y:.1f}%"}))
    zero = [html.B(className=f"wb-dots-{name}", style={side: f"{at:.1f}%"}) for name, side, at in _zeros(shown)]
    axes = [
        html.Span(text, className=f"wb-dots-{name}") for name, text in (("x", shown.across), ("y", shown.up)) if text
    ]
    kind = "wb-dots wb-dots-alike" if shown.alike else "wb-dots"
    return html.Div([*zero, *marks, *axes], className=kind, role="img", **attrs({"aria-label": words}))


def _range(values: tuple[float, ...], half: float | None) -> tuple[float, float]:
    """Return the ends of an axis: those of the values, or `half` on both sides of their middle."""
    low, high = min(values), max(values)
    if half is None:
        return low, high if high > low else low + 1.0
    middle = (low + high) / 2
    return middle - half, middle + half


def _ends(shown: Dots) -> tuple[tuple[float, float], tuple[float, float]]:
    half = max(max(each) - min(each) for each in (shown.x, shown.y)) / 2 or 1.0 if shown.alike else None
    return _range(shown.x, half), _range(shown.y, half)


def _place(value: float, ends: tuple[float, float]) -> float:
    low, high = ends
    return MARGIN + (100 - 2 * MARGIN) * (value - low) / (high - low)


def _places(shown: Dots) -> tuple[list[float], list[float]]:
    across, up = _ends(shown)
    return [_place(x, across) for x in shown.x], [_place(y, up) for y in shown.y]


def _zeros(shown: Dots) -> list[tuple[str, str, float]]:
    """Return the lines of zero that lie inside the picture, for axes with a unit."""
    lines = (("upright", "left", shown.across, 0), ("level", "bottom", shown.up, 1))
    ends = _ends(shown)
    return [
        (name, side, _place(0.0, ends[axis]))
        for name, side, unit, axis in lines
        if unit and ends[axis][0] < 0 < ends[axis][1]
    ]
