"""An attribution graph as a value and as an artefact. Torch-free: pages and scripts read it without a model.

    graph = AttributionGraph.load("workspace/graphs/capital")
    print(graph)                              # scores, and the nodes with the largest influence
    graph.edges_into(node), graph.edges_from(node)

An artefact of kind `attribution_graph` holds `graph.json` (prompt, targets, scores, settings), `nodes.parquet` and
`edges.parquet`. Node ids are `feature:LAYER:POSITION:LATENT`, `error:LAYER:POSITION`, `token:POSITION:TOKEN` and
`logit:POSITION:TARGET`, where TARGET counts the targets from 0.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from interp.artifacts import Draft, Manifest, read_json, read_manifest, read_table, write_json, write_table
from interp.errors import ConfigError, CorruptError, MismatchError, UnknownNameError
from interp.remote import as_path
from interp.results import Record, Result

if TYPE_CHECKING:
    import pyarrow as pa

FILE, NODES, EDGES = "graph.json", "nodes.parquet", "edges.parquet"
VARIANTS = "variants.parquet"
"""Flows over the words of a template, where the graph was traced with one."""
KIND = "attribution_graph"
FORMAT = 1

NodeKind = Literal["feature", "error", "token", "logit"]
NODE_KINDS: tuple[NodeKind, ...] = get_args(NodeKind)


@dataclass(frozen=True)
class GraphNode:
    """One node of an attribution graph."""

    kind: NodeKind
    layer: int
    """layer of a latent or an error; -1 for a token, `n_layers` for a logit"""
    position: int
    index: int
    """latent in its dictionary, token id of a token, number of the target of a logit; -1 for an error"""
    activation: float = 0.0
    """of a latent, in the units of its dictionary; 0 for other nodes"""
    influence: float = 0.0
    """influence on the targets, absolute: the sum over nodes that lead straight to the targets is 1"""
    share: float = 1.0
    """cumulative share of the influence of all nodes, in descending order: low is important"""
    kept: bool = True
    """part of the graph that is pruned at the default thresholds"""
    probability: float = 0.0
    """of a logit: probability of the token, or weight of the target"""
    label: str = ""

    @property
    def id(self) -> str:
        parts: tuple[Any, ...] = {
            "feature": (self.layer, self.position, self.index),
            "error": (self.layer, self.position),
        }.get(self.kind, (self.position, self.index))
        return ":".join([self.kind, *map(str, parts)])


@dataclass(frozen=True)
class GraphEdges:
    """Edges as arrays of one length, each row one edge."""

    source: np.ndarray
    """number of the source node, int32"""
    target: np.ndarray
    weight: np.ndarray
    """direct effect of the source's value on the target's input, signed, float32"""
    share: np.ndarray
    """cumulative share of edge scores, in descending order: low is important"""
    kept: np.ndarray
    """part of the graph that is pruned at the default thresholds, bool"""

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class GraphTarget:
    """One explained output: a token's logit less the mean logit, or less that of `contrast`, or a latent."""

    label: str
    token: int | None = None
    contrast: int | None = None
    weight: float = 1.0
    """share of the influence that starts here: the token's probability"""


