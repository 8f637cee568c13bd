"""Activation patching: which layers, heads or positions carry the difference between two prompts."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.attribution import diverging
from dashboard.figures.theme import Theme, colour_bar, escape, message_figure, styled


def patching_map(
    records: list[dict[str, Any]], colours: Theme, *, tokens: list[str] | None = None, height: int = 560
) -> go.Figure:
    """Layers up, heads or positions across, from the records of an `ActivationPatching`.

    0: the patch changes nothing; 1: the metric crosses the whole gap between the prompts. Colour is centred on 0. Where
    records have both a head and a position, each head's strongest position is shown. `tokens` name the positions.
    """
    if not records:
        return message_figure("nothing was patched", colours)
    across = "head" if "head" in records[0] else "position" if "position" in records[0] else None
    n_layers = 1 + max(record["layer"] for record in records)
    n_across = 1 + max(record[across] for record in records) if across else 1
    effect, hover = np.zeros((n_layers, n_across), np.float32), np.full((n_layers, n_across), "", object)
    for record in sorted(records, key=lambda record: abs(record["effect"])):  # the strongest of a cell comes last
        at = record["layer"], record[across] if across else 0
        effect[at], hover[at] = record["effect"], _hover(record)
    limit = max(1e-6, float(np.abs(effect).max()))
    figure = go.Figure(
        go.Heatmap(
            z=effect, zmin=-limit, zmax=limit, colorscale=diverging(colours), xgap=1, ygap=1, hovertext=hover,
            hoverinfo="text", colorbar=colour_bar(colours, "share of the gap"),
        )
    )  # fmt: skip
    styled(figure, colours, height=height)
    figure.update_yaxes(title_text="layer", dtick=1 if n_layers <= 40 else 5, showgrid=False)
    figure.update_xaxes(title_text=across or "", showgrid=False, side="top", dtick=1 if n_across <= 40 else 5)
    if across == "position" and tokens:
        figure.update_xaxes(tickvals=list(range(len(tokens))), ticktext=[escape(t, 12) for t in tokens])
    if across is None:
        figure.update_xaxes(showticklabels=False)
    return figure


def _hover(record: dict[str, Any]) -> str:
    where = ", ".join(f"{name} {record[name]}" for name in ("layer", "head", "position") if name in record)
    token = f" {escape(record['token'], 24)}" if "token" in record else ""
    error = "" if record.get("stderr") is None else f" ± {record['stderr']:.3f}"
    return f"<b>{where}</b>{token}<br>{record['effect']:+.3f}{error} of the gap"
