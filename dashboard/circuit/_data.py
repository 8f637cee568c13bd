"""A circuit as the page reads it: its edges by strength, and groups of its nodes that are proposed."""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from dashboard.components.pages import whole_number
from interp.artifacts import as_json
from interp.circuits.circuit import ABOUT, Circuit, Edge, EdgeEvidence, KeyEvidence
from interp.circuits.found_circuit import FoundCircuit, ScoredEdge, ScoredNode
from interp.errors import UnknownNameError
from interp.names import NodeName, parse_node

MAX_EDGES = 1000
"""Edges that the graph shows at most: with more it is unreadable and slow."""


@dataclass(frozen=True, kw_only=True)
class EdgeRow:
    """One edge to draw."""

    source: str
    target: str
    via: str | None = None
    position: int | None = None
    score: float | None = None
    exact: float | None = None
    low: float | None = None
    high: float | None = None
    rank: int | None = None
    """Row in the scored graph; None for an edge known only from the circuit."""
    member: bool = True
    """True for an edge of the circuit as it was found."""
    evidence: EdgeEvidence | None = None

    @property
    def id(self) -> str:
        """Name of the edge in addresses and tables."""
        return edge_id(self.source, self.target, self.via, self.position)

    @property
    def key(self) -> tuple[str, str, str | None, int | None]:
        """Source, target, input and position."""
        return self.source, self.target, self.via, self.position

    @property
    def ends(self) -> tuple[str, str]:
        """Names of both nodes."""
        return self.source, self.target

    @property
    def end_ids(self) -> tuple[str, str]:
        """Ids of both nodes in the graph, at the position of the edge."""
        return node_id(self.source, self.position), node_id(self.target, self.position)

    @property
    def size(self) -> float:
        """Absolute score, 0 without one."""
        return abs(self.score or 0.0)


@dataclass(frozen=True)
class ScoredEdges:
    """Edges to draw, strongest first, and the number of all scored edges."""

    rows: list[EdgeRow]
    total: int
    n_in_circuit: int
    """edges of the circuit itself"""
    everything: bool
    """True when the whole graph was scored; False when only the circuit itself is known."""
    group: int = 1
    """query heads that share one key and value (grouped-query attention): an edge into the first is an edge into all"""

    def strongest(self, n: int | None, *, paths: bool = False, limit: int | None = MAX_EDGES) -> list[EdgeRow]:
        """The `n` strongest by absolute score; None gives the circuit as it was found, up to `limit` edges.

        `paths` leaves out edges on no path from `embed` to `logits`, where the circuit reaches from one to the other.
        """
        members = [row for row in self.rows if row.member]
        rows = members[:limit] if n is None else self._ranked[: max(1, n)]
        return on_paths(rows, self.group) if paths and self.has_ends else rows

    def number(self, text: str) -> int | None:
        """Return the number of edges in an address, within what there is; None for the circuit as it was found."""
        n = whole_number(text)
        return None if n is None else max(1, min(n, self.limit))

    @property
    def has_ends(self) -> bool:
        """True when the embedding and the logits are among its nodes; an induction circuit ends at its heads."""
        return {"embed", "logits"} <= {end for row in self.rows for end in row.ends}

    @property
    def limit(self) -> int:
        """Return the largest number of edges that the slider can ask for."""
        return len(self._ranked)

    @property
    def _ranked(self) -> list[EdgeRow]:
        rows = self.rows if not self.everything else [row for row in self.rows if row.rank is not None]
        return rows[:MAX_EDGES]


def scored(artefact: FoundCircuit) -> ScoredEdges:
    """The strongest edges of the scored graph and every edge of the circuit, strongest first."""
    members = {edge.key: edge for edge in artefact.circuit.edges}
    if artefact.edge_scores is None:
        rows = sorted(map(_row_of, artefact.circuit.edges), key=_strength)
        return ScoredEdges(rows, len(rows), len(rows), everything=False, group=artefact.group_size)
    rows: list[EdgeRow] = []
    best = artefact.edge_scores.rows(order="abs(score) desc, source, target, via", limit=MAX_EDGES)
    for rank, scored_edge in enumerate(best):
        known = members.pop((scored_edge.source, scored_edge.target, scored_edge.via, scored_edge.position), None)
        evidence = None if known is None else known.evidence
        rows.append(EdgeRow(**vars(scored_edge), rank=rank, member=known is not None, evidence=evidence))
    ranked = sorted([*rows, *map(_row_of, members.values())], key=_strength)
    n = len(artefact.edge_scores), len(artefact.circuit.edges)
    return ScoredEdges(ranked, *n, everything=True, group=artefact.group_size)


