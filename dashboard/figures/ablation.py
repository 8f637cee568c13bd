"""What the model loses when heads are taken out, before and after a text starts to repeat."""

from typing import Any

import plotly.graph_objects as go

from dashboard.figures.theme import Theme, escape, message_figure, styled

_FEW = 10
"""groups beyond which bars get thinner"""


def ablation_bars(rows: list[dict[str, Any]], colours: Theme) -> go.Figure:
    """Change of loss in nats per ablated group, first half and second half of repeated text; 0 is no change.

    The whisker is the 95 % interval of the second half. Rows are rows of `ablations.parquet`, groups before singles.
    """
    rows = [r for r in rows if r["loss_second_half"] is not None]
    if not rows:
        return message_figure("no ablation was measured", colours)
    rows = sorted(rows, key=lambda r: (-(r["n_heads"] or 0), -r["loss_second_half"]))
    names = [_name(r) for r in rows]
    figure = go.Figure()
    figure.add_bar(
        y=names,
        x=[r["loss_first_half"] for r in rows],
        orientation="h",
        name="first half",
        marker={"color": colours.noise},
        hovertext=[_ablation_hover(r) for r in rows],
        hoverinfo="text",
    )
    second = [r["loss_second_half"] for r in rows]
    figure.add_bar(
        y=names,
        x=second,
        orientation="h",
        name="second half",
        marker={"color": colours.accent},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [_reach(r["high"], r["loss_second_half"]) for r in rows],
            "arrayminus": [_reach(r["loss_second_half"], r["low"]) for r in rows],
            "color": colours.text,
            "thickness": 1,
            "width": 3,
        },
        hovertext=[_ablation_hover(r) for r in rows],
        hoverinfo="text",
    )
    styled(figure, colours, height=(44 if len(rows) <= _FEW else 27) * len(rows) + 80)
    figure.update_layout(barmode="group", bargap=0.36, bargroupgap=0.08, showlegend=True)
    figure.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "traceorder": "normal"})
    figure.add_vline(x=0, line={"color": colours.muted, "width": 1})
    figure.update_xaxes(title_text="change of loss (nats)", nticks=6)
    figure.update_yaxes(autorange="reversed", showgrid=False, tickfont={"size": 12, "color": colours.text})
    return figure


def _name(row: dict[str, Any]) -> str:
    heads = f", {row['n_heads']} heads" if (row["n_heads"] or 0) > 1 and "heads" not in row["group"] else ""
    return f"{escape(row['group'], 36)}{heads} · {escape(row['kind'], 12)}"


def _reach(high: float | None, low: float | None) -> float:
    return max(0.0, high - low) if high is not None and low is not None else 0.0


def _ablation_hover(row: dict[str, Any]) -> str:
    words = f"<b>{_name(row)}</b><br>second half {row['loss_second_half']:+.3f} nats"
    if row["low"] is not None and row["high"] is not None:
        words += f" ({row['low']:+.3f} to {row['high']:+.3f})"
    if row["loss_first_half"] is not None:
        words += f"<br>first half {row['loss_first_half']:+.3f} nats"
    return words
