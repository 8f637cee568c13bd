"""A circuit as the elements of a Cytoscape graph: layers are rows (input below), heads or token positions are columns.

The layout is computed here and not in the browser, so the same circuit looks the same to everyone. Colour encodes the
role of a node or the input that an edge enters, width the size of the score, a dashed line a negative score.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from dashboard.data.circuits import PREFIX, EdgeRow, Group
from dashboard.figures.circuits import role_colours, via_colours
from dashboard.figures.theme import Theme, visible
from interp.names import NodeName, parse_node

COLUMN, ROW = 96.0, 62.0
_TALLEST, _HEIGHT = 116.0, 430.0
"""Largest distance of rows, and the height that the drawing should reach."""
_WIDEST = 190.0
"""Largest distance of columns: they spread up to it until the drawing fills the page."""
LETTERED = 60
"""With at most this many edges, each carries the letter of its input and bends around nodes in its way."""
_FAN = (0, 26, -26)
"""Distances between lines that join the same two nodes."""
_CLEAR = 30.0
"""Distance, in units of the graph, at which a line passes a node without touching it."""

VIAS = {"q": "query", "k": "key", "v": "value", "other": "into an MLP or the logits"}


@dataclass(frozen=True)
class Drawing:
    """Elements of a graph, and the edges and nodes that they represent."""

    elements: list[dict[str, Any]]
    edges: dict[str, list[EdgeRow]] = field(default_factory=dict)
    """id of a drawn edge -> the edges that it represents (several into or out of a folded group)"""
    nodes: list[str] = field(default_factory=list)
    """ids of the nodes before folding, in the model's order"""
    n_rows: int = 1


@dataclass
class _Spot:
    row: int
    column: int | None
    """None for the ends and for folded groups, which belong to no column"""
    x: float = 0.0
    y: float = 0.0


def draw(
    rows: list[EdgeRow],
    colours: Theme,
    *,
    roles: dict[str, str] | None = None,
    groups: tuple[Group, ...] = (),
    alone: tuple[str, ...] = (),
    tokens: list[str] | None = None,
) -> Drawing:
    """Draw the nodes and edges of `rows`. `alone` are nodes drawn though no edge touches them.

    `tokens` name the columns when the edges have positions.
    """
    ids = {end for row in rows for end in row.end_ids} | set(alone)
    ordered = sorted(ids, key=lambda i: (_name(i).order, _position(i)))
    stands_for = {i: i for i in ordered}
    for group in groups:
        stands_for |= {member: group.id for member in group.members if group.folded and member in ids}
    spots = _spots(ordered, stands_for)
    elements = _axes(spots, tokens or [])
    elements += _nodes(ordered, spots, stands_for, roles or {}, groups, colours)
    drawn, edges = _edges(rows, stands_for, {i: (p.x, p.y) for i, p in spots.items()})
    return Drawing(elements + _moves(ordered, stands_for) + drawn, edges, ordered, len({p.row for p in spots.values()}))


