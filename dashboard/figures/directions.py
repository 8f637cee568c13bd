"""Figures of a direction's steering: effect against damage, and every layer and strength."""

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.geometry import short_hook_point
from dashboard.figures.theme import Theme, legend_above, styled
from interp.directions.choice import SteeringChoice


def effect_and_damage(found: SteeringChoice, colours: Theme, *, height: int = 400) -> go.Figure:
    """Effect on the behaviour against damage to neutral text: a line for each layer, a point for each strength.

    A ring marks the chosen cell; the diamond with whiskers is its result on the other half of the questions, next to
    random directions of the same length.
    """
    figure = go.Figure()
    for i, point in enumerate(found.hook_points):
        mine = found.chosen is not None and found.chosen[0] == i
        figure.add_scatter(
            x=found.damage[i], y=found.effect[i], mode="lines+markers", name=f"after block {short_hook_point(point)}",
            line={"width": 2.4 if mine else 1, "color": colours.accent if mine else colours.muted},
            marker={"size": 7 if mine else 5}, showlegend=mine,
            customdata=np.array(found.strengths),
            hovertemplate=f"{point}<br>strength %{{customdata:g}}<br>effect %{{y:+.3f}} {found.measured_in}"
            "<br>damage %{x:+.3f} nats a token<extra></extra>",
        )  # fmt: skip
    if found.chosen is not None and found.judged is not None:
        at, judged = found.chosen, found.judged
        figure.add_scatter(
            x=judged.random_damage, y=judged.random_effect[: len(judged.random_damage)], mode="markers",
            name="random directions, held out",
            marker={"size": 4, "symbol": "cross-thin", "line": {"width": 1, "color": colours.muted}},
            hovertemplate="a random direction<br>effect %{y:+.3f}<br>damage %{x:+.3f}<extra></extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=[found.damage[at]], y=[found.effect[at]], mode="markers", name="chosen",
            marker={"size": 15, "symbol": "circle-open", "color": colours.text, "line": {"width": 2}}, hoverinfo="skip",
        )  # fmt: skip
        effect, damage = judged.effect, judged.damage
        figure.add_scatter(
            x=[damage.estimate], y=[effect.estimate], mode="markers", name="the same, held out",
            marker={"size": 10, "symbol": "diamond", "color": colours.opposite},
            error_y={"array": [effect.high - effect.estimate], "arrayminus": [effect.estimate - effect.low]},
            hovertemplate="held out: effect %{y:+.3f}<br>damage %{x:+.3f}<extra></extra>",
        )  # fmt: skip
    figure.add_vline(x=found.harmless, line={"color": colours.muted, "dash": "dot", "width": 1})
    styled(figure, colours, height=height)
    legend_above(figure)
    figure.update_xaxes(title_text="damage: loss on neutral text (nats a token)")
    return figure.update_yaxes(title_text=f"effect ({found.measured_in})")


def layers_and_strengths(found: SteeringChoice, colours: Theme, *, height: int = 300) -> go.Figure:
    """Effect of every layer and strength, layer 0 at the bottom; grey cells cost too much or do no more than chance."""
    allowed = (found.damage <= found.harmless) & (found.effect > found.random_effect.max(2))
    top = float(np.abs(found.effect[allowed]).max()) if allowed.any() else 1.0
    texts = [["" if np.isnan(value) else f"{value:+.2f}" for value in row] for row in found.effect]
    hover = [
        [
            f"{point}, strength {strength:g}<br>effect {found.effect[i, j]:+.3f} {found.measured_in}"
            f"<br>random directions at most {found.random_effect[i, j].max():+.3f}"
            f"<br>damage {found.damage[i, j]:+.3f} nats a token<br>moved the wrong way {found.wrong[i, j]:.0%}"
            for j, strength in enumerate(found.strengths)
        ]
        for i, point in enumerate(found.hook_points)
    ]
    across, up = list(range(len(found.strengths))), list(range(len(found.hook_points)))
    figure = go.Figure(
        go.Heatmap(
            z=np.where(allowed, found.effect, np.nan), x=across, y=up, zmin=0, zmax=top, showscale=False,
            colorscale=colours.sequential, hoverinfo="skip", xgap=2, ygap=2,
        )
    )  # fmt: skip
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            strong = allowed[i, j] and found.effect[i, j] > 0.5 * top
            figure.add_annotation(
                x=j, y=i, text=f"<b>{text}</b>" if found.chosen == (i, j) else text, showarrow=False,
                font={"size": 12, "color": colours.on_scale[int(strong)] if allowed[i, j] else colours.muted},
                hovertext=hover[i][j], captureevents=True,
            )  # fmt: skip
    if found.chosen is not None:
        i, j = found.chosen
        line = {"color": colours.text, "width": 2}
        figure.add_shape(type="rect", x0=j - 0.5, x1=j + 0.5, y0=i - 0.5, y1=i + 0.5, line=line)
    styled(figure, colours, height=height)
    names = [f"{each:g}" for each in found.strengths]
    figure.update_xaxes(
        title_text="strength, in distances between the two sides", tickvals=across, ticktext=names, showgrid=False,
        range=[-0.5, len(across) - 0.5],
    )  # fmt: skip
    layers = [short_hook_point(each) for each in found.hook_points]
    return figure.update_yaxes(
        title_text="after block", tickvals=up, ticktext=layers, showgrid=False, range=[-0.5, len(up) - 0.5]
    )
