"""The edges a circuit can be made of: what each part writes, as each later part reads it.

Sources write to the residual stream, in the order in which the model computes them: `embed` (token and position
embedding: the input of the first block), the heads of a layer, its MLP, and so on. Readers take it up: the query, key
and value input of every head, the MLPs, and `logits`. An edge is one source as one reader sees it. Biases belong to no
source: they are constants and stay whatever is replaced (an MLP's output bias is part of its output).

Under grouped-query attention keys and values are read once per group, so a k or v edge exists once per group and
bears the name of the group's first head. In models whose MLP runs beside attention (GPT-NeoX) the MLP does not see
the heads of its own layer.

    graph = Graph.from_model(model)            # 81 edges for two attention-only layers of four heads
    graph.edge(0), graph.index(edge)           # edges are numbered; scores are [n_edges]
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from interp.circuits.circuit import Circuit, Edge, edge_text
from interp.errors import ConfigError, UnknownNameError
from interp.models.residual import SIDES, Side
from interp.names import parse_node


@dataclass(frozen=True, kw_only=True)
class Graph:
    """All edges of one model's anatomy. Holds no weights; two models of the same shape have equal graphs.

    A *slot* is one physical input: the query input of one head, the key input of one group. With `split_qkv` readers
    and slots are the same; without, the three slots of a head are one reader.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    has_mlp: bool
    parallel: bool = False
    """the MLP reads the block's input, not the stream after attention"""
    split_qkv: bool = True
    positions: tuple[int, ...] | None = None
    """token positions with edges of their own; the stream at all other positions is never replaced. None: one edge
    stands for all positions"""

    @classmethod
    def from_model(cls, model: Any, *, split_qkv: bool = True, positions: Sequence[int] | None = None) -> "Graph":
        """The graph of a model.

        Raises `ConfigError` where the residual is no plain sum (post-norm models), and where heads of a group share
        keys and values but `split_qkv` is off; on positions that are negative or repeated.
        """
        from interp.models.residual import ResidualStream

        residual = ResidualStream(model)
        shape = residual.shape
        if not split_qkv and shape.n_kv_heads != shape.n_heads:
            raise ConfigError(
                f"{shape.n_heads} query heads share {shape.n_kv_heads} key-value heads, so the input of one head "
                "cannot be replaced as a whole; use split_qkv=True"
            )
        if positions is not None and (not positions or min(positions) < 0 or len(set(positions)) < len(positions)):
            raise ConfigError(f"positions must be different and counted from 0, got {list(positions)}")
        return cls(
            n_layers=shape.n_layers,
            n_heads=shape.n_heads,
            n_kv_heads=shape.n_kv_heads,
            has_mlp=residual.has_mlp,
            parallel=residual.parallel,
            split_qkv=split_qkv,
            positions=None if positions is None else tuple(sorted(positions)),
        )

    # Sources, in the order of computation: embed, then per layer its heads and its MLP.

    @property
    def sources_per_layer(self) -> int:
        return self.n_heads + self.has_mlp

    @property
    def n_sources(self) -> int:
        return 1 + self.n_layers * self.sources_per_layer

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, in order."""
        names = ["embed"]
        for layer in range(self.n_layers):
            names += [f"L{layer}H{head}" for head in range(self.n_heads)] + [f"L{layer}MLP"] * self.has_mlp
        return tuple(names)

    def head_sources(self, layer: int) -> slice:
        """The sources that are heads of a layer."""
        start = self.before(layer)
        return slice(start, start + self.n_heads)

    def mlp_source(self, layer: int) -> int:
        return self.before(layer) + self.n_heads

    def before(self, layer: int) -> int:
        """How many sources precede the attention of a layer (`n_layers`: the logits)."""
        return 1 + layer * self.sources_per_layer

    def before_mlp(self, layer: int) -> int:
        """How many sources the MLP of a layer sees."""
        return self.before(layer) + (0 if self.parallel else self.n_heads)

    # Slots: per layer q of every head, k and v of every group, the MLP; at the end the logits.

    @property
    def slots_per_layer(self) -> int:
        return self.n_heads + 2 * self.n_kv_heads + self.has_mlp

    @property
    def n_slots(self) -> int:
        return self.n_layers * self.slots_per_layer + 1

    def attention_slots(self, layer: int) -> slice:
        """The slots of a layer's attention: q, then k, then v."""
        start = layer * self.slots_per_layer
        return slice(start, start + self.n_heads + 2 * self.n_kv_heads)

    def side_slots(self, layer: int, side: Side) -> slice:
        """The slots of one side, one per query head or per group."""
        start = layer * self.slots_per_layer
        if side == "q":
            return slice(start, start + self.n_heads)
        start += self.n_heads + (self.n_kv_heads if side == "v" else 0)
        return slice(start, start + self.n_kv_heads)

    def mlp_slot(self, layer: int) -> int:
        return (layer + 1) * self.slots_per_layer - 1

    @property
    def logits_slot(self) -> int:
        return self.n_slots - 1

    @cached_property
    def readers(self) -> tuple[tuple[str, str | None], ...]:
        """(node, via) of every reader, in order."""
        return tuple(dict.fromkeys(self._slot_names))

    @cached_property
    def _slot_names(self) -> list[tuple[str, str | None]]:
        names: list[tuple[str, str | None]] = []
        group = self.n_heads // self.n_kv_heads
        for layer in range(self.n_layers):
            for side in SIDES:
                heads = range(self.n_heads) if side == "q" else range(0, self.n_heads, group)
                names += [(f"L{layer}H{head}", side if self.split_qkv else None) for head in heads]
            if self.has_mlp:
                names.append((f"L{layer}MLP", None))
        return [*names, ("logits", None)]

    @cached_property
    def reader_of_slot(self) -> Tensor:
        """`[n_slots]` int64."""
        number = {reader: i for i, reader in enumerate(self.readers)}
        return torch.tensor([number[name] for name in self._slot_names])

    @cached_property
    def sources_of_slot(self) -> Tensor:
        """`[n_slots]`: a slot sees the sources `0 .. this - 1`."""
        seen = []
        for layer in range(self.n_layers):
            seen += [self.before(layer)] * (self.slots_per_layer - self.has_mlp)
            seen += [self.before_mlp(layer)] * self.has_mlp
        return torch.tensor([*seen, self.n_sources])

    # Edges.

    @property
    def n_positions(self) -> int:
        """Distinct positions of edges: 1 when an edge stands for all positions."""
        return 1 if self.positions is None else len(self.positions)

    @cached_property
    def edge_table(self) -> Tensor:
        """`[n_edges, 3]` int64: index into `positions` (0 without), reader, source."""
        first_slot = torch.zeros(len(self.readers), dtype=torch.long)
        first_slot[self.reader_of_slot.flip(0)] = torch.arange(self.n_slots).flip(0)
        seen = torch.arange(self.n_sources)[None] < self.sources_of_slot[first_slot][:, None]
        return seen[None].expand(self.n_positions, -1, -1).nonzero()

    @property
    def n_edges(self) -> int:
        return len(self.edge_table)

    def edge(self, index: int, score: float | None = None, **evidence: Any) -> Edge:
        """The edge of a number, as a value."""
        position, reader, source = self.edge_table[index].tolist()
        target, via = self.readers[reader]
        where = None if self.positions is None else self.positions[position]
        return Edge(self.sources[source], target, via, where, score, evidence)

    def edges(self) -> list[Edge]:
        """All edges, in order."""
        return [self.edge(i) for i in range(self.n_edges)]

    def index(self, edge: Edge) -> int:
        """The number of an edge; a k or v edge may name any head of its group. Raises `UnknownNameError`."""
        found = self._numbers.get(self._canonical(edge))
        if found is None:
            hint = "With positions every edge names one; without, none does." if edge.target in self._targets else ""
            near = [edge_text(self.edge(i)) for (s, t, *_), i in self._numbers.items() if edge.target == t][:400]
            raise UnknownNameError("edge", edge_text(edge), near or [edge_text(self.edge(0))], hint)
        return found

    @cached_property
    def _targets(self) -> set[str]:
        return {target for target, _ in self.readers}

    @cached_property
    def _numbers(self) -> dict[tuple[str, str, str | None, int | None], int]:
        numbers = {}
        for i, (position, reader, source) in enumerate(self.edge_table.tolist()):
            where = None if self.positions is None else self.positions[position]
            numbers[self.sources[source], *self.readers[reader], where] = i
        return numbers

    def _canonical(self, edge: Edge) -> tuple[str, str, str | None, int | None]:
        target = parse_node(edge.target)
        group = self.n_heads // self.n_kv_heads
        if edge.via in ("k", "v") and target.kind == "head" and target.head is not None:
            return edge.source, f"L{target.layer}H{target.head // group * group}", edge.via, edge.position
        return edge.source, edge.target, edge.via, edge.position

    def members(self, circuit: Circuit | Iterable[Edge]) -> Tensor:
        """`[n_edges]` bool: the edges of a circuit. Raises `UnknownNameError` for one that the graph lacks."""
        kept = torch.zeros(self.n_edges, dtype=torch.bool)
        for edge in circuit.edges if isinstance(circuit, Circuit) else circuit:
            kept[self.index(edge)] = True
        return kept

    def slot_mask(self, kept: Tensor) -> Tensor:
        """`[n_positions, n_slots, n_sources]` bool of `kept [n_edges]` bool: what reaches each physical input."""
        position, reader, source = self.edge_table.unbind(1)
        by_reader = torch.zeros(self.n_positions, len(self.readers), self.n_sources, dtype=torch.bool)
        by_reader[position, reader, source] = kept.cpu()
        return by_reader[:, self.reader_of_slot]

    def edge_values(self, by_slot: Tensor) -> Tensor:
        """`[..., n_edges]` of `by_slot [..., n_positions, n_slots, n_sources]`: summed over the slots of a reader."""
        position, reader, source = self.edge_table.to(by_slot.device).unbind(1)
        if not self.split_qkv:
            shape = (*by_slot.shape[:-2], len(self.readers), self.n_sources)
            by_slot = by_slot.new_zeros(shape).index_add_(-2, self.reader_of_slot.to(by_slot.device), by_slot)
        return by_slot[..., position, reader, source]

    def slots_of_reader(self, reader: int) -> list[int]:
        """The physical inputs that are one reader."""
        return (self.reader_of_slot == reader).nonzero()[:, 0].tolist()
