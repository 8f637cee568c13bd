"""Figures of a direction's steering: effect against damage, and every layer and strength."""

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.geometry import short_hook_point
from dashboard.figures.theme import Theme, legend_above, styled
from interp.directions.choice import SteeringChoice


def effect_and_damage(found: SteeringChoice, colours: Theme, *, height: int = 400) -> go.Figure:
    """Effect on the behaviour against damage to neutral text: a line for each layer, a point for each strength.

    The chosen cell has a ring; its judgement on the other half of the questions is the diamond with whiskers, beside
    the random directions of the same length.
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
    texts = [[f"{value:+.2f}" for value in row] for row in found.effect]
    hover = [
        [
            f"{point}, strength {strength:g}<br>effect {found.effect[i, j]:+.3f} {found.measured_in}"
            f"<br>random directions at most {found.random_effect[i, j].max():+.3f}"
            f"<br>damage {found.damage[i, j]:+.3f} nats a token<br>moved the wrong way {found.wrong[i, j]:.0%}"
            for j, strength in enumerate(found.strengths)
        ]
        for i, point in enumerate(found.hook_points)
    ]
    figure = go.Figure(
        go.Heatmap(
            z=np.where(allowed, found.effect, np.nan),
            x=[f"{each:g}" for each in found.strengths],
            y=[short_hook_point(each) for each in found.hook_points],
            zmin=0,
            zmax=top,
            colorscale=colours.sequential,
            hoverinfo="skip",
            showscale=False,
            xgap=2,
            ygap=2,
        )
    )
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            strong = allowed[i, j] and found.effect[i, j] > 0.5 * top
            colour = colours.on_scale[int(strong)] if allowed[i, j] else colours.muted
            border = found.chosen == (i, j)
            figure.add_annotation(
                x=f"{found.strengths[j]:g}", y=short_hook_point(found.hook_points[i]), text=text, showarrow=False,
                font={"size": 11, "color": colour}, hovertext=hover[i][j], captureevents=True,
                bordercolor=colours.text if border else "rgba(0,0,0,0)", borderwidth=2 if border else 0,
            )  # fmt: skip
    styled(figure, colours, height=height)
    figure.update_xaxes(type="category", title_text="strength, in distances between the two sides", showgrid=False)
    return figure.update_yaxes(type="category", title_text="after block", showgrid=False)
