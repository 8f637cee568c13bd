"""Heads as associative memories, the melting of a distribution, and how much a Hopfield network keeps."""

from typing import Any

import plotly.graph_objects as go

from dashboard.figures.theme import Theme, colour_bar, message_figure, styled


def retrieval_grid(rows: list[dict[str, Any]], colours: Theme, *, measure: str = "mass_share", title: str = "",
                   height: int = 460) -> go.Figure:  # fmt: skip
    """One cell per head (`HeadRetrieval.to_records`), layers downwards: how large a share of its keys a head mixes.

    `mass_share` runs from 0 (one key) to about 0.9 (all alike); another measure can be shown instead.
    """
    if not rows:
        return message_figure("no head was measured", colours, height=height)
    n_layers, n_heads = (1 + max(row[axis] for row in rows) for axis in ("layer", "head"))
    values: list[list[float | None]] = [[None] * n_heads for _ in range(n_layers)]
    hover = [[""] * n_heads for _ in range(n_layers)]
    for row in rows:
        values[row["layer"]][row["head"]] = row[measure]
        hover[row["layer"]][row["head"]] = _head(row)
    figure = go.Figure(
        go.Heatmap(
            z=values,
            colorscale=colours.sequential,
            zmin=0,
            hovertext=hover,
            hoverinfo="text",
            xgap=1,
            ygap=1,
            colorbar=colour_bar(colours, title or "share of keys that hold 90 % of attention"),
        )
    )
    styled(figure, colours, height=height)
    figure.update_xaxes(title_text="head", showgrid=False, dtick=1)
    return figure.update_yaxes(title_text="layer", showgrid=False, range=[n_layers - 0.5, -0.5])


def temperature_curves(
    series: dict[str, list[dict[str, float]]], colours: Theme, *, measure: str = "heat_capacity", height: int = 300
) -> go.Figure:
    """`entropy` or `heat_capacity` (nats) over temperature, one line per named sweep (`Thermodynamics.to_records`)."""
    if not series:
        return message_figure("no sweep was made", colours, height=height)
    figure = go.Figure()
    for order, (name, rows) in enumerate(series.items()):
        figure.add_scatter(
            x=[row["temperature"] for row in rows], y=[row[measure] for row in rows], mode="lines", name=name,
            line={"color": colours.categories[order % len(colours.categories)], "width": 2},
        )  # fmt: skip
    styled(figure, colours, height=height)
    figure.add_vline(x=1, line={"color": colours.muted, "width": 1, "dash": "dot"})
    figure.update_xaxes(type="log", title_text="temperature (1: the model's own)", showgrid=False)
    figure.update_yaxes(title_text=f"{measure.replace('_', ' ')}, nats")
    return _with_legend(figure)


def load_curve(
    rows: list[dict[str, float]], colours: Theme, *, capacity: float = 0.138, height: int = 300
) -> go.Figure:
    """Overlap that recall keeps, over load (`LoadCurve.to_records`): band of seeds, theory, its capacity dotted."""
    if not rows:
        return message_figure("no load was measured", colours, height=height)
    x = [row["load"] for row in rows]
    band = [row["overlap_high"] for row in rows] + [row["overlap_low"] for row in reversed(rows)]
    figure = go.Figure()
    figure.add_scatter(x=x + x[::-1], y=band, fill="toself", fillcolor="rgba(26, 102, 214, 0.16)", mode="none",
                       hoverinfo="skip", showlegend=False)  # fmt: skip
    figure.add_scatter(x=x, y=[row["overlap"] for row in rows], mode="lines+markers", name="measured",
                       line={"color": colours.accent, "width": 2})  # fmt: skip
    figure.add_scatter(x=x, y=[row["theory"] for row in rows], mode="lines", name="replica theory",
                       line={"color": colours.opposite, "width": 1.5, "dash": "dash"})  # fmt: skip
    styled(figure, colours, height=height)
    figure.add_vline(x=capacity, line={"color": colours.muted, "width": 1, "dash": "dot"})
    figure.update_xaxes(title_text="load: patterns per spin", showgrid=False)
    figure.update_yaxes(title_text="overlap with the stored pattern", range=[0, 1.03])
    return _with_legend(figure)


def capacity_curve(rows: list[dict[str, float]], colours: Theme, *, height: int = 300) -> go.Figure:
    """Patterns kept over dimension (`CapacityCurve.to_records`), logarithmic: a straight line is exponential growth."""
    if not rows:
        return message_figure("no capacity was measured", colours, height=height)
    figure = go.Figure()
    for name, colour in (("modern", colours.accent), ("classical", colours.opposite)):
        figure.add_scatter(x=[row["d"] for row in rows], y=[row[name] for row in rows], mode="lines+markers", name=name,
                           line={"color": colour, "width": 2})  # fmt: skip
    styled(figure, colours, height=height)
    figure.update_xaxes(title_text="dimension", showgrid=False)
    figure.update_yaxes(type="log", title_text="patterns kept", dtick=1)
    return _with_legend(figure)


def _with_legend(figure: go.Figure) -> go.Figure:
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 11}}
    return figure.update_layout(showlegend=True, legend=legend, margin={"t": 30, "r": 14, "l": 8, "b": 8})


def _head(row: dict[str, Any]) -> str:
    return (
        f"<b>{row['name']}</b> {row['kind']}<br>{row['n_mass']:.1f} keys hold 90 % of attention"
        f"<br>first position {row['first_share']:.0%}, score spread {row['score_spread']:.2f} nats"
        f"<br>energy {row['energy']:.0f} → {row['energy_after']:.0f}"
    )
