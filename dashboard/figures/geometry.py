"""Figures of geometry: words on a plane and along a direction, order and probes over layers, spectra, interventions.

Every figure draws its null: isotropic points, shuffled labels, or random directions of the same length.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from dashboard.figures.theme import Theme, escape, faint, heat_map, legend_above, styled, whiskers
from interp.directions.choice import SteeringChoice
from interp.directions.monitor import MonitorRates
from interp.directions.study import DirectionProbe
from interp.geometry.dimension import Spectrum
from interp.geometry.probes import ProbeResult
from interp.geometry.separation import ListAlong, WordsAlong
from interp.geometry.shapes import Shape
from interp.geometry.similarity import LayerSimilarity
from interp.geometry.sweeps import RotationSweep, StrengthSweep
from interp.names import parse_hook_point
from interp.statistics import Interval

_CROWDED = 16
"""words beyond which labels get smaller"""


def short_hook_point(hook_point: str) -> str:
    """Shorten `hook_embed` to `embed` and `blocks.3.hook_resid_post` to `3`; other hook points are unchanged."""
    parsed = parse_hook_point(hook_point)
    if parsed.suffix == "hook_embed":
        return "embed"
    return str(parsed.layer) if parsed.suffix == "hook_resid_post" and parsed.layer is not None else hook_point


def joined_by(shape: Shape) -> str:
    """Return the lines between the words: `closed`, `open`, `unsure` (it may close), or `` without an order.

    A list without an order has no lines, since a line suggests an order.
    """
    if shape.verdict == "ordered":
        return "unsure" if shape.order.cyclic else "open"
    return {"circle": "closed", "line": "open"}.get(shape.verdict, "")


def plane_figure(shape: Shape, colours: Theme, *, height: int = 420) -> go.Figure:
    """Words of a list on their plane. Rings: the fitting half; dots: the judging half, tied to its ring.

    The dots are joined as `joined_by` says; of `unsure` the closing step is dotted.
    """
    fit, judge = shape.coordinates
    figure = go.Figure()
    pairs = np.stack([fit, judge, np.full_like(fit, np.nan)], axis=1).reshape(-1, 2)  # each tie ends in a gap
    figure.add_scatter(x=pairs[:, 0], y=pairs[:, 1], mode="lines", line={"color": colours.noise, "width": 1.2},
                       hoverinfo="skip", showlegend=False)  # fmt: skip
    marker = {"size": 9, "symbol": "circle-open", "color": colours.muted, "line": {"width": 1.4}}
    figure.add_scatter(x=fit[:, 0], y=fit[:, 1], mode="markers", marker=marker, hoverinfo="text",
                       hovertext=_plane_hover(shape.words, "fit the plane"), name="sentences that fit")  # fmt: skip
    if joined := joined_by(shape):
        _path(figure, judge, joined, colours)
    figure.add_scatter(
        x=judge[:, 0],
        y=judge[:, 1],
        mode="markers+text",
        marker={"size": 9, "color": colours.accent, "line": {"width": 1, "color": colours.surface}},
        text=[escape(word, 16) for word in shape.words],
        textposition=_outward(judge),
        textfont={"size": 10.5 if len(judge) > _CROWDED else 12, "color": colours.text},
        hovertext=_plane_hover(shape.words, "judge"),
        hoverinfo="text",
        name="sentences that judge",
        cliponaxis=False,
    )
    styled(figure, colours, height=height)
    legend_above(figure)
    across, up = _ranges(shape.coordinates.reshape(-1, 2))
    figure.update_xaxes(title_text="first component of the plane", showgrid=False, nticks=5, range=across)
    return figure.update_yaxes(
        title_text="second component", showgrid=False, nticks=5, range=up, scaleanchor="x", constrain="domain"
    )


def _path(figure: go.Figure, judge: Float[np.ndarray, "n 2"], joined: str, colours: Theme) -> None:
    way = np.concatenate([judge, judge[:1]]) if joined == "closed" else judge
    line = {"color": colours.accent, "width": 1.6}
    figure.add_scatter(x=way[:, 0], y=way[:, 1], mode="lines", line=line, opacity=0.75, hoverinfo="skip",
                       name="in the order of the list")  # fmt: skip
    if joined == "unsure":
        figure.add_scatter(x=judge[[-1, 0], 0], y=judge[[-1, 0], 1], mode="lines", line={**line, "dash": "dot"},
                           opacity=0.75, hoverinfo="skip", name="last to first")  # fmt: skip


def _outward(positions: Float[np.ndarray, "n 2"]) -> list[str]:
    """Return the side of each dot that faces away from the centre, where its label overlaps least."""
    width, height = np.ptp(positions, axis=0)
    if min(width, height) < 0.3 * max(width, height):
        return ["top center" if width > height else "middle right"] * len(positions)
    away = positions - positions.mean(0)
    across = np.abs(away[:, 0]) > np.abs(away[:, 1])
    return [
        ("middle right" if x > 0 else "middle left") if sideways else ("top center" if y > 0 else "bottom center")
        for (x, y), sideways in zip(away.tolist(), across.tolist(), strict=True)
    ]


def _ranges(positions: Float[np.ndarray, "n 2"]) -> tuple[list[float], list[float]]:
    """Ends of both axes, with room for labels; none is narrower than half of the other, as points on a line are."""
    middle, span = (positions.min(0) + positions.max(0)) / 2, np.ptp(positions, axis=0)
    half = np.maximum(span, max(span.max() / 2, 1e-9)) * (0.82, 0.64)
    (left, low), (right, high) = (middle - half).tolist(), (middle + half).tolist()
    return [left, right], [low, high]


def _plane_hover(words: Sequence[str], half: str) -> list[str]:
    return [
        f"<b>{escape(word, 60)}</b><br>number {at} of the list<br>by the sentences that {half}"
        for at, word in enumerate(words, 1)
    ]


_ROW = 62
"""pixels for each list"""
_LABELLED = 6
"""named words per row, at its ends"""
_LETTER = 0.011
"""Width of a letter, as a fraction of the width of the figure."""


def along_figure(along: WordsAlong, colours: Theme) -> go.Figure:
    """Words of every list along a direction, with whiskers over sentences; rings: words it was made of.

    Separated lists have the accent colour. Only words at the ends of a row are named.
    """
    figure = go.Figure()
    for at, row in enumerate(along.lists):
        colour = colours.accent if row.name in along.set_apart else colours.text
        for counted in (True, False):
            chosen = np.flatnonzero(np.array(row.counted) == counted)
            if len(chosen):
                figure.add_scatter(**_dots(row, chosen, at, counted, colour))
    span = float(np.ptp(np.concatenate([row.places.estimate for row in along.lists])))
    words = [word for at, row in enumerate(along.lists) for word in _written(row, at, span, colours)]
    figure.update_layout(annotations=words)  # in one piece: Plotly copies those that are there for each that is added
    _key(figure, along, colours)
    styled(figure, colours, height=110 + _ROW * len(along.lists))
    legend_above(figure)
    figure.add_vline(x=0, line={"color": colours.muted, "width": 1, "dash": "dot"})
    figure.update_xaxes(title_text="along the direction, from the mean of all words", showgrid=False)
    return figure.update_yaxes(
        tickvals=list(range(len(along.lists))), ticktext=[escape(row.name, 18) for row in along.lists],
        range=[len(along.lists) - 0.4, -0.7], showgrid=False, zeroline=False,
    )  # fmt: skip


def _dots(row: ListAlong, chosen: np.ndarray, at: int, counted: bool, colour: str) -> dict[str, Any]:
    places = Interval(*(part[chosen] for part in row.places))
    made = "" if counted else "<br>the direction was made of it, so it does not count"
    return {
        "x": places.estimate,
        "y": [at] * len(chosen),
        "mode": "markers",
        "marker": {"size": 8, "color": colour, "opacity": 0.8, "symbol": "circle" if counted else "circle-open"},
        "error_x": _whiskers(places, colour, thickness=0.8, width=0),
        "hovertext": [
            f"<b>{escape(row.words[i], 60)}</b>, {escape(row.name, 40)}<br>at {row.places.estimate[i]:+.3g}{made}"
            for i in map(int, chosen)
        ],
        "hoverinfo": "text",
        "showlegend": False,
    }


def _written(row: ListAlong, at: int, span: float, colours: Theme) -> Iterator[dict[str, Any]]:
    """Yield the words at both ends of a row, written above it, as far as they do not overlap."""
    ordered = np.argsort(row.places.estimate, kind="stable")
    half = _LABELLED // 2
    chosen = ordered if len(ordered) <= _LABELLED else np.concatenate([ordered[:half], ordered[-half:]])
    free = -np.inf
    for i in map(int, chosen):
        text, place = escape(row.words[i], 14), float(row.places.estimate[i])
        reach = (len(text) + 1) * _LETTER / 2 * span
        if place - reach < free:
            continue
        free = place + reach
        font = {"size": 11, "color": colours.text}
        yield {"x": place, "y": at, "yshift": 15, "text": text, "showarrow": False, "font": font}


def _key(figure: go.Figure, along: WordsAlong, colours: Theme) -> None:
    made = any(not all(row.counted) for row in along.lists)
    entries = [("set apart", colours.accent, "circle")] * bool(along.set_apart)
    entries += [("other lists", colours.text, "circle")]
    entries += [("the direction was made of it", colours.text, "circle-open")] * made
    for name, colour, symbol in entries:
        figure.add_scatter(x=[None], y=[None], mode="markers", name=name,
                           marker={"size": 8, "color": colour, "symbol": symbol})  # fmt: skip


def in_planes_figure(lists: Sequence[ListAlong], colours: Theme, *, height: int = 300) -> go.Figure:
    """Bars: the share of the direction within the plane, 0 to 1; diamonds: the 99th percentile of random directions.

    Bars longer than their diamond are coloured.
    """
    names = [escape(row.name, 18) for row in lists]
    figure = go.Figure()
    figure.add_bar(
        y=names, x=[row.plane_share for row in lists], orientation="h", name="within the plane", hoverinfo="text",
        marker={"color": [colours.accent if row.plane_share > row.random_plane_high else colours.noise
                          for row in lists]},
        hovertext=[f"{name}<br>{row.plane_share:.2%} of the direction in its plane"
                   for name, row in zip(names, lists, strict=True)],
    )  # fmt: skip
    figure.add_scatter(
        y=names, x=[row.random_plane_high for row in lists], mode="markers",
        name="random directions, 99th percentile", hoverinfo="text",
        marker={"size": 9, "symbol": "diamond-open", "color": colours.opposite, "line": {"width": 1.8}},
        hovertext=[f"{name}<br>random directions: {row.random_plane_high:.2%} or less in 99 of 100"
                   for name, row in zip(names, lists, strict=True)],
    )  # fmt: skip
    styled(figure, colours, height=height)
    legend_above(figure)
    most = max(max(row.plane_share, row.random_plane_high) for row in lists)
    figure.update_xaxes(title_text="fraction of the direction in the plane", tickformat=".0%" if most > 0.04 else ".1%",
                        range=[0, 1.12 * most], nticks=5)  # fmt: skip
    return figure.update_yaxes(autorange="reversed", showgrid=False)


def order_over_layers(shape: Shape, colours: Theme, *, height: int = 300) -> go.Figure:
    """Circular and linear RSA over layers on the sentences that judge: 1 is a perfect order, 0 none.

    The layer chosen on the other sentences is marked.
    """
    figure = go.Figure()
    for name, values, colour, dash, symbol in (
        ("circular", shape.circular, colours.accent, "solid", "circle"),
        ("linear", shape.linear, colours.opposite, "dash", "square"),
    ):
        figure.add_scatter(
            x=list(range(len(values))), y=values, mode="lines+markers", name=f"{name} RSA",
            line={"color": colour, "width": 1.8, "dash": dash}, marker={"size": 5, "symbol": symbol},
            hovertext=[_layer_hover(at, f"{name} RSA {value:.3f}")
                       for at, value in zip(shape.hook_points, values, strict=True)], hoverinfo="text",
        )  # fmt: skip
    styled(figure, colours, height=height)
    figure.add_hline(y=0, line={"color": colours.muted, "width": 1, "dash": "dot"})
    _layers(figure, shape.hook_points, shape.hook_point, colours)
    return figure.update_yaxes(title_text="RSA (rank correlation)", nticks=6)


def probe_over_layers(
    probes: Sequence[ProbeResult | DirectionProbe], chosen: str, colours: Theme, *, height: int = 300
) -> go.Figure:
    """Accuracy of a linear probe over layers, with its 95 % interval, against base rate and control labels.

    A probe of a direction is compared with that of random directions too. `chosen`: the hook point that is marked.
    """
    fits = [probe.probe if isinstance(probe, DirectionProbe) else probe for probe in probes]
    figure, x = go.Figure(), list(range(len(fits)))
    low, high = [fit.accuracy.low for fit in fits], [fit.accuracy.high for fit in fits]
    figure.add_scatter(x=x + x[::-1], y=high + low[::-1], fill="toself", fillcolor=faint(colours.accent), mode="none",
                       hoverinfo="skip", name="95 % interval")  # fmt: skip
    lines = [
        ("accuracy", [fit.accuracy.estimate for fit in fits], colours.accent, "solid", 2.0),
        ("control labels", [fit.control for fit in fits], colours.opposite, "dash", 1.6),
        ("base rate", [fit.base_rate for fit in fits], colours.muted, "dot", 1.6),
    ]
    if random := [probe.random for probe in probes if isinstance(probe, DirectionProbe)]:
        lines.insert(1, ("random directions", random, colours.text, "dashdot", 1.4))
    for name, values, colour, dash, width in lines:
        figure.add_scatter(
            x=x, y=values, mode="lines", name=name, line={"color": colour, "width": width, "dash": dash},
            hovertext=[_layer_hover(fit.hook_point, _probe(fit)) for fit in fits], hoverinfo="text",
        )  # fmt: skip
    styled(figure, colours, height=height)
    _layers(figure, [fit.hook_point for fit in fits], chosen, colours)
    return figure.update_yaxes(title_text="accuracy on held-out words", range=[-0.02, 1.04], tickformat=".0%", nticks=6)


def _layers(figure: go.Figure, hook_points: Sequence[str], chosen: str, colours: Theme) -> None:
    """The axis of layers, and a line at the chosen one."""
    legend_above(figure, top=44)
    every = max(1, -(-len(hook_points) // 11))
    shown = list(range(0, len(hook_points), every))
    names = [escape(short_hook_point(hook_points[at]), 14) for at in shown]
    figure.update_xaxes(title_text="after block", tickvals=shown, ticktext=names, showgrid=False)
    if chosen in hook_points:
        at = hook_points.index(chosen)
        figure.add_vline(x=at, line={"color": colours.text, "width": 1, "dash": "dot"})
        figure.add_annotation(
            x=at, y=1, yref="paper", yanchor="bottom", text="chosen", showarrow=False,
            font={"size": 11, "color": colours.muted},
        )  # fmt: skip
    figure.update_layout(legend_y=1.07)


def _layer_hover(hook_point: str, words: str) -> str:
    return f"<b>{escape(hook_point)}</b><br>{words}"


def _probe(fit: ProbeResult) -> str:
    return f"accuracy {fit.accuracy:.3f}<br>control labels {fit.control:.3f}<br>base rate {fit.base_rate:.3f}"


def spectrum_figure(spectrum: Spectrum, colours: Theme, *, height: int = 300) -> go.Figure:
    """Bars: the share of each component; line: the cumulative share, from 0 to 1.

    Diamonds: the components that equally many isotropic points in the same dimensions need for 50, 90 and 99 %. Where
    the line lies above them, fewer components suffice.
    """
    values = spectrum.eigenvalues.tolist()
    shares: list[float] = (spectrum.eigenvalues / spectrum.eigenvalues.sum()).tolist()
    sums = list(accumulate(shares))
    x = list(range(1, len(shares) + 1))
    figure = go.Figure()
    figure.add_bar(x=x, y=shares, name="one component", marker={"color": colours.noise}, hoverinfo="text",
                   hovertext=[f"component {n}<br>{share:.1%} of the variance<br>eigenvalue {value:.4g}"
                              for n, share, value in zip(x, shares, values, strict=True)])  # fmt: skip
    figure.add_scatter(x=x, y=sums, mode="lines+markers", name="cumulative", marker={"size": 5},
                       line={"color": colours.accent, "width": 2}, hoverinfo="text",
                       hovertext=[f"the first {n}: {share:.1%}" for n, share in zip(x, sums, strict=True)])  # fmt: skip
    null = sorted((int(percent), count) for percent, count in spectrum.isotropic.dims.items())
    figure.add_scatter(
        x=[count for _, count in null], y=[percent / 100 for percent, _ in null], mode="markers",
        name="isotropic points", marker={"size": 9, "symbol": "diamond-open", "color": colours.opposite,
                                         "line": {"width": 1.8}},
        hovertext=[f"isotropic points need {count} for {percent} %" for percent, count in null], hoverinfo="text",
    )  # fmt: skip
    styled(figure, colours, height=height)
    legend_above(figure)
    figure.update_xaxes(title_text="component", showgrid=False, dtick=max(1, len(x) // 10), range=[0.4, len(x) + 0.6])
    return figure.update_yaxes(title_text="fraction of the variance", range=[0, 1.04], tickformat=".0%", nticks=6)


def steering_figure(
    sweep: StrengthSweep, colours: Theme, *, unit: str = "distances between the means", height: int = 380
) -> go.Figure:
    """Effect on the targets (top) and cost on unrelated text (bottom) over strength, both in nats.

    Every random direction is a thin line. Whiskers are the intervals over prompts and over documents. `unit`: what a
    strength of 1 is.
    """
    strengths = list(sweep.strengths)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09, row_heights=[0.58, 0.42])
    rows = (
        ("effect", sweep.effect, sweep.random_effect, "log-odds of the targets (nats)", colours.accent, "circle"),
        ("side effect", sweep.side_effect, sweep.random_side_effect, "loss elsewhere (nats)", colours.opposite,
         "square"),
    )  # fmt: skip
    for number, (name, values, random, title, colour, symbol) in enumerate(rows, 1):
        for draw, along in enumerate(random):
            figure.add_scatter(
                x=strengths, y=along, mode="lines", line={"color": colours.muted, "width": 1.2, "dash": "dot"},
                name="random directions", legendgroup="random", showlegend=number == 1 and draw == 0,
                hovertemplate=f"random direction {draw + 1}<br>strength %{{x:g}}: %{{y:+.3f}} nats<extra></extra>",
                row=number, col=1,
            )  # fmt: skip
        figure.add_scatter(
            x=strengths, y=values.estimate, mode="lines+markers", line={"color": colour, "width": 2},
            marker={"size": 6, "symbol": symbol}, name=name, error_y=_whiskers(values, colour),
            hovertemplate=f"strength %{{x:g}}: {name} %{{y:+.3f}} nats<extra></extra>", row=number, col=1,
        )  # fmt: skip
        figure.update_yaxes(title_text=title, row=number, col=1)
    styled(figure, colours, height=height)
    legend_above(figure)
    for number in (1, 2):
        figure.add_hline(y=0, line={"color": colours.muted, "width": 1}, row=number, col=1)
    figure.update_xaxes(showgrid=False, tickvals=strengths, ticktext=[f"{value:g}" for value in strengths])
    figure.update_xaxes(title_text=f"strength, in {unit}", row=2, col=1)
    return figure.update_yaxes(nticks=5)


def rotation_figure(sweep: RotationSweep, colours: Theme, *, height: int = 380) -> go.Figure:
    """Effect of rotating a word by some items on the answer, with the interval over prompts, in nats.

    The band is the range of the nulls (random directions, and the other sense), diamonds are the whole activation
    replaced.
    """
    steps = list(sweep.steps)
    low, high = sweep.random.min(0).tolist(), sweep.random.max(0).tolist()
    figure = go.Figure()
    figure.add_scatter(x=steps + steps[::-1], y=high + low[::-1], fill="toself", mode="lines",
                       fillcolor=faint(colours.muted, 0.28), hoverinfo="skip",
                       line={"color": colours.muted, "width": 1, "dash": "dot"},
                       name="random directions, other sense")  # fmt: skip
    figure.add_scatter(
        x=steps, y=sweep.swapped, mode="markers", name="whole activation swapped", cliponaxis=False,
        marker={"size": 9, "symbol": "diamond-open", "color": colours.opposite, "line": {"width": 1.8}},
        hovertemplate="whole activation swapped: %{y:+.3f} nats<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=steps, y=sweep.moved.estimate, mode="lines+markers", name="rotated",
        line={"color": colours.accent, "width": 1.6}, marker={"size": 8}, hoverinfo="text",
        hovertext=[_turn(sweep, at) for at in range(len(steps))], error_y=_whiskers(sweep.moved, colours.accent),
    )  # fmt: skip
    styled(figure, colours, height=height)
    legend_above(figure)
    figure.add_hline(y=0, line={"color": colours.muted, "width": 1})
    figure.update_xaxes(title_text="rotation (items of the list)", tickvals=steps, showgrid=False)
    return figure.update_yaxes(title_text="change towards the rotated answer (nats)", nticks=6)


def _whiskers(values: Interval[np.ndarray], colour: str, *, thickness: float = 1.4, width: int = 4) -> dict[str, Any]:
    return whiskers(*values, color=colour, thickness=thickness, width=width)


def _turn(sweep: RotationSweep, at: int) -> str:
    moved, low, high = sweep.moved.at(at)
    words = f"turned by {sweep.steps[at]}: {moved:+.3f} nats"
    if np.isfinite([low, high]).all():
        words += f"<br>95 % interval {low:+.3f} nats to {high:+.3f} nats"
    return words + f"<br>{sweep.followed[at]:.0%} of answers followed, by chance {1 / sweep.n_items:.0%}"


def similarity_map(similarity: LayerSimilarity, colours: Theme) -> go.Figure:
    """Draw the CKA of all spaces with all, 0 to 1."""
    n = range(len(similarity.hook_points))
    hover = [[_similarity_hover(similarity, i, j) for j in n] for i in n]
    heat = heat_map(similarity.cka, colours, "CKA", gap=0, hovertext=hover)
    figure = styled(heat, colours, height=max(280, min(640, 18 * len(n) + 140)))
    short = [escape(name.replace(".hook_", " ").replace("blocks.", ""), 24) for name in similarity.hook_points]
    ticks: dict[str, Any] = {"tickvals": list(n), "ticktext": short, "showgrid": False}
    figure.update_xaxes(tickangle=-60, **ticks)
    return figure.update_yaxes(**ticks)


def _similarity_hover(similarity: LayerSimilarity, i: int, j: int) -> str:
    names = f"<b>{escape(similarity.hook_points[i])}</b><br>{escape(similarity.hook_points[j])}"
    score = f"CKA {similarity.cka[i, j]:.3f} ± {similarity.error[i, j]:.3f}"
    return f"{names}<br>{score}<br>shuffled {similarity.shuffled[i, j]:.3f}"


def effect_and_damage(choice: SteeringChoice, colours: Theme, *, height: int = 400) -> go.Figure:
    """Effect on the behaviour against damage to neutral text: a line for each layer, a point for each strength.

    A ring marks the chosen cell; the diamond with whiskers is its result on the other half of the questions, next to
    random directions of the same length.
    """
    figure = go.Figure()
    for i, point in enumerate(choice.hook_points):
        mine = choice.chosen is not None and choice.chosen[0] == i
        figure.add_scatter(
            x=choice.damage[i], y=choice.effect[i], mode="lines+markers", name=f"after block {short_hook_point(point)}",
            line={"width": 2.4 if mine else 1, "color": colours.accent if mine else colours.muted},
            marker={"size": 7 if mine else 5}, showlegend=mine,
            customdata=np.array(choice.strengths),
            hovertemplate=f"{point}<br>strength %{{customdata:g}}<br>effect %{{y:+.3f}} {choice.measured_in}"
            "<br>damage %{x:+.3f} nats a token<extra></extra>",
        )  # fmt: skip
    if choice.chosen is not None and choice.judged is not None:
        at, judged = choice.chosen, choice.judged
        figure.add_scatter(
            x=judged.random_damage, y=judged.random_effect[: len(judged.random_damage)], mode="markers",
            name="random directions, held out",
            marker={"size": 4, "symbol": "cross-thin", "line": {"width": 1, "color": colours.muted}},
            hovertemplate="a random direction<br>effect %{y:+.3f}<br>damage %{x:+.3f}<extra></extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=[choice.damage[at]], y=[choice.effect[at]], mode="markers", name="chosen",
            marker={"size": 15, "symbol": "circle-open", "color": colours.text, "line": {"width": 2}}, hoverinfo="skip",
        )  # fmt: skip
        effect, damage = judged.effect, judged.damage
        figure.add_scatter(
            x=[damage.estimate], y=[effect.estimate], mode="markers", name="the same, held out",
            marker={"size": 10, "symbol": "diamond", "color": colours.opposite},
            error_y={"array": [effect.high - effect.estimate], "arrayminus": [effect.estimate - effect.low]},
            hovertemplate="held out: effect %{y:+.3f}<br>damage %{x:+.3f}<extra></extra>",
        )  # fmt: skip
    figure.add_vline(x=choice.harmless, line={"color": colours.muted, "dash": "dot", "width": 1})
    styled(figure, colours, height=height)
    legend_above(figure)
    figure.update_xaxes(title_text="damage: loss on neutral text (nats a token)")
    return figure.update_yaxes(title_text=f"effect ({choice.measured_in})")


def layers_and_strengths(choice: SteeringChoice, colours: Theme, *, height: int = 300) -> go.Figure:
    """Effect of every layer and strength, layer 0 at the bottom; grey cells cost too much or do no more than chance."""
    allowed = (choice.damage <= choice.harmless) & (choice.effect > choice.random_effect.max(2))
    top = float(np.abs(choice.effect[allowed]).max()) if allowed.any() else 1.0
    texts = [["" if np.isnan(value) else f"{value:+.2f}" for value in row] for row in choice.effect]
    hover = [
        [
            f"{point}, strength {strength:g}<br>effect {choice.effect[i, j]:+.3f} {choice.measured_in}"
            f"<br>random directions at most {choice.random_effect[i, j].max():+.3f}"
            f"<br>damage {choice.damage[i, j]:+.3f} nats a token<br>moved the wrong way {choice.wrong[i, j]:.0%}"
            for j, strength in enumerate(choice.strengths)
        ]
        for i, point in enumerate(choice.hook_points)
    ]
    across, up = list(range(len(choice.strengths))), list(range(len(choice.hook_points)))
    shown = np.where(allowed, choice.effect, np.nan)
    figure = heat_map(shown, colours, "", top=top, gap=2, x=across, y=up, showscale=False, hoverinfo="skip")
    written: list[dict[str, Any]] = []
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            strong = allowed[i, j] and choice.effect[i, j] > 0.5 * top
            colour = colours.on_scale[int(strong)] if allowed[i, j] else colours.muted
            bold = f"<b>{text}</b>" if choice.chosen == (i, j) else text
            written.append({"x": j, "y": i, "text": bold, "showarrow": False, "font": {"size": 12, "color": colour},
                            "hovertext": hover[i][j], "captureevents": True})  # fmt: skip
    figure.update_layout(annotations=written)
    if choice.chosen is not None:
        i, j = choice.chosen
        line = {"color": colours.text, "width": 2}
        figure.add_shape(type="rect", x0=j - 0.5, x1=j + 0.5, y0=i - 0.5, y1=i + 0.5, line=line)
    styled(figure, colours, height=height)
    names = [f"{strength:g}" for strength in choice.strengths]
    figure.update_xaxes(
        title_text="strength, in distances between the two sides", tickvals=across, ticktext=names, showgrid=False,
        range=[-0.5, len(across) - 0.5],
    )  # fmt: skip
    layers = [short_hook_point(point) for point in choice.hook_points]
    return figure.update_yaxes(
        title_text="after block", tickvals=up, ticktext=layers, showgrid=False, range=[-0.5, len(up) - 0.5]
    )


def monitor_rates(rows: Sequence[MonitorRates], colours: Theme, *, height: int | None = None) -> go.Figure:
    """Draw the share that each probe catches and its false alarms, with intervals: splits by text are hollow."""
    names = [f"{row.name}, {row.split}" for row in rows]
    open_or_not = ["circle" if row.split == rows[0].split else "circle-open" for row in rows]
    figure = go.Figure()
    for name, title, colour in (("caught", "caught", colours.accent), ("alarms", "false alarms", colours.opposite)):
        value, low, high = ([getattr(row, f"{name}{end}") for row in rows] for end in ("", "_low", "_high"))
        figure.add_scatter(
            x=value, y=names, name=title, mode="markers",
            error_x=whiskers(value, low, high, color=colour, thickness=1.2, width=3),
            marker={"size": 9, "color": colour, "symbol": open_or_not},
        )  # fmt: skip
    figure.update_xaxes(title="share of texts that fire (95 % over groups)", range=[-0.03, 1.03], tickformat=".0%")
    figure.update_yaxes(autorange="reversed")
    return legend_above(styled(figure, colours, height=height or 120 + 30 * len(rows)))
