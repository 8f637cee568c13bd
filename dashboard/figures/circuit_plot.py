"""A circuit as one still figure, for notebooks and papers; the page draws the interactive one."""

import plotly.graph_objects as go

from dashboard.figures.circuit_style import role_colours, via_colours
from dashboard.figures.theme import Theme, message_figure, styled
from interp.circuits.circuit import Circuit, Edge, edge_text
from interp.names import NodeName, parse_node

_ENDS = {"embed": -1.0, "logits": float("inf")}


def circuit_plot(circuit: Circuit, colours: Theme, *, max_edges: int = 60, height: int = 460) -> go.Figure:
    """Layers up, heads across, MLPs at the right; arrows from writer to reader, coloured by input, wide where strong.

    The `max_edges` strongest edges are drawn, and the title says so when there are more.
    """
    edges = sorted(circuit.edges, key=lambda e: -abs(e.score or 0))[:max_edges]
    if not edges:
        return message_figure("this circuit has no edges", colours)
    names = sorted({name for e in edges for name in (e.source, e.target)}, key=lambda n: parse_node(n).order)
    places = _places(names)
    figure = go.Figure()
    styled(figure, colours, height=height)
    paint, strongest = via_colours(colours), max(abs(e.score or 0) for e in edges) or 1.0
    for edge in edges:
        _arrow(figure, edge, places, paint[edge.via or "other"], abs(edge.score or 0) / strongest)
    roles = {node.name: node.role for node in circuit.nodes if node.role}
    tints = role_colours(colours, sorted(set(roles.values())))
    figure.add_scatter(
        x=[places[n][0] for n in names], y=[places[n][1] for n in names], mode="markers+text", text=names,
        textposition="middle center", textfont={"size": 11, "color": colours.text},
        hovertext=[f"<b>{n}</b> {roles.get(n, '').replace('_', ' ')}" for n in names], hoverinfo="text",
        marker={"size": 40, "symbol": "square", "color": colours.surface,
                "line": {"width": 2, "color": [tints.get(roles.get(n, ""), colours.muted) for n in names]}},
        showlegend=False,
    )  # fmt: skip
    rows = sorted({y for _, y in places.values()})
    figure.update_xaxes(visible=False, range=[min(x for x, _ in places.values()) - 1, _right(places) + 1])
    figure.update_yaxes(visible=False, range=[rows[0] - 0.7, rows[-1] + 0.7])
    more = f"the {max_edges} strongest of {len(circuit.edges)} edges of " if len(circuit.edges) > max_edges else ""
    figure.update_layout(title={"text": f"{more}{circuit.model}", "font": {"size": 13}}, margin={"t": 36})
    return figure


def _places(names: list[str]) -> dict[str, tuple[float, float]]:
    """One row per layer in use; heads by number, an MLP right of the last head, both ends in the middle."""
    nodes = {name: parse_node(name) for name in names}
    heads = [node.head for node in nodes.values() if node.head is not None]
    columns = {head: float(i) for i, head in enumerate(sorted(set(heads)))}
    right = float(len(columns))
    middle = (right if any(node.kind == "mlp" for node in nodes.values()) else right - 1) / 2
    levels = sorted({_ENDS.get(name, _level(nodes[name])) for name in names})
    places = {}
    for name, node in nodes.items():
        x = middle if name in _ENDS else right if node.head is None else columns[node.head]
        places[name] = (x, float(levels.index(_ENDS.get(name, _level(node)))))
    for level in range(len(levels)):  # features have no column of their own: side by side, errors last
        beside = [name for name, (_, y) in places.items() if nodes[name].place and y == level]
        for x, name in enumerate(sorted(beside, key=lambda n: (nodes[n].kind == "error", nodes[n].order))):
            places[name] = (float(x), float(level))
    return places


def _level(node: NodeName) -> float:
    """One row per layer; where a layer has several dictionaries, one for each."""
    return node.order[0] if node.place else float(node.layer or 0)


def _right(places: dict[str, tuple[float, float]]) -> float:
    return max(x for x, _ in places.values())


def _arrow(figure: go.Figure, edge: Edge, places: dict[str, tuple[float, float]], colour: str, strength: float) -> None:
    (x0, y0), (x1, y1) = places[edge.source], places[edge.target]
    figure.add_annotation(
        x=x1, y=y1, ax=x0, ay=y0, xref="x", yref="y", axref="x", ayref="y", showarrow=True, arrowhead=2, text="",
        arrowwidth=0.8 + 2 * strength, arrowcolor=colour, opacity=0.85, standoff=20, startstandoff=20,
        hovertext=edge_text(edge) + ("" if edge.score is None else f" {edge.score:+.3f}"),
    )  # fmt: skip
