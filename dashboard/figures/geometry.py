"""Figures of geometry: words on a plane and along a direction, order and probes over layers, spectra, interventions.

Every figure draws its null: isotropic points, shuffled labels, or random directions of the same length.
"""

from itertools import accumulate
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.figures.theme import Theme, colour_bar, escape, faint, legend_above, message_figure, styled
from interp.names import parse_hook_point

_CROWDED = 16
"""words beyond which labels get smaller"""


def plane_figure(rows: list[dict[str, Any]], colours: Theme, *, joined: str = "", height: int = 420) -> go.Figure:
    """Rows of `points.parquet` of one list. Rings: the fitting half; dots: the judging half, tied to its ring.

    `joined`: the dots in their order, `closed`, `open`, or `unsure` (the closing step dotted); nothing for a list
    without an order, as a line makes one see an order.
    """
    fit, judge = (_half(rows, half) for half in ("fit", "judge"))
    if not judge:
        return message_figure("no word of this list has coordinates on a plane", colours, height=height)
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
    """Return the rows in the order of the list, without those whose coordinates are not finite."""
    mine = [row for row in rows if row["half"] == half and np.isfinite([row["x"], row["y"]]).all()]
    return sorted(mine, key=lambda row: row["place"])


def _ties(figure: go.Figure, fit: list[dict[str, Any]], judge: list[dict[str, Any]], colours: Theme) -> None:
    """Draw a short line from each word's ring to its dot: the difference of the two halves."""
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
    """Return the side of each dot that faces away from the centre, where its label overlaps least."""
    positions = np.array([[row["x"], row["y"]] for row in rows])
    width, height = np.ptp(positions, axis=0)
    if min(width, height) < 0.3 * max(width, height):
        return ["top center" if width > height else "middle right"] * len(rows)
    away = positions - positions.mean(0)
    across = np.abs(away[:, 0]) > np.abs(away[:, 1])
    return [
        ("middle right" if x > 0 else "middle left") if sideways else ("top center" if y > 0 else "bottom center")
        for (x, y), sideways in zip(away.tolist(), across.tolist(), strict=True)
    ]


