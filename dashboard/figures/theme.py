"""One look for every figure, in a light and a dark scheme.

The colours are those of `assets/style.css`. Scales: `sequential` runs from the page's own background to the accent, so
zero is quiet in both schemes; `categories` are ten hues of similar lightness; `points` are eight that
colour-blind readers tell apart too.
"""

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"

DASHES = ("solid", "dash", "dot", "dashdot")
"""Dashes, since colour alone must not identify a curve."""

Scale = list[tuple[float, str]]


@dataclass(frozen=True)
class Theme:
    """Colours of one scheme."""

    name: str
    surface: str
    text: str
    muted: str
    grid: str
    accent: str
    opposite: str
    """for the other sign, and for marks that must stand out on the accent"""
    noise: str
    """points that belong to no cluster"""
    veil: str
    """the surface, half transparent: behind text that lies on marks"""
    sequential: Scale
    on_scale: tuple[str, str]
    """readable text on the lower and on the upper half of `sequential`"""
    density: Scale
    """for points: every step stays visible on the background"""
    categories: tuple[str, ...]
    points: tuple[str, ...]
    """eight colours of small points: Okabe and Ito's, moved until two differ by 18 (CIE 1976) in all colour vision"""
    points_scale: Scale
    """viridis from the end that is near the background"""


LIGHT = Theme(
    name="light",
    surface="#ffffff",
    text="#1b1f24",
    muted="#59626d",
    grid="#e8eaed",
    accent="#1a66d6",
    opposite="#c2570c",
    noise="#c4c9d0",
    veil="rgba(255, 255, 255, 0.72)",
    on_scale=("#1b1f24", "#ffffff"),
    sequential=[(0.0, "#f5f7fa"), (0.25, "#bfd7f7"), (0.55, "#5b9bec"), (0.8, "#1a66d6"), (1.0, "#0b2f6b")],
    density=[(0.0, "#b9cdea"), (0.4, "#5b9bec"), (0.75, "#1a4fb0"), (1.0, "#071d47")],
    categories=(
        "#2f74d0", "#d9730d", "#2a9470", "#b4459a", "#8a6fd1",
        "#b58900", "#15919b", "#cf4b4b", "#6b8e23", "#7a6a5d",
    ),
    points=("#0b69ab", "#f09c00", "#009b6c", "#dc3d14", "#c27bae", "#5fb8f5", "#2b2391", "#8f9c45"),
    points_scale=[
        (0.0, "#c2df23"), (0.15, "#86d549"), (0.3, "#52c569"), (0.45, "#2ab07f"), (0.6, "#1e9b8a"),
        (0.7, "#25858e"), (0.8, "#31668e"), (0.9, "#433d84"), (1.0, "#440154"),
    ],
)  # fmt: skip
DARK = Theme(
    name="dark",
    surface="#171a1f",
    text="#e6e9ed",
    muted="#9aa4b0",
    grid="#2a2f37",
    accent="#6aa7ff",
    opposite="#f0954a",
    noise="#4a515c",
    veil="rgba(23, 26, 31, 0.72)",
    on_scale=("#e6e9ed", "#0d1420"),
    sequential=[(0.0, "#1c2128"), (0.25, "#1d3f73"), (0.55, "#2f6fcb"), (0.8, "#6aa7ff"), (1.0, "#d8e8ff")],
    density=[(0.0, "#2b4468"), (0.4, "#3d7bd4"), (0.75, "#86b8ff"), (1.0, "#e6f0ff")],
    categories=(
        "#6aa7ff", "#f0954a", "#4cc39a", "#e07cc6", "#ad94f5",
        "#dcb63c", "#42c0ca", "#f07a7a", "#a3c65a", "#b8a394",
    ),
    points=("#4cc3f2", "#f5a300", "#0aa27c", "#efe07e", "#5f66f2", "#d9502a", "#b365b3", "#c5f2cf"),
    points_scale=[
        (0.0, "#46327e"), (0.15, "#3b528b"), (0.3, "#2c728e"), (0.45, "#21918c"), (0.6, "#28ae80"),
        (0.75, "#5ec962"), (0.9, "#addc30"), (1.0, "#fde725"),
    ],
)  # fmt: skip


GROUPS = (2, 3, 8, 6)
"""Categories for groups of a graph: far from the accent and its opposite, which are signs there."""


def theme(scheme: str | None) -> Theme:
    """The theme of a name.

    Args:
        scheme: "dark" for the dark theme; any other name, or None, gives the light one.
    Returns: the colours that figures take.

    >>> colours_of("dark").name
    'dark'
    """
    with contextlib.suppress(ImportError):  # plotly would take the half of it that another thread has loaded
        import pandas  # noqa: F401
    return DARK if scheme == "dark" else LIGHT


def canvas_colours(colours: Theme, lines: list[tuple[str, list[int]]]) -> dict[str, Any]:
    """Return the colours of a graph that the browser draws (assets/graph/).

    `lines` has a colour and a pattern of dashes for each kind of edge: of a positive weight, then of a negative one.
    """
    names = ("surface", "text", "muted", "grid", "accent", "opposite")
    return {name: getattr(colours, name) for name in names} | {
        "groups": [colours.categories[i] for i in GROUPS],
        "lines": lines, "font": FONT, "mono": MONO, "soft": "#e7f0fd" if colours is LIGHT else "#1b2a42",
    }  # fmt: skip


