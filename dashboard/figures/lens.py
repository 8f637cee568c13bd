"""The logit lens: what the model would say next if it stopped after each layer."""

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import MONO, Theme, colour_bar, escape, styled

Predictions = list[list[list[tuple[str, float]]]]
"""layer -> position -> the strongest tokens with their probabilities"""

LENS_LABELLED = 64
"""beyond this many positions the cells carry colour and hover only"""
_CELL, _ROW = 74, 21
_DARK_FROM = 0.64
"""probability from which a cell is nearer the far end of the scale"""


def logit_lens(predictions: Predictions, layers: list[str], tokens: list[str], colours: Theme) -> go.Figure:
    """Top token of every layer (last at the top) and position, coloured by its probability, 0 to 1.

    Source: nostalgebraist, "interpreting GPT: the logit lens" (2020).
    """
    n = len(tokens)
    probability = np.array([[cell[0][1] for cell in row] for row in predictions], np.float32)
    labelled = n <= LABELLED
    figure = go.Figure(
        go.Heatmap(
            z=probability,
            zmin=0,
            zmax=1,
            colorscale=colours.sequential,
            hovertext=[
                [_lens_hover(cell, layers[i], tokens[j]) for j, cell in enumerate(row)] for i, row in enumerate(predictions)
            ],
            hoverinfo="text",
            xgap=1,
            ygap=1,
            colorbar=colour_bar(colours, "probability of its top token"),
        )
    )
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
    """The tokens on their cells, in whichever colour reads there."""
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
