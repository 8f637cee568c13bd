"""Words along one direction: a row for each list, so that a list that is set apart stands to one side."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import Theme, escape, legend_above, message_figure, styled

_ROW = 62
"""pixels for each list"""
_LABELLED = 6
"""words of a row that are written, those at its ends"""
_LETTER = 0.011
"""width of a letter, as a share of the width of all places"""


def along_figure(rows: list[dict[str, Any]], colours: Theme, *, apart: list[str]) -> go.Figure:
    """Rows of `along.parquet`. Dots: words, with whiskers over sentences; rings: words that the direction was made of.

    `apart`: lists that are set apart, in the accent colour. Words at the ends of a row are written.
    """
    rows = [row for row in rows if np.isfinite(row["place"])]
    if not rows:
        return message_figure("no word has a place along this direction", colours, height=300)
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
    places = [row["place"] for row in rows]
    return {
        "x": places,
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
    """The words at both ends of a row, above it, as far as they do not run into each other."""
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
