"""A circuit: nodes and edges of one model, with their evidence.

    circuit = Circuit.load(folder)                          # the circuit.json of an artefact, or any such file
    circuit & other, circuit | other, circuit - other       # by node and edge names
    circuit.to_networkx()

Node names: `embed` (token and position embedding: the first block's input), `L5H1` (a head), `L5MLP`, `logits`.
The `via` of an edge is the input of
a head that it enters: q, k or v; None for an MLP or the logits. Under grouped-query attention the heads of a group
share k and v, so an edge into `L5H1` via k is an edge into every head of its group. With positions, `position` is the
token position of a node, and of the reader of an edge; None means all positions. Torch-free.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from interp.artifacts import Measured, read_json
from interp.errors import MismatchError
from interp.forms import from_json
from interp.models.short_name import short_name
from interp.names import parse_node
from interp.results import Record, Result
from interp.view import Rows, View

if TYPE_CHECKING:
    import networkx

FILE = "circuit.json"
ABOUT = "about"
"""Key of an exported circuit that holds settings, verdict and evaluation."""


@dataclass(frozen=True, kw_only=True)
class NodeEffect:
    """Effect on the metric of all that a node writes, with its 95 % interval over prompts where there is one."""

    effect: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class HeadEvidence:
    """Evidence for the role of a head in an induction circuit."""

    induction_score: float
    induction_score_tl: float
    previous_token_score: float
    p_holm: float | None
    """Of an induction head, corrected for all heads."""
    loss_first_half: float | None
    loss_second_half: float | None
    """Change of the loss when the head is ablated, in nats; None where it was not ablated by itself."""
    low: float | None
    high: float | None
    """Interval of the second."""
    ov_copying: float | None
    """Eigenvalue score of its OV circuit, -1 to 1; None where it was not scored."""
    ov_top1: float | None
    """Fraction of tokens that it raises most, 0 to 1."""
    ov_copying_through_block_0: float | None
    ov_top1_through_block_0: float | None
    """The same with embeddings passed through block 0."""


@dataclass(frozen=True, kw_only=True)
class KeyEvidence:
    """Evidence that an induction head reads its sender through its keys; effects are changes of its strict score."""

    effect: float
    low: Measured
    high: Measured
    share_of_score: Measured
    """Fall of the score as a fraction of it."""
    q_effect: float
    v_effect: float
    """Effects of the same sender through the queries, and through the values of all candidates."""
    null_high: Measured
    """Upper end of the fall by the strongest control sender."""
    loss_second_half_k: float | None
    loss_second_half_q: float | None
    loss_second_half_v: float | None
    """Change of the loss by patching the sender into this input of all candidates, in nats; None: not measured."""
    composition: float | None
    composition_null_high: float | None
    composition_is_argmax: bool | None
    """K-composition of the weights, its null, and whether the sender is the strongest of this reader."""


@dataclass(frozen=True, kw_only=True)
class OutputEvidence:
    """Direct effect of an induction head on the logit of the right next token, above the mean logit."""

    logit_effect: float
    low: Measured
    high: Measured
    logit_effect_of_other_head: float | None
    """Of the strongest head of the layer that is not an induction head."""
    ov_copying: float | None
    """Eigenvalue score of its OV circuit, -1 to 1; None where it was not scored."""
    ov_top1: float | None
    """Fraction of tokens that it raises most, 0 to 1."""
    ov_copying_through_block_0: float | None
    ov_top1_through_block_0: float | None
    """The same with embeddings passed through block 0."""


NodeEvidence = NodeEffect | HeadEvidence
EdgeEvidence = KeyEvidence | OutputEvidence


@dataclass(frozen=True)
class Node:
    """One component of the model in a circuit."""

    name: str
    role: str | None = None
    """function of the node: `induction`, `previous_token`, ...; None when unknown"""
    position: int | None = None
    evidence: NodeEvidence | None = field(default=None, compare=False)

    @property
    def key(self) -> tuple[str, int | None]:
        return self.name, self.position

    @property
    def effect(self) -> float | None:
        """Effect on the metric of all that it writes; None where it was not measured."""
        return self.evidence.effect if isinstance(self.evidence, NodeEffect) else None


@dataclass(frozen=True)
class Edge:
    """Connection from the output of `source` to an input of `target`."""

    source: str
    target: str
    via: str | None = None
    position: int | None = None
    score: float | None = field(default=None, compare=False)
    """effect on the metric, in the metric's unit"""
    evidence: EdgeEvidence | None = field(default=None, compare=False)

    @property
    def key(self) -> tuple[str, str, str | None, int | None]:
        return self.source, self.target, self.via, self.position

    def __str__(self) -> str:
        return edge_text(self)


