"""How much of a direction lies in the plane of each list of words, against random directions."""

from typing import Any

import plotly.graph_objects as go

from dashboard.figures.theme import Theme, escape, legend_above, message_figure, styled


def in_planes_figure(lists: list[dict[str, Any]], colours: Theme, *, height: int = 300) -> go.Figure:
    """Bars: the share of the direction within the plane, 0 to 1; diamonds: what one random direction in a hundred has.

    `lists` as `interp.geometry.along.ListAlong` keeps them.
    """
    rows = [row for row in lists if isinstance(row.get("plane_share"), int | float)]
    if not rows:
        return message_figure("no list has a plane", colours, height=height)
    names = [escape(str(row["name"]), 18) for row in rows]
    shares = [row["plane_share"] for row in rows]
    highs = [row.get("random_plane_high") for row in rows]
    figure = go.Figure()
    figure.add_bar(
        y=names, x=shares, orientation="h", name="within the plane", hoverinfo="text",
        marker={"color": [colours.accent if _above(row) else colours.noise for row in rows]},
        hovertext=[f"{name}<br>{share:.2%} of the direction in its plane"
                   for name, share in zip(names, shares, strict=True)],
    )  # fmt: skip
    figure.add_scatter(
        y=names, x=highs, mode="markers", name="random directions, one in a hundred", hoverinfo="text",
        marker={"size": 9, "symbol": "diamond-open", "color": colours.opposite, "line": {"width": 1.8}},
        hovertext=[f"{name}<br>random directions: {high:.2%} or less in 99 of 100" if high is not None else name
                   for name, high in zip(names, highs, strict=True)],
    )  # fmt: skip
    styled(figure, colours, height=height)
    legend_above(figure)
    most = max([*shares, *(high for high in highs if high is not None)])
    figure.update_xaxes(title_text="share of the direction", tickformat=".0%" if most > 0.04 else ".1%",
                        range=[0, 1.12 * most], nticks=5)  # fmt: skip
    return figure.update_yaxes(autorange="reversed", showgrid=False)


def _above(row: dict[str, Any]) -> bool:
    high = row.get("random_plane_high")
    return high is not None and row["plane_share"] > high
