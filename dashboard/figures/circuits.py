"""Figures of circuits: effects of ablating heads, a circuit as a graph, composition of weights, faithfulness over size.

The graph is a still figure for notebooks and papers; the circuit page draws an interactive one.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import Theme, escape, faint, heat_map, message_figure, styled, visible, whiskers
from interp.circuits.circuit import Circuit, Edge, edge_text
from interp.circuits.found_circuit import FaithfulnessPoint, ScoredEdge
from interp.circuits.induction_circuit import ComposedPair
from interp.models.short_name import short_name
from interp.names import parse_node
from interp.patching.patching_map import AblationEffect
from interp.tracing.graph import AttributionGraph, GraphNode

ROLES = ("induction", "previous_token", "duplicate_token", "name_mover", "s_inhibition", "negative")
"""Roles with their own colour, in this order; others share the last one."""
_FEW = 10
"""groups beyond which bars get thinner"""


def ablation_bars(rows: Iterable[AblationEffect], colours: Theme) -> go.Figure:
    """Change of loss in nats per ablated group, first half and second half of repeated text; 0 is no change.

    `rows` are the groups with their change of loss.

    The whisker is the 95 % interval of the second half. Groups come before singles.
    """
    rows = sorted(rows, key=lambda row: (-row.n_heads, -row.loss_second_half))
    if not rows:
        return message_figure("no ablation was measured", colours)
    names = [_name(row) for row in rows]
    ends = zip(*((row.loss_second_half, row.low, row.high) for row in rows), strict=True)
    figure = go.Figure()
    figure.add_bar(
        y=names,
        x=[row.loss_first_half for row in rows],
        orientation="h",
        name="first half",
        marker={"color": colours.noise},
        hovertext=[_ablation_hover(row) for row in rows],
        hoverinfo="text",
    )
    figure.add_bar(
        y=names,
        x=[row.loss_second_half for row in rows],
        orientation="h",
        name="second half",
        marker={"color": colours.accent},
        error_x=whiskers(*ends, color=colours.text, thickness=1, width=3),
        hovertext=[_ablation_hover(row) for row in rows],
        hoverinfo="text",
    )
    styled(figure, colours, height=(44 if len(rows) <= _FEW else 27) * len(rows) + 80)
    figure.update_layout(barmode="group", bargap=0.36, bargroupgap=0.08, showlegend=True)
    figure.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "traceorder": "normal"})
    figure.add_vline(x=0, line={"color": colours.muted, "width": 1})
    figure.update_xaxes(title_text="change of loss (nats per token)", nticks=6)
    figure.update_yaxes(autorange="reversed", showgrid=False, tickfont={"size": 12, "color": colours.text})
    return figure


def _name(row: AblationEffect) -> str:
    heads = f", {row.n_heads} heads" if row.n_heads > 1 and "heads" not in row.group else ""
    return f"{escape(row.group, 36)}{heads} · {escape(row.kind, 12)}"


def _ablation_hover(row: AblationEffect) -> str:
    words = f"<b>{_name(row)}</b><br>second half {row.loss_second_half:+.3f} nats"
    if math.isfinite(row.low) and math.isfinite(row.high):
        words += f" ({row.low:+.3f} to {row.high:+.3f})"
    return f"{words}<br>first half {row.loss_first_half:+.3f} nats"


_ENDS = {"embed": -1.0, "logits": float("inf")}


def circuit_plot(circuit: Circuit, colours: Theme, *, max_edges: int = 60, height: int = 460) -> go.Figure:
    """Layers up, heads across, MLPs at the right; arrows from writer to reader, coloured by input, wide where strong.

    The `max_edges` strongest edges are drawn, and the title says so when there are more.
    """
    edges = sorted(circuit.edges, key=lambda e: -abs(e.score or 0))[:max_edges]
    if not edges:
        return message_figure("this circuit has no edges", colours)
    names = sorted({name for e in edges for name in (e.source, e.target)}, key=lambda n: parse_node(n).order)
    spots = _spots(names)
    figure = go.Figure()
    styled(figure, colours, height=height)
    paint, strongest = via_colours(colours), max(abs(e.score or 0) for e in edges) or 1.0
    for edge in edges:
        _arrow(figure, edge, spots, paint[edge.via or "other"], abs(edge.score or 0) / strongest)
    roles = {node.name: node.role for node in circuit.nodes if node.role}
    tints = role_colours(colours, sorted(set(roles.values())))
    figure.add_scatter(
        x=[spots[n][0] for n in names], y=[spots[n][1] for n in names], mode="markers+text", text=names,
        textposition="middle center", textfont={"size": 11, "color": colours.text},
        hovertext=[f"<b>{n}</b> {roles.get(n, '').replace('_', ' ')}" for n in names], hoverinfo="text",
        marker={"size": 40, "symbol": "square", "color": colours.surface,
                "line": {"width": 2, "color": [tints.get(roles.get(n, ""), colours.muted) for n in names]}},
        showlegend=False,
    )  # fmt: skip
    rows = sorted({y for _, y in spots.values()})
    columns = [x for x, _ in spots.values()]
    figure.update_xaxes(visible=False, range=[min(columns) - 1, max(columns) + 1])
    figure.update_yaxes(visible=False, range=[rows[0] - 0.7, rows[-1] + 0.7])
    more = f"the {max_edges} strongest of {len(circuit.edges)} edges of " if len(circuit.edges) > max_edges else ""
    figure.update_layout(title={"text": f"{more}{short_name(circuit.model)}", "font": {"size": 13}}, margin={"t": 36})
    return figure


def _spots(names: list[str]) -> dict[str, tuple[float, float]]:
    """One row per layer in use; heads by number, an MLP right of the last head, both ends in the middle."""
    nodes = {name: parse_node(name) for name in names}
    heads = [node.head for node in nodes.values() if node.head is not None]
    columns = {head: float(i) for i, head in enumerate(sorted(set(heads)))}
    right = float(len(columns))
    middle = (right if any(node.kind == "mlp" for node in nodes.values()) else right - 1) / 2
    rows = {name: _ENDS.get(name, float(node.layer or 0)) for name, node in nodes.items()}
    levels = sorted(set(rows.values()))
    spots: dict[str, tuple[float, float]] = {}
    for name, node in nodes.items():
        x = middle if name in _ENDS else right if node.head is None else columns[node.head]
        spots[name] = (x, float(levels.index(rows[name])))
    return spots


def _arrow(figure: go.Figure, edge: Edge, spots: dict[str, tuple[float, float]], colour: str, strength: float) -> None:
    (x0, y0), (x1, y1) = spots[edge.source], spots[edge.target]
    figure.add_annotation(
        x=x1, y=y1, ax=x0, ay=y0, xref="x", yref="y", axref="x", ayref="y", showarrow=True, arrowhead=2, text="",
        arrowwidth=0.8 + 2 * strength, arrowcolor=colour, opacity=0.85, standoff=20, startstandoff=20,
        hovertext=edge_text(edge) + ("" if edge.score is None else f" {edge.score:+.3f}"),
    )  # fmt: skip


MAX_SENDERS = 40
"""most rows of the map that stay readable"""
_CROWDED = 150
"""cells beyond which the marks get smaller"""
VIAS = {"q": "query", "k": "key", "v": "value"}


def senders(rows: Iterable[ComposedPair], via: str) -> tuple[list[str], int]:
    """The senders to show for one input, in the model's order, and how many there are: the strongest for any reader."""
    best: dict[str, float] = {}
    for row in rows:
        if row.via == via:
            rank = row.score + (10.0 if row.is_argmax else 0.0)
            best[row.source] = max(best.get(row.source, -1.0), rank)
    strongest = sorted(best, key=lambda name: -best[name])[:MAX_SENDERS]
    return sorted(strongest, key=lambda name: parse_node(name).order), len(best)


