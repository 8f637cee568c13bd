"""Figures of attention heads and lenses: scores of all heads, an attention pattern, the logit lens."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import MONO, Theme, escape, heat_map, styled, visible
from interp.circuits.head_scores import HeadScore
from interp.circuits.heads_in_text import HeadsInText
from interp.nulls import null_verdict


def head_scores(rows: Sequence[HeadScore], colours: Theme, *, height: int = 560) -> go.Figure:
    """Heat map of one score, 0 (no attention on that target) to 1 (all of it); a dot marks a head that was found.

    `rows` are those of one kind. Hover gives the 95 % interval and the null.
    """
    layers = 1 + max(row.layer for row in rows)
    heads = 1 + max(row.head for row in rows)
    score = np.full((layers, heads), np.nan, np.float32)
    hover = np.full((layers, heads), "", object)
    for row in rows:
        score[row.layer, row.head] = row.score
        hover[row.layer, row.head] = _head_hover(row)
    figure = heat_map(score, colours, "score (fraction of attention)", gap=2, hovertext=hover)
    hits = [row for row in rows if row.above_null]
    marker = {"symbol": "circle", "size": 7, "color": colours.opposite, "line": {"width": 1, "color": colours.surface}}
    figure.add_scatter(
        x=[row.head for row in hits], y=[row.layer for row in hits], mode="markers", marker=marker, hoverinfo="skip"
    )
    styled(figure, colours, height=height)
    figure.update_xaxes(title_text="head", dtick=1, showgrid=False, range=[-0.5, heads - 0.5])
    figure.update_yaxes(title_text="layer", dtick=1 if layers <= 40 else 5, showgrid=False, range=[-0.5, layers - 0.5])
    return figure


def _head_hover(row: HeadScore) -> str:
    return (
        f"<b>{row.name}</b> {row.score:.3f} · {null_verdict(row.above_null)}<br>"
        f"95 % interval {row.low:.3f} to {row.high:.3f}<br>null {row.null:.3f}, at most {row.null_high:.3f}"
    )


def head_multiples(text_heads: HeadsInText, colours: Theme) -> go.Figure:
    """Small maps of layers (upwards) and heads, one for each kind on text; a dot marks a head that was found.

    The maps are tiles of one heat map, whose cells have the names of their heads as
    custom data; hover gives score and nulls. A kind that says what a head writes shows found heads alone.
    """
    (layers, heads), rows = text_heads.shape, text_heads.scores
    titles = {kind: kind.replace("_", " ") for kind in text_heads.settings.kinds}
    across = min(4, len(titles))
    down = -(-len(titles) // across)
    tall, wide = layers + max(2, layers // 4), heads + 1
    corner = {kind: ((down - 1 - at // across) * tall, at % across * wide) for at, kind in enumerate(titles)}
    score = np.full((down * tall, across * wide), np.nan, np.float32)
    hover, names = np.full(score.shape, "", object), np.full(score.shape, "", object)
    for row in rows:
        y, x = corner[row.kind][0] + row.layer, corner[row.kind][1] + row.head
        score[y, x] = row.score if row.found or not np.isfinite(row.writes) else 0
        names[y, x] = str(row.name)
        hover[y, x] = (
            f"<b>{row.name}</b> {escape(titles[row.kind], 40)} {row.score:.3f} · {null_verdict(row.found)}<br>"
            f"shuffled keys {row.shuffled:.3f}"
        )
    figure = heat_map(
        score, colours, "score (fraction of attention)", customdata=names, hovertext=hover, hoverongaps=False
    )
    hits = [(corner[row.kind][1] + row.head, corner[row.kind][0] + row.layer) for row in rows if row.found]
    figure.add_scatter(
        x=[x for x, _ in hits], y=[y for _, y in hits], mode="markers", hoverinfo="skip",
        marker={"size": 4, "color": colours.opposite},
    )  # fmt: skip
    titled = [
        {"x": x + (heads - 1) / 2, "y": y + layers - 0.5, "text": escape(titles[kind], 40), "showarrow": False,
         "yanchor": "bottom", "font": {"size": 12, "color": colours.text}}
        for kind, (y, x) in corner.items()
    ]  # fmt: skip
    styled(figure, colours, height=max(110, 5 * tall) * down + 40)
    figure.update_layout(annotations=titled, margin={"l": 8, "t": 24, "b": 8})
    figure.update_xaxes(visible=False, range=[-0.5, across * wide - 1.5])
    figure.update_yaxes(visible=False, range=[-0.5, (down - 1) * tall + layers + 2])
    return figure


Predictions = list[list[list[tuple[str, float]]]]
"""layer -> position -> the strongest tokens with their probabilities"""

LENS_LABELLED = 64
"""beyond this many positions the cells carry colour and hover only"""
_CELL, _ROW = 74, 21
_DARK_FROM = 0.64
"""probability from which a cell is nearer to the upper end of the scale"""


def logit_lens(predictions: Predictions, layers: list[str], tokens: list[str], colours: Theme) -> go.Figure:
    """Top token of every layer (last at the top) and position, coloured by its probability, 0 to 1.

    Source: nostalgebraist, "interpreting GPT: the logit lens" (2020).
    """
    n = len(tokens)
    probability = np.array([[cell[0][1] for cell in row] for row in predictions], np.float32)
    labelled = n <= LENS_LABELLED
    hover = [
        [_lens_hover(cell, layers[i], tokens[j]) for j, cell in enumerate(row)] for i, row in enumerate(predictions)
    ]
    figure = heat_map(probability, colours, "probability of the top token", hovertext=hover)
    styled(figure, colours, height=_ROW * len(layers) + 90)
    if labelled:
        _write_tokens(figure, predictions, colours)
        figure.update_layout(width=max(640, _CELL * n + 150))
    figure.update_xaxes(
        tickvals=list(range(n)) if labelled else None,
        ticktext=[escape(token, 10) for token in tokens] if labelled else None,
        tickfont={"family": MONO, "size": 11, "color": colours.text},
        side="top",
        range=[-0.5, n - 0.5],
        showgrid=False,
        tickangle=0 if labelled else None,
    )
    figure.update_yaxes(
        tickvals=list(range(len(layers))), ticktext=layers, range=[-0.5, len(layers) - 0.5], showgrid=False
    )
    return figure


def _write_tokens(figure: go.Figure, predictions: Predictions, colours: Theme) -> None:
    """The tokens on their cells, in the colour that is readable there."""
    cells = [(x, y, *cell[0]) for y, row in enumerate(predictions) for x, cell in enumerate(row)]
    figure.add_scatter(
        x=[x for x, *_ in cells],
        y=[y for _, y, *_ in cells],
        text=[escape(token, 9) for *_, token, _ in cells],
        mode="text",
        textfont={"family": MONO, "size": 11, "color": [colours.on_scale[p > _DARK_FROM] for *_, p in cells]},
        hoverinfo="skip",
    )


def _lens_hover(cell: list[tuple[str, float]], layer: str, token: str) -> str:
    lines = "<br>".join(f"{p:6.1%}  {escape(t, 24)}" for t, p in cell)
    return f"after <b>{escape(token, 24)}</b>, {escape(layer)}<br>{lines}"


PATTERN_LABELLED = 48
"""beyond this many tokens the axes show positions only"""


def attention_pattern(weights: np.ndarray, tokens: list[str], colours: Theme, *, height: int = 460) -> go.Figure:
    """Heat map of `weights [dest, src]`, 0 to 1; each row sums to 1. The future is left blank.

    `tokens` are the texts at the axes, one per row.
    """
    n = len(tokens)
    shown = np.where(np.tril(np.ones((n, n), bool)), weights, np.nan).astype(np.float32)
    names = [escape(token, 16) for token in tokens]
    hover = [_pattern_hover(shown[dest], dest, names) for dest in range(n)]
    figure = heat_map(shown, colours, "attention", gap=1 if n <= PATTERN_LABELLED else 0, hovertext=hover)
    styled(figure, colours, height=height)
    ticks: dict[str, Any] = {"tickfont": {"family": MONO, "size": 11, "color": colours.text}, "showgrid": False}
    if n <= PATTERN_LABELLED:
        labels = [escape(visible(token, 12).strip() or "␣", 14) for token in tokens]
        ticks |= {"tickvals": list(range(n)), "ticktext": labels}
    figure.update_xaxes(title_text="source token", tickangle=-60, **ticks)
    figure.update_yaxes(title_text="destination token", range=[n - 0.5, -0.5], **ticks)
    return figure


def _pattern_hover(row: np.ndarray, dest: int, names: list[str]) -> list[str]:
    past = [f"<b>{names[dest]}</b> → <b>{names[src]}</b><br>{row[src]:.3f}" for src in range(dest + 1)]
    return past + [""] * (len(names) - dest - 1)
