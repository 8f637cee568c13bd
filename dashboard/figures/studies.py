"""Figures of the studies: training curves with their phases, superposition."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import Theme, colour_bar, escape, legend_above, message_figure, styled

DASHES = ("solid", "dash", "dot", "dashdot")
"""Dashes, since colour alone must not identify a curve."""


def training_curves(
    steps: Sequence[float] | np.ndarray,
    curves: Mapping[str, np.ndarray],
    colours: Theme,
    *,
    x_title: str = "step",
    y_title: str = "",
    log: bool = False,
    marks: Mapping[str, float | None] | None = None,
    levels: Mapping[str, float] | None = None,
    height: int = 280,
) -> go.Figure:
    """One line per curve `[n]`; NaN is left out.

    `marks` are vertical lines with a word each (None: left out), `levels` horizontal ones, such as chance.
    """
    known = {name: np.asarray(values, float) for name, values in curves.items()}
    known = {name: values for name, values in known.items() if np.isfinite(values).any()}
    if not known:
        return message_figure("no such curve was measured", colours, height=height)
    figure = go.Figure()
    for at, (name, values) in enumerate(known.items()):
        figure.add_scatter(
            x=list(steps), y=values, mode="lines", name=escape(name), connectgaps=True,
            line={"color": colours.points[at % len(colours.points)], "width": 2, "dash": DASHES[at % len(DASHES)]},
            hovertemplate=f"{escape(name)}<br>{x_title} %{{x:,}}: %{{y:.4g}}<extra></extra>",
        )  # fmt: skip
    styled(figure, colours, height=height)
    given = {word: step for word, step in (marks or {}).items() if step is not None}
    _marks(figure, given, colours)
    for word, level in (levels or {}).items():
        figure.add_hline(y=level, line={"color": colours.muted, "width": 1, "dash": "dot"})
        figure.add_annotation(
            xref="paper", x=1, y=np.log10(level) if log else level, xanchor="right", yanchor="bottom",
            text=escape(word), showarrow=False, font={"size": 10.5, "color": colours.muted}, bgcolor=colours.veil,
        )  # fmt: skip
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.25})
    figure.update_layout(margin={"t": 24 if len(given) < 2 else 38})
    figure.update_xaxes(title_text=x_title)
    figure.update_yaxes(title_text=y_title, type="log" if log else "linear")
    return figure


def _marks(figure: go.Figure, marks: Mapping[str, float], colours: Theme) -> None:
    """Lines with a word each, every other one higher, since neighbours may be close."""
    for at, (word, step) in enumerate(sorted(marks.items(), key=lambda mark: mark[1])):
        figure.add_vline(x=step, line={"color": colours.muted, "width": 1, "dash": "dot"})
        figure.add_annotation(
            x=step, y=1, yref="paper", yanchor="bottom", yshift=13 * (at % 2), text=escape(word), showarrow=False,
            font={"size": 11, "color": colours.muted},
        )  # fmt: skip


def frequency_shares(
    share: np.ndarray,
    steps: Sequence[float] | np.ndarray,
    colours: Theme,
    *,
    keys: Sequence[int] = (),
    height: int = 280,
) -> go.Figure:
    """Power of every frequency over training: `share [n_steps, n_frequencies]`, 0 none to 1 all; `keys` are named at
    the right."""
    share = np.asarray(share, float)
    if not np.isfinite(share).any():
        return message_figure("no frequency was measured", colours, height=height)
    figure = go.Figure(
        go.Heatmap(
            x=list(steps), y=np.arange(1, share.shape[1] + 1), z=share.T, zmin=0, zmax=float(np.nanmax(share)),
            colorscale=colours.sequential, colorbar=colour_bar(colours, "share of the power"),
            hovertemplate="frequency %{y}, epoch %{x}: %{z:.1%}<extra></extra>",
        )
    )  # fmt: skip
    styled(figure, colours, height=height)
    figure.update_xaxes(title_text="epoch", showgrid=False)
    figure.update_yaxes(title_text="frequency", showgrid=False)
    if keys:
        every = [k for k in range(1, share.shape[1] + 1) if k % 5 == 0 and min(abs(k - key) for key in keys) > 1]
        shown = sorted({*every, *keys})
        figure.update_yaxes(tickvals=shown, ticktext=[f"<b>{k}</b>" if k in keys else str(k) for k in shown])
    return figure


def directions_figure(W: np.ndarray, colours: Theme, *, title: str = "", height: int = 280) -> go.Figure:
    """Each feature's direction `W [n_features, 2]` as an arrow from the centre; a circle marks length 1."""
    if W.ndim != 2 or W.shape[1] != 2:
        return message_figure("directions are drawn in two dimensions only", colours, height=height)
    angle = np.linspace(0, 2 * np.pi, 90)
    figure = go.Figure()
    figure.add_scatter(x=np.cos(angle), y=np.sin(angle), mode="lines", hoverinfo="skip",
                       line={"color": colours.grid, "width": 1})  # fmt: skip
    for i, (x, y) in enumerate(W.tolist()):
        colour = colours.categories[i % len(colours.categories)]
        figure.add_scatter(
            x=[0, x], y=[0, y], mode="lines+markers", line={"color": colour, "width": 2.5},
            marker={"size": [0, 8], "color": colour}, hoverinfo="text",
            hovertext=f"feature {i}, length {np.hypot(x, y):.2f}",
        )  # fmt: skip
    styled(figure, colours, height=height)
    reach = 1.15 * max(1.0, float(np.abs(W).max()))
    figure.update_xaxes(range=[-reach, reach], showgrid=False, showticklabels=False, title_text=title)
    return figure.update_yaxes(range=[-reach, reach], showgrid=False, showticklabels=False, scaleanchor="x")


