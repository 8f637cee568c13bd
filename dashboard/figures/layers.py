"""What can be read of a list of words over layers: its order, as circle and as line, and whether a word is in it."""

from typing import Any

import plotly.graph_objects as go

from dashboard.figures.theme import Theme, escape, faint, legend_above, message_figure, styled
from dashboard.views.geometry import short_place


def order_over_layers(rows: list[dict[str, Any]], colours: Theme, *, height: int = 300) -> go.Figure:
    """Circular and linear RSA over layers on the sentences that judge: 1 is a perfect order, 0 none.

    `rows` of `layers.parquet` of one list; the layer chosen on the other sentences is marked.
    """
    if not rows:
        return message_figure("no layer was measured", colours, height=height)
    figure = go.Figure()
    for name, colour, dash, symbol in (
        ("circular", colours.accent, "solid", "circle"),
        ("linear", colours.opposite, "dash", "square"),
    ):
        figure.add_scatter(
            x=list(range(len(rows))), y=[row[name] for row in rows], mode="lines+markers", name=f"{name} RSA",
            line={"color": colour, "width": 1.8, "dash": dash}, marker={"size": 5, "symbol": symbol},
            hovertext=[_layer_hover(row, f"{name} RSA {_number(row[name])}") for row in rows], hoverinfo="text",
        )  # fmt: skip
    styled(figure, colours, height=height)
    figure.add_hline(y=0, line={"color": colours.muted, "width": 1, "dash": "dot"})
    _layers(figure, rows, colours)
    return figure.update_yaxes(title_text="rank correlation with the order", nticks=6)


def probe_over_layers(rows: list[dict[str, Any]], colours: Theme, *, height: int = 300) -> go.Figure:
    """Accuracy of a linear probe over layers, with its 95 % interval, beside base rate and control labels; where rows
    have `random`, beside that of random directions too."""
    rows = [row for row in rows if row["probe_accuracy"] is not None]
    if not rows:
        return message_figure("no probe was trained", colours, height=height)
    figure = go.Figure()
    x = list(range(len(rows)))
    if all(row["probe_low"] is not None and row["probe_high"] is not None for row in rows):
        band = [row["probe_high"] for row in rows] + [row["probe_low"] for row in reversed(rows)]
        figure.add_scatter(x=x + x[::-1], y=band, fill="toself", fillcolor=faint(colours.accent), mode="none",
                           hoverinfo="skip", name="95 % interval")  # fmt: skip
    lines = [
        ("probe_accuracy", "accuracy", colours.accent, "solid", 2.0),
        ("control", "control labels", colours.opposite, "dash", 1.6),
        ("base_rate", "base rate", colours.muted, "dot", 1.6),
    ]
    if "random" in rows[0]:
        lines.insert(1, ("random", "random directions", colours.text, "dashdot", 1.4))
    for column, name, colour, dash, width in lines:
        figure.add_scatter(
            x=x, y=[row[column] for row in rows], mode="lines", name=name,
            line={"color": colour, "width": width, "dash": dash},
            hovertext=[_layer_hover(row, _probe(row)) for row in rows], hoverinfo="text",
        )  # fmt: skip
    styled(figure, colours, height=height)
    _layers(figure, rows, colours)
    return figure.update_yaxes(title_text="share of held-out words", range=[-0.02, 1.04], tickformat=".0%", nticks=6)


def _layers(figure: go.Figure, rows: list[dict[str, Any]], colours: Theme) -> None:
    """The axis of layers, and a line at the chosen one."""
    legend_above(figure, top=44)
    every = max(1, -(-len(rows) // 11))
    shown = list(range(0, len(rows), every))
    names = [escape(short_place(rows[at]["hook_point"]), 14) for at in shown]
    figure.update_xaxes(title_text="after block", tickvals=shown, ticktext=names, showgrid=False)
    for at, row in enumerate(rows):
        if row["chosen"]:
            figure.add_vline(x=at, line={"color": colours.text, "width": 1, "dash": "dot"})
            figure.add_annotation(
                x=at, y=1, yref="paper", yanchor="bottom", text="chosen", showarrow=False,
                font={"size": 11, "color": colours.muted},
            )  # fmt: skip
    figure.update_layout(legend_y=1.07)


def _layer_hover(row: dict[str, Any], words: str) -> str:
    return f"<b>{escape(str(row['hook_point']))}</b><br>{words}"


def _probe(row: dict[str, Any]) -> str:
    interval = f" ({_number(row['probe_low'])} to {_number(row['probe_high'])})"
    return (
        f"accuracy {_number(row['probe_accuracy'])}{interval}<br>control labels {_number(row['control'])}"
        f"<br>base rate {_number(row['base_rate'])}"
    )


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"