def composition_map(rows: Iterable[ComposedPair], via: str, colours: Theme) -> go.Figure:
    """Senders down, readers across. A dot: above the null's upper bound; a ring: the reader's strongest sender.

    `rows` are the scored pairs; those into the input `via` (q, k or v) are drawn.

    Scores are `||W_A W_B|| / (||W_A|| ||W_B||)`, 0 to 1 (Elhage et al. 2021); the null retains the spectra and rotates.
    """
    rows = [row for row in rows if row.via == via]
    if not rows:
        return message_figure(f"no {VIAS.get(via, via)} composition was measured", colours)
    names, _ = senders(rows, via)
    readers = sorted({row.target for row in rows}, key=lambda name: parse_node(name).order)
    shown = [row for row in rows if row.source in set(names)]
    score = np.full((len(names), len(readers)), np.nan, np.float32)
    hover = np.full(score.shape, "", object)
    for row in shown:
        at = names.index(row.source), readers.index(row.target)
        score[at], hover[at] = row.score, _composition_hover(row)
    figure = heat_map(score, colours, "composition", top=float(np.nanmax(score)), gap=2, hovertext=hover)
    above = [row for row in shown if row.score > row.null_high]
    crowded = score.size > _CROWDED
    dot = {"symbol": "circle", "size": 3 if crowded else 6, "color": colours.opposite, "line": {"width": 0}}
    _marks(figure, above, names, readers, dot, colours)
    strongest = [row for row in shown if row.is_argmax]
    ring = {"symbol": "circle-open", "size": 10 if crowded else 14, "color": colours.opposite, "line": {"width": 2}}
    _marks(figure, strongest, names, readers, ring, colours)
    styled(figure, colours, height=max(200, 18 * len(names) + 90))
    figure.update_xaxes(tickvals=list(range(len(readers))), ticktext=readers, side="top", showgrid=False,
                        title_text=f"reader, through its {VIAS[via]}")  # fmt: skip
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, showgrid=False, title_text="sender")
    figure.update_yaxes(range=[len(names) - 0.5, -0.5])
    return figure