def edge_id(source: str, target: str, via: str | None, position: int | None = None) -> str:
    """The name of an edge in addresses and tables: `L4H2-k-L5H1`, `embed--L0MLP`, `...@7` at a position."""
    return f"{source}-{via or ''}-{target}" + ("" if position is None else f"@{position}")


def node_id(name: str, position: int | None = None) -> str:
    """`L5H1`, or `L5H1@7` at a token position."""
    return name if position is None else f"{name}@{position}"


def on_paths(rows: list[EdgeRow], group: int = 1) -> list[EdgeRow]:
    """The rows on a path from `embed` to `logits`. A group reads a key or value together; positions count as one."""
    edges = [(row.source, reader) for row in rows for reader in readers(row.target, row.via, group)]
    ahead, behind = _reach(edges, "embed"), _reach([(b, a) for a, b in edges], "logits")
    return [row for row in rows if row.source in ahead and behind.intersection(readers(row.target, row.via, group))]


def readers(target: str, via: str | None, group: int) -> list[str]:
    """The nodes that read an edge: its target, or every head of the target's group.

    >>> readers("L5H3", "k", 3)
    ['L5H3', 'L5H4', 'L5H5']
    """
    if via not in ("k", "v") or group == 1:
        return [target]
    name = parse_node(target)
    first = (name.head or 0) // group * group
    return [f"L{name.layer}H{first + i}" for i in range(group)]


def _reach(edges: list[tuple[str, str]], start: str) -> set[str]:
    steps: dict[str, list[str]] = defaultdict(list)
    for a, b in edges:
        steps[a].append(b)
    seen, waiting = {start}, [start]
    while waiting:
        for name in steps[waiting.pop()]:
            if name not in seen:
                seen.add(name)
                waiting.append(name)
    return seen


def checked(artefact: FoundCircuit) -> list[ScoredEdge]:
    """Edges that were also patched one by one."""
    return [] if artefact.edge_scores is None else artefact.edge_scores.rows("exact is not null", limit=500)


def strongest_nodes(artefact: FoundCircuit, n: int) -> tuple[list[ScoredNode], int]:
    """The `n` nodes whose whole output scores highest, and how many were scored."""
    if artefact.node_scores is None:
        return [], 0
    return artefact.node_scores.rows(order="abs(score) desc, node", limit=n), len(artefact.node_scores)


def node_score(artefact: FoundCircuit, node: str, position: int | None = None) -> ScoredNode | None:
    """Score of the whole output of a node; None if it was not scored."""
    if artefact.node_scores is None:
        return None
    rows = artefact.node_scores.rows("node = ? and (position is null or position = ?)", node, position, limit=1)
    return rows[0] if rows else None


def check_chosen(chosen: str, scored_edges: ScoredEdges, artefact: FoundCircuit) -> str:
    """`chosen` when it names a node or an edge that is known here. Raises `UnknownNameError`."""
    edges = {row.id for row in scored_edges.rows}
    nodes = {node_id(n.name, n.position) for n in artefact.circuit.nodes} | {n.name for n in artefact.circuit.nodes}
    nodes |= {end for row in scored_edges.rows for end in (*row.ends, *row.end_ids)}
    bare, _, at = chosen.partition("@")
    if chosen not in edges | nodes and not node_score(artefact, bare, int(at) if at.isdecimal() else None):
        raise UnknownNameError("node or edge of this circuit", chosen, sorted(edges | nodes))
    return chosen


def as_shown(artefact: FoundCircuit, rows: list[EdgeRow], *, whole: bool) -> Circuit:
    """The circuit of `rows`; `whole` retains nodes that no edge touches."""
    names = {end for row in rows for end in row.ends}
    nodes = [node for node in artefact.circuit.nodes if whole or node.name in names]
    edges = [Edge(r.source, r.target, r.via, r.position, r.score, r.evidence) for r in rows]
    return Circuit.of(artefact.circuit.model, artefact.circuit.weight_hash, edges, nodes)


def export(artefact: FoundCircuit, rows: list[EdgeRow], shown: dict[str, Any], *, whole: bool) -> dict[str, object]:
    """Return the circuit of `rows` as JSON that `Circuit.load` reads, with what it was found by and `shown` of it.

    The verdict and evaluation apply to the circuit as found, and are left out when other edges are shown.
    """
    keys = {row.key for row in rows}
    provenance: dict[str, Any] = {"settings": artefact.settings, "shown": shown, "verdict": None, "evaluation": None}
    if keys == {edge.key for edge in artefact.circuit.edges}:
        provenance["verdict"] = artefact.verdict
        provenance["evaluation"] = {
            "measures": dict(artefact.measures()),
            "nulls": artefact.nulls(),
            "numbers": artefact.numbers(),
        }
        provenance["evaluation"] |= artefact.tables()
    return as_json(as_shown(artefact, rows, whole=whole)) | {ABOUT: as_json(provenance)}


