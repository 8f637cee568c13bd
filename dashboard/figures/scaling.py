"""How the loss of dictionaries falls with their size: runs, the fitted law for every k, and its band."""

from typing import Any

import plotly.graph_objects as go

from dashboard.figures.theme import Theme, escape, faint, message_figure, styled
from dashboard.views.sae_log import number


def scaling_curves(found: dict[str, Any], colours: Theme, *, chosen: str = "", height: int = 360) -> go.Figure:
    """Held-out loss over latents, both logarithmic, one colour per k (`scaling.json`: `runs`, `curves`).

    A line is the law, its band the 95 % interval of the fit; a ring marks the run called `chosen`. Crosses are what the
    smaller sizes alone predict for the largest.
    """
    runs = [r for r in found.get("runs") or [] if number(r.get("loss")) and number(r.get("n"))]
    if not runs:
        return message_figure("this fit holds no runs", colours, height=height)
    figure = go.Figure()
    ks = sorted({r["k"] for r in runs})
    for order, k in enumerate(ks):
        colour = colours.categories[order % len(colours.categories)]
        curve = [c for c in found.get("curves") or [] if c["k"] == k]
        if curve:
            n = [c["n"] for c in curve]
            band = [c["high"] for c in curve] + [c["low"] for c in reversed(curve)]
            figure.add_scatter(x=n + n[::-1], y=band, fill="toself", fillcolor=faint(colour), mode="none",
                               hoverinfo="skip", legendgroup=str(k), showlegend=False)  # fmt: skip
            figure.add_scatter(x=n, y=[c["loss"] for c in curve], mode="lines", line={"color": colour, "width": 1.6},
                               hoverinfo="skip", legendgroup=str(k), showlegend=False)  # fmt: skip
        mine = [r for r in runs if r["k"] == k]
        figure.add_scatter(
            x=[r["n"] for r in mine], y=[r["loss"] for r in mine], mode="markers", name=f"k {k}", legendgroup=str(k),
            marker={"size": 8, "color": colour}, hovertext=[_run_hover(r) for r in mine], hoverinfo="text",
        )  # fmt: skip
        figure.add_scatter(
            x=[p["n"] for p in found.get("left_out") or [] if p["k"] == k],
            y=[p["predicted"] for p in found.get("left_out") or [] if p["k"] == k],
            mode="markers", marker={"size": 9, "symbol": "x-thin", "line": {"width": 1.6, "color": colour}},
            hovertext="predicted from the smaller sizes", hoverinfo="text", legendgroup=str(k), showlegend=False,
        )  # fmt: skip
    ring = [r for r in runs if r.get("name") == chosen]
    if ring:
        marker = {"size": 16, "color": "rgba(0,0,0,0)", "line": {"width": 2, "color": colours.text}}
        figure.add_scatter(x=[r["n"] for r in ring], y=[r["loss"] for r in ring], mode="markers", marker=marker,
                           hoverinfo="skip", showlegend=False)  # fmt: skip
    styled(figure, colours, height=height)
    sizes = sorted({r["n"] for r in runs})
    figure.update_xaxes(type="log", title_text="latents", tickvals=sizes, ticktext=[f"{n:,}" for n in sizes])
    figure.update_xaxes(showgrid=False)
    losses = [r["loss"] for r in runs]
    ticks = [m * 10.0**e for e in range(-6, 3) for m in (1, 1.5, 2, 3, 4, 5, 6, 8)]
    shown = [t for t in ticks if min(losses) / 1.15 <= t <= max(losses) * 1.15]
    figure.update_yaxes(type="log", title_text="held-out FVU", tickvals=shown, ticktext=[f"{t:g}" for t in shown])
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 11}}
    return figure.update_layout(showlegend=True, legend=legend, margin={"t": 30, "r": 14, "l": 8, "b": 8})


def _run_hover(run: dict[str, Any]) -> str:
    name = f"<b>{escape(str(run['name']), 64)}</b><br>" if run.get("name") else ""
    return f"{name}{run['n']:,} latents, k {run['k']}<br>FVU {run['loss']:.4f}"
