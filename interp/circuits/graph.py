"""The graph of all edges of a model: from every component's output to every later component's input.

Sources write to the residual stream, in the order of computation: `embed` (token and position embedding: the input of
the first block), the heads of a layer, its MLP, and so on. Readers read from it: the query, key and value inputs of
every head, the MLPs, and `logits`. An edge connects one source to one reader. Biases belong to no source and are never
replaced, except that an MLP's output bias is part of its output.

Under grouped-query attention keys and values are read once per group. So there is one k or v edge per group, with the
name of the group's first head. In models with MLPs parallel to attention (GPT-NeoX), an MLP does not read the heads of
its own layer.

    graph = Graph.from_model(model)            # 81 edges for two attention-only layers of four heads
    graph.edge(0), graph.index(edge)           # edges are numbered; scores are [n_edges]
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from interp.circuits.circuit import Circuit, Edge, edge_text
from interp.errors import ConfigError, UnknownNameError
from interp.models.hooked import HookedModel
from interp.models.residual import SIDES, Side
from interp.names import parse_node
from interp.patching.paths import Reader


@dataclass(frozen=True, kw_only=True)
class Graph:
    """All edges of one architecture, without weights: models of the same shape have equal graphs.

    A *slot* is one physical input: the query input of one head, the key input of one group. With `split_qkv` each
    reader is one slot; without it, the three slots of a head form one reader.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    has_mlp: bool
    parallel: bool = False
    """the MLP reads the block's input, not the residual stream after attention"""
    split_qkv: bool = True
    positions: tuple[int, ...] | None = None
    """token positions that have their own edges; the residual stream elsewhere is never replaced. None: an edge covers
    all positions"""

    @classmethod
    def from_model(
        cls, model: HookedModel, *, split_qkv: bool = True, positions: Sequence[int] | None = None
    ) -> "Graph":
        """Make the graph of a model.

        Raises `ConfigError` when the residual is not a sum of components, when heads share keys and values
        but `split_qkv` is off, and for negative or repeated positions.
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
        """Return the sources that are heads of a layer."""
        start = self.before(layer)
        return slice(start, start + self.n_heads)

    def mlp_source(self, layer: int) -> int:
        return self.before(layer) + self.n_heads

    def before(self, layer: int) -> int:
        """Return the number of sources before the attention of a layer (`n_layers`: before the logits)."""
        return 1 + layer * self.sources_per_layer

    def before_mlp(self, layer: int) -> int:
        """Return the number of sources that the MLP of a layer reads."""
        return self.before(layer) + (0 if self.parallel else self.n_heads)

    @cached_property
    def source_points(self) -> dict[str, slice]:
        """Sources by the hook point of their values: the input of the first block, z of heads, outputs of MLPs."""
        points = {"blocks.0.hook_resid_pre": slice(0, 1)}
        for layer in range(self.n_layers):
            points[f"blocks.{layer}.attn.hook_z"] = self.head_sources(layer)
            if self.has_mlp:
                source = self.mlp_source(layer)
                points[f"blocks.{layer}.hook_mlp_out"] = slice(source, source + 1)
        return points

    # Slots: per layer q of every head, k and v of every group, the MLP; at the end the logits.

    @property
    def slots_per_layer(self) -> int:
        return self.n_heads + 2 * self.n_kv_heads + self.has_mlp

    @property
    def n_slots(self) -> int:
        return self.n_layers * self.slots_per_layer + 1

    def attention_slots(self, layer: int) -> slice:
        """Return the slots of a layer's attention: q, then k, then v."""
        start = layer * self.slots_per_layer
        return slice(start, start + self.n_heads + 2 * self.n_kv_heads)

    def side_slots(self, layer: int, side: Side) -> slice:
        """Return the slots of one side, one per query head or per group."""
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
        """Node and `via` of every reader, in order."""
        return tuple(dict.fromkeys(self._slot_names))

    @cached_property
    def _slot_names(self) -> list[tuple[str, str | None]]:
        names: list[tuple[str, str | None]] = []
        group = self.n_heads // self.n_kv_heads
        for (layer, part), head in self.inputs:
            if head is None:
                names.append(("logits" if part == "logits" else f"L{layer}MLP", None))
            else:
                names.append((f"L{layer}H{head if part == 'q' else head * group}", part if self.split_qkv else None))
        return names

    @cached_property
    def inputs(self) -> tuple[tuple[Reader, int | None], ...]:
        """Input of a layer that each slot is, and the head (of keys and values: the key-value head) that it feeds."""
        inputs: list[tuple[Reader, int | None]] = []
        for layer in range(self.n_layers):
            for side in SIDES:
                heads = range(self.n_heads if side == "q" else self.n_kv_heads)
                inputs += [(Reader(layer, side), head) for head in heads]
            if self.has_mlp:
                inputs.append((Reader(layer, "mlp"), None))
        return (*inputs, (Reader(self.n_layers, "logits"), None))

    @cached_property
    def reader_of_slot(self) -> Int64[Tensor, " n_slots"]:
        """Number of each slot's reader, `[n_slots]` int64."""
        number = {reader: i for i, reader in enumerate(self.readers)}
        return torch.tensor([number[name] for name in self._slot_names])

    @cached_property
    def sources_of_slot(self) -> Int64[Tensor, " n_slots"]:
        """Number of sources that each slot reads, `[n_slots]`: the sources `0 .. number - 1`."""
        return torch.tensor(
            [self.before_mlp(layer) if part == "mlp" else self.before(layer) for (layer, part), _ in self.inputs]
        )

    # Edges.

    @property
    def n_positions(self) -> int:
        """Number of positions with their own edges; 1 when an edge covers all positions."""
        return 1 if self.positions is None else len(self.positions)

    @cached_property
    def edge_table(self) -> Int64[Tensor, "n_edges 3"]:
        """Index into `positions` (0 without positions), reader and source of every edge, `[n_edges, 3]` int64."""
        first_slot = torch.zeros(len(self.readers), dtype=torch.long)
        first_slot[self.reader_of_slot.flip(0)] = torch.arange(self.n_slots).flip(0)
        seen = torch.arange(self.n_sources)[None] < self.sources_of_slot[first_slot][:, None]
        return seen[None].expand(self.n_positions, -1, -1).nonzero()

    @property
    def n_edges(self) -> int:
        return len(self.edge_table)

    def edge(self, index: int, score: float | None = None) -> Edge:
        """Return the edge with a number."""
        position, reader, source = self.edge_table[index].tolist()
        target, via = self.readers[reader]
        where = None if self.positions is None else self.positions[position]
        return Edge(self.sources[source], target, via, where, score)

    def edges(self) -> list[Edge]:
        """Return all edges, in order."""
        return [self.edge(i) for i in range(self.n_edges)]

    def index(self, edge: Edge) -> int:
        """Return the number of an edge; a k or v edge may name any head of its group. Raises `UnknownNameError`."""
        number = self._numbers.get(self._canonical(edge))
        if number is None:
            hint = "In a graph with positions every edge needs one; without, none may have one."
            hint = hint if edge.target in self._targets else ""
            near = [edge_text(self.edge(i)) for (s, t, *_), i in self._numbers.items() if edge.target == t][:400]
            raise UnknownNameError("edge", edge_text(edge), near or [edge_text(self.edge(0))], hint)
        return number

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

    def members(self, circuit: Circuit | Iterable[Edge]) -> Bool[Tensor, " {self.n_edges}"]:
        """Return the edges of a circuit, `[n_edges]` bool. Raises `UnknownNameError` for one that the graph lacks."""
        included = torch.zeros(self.n_edges, dtype=torch.bool)
        for edge in circuit.edges if isinstance(circuit, Circuit) else circuit:
            included[self.index(edge)] = True
        return included

    def slot_mask(self, included: Bool[Tensor, " {self.n_edges}"]) -> Bool[Tensor, "n_positions n_slots n_sources"]:
        """Return the circuit `included [n_edges]` bool by slot and source, `[n_positions, n_slots, n_sources]` bool."""
        position, reader, source = self.edge_table.unbind(1)
        by_reader = torch.zeros(self.n_positions, len(self.readers), self.n_sources, dtype=torch.bool)
        by_reader[position, reader, source] = included.cpu()
        return by_reader[:, self.reader_of_slot]

    def edge_values(
        self, by_slot: Float[Tensor, "*batch n_positions n_slots n_sources"]
    ) -> Float[Tensor, "*batch {self.n_edges}"]:
        """Sum `by_slot [..., n_positions, n_slots, n_sources]` over the slots of each reader, `[..., n_edges]`."""
        position, reader, source = self.edge_table.to(by_slot.device).unbind(1)
        if not self.split_qkv:
            shape = (*by_slot.shape[:-2], len(self.readers), self.n_sources)
            by_slot = by_slot.new_zeros(shape).index_add_(-2, self.reader_of_slot.to(by_slot.device), by_slot)
        return by_slot[..., position, reader, source]

    def slots_of_reader(self, reader: int) -> list[int]:
        """Return the slots of one reader."""
        return (self.reader_of_slot == reader).nonzero()[:, 0].tolist()
