"""Attribution: direct effects of parts of a model on a logit, pairs of parts in an attention score, patching maps."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import MONO, Theme, escape, heat_map, message_figure, styled
from interp.patching.patching_map import JudgedPatch, Patch

Part = tuple[str, float]

SHOWN = 12
"""parts with a bar of their own; the others are summed"""


def share_map(heads: list[list[float]], mlps: list[float], colours: Theme) -> go.Figure:
    """Layers up, heads across, the MLP last; units of logits, centred on zero.

    `heads [n_layers][n_heads]`, `mlps [n_layers]` (empty in a model without MLPs).
    """
    values = np.array(heads, np.float32)
    names = [str(h) for h in range(values.shape[1])]
    if mlps:
        values = np.concatenate([values, np.full((len(values), 1), np.nan, np.float32)], 1)
        values = np.concatenate([values, np.array(mlps, np.float32)[:, None]], 1)
        names += ["", "MLP"]
    top = float(np.nanmax(np.abs(values))) or 1.0
    labels = [[_cell(layer, name) for name in names] for layer in range(len(values))]
    figure = heat_map(
        values, colours, "logits", top=top, signed=True, customdata=labels, hoverongaps=False,
        hovertemplate="<b>%{customdata}</b> %{z:+.3f}<extra></extra>",
    )  # fmt: skip
    styled(figure, colours, height=max(240, 15 * len(values) + 90))
    figure.update_xaxes(tickvals=list(range(len(names))), ticktext=names, side="top", showgrid=False, title_text="head")
    figure.update_yaxes(title_text="layer", dtick=1 if len(values) <= 12 else 5, showgrid=False)
    figure.update_yaxes(range=[-0.5, len(values) - 0.5])  # the input below, as in the logit lens
    return figure


def _cell(layer: int, name: str) -> str:
    return f"L{layer}MLP" if name == "MLP" else f"L{layer}H{name}"


def strongest(parts: list[Part], n: int = SHOWN) -> list[Part]:
    """The `n` largest by size, largest first, then the sum of the rest."""
    ranked = sorted(parts, key=lambda part: -abs(part[1]))
    rest = ranked[n:]
    return ranked[:n] + ([(f"the other {len(rest)}", sum(value for _, value in rest))] if rest else [])


def share_bars(parts: list[Part], colours: Theme, *, unit: str, n: int = SHOWN) -> go.Figure:
    """Signed bars of the largest parts, largest first; the sum of all others, often larger, under the axis.

    `unit` is that of the values; `n` bars are drawn.
    """
    if not parts:
        return message_figure("no parts to attribute to", colours)
    shown = strongest(parts, n)
    if len(parts) > n:
        others, together = shown.pop()
        unit = f"{unit}; {others} together: {together:+.2f}"
    names = [escape(name, 40) for name, _ in shown]
    values = [value for _, value in shown]
    figure = go.Figure(
        go.Bar(
            y=names,
            x=values,
            orientation="h",
            marker={"color": [colours.accent if value >= 0 else colours.opposite for value in values]},
            text=[f"{value:+.2f}" for value in values],
            textposition="outside",
            textfont={"size": 11, "color": colours.muted},
            cliponaxis=False,
            hovertext=[f"<b>{name}</b> {value:+.4f}" for name, value in zip(names, values, strict=True)],
            hoverinfo="text",
        )
    )
    styled(figure, colours, height=24 * len(shown) + 60)
    low, high = min(0.0, *values), max(0.0, *values)
    room = 0.16 * ((high - low) or 1.0)  # for the numbers at the ends
    figure.update_xaxes(title_text=unit, nticks=6, range=[low - room if low < 0 else low, high + room])
    figure.update_yaxes(autorange="reversed", showgrid=False, tickfont={"family": MONO, "size": 11})
    figure.add_vline(x=0, line={"color": colours.muted, "width": 1})
    return figure


def pair_map(
    matrix: np.ndarray, query_parts: list[str], key_parts: list[str], colours: Theme, *, n: int = SHOWN
) -> go.Figure:
    """Parts of the query up, of the key across: the `n` largest of each; centred on zero."""
    rows, columns = _largest(np.abs(matrix).sum(1), n), _largest(np.abs(matrix).sum(0), n)
    shown = matrix[np.ix_(rows, columns)]
    top = float(np.abs(shown).max()) or 1.0
    figure = heat_map(
        shown.astype(np.float32), colours, "score", top=top, signed=True,
        x=[escape(key_parts[i], 20) for i in columns], y=[escape(query_parts[i], 20) for i in rows],
        hovertemplate="query <b>%{y}</b><br>key <b>%{x}</b><br>%{z:+.3f}<extra></extra>",
    )  # fmt: skip
    styled(figure, colours, height=22 * len(rows) + 120)
    ticks: dict[str, Any] = {"showgrid": False, "tickfont": {"family": MONO, "size": 11}, "type": "category"}
    figure.update_xaxes(title_text="part read at the key", side="top", tickangle=-60, **ticks)
    figure.update_yaxes(title_text="part read at the query", **ticks)  # layer 0 at the bottom
    return figure


def side_bars(matrix: np.ndarray, query_parts: list[str], key_parts: list[str], colours: Theme) -> go.Figure:
    """Layers up, with the score that the key and the query read from each; the bars of a side add up to the score.

    `matrix [n_query_parts, n_key_parts]`, before the softmax. Parts without a layer, such as the embedding, have rows
    of their own. The tooltip names the three largest parts of a bar.
    """
    key, query = (_by_layer(names, matrix.sum(axis)) for names, axis in ((key_parts, 0), (query_parts, 1)))
    rows = list(dict.fromkeys([*key, *query]))
    figure = go.Figure()
    for name, side, colour in (("at the query", query, colours.muted), ("at the key", key, colours.accent)):
        largest = [strongest(side.get(row, []), 3) for row in rows]
        figure.add_bar(
            name=name,
            y=rows,
            x=[sum(value for _, value in side.get(row, [])) for row in rows],
            orientation="h",
            marker={"color": colour},
            hovertext=["<br>".join(f"{escape(part, 40)} {value:+.3f}" for part, value in parts) for parts in largest],
            hovertemplate=f"<b>%{{y}}</b> {name} %{{x:+.3f}}<br>%{{hovertext}}<extra></extra>",
        )
    styled(figure, colours, height=18 * len(rows) + 110)
    figure.update_layout(barmode="group", bargap=0.25, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})
    figure.update_layout(showlegend=True, legend_traceorder="reversed")
    figure.update_xaxes(title_text="score above the other keys, before the softmax", nticks=6)
    figure.update_yaxes(showgrid=False, type="category", tickfont={"family": MONO, "size": 11})
    figure.add_vline(x=0, line={"color": colours.muted, "width": 1})
    return figure


def _by_layer(names: list[str], values: np.ndarray) -> dict[str, list[Part]]:
    """Parts with their values under the layer in their name, or under the name itself."""
    layers: dict[str, list[Part]] = {}
    for name, value in zip(names, values.tolist(), strict=True):
        layer = re.match(r"L\d+(?=H|MLP|bias)", name)
        layers.setdefault(layer[0] if layer else name, []).append((name, value))
    return layers


def _largest(sizes: np.ndarray, n: int) -> list[int]:
    """Indices of the `n` largest, in their own order."""
    return sorted(np.argsort(-sizes, kind="stable")[:n].tolist())


def patching_map(
    rows: Sequence[Patch], colours: Theme, *, tokens: Sequence[str] | None = None, height: int = 560
) -> go.Figure:
    """Layers up, heads or positions across, from the patches of an `ActivationPatching` or a `PatchingMap`.

    0: the patch changes nothing; 1: the metric crosses the whole gap between the prompts. Colour is centred on 0. If
    patches have both a head and a position, each head shows its strongest position. `tokens` name the positions. A dot
    marks an effect beyond the null, if one was measured.
    """
    if not rows:
        return message_figure("nothing was patched", colours)
    across = "position" if rows[0].head is None else "head"
    cells = [(row.layer, (row.position if row.head is None else row.head) or 0) for row in rows]
    named = rows[0].head is not None or rows[0].position is not None
    n_layers, n_across = (1 + max(column) for column in zip(*cells, strict=True))
    effect, hover = np.zeros((n_layers, n_across), np.float32), np.full((n_layers, n_across), "", object)
    by_cell = sorted(zip(cells, rows, strict=True), key=lambda pair: abs(pair[1].effect))
    for at, row in by_cell:  # the strongest of a cell comes last
        effect[at], hover[at] = row.effect, _hover(row)
    limit = max(1e-6, float(np.abs(effect).max()))
    beyond = sorted({at for at, row in by_cell if isinstance(row, JudgedPatch) and row.beyond})
    figure = heat_map(effect, colours, "share of the gap", top=limit, signed=True, hovertext=hover)
    if beyond:
        dots = {"color": colours.text, "size": 5, "line": {"color": colours.surface, "width": 1}}
        layers, columns = ([cell[i] for cell in beyond] for i in (0, 1))
        figure.add_scatter(x=columns, y=layers, mode="markers", marker=dots, hoverinfo="skip", showlegend=False)
    styled(figure, colours, height=height)
    figure.update_yaxes(title_text="layer", dtick=1 if n_layers <= 40 else 5, showgrid=False)
    figure.update_yaxes(range=[-0.5, n_layers - 0.5])
    figure.update_xaxes(range=[-0.5, n_across - 0.5])
    title = across if named else ""
    figure.update_xaxes(title_text=title, showgrid=False, side="top", dtick=1 if n_across <= 40 else 5)
    if title == "position" and tokens:
        figure.update_xaxes(tickvals=list(range(len(tokens))), ticktext=[escape(t, 28) for t in tokens])
    if not named:
        figure.update_xaxes(showticklabels=False)
    return figure


def _hover(row: Patch) -> str:
    parts = {"layer": row.layer, "head": row.head, "position": row.position}
    where = ", ".join(f"{name} {value}" for name, value in parts.items() if value is not None)
    token = "" if row.token is None else f" {escape(row.token, 24)}"
    error = "" if math.isnan(row.stderr) else f" ± {row.stderr:.3f}"
    null = f"<br>null {row.null_low:+.3f} to {row.null_high:+.3f}" if isinstance(row, JudgedPatch) else ""
    return f"<b>{where}</b>{token}<br>{row.effect:+.3f}{error} of the gap{null}"
