"""The map: one point per token, feature or row, as a single WebGL trace.

One trace with a colour array stays quick where a trace per cluster does not, and float32 arrays travel as bytes. Points
are known by their index (`pointIndex` in click events), so that no per-point data needs to be sent but the label.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import Theme, colour_bar, escape, styled

COLOUR_BY = ("cluster", "density", "value", "kept")
MAX_LABELS = 24


@dataclass(frozen=True)
class Points:
    """Columns of `points.parquet`, each `[n]`."""

    x: np.ndarray
    y: np.ndarray
    cluster: np.ndarray
    density: np.ndarray
    value: np.ndarray
    kept: np.ndarray
    """share of its true neighbours that are near it on the map; NaN in maps made before it was measured"""
    item: np.ndarray
    labels: list[str]


def atlas_map(
    points: Points, clusters: list[dict[str, Any]], colours: Theme, *, colour_by: str, value_name: str
) -> go.Figure:
    """The map, coloured by cluster, local density, value or truth, with the names of the largest clusters over it."""
    figure = go.Figure()
    figure.add_scattergl(
        x=points.x,
        y=points.y,
        mode="markers",
        text=[escape(label, 40) for label in points.labels],
        hoverinfo="text",
        marker={
            "size": _point_size(len(points.x)),
            "opacity": 0.85,
            **_colouring(points, colours, colour_by, value_name),
        },
    )
    figure.add_scattergl(**_overlay(colours, 8), hoverinfo="text")  # search matches, filled in later
    figure.add_scattergl(**_overlay(colours, 15), hoverinfo="skip")  # the chosen point
    styled(figure, colours)
    _label_clusters(figure, clusters, colours)
    hidden = {"showgrid": False, "showticklabels": False, "title": None}
    figure.update_xaxes(**hidden)
    figure.update_yaxes(**hidden, scaleanchor="x")
    figure.update_layout(dragmode="pan", hovermode="closest", margin={"l": 0, "r": 0, "t": 0, "b": 0})
    return figure


def highlight(points: Points, matches: list[int], chosen: int | None, colours: Theme) -> list[dict[str, Any]]:
    """Properties of the overlay traces: the matches, and a ring around the chosen point."""
    at = np.asarray(matches, np.int64)
    ring = [] if chosen is None else [chosen]
    return [
        {
            "x": points.x[at],
            "y": points.y[at],
            "text": [escape(points.labels[i], 40) for i in matches],
            "marker": {"size": 1.4 * _point_size(len(points.x)) + 1, "color": colours.opposite, "opacity": 0.9},
        },
        {
            "x": points.x[ring],
            "y": points.y[ring],
            "marker": {
                "size": 15,
                "color": "rgba(0,0,0,0)",
                "line": {"color": colours.opposite, "width": 2},
                "opacity": 1.0,
            },
        },
    ]


def _overlay(colours: Theme, size: int) -> dict[str, Any]:
    empty = np.zeros(0, np.float32)
    return {"x": empty, "y": empty, "mode": "markers", "marker": {"size": size, "color": colours.opposite}}


def _point_size(n: int) -> float:
    """Pixels: small enough not to clump, large enough to hit."""
    return float(np.clip(260 / np.sqrt(max(n, 1)), 2.4, 8))


def _colouring(points: Points, colours: Theme, colour_by: str, value_name: str) -> dict[str, Any]:
    if colour_by == "cluster":
        palette = [colours.noise, *colours.categories]
        index = np.where(points.cluster < 0, 0, 1 + points.cluster % len(colours.categories)).astype(np.float32)
        last = len(palette) - 1
        return {
            "color": index,
            "cmin": 0,
            "cmax": last,
            "colorscale": [(i / last, colour) for i, colour in enumerate(palette)],
        }
    titles = {"density": "local density (rank)", "kept": "true neighbours kept", "value": value_name}
    shown, title = getattr(points, colour_by), titles[colour_by]
    low, high = np.nanpercentile(shown, [1, 99]) if np.isfinite(shown).any() else (0.0, 1.0)
    return {
        "color": shown,
        "cmin": float(low),
        "cmax": float(high),
        "colorscale": colours.density,
        "colorbar": colour_bar(colours, title)
        | {"x": 0.99, "xanchor": "right", "len": 0.4, "y": 0.02, "yanchor": "bottom"},
    }


def _label_clusters(figure: go.Figure, clusters: list[dict[str, Any]], colours: Theme) -> None:
    largest = sorted(clusters, key=lambda c: -c["size"])[:MAX_LABELS]
    for cluster in _spread(largest):
        figure.add_annotation(
            x=cluster["x"],
            y=cluster["y"],
            text=escape(cluster["label"], 28),
            showarrow=False,
            font={"size": 11, "color": colours.text},
            bgcolor=colours.veil,
            borderpad=2,
            captureevents=False,
        )


def _spread(clusters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The labels that keep clear of a larger cluster's label."""
    if not clusters:
        return []
    width = max(c["x_max"] for c in clusters) - min(c["x_min"] for c in clusters) or 1.0
    height = max(c["y_max"] for c in clusters) - min(c["y_min"] for c in clusters) or 1.0
    kept: list[dict[str, Any]] = []
    for cluster in clusters:
        if all(abs(cluster["x"] - k["x"]) > 0.16 * width or abs(cluster["y"] - k["y"]) > 0.035 * height for k in kept):
            kept.append(cluster)
    return kept
