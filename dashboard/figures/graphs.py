"""Figures of attribution graphs: the pruned graph, predicted and measured effects, an edge split by heads.

The graph is a still figure for notebooks and papers; the *Graph* page draws an interactive one.
"""

from collections import defaultdict
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import Theme, escape, faint, message_figure, styled, visible
from interp.tracing.graph import AttributionGraph, GraphNode

_SYMBOLS = {"feature": "circle", "error": "diamond-open", "token": "square", "logit": "square"}
_BINS = (0.5, 1.0, 2.0, 4.0)
"""widths of lines, for edges from the weakest quarter to the strongest"""
_IN_A_ROW = 9


def graph_figure(graph: AttributionGraph, colours: Theme, *, n_edges: int = 300, height: int = 620) -> go.Figure:
    """The pruned graph, a column per position and a row per layer, with its `n_edges` most important edges."""
    shown = np.flatnonzero(graph.edges.kept)
    if not len(shown):
        return message_figure("the pruned graph has no edges", colours)
    shown = shown[np.argsort(graph.edges.share[shown], kind="stable")][:n_edges]
    used = {int(i) for i in np.concatenate([graph.edges.source[shown], graph.edges.target[shown]])}
    used |= {i for i, node in enumerate(graph.nodes) if node.kind in ("token", "logit")}
    x, y = _layout(graph, sorted(used))
    figure = go.Figure()
    _add_edges(figure, graph, shown, x, y, colours)
    for kind, symbol in _SYMBOLS.items():
        rows = [i for i in used if graph.nodes[i].kind == kind]
        figure.add_scatter(
            x=[x[i] for i in rows],
            y=[y[i] for i in rows],
            mode="markers+text" if kind == "logit" else "markers",
            text=[visible(graph.nodes[i].label, 24) for i in rows],
            textposition="top center",
            marker={
                "symbol": symbol,
                "size": [6 + 40 * min(graph.nodes[i].influence, 0.2) for i in rows],
                "color": colours.accent if kind in ("logit", "token") else colours.muted,
            },
            hovertext=[_hover(graph.nodes[i]) for i in rows],
            hoverinfo="text",
            name={"feature": "latent", "logit": "target"}.get(kind, kind),
        )
    styled(figure, colours, height=height)
    ticks = range(0, graph.n_layers, max(1, graph.n_layers // 10))
    figure.update_yaxes(tickvals=[-1, *ticks], ticktext=["tokens", *map(str, ticks)], title="layer")
    texts = [escape(visible(text, 16)) for text in graph.token_texts]
    figure.update_xaxes(tickvals=list(range(len(texts))), ticktext=texts)
    why = f"Why {escape(graph.targets[0].label)}? The {len(shown)} most important edges"
    figure.update_layout(showlegend=True, title={"text": why, "font": {"size": 13}}, margin={"t": 44})
    return figure


def agreement_figure(graph: AttributionGraph, colours: Theme, *, height: int = 380) -> go.Figure:
    """Effects of ablating latents in the model over those that the graph predicts; on the line both are the same."""
    effects = graph.effects
    if effects is None:
        return message_figure("no effect was measured; trace with --effects", colours)
    predicted, measured = effects.predicted, effects.measured
    both = np.concatenate([predicted, measured])
    ends = [both.min(), both.max()]
    figure = go.Figure()
    line = {"color": colours.noise, "dash": "dot"}
    figure.add_scatter(x=ends, y=ends, mode="lines", line=line, name="exact prediction", hoverinfo="skip")
    figure.add_scatter(
        x=predicted,
        y=measured,
        mode="markers",
        marker={"color": colours.accent, "size": 8},
        hovertext=effects.nodes,
        hoverinfo="text+x+y",
        name="latents, ablated one by one",
    )
    styled(figure, colours, height=height)
    figure.update_xaxes(title="effect predicted by the graph (logits)")
    figure.update_yaxes(title="effect measured in the free model (logits)")
    figure.update_layout(showlegend=True)
    return figure


def split_figure(split: Any, colours: Theme, *, n: int = 12, height: int = 360) -> go.Figure:
    """Shares of an edge by the last head that moves it (`interp.split_edge`), largest first."""
    rows = split.to_records()[:n]
    figure = go.Figure(
        go.Bar(
            x=[row["effect"] for row in rows],
            y=[f"{row['head']} from {escape(visible(row['token'], 16))} ({row['position']})" for row in rows],
            orientation="h",
            marker={"color": [colours.accent if row["effect"] > 0 else colours.opposite for row in rows]},
            hovertext=[f"attention {row['attention']:.2f}" for row in rows],
            hoverinfo="text+x",
        )
    )
    styled(figure, colours, height=height)
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title=f"share of the edge, of {split.total:+.3g} in all")
    return figure


def _layout(graph: AttributionGraph, nodes: list[int]) -> tuple[dict[int, float], dict[int, float]]:
    """Return x and y by node: nodes of one layer and position stand side by side, then in rows."""
    cells: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i in nodes:
        cells[graph.nodes[i].position, graph.nodes[i].layer].append(i)
    x, y = {}, {}
    for (position, layer), members in cells.items():
        members.sort(key=lambda i: -graph.nodes[i].influence)
        for place, i in enumerate(members):
            row, column = divmod(place, _IN_A_ROW)
            width = min(len(members), _IN_A_ROW)
            x[i] = position + (column - (width - 1) / 2) * 0.085
            y[i] = layer + 0.22 * row
    return x, y


def _add_edges(
    figure: go.Figure,
    graph: AttributionGraph,
    shown: np.ndarray,
    x: dict[int, float],
    y: dict[int, float],
    colours: Theme,
) -> None:
    """Add one trace per sign and width, since a trace has one colour and one width."""
    size = np.abs(graph.edges.weight[shown])
    width = np.searchsorted(np.quantile(size, [0.25, 0.5, 0.75]), size)
    for positive, name in ((True, "positive effect"), (False, "negative effect")):
        colour = faint(colours.accent if positive else colours.opposite, 0.4)
        for step, pixels in enumerate(_BINS):
            chosen = shown[(width == step) & ((graph.edges.weight[shown] > 0) == positive)]
            lines: tuple[list[float | None], list[float | None]] = ([], [])
            for i in chosen.tolist():
                ends = int(graph.edges.source[i]), int(graph.edges.target[i])
                for values, where in zip(lines, (x, y), strict=True):
                    values += [where[ends[0]], where[ends[1]], None]
            figure.add_scatter(
                x=lines[0],
                y=lines[1],
                mode="lines",
                line={"color": colour, "width": pixels},
                hoverinfo="skip",
                name=name,
                legendgroup=name,
                showlegend=step == len(_BINS) - 1,
            )


def _hover(node: GraphNode) -> str:
    label = f"<br>{escape(visible(node.label))}" if node.label else ""
    value = f"<br>activation {node.activation:.3g}" if node.kind == "feature" else ""
    return f"{node.id}{label}{value}<br>influence {node.influence:.3f}"
