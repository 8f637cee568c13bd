"""A circuit: nodes and edges with their evidence, the settings that found it, its evaluation and verdict.

    circuit = Circuit.load(folder)
    circuit & other, circuit | other, circuit - other       # by node and edge names
    circuit.to_networkx(); circuit.to_json()

Node names: `embed` (token and position embedding: the first block's input), `L5H1` (a head), `L5MLP`, `logits`. The
`via` of an edge is the input of a head that it enters: q, k or v; None for an MLP or the logits. Under grouped-query
attention the heads of a group share k and v, so an edge into `L5H1` via k is an edge into every head of its group. With
positions, `position` is the token position of a node, and of the reader of an edge; None means all positions.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import CorruptError, MismatchError
from interp.names import parse_node
from interp.remote import as_path
from interp.results import Record, Result

if TYPE_CHECKING:
    import networkx

FILE = "circuit.json"
FORMAT = 1


@dataclass(frozen=True)
class Node:
    """One component of the model in a circuit."""

    name: str
    role: str | None = None
    """function of the node: `induction`, `previous_token`, ...; None when unknown"""
    position: int | None = None
    evidence: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def key(self) -> tuple[str, int | None]:
        return self.name, self.position


@dataclass(frozen=True)
class Edge:
    """Connection from the output of `source` to an input of `target`."""

    source: str
    target: str
    via: str | None = None
    position: int | None = None
    score: float | None = field(default=None, compare=False)
    """effect on the metric, in the metric's unit; sign and direction are in the circuit's settings"""
    evidence: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def key(self) -> tuple[str, str, str | None, int | None]:
        return self.source, self.target, self.via, self.position

    def __str__(self) -> str:
        return edge_text(self)


def _check_values(part: Node | Edge) -> None:
    """Raise `TypeError` where a value of a node or an edge is not of its type."""
    text, score = (part.role, None) if isinstance(part, Node) else (part.via, part.score)
    right = isinstance(text, str | None) and isinstance(score, int | float | None)
    if not (right and isinstance(part.position, int | None) and isinstance(part.evidence, dict)):
        raise TypeError(f"a value of {part} is of another type")


@dataclass(frozen=True)
class Circuit(Result):
    """Nodes and edges of one model, found with one set of settings.

    Two circuits are equal when their model, nodes and edges are equal; scores and evidence do not matter.
    """

    model: str
    weight_hash: str
    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict, compare=False)
    """task, metric, method, ablation, direction, seeds: all settings needed to find it again"""
    evaluation: dict[str, Any] = field(default_factory=dict, compare=False)
    """faithfulness and its nulls, when evaluated"""
    verdict: dict[str, Any] = field(default_factory=dict, compare=False)
    """`{"found": bool, "rule": text, "reason": text, ...}` where a stated rule was applied"""

    @classmethod
    def of(
        cls, model: str, weight_hash: str, edges: Iterable[Edge], nodes: Iterable[Node] = (), **rest: Any
    ) -> "Circuit":
        """Make a circuit from edges; ends that `nodes` does not name become plain nodes, sorted by layer, then name."""
        edges = tuple(edges)
        known = {node.name: node for node in nodes}
        for edge in edges:
            for name in (edge.source, edge.target):
                known.setdefault(name, Node(name))
        ordered = sorted(known.values(), key=lambda node: (parse_node(node.name).order, node.position or 0))
        return cls(model, weight_hash, tuple(ordered), edges, **rest)

    def __and__(self, other: "Circuit") -> "Circuit":
        self._same_model(other)
        nodes, edges = {n.key for n in other.nodes}, {e.key for e in other.edges}
        return self._keep(lambda n: n.key in nodes, lambda e: e.key in edges)

    def __sub__(self, other: "Circuit") -> "Circuit":
        """Return the edges that are not in `other`, and their nodes."""
        self._same_model(other)
        edges = {e.key for e in other.edges}
        left = tuple(e for e in self.edges if e.key not in edges)
        touched = {name for e in left for name in (e.source, e.target)}
        return replace(self, nodes=tuple(n for n in self.nodes if n.name in touched), edges=left)

    def __or__(self, other: "Circuit") -> "Circuit":
        self._same_model(other)
        nodes, edges = {n.key for n in self.nodes}, {e.key for e in self.edges}
        return replace(
            self,
            nodes=self.nodes + tuple(n for n in other.nodes if n.key not in nodes),
            edges=self.edges + tuple(e for e in other.edges if e.key not in edges),
        )

    def diff(self, other: "Circuit") -> dict[str, list[str]]:
        """Return `{"only_here": [...], "only_there": [...], "both": [...]}`, with edges as text."""
        self._same_model(other)
        here, there = {edge_text(e) for e in self.edges}, {edge_text(e) for e in other.edges}
        return {"only_here": sorted(here - there), "only_there": sorted(there - here), "both": sorted(here & there)}

    def prune(self, source: str = "embed", sink: str = "logits") -> "Circuit":
        """Remove edges on no path from `source` to `sink`, and nodes without edges."""
        ahead = _reach(self.edges, source, forwards=True)
        behind = _reach(self.edges, sink, forwards=False)
        alive = ahead & behind
        included = tuple(e for e in self.edges if e.source in alive and e.target in alive)
        touched = {name for e in included for name in (e.source, e.target)}
        return replace(self, nodes=tuple(n for n in self.nodes if n.name in touched), edges=included)

    def to_networkx(self) -> "networkx.MultiDiGraph":
        """Return a directed multigraph; node and edge attributes are the fields, edge keys the `via`."""
        import networkx as nx

        graph = nx.MultiDiGraph(model=self.model, **self.settings)
        for node in self.nodes:
            graph.add_node(node.name, role=node.role, position=node.position, **node.evidence)
        for edge in self.edges:
            graph.add_edge(edge.source, edge.target, key=edge.via, score=edge.score, position=edge.position)
        return graph

    def to_records(self) -> list[Record]:
        """Return one row per edge: `source, target, via, position, score`."""
        return [
            {"source": e.source, "target": e.target, "via": e.via, "position": e.position, "score": e.score}
            for e in self.edges
        ]

    def headline(self) -> str:
        """Return one line: the numbers of nodes and edges, and the verdict."""
        size = f"Circuit of {self.model}: {len(self.nodes)} nodes, {len(self.edges)} edges"
        reason = self.verdict.get("reason")
        return f"{size}. {reason}" if reason else size

    def shown(self) -> list[Record]:
        """Return the edges, largest scores first."""
        return sorted(self.to_records(), key=lambda row: -abs(row["score"] or 0.0))

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as on disk (docs/formats.md)."""
        return {
            "format": FORMAT,
            "model": self.model,
            "weight_hash": self.weight_hash,
            "nodes": [_plain(node, ("position",)) for node in self.nodes],
            "edges": [_plain(edge, ("position", "score")) for edge in self.edges],
            "settings": self.settings,
            "evaluation": self.evaluation,
            "verdict": self.verdict,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any], where: str = "circuit") -> "Circuit":
        """Make a circuit from plain values. Raises `CorruptError`, naming `where`, for anything else."""
        try:
            nodes = tuple(Node(**node) for node in data["nodes"])
            edges = tuple(Edge(**edge) for edge in data["edges"])
            for name in {n.name for n in nodes} | {e.source for e in edges} | {e.target for e in edges}:
                parse_node(name)
            for each in (*nodes, *edges):
                _check_values(each)
            parts = {name: dict(data.get(name, {})) for name in ("settings", "evaluation", "verdict")}
            return cls(str(data["model"]), str(data["weight_hash"]), nodes, edges, **parts)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptError(f"{where} is not a circuit: {error!r}; see docs/formats.md") from error

    @classmethod
    def load(cls, path: Path | str) -> "Circuit":
        """Read a circuit folder or a .json file. Raises `MissingError` or `CorruptError`."""
        from interp.errors import MissingError

        path = as_path(path)
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            raise MissingError(f"there is no circuit at {path}")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CorruptError(f"{path} cannot be read as JSON: {error}") from error
        if not isinstance(data, dict):
            raise CorruptError(f"{path} is not a circuit: a JSON object was expected")
        return cls.from_json(data, str(path))

    def check_model(self, weight_hash: str) -> None:
        """Raise `MismatchError` when the circuit was found in other weights."""
        if weight_hash != self.weight_hash:
            raise MismatchError(
                f"the circuit was found in {self.model} with weights {self.weight_hash[:12]}, these are "
                f"{weight_hash[:12]}; load the model that it belongs to"
            )

    def _same_model(self, other: "Circuit") -> None:
        other.check_model(self.weight_hash)

    def _keep(self, node: Any, edge: Any) -> "Circuit":
        return replace(self, nodes=tuple(filter(node, self.nodes)), edges=tuple(filter(edge, self.edges)))


def edge_text(edge: Edge) -> str:
    """Return an edge as text: `L4H2 -k-> L5H1`, `embed -> L0MLP`; with a position `... @7`."""
    arrow = "->" if edge.via is None else f"-{edge.via}->"
    return f"{edge.source} {arrow} {edge.target}" + ("" if edge.position is None else f" @{edge.position}")


def _plain(value: Node | Edge, optional: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields, without optional ones that are None."""
    return {k: v for k, v in vars(value).items() if not (k in optional and v is None)}


def _reach(edges: tuple[Edge, ...], start: str, forwards: bool) -> set[str]:
    steps: dict[str, set[str]] = {}
    for edge in edges:
        a, b = (edge.source, edge.target) if forwards else (edge.target, edge.source)
        steps.setdefault(a, set()).add(b)
    seen, waiting = {start}, [start]
    while waiting:
        for name in steps.get(waiting.pop(), set()) - seen:
            seen.add(name)
            waiting.append(name)
    return seen