def _spots(ordered: list[str], stands_for: dict[str, str]) -> dict[str, _Spot]:
    """Lay out the nodes: only rows and columns in use take room, and nodes that share a cell are drawn side by side.

    A folded group takes the row of its middle member, centred as the embedding and the logits are.
    """
    by_position = any(_position(i) >= 0 for i in ordered)
    own = [i for i in ordered if stands_for[i] == i]
    level = {i: _name(i).order[0] for i in own}
    for group in dict.fromkeys(stands_for[i] for i in ordered if stands_for[i] != i):
        inside = [_name(i).order[0] for i in ordered if stands_for[i] == group]
        level[group] = inside[len(inside) // 2]
    column_of = {
        i: float(_position(i)) if by_position else _head_column(_name(i))
        for i in own
        if by_position or _name(i).layer is not None
    }
    rows, columns = sorted(set(level.values())), sorted(set(column_of.values())) or [0.0]
    spots = {
        i: _Spot(rows.index(at), columns.index(column_of[i]) if i in column_of else None) for i, at in level.items()
    }
    cells: dict[tuple[int, int], list[str]] = defaultdict(list)
    for i, spot in spots.items():
        if spot.column is not None:
            cells[spot.row, spot.column].append(i)
    widest = [max([1, *(len(v) for (_, c), v in cells.items() if c == column)]) for column in range(len(columns))]
    left = np.concatenate([[0], np.cumsum(widest)])
    step = float(np.clip(1.55 * ROW * len(rows) / max(1, left[-1]), COLUMN, _WIDEST))
    rise = float(np.clip(_HEIGHT / max(1, len(rows)), ROW, _TALLEST))
    for (row, column), members in cells.items():
        for k, i in enumerate(members):
            centre = left[column] + (widest[column] - len(members)) / 2 + k
            spots[i].x, spots[i].y = step * float(centre), -rise * row
    for spot in spots.values():
        if spot.column is None:
            taken = [p.x for p in spots.values() if p is not spot and p.row == spot.row and p.y == -rise * spot.row]
            spot.x, spot.y = _free(step * float(left[-1] - 1) / 2, taken), -rise * spot.row
    return spots


def _free(middle: float, taken: list[float]) -> float:
    """Return the free x coordinate of a row that is nearest to the middle."""
    steps = [middle + COLUMN * 0.5 * ((k + 1) // 2) * (1 if k % 2 else -1) for k in range(200)]
    return next((x for x in steps if all(abs(x - other) > COLUMN for other in taken)), middle)


def _head_column(name: NodeName) -> float:
    """Return the column of a node; features share one, MLPs and error nodes are rightmost."""
    return float("inf") if name.kind in ("mlp", "error") else float(name.head or 0)


def _axes(spots: dict[str, _Spot], tokens: list[str]) -> list[dict[str, Any]]:
    """Return the names of rows (left) and columns (below) as elements that cannot be clicked."""
    if not spots:
        return []
    left = min(p.x for p in spots.values()) - 0.9 * COLUMN
    bottom = max(p.y for p in spots.values()) + 0.7 * ROW
    inside = {i: p for i, p in spots.items() if p.column is not None}
    rows = {p.y: _name(i) for i, p in inside.items() if _name(i).layer is not None}
    labels = [(f"row:{y}", f"layer {name.layer}", left, y) for y, name in rows.items()]
    columns: dict[int, list[str]] = defaultdict(list)
    for i, spot in inside.items():
        columns[spot.column or 0].append(i)
    for column, members in columns.items():
        x = float(np.mean([min(spots[m].x for m in members), max(spots[m].x for m in members)]))
        labels.append((f"column:{column}", _column_title(members[0], tokens), x, bottom))
    return [
        {
            "data": {"id": f"axis:{key}", "label": text},
            "position": {"x": x, "y": y},
            "classes": "axis",
            "selectable": False,
            "grabbable": False,
        }
        for key, text, x, y in labels
    ]


def _column_title(member: str, tokens: list[str]) -> str:
    position = _position(member)
    if position < 0:
        name = _name(member)
        return {"mlp": "MLP", "feature": "features", "error": "errors"}.get(name.kind, f"head {name.head}")
    return f"{position} {visible(tokens[position], 12)}" if position < len(tokens) else f"position {position}"


def _nodes(
    ordered: list[str],
    spots: dict[str, _Spot],
    stands_for: dict[str, str],
    roles: dict[str, str],
    groups: tuple[Group, ...],
    colours: Theme,
) -> list[dict[str, Any]]:
    halo = {m: (n, g) for n, g in enumerate(groups) for m in g.members if not g.folded}
    elements: list[dict[str, Any]] = []
    for i in ordered:
        if stands_for[i] != i:
            continue
        name = _name(i)
        data: dict[str, Any] = {"id": i, "label": i, "role": roles.get(i.partition("@")[0]) or name.kind}
        classes = [name.kind]
        if i in halo:
            data["halo"] = group_colour(halo[i][0], colours)
            classes.append("grouped")
        elements.append(_element(data, spots[i].x, spots[i].y, " ".join(classes)))
    for n, group in enumerate(groups):
        inside = [i for i in ordered if stands_for[i] == group.id]
        if inside:
            label = f"{visible(group.name, 28)}\n{len(inside)} nodes"
            data = {"id": group.id, "label": label, "role": "group", "halo": group_colour(n, colours)}
            elements.append(_element(data, spots[group.id].x, spots[group.id].y, "group"))
    return elements


def group_colour(n: int, colours: Theme) -> str:
    """Return the colour of the n-th group, from the end of the palette that does not encode inputs."""
    return colours.categories[-1 - n % 5]


def _edges(
    rows: list[EdgeRow], stands_for: dict[str, str], where: dict[str, tuple[float, float]]
) -> tuple[list[dict[str, Any]], dict[str, list[EdgeRow]]]:
    bundles: dict[tuple[str, str, str], list[EdgeRow]] = defaultdict(list)
    for row in rows:
        source, target = (stands_for[end] for end in row.end_ids)
        if source != target:  # inside a folded group
            bundles[source, target, row.via or "other"].append(row)
    few = len(bundles) <= LETTERED
    top = max((row.size for inside in bundles.values() for row in inside), default=0.0) or 1.0
    parallel: dict[frozenset[str], int] = defaultdict(int)
    elements: list[dict[str, Any]] = []
    meaning: dict[str, list[EdgeRow]] = {}
    for (source, target, via), inside in bundles.items():
        strongest = max(inside, key=lambda row: row.size)
        score = strongest.score
        # the browser cannot move the ends of a line it knows: one that a group has taken over is another line
        folded = any(end.startswith(PREFIX) for end in (source, target))
        identity = f"{source}|{via}|{target}" if folded else inside[0].id
        meaning[identity] = inside
        pair = frozenset((source, target))
        data = {
            **{"id": identity, "source": source, "target": target, "via": via},
            "width": round(1.2 + 5.3 * strongest.size / top, 2),
            "strength": strongest.size,
            "letter": via if few and via != "other" else "",
            "bend": _bend(where, source, target, parallel[pair]) if few else _FAN[parallel[pair] % 3],
        }
        parallel[pair] += 1
        kind = "unscored" if score is None else "negative" if score < 0 else ""
        elements.append({"data": data, "classes": kind})
    elements.sort(key=lambda e: e["data"]["strength"])
    return elements, meaning


def _moves(ordered: list[str], stands_for: dict[str, str]) -> list[dict[str, Any]]:
    """Return thin lines between the positions of one head, which reads at one and writes at a later one."""
    at: dict[str, list[str]] = defaultdict(list)
    for i in ordered:
        if stands_for[i] == i and _position(i) >= 0 and _name(i).kind == "head":
            at[i.partition("@")[0]].append(i)
    pairs = [pair for spots in at.values() for pair in pairwise(spots)]
    return [
        {"data": {"id": f"moves:{a}:{b}", "source": a, "target": b}, "classes": "moves", "selectable": False}
        for a, b in pairs
    ]


def _bend(where: dict[str, tuple[float, float]], source: str, target: str, nth: int) -> float:
    """Return the sideways shift of the middle of a line: around nodes in its way, and away from parallel lines."""
    a, b = np.array(where[source]), np.array(where[target])
    along = b - a
    length = float(np.hypot(*along)) or 1.0
    normal = np.array([-along[1], along[0]]) / length
    fan = _FAN[nth % 3]
    others = np.array([at for name, at in where.items() if name not in (source, target)] or [(1e9, 1e9)])
    weight = ((others - a) @ along / length**2)[:, None]
    near = (weight[:, 0] > 0.02) & (weight[:, 0] < 0.98)
    side = (others - a) @ normal
    blocking = near & (np.abs(side) < _CLEAR)
    if not blocking.any():
        return float(fan)
    push = -np.sign(side[blocking].sum() or 1.0)
    return float(fan + push * (58 + 10 * min(4, blocking.sum())))


def _element(data: dict[str, Any], x: float, y: float, classes: str) -> dict[str, Any]:
    return {"data": data, "position": {"x": round(x, 1), "y": round(y, 1)}, "classes": classes}


def _name(identity: str) -> NodeName:
    return parse_node(identity.partition("@")[0])


def _position(identity: str) -> int:
    position = identity.partition("@")[2]
    return int(position) if position else -1


# Cytoscape takes no quotes in a list of typefaces
_FONT = "system-ui, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif"
_MONO = "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace"


def stylesheet(colours: Theme, roles: list[str], chosen: str | None = None, *, many: bool = False) -> list[dict]:
    """Return the style rules. `chosen` is the highlighted node or edge; `many` edges are drawn straight, for speed."""
    rules = [*_node_rules(colours), *_edge_rules(colours, many)]
    for role, colour in role_colours(colours, roles).items():
        rules.append(
            {"selector": f"node[role = {_quoted(role)}]", "style": {"border-color": colour, "border-width": 2.5}}
        )
    for via, colour in via_colours(colours).items():
        rules.append(
            {
                "selector": f'edge[via = "{via}"]',
                "style": {"line-color": colour, "target-arrow-color": colour, "color": colour},
            }
        )
    return rules + _chosen_rules(colours, chosen)


def _node_rules(colours: Theme) -> list[dict[str, Any]]:
    return [
        {
            "selector": "node",
            "style": {
                **{"label": "data(label)", "font-family": _MONO, "font-size": 12, "color": colours.text},
                **{"shape": "round-rectangle", "width": 66, "height": 28, "background-color": colours.surface},
                **{"border-width": 1.25, "border-color": colours.muted, "text-valign": "center"},
                **{"text-halign": "center", "text-wrap": "wrap", "overlay-opacity": 0, "z-index": 10},
            },
        },
        {"selector": "node.mlp", "style": {"shape": "rectangle", "background-color": colours.grid}},
        {
            "selector": "node.embed, node.logits",
            "style": {"shape": "round-rectangle", "background-color": colours.grid},
        },
        {"selector": "node[label *= '@']", "style": {"width": 84}},
        {"selector": "node.feature, node.error", "style": {"width": 92, "font-size": 11}},
        {"selector": "node.error", "style": {"border-style": "dashed", "background-color": colours.grid}},
        {
            "selector": "node.group",
            "style": {
                **{"width": 112, "height": 42, "border-color": "data(halo)", "border-width": 2.5, "font-size": 11},
                **{"border-style": "double", "text-max-width": 104, "font-family": _FONT, "line-height": 1.25},
            },
        },
        {
            "selector": "node.grouped",
            "style": {"underlay-color": "data(halo)", "underlay-opacity": 0.28, "underlay-padding": 6},
        },
        {
            "selector": "node:selected",
            "style": {"underlay-color": colours.accent, "underlay-opacity": 0.38, "underlay-padding": 5},
        },
        {
            "selector": "node.axis",
            "style": {
                **{"background-opacity": 0, "border-width": 0, "color": colours.muted, "font-size": 11},
                **{"font-family": _FONT, "events": "no", "width": 1, "height": 1, "z-index": 1},
            },
        },
    ]


def _edge_rules(colours: Theme, many: bool) -> list[dict[str, Any]]:
    curve = (
        {"curve-style": "haystack", "haystack-radius": 0.3}
        if many
        else {
            **{"curve-style": "unbundled-bezier", "control-point-distances": "data(bend)"},
            "control-point-weights": 0.5,
        }
    )
    quiet = {"curve-style": "straight", "line-style": "dotted", "width": 1.2, "line-color": colours.muted}
    return [
        {
            "selector": "edge[width]",
            "style": {
                **{"width": "data(width)", "opacity": 0.55 if many else 0.9, "target-arrow-shape": "triangle"},
                **{"arrow-scale": 0.8, "target-label": "data(letter)", "target-text-offset": 22, "font-size": 11},
                **{"font-family": _MONO, "font-weight": 700, "text-background-color": colours.surface},
                **{"text-background-opacity": 1, "text-background-padding": 2, "overlay-padding": 5, **curve},
            },
        },
        {"selector": "edge.unscored", "style": {"opacity": 0.4}},
        {"selector": "edge.moves", "style": {**quiet, "target-arrow-shape": "none", "events": "no"}},
        {"selector": "edge.negative", "style": {"line-style": "dashed", "line-dash-pattern": [6, 4]}},
    ]


def _chosen_rules(colours: Theme, chosen: str | None) -> list[dict[str, Any]]:
    if not chosen:
        return []
    name = _quoted(chosen)
    return [
        {"selector": f"edge[id != {name}][source != {name}][target != {name}]", "style": {"opacity": 0.16}},
        {"selector": f"edge[id = {name}]", "style": {"opacity": 1, "z-index": 30}},
        {
            "selector": f"node[id = {name}]",
            "style": {"underlay-color": colours.accent, "underlay-opacity": 0.4, "underlay-padding": 6},
        },
    ]


def _quoted(text: str) -> str:
    """Quote a name for a selector, without the characters that could end the string."""
    return '"' + re.sub(r'["\\\n\r]', "", text) + '"'
