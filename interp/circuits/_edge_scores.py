"""Scores of edges or nodes: rank them, bound them, verify the highest, select a circuit.

    scores = attribute(model, task)                  # interp.circuits.attribution
    scores.top(50)                                   # Circuit of the 50 highest-ranked edges, pruned
    verify_top_k(scores, model, task, 20).spearman    # against patching those 20 edges one by one

A score is the contribution of an edge to the metric, in the metric's unit; above 0 the edge raises the metric. The
sign is the same in both directions. Noising: m(clean) - m(clean with the edge corrupted). Denoising: m(corrupted with
the edge clean) - m(corrupted).

Pruning (`prune_edges`) removes edges on no path from `embed` to `logits`, which have no effect. A source without inputs
in the circuit has its value of the corrupted run, so edges from it change nothing. An edge into a node without a path
to the logits is not used. Removing both changes no measure of the circuit and gives its true size. Information moves
between positions through keys and values only, and only forwards.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from interp.artifacts import Table
from interp.circuits.circuit import Circuit, Edge, Node, NodeEffect
from interp.circuits.config import Ablation, By, Level, Method
from interp.circuits.found_circuit import Agreement, ScoredEdge, ScoredNode
from interp.circuits.graph import Graph
from interp.errors import ConfigError, UnknownNameError
from interp.models.short_name import short_name
from interp.names import parse_node
from interp.patching.patching_map import TaskSettings
from interp.results import ROWS, Record, Result
from interp.seeds import derive_seed
from interp.statistics import bootstrap_counts, expanded, percentile_interval, rank_correlation
from interp.view import Rows, View


def prune_edges(
    graph: Graph, included: Bool[Tensor, " n_edges"], length: int | None = None
) -> Bool[Tensor, " n_edges"]:
    """Remove edges on no path from `embed` to `logits` from `included [n_edges]` bool.

    In a graph over some of the `length` positions, the residual stream at the other positions is never replaced. Paths
    may therefore run through them as if all their edges were in the circuit. Without a length, one position after the
    last of the graph is assumed.
    """
    mask, chosen = graph.slot_mask(included), list(graph.positions or ())
    if chosen:
        whole = mask.new_ones(length or chosen[-1] + 2, *mask.shape[1:])
        whole &= torch.arange(graph.n_sources) < graph.sources_of_slot[:, None]
        whole[chosen] = mask
        mask = whole
    mask = mask & _reached(graph, mask)[:, None, :]
    mask &= _needed(graph, mask)[:, :, None]
    return included.cpu() & graph.edge_values((mask[chosen] if chosen else mask).float()).bool()


def _reached(graph: Graph, mask: Tensor) -> Tensor:
    """Return the sources whose output depends on `embed`, `[n_positions, n_sources]` bool."""
    alive = torch.zeros(len(mask), graph.n_sources, dtype=torch.bool)
    alive[:, 0] = True
    for layer in range(graph.n_layers):
        reads = (mask[:, graph.attention_slots(layer)] & alive[:, None, :]).any(2)
        q = reads[:, : graph.n_heads]
        kv = rearrange(reads[:, graph.n_heads :], "pos (side group) -> pos side group", side=2).any(1)
        kv = _earlier(graph, kv).repeat_interleave(graph.n_heads // graph.n_kv_heads, 1)
        alive[:, graph.head_sources(layer)] = q | kv
        if graph.has_mlp:
            alive[:, graph.mlp_source(layer)] = (mask[:, graph.mlp_slot(layer)] & alive).any(1)
    return alive


def _needed(graph: Graph, mask: Tensor) -> Tensor:
    """Return the inputs that the logits depend on, `[n_positions, n_slots]` bool."""
    needed = torch.zeros(mask.shape[:2], dtype=torch.bool)
    needed[:, graph.logits_slot] = True
    for layer in reversed(range(graph.n_layers)):
        if graph.has_mlp:
            source = graph.mlp_source(layer)
            needed[:, graph.mlp_slot(layer)] = (mask[:, :, source] & needed).any(1)
        heads = (mask[:, :, graph.head_sources(layer)] & needed[:, :, None]).any(1)
        groups = rearrange(_later(graph, heads), "pos (group head) -> pos group head", group=graph.n_kv_heads).any(2)
        needed[:, graph.side_slots(layer, "q")] = heads
        needed[:, graph.side_slots(layer, "k")] = groups
        needed[:, graph.side_slots(layer, "v")] = groups
    return needed


def _earlier(graph: Graph, flags: Tensor) -> Tensor:
    """Return true where a flag is true at this position or an earlier one."""
    if graph.positions is None:
        return flags
    return flags.long().cumsum(0).bool()


def _later(graph: Graph, flags: Tensor) -> Tensor:
    if graph.positions is None:
        return flags
    return flags.flip(0).long().cumsum(0).flip(0).bool()


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """Settings that the scores of edges depend on."""

    task: TaskSettings
    method: Method
    ablation: Ablation
    direction: Literal["noise", "denoise"]
    level: Level
    steps: int | None
    points: Literal["midpoint", "left"] | None
    """Gradients per prompt, and where they are taken, of eap-ig."""
    frozen: str | None
    """Part that all runs hold at its clean value; None for nothing."""
    taus: tuple[float, ...] = ()
    n_runs: int | None = None
    """Thresholds and runs of acdc."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeScores(Result):
    """One score per edge of a graph, or per source (`level="node"`)."""

    graph: Graph
    level: Level
    model: str
    weight_hash: str
    values: Float64[Tensor, " n"]
    """`[n_edges]` or `[n_sources]` float64, mean over prompts"""
    per_prompt: Float32[Tensor, "n_prompts n"] | None = None
    """`[n_prompts, n]` float32; None when too large to store"""
    length: int = 0
    """positions of the prompts, padding included"""
    settings: ScoreSettings

    def __len__(self) -> int:
        return len(self.values)

    def order(self, by: By = "abs") -> Int64[Tensor, " n"]:
        """Return indices in falling order of absolute score, or of signed score (largest contribution first)."""
        if by not in ("abs", "signed"):
            raise UnknownNameError("ranking", str(by), ["abs", "signed"])
        values = self.values.abs() if by == "abs" else self.values
        return values.argsort(descending=True, stable=True)

    def mask(self, n: int, by: By = "abs", prune: bool = True) -> Bool[Tensor, " n_edges"]:
        """Return the `n` highest-ranked edges, `[n_edges]` bool; for nodes, all edges among the `n` highest.

        `prune` removes edges on no path from `embed` to `logits`.
        """
        chosen = torch.zeros(len(self), dtype=torch.bool)
        chosen[self.order(by)[:n]] = True
        included = chosen if self.level == "edge" else self.edges_among(chosen)
        return prune_edges(self.graph, included, self.length) if prune else included

    def edges_among(self, sources: Bool[Tensor, " n_sources"]) -> Bool[Tensor, " n_edges"]:
        """Return the edges with both ends in `sources [n_sources]` bool, `[n_edges]` bool; the logits are always in."""
        number = {name: i for i, name in enumerate(self.graph.sources)}
        ends = torch.tensor([sources[number[node]] if node in number else True for node, _ in self.graph.readers])
        _, reader, source = self.graph.edge_table.unbind(1)
        grouped = self._group_ends(ends)
        return sources[source] & grouped[reader]

    def to_records(self) -> list[Record]:
        """Return one row per edge (`source, target, via, position, score`) or source (`node, score`), by absolute
        score.
        """
        return self._records(len(self))

    def view(self) -> View:
        what = "edges" if self.level == "edge" else "nodes"
        settings = f"task {self.settings.task.name}, metric {self.settings.task.metric}, method {self.settings.method}"
        yield f"Scores of {len(self):,} {what} of {short_name(self.model)} ({settings})"
        yield Rows(lambda: self._records(min(ROWS, len(self))))

    def _records(self, n: int) -> list[Record]:
        names = [(self.name(i), float(self.values[i])) for i in self.order()[:n].tolist()]
        return [
            {"node": name, "score": score}
            if isinstance(name, str)
            else {
                "source": name.source,
                "target": name.target,
                "via": name.via,
                "position": name.position,
                "score": score,
            }
            for name, score in names
        ]

    def _group_ends(self, ends: Tensor) -> Tensor:
        """Return `ends` with a shared key or value reader included when any head of its group is."""
        group = self.graph.n_heads // self.graph.n_kv_heads
        if group == 1:
            return ends
        ends = ends.clone()
        number = {reader: i for i, reader in enumerate(self.graph.readers)}
        for (node, via), i in number.items():
            if via in ("k", "v"):
                name = parse_node(node)
                heads = [f"L{name.layer}H{(name.head or 0) + more}" for more in range(group)]
                ends[i] = any(bool(ends[number[head, "q"]]) for head in heads)
        return ends

    def top(self, n: int, by: By = "abs", prune: bool = True) -> Circuit:
        """Return the circuit of the `n` highest-ranked edges (or nodes).

        Raises `ConfigError` unless `1 <= n <= len(self)`.
        """
        if not 1 <= n <= len(self):
            raise ConfigError(f"n must be from 1 to {len(self)}, got {n}")
        return self.circuit(self.mask(n, by, prune))

    def circuit(self, included: Bool[Tensor, " n_edges"]) -> Circuit:
        """Return the circuit of the edges `included [n_edges]` bool, with their scores."""
        scored = self.level == "edge"
        chosen = included.nonzero()[:, 0].tolist()
        edges = [self.graph.edge(i, float(self.values[i]) if scored else None) for i in chosen]
        touched = {name for edge in edges for name in (edge.source, edge.target)}
        nodes = [node for node in self._nodes() if node.name in touched]
        return Circuit.of(self.model, self.weight_hash, edges, nodes)

    def _nodes(self) -> Iterator[Node]:
        if self.level == "node":
            for name, value in zip(self.graph.sources, self.values.tolist(), strict=True):
                yield Node(name, evidence=NodeEffect(effect=value))

    def name(self, index: int) -> Edge | str:
        """Return the edge, or the name of the source."""
        return self.graph.edge(index, float(self.values[index])) if self.level == "edge" else self.graph.sources[index]

    def interval(
        self, confidence: float = 0.95, n_resamples: int = 1000, seed: int = 0
    ) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]] | None:
        """Return the percentile bootstrap interval over prompts, `(low, high)`, `[n]` float64 each.

        None without per-prompt scores.
        """
        if self.per_prompt is None or len(self.per_prompt) < 2:
            return None
        n = len(self.per_prompt)
        rng = np.random.default_rng(derive_seed(seed, "bootstrap scores"))
        weights = torch.from_numpy(bootstrap_counts(n, n_resamples, rng) / n).to(self.per_prompt.dtype)
        inside = expanded(confidence, n)
        ends = [
            percentile_interval(part.mean(0).numpy(), (weights @ part).numpy(), inside)[1:]
            for part in self.per_prompt.split(4096, dim=1)
        ]
        low, high = torch.from_numpy(np.concatenate(ends, axis=1)).double()
        return low, high