@dataclass(frozen=True, repr=False)
class AttributionGraph(Result):
    """Direct effects between tokens, latents, errors and targets on one prompt."""

    model: str
    weight_hash: str
    dictionary: str
    """name of the set of transcoders, or `neurons`"""
    prompt: str
    tokens: tuple[int, ...]
    token_texts: tuple[str, ...]
    n_layers: int
    targets: tuple[GraphTarget, ...]
    nodes: tuple[GraphNode, ...]
    edges: GraphEdges
    scores: dict[str, Any] = field(default_factory=dict)
    """`replacement`, `completeness` and their baselines; `effects`: agreement with the free model"""
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.nodes)
        ends = np.concatenate([self.edges.source, self.edges.target]) if len(self.edges) else np.zeros(0, int)
        if len(ends) and (ends.min() < 0 or ends.max() >= n):
            odd = int(ends[(ends < 0) | (ends >= n)][0])
            raise CorruptError(f"an edge names node {odd} of {n}; the files were edited or cut short")

    @cached_property
    def number(self) -> dict[str, int]:
        """Map each node id to its number, the index into `nodes`."""
        return {node.id: i for i, node in enumerate(self.nodes)}

    def node(self, name: str) -> GraphNode:
        """Return the node with an id. Raises `UnknownNameError`."""
        if name not in self.number:
            raise UnknownNameError("node", name, list(self.number))
        return self.nodes[self.number[name]]

    def edges_into(self, name: str) -> list[Record]:
        """Return `node, weight, share` of every source of a node, largest absolute weight first."""
        return self._beside(name, self.edges.target, self.edges.source)

    def edges_from(self, name: str) -> list[Record]:
        """Return `node, weight, share` of every target of a node, largest absolute weight first."""
        return self._beside(name, self.edges.source, self.edges.target)

    def _beside(self, name: str, own: np.ndarray, other: np.ndarray) -> list[Record]:
        self.node(name)
        rows = np.flatnonzero(own == self.number[name])
        rows = rows[np.argsort(-np.abs(self.edges.weight[rows]), kind="stable")]
        return [
            {
                "node": self.nodes[other[i]].id,
                "weight": float(self.edges.weight[i]),
                "share": float(self.edges.share[i]),
            }
            for i in rows.tolist()
        ]

    def to_records(self) -> list[Record]:
        """Return one row per node, the largest influence first: its fields and its id."""
        rows = [{"node": node.id, **asdict(node)} for node in self.nodes]
        return sorted(rows, key=lambda row: (-row["influence"], row["node"]))

    def edge_records(self) -> list[Record]:
        """Return one row per edge, the most important first: `source, target, weight, share, kept`."""
        order = np.argsort(self.edges.share, kind="stable").tolist()
        names = [node.id for node in self.nodes]
        return [
            {
                "source": names[self.edges.source[i]],
                "target": names[self.edges.target[i]],
                "weight": float(self.edges.weight[i]),
                "share": float(self.edges.share[i]),
                "kept": bool(self.edges.kept[i]),
            }
            for i in order
        ]

    def shown(self) -> list[Record]:
        """Return the kept nodes, with the columns that fit a line."""
        columns = ("node", "label", "activation", "influence", "share")
        return [{name: row[name] for name in columns} for row in self.to_records() if row["kept"]]

    def headline(self) -> str:
        """Return the prompt, the targets, and the scores beside their baselines."""
        aims = ", ".join(f"{target.label!r} ({target.weight:.0%})" for target in self.targets[:3])
        kept, edges = sum(node.kept for node in self.nodes), int(self.edges.kept.sum())
        lines = [f"Attribution graph of {self.prompt!r} in {self.model} with {self.dictionary}, for {aims}."]
        lines.append(f"Pruned to {kept} of {len(self.nodes)} stored nodes and {edges} of {len(self.edges)} edges.")
        beyond = self.settings.get("edges_kept", edges) - edges
        lines += [f"{beyond} weaker edges of the pruned graph are not stored."] if beyond > 0 else []
        return " ".join([*lines, *score_sentences(self.scores)])

    def check_model(self, weight_hash: str) -> None:
        """Raise `MismatchError` when the graph was traced in other weights."""
        if weight_hash != self.weight_hash:
            raise MismatchError(
                f"the graph was traced in {self.model} with weights {self.weight_hash[:12]}, these are "
                f"{weight_hash[:12]}; load the model that it belongs to"
            )

    def write(self, draft: Draft, parents: dict[str, str], **summary: Any) -> Manifest:
        """Write the three files into a draft of kind `attribution_graph` and finish it; `summary` adds to its own."""
        about = {name: getattr(self, name) for name in _ABOUT}
        write_json(draft.path / FILE, {"format": FORMAT, **about, "targets": [asdict(each) for each in self.targets]})
        write_table(draft.path / NODES, _node_table(self.nodes))
        write_table(draft.path / EDGES, _edge_table(self.edges))
        kept = {"nodes_kept": sum(node.kept for node in self.nodes), "edges_kept": int(self.edges.kept.sum())}
        aims = [target.label for target in self.targets]
        return draft.finish(
            summary={"prompt": self.prompt, "targets": aims, "nodes": len(self.nodes), "edges": len(self.edges)}
            | kept
            | summary
            | {name: value for name, value in self.scores.items() if isinstance(value, int | float)},
            parents=parents,
        )

    @classmethod
    def load(cls, folder: Path | str) -> "AttributionGraph":
        """Read an artefact. Raises `MissingError`, or `CorruptError` for damaged files and those that do not fit."""
        folder = as_path(folder)
        manifest = read_manifest(folder)
        if manifest.kind != KIND:
            raise ConfigError(f"{folder} holds a {manifest.kind}, an attribution graph was expected")
        about = read_json(folder / FILE)
        try:
            nodes = _checked(read_table(folder / NODES), _node_table(())).to_pylist()
            edges = _checked(read_table(folder / EDGES), _edge_table(NO_EDGES))
            if unknown := {row["kind"] for row in nodes} - set(NODE_KINDS):
                raise ValueError(f"unknown kind of node {min(unknown)!r}")
            values: dict[str, Any] = {name: _of_form(about[name], form, name) for name, form in _ABOUT.items()}
            for name, value in values["scores"].items():
                _of_form(value, dict if name == "effects" else int | float | None, name)
            values["targets"] = tuple(_target(each) for each in _of_form(about["targets"], list, "targets"))
            for name, form in (("tokens", int), ("token_texts", str)):
                values[name] = tuple(_of_form(each, form, name) for each in values[name])
            columns = {name: edges[name].to_numpy() for name in ("source", "target", "weight", "share", "kept")}
            return cls(**values, nodes=tuple(GraphNode(**row) for row in nodes), edges=GraphEdges(**columns))
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptError(f"{folder} is not an attribution graph ({error!r}); trace it again") from error


