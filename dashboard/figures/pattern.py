"""Where one head looks: attention from each token (row) to each earlier one (column)."""

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import MONO, Theme, colour_bar, escape, styled, visible

PATTERN_LABELLED = 48
"""beyond this many tokens the axes show positions only"""


def attention_pattern(weights: np.ndarray, tokens: list[str], colours: Theme, *, height: int = 460) -> go.Figure:
    """Heat map of `weights [dest, src]`, 0 to 1; each row sums to 1. The future is left blank."""
    n = len(tokens)
    shown = np.where(np.tril(np.ones((n, n), bool)), weights, np.nan).astype(np.float32)
    names = [escape(token, 16) for token in tokens]
    figure = go.Figure(
        go.Heatmap(
            z=shown,
            zmin=0,
            zmax=1,
            colorscale=colours.sequential,
            hovertext=_pattern_hover(shown, names),
            hoverinfo="text",
            xgap=1 if n <= PATTERN_LABELLED else 0,
            ygap=1 if n <= PATTERN_LABELLED else 0,
            colorbar=colour_bar(colours, "attention"),
        )
    )
    styled(figure, colours, height=height)
    ticks = {"tickfont": {"family": MONO, "size": 11, "color": colours.text}, "showgrid": False}
    if n <= PATTERN_LABELLED:
        labels = [escape(visible(token, 12).strip() or "␣", 14) for token in tokens]
        ticks |= {"tickvals": list(range(n)), "ticktext": labels}
    figure.update_xaxes(title_text="looked at (source)", tickangle=-60, **ticks)
    figure.update_yaxes(title_text="looking (destination)", range=[n - 0.5, -0.5], **ticks)
    return figure


def _pattern_hover(weights: np.ndarray, names: list[str]) -> list[list[str]]:
    return [_pattern_hover_row(weights[dest], dest, names) for dest in range(len(names))]


def _pattern_hover_row(row: np.ndarray, dest: int, names: list[str]) -> list[str]:
    past = [f"<b>{names[dest]}</b> → <b>{names[src]}</b><br>{row[src]:.3f}" for src in range(dest + 1)]
    return past + [""] * (len(names) - dest - 1)
