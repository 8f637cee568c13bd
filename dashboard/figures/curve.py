"""How much of the behaviour a circuit of the best edges keeps, against circuits drawn at random."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import Theme, faint, message_figure, styled


def faithfulness_at(rows: list[dict[str, Any]], fraction: float) -> float | None:
    """Between the measured sizes, on a log axis; None outside them."""
    known = sorted((r["fraction"], r["faithfulness"]) for r in rows if r["faithfulness"] is not None)
    if not known or fraction <= 0 or not known[0][0] <= fraction <= known[-1][0]:
        return None
    x, y = np.array(known).T
    return float(np.interp(np.log(fraction), np.log(np.maximum(x, 1e-12)), y))


def faithfulness_curve(
    rows: list[dict[str, Any]], total: int, colours: Theme, *, current: int | None = None, height: int = 230
) -> go.Figure:
    """Faithfulness over number of edges (log): 1 is the whole model, 0 the fully corrupted one.

    `rows` of `curve.parquet`; `total` edges in the graph; `current` marks the number of edges that is shown. The band
    is the range of random circuits of the same size.
    """
    rows = sorted((r for r in rows if r["fraction"] > 0), key=lambda r: r["fraction"])
    if not rows:
        return message_figure("no curve was measured for this circuit", colours, height=height)
    x = [max(1.0, r["fraction"] * total) for r in rows]
    figure = go.Figure()
    if all(r.get("random_low") is not None and r.get("random_high") is not None for r in rows):
        band = [r["random_high"] for r in rows] + [r["random_low"] for r in reversed(rows)]
        figure.add_scatter(x=x + x[::-1], y=band, fill="toself", fillcolor=faint(colours.noise, 0.35), mode="none",
                           hoverinfo="skip", name="random circuits")  # fmt: skip
    if all(r.get("random") is not None for r in rows):
        figure.add_scatter(x=x, y=[r["random"] for r in rows], mode="lines", name="random circuits",
                           line={"color": colours.muted, "width": 1, "dash": "dot"}, hoverinfo="skip")  # fmt: skip
    figure.add_scatter(
        x=x,
        y=[r["faithfulness"] for r in rows],
        mode="lines+markers",
        line={"color": colours.accent, "width": 2},
        marker={"size": 5},
        hovertext=[_curve_hover(r, total) for r in rows],
        hoverinfo="text",
    )
    styled(figure, colours, height=height)
    for level in (0.0, 1.0):
        figure.add_hline(y=level, line={"color": colours.grid, "width": 1}, layer="below")
    ticks = [10**e for e in range(8) if x[0] / 3 <= 10**e <= x[-1] * 3]
    figure.update_xaxes(type="log", title_text="edges", showgrid=False, tickvals=ticks)
    figure.update_xaxes(ticktext=[f"{t:,}" for t in ticks])
    figure.update_yaxes(title_text="faithfulness", nticks=5, showgrid=False)
    _mark(figure, rows, total, current, colours)
    return figure


def _mark(figure: go.Figure, rows: list[dict[str, Any]], total: int, current: int | None, colours: Theme) -> None:
    if not current or not total:
        return
    figure.add_vline(x=current, line={"color": colours.opposite, "width": 1, "dash": "dot"})
    at = faithfulness_at(rows, current / total)
    if at is not None:
        marker = {"size": 11, "color": colours.opposite, "line": {"width": 2, "color": colours.surface}}
        figure.add_scatter(x=[current], y=[at], mode="markers", marker=marker, hoverinfo="text",
                           hovertext=[f"{current:,} edges<br>about {at:.2f}, between measured sizes"])  # fmt: skip


def agreement(rows: list[dict[str, Any]], colours: Theme, *, height: int = 230) -> go.Figure:
    """Estimated score against the exact effect of the same edges; on the line they are equal."""
    points = [(r["score"], r["exact"], r) for r in rows if r["score"] is not None and r["exact"] is not None]
    if not points:
        return message_figure("no edge was patched by itself", colours, height=height)
    low = min(min(s, e) for s, e, _ in points)
    high = max(max(s, e) for s, e, _ in points)
    figure = go.Figure(
        go.Scatter(
            x=[low, high], y=[low, high], mode="lines", hoverinfo="skip", line={"color": colours.grid, "width": 1}
        )
    )
    figure.add_scatter(
        x=[s for s, _, _ in points],
        y=[e for _, e, _ in points],
        mode="markers",
        marker={"size": 6, "color": colours.accent, "opacity": 0.8},
        hovertext=[f"<b>{_edge(r)}</b><br>estimated {s:.4g}<br>exact {e:.4g}" for s, e, r in points],
        hoverinfo="text",
    )
    figure.update_xaxes(title_text="estimated", nticks=5)
    figure.update_yaxes(title_text="exact", nticks=5)
    return styled(figure, colours, height=height)


def _edge(row: dict[str, Any]) -> str:
    return f"{row['source']} → {row['target']}" + (f" ({row['via']})" if row["via"] else "")


def _curve_hover(row: dict[str, Any], total: int) -> str:
    asked = max(1, round(row["fraction"] * total))
    kept = row.get("n_edges")
    words = f"<b>{row['faithfulness']:.3f}</b> with the best {asked:,} edges"
    words += f"<br>{kept:,} of them on a path" if kept is not None else ""
    return words + (f"<br>random circuits {row['random']:.3f}" if row.get("random") is not None else "")
