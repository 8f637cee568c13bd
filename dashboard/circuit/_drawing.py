"""A circuit as the browser draws it (assets/graph/): a row per layer, and a column per head or token position.

`content` is the whole that may be drawn, as columns; `part` says which of it is shown for a number of edges. Colours
are those of inputs, dashed for a negative score, and of the roles of nodes. The browser asks, outside Dash, for a
circuit by its key `<folder>/<name>`:

    GET  /circuit-data/<folder>/<name>/graph.json    all that may be drawn, as columns, the groups of the visitor,
                                                     and what an address shows of it: `?n=24&paths=1`
    POST /circuit-data/<folder>/<name>/part.json     what else is shown of it: `{"n": 24, "paths": false}`
    POST /circuit-data/<folder>/<name>/edits.json    replace the groups: `{"edits": {...}, "was": {...}}`
    POST /circuit-data/<folder>/<name>/groups.json   groups of the shown nodes: `{"by": "role", "n": 24, ...}`
    GET  /circuit-data/<folder>/<name>/export.json   the circuit as shown, which `Circuit.load` reads: `?n=24&paths=1`

Edits are stored among the notes of the workspace (`interp.notes`), so that an export carries them.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import flask
from annotated_types import Ge

from dashboard.circuit import _data
from dashboard.circuit._data import MAX_EDGES, PROPOSALS, EdgeRow, ScoredEdges, node_id, node_of, scored, tokens
from dashboard.components.pages import whole_number
from dashboard.data.workspace import notes
from dashboard.figures.circuits import role_colours, via_colours
from dashboard.figures.theme import LIGHT, Theme, canvas_colours, visible
from dashboard.requests import RequestFields, add_routes
from dashboard.sources import current
from interp.artifacts import FOLDERS, as_json, kinds_of
from interp.circuits.found_circuit import FoundCircuit, open_circuit
from interp.errors import UnknownNameError
from interp.notes import GraphMarks

VIAS = ("q", "k", "v", "other")
"""Inputs that an edge enters, in the order of the browser's lines; `other` is an MLP or the logits."""
KINDS = {"embed": 2, "logits": 3}
"""Marks of the browser (assets/graph/model.mjs); any other node is 0, a circle."""


@dataclass(frozen=True)
class CircuitView:
    """The edges that are shown: the `n` strongest, or the circuit as it was found; `paths`: from input to output."""

    n: int | None = None
    paths: bool = False

    @property
    def whole(self) -> bool:
        """True for the circuit as it was found, with nodes that no edge touches."""
        return self.n is None and not self.paths

    def rows(self, edges: ScoredEdges, *, limit: int | None = MAX_EDGES) -> list[EdgeRow]:
        """Return the edges of the view; `limit` None gives a circuit as found also beyond what is drawn."""
        return edges.strongest(self.n, paths=self.paths, limit=limit)


@dataclass(frozen=True)
class _Whole:
    """Everything of a circuit that may be drawn, in the order in which the browser numbers it."""

    edges: ScoredEdges
    rows: list[EdgeRow]
    nodes: list[str]

    @classmethod
    def of(cls, artefact: FoundCircuit) -> "_Whole":
        edges = scored(artefact)
        rows = list({row.id: row for row in (*edges.strongest(None), *edges.strongest(MAX_EDGES))}.values())
        ids = _ends(rows) | _untouched(artefact, rows)
        return cls(edges, rows, sorted(ids, key=lambda name: (node_of(name).order, _position(name))))


