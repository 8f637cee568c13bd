"""Figures of one SAE: training curves as small multiples, one line per run, and the activations of a feature."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.figures.theme import Theme, escape, message_figure, number, styled
from saes.features.proof import Proof

HEIGHT = 600
LAST_PART = 0.2
"""Fraction of a run, at its end, in which the threshold should be constant, since the learning rate falls to 0."""


@dataclass(frozen=True)
class Panel:
    """One of the multiples."""

    column: str
    title: str
    means: str
    """in plain words, shown on its title"""
    number: str = ".3g"
    share: bool = False
    log: bool = False


PANELS = (
    Panel(
        "loss",
        "loss",
        "The loss of training: FVU, and the penalties of this kind for sparsity and dead features.",
        log=True,
    ),
    Panel(
        "fvu",
        "FVU",
        "Share of the variance that the reconstruction misses: 0 is perfect, 1 no better than always the mean.",
        log=True,
    ),
    Panel("l0", "L0", "Mean number of features active on a token.", ".1f"),
    Panel(
        "threshold",
        "threshold",
        "The activation from which a feature counts as active, in training units. It should settle: "
        "the drift is that of a line fitted to the last fifth of the log (shaded), as a share of its mean.",
    ),
    Panel(
        "dead",
        "dead features",
        "Share of features that have not fired for the dead window: they contribute nothing.",
        ".2%",
        share=True,
    ),
    Panel(
        "dense",
        "dense features",
        "Share of features that fire on more than a tenth of recent tokens: rarely interpretable.",
        ".2%",
        share=True,
    ),
)


@dataclass(frozen=True)
class HealthRun:
    """One run and its log."""

    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)


def health_figure(runs: Sequence[HealthRun], colours: Theme, *, height: int = HEIGHT) -> go.Figure:
    """Loss, FVU, L0, threshold, dead and dense features over tokens seen; the first run is the chosen one.

    `runs` are dictionaries with their logs.

    Its threshold shows its drift over the last fifth of its log (shaded). A click in the legend hides a run in every
    panel.
    """
    runs = [run for run in runs if run.rows]
    if not runs:
        return message_figure("no line of the training log yet", colours, height=height)
    figure = make_subplots(rows=3, cols=2, shared_xaxes=True, vertical_spacing=0.085, horizontal_spacing=0.09)
    for order, run in reversed(list(enumerate(runs))):  # the chosen run is drawn last, on top
        for slot, panel in enumerate(PANELS):
            trace = _line(run, panel, order, colours, legend=slot == 0 and len(runs) > 1)
            figure.add_trace(trace, row=slot // 2 + 1, col=slot % 2 + 1)
    styled(figure, colours, height=height)
    legend = {"orientation": "h", "y": 1.06, "yanchor": "bottom", "x": 0, "traceorder": "reversed",
              "font": {"size": 11}, "bgcolor": "rgba(0,0,0,0)"}  # fmt: skip
    top = 26 if len(runs) == 1 else 48 + 18 * ((len(runs) - 1) // 4)
    figure.update_layout(showlegend=len(runs) > 1, legend=legend, hovermode="closest")
    figure.update_layout(margin={"t": top, "r": 12, "l": 8, "b": 8}, uirevision=runs[0].name)
    _axes(figure, runs, colours)
    _titles(figure, runs[0], colours)
    return figure


def _line(run: HealthRun, panel: Panel, order: int, colours: Theme, *, legend: bool) -> go.Scatter:
    chosen = order == 0
    y = [_value(row.get(panel.column), panel) for row in run.rows]
    colour = colours.accent if chosen else colours.categories[order % len(colours.categories)]
    few = len(run.rows) < 3
    return go.Scatter(
        x=[row["tokens"] for row in run.rows],
        y=y,
        mode="lines+markers" if few else "lines",
        name=escape(run.name, 64),
        legendgroup=run.name,
        showlegend=legend,
        line={"color": colour, "width": 2 if chosen else 1.2},
        opacity=1 if chosen else 0.75,
        hovertemplate=f"<b>{escape(run.name, 64)}</b><br>%{{x:,.0f}} tokens<br>{panel.title} "
        f"%{{y:{panel.number}}}<extra></extra>",
    )


def _value(value: Any, panel: Panel) -> float | None:
    """Return the values of a panel, with gaps where they are not finite, or not positive on a log axis."""
    scalar = number(value)
    return None if scalar is None or (panel.log and scalar <= 0) else scalar


def _titles(figure: go.Figure, chosen: HealthRun, colours: Theme) -> None:
    """The name of every panel; that of the threshold has its drift over the shaded part."""
    for slot, panel in enumerate(PANELS):
        axes = _inside(slot)
        moved = drift(chosen.rows) if panel.column == "threshold" else None
        if moved is not None:
            last = chosen.rows[-1]["tokens"]
            figure.add_shape(
                {**axes, "xref": axes["xref"].split()[0], "x0": last * (1 - LAST_PART), "x1": last, "y0": 0, "y1": 1},
                type="rect", layer="below", fillcolor=colours.accent, opacity=0.08, line_width=0,
            )  # fmt: skip
        title = panel.title + (f" · drift {moved:+.1%}" if moved is not None else "")
        figure.add_annotation(
            {**axes, "x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom", "yshift": 2},
            text=title,
            hovertext="<br>".join(wrap(panel.means, 48)),
            font={"size": 12, "color": colours.text},
            showarrow=False,
        )


def _inside(slot: int) -> dict[str, str]:
    """Coordinates from 0 to 1 within a panel."""
    number_of = slot + 1 if slot else ""
    return {"xref": f"x{number_of} domain", "yref": f"y{number_of} domain"}


def _axes(figure: go.Figure, runs: Sequence[HealthRun], colours: Theme) -> None:
    figure.update_xaxes(
        showgrid=False, nticks=5, tickangle=0, tickformat="~s", rangemode="tozero", hoverformat=",", matches="x"
    )
    figure.update_layout(xaxis_matches=None)  # the one that the others follow
    figure.update_xaxes(title_text="tokens seen", row=3)
    figure.update_yaxes(nticks=5)
    for slot, panel in enumerate(PANELS):
        values = [v for run in runs for row in run.rows if (v := _value(row.get(panel.column), panel)) is not None]
        axis: dict[str, Any] = {}
        if not values:
            axis = {"visible": False}
            text = "this kind has none" if panel.column == "threshold" else "not in the log"
            figure.add_annotation(_inside(slot), text=text, showarrow=False, x=0.5, y=0.5,
                                  font={"size": 12, "color": colours.muted})  # fmt: skip
        elif panel.share:
            top = max(*values, 0.0)
            axis = {"range": [0, max(top * 1.1, 0.01)], "tickformat": ".1%" if top < 0.05 else ".0%"}
        elif panel.log:
            axis = {"type": "log", "dtick": "D2" if max(values) < 30 * min(values) else 1, "exponentformat": "none"}
            axis["tickformat"] = "~g"
        elif panel.column == "l0":
            axis = {"type": "log", "tickformat": "~g"} if max(values) > 20 * max(min(values), 1e-9) > 0 else {}
        figure.update_yaxes(axis, row=slot // 2 + 1, col=slot % 2 + 1)


def activation_histogram(
    counts: list[int], edges: list[float], colours: Theme, *, marker: float | None = None, height: int = 200
) -> go.Figure:
    """Active tokens per bin of activation, on a log axis.

    Args:
        counts: active tokens in each bin, `[n]`.
        edges: of the bins, `[n + 1]`. Bars are drawn in log10 units so that their widths are true.
        colours: of the figure, from `colours_of`.
        marker: activation at which a line is drawn, the mean for instance.
        height: in pixels.
    Returns: a plotly figure.

    >>> activation_histogram([90, 9, 1], [0, 1, 2, 3], colours_of("dark"), marker=1.2).layout.height
    200
    """
    bins, bounds = np.asarray(counts, float), np.asarray(edges, float)
    if bins.sum() == 0:
        return message_figure("this feature never fired, so there is no histogram", colours, height=height)
    shown = filled_bins(counts)
    bins, low, high = bins[shown], bounds[:-1][shown], bounds[1:][shown]
    left, right = np.log10(np.maximum(low, 1e-12)), np.log10(np.maximum(high, 1e-12))
    figure = go.Figure(
        go.Bar(
            x=(left + right) / 2,
            y=bins,
            width=(right - left) * 0.92,
            marker={"color": colours.accent, "line": {"width": 0}},
            hovertext=[
                f"{n:,.0f} tokens<br>activation {a:.3g} to {b:.3g}" for n, a, b in zip(bins, low, high, strict=True)
            ],
            hoverinfo="text",
        )
    )
    styled(figure, colours, height=height)
    ticks = [10.0**e * m for e in range(-4, 5) for m in (1, 3) if low[0] * 0.9 <= 10.0**e * m <= high[-1] * 1.1]
    names = [f"{t:g}" for t in ticks] or [f"{low[0]:.2g}", f"{high[-1]:.2g}"]
    tickvals = np.log10(ticks or [low[0], high[-1]])
    figure.update_xaxes(title_text="activation (log scale)", tickvals=tickvals, ticktext=names, showgrid=False)
    figure.update_yaxes(title_text="tokens", rangemode="tozero", nticks=5)
    if marker and marker > 0:
        figure.add_vline(float(np.log10(marker)), line={"color": colours.opposite, "width": 1, "dash": "dot"})
    return figure


def filled_bins(counts: list[int]) -> slice:
    """Return the bins that a histogram of activations shows: those with tokens, and one more on each side."""
    filled = np.flatnonzero(counts)
    if not len(filled):
        return slice(0, 0)
    return slice(max(0, int(filled[0]) - 1), min(int(filled[-1]) + 2, len(counts)))


MEASURES = {
    "fires": "fires on its words",
    "steer": "steered: its words rise",
    "ablate": "ablated: its words fall",
    "joined": "says what it reads",
    "lists": "separates their list",
}
"""Tests of a proof in the figure, in words."""


def proof_nulls(proof: Proof, colours: Theme, *, height: int = 230) -> go.Figure:
    """A feature with its nulls, one line per measure.

    The axis is the distance from the mean of random directions in their standard deviations; marks beyond 12 stay at
    the edge.
    """
    rows = [measure for measure in proof.measures if measure.name in MEASURES]
    if not rows:
        return message_figure("nothing could be measured", colours, height=height)
    series: dict[str, list[tuple[float, float, str]]] = {"random": [], "alike": [], "untrained": [], "feature": []}
    for line, row in enumerate(reversed(rows)):
        mean, spread = (row.random.mean(), row.random.std()) if len(row.random) else (0.0, 0.0)

        def far(value: float, mean: float = mean, spread: float = spread) -> float:
            return (value - mean) / spread if spread else 0.0

        nulls = {"random": [(value, "random direction") for value in row.random.tolist()]}
        nulls["alike"] = [
            (value, f"feature {feature}") for value, feature in zip(row.alike.tolist(), proof.alike, strict=False)
        ]
        nulls["untrained"] = [(value, "untrained latent on its own words") for value in row.untrained.tolist()]
        for null, shift in (("random", 0.16), ("alike", -0.16), ("untrained", -0.32)):
            series[null] += [(far(value), line + shift, f"{of}: {value:+.3g} {row.unit}") for value, of in nulls[null]]
        series["feature"].append((far(row.value), line, f"this feature: {row.value:+.3g} {row.unit}"))
    marks = {
        "random": ("random directions", {"symbol": "line-ns-open", "size": 9, "color": colours.muted}, 0.55),
        "alike": ("features of like density", {"symbol": "line-ns-open", "size": 9, "color": colours.opposite}, 0.7),
        "untrained": ("untrained latents", {"symbol": "line-ns-open", "size": 9, "color": colours.text}, 0.4),
        "feature": ("this feature", {"symbol": "diamond", "size": 11, "color": colours.accent}, 1.0),
    }
    figure = go.Figure(
        [
            go.Scatter(
                x=np.clip([p[0] for p in points], -12, 12), y=[p[1] for p in points], text=[p[2] for p in points],
                mode="markers", name=marks[key][0], marker=marks[key][1], opacity=marks[key][2],
                hovertemplate="%{text}<extra></extra>",
            )
            for key, points in series.items()
            if points
        ]
    )  # fmt: skip
    styled(figure, colours, height=height)
    words = [MEASURES[measure.name] for measure in reversed(rows)]
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=words, range=[-0.6, len(rows) - 0.4], showgrid=False)
    figure.update_xaxes(title_text="distance from random directions (SD)")
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 11}}
    figure.update_layout(showlegend=True, legend=legend, margin={"t": 34, "r": 12, "l": 8, "b": 8})
    return figure


def drift(rows: Iterable[dict[str, Any]], part: float = LAST_PART) -> float | None:
    """Return the relative change of the threshold over the last `part` of the log, from a linear fit; 0: none.

    None with fewer than four lines in that part, or without a threshold.
    """
    known = [row for row in rows if number(row.get("threshold")) is not None]
    if not known:
        return None
    x, y = (np.array([row[name] for row in known], np.float64) for name in ("tokens", "threshold"))
    last = float(x[-1])
    late = x >= last * (1 - part)
    if late.sum() < 4 or not y[late].mean():
        return None
    slope = np.polyfit(x[late] - last, y[late], 1)[0]
    return float(slope * (x[late][-1] - x[late][0]) / abs(y[late].mean()))
