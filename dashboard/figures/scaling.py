"""Figures that compare dictionaries: laws of size, error against sparsity, density of features.

A law of size is drawn with the runs that it was fitted to, its band, and its prediction for the largest one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import Theme, escape, faint, legend_above, message_figure, styled
from saes.evaluation.scaling import ScalingRun, SizeLaw


@dataclass(frozen=True)
class DictionaryPoint:
    """One dictionary on the plane of sparsity and error, on held-out tokens."""

    name: str
    kind: str
    l0: float
    fvu: float
    d_sae: int | None = None
    k: int | None = None
    recording: str = ""
    """recording whose held-out documents it was scored on; scores on other documents are not comparable"""
    baseline: bool = False
    """a baseline: principal components, coordinates, an untrained dictionary"""


@dataclass(frozen=True)
class Densities:
    """Histogram of firing density: `counts[i]` features between `10**edges[i]` and `10**edges[i + 1]` of all tokens."""

    edges: list[float]
    counts: list[int]
    dead: int
    """features that were never active"""
    dense: int
    """features active on more than a tenth of the tokens"""
    n_tokens: int


def scaling_curves(law: SizeLaw, colours: Theme, *, chosen: str = "", height: int = 360) -> go.Figure:
    """Held-out loss over latents, both logarithmic, one colour per k.

    A line is the law, its band the 95 % interval of the fit; a ring marks the run called `chosen`. Crosses are the
    predictions of the smaller sizes alone for the largest.
    """
    runs = law.runs
    if not runs:
        return message_figure("this fit has no runs", colours, height=height)
    figure = go.Figure()
    for order, k in enumerate(sorted({run.k for run in runs})):
        colour = colours.categories[order % len(colours.categories)]
        curve = [point for point in law.curves if point.k == k]
        if curve:
            n, loss = [point.n for point in curve], [point.loss for point in curve]
            band = [interval.high for interval in loss] + [interval.low for interval in reversed(loss)]
            figure.add_scatter(x=n + n[::-1], y=band, fill="toself", fillcolor=faint(colour), mode="none",
                               hoverinfo="skip", legendgroup=str(k), showlegend=False)  # fmt: skip
            figure.add_scatter(x=n, y=[interval.estimate for interval in loss], mode="lines", hoverinfo="skip",
                               line={"color": colour, "width": 1.6}, legendgroup=str(k), showlegend=False)  # fmt: skip
        mine = [run for run in runs if run.k == k]
        figure.add_scatter(
            x=[run.n for run in mine], y=[run.loss for run in mine], mode="markers", name=f"k {k}", legendgroup=str(k),
            marker={"size": 8, "color": colour}, hovertext=[_run_hover(run) for run in mine], hoverinfo="text",
        )  # fmt: skip
        crosses = [run for run in law.left_out if run.k == k]
        figure.add_scatter(
            x=[cross.n for cross in crosses], y=[cross.predicted for cross in crosses],
            mode="markers", marker={"size": 9, "symbol": "x-thin", "line": {"width": 1.6, "color": colour}},
            hovertext="predicted from the smaller sizes", hoverinfo="text", legendgroup=str(k), showlegend=False,
        )  # fmt: skip
    ring = [run for run in runs if run.name == chosen]
    if ring:
        marker = {"size": 16, "color": "rgba(0,0,0,0)", "line": {"width": 2, "color": colours.text}}
        figure.add_scatter(x=[run.n for run in ring], y=[run.loss for run in ring], mode="markers", marker=marker,
                           hoverinfo="skip", showlegend=False)  # fmt: skip
    styled(figure, colours, height=height)
    sizes = sorted({run.n for run in runs})
    figure.update_xaxes(type="log", title_text="latents", tickvals=sizes, ticktext=[f"{n:,}" for n in sizes])
    figure.update_xaxes(showgrid=False)
    losses = [run.loss for run in runs]
    ticks = [m * 10.0**e for e in range(-6, 3) for m in (1, 1.5, 2, 3, 4, 5, 6, 8)]
    shown = [t for t in ticks if min(losses) / 1.15 <= t <= max(losses) * 1.15]
    figure.update_yaxes(type="log", title_text="held-out FVU", tickvals=shown, ticktext=[f"{t:g}" for t in shown])
    return legend_above(figure)


def _run_hover(run: ScalingRun) -> str:
    name = f"<b>{escape(run.name, 64)}</b><br>" if run.name else ""
    return f"{name}{run.n:,} latents, k {run.k}<br>FVU {run.loss:.4f}"


SAME_L0 = 0.01
"""Relative difference up to which two L0 count as equal: held-out L0 of TopK differ in the third digit."""


def pareto_plane(points: Sequence[DictionaryPoint], chosen: str, colours: Theme, *, height: int = 320) -> go.Figure:
    """Draw FVU against L0 on held-out tokens, both logarithmic: lower left is better; the line is the Pareto front.

    Open marks: evaluated on other documents than the chosen dictionary; crosses are baselines without training.
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
    return legend_above(figure)