def tokens(artefact: FoundCircuit) -> list[str]:
    """Tokens of the first stored prompt."""
    return list(artefact.prompts[0].clean) if artefact.prompts else []


def _row_of(edge: Edge) -> EdgeRow:
    low = high = None
    if isinstance(e := edge.evidence, KeyEvidence) and not (math.isnan(e.low) or math.isnan(e.high)):
        low, high = -e.high, -e.low  # the interval of a change, where the score is a drop
    return EdgeRow(
        source=edge.source, target=edge.target, via=edge.via, position=edge.position,
        score=edge.score, low=low, high=high, evidence=edge.evidence,
    )  # fmt: skip


def measured(row: EdgeRow) -> dict[str, Any]:
    """Return the numbers of an edge in the sign of its score, with the score first and its interval after it.

    The evidence of an induction circuit has changes of the metric (`effect`), while its score is the drop. Effects
    through other inputs then become drops too, and the effect itself repeats the score.
    """
    numbers = {"score": row.score, "low": row.low, "high": row.high, "exact": row.exact}
    scores = {key: value for key, value in numbers.items() if value is not None}
    evidence: dict[str, Any] = {} if row.evidence is None else as_json(row.evidence)
    if isinstance(row.evidence, KeyEvidence):
        evidence |= {"q_effect": -row.evidence.q_effect, "v_effect": -row.evidence.v_effect}
        evidence = {key: value for key, value in evidence.items() if key not in ("effect", "low", "high")}
    return scores | {key: value for key, value in evidence.items() if key not in scores}


def _strength(row: EdgeRow) -> float:
    return -row.size


PROPOSALS = {"role": "by role", "band": "by band of layers", "readers": "by shared readers"}
"""How nodes may be grouped automatically."""


def propose(kind: str, circuit: Circuit, rows: list[EdgeRow]) -> dict[str, list[str]]:
    """Return groups of at least two of the nodes in `rows`, by name.

    `role`: the same role. `band`: heads and MLPs of neighbouring layers, in thirds of the layers in use. `readers`:
    the same set of readers (at least half of them shared).
    """
    if kind not in PROPOSALS:
        raise UnknownNameError("proposal", kind, PROPOSALS)
    ids = {end for row in rows for end in row.end_ids}
    inner = [n for n in sorted(ids, key=lambda n: (node_of(n).order, n)) if node_of(n).layer is not None]
    makers = {"role": _by_role, "band": _by_band, "readers": _by_readers}
    parts = makers[kind](inner, circuit, rows)
    groups: dict[str, list[str]] = {}
    for name, members in parts:
        if len(members) > 1:
            groups[f"{name}, {members[0]}" if name in groups else name] = members
    return groups


def _by_role(names: list[str], circuit: Circuit, _rows: list[EdgeRow]) -> list[tuple[str, list[str]]]:
    roles: dict[str, list[str]] = defaultdict(list)
    known = {node.name: node.role for node in circuit.nodes if node.role}
    for name in names:
        if role := known.get(name.partition("@")[0]):
            roles[role].append(name)
    return [(role.replace("_", " "), members) for role, members in roles.items()]


def _by_band(names: list[str], _circuit: Circuit, _rows: list[EdgeRow]) -> list[tuple[str, list[str]]]:
    layers = sorted({node_of(n).layer or 0 for n in names})
    size = max(1, -(-len(layers) // 3))
    bands = [layers[i : i + size] for i in range(0, len(layers), size)]
    return [
        (
            f"layers {band[0]} to {band[-1]}" if len(band) > 1 else f"layer {band[0]}",
            [n for n in names if node_of(n).layer in band],
        )
        for band in bands
    ]


def _by_readers(names: list[str], _circuit: Circuit, rows: list[EdgeRow]) -> list[tuple[str, list[str]]]:
    readers: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        readers[row.end_ids[0]].add(f"{row.via or ''}-{row.target}")
    parts: list[tuple[set[str], list[str]]] = []
    for name in names:
        node_readers = readers.get(name)
        if not node_readers:
            continue
        for shared, members in parts:
            if len(node_readers & shared) * 2 >= len(node_readers | shared):
                members.append(name)
                break
        else:
            parts.append((node_readers, [name]))
    return [(f"read by {_short(shared)}", members) for shared, members in parts]


def _short(readers: set[str]) -> str:
    targets = sorted({r.split("-")[1] for r in readers}, key=lambda n: node_of(n).order)
    return targets[0] + (f" and {len(targets) - 1} more" if len(targets) > 1 else "")


def node_of(identity: str) -> NodeName:
    """Return the name of L5H1 for `L5H1@7`."""
    return parse_node(identity.partition("@")[0])