@dataclass(frozen=True)
class Circuit(Result):
    """Nodes and edges of one model.

    Two circuits are equal when their model, nodes and edges are equal; scores and evidence do not matter.
    """

    model: str
    weight_hash: str
    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()

    def __post_init__(self) -> None:
        for name in {node.name for node in self.nodes} | self._touched(self.edges):
            parse_node(name)

    @classmethod
    def of(cls, model: str, weight_hash: str, edges: Iterable[Edge], nodes: Iterable[Node] = ()) -> "Circuit":
        """Make a circuit from edges; ends that `nodes` does not name become plain nodes, sorted by layer, then name."""
        edges = tuple(edges)
        known = {node.name: node for node in nodes}
        for edge in edges:
            for name in (edge.source, edge.target):
                known.setdefault(name, Node(name))
        ordered = sorted(known.values(), key=lambda node: (parse_node(node.name).order, node.position or 0))
        return cls(model, weight_hash, tuple(ordered), edges)

    def __and__(self, other: "Circuit") -> "Circuit":
        self._same_model(other)
        nodes, edges = {n.key for n in other.nodes}, {e.key for e in other.edges}
        return self._keep(lambda n: n.key in nodes, lambda e: e.key in edges)

    def __sub__(self, other: "Circuit") -> "Circuit":
        """Return the edges that are not in `other`, and their nodes."""
        self._same_model(other)
        edges = {e.key for e in other.edges}
        left = tuple(e for e in self.edges if e.key not in edges)
        touched = self._touched(left)
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
        left, right = {edge_text(e) for e in self.edges}, {edge_text(e) for e in other.edges}
        return {"only_here": sorted(left - right), "only_there": sorted(right - left), "both": sorted(left & right)}

    def prune(self, source: str = "embed", sink: str = "logits") -> "Circuit":
        """Remove edges on no path from `source` to `sink`, and nodes without edges."""
        ahead = _reach(self.edges, source, forwards=True)
        behind = _reach(self.edges, sink, forwards=False)
        alive = ahead & behind
        included = tuple(e for e in self.edges if e.source in alive and e.target in alive)
        touched = self._touched(included)
        return replace(self, nodes=tuple(n for n in self.nodes if n.name in touched), edges=included)

    def to_networkx(self) -> "networkx.MultiDiGraph":
        """Return a directed multigraph; node and edge attributes are the fields, edge keys the `via`."""
        import networkx as nx

        graph = nx.MultiDiGraph(model=self.model)
        for node in self.nodes:
            evidence = {} if node.evidence is None else asdict(node.evidence)
            graph.add_node(node.name, role=node.role, position=node.position, **evidence)
        for edge in self.edges:
            graph.add_edge(edge.source, edge.target, key=edge.via, score=edge.score, position=edge.position)
        return graph

    def to_records(self) -> list[Record]:
        """Return one row per edge: `source, target, via, position, score`."""
        return [
            {"source": e.source, "target": e.target, "via": e.via, "position": e.position, "score": e.score}
            for e in self.edges
        ]

    def view(self) -> View:
        yield f"Circuit of {short_name(self.model)}: {len(self.nodes)} nodes, {len(self.edges)} edges"
        yield Rows(lambda: sorted(self.to_records(), key=lambda row: -abs(row["score"] or 0.0)))

    @classmethod
    def load(cls, path: Path | str) -> "Circuit":
        """Read the circuit of an artefact folder, or a .json file such as an export of the page, without its `ABOUT`.

        Raises `MissingError` or `CorruptError`.
        """
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        return from_json(cls, {key: value for key, value in read_json(path).items() if key != ABOUT}, path)

    def check_model(self, weight_hash: str) -> None:
        """Raise `MismatchError` when the circuit was found in other weights."""
        if weight_hash != self.weight_hash:
            raise MismatchError(
                f"the circuit was found in {self.model} with weights {self.weight_hash[:12]}, these are "
                f"{weight_hash[:12]}; load the model that it belongs to"
            )

    def _same_model(self, other: "Circuit") -> None:
        other.check_model(self.weight_hash)

    def _keep(self, node: Callable[[Node], bool], edge: Callable[[Edge], bool]) -> "Circuit":
        return replace(self, nodes=tuple(filter(node, self.nodes)), edges=tuple(filter(edge, self.edges)))

    @staticmethod
    def _touched(edges: Iterable[Edge]) -> set[str]:
        """Return the names of the ends of edges."""
        return {name for edge in edges for name in (edge.source, edge.target)}


def edge_text(edge: Edge) -> str:
    """Return an edge as text: `L4H2 -k-> L5H1`, `embed -> L0MLP`; with a position `... @7`."""
    arrow = "->" if edge.via is None else f"-{edge.via}->"
    return f"{edge.source} {arrow} {edge.target}" + ("" if edge.position is None else f" @{edge.position}")


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
