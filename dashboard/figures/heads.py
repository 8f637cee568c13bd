"""Every head's score of one kind: layers down, heads across."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import Theme, colour_bar, styled


def head_scores(rows: list[dict[str, Any]], kind: str, colours: Theme, *, height: int = 560) -> go.Figure:
    """Heat map of one score, 0 (no attention on that target) to 1 (all of it); a dot marks a head that was found.

    `rows` are rows of `heads.parquet`. Hover gives the 95 % interval and the null.
    """
    layers = 1 + max(row["layer"] for row in rows)
    heads = 1 + max(row["head"] for row in rows)
    score = np.full((layers, heads), np.nan, np.float32)
    hover = np.full((layers, heads), "", object)
    for row in rows:
        score[row["layer"], row["head"]] = row[kind]
        hover[row["layer"], row["head"]] = _head_hover(row, kind)
    figure = go.Figure(
        go.Heatmap(
            z=score,
            zmin=0,
            zmax=1,
            colorscale=colours.sequential,
            xgap=2,
            ygap=2,
            hovertext=hover,
            hoverinfo="text",
            colorbar=colour_bar(colours, "share of attention"),
        )
    )
    found = [row for row in rows if row[f"{kind}_found"]]
    figure.add_scatter(
        x=[row["head"] for row in found],
        y=[row["layer"] for row in found],
        mode="markers",
        marker={
            "symbol": "circle",
            "size": 7,
            "color": colours.opposite,
            "line": {"width": 1, "color": colours.surface},
        },
        hoverinfo="skip",
    )
    styled(figure, colours, height=height)
    figure.update_xaxes(title_text="head", dtick=1, showgrid=False, side="top", range=[-0.5, heads - 0.5])
    figure.update_yaxes(title_text="layer", dtick=1 if layers <= 40 else 5, showgrid=False, range=[layers - 0.5, -0.5])
    return figure


def _head_hover(row: dict[str, Any], kind: str) -> str:
    verdict = "found" if row[f"{kind}_found"] else "not above chance"
    return (
        f"<b>L{row['layer']}H{row['head']}</b> {row[kind]:.3f} · {verdict}<br>"
        f"95 % interval {row[f'{kind}_low']:.3f} to {row[f'{kind}_high']:.3f}<br>"
        f"by chance {row[f'{kind}_null']:.3f}, at most {row[f'{kind}_null_high']:.3f}"
    )