def interference_matrix(gram: np.ndarray, colours: Theme, *, height: int = 320) -> go.Figure:
    """`W W^T [n, n]`: recovery of each feature on the diagonal, interference off it; centred on zero."""
    most = max(1e-9, float(np.abs(gram).max()))
    figure = go.Figure(
        go.Heatmap(
            z=gram,
            zmin=-most,
            zmax=most,
            colorscale=[[0, colours.opposite], [0.5, colours.surface], [1, colours.accent]],
            hovertemplate="feature %{x} in feature %{y}: %{z:.3f}<extra></extra>",
            xgap=1,
            ygap=1,
            colorbar=colour_bar(colours, "read as the other feature"),
        )
    )
    styled(figure, colours, height=height)
    figure.update_xaxes(title_text="feature that is on", showgrid=False, dtick=max(1, len(gram) // 10))
    return figure.update_yaxes(title_text="feature read", showgrid=False, range=[len(gram) - 0.5, -0.5])


def dimensionality_figure(rows: list[dict[str, Any]], colours: Theme, *, height: int = 300) -> go.Figure:
    """Dimensionality of every feature over density (log): `density, dimensionality` per feature and toy.

    Lines mark the regular polytopes: a dimension of its own 1, tetrahedron 3/4, triangle 2/3, antipodal pair 1/2,
    pentagon 2/5, square antiprism 3/8.
    """
    if not rows:
        return message_figure("no toy was trained", colours, height=height)
    figure = go.Figure(
        go.Scatter(
            x=[row["density"] for row in rows], y=[row["dimensionality"] for row in rows], mode="markers",
            marker={"size": 5, "color": colours.accent, "opacity": 0.45},
            hovertemplate="density %{x:.3g}<br>dimensionality %{y:.3f}<extra></extra>",
        )
    )  # fmt: skip
    styled(figure, colours, height=height)
    marks = {"dedicated": 1, "triangle 2/3": 2 / 3, "pair 1/2": 1 / 2, "pentagon 2/5": 2 / 5, "dropped": 0}
    for name, level in marks.items():
        figure.add_hline(y=level, line={"color": colours.muted, "width": 1, "dash": "dot"}, annotation_text=name,
                         annotation_font={"size": 10}, annotation_position="top right")  # fmt: skip
    figure.update_xaxes(type="log", title_text="density: how often a feature is active", showgrid=False)
    return figure.update_yaxes(title_text="dimensionality", range=[-0.05, 1.12], showgrid=False)


def phase_diagram(rows: list[dict[str, Any]], colours: Theme, *, height: int = 360) -> go.Figure:
    """The phase of a feature over density and importance, both logarithmic (`PhaseDiagram.to_records`)."""
    from interp.studies.superposition import PHASES  # its module imports torch

    if not rows:
        return message_figure("no phase was measured", colours, height=height)
    densities = sorted({row["density"] for row in rows})
    importances = sorted({row["importance"] for row in rows})
    number = {(row["density"], row["importance"]): row for row in rows}
    grid = [[number[d, w] for w in importances] for d in densities]
    shades = [colours.grid, colours.categories[2], colours.accent]
    figure = go.Figure(
        go.Heatmap(
            x=[f"{w:.2g}" for w in importances],
            y=[f"{d:.2g}" for d in densities],
            z=[[PHASES.index(cell["phase"]) for cell in row] for row in grid],
            zmin=-0.5,
            zmax=2.5,
            hovertext=[[_hover(cell) for cell in row] for row in grid],
            hoverinfo="text",
            xgap=2,
            ygap=2,
            showscale=False,
        )
    )
    figure.update_traces(colorscale=[[(i + end) / 3, shades[i]] for i in range(3) for end in (0, 1)])
    for name, shade in zip(PHASES, shades, strict=True):
        figure.add_scatter(x=[None], y=[None], mode="markers", name=name,
                           marker={"size": 11, "symbol": "square", "color": shade})  # fmt: skip
    styled(figure, colours, height=height)
    figure.update_xaxes(title_text="importance of the feature, the other's being 1", type="category", showgrid=False)
    figure.update_yaxes(title_text="density", type="category", showgrid=False)
    return legend_above(figure)


def _hover(cell: dict[str, Any]) -> str:
    return (
        f"<b>{cell['phase']}</b><br>density {cell['density']:.3g}, importance {cell['importance']:.3g}"
        f"<br>squared length {cell['norm']:.2f}, interference {cell['shared']:.2f}"
        f"<br>{cell['agreement']:.0%} of seeds agree"
    )
