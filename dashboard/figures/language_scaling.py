"""How the loss of language models falls with their size: the trained models, the fitted law, and a prediction."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import Theme, escape, legend_above, message_figure, styled


def loss_over_size(found: dict[str, Any], colours: Theme, *, height: int = 340) -> go.Figure:
    """Held-out loss at the end over parameters (log), one mark per model.

    `found` is `scaling.json`; the line is the law at the tokens that all have seen, the cross the largest size as the
    smaller ones predict it, the dotted line what no size and no text removes.
    """
    runs = [run for run in found.get("runs") or [] if run.get("losses") and run.get("tokens") and run.get("n_params")]
    if not runs:
        return message_figure("no model was trained", colours, height=height)
    figure = go.Figure()
    law, sizes = found.get("law"), sorted({run["n_params"] for run in runs})
    if law:
        x = np.geomspace(sizes[0], sizes[-1], 60)
        y = law["e"] + law["a"] / x ** law["alpha"] + law["b"] / runs[0]["tokens"][-1] ** law["beta"]
        figure.add_scatter(x=x.tolist(), y=y.tolist(), mode="lines", name="the law", hoverinfo="skip",
                           line={"color": colours.accent, "width": 1.8})  # fmt: skip
    figure.add_scatter(
        x=[run["n_params"] for run in runs], y=[run["losses"][-1] for run in runs], mode="markers", name="models",
        marker={"size": 8, "color": colours.accent, "line": {"width": 1, "color": colours.surface}},
        hovertext=[_size_hover(run) for run in runs], hoverinfo="text",
    )  # fmt: skip
    left = found.get("left_out")
    if left:
        figure.add_scatter(
            x=[left["n_params"]], y=[left["predicted"]], mode="markers", name="predicted from the smaller",
            marker={"size": 10, "symbol": "x-thin", "line": {"width": 2, "color": colours.opposite}},
            hovertemplate="predicted from the smaller sizes: %{y:.4f} nats<extra></extra>",
        )  # fmt: skip
    styled(figure, colours, height=height)
    legend_above(figure)
    if law:
        figure.add_hline(y=law["e"], line={"color": colours.muted, "width": 1, "dash": "dot"}, annotation_text="floor",
                         annotation_font={"size": 10.5, "color": colours.muted})  # fmt: skip
    every = max(1, len(sizes) // 5)
    figure.update_xaxes(
        type="log", title_text="parameters, without embeddings", tickvals=sizes[::every], showgrid=False
    )
    figure.update_xaxes(ticktext=[f"{size:,}" for size in sizes[::every]])
    return figure.update_yaxes(title_text="held-out loss (nats per token)", nticks=6)


def _size_hover(run: dict[str, Any]) -> str:
    name = f"<b>{escape(str(run['name']))}</b><br>" if run.get("name") else ""
    return f"{name}{run['n_params']:,} parameters, seed {run.get('seed')}<br>{run['losses'][-1]:.4f} nats"
