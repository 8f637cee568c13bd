"""Small pictures of points and of cells, drawn by the page's own styles: no script, and one for both schemes."""

from dash import html

from dashboard.components.frame import Part, attrs
from dashboard.figures.theme import visible
from interp.view import Dots

MARGIN, NAMED = 8.0, 14.0
"""Per cent of the picture around the points; above and below them where axes are named there."""
WIDTH, HEIGHT = 250.0, 210.0
"""Pixels that the picture has at least; texts that do not overlap in it do not in a larger one."""
LETTER, LINE, GAP = 6.2, 13.0, 9.0
"""Pixels of a letter, of a line, and between a point and its text."""
LONGEST = 26
"""Letters of a text."""
SIDES = ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))
"""Places of a text in the order in which they are tried: right or left of its point, level with it, above or below."""


def dots(shown: Dots, words: str) -> html.Div:
    """Return the picture; `words` say what it shows to those who cannot see it."""
    left, bottom = _places(shown)
    texts = [visible(text.strip(), LONGEST) for text in shown.texts] or [""] * len(left)
    marks: list[Part] = []
    for n, (x, y, text, side) in enumerate(zip(left, bottom, texts, _sides(left, bottom, texts), strict=True)):
        kinds = ["wb-dots-null"] * (n >= len(left) - shown.null) + ["wb-dots-left"] * (side[0] < 0)
        kinds += {0: [], 1: ["wb-dots-above"], -1: ["wb-dots-below"]}[side[1]]
        look = {"left": f"{x:.1f}%", "bottom": f"{y:.1f}%"}
        marks.append(html.I(html.Span(text) if text else None, className=" ".join(kinds) or None, style=look))
    zero = [html.B(className=f"wb-dots-{name}", style={side: f"{at:.1f}%"}) for name, side, at in _zeros(shown)]
    axes = [
        html.Span(text, className=f"wb-dots-{name}") for name, text in (("x", shown.across), ("y", shown.up)) if text
    ]
    kind = "wb-dots wb-dots-alike" if shown.alike else "wb-dots"
    return html.Div([*zero, *marks, *axes], className=kind, role="img", **attrs({"aria-label": words}))


def cells(grid: tuple[tuple[float, ...], ...], words: str) -> html.Div:
    """Return a column of cells for each layer, the darker the larger the value; `words` as of `dots`."""
    columns = [
        html.Div([html.I(style={"opacity": f"{min(max(value, 0.0), 1.0):.2f}"}) for value in layer]) for layer in grid
    ]
    axes = [html.Span("layer", className="wb-dots-x"), html.Span("head", className="wb-dots-y")]
    return html.Div([*columns, *axes], className="wb-dots wb-cells", role="img", **attrs({"aria-label": words}))


def _sides(left: list[float], bottom: list[float], texts: list[str]) -> list[tuple[int, int]]:
    """Return the side of each text, the first of `SIDES` that lies inside and on no earlier text or labelled point."""
    points = [(WIDTH * x / 100, HEIGHT * y / 100) for x, y in zip(left, bottom, strict=True)]
    taken = [(x - 4, x + 4, y - 4, y + 4) for (x, y), text in zip(points, texts, strict=True) if text]
    sides: list[tuple[int, int]] = []
    for (x, y), text in zip(points, texts, strict=True):
        boxes: list[tuple[float, float, float, float]] = []
        for across, up in SIDES:
            near, far = sorted((x + across * GAP, x + across * (GAP + LETTER * len(text))))
            boxes.append((near, far, y + up * LINE * 0.7 - LINE / 2, y + up * LINE * 0.7 + LINE / 2))
        cost = [9 * (box[0] < 0 or box[1] > WIDTH) + sum(_overlap(box, label) for label in taken) for box in boxes]
        best = cost.index(min(cost))
        if text:
            taken.append(boxes[best])
        sides.append(SIDES[best] if text else SIDES[0])
    return sides


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def _range(values: tuple[float, ...], half: float | None) -> tuple[float, float]:
    """Return the ends of an axis: those of the values, or `half` on both sides of their middle."""
    low, high = min(values), max(values)
    if half is None:
        return low, high if high > low else low + 1.0
    middle = (low + high) / 2
    return middle - half, middle + half


def _ends(shown: Dots) -> tuple[tuple[float, float], tuple[float, float]]:
    half = max(max(axis) - min(axis) for axis in (shown.x, shown.y)) / 2 or 1.0 if shown.alike else None
    return _range(shown.x, half), _range(shown.y, half)


def _place(value: float, ends: tuple[float, float], margin: float = MARGIN) -> float:
    low, high = ends
    return margin + (100 - 2 * margin) * (value - low) / (high - low)


def _height(value: float, shown: Dots) -> float:
    return _place(value, _ends(shown)[1], NAMED if shown.across or shown.up else MARGIN)


def _places(shown: Dots) -> tuple[list[float], list[float]]:
    across = _ends(shown)[0]
    return [_place(x, across) for x in shown.x], [_height(y, shown) for y in shown.y]


def _zeros(shown: Dots) -> list[tuple[str, str, float]]:
    """Return the lines of zero that lie inside the picture, for axes with a unit."""
    across, up = _ends(shown)
    lines = [("upright", "left", _place(0.0, across))] if shown.across and across[0] < 0 < across[1] else []
    return lines + [("level", "bottom", _height(0.0, shown))] * bool(shown.up and up[0] < 0 < up[1])