def content(artefact: FoundCircuit) -> dict[str, Any]:
    """Return all that may be drawn as columns: nodes with their row, column and role, edges with their input.

    `input` is the largest score of all: the width of a line is its share of that.
    """
    whole = _Whole.of(artefact)
    roles = {node.name: node.role for node in artefact.circuit.nodes if node.role}
    known = list(role_colours(LIGHT, [*roles.values()]))
    number = {name: i for i, name in enumerate(whole.nodes)}
    sizes = dict.fromkeys(whole.nodes, 0.0)
    for row in whole.rows:
        for end in row.end_ids:
            sizes[end] = max(sizes[end], row.size)
    layers, columns = _layers(whole.nodes), _columns(whole.nodes)
    top = max((row.size for row in whole.rows), default=0.0)
    return {
        "tokens": [_title(members[0], tokens(artefact)) for members in columns],
        "rows": ["embed", *(f"L{node_of(members[0]).layer}" for members in layers)],
        "n_layers": len(layers),
        "roles": [role.replace("_", " ") for role in known],
        "proposals": PROPOSALS,
        "limit": whole.edges.limit,
        "found": min(whole.edges.n_in_circuit, whole.edges.limit),
        "has_ends": whole.edges.has_ends,
        "nodes": {
            "id": whole.nodes,
            "label": whole.nodes,
            "kind": [KINDS.get(node_of(name).kind, 0) for name in whole.nodes],
            "layer": [_index(layers, name, len(layers) if name.startswith("logits") else -1) for name in whole.nodes],
            "position": [_index(columns, name, len(columns) // 2) for name in whole.nodes],
            "influence": [_short(size) for size in sizes.values()],
            "input": [_short(top)] * len(whole.nodes),
            "role": [known.index(roles[bare]) if (bare := _bare(name)) in roles else -1 for name in whole.nodes],
        },
        "edges": {
            "source": [number[row.end_ids[0]] for row in whole.rows],
            "target": [number[row.end_ids[1]] for row in whole.rows],
            "weight": [_short(row.score or 0.0) for row in whole.rows],
            "via": [VIAS.index(row.via or "other") for row in whole.rows],
            "id": [row.id for row in whole.rows],
        },
    }


def part(artefact: FoundCircuit, view: CircuitView) -> dict[str, object]:
    """Return the numbers of the nodes and edges that are shown, and how many of all these are.

    `joined` are nodes of one head at several positions: it reads at one and writes at a later one.
    """
    whole = _Whole.of(artefact)
    rows = view.rows(whole.edges)
    ids = _ends(rows) | (_untouched(artefact, rows) if view.whole else set())
    shown = [i for i, name in enumerate(whole.nodes) if name in ids]
    numbers = {row.id: i for i, row in enumerate(whole.rows)}
    heads = [i for i in shown if node_of(whole.nodes[i]).kind == "head"]
    return {
        "nodes": shown,
        "edges": [numbers[row.id] for row in rows],
        "effects": None,
        "joined": [pair for pair in pairwise(heads) if len({_bare(whole.nodes[i]) for i in pair}) == 1],
        "said": _count(rows, whole.edges) if shown else _nothing(whole.edges),
    }


def colours(theme: Theme, roles: list[str]) -> dict[str, Any]:
    """Return the colours of the canvas: of an edge by its input, of a node by its role."""
    lines = [(colour, dash) for colour in via_colours(theme).values() for dash in ([], [6, 4])]
    lines.append((theme.muted, [2, 3]))  # from position to position of one head
    return canvas_colours(theme, lines) | {"roles": [*role_colours(theme, roles).values()]}


def _ends(rows: list[EdgeRow]) -> set[str]:
    return {end for row in rows for end in row.end_ids}


def _untouched(artefact: FoundCircuit, rows: list[EdgeRow]) -> set[str]:
    """Return the nodes of the circuit that none of the edges touches, at any position."""
    touched = {end for row in rows for end in row.ends}
    return {node_id(node.name, node.position) for node in artefact.circuit.nodes if node.name not in touched}


def _layers(nodes: list[str]) -> list[list[str]]:
    """Return the nodes of each row that is used, from below; the embedding and the logits belong to none."""
    rows: dict[float, list[str]] = {}
    for name in nodes:
        if node_of(name).layer is not None:
            rows.setdefault(node_of(name).order[0], []).append(name)
    return [rows[level] for level in sorted(rows)]


def _columns(nodes: list[str]) -> list[list[str]]:
    """Return the nodes of each column that is used: by position, else by head; MLPs are rightmost."""
    by_position = any(_position(name) >= 0 for name in nodes)
    columns: dict[float, list[str]] = {}
    for name in nodes:
        if by_position:
            columns.setdefault(_position(name), []).append(name)
        elif node_of(name).layer is not None:
            node = node_of(name)
            at = float("inf") if node.kind == "mlp" else float(node.head or 0)
            columns.setdefault(at, []).append(name)
    return [columns[at] for at in sorted(columns)] or [["embed"]]


def _index(parts: list[list[str]], name: str, otherwise: int) -> int:
    return next((i for i, members in enumerate(parts) if name in members), otherwise)


def _title(member: str, texts: list[str]) -> str:
    position, name = _position(member), node_of(member)
    if position >= 0:
        return f"{position} {visible(texts[position], 12)}" if position < len(texts) else f"position {position}"
    titles = {"mlp": "MLP", "embed": ""}
    return titles.get(name.kind, f"head {name.head}")


def _position(identity: str) -> int:
    position = identity.partition("@")[2]
    return int(position) if position else -1


def _bare(identity: str) -> str:
    return identity.partition("@")[0]


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _count(rows: list[EdgeRow], edges: ScoredEdges) -> str:
    weakest = min((row.size for row in rows if row.score is not None), default=None)
    words = f"{len(rows):,} of {edges.total:,}"
    if weakest is not None:
        words += f", |score| ≥ {weakest:.3g}"
    capped = edges.total > MAX_EDGES and len(rows) >= min(edges.limit, MAX_EDGES)
    return words + (f" (at most {MAX_EDGES:,} are drawn)" if capped else "")


def _nothing(edges: ScoredEdges) -> str:
    if edges.limit:
        return "No edge lies on a path from the embedding to the logits; move the slider to show more edges."
    return "The search found no circuit. The verdict names the condition that failed."


def register(server: flask.Flask) -> None:
    """Add the routes to the server."""
    reads = {"graph": _graph, "export": _export}
    asks = {"part": _part, "edits": _save, "groups": _groups}
    add_routes(server, "/circuit-data/<folder>/<name>", reads, asks, _open)


def _open(folder: str, name: str) -> FoundCircuit:
    folders = [FOLDERS[kind] for kind in kinds_of("circuit")]
    if folder not in folders:
        raise UnknownNameError("folder of circuits", folder, folders)
    return open_circuit(current().workspace, f"{folder}/{name}")


def _graph(folder: str, name: str) -> dict[str, Any]:
    artefact, query = _open(folder, name), flask.request.args
    whole, n = content(artefact), whole_number(query.get("n", ""))
    view = CircuitView(n if n is None else max(1, min(n, whole["limit"])), query.get("paths") == "1")
    edits = notes().graph_edits(artefact.key)
    return whole | {"edits": edits, "shown": as_json(view), "part": part(artefact, view)}


Edges = Annotated[int, Ge(1)] | None
"""Number of the strongest edges; None for the circuit as it was found."""


def _part(request: RequestFields, artefact: FoundCircuit, *, n: Edges = None, paths: bool = False) -> dict[str, object]:
    return part(artefact, CircuitView(n, paths))


def _save(request: RequestFields, artefact: FoundCircuit, *, edits: GraphMarks, was: dict[str, Any]) -> dict[str, Any]:
    return {"edits": notes().save_graph_edits(artefact.key, as_json(edits), was=was)}


def _groups(
    request: RequestFields, artefact: FoundCircuit, *, by: str, n: Edges = None, paths: bool = False
) -> dict[str, object]:
    rows = CircuitView(n, paths).rows(scored(artefact))
    return {"groups": [*_data.propose(by, artefact.circuit, rows).items()]}


def _export(folder: str, name: str) -> dict[str, object]:
    artefact, query = _open(folder, name), flask.request.args
    view = CircuitView(whole_number(query.get("n", "")), query.get("paths") == "1")
    rows = view.rows(scored(artefact), limit=None)
    shown = {"n": view.n, "paths": view.paths, "groups": notes().graph_edits(artefact.key).get("groups", [])}
    return _data.export(artefact, rows, shown, whole=view.whole)
