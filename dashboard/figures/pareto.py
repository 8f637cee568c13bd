"""Dictionaries of one hook point on the plane of sparsity and error, and how often the features of one fire."""

from collections.abc import Sequence

import plotly.graph_objects as go

from dashboard.figures.theme import Theme, escape, message_figure, styled
from dashboard.views.sae_scores import Densities, Point

SAME_L0 = 0.01
"""by how much two L0 may differ and count as one: held-out L0 of TopK differ in the third digit"""


def pareto_plane(points: Sequence[Point], chosen: str, colours: Theme, *, height: int = 320) -> go.Figure:
    """FVU against L0 on held-out tokens, both logarithmic: lower left is better, and the line joins those that no other
    beats in both.

    Open marks were scored on other documents than the chosen dictionary, crosses are baselines that learned nothing.
    """
    if not points:
        return message_figure("no dictionary here has held-out scores yet", colours, height=height)
    recording = next((p.recording for p in points if p.name == chosen and not p.baseline), points[0].recording)
    same = [p for p in points if p.recording == recording]
    figure = go.Figure()
    best = frontier([p for p in same if not p.baseline])
    if len(best) > 1:
        figure.add_scatter(x=[p.l0 for p in best], y=[p.fvu for p in best], mode="lines", hoverinfo="skip",
                           line={"color": colours.noise, "width": 1.2}, showlegend=False)  # fmt: skip
    kinds = sorted({p.kind for p in points if not p.baseline})
    for order, kind in enumerate([*kinds, "baseline"]):
        shown = [p for p in points if (p.kind == kind and not p.baseline) or (kind == "baseline" and p.baseline)]
        if not shown:
            continue
        colour = colours.muted if kind == "baseline" else colours.categories[order % len(colours.categories)]
        closed = "x-thin" if kind == "baseline" else "circle"
        figure.add_scatter(
            x=[p.l0 for p in shown],
            y=[p.fvu for p in shown],
            mode="markers+text" if kind == "baseline" or len(points) <= 8 else "markers",
            text=[escape(p.name, 24) for p in shown],
            textposition="top center",
            textfont={"size": 10.5, "color": colours.muted},
            name=escape(kind),
            marker={
                "size": 9,
                "color": colour,
                "symbol": [closed if p.recording == recording else closed + "-open" for p in shown],
                "line": {"width": 1.5, "color": colour},
            },
            hovertext=[_pareto_hover(p) for p in shown],
            hoverinfo="text",
            cliponaxis=False,
        )
    ring = next((p for p in points if p.name == chosen and not p.baseline), None)
    if ring:
        marker = {"size": 17, "color": "rgba(0,0,0,0)", "line": {"width": 2, "color": colours.text}}
        figure.add_scatter(x=[ring.l0], y=[ring.fvu], mode="markers", marker=marker, hoverinfo="skip", showlegend=False)
    styled(figure, colours, height=height)
    _log_axis(figure, "x", [p.l0 for p in points], "L0 · active features per token")
    _log_axis(figure, "y", [p.fvu for p in points], "FVU · variance not explained")
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 11}}
    return figure.update_layout(showlegend=True, legend=legend, margin={"t": 30, "r": 14, "l": 8, "b": 8})


def frontier(points: Sequence[Point]) -> list[Point]:
    """Those that no other reconstructs better with as few features or fewer, by L0; a hundredth more is as few."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.l0, p.fvu)):
        if best and point.fvu >= best[-1].fvu:
            continue
        if best and point.l0 <= best[-1].l0 * (1 + SAME_L0):
            best.pop()
        best.append(point)
    return best


def density_histogram(found: Densities, colours: Theme, *, height: int = 320) -> go.Figure:
    """Features by how often they fire, on a log axis; the dashed line is where dense begins."""
    if not sum(found.counts):
        return message_figure("none of its features fires in the recording", colours, height=height)
    left, right = found.edges[:-1], found.edges[1:]
    figure = go.Figure(
        go.Bar(
            x=[(a + b) / 2 for a, b in zip(left, right, strict=True)],
            y=found.counts,
            width=[(b - a) * 0.92 for a, b in zip(left, right, strict=True)],
            marker={"color": colours.accent, "line": {"width": 0}},
            hovertext=[
                f"{n:,} features<br>fire on {_percent(10**a)} to {_percent(min(10**b, 1))} of tokens"
                for n, a, b in zip(found.counts, left, right, strict=True)
            ],
            hoverinfo="text",
        )
    )
    figure.add_vline(x=-1, line={"color": colours.opposite, "width": 1, "dash": "dot"})
    whole = [e for e in range(-9, 1) if left[0] - 0.5 <= e <= right[-1] + 0.5]
    figure.update_xaxes(title_text="share of tokens on which it fires", showgrid=False, tickvals=whole)
    figure.update_xaxes(ticktext=[_percent(10.0**e) for e in whole])
    figure.update_yaxes(title_text="features", rangemode="tozero", nticks=5)
    return styled(figure, colours, height=height)


def _log_axis(figure: go.Figure, letter: str, values: list[float], title: str) -> None:
    steps = (1, 2, 5) if max(values) > 6 * min(values) else (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    ticks = [m * 10.0**e for e in range(-7, 6) for m in steps]
    shown = [t for t in ticks if min(values) / 1.6 <= t <= max(values) * 1.6]
    update = figure.update_xaxes if letter == "x" else figure.update_yaxes
    update(type="log", title_text=title, tickvals=shown, ticktext=[f"{t:g}" for t in shown])


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _pareto_hover(p: Point) -> str:
    size = f"<br>{p.d_sae:,} features" if p.d_sae else ""
    where = f"<br>scored on {escape(p.recording)}" if p.recording else ""
    return f"<b>{escape(p.name, 64)}</b><br>{escape(p.kind)}{size}<br>L0 {p.l0:.1f}<br>FVU {p.fvu:.4f}{where}"