_ABOUT: dict[str, Any] = {
    **dict.fromkeys(("model", "weight_hash", "dictionary", "prompt"), str),
    **{"tokens": list, "token_texts": list, "n_layers": int, "scores": dict, "settings": dict},
}


def _of_form(value: Any, form: Any, name: str) -> Any:
    """Return a value. Raises `TypeError` where it has another type."""
    if not isinstance(value, form):
        raise TypeError(f"{name} holds {value!r:.40}")
    return value


def _target(given: dict[str, Any]) -> GraphTarget:
    target = GraphTarget(**given)
    for name, form in (("label", str), ("token", int | None), ("contrast", int | None), ("weight", int | float)):
        _of_form(getattr(target, name), form, name)
    return target


def score_sentences(scores: dict[str, Any]) -> list[str]:
    """Return the scores of a graph in sentences, each beside its baselines."""
    lines = []
    for name in ("replacement", "completeness"):
        if name not in scores:
            continue
        baselines = [
            f"{text} {scores[f'{name}_{key}']:.2f}"
            for key, text in (("floor", "without any latent"), ("untrained", "untrained dictionary"))
            if scores.get(f"{name}_{key}") is not None
        ]
        beside = f" ({', '.join(baselines)}; 1 is perfect)" if baselines else " (1 is perfect)"
        lines.append(f"{name.capitalize()} score {scores[name]:.2f}{beside}.")
    effects = scores.get("effects")
    if effects:
        lines.append(
            f"Ablated in the free model, {effects['n']} latents had effects of slope {effects['slope']:.2f} and rank "
            f"correlation {effects['spearman']:.2f} [{effects['spearman_low']:.2f}, {effects['spearman_high']:.2f}] "
            "with the prediction."
        )
    return lines


NO_EDGES = GraphEdges(*(np.zeros(0, kind) for kind in (np.int32, np.int32, np.float32, np.float64, bool)))


def _checked(table: "pa.Table", like: "pa.Table") -> "pa.Table":
    """Return a table that has the columns and types of another and no nulls. Raises `ValueError`."""
    found, expected = ({(each.name, str(each.type)) for each in one.schema} for one in (table, like))
    if found != expected:
        name, kind = min(found ^ expected)
        raise ValueError(f"column {name} of type {kind} is {'missing' if (name, kind) in expected else 'unknown'}")
    if any(column.null_count for column in table.columns):
        raise ValueError("a value is missing")
    return table


def _node_table(nodes: Sequence[GraphNode]) -> "pa.Table":
    import pyarrow as pa

    types = {
        "kind": pa.string(), "layer": pa.int32(), "position": pa.int32(), "index": pa.int64(),
        "activation": pa.float32(), "influence": pa.float64(), "share": pa.float64(), "kept": pa.bool_(),
        "probability": pa.float64(), "label": pa.string(),
    }  # fmt: skip
    return pa.table({name: pa.array([getattr(node, name) for node in nodes], kind) for name, kind in types.items()})


def _edge_table(edges: GraphEdges) -> "pa.Table":
    import pyarrow as pa

    return pa.table(
        {
            "source": edges.source.astype(np.int32),
            "target": edges.target.astype(np.int32),
            "weight": edges.weight.astype(np.float32),
            "share": edges.share.astype(np.float64),
            "kept": edges.kept.astype(bool),
        }
    )