def frontier(points: Sequence[DictionaryPoint]) -> list[DictionaryPoint]:
    """Return the Pareto front by L0: no other has a lower error at the same L0 or less (up to one hundredth)."""
    best: list[DictionaryPoint] = []
    for point in sorted(points, key=lambda p: (p.l0, p.fvu)):
        if best and point.fvu >= best[-1].fvu:
            continue
        if best and point.l0 <= best[-1].l0 * (1 + SAME_L0):
            best.pop()
        best.append(point)
    return best


def density_histogram(densities: Densities, colours: Theme, *, height: int = 320) -> go.Figure:
    """Features by how often they fire, on a log axis; the dashed line is where dense begins."""
    if not sum(densities.counts):
        return message_figure("no feature is active in the recording", colours, height=height)
    left, right = densities.edges[:-1], densities.edges[1:]
    figure = go.Figure(
        go.Bar(
            x=[(a + b) / 2 for a, b in zip(left, right, strict=True)],
            y=densities.counts,
            width=[(b - a) * 0.92 for a, b in zip(left, right, strict=True)],
            marker={"color": colours.accent, "line": {"width": 0}},
            hovertext=[
                f"{n:,} features<br>fire on {_percent(10**a)} to {_percent(min(10**b, 1))} of tokens"
                for n, a, b in zip(densities.counts, left, right, strict=True)
            ],
            hoverinfo="text",
        )
    )
    figure.add_vline(x=-1, line={"color": colours.opposite, "width": 1, "dash": "dot"})
    whole = [e for e in range(-9, 1) if left[0] - 0.5 <= e <= right[-1] + 0.5]
    figure.update_xaxes(title_text="density (fraction of tokens on which it is active)", showgrid=False, tickvals=whole)
    figure.update_xaxes(ticktext=[_percent(10.0**e) for e in whole])
    figure.update_yaxes(title_text="features", rangemode="tozero", nticks=5)
    return styled(figure, colours, height=height)


def _log_axis(figure: go.Figure, letter: str, values: list[float], title: str) -> None:
    steps = (1, 2, 5) if max(values) > 6 * min(values) else (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    ticks = [m * 10.0**e for e in range(-7, 6) for m in steps]
    shown = [t for t in ticks if min(values) / 1.6 <= t <= max(values) * 1.6]
    update = figure.update_xaxes if letter == "x" else figure.update_yaxes
    ends = [float(np.log10(min(values) / 1.6)), float(np.log10(max(values) * 1.6))]
    update(type="log", title_text=title, tickvals=shown, ticktext=[f"{t:g}" for t in shown], range=ends, tickangle=0)


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _pareto_hover(p: DictionaryPoint) -> str:
    size = f"<br>{p.d_sae:,} features" if p.d_sae else ""
    where = f"<br>scored on {escape(p.recording)}" if p.recording else ""
    return f"<b>{escape(p.name, 64)}</b><br>{escape(p.kind)}{size}<br>L0 {p.l0:.1f}<br>FVU {p.fvu:.4f}{where}"