def styled(figure: go.Figure, colours: Theme, *, height: int | None = None) -> go.Figure:
    """The figure with our fonts, margins, axes and hover boxes.

    Args:
        figure: a plotly figure, which is changed in place.
        colours: of the figure, from `colours_of`.
        height: in pixels; None keeps it.
    Returns: the same figure.

    >>> import plotly.graph_objects as go
    >>> styled(go.Figure(), colours_of("light"), height=300).layout.height
    300
    """
    figure.update_layout(**_look(colours, height))
    axis = _axis(colours)
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def _look(colours: Theme, height: int | None) -> dict[str, Any]:
    return {
        "font": {"family": FONT, "size": 12, "color": colours.text},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "hoverlabel": {
            "bgcolor": colours.surface,
            "bordercolor": colours.grid,
            "font": {"family": FONT, "size": 12, "color": colours.text},
            "align": "left",
        },
        "showlegend": False,
        "height": height,
        "transition": {"duration": 0},
    }


def _axis(colours: Theme) -> dict[str, Any]:
    return {
        "gridcolor": colours.grid,
        "linecolor": colours.grid,
        "zeroline": False,
        "ticks": "",
        "tickfont": {"size": 11, "color": colours.muted},
        "title": {"font": {"size": 11, "color": colours.muted}, "standoff": 8},
        "automargin": True,
    }


def diverging(colours: Theme) -> Scale:
    """From the opposite through the page's own background to the accent: zero is quiet."""
    return [(0.0, colours.opposite), (0.5, colours.sequential[0][1]), (1.0, colours.accent)]


def heat_map(
    values: Any, colours: Theme, title: str, *, top: float = 1.0, signed: bool = False, gap: int = 1, **cells: Any
) -> go.Figure:
    """Cells of `values [rows, columns]`, coloured from 0 to `top`, or from -`top` to `top` where they are `signed`.

    `title` is that of the scale; `gap` counts pixels between cells; `cells` are other fields of Plotly's heat map.
    """
    scale = diverging(colours) if signed else colours.sequential
    looks: dict[str, Any] = {"colorscale": scale, "xgap": gap, "ygap": gap, "colorbar": colour_bar(colours, title)}
    if "hovertext" in cells:
        looks["hoverinfo"] = "text"
    return go.Figure(go.Heatmap(z=values, zmin=-top if signed else 0, zmax=top, **looks | cells))


def whiskers(value: Any, low: Any, high: Any, **looks: Any) -> dict[str, Any]:
    """Whiskers of points from `low [n]` to `high [n]`; none where an end is not finite. `looks` are other fields."""
    value, low, high = (np.asarray(part, float) for part in (value, low, high))
    up, down = (np.nan_to_num(reach, nan=0.0, posinf=0.0).clip(min=0) for reach in (high - value, value - low))
    return {"type": "data", "symmetric": False, "array": up.tolist(), "arrayminus": down.tolist(), **looks}


def colour_bar(colours: Theme, title: str) -> dict[str, Any]:
    """A thin scale next to a figure; `title` names the quantity and its unit."""
    return {
        "title": {"text": title, "side": "right", "font": {"size": 11, "color": colours.muted}},
        "thickness": 10,
        "len": 0.9,
        "outlinewidth": 0,
        "tickfont": {"size": 10, "color": colours.muted},
    }


def faint(colour: str, opacity: float = 0.16) -> str:
    """A colour of a theme, `#rrggbb`, made transparent: for bands under lines.

    >>> faint("#ff0080", 0.5)
    'rgba(255, 0, 128, 0.5)'
    """
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r}, {g}, {b}, {opacity:g})"


def message_figure(text: str, colours: Theme, *, height: int = 240) -> go.Figure:
    """An empty figure that says why it is empty."""
    figure = go.Figure(layout={"xaxis": {"visible": False}, "yaxis": {"visible": False}})
    figure.add_annotation(text=escape(text), showarrow=False, font={"size": 13, "color": colours.muted})
    return styled(figure, colours, height=height)


def legend_above(figure: go.Figure, *, top: int = 30) -> go.Figure:
    """The figure with its legend in a line above the plot, `top` pixels of room for it; changed in place."""
    legend = {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "font": {"size": 11}}
    return figure.update_layout(showlegend=True, legend=legend, margin={"t": top, "r": 14, "l": 8, "b": 8})


def escape(text: str, limit: int = 48) -> str:
    """Text for a label or hover box: Plotly reads `<`, `>`, `&` as markup and `%{` as a field, so neither survives.

    >>> escape("<b>\\n")
    '&lt;b&gt;↵'
    """
    shown = visible(text, limit)
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("%{", "%\u200b{")


def visible(text: str, limit: int = 48) -> str:
    """Token text on one line, cut to `limit` characters: line breaks as ↵, tabs as ⇥, a lone space as ␣."""
    shown = text.replace("\r\n", "↵").replace("\n", "↵").replace("\r", "↵").replace("\t", "⇥")
    if shown and not shown.strip(" "):
        shown = "␣" * len(shown)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def number(value: object) -> float | None:
    """Return a finite number, or None for anything else in a log."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if value == value and abs(value) != float("inf") else None
