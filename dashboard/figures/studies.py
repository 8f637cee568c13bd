"""Figures of the studies: training curves with their phases, and the frequencies of grokking."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import DASHES, Theme, escape, heat_map, message_figure, styled


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
    """One line per curve; NaN is left out.

    Args:
        steps: the horizontal values, `[n]`.
        curves: the lines by name, `[n]` each.
        colours: of the figure, from `colours_of`.
        x_title, y_title: texts at the axes.
        log: whether the vertical axis is logarithmic.
        marks: vertical lines with a word each (None: left out).
        levels: horizontal lines, such as chance.
        height: in pixels.
    Returns: a plotly figure.

    >>> curve = training_curves([1, 10, 100], {"loss": np.array([4.2, 3.0, 1.1])}, colours_of("light"))
    >>> [line.name for line in curve.data]
    ['loss']
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
    events = {word: step for word, step in (marks or {}).items() if step is not None}
    _marks(figure, events, colours)
    for word, level in (levels or {}).items():
        figure.add_hline(y=level, line={"color": colours.muted, "width": 1, "dash": "dot"})
        figure.add_annotation(
            xref="paper", x=1, y=np.log10(level) if log else level, xanchor="right", yanchor="bottom",
            text=escape(word), showarrow=False, font={"size": 10.5, "color": colours.muted}, bgcolor=colours.veil,
        )  # fmt: skip
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.25})
    figure.update_layout(margin={"t": 24 if len(events) < 2 else 38})
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
    the right.

    `steps [n_steps]` are the horizontal values.
    """
    share = np.asarray(share, float)
    if not np.isfinite(share).any():
        return message_figure("no frequency was measured", colours, height=height)
    figure = heat_map(
        share.T, colours, "share of the power", top=float(np.nanmax(share)), gap=0, x=list(steps),
        y=np.arange(1, share.shape[1] + 1), hovertemplate="frequency %{y}, epoch %{x}: %{z:.1%}<extra></extra>",
    )  # fmt: skip
    styled(figure, colours, height=height)
    figure.update_xaxes(title_text="epoch", showgrid=False)
    figure.update_yaxes(title_text="frequency", showgrid=False)
    if keys:
        every = [k for k in range(1, share.shape[1] + 1) if k % 5 == 0 and min(abs(k - key) for key in keys) > 1]
        shown = sorted({*every, *keys})
        figure.update_yaxes(tickvals=shown, ticktext=[f"<b>{k}</b>" if k in keys else str(k) for k in shown])
    return figure
