"""What an intervention does as it gets stronger, against random directions of the same length."""

from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.figures.theme import Theme, faint, legend_above, message_figure, styled


def steering_figure(
    found: dict[str, Any], colours: Theme, *, unit: str = "distances between the means", height: int = 380
) -> go.Figure:
    """Above the effect on the targets, below what it costs on unrelated text, over strength; both in nats.

    `found` as `interp.geometry.steering.StrengthSweep` keeps it; every random direction is a thin line. Whiskers
    are the intervals over prompts and over documents. `unit`: what a strength of 1 is.
    """
    strengths = found.get("strengths") or []
    if not strengths:
        return message_figure("no strength was tried", colours, height=height)
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
    """How far the answer goes along when a word is turned by some items, with the interval over prompts, in nats.

    `found` as `interp.geometry.rotation.RotationSweep` keeps it: the band is the range of random directions, diamonds
    are the whole activation replaced.
    """
    steps = found.get("steps") or []
    if not steps:
        return message_figure("no turn was tried", colours, height=height)
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
        x=steps, y=moved, mode="lines+markers", name="turned", line={"color": colours.accent, "width": 1.6},
        marker={"size": 8}, hovertext=[_turn(found, at) for at in range(len(moved))], hoverinfo="text",
        error_y=_whiskers(moved, found.get("low"), found.get("high"), colours.accent),
    )  # fmt: skip
    styled(figure, colours, height=height)
    legend_above(figure)
    figure.add_hline(y=0, line={"color": colours.muted, "width": 1})
    figure.update_xaxes(title_text="turned by so many items", tickvals=steps, showgrid=False)
    return figure.update_yaxes(title_text="towards the turned word's answer (nats)", nticks=6)


def _least(draws: list[list[float]], at: int) -> float | None:
    return min((draw[at] for draw in draws if draw[at] is not None), default=None)


def _most(draws: list[list[float]], at: int) -> float | None:
    return max((draw[at] for draw in draws if draw[at] is not None), default=None)


def _whiskers(values: list, low: list | None, high: list | None, colour: str) -> dict[str, Any]:
    return {"type": "data", "symmetric": False, "color": colour, "thickness": 1.4, "width": 4,
            "array": _reach(high, values), "arrayminus": _reach(values, low)}  # fmt: skip


def _reach(upper: list[float | None] | None, lower: list[float | None] | None) -> list[float]:
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