@dataclass(frozen=True, eq=False)
class Verified(Result):
    """Estimated scores of the highest-ranked edges (or nodes), and their exact effects by patching."""

    indices: Int64[Tensor, " k"]
    """`[k]` numbers of the edges (sources), highest estimate first"""
    estimated: Float[Tensor, " k"]
    exact: Float[Tensor, " k"]
    """`[k]` effect of patching this edge alone"""

    @property
    def spearman(self) -> float:
        """Spearman rank correlation of the absolute values, -1 to 1."""
        return rank_correlation(self.estimated.abs().numpy(), self.exact.abs().numpy())

    @property
    def pearson(self) -> float:
        """Pearson correlation of the signed values, -1 to 1."""
        return float(np.corrcoef(self.estimated, self.exact)[0, 1])

    def to_records(self) -> list[Record]:
        """Return one row per edge, highest estimate first: `edge` (its number), `estimated`, `exact`."""
        columns = (self.indices.tolist(), self.estimated.tolist(), self.exact.tolist())
        return [{"edge": i, "estimated": a, "exact": b} for i, a, b in zip(*columns, strict=True)]

    def view(self) -> View:
        yield (
            f"The {len(self.indices)} highest ranked, patched one by one: estimated and exact effects correlate by "
            f"{self.pearson:.2f} (Pearson), their sizes by {self.spearman:.2f} (Spearman)"
        )

    def agreement(self) -> Agreement:
        """Return both correlations."""
        return Agreement(n=len(self.indices), spearman_abs=self.spearman, pearson=self.pearson)