def _ranges(rows: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Ends of both axes, with room for labels; none is narrower than half of the other, as points on a line are."""
    positions = np.array([[row["x"], row["y"]] for row in rows if np.isfinite([row["x"], row["y"]]).all()])
    middle, span = (positions.min(0) + positions.max(0)) / 2, np.ptp(positions, axis=0)
    half = np.maximum(span, max(span.max() / 2, 1e-9)) * (0.82, 0.64)
    (left, low), (right, high) = (middle - half).tolist(), (middle + half).tolist()
    return [left, right], [low, high]


def _plane_hover(row: dict[str, Any], half: str) -> str:
    word = escape(str(row["word"]), 60)
    return f"<b>{word}</b><br>number {row['place'] + 1} of the list<br>by the sentences that {half}"


_ROW = 62
"""pixels for each list"""
_LABELLED = 6
"""words of a row that are written, those at its ends"""
_LETTER = 0.011
"""Width of a letter, as a fraction of the width of the figure."""


def along_figure(rows: list[dict[str, Any]], colours: Theme, *, apart: list[str]) -> go.Figure:
    """Rows of `along.parquet`. Dots: words, with whiskers over sentences; rings: words that the direction was made of.

    `apart`: lists that are set apart, in the accent colour. Words at the ends of a row are written.
    """
    rows = [row for row in rows if np.isfinite(row["place"])]
    if not rows:
        return message_figure("no word has a coordinate along this direction", colours, height=300)
    names = list(dict.fromkeys(row["list"] for row in rows))
    figure = go.Figure()
    for name in names:
        for counted in (True, False):
            chosen = [row for row in rows if row["list"] == name and bool(row["counted"]) == counted]
            if chosen:
                figure.add_scatter(**_dots(chosen, names.index(name), name in apart, counted, colours))
    span = float(np.ptp([row["place"] for row in rows]))
    for at, name in enumerate(names):
        _written(figure, [row for row in rows if row["list"] == name], at, span, colours)
    _key(figure, rows, apart, colours)
    styled(figure, colours, height=110 + _ROW * len(names))
    legend_above(figure)
    figure.add_vline(x=0, line={"color": colours.muted, "width": 1, "dash": "dot"})
    figure.update_xaxes(title_text="along the direction, from the mean of all words", showgrid=False)
    return figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=[escape(name, 18) for name in names], range=[len(names) - 0.4, -0.7],
        showgrid=False, zeroline=False,
    )  # fmt: skip


def _dots(rows: list[dict[str, Any]], at: int, apart: bool, counted: bool, colours: Theme) -> dict[str, Any]:
    colour = colours.accent if apart else colours.text
    positions = [row["place"] for row in rows]
    return {
        "x": positions,
        "y": [at] * len(rows),
        "mode": "markers",
        "marker": {"size": 8, "color": colour, "opacity": 0.8, "symbol": "circle" if counted else "circle-open"},
        "error_x": {
            "type": "data", "symmetric": False, "color": colour, "thickness": 0.8, "width": 0,
            "array": [_reach(row["high"], row["place"]) for row in rows],
            "arrayminus": [_reach(row["place"], row["low"]) for row in rows],
        },
        "hovertext": [_word_hover(row) for row in rows],
        "hoverinfo": "text",
        "showlegend": False,
    }  # fmt: skip


def _written(figure: go.Figure, rows: list[dict[str, Any]], at: int, span: float, colours: Theme) -> None:
    """Write the words at both ends of a row above it, as far as they do not overlap."""
    ordered = sorted(rows, key=lambda row: row["place"])
    half = _LABELLED // 2
    chosen = ordered if len(ordered) <= _LABELLED else ordered[:half] + ordered[-half:]
    free = -np.inf
    for row in chosen:
        text = escape(str(row["word"]), 14)
        reach = (len(text) + 1) * _LETTER / 2 * span
        if row["place"] - reach < free:
            continue
        free = row["place"] + reach
        figure.add_annotation(
            x=row["place"], y=at, yshift=15, text=text, showarrow=False, font={"size": 11, "color": colours.text}
        )


def _key(figure: go.Figure, rows: list[dict[str, Any]], apart: list[str], colours: Theme) -> None:
    entries = [("set apart", colours.accent, "circle")] * bool(apart) + [("other lists", colours.text, "circle")]
    entries += [("the direction was made of it", colours.text, "circle-open")] * any(not row["counted"] for row in rows)
    for name, colour, symbol in entries:
        figure.add_scatter(x=[None], y=[None], mode="markers", name=name,
                           marker={"size": 8, "color": colour, "symbol": symbol})  # fmt: skip


def _reach(upper: float | None, lower: float | None) -> float:
    return max(0.0, upper - lower) if upper is not None and lower is not None and np.isfinite(upper - lower) else 0.0


def _word_hover(row: dict[str, Any]) -> str:
    made = "" if row["counted"] else "<br>the direction was made of it: it does not count"
    return f"<b>{escape(str(row['word']), 60)}</b>, {escape(str(row['list']), 40)}<br>at {row['place']:+.3g}{made}"


def in_planes_figure(lists: list[dict[str, Any]], colours: Theme, *, height: int = 300) -> go.Figure:
    """Bars: the share of the direction within the plane, 0 to 1; diamonds: what one random direction in a hundred has.

    `lists` as `interp.geometry.separation.ListAlong` keeps them.
    """
    rows = [row for row in lists if isinstance(row.get("plane_share"), int | float)]
    if not rows:
        return message_figure("no list has a plane", colours, height=height)
    names = [escape(str(row["name"]), 18) for row in rows]
    shares = [row["plane_share"] for row in rows]
    highs = [row.get("random_plane_high") for row in rows]
    figure = go.Figure()
    figure.add_bar(
        y=names, x=shares, orientation="h", name="within the plane", hoverinfo="text",
        marker={"color": [colours.accent if _above(row) else colours.noise for row in rows]},
        hovertext=[f"{name}<br>{share:.2%} of the direction in its plane"
                   for name, share in zip(names, shares, strict=True)],
    )  # fmt: skip
    figure.add_scatter(
        y=names, x=highs, mode="markers", name="random directions, 99th percentile", hoverinfo="text",
        marker={"size": 9, "symbol": "diamond-open", "color": colours.opposite, "line": {"width": 1.8}},
        hovertext=[f"{name}<br>random directions: {high:.2%} or less in 99 of 100" if high is not None else name
                   for name, high in zip(names, highs, strict=True)],
    )  # fmt: skip
    styled(figure, colours, height=height)
    legend_above(figure)
    most = max([*shares, *(high for high in highs if high is not None)])
    figure.update_xaxes(title_text="fraction of the direction in the plane", tickformat=".0%" if most > 0.04 else ".1%",
                        range=[0, 1.12 * most], nticks=5)  # fmt: skip
    return figure.update_yaxes(autorange="reversed", showgrid=False)


def _above(row: dict[str, Any]) -> bool:
    high = row.get("random_plane_high")
    return high is not None and row["plane_share"] > high


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
    return figure.update_yaxes(title_text="RSA (rank correlation)", nticks=6)


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
    return figure.update_yaxes(title_text="accuracy on held-out words", range=[-0.02, 1.04], tickformat=".0%", nticks=6)


def _layers(figure: go.Figure, rows: list[dict[str, Any]], colours: Theme) -> None:
    """The axis of layers, and a line at the chosen one."""
    legend_above(figure, top=44)
    every = max(1, -(-len(rows) // 11))
    shown = list(range(0, len(rows), every))
    names = [escape(short_hook_point(rows[at]["hook_point"]), 14) for at in shown]
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


def spectrum_figure(found: dict[str, Any], colours: Theme, *, height: int = 300) -> go.Figure:
    """Bars: the share of each component; line: of it and those before it, from 0 to 1.

    `found` as `interp.geometry.dimension.Spectrum` keeps it. Of isotropic points, as many in as many dimensions, the
    number of components for 50, 90 and 99 % is known: the diamonds. Where the line lies above them, fewer do.
    """
    values = [value for value in found.get("eigenvalues") or [] if isinstance(value, int | float)]
    total = sum(values)
    if not total > 0:
        return message_figure("the artefact holds no spectrum", colours, height=height)
    shares = [value / total for value in values]
    sums = list(accumulate(shares))
    x = list(range(1, len(shares) + 1))
    figure = go.Figure()
    figure.add_bar(x=x, y=shares, name="one component", marker={"color": colours.noise}, hoverinfo="text",
                   hovertext=[f"component {n}<br>{share:.1%} of the variance<br>eigenvalue {value:.4g}"
                              for n, share, value in zip(x, shares, values, strict=True)])  # fmt: skip
    figure.add_scatter(x=x, y=sums, mode="lines+markers", name="cumulative", marker={"size": 5},
                       line={"color": colours.accent, "width": 2}, hoverinfo="text",
                       hovertext=[f"the first {n}: {share:.1%}" for n, share in zip(x, sums, strict=True)])  # fmt: skip
    null = sorted(
        (int(percent), count) for percent, count in ((found.get("isotropic") or {}).get("dims") or {}).items()
    )
    if null:
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
    found: dict[str, Any], colours: Theme, *, unit: str = "distances between the means", height: int = 380
) -> go.Figure:
    """Above the effect on the targets, below what it costs on unrelated text, over strength; both in nats.

    `found` as `interp.geometry.steering.StrengthSweep` keeps it; every random direction is a thin line. Whiskers
    are the intervals over prompts and over documents. `unit`: what a strength of 1 is.
    """
    strengths = found.get("strengths") or []
    if not strengths:
        return message_figure("no strength was measured", colours, height=height)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09, row_heights=[0.58, 0.42])
    rows = (
        ("effect", ("low", "high"), "log-odds of the targets (nats)", colours.accent, "circle"),
        ("side_effect", ("side_low", "side_high"), "loss elsewhere (nats)", colours.opposite, "square"),
    )
    for number, (name, ends, title, colour, symbol) in enumerate(rows, 1):
        for draw, values in enumerate(found.get(f"random_{name}") or []):
            figure.add_scatter(
                x=strengths, y=values, mode="lines", line={"color": colours.muted, "width": 1.2, "dash": "dot"},
                name="random directions", legendgroup="random", showlegend=number == 1 and draw == 0,
                hovertemplate=f"random direction {draw + 1}<br>strength %{{x:g}}: %{{y:+.3f}} nats<extra></extra>",
                row=number, col=1,
            )  # fmt: skip
        values = found.get(name) or []
        figure.add_scatter(
            x=strengths, y=values, mode="lines+markers", line={"color": colour, "width": 2},
            marker={"size": 6, "symbol": symbol}, name=name.replace("_", " "),
            error_y=_whiskers(values, found.get(ends[0]), found.get(ends[1]), colour),
            hovertemplate=f"strength %{{x:g}}: {name.replace('_', ' ')} %{{y:+.3f}} nats<extra></extra>",
            row=number, col=1,
        )  # fmt: skip
        figure.update_yaxes(title_text=title, row=number, col=1)
    styled(figure, colours, height=height)
    legend_above(figure)
    for number in (1, 2):
        figure.add_hline(y=0, line={"color": colours.muted, "width": 1}, row=number, col=1)  # pyright: ignore[reportArgumentType]
    figure.update_xaxes(showgrid=False, tickvals=strengths, ticktext=[f"{value:g}" for value in strengths])
    figure.update_xaxes(title_text=f"strength, in {unit}", row=2, col=1)
    return figure.update_yaxes(nticks=5)


def rotation_figure(found: dict[str, Any], colours: Theme, *, height: int = 380) -> go.Figure:
    """Effect of rotating a word by some items on the answer, with the interval over prompts, in nats.

    `found` as `interp.geometry.rotation.RotationSweep` keeps it: the band is the range of random directions, diamonds
    are the whole activation replaced.
    """
    steps = found.get("steps") or []
    if not steps:
        return message_figure("no rotation was measured", colours, height=height)
    figure = go.Figure()
    draws = [draw for draw in found.get("random") or [] if len(draw) == len(steps)]
    low, high = [_least(draws, at) for at in range(len(steps))], [_most(draws, at) for at in range(len(steps))]
    if draws:
        figure.add_scatter(x=steps + steps[::-1], y=high + low[::-1], fill="toself", mode="lines",
                           fillcolor=faint(colours.muted, 0.28), hoverinfo="skip",
                           line={"color": colours.muted, "width": 1, "dash": "dot"},
                           name=f"random directions ({len(draws)})")  # fmt: skip
    figure.add_scatter(
        x=steps, y=found.get("swapped") or [], mode="markers", name="whole activation swapped", cliponaxis=False,
        marker={"size": 9, "symbol": "diamond-open", "color": colours.opposite, "line": {"width": 1.8}},
        hovertemplate="whole activation swapped: %{y:+.3f} nats<extra></extra>",
    )  # fmt: skip
    moved = found.get("moved") or []
    figure.add_scatter(
        x=steps, y=moved, mode="lines+markers", name="rotated", line={"color": colours.accent, "width": 1.6},
        marker={"size": 8}, hovertext=[_turn(found, at) for at in range(len(moved))], hoverinfo="text",
        error_y=_whiskers(moved, found.get("low"), found.get("high"), colours.accent),
    )  # fmt: skip
    styled(figure, colours, height=height)
    legend_above(figure)
    figure.add_hline(y=0, line={"color": colours.muted, "width": 1})
    figure.update_xaxes(title_text="rotation (items of the list)", tickvals=steps, showgrid=False)
    return figure.update_yaxes(title_text="change towards the rotated answer (nats)", nticks=6)


def _least(draws: list[list[float]], at: int) -> float | None:
    return min((draw[at] for draw in draws if draw[at] is not None), default=None)


def _most(draws: list[list[float]], at: int) -> float | None:
    return max((draw[at] for draw in draws if draw[at] is not None), default=None)


def _whiskers(values: list, low: list | None, high: list | None, colour: str) -> dict[str, Any]:
    return {"type": "data", "symmetric": False, "color": colour, "thickness": 1.4, "width": 4,
            "array": _reaches(high, values), "arrayminus": _reaches(values, low)}  # fmt: skip


def _reaches(upper: list[float | None] | None, lower: list[float | None] | None) -> list[float]:
    """Lengths of whiskers; 0 where an end is not known."""
    pairs = zip(upper or [], lower or [], strict=False)
    return [max(0.0, a - b) if a is not None and b is not None else 0.0 for a, b in pairs]


def _turn(found: dict[str, Any], at: int) -> str:
    def value(name: str) -> Any:
        values = found.get(name) or []
        return values[at] if at < len(values) else None

    words = f"turned by {value('steps')}: {_nats(value('moved'))}"
    if value("low") is not None and value("high") is not None:
        words += f"<br>95 % interval {_nats(value('low'))} to {_nats(value('high'))}"
    if value("followed") is not None and found.get("n_items"):
        words += f"<br>{value('followed'):.0%} of answers went along, by chance {1 / found['n_items']:.0%}"
    return words


def _nats(value: float | None) -> str:
    return "not known" if value is None else f"{value:+.3f} nats"


def similarity_map(rows: list[dict[str, Any]], colours: Theme) -> go.Figure:
    """Draw the CKA of all spaces with all, from the rows `first, second, cka, error, shuffled`; 0 to 1."""
    names = list(dict.fromkeys(row["first"] for row in rows))
    cells = {(row["first"], row["second"]): row for row in rows}
    hover = [[_similarity_hover(cells[one, other]) for other in names] for one in names]
    values = [[cells[one, other]["cka"] for other in names] for one in names]
    scale = {"zmin": 0, "zmax": 1, "colorscale": colours.sequential, "colorbar": colour_bar(colours, "CKA")}
    heat = go.Heatmap(z=values, hovertext=hover, hoverinfo="text", **scale)
    figure = styled(go.Figure(heat), colours, height=max(280, min(640, 18 * len(names) + 140)))
    short = [escape(name.replace(".hook_", " ").replace("blocks.", ""), 24) for name in names]
    ticks: dict[str, Any] = {"tickvals": list(range(len(names))), "ticktext": short, "showgrid": False}
    figure.update_xaxes(side="top", tickangle=-60, **ticks)
    return figure.update_yaxes(autorange="reversed", **ticks)


def _similarity_hover(row: dict[str, Any]) -> str:
    names = f"<b>{escape(row['first'])}</b><br>{escape(row['second'])}"
    return f"{names}<br>CKA {row['cka']:.3f} ± {row['error']:.3f}<br>shuffled {row['shuffled']:.3f}"


def short_hook_point(hook_point: str) -> str:
    """Shorten `hook_embed` to `embed` and `blocks.3.hook_resid_post` to `3`; other hook points are unchanged."""
    parsed = parse_hook_point(hook_point)
    if parsed.suffix == "hook_embed":
        return "embed"
    return str(parsed.layer) if parsed.suffix == "hook_resid_post" and parsed.layer is not None else hook_point
