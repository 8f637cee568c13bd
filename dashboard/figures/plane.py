"""The words of a list on its plane: where the sentences that fitted it put them, and where those that judge do."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import Theme, escape, legend_above, message_figure, styled

_CROWDED = 16
"""words beyond which labels get smaller"""


def plane_figure(rows: list[dict[str, Any]], colours: Theme, *, joined: str = "", height: int = 420) -> go.Figure:
    """Rows of `points.parquet` of one list. Rings: the fitting half; dots: the judging half, tied to its ring.

    `joined`: the dots in their order, `closed`, `open`, or `unsure` (the closing step dotted); nothing for a list
    without an order, as a line makes one see an order.
    """
    fit, judge = (_half(rows, half) for half in ("fit", "judge"))
    if not judge:
        return message_figure("no word of this list has a place on a plane", colours, height=height)
    figure = go.Figure()
    if fit:
        _ties(figure, fit, judge, colours)
        marker = {"size": 9, "symbol": "circle-open", "color": colours.muted, "line": {"width": 1.4}}
        figure.add_scatter(x=_column(fit, "x"), y=_column(fit, "y"), mode="markers", marker=marker, hoverinfo="text",
                           hovertext=[_plane_hover(row, "fit the plane") for row in fit],
                           name="sentences that fit")  # fmt: skip
    if joined:
        _path(figure, judge, joined, colours)
    figure.add_scatter(
        x=_column(judge, "x"),
        y=_column(judge, "y"),
        mode="markers+text",
        marker={"size": 9, "color": colours.accent, "line": {"width": 1, "color": colours.surface}},
        text=[escape(str(row["word"]), 16) for row in judge],
        textposition=_outward(judge),
        textfont={"size": 10.5 if len(judge) > _CROWDED else 12, "color": colours.text},
        hovertext=[_plane_hover(row, "judge") for row in judge],
        hoverinfo="text",
        name="sentences that judge",
        cliponaxis=False,
    )
    styled(figure, colours, height=height)
    legend_above(figure)
    across, up = _ranges(rows)
    figure.update_xaxes(title_text="first component of the plane", showgrid=False, nticks=5, range=across)
    return figure.update_yaxes(
        title_text="second component", showgrid=False, nticks=5, range=up, scaleanchor="x", constrain="domain"
    )


def _half(rows: list[dict[str, Any]], half: str) -> list[dict[str, Any]]:
    """In the order of the list; rows without a finite place are left out."""
    mine = [row for row in rows if row["half"] == half and np.isfinite([row["x"], row["y"]]).all()]
    return sorted(mine, key=lambda row: row["place"])


def _ties(figure: go.Figure, fit: list[dict[str, Any]], judge: list[dict[str, Any]], colours: Theme) -> None:
    """A short line from each word's ring to its dot: how far the halves differ."""
    at = {row["place"]: row for row in judge}
    x, y = [], []
    for row in fit:
        if row["place"] in at:
            x += [row["x"], at[row["place"]]["x"], None]
            y += [row["y"], at[row["place"]]["y"], None]
    figure.add_scatter(x=x, y=y, mode="lines", line={"color": colours.noise, "width": 1.2}, hoverinfo="skip",
                       showlegend=False)  # fmt: skip


def _path(figure: go.Figure, judge: list[dict[str, Any]], joined: str, colours: Theme) -> None:
    x, y = _column(judge, "x"), _column(judge, "y")
    closed = joined == "closed"
    line = {"color": colours.accent, "width": 1.6}
    figure.add_scatter(x=x + x[:1] * closed, y=y + y[:1] * closed, mode="lines", line=line, opacity=0.75,
                       hoverinfo="skip", name="in the order of the list")  # fmt: skip
    if joined == "unsure":
        figure.add_scatter(x=[x[-1], x[0]], y=[y[-1], y[0]], mode="lines", line={**line, "dash": "dot"}, opacity=0.75,
                           hoverinfo="skip", name="last to first")  # fmt: skip


def _column(rows: list[dict[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows]


def _outward(rows: list[dict[str, Any]]) -> list[str]:
    """The side of each dot that looks away from the middle of all, where a label lies on nothing; beside a line."""
    places = np.array([[row["x"], row["y"]] for row in rows])
    width, height = np.ptp(places, axis=0)
    if min(width, height) < 0.3 * max(width, height):
        return ["top center" if width > height else "middle right"] * len(rows)
    away = places - places.mean(0)
    across = np.abs(away[:, 0]) > np.abs(away[:, 1])
    return [
        ("middle right" if x > 0 else "middle left") if sideways else ("top center" if y > 0 else "bottom center")
        for (x, y), sideways in zip(away.tolist(), across.tolist(), strict=True)
    ]


def _ranges(rows: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Ends of both axes, with room for labels; none is narrower than half of the other, as points on a line are."""
    places = np.array([[row["x"], row["y"]] for row in rows if np.isfinite([row["x"], row["y"]]).all()])
    middle, span = (places.min(0) + places.max(0)) / 2, np.ptp(places, axis=0)
    half = np.maximum(span, max(span.max() / 2, 1e-9)) * (0.82, 0.64)
    (left, low), (right, high) = (middle - half).tolist(), (middle + half).tolist()
    return [left, right], [low, high]


def _plane_hover(row: dict[str, Any], half: str) -> str:
    word = escape(str(row["word"]), 60)
    return f"<b>{word}</b><br>number {row['place'] + 1} of the list<br>by the sentences that {half}"
