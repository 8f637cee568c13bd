"""Curves over training, with the places where something changed."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import Theme, styled


def training_curves(
    steps: Sequence[float] | np.ndarray,
    curves: Mapping[str, np.ndarray],
    colours: Theme,
    *,
    x_title: str = "step",
    y_title: str = "",
    log: bool = False,
    marks: Mapping[str, float | None] | None = None,
    height: int = 280,
) -> go.Figure:
    """One line per curve `[n]`; `marks` are vertical lines with a word each (None: left out)."""
    figure = go.Figure()
    for at, (name, values) in enumerate(curves.items()):
        colour = colours.categories[at % len(colours.categories)]
        figure.add_scatter(
            x=list(steps), y=np.asarray(values, float), mode="lines", name=name, line={"color": colour, "width": 2},
            hovertemplate=f"{name}<br>{x_title} %{{x:,}}: %{{y:.4g}}<extra></extra>",
        )  # fmt: skip
    styled(figure, colours, height=height)
    for word, place in (marks or {}).items():
        if place is not None:
            figure.add_vline(x=place, line={"color": colours.muted, "width": 1, "dash": "dot"})
            figure.add_annotation(
                x=place, y=1, yref="paper", yanchor="bottom", text=word, showarrow=False,
                font={"size": 11, "color": colours.muted},
            )  # fmt: skip
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.25}, margin={"t": 24})
    figure.update_xaxes(title_text=x_title)
    figure.update_yaxes(title_text=y_title, type="log" if log else "linear")
    return figure


def frequency_shares(
    share: np.ndarray, steps: Sequence[float] | np.ndarray, colours: Theme, *, height: int = 280
) -> go.Figure:
    """Power of every frequency over training: `share [n_steps, n_frequencies]`, 0 none to 1 all."""
    share = np.asarray(share, float)
    figure = go.Figure(
        go.Heatmap(
            x=list(steps), y=np.arange(1, share.shape[1] + 1), z=share.T, zmin=0, zmax=float(share.max()),
            colorscale=colours.sequential, colorbar={"title": {"text": "share of the power"}, "thickness": 10},
            hovertemplate="frequency %{y}, epoch %{x}: %{z:.1%}<extra></extra>",
        )
    )  # fmt: skip
    styled(figure, colours, height=height)
    figure.update_xaxes(title_text="epoch")
    figure.update_yaxes(title_text="frequency")
    return figure