def _marks(
    figure: go.Figure,
    rows: list[ComposedPair],
    names: list[str],
    readers: list[str],
    marker: dict[str, Any],
    colours: Theme,
) -> None:
    marker = {"line": {"width": 1, "color": colours.surface}} | marker
    figure.add_scatter(
        x=[readers.index(row.target) for row in rows],
        y=[names.index(row.source) for row in rows],
        mode="markers",
        marker=marker,
        hoverinfo="skip",
    )


def _composition_hover(row: ComposedPair) -> str:
    words = f"<b>{row.source} → {row.target}</b> {row.score:.3f}"
    words += f"<br>rotated at random {row.null_mean:.3f}, at most {row.null_high:.3f}"
    return words + ("<br>its strongest sender" if row.is_argmax else "")


def faithfulness_at(rows: Iterable[FaithfulnessPoint], fraction: float) -> float | None:
    """Between the measured sizes, on a log axis; None outside them."""
    known = sorted((row.fraction, row.faithfulness) for row in rows)
    if not known or fraction <= 0 or not known[0][0] <= fraction <= known[-1][0]:
        return None
    x, y = np.array(known)[:, 0], np.array(known)[:, 1]
    return float(np.interp(math.log(fraction), np.log(np.maximum(x, 1e-12)), y))


def faithfulness_curve(
    rows: Iterable[FaithfulnessPoint], total: int, colours: Theme, *, current: int | None = None, height: int = 230
) -> go.Figure:
    """Faithfulness over number of edges (log): 1 is the whole model, 0 the fully corrupted one.

    `rows` are the points of the curve.

    There are `total` edges in the graph; `current` marks the number of edges that is shown. The band is the range of
    random circuits of the same size.
    """
    rows = sorted((row for row in rows if row.fraction > 0), key=lambda row: row.fraction)
    if not rows:
        return message_figure("no curve was measured for this circuit", colours, height=height)
    x = [max(1.0, row.fraction * total) for row in rows]
    figure = go.Figure()
    if all(math.isfinite(row.random_high - row.random_low) for row in rows):
        band = [row.random_high for row in rows] + [row.random_low for row in reversed(rows)]
        figure.add_scatter(x=x + x[::-1], y=band, fill="toself", fillcolor=faint(colours.noise, 0.35), mode="none",
                           hoverinfo="skip", name="random circuits")  # fmt: skip
    if all(math.isfinite(row.random) for row in rows):
        figure.add_scatter(x=x, y=[row.random for row in rows], mode="lines", name="random circuits",
                           line={"color": colours.muted, "width": 1, "dash": "dot"}, hoverinfo="skip")  # fmt: skip
    figure.add_scatter(
        x=x,
        y=[row.faithfulness for row in rows],
        mode="lines+markers",
        line={"color": colours.accent, "width": 2},
        marker={"size": 5},
        hovertext=[_curve_hover(row, total) for row in rows],
        hoverinfo="text",
    )
    styled(figure, colours, height=height)
    for level in (0.0, 1.0):
        figure.add_hline(y=level, line={"color": colours.grid, "width": 1}, layer="below")
    ticks = [10**e for e in range(8) if x[0] / 3 <= 10**e <= x[-1] * 3]
    figure.update_xaxes(type="log", title_text="edges", showgrid=False, tickvals=ticks)
    figure.update_xaxes(ticktext=[f"{t:,}" for t in ticks])
    figure.update_yaxes(title_text="faithfulness", nticks=5, showgrid=False)
    _mark(figure, rows, total, current, colours)
    return figure


