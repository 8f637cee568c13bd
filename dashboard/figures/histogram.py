"""How strongly a feature fires when it fires."""

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import Theme, message_figure, styled


def activation_histogram(
    counts: list[int], edges: list[float], colours: Theme, *, marker: float | None = None, height: int = 200
) -> go.Figure:
    """Active tokens per bin of activation, on a log axis; `marker` draws a line, at the mean for instance.

    `counts [n]`, `edges [n + 1]`. Bars are drawn in log10 units so that their widths are true.
    """
    bins, bounds = np.asarray(counts, float), np.asarray(edges, float)
    if bins.sum() == 0:
        return message_figure("it never fired, so there is nothing to count", colours, height=height)
    filled = np.flatnonzero(bins)
    shown = slice(max(0, int(filled[0]) - 1), int(filled[-1]) + 2)
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
    ticks = [10.0**e * m for e in range(-4, 5) for m in (1, 3) if low[0] * 0.9 <= 10.0**e * m <= high[-1] * 1.1]
    figure.update_xaxes(title_text="activation (log scale)", tickvals=np.log10(ticks or [low[0], high[-1]]))
    figure.update_xaxes(ticktext=[f"{t:g}" for t in ticks] or [f"{low[0]:.2g}", f"{high[-1]:.2g}"], showgrid=False)
    figure.update_yaxes(title_text="tokens", rangemode="tozero", nticks=5)
    if marker and marker > 0:
        figure.add_vline(x=float(np.log10(marker)), line={"color": colours.opposite, "width": 1, "dash": "dot"})
    return styled(figure, colours, height=height)