def edge_table(scores: EdgeScores, verified: Verified | None) -> Table[ScoredEdge]:
    """Return the scores of all edges, largest absolute score first."""
    edges, texts = [scores.graph.edge(i) for i in scores.order().tolist()], ("source", "target", "via")
    names = {part: pa.array([getattr(edge, part) for edge in edges], pa.string()) for part in texts}
    position = {"position": pa.array([edge.position for edge in edges], pa.int32())}
    return Table.of_columns(ScoredEdge, names | position | _score_columns(scores, verified))


def node_table(scores: EdgeScores, verified: Verified | None) -> Table[ScoredNode]:
    """Return the scores of all nodes, largest absolute score first."""
    names = [scores.graph.sources[i] for i in scores.order().tolist()]
    columns = {"node": names, "position": pa.nulls(len(names), pa.int32())}
    return Table.of_columns(ScoredNode, columns | _score_columns(scores, verified))


def _score_columns(scores: EdgeScores, verified: Verified | None) -> dict[str, pa.Array]:
    """Return the columns `score, exact, low, high`."""
    order, interval = scores.order(), scores.interval()
    exact = {} if verified is None else dict(zip(verified.indices.tolist(), verified.exact.tolist(), strict=True))
    columns = {"score": scores.values[order].tolist(), "exact": [exact.get(i) for i in order.tolist()]}
    for i, name in enumerate(("low", "high")):
        columns[name] = [None] * len(order) if interval is None else interval[i][order].tolist()
    return {name: pa.array(values, pa.float64()) for name, values in columns.items()}