def _mark(figure: go.Figure, rows: list[FaithfulnessPoint], total: int, current: int | None, colours: Theme) -> None:
    if not current or not total:
        return
    figure.add_vline(x=current, line={"color": colours.opposite, "width": 1, "dash": "dot"})
    at = faithfulness_at(rows, current / total)
    if at is not None:
        marker = {"size": 11, "color": colours.opposite, "line": {"width": 2, "color": colours.surface}}
        figure.add_scatter(x=[current], y=[at], mode="markers", marker=marker, hoverinfo="text",
                           hovertext=[f"{current:,} edges<br>about {at:.2f}, between measured sizes"])  # fmt: skip


def agreement(rows: Iterable[ScoredEdge], colours: Theme, *, height: int = 230) -> go.Figure:
    """Estimated score against the exact effect of the same edges; on the line they are equal."""
    points = [(row.score, row.exact, row) for row in rows if row.exact is not None]
    if not points:
        return message_figure("no edge was patched alone", colours, height=height)
    low = min(min(s, e) for s, e, _ in points)
    high = max(max(s, e) for s, e, _ in points)
    figure = go.Figure(
        go.Scatter(
            x=[low, high], y=[low, high], mode="lines", hoverinfo="skip", line={"color": colours.grid, "width": 1}
        )
    )
    figure.add_scatter(
        x=[s for s, _, _ in points],
        y=[e for _, e, _ in points],
        mode="markers",
        marker={"size": 6, "color": colours.accent, "opacity": 0.8},
        hovertext=[f"<b>{_edge(row)}</b><br>estimated {s:.4g}<br>exact {e:.4g}" for s, e, row in points],
        hoverinfo="text",
    )
    figure.update_xaxes(title_text="estimated effect", nticks=5)
    figure.update_yaxes(title_text="exact effect", nticks=5)
    return styled(figure, colours, height=height)


def _edge(row: ScoredEdge) -> str:
    return f"{row.source} → {row.target}" + (f" ({row.via})" if row.via else "")


def _curve_hover(row: FaithfulnessPoint, total: int) -> str:
    n_edges = max(1, round(row.fraction * total))
    words = f"<b>{row.faithfulness:.3f}</b> with the best {n_edges:,} edges<br>{row.n_edges:,} of them on a path"
    return words + (f"<br>random circuits {row.random:.3f}" if math.isfinite(row.random) else "")


def via_colours(colours: Theme) -> dict[str, str]:
    """Return the colours of inputs, distinct for colour-blind readers; each edge carries its letter as well."""
    q, v, k = colours.categories[0], colours.categories[2], colours.categories[1]
    return {"q": q, "k": k, "v": v, "other": colours.muted}


def role_colours(colours: Theme, roles: list[str]) -> dict[str, str]:
    """Return a colour for each role that occurs."""
    palette = [colours.categories[i] for i in (4, 5, 6, 3, 7, 8)]
    known = sorted(set(roles), key=lambda r: (ROLES.index(r) if r in ROLES else len(ROLES), r))
    return {role: palette[min(i, len(palette) - 1)] for i, role in enumerate(known)}


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
