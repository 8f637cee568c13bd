"""Random circuits: what a circuit of this size does by chance.

Edges drawn one by one mostly lie on no path from `embed` to `logits` and do nothing: too weak a null. So a random
circuit is grown from random paths: from the logits to a random source, into one of its inputs, and so on to `embed`.
Beyond `MAX_PATHED` edges the rest is drawn evenly, since a circuit that large is connected anyway.
"""

import torch
from torch import Tensor

from interp.circuits.graph import Graph
from interp.names import parse_node

MAX_PATHED = 2000


def random_circuit(graph: Graph, n_edges: int, generator: torch.Generator) -> Tensor:
    """`[n_edges of the graph]` bool with exactly `n_edges` set."""
    kept = torch.zeros(graph.n_edges, dtype=torch.bool)
    if n_edges >= graph.n_edges:
        return ~kept
    inputs, edges_into = _inputs(graph), _edges_into(graph)
    count, tries = 0, 0
    while count < min(n_edges, MAX_PATHED) and tries < 20 * MAX_PATHED:
        tries += 1
        for edge in _random_path(graph, inputs, edges_into, generator):
            if count < n_edges and not kept[edge]:
                kept[edge] = True
                count += 1
    left = (~kept).nonzero()[:, 0]
    kept[left[torch.randperm(len(left), generator=generator)[: n_edges - count]]] = True
    return kept


def _random_path(
    graph: Graph, inputs: dict[int, list[int]], edges_into: dict[tuple[int, int], list[int]], generator: torch.Generator
) -> list[int]:
    """Edges of one path, from the logits backwards, at one position where edges have positions."""
    place = _pick(graph.n_positions, generator)
    reader, path = len(graph.readers) - 1, []
    while True:
        options = edges_into[place, reader]
        edge = options[_pick(len(options), generator)]
        path.append(edge)
        source = int(graph.edge_table[edge, 2])
        if source == 0:
            return path
        reader = inputs[source][_pick(len(inputs[source]), generator)]
        if graph.readers[reader][1] in ("k", "v"):  # a head reads keys and values at earlier positions too
            place = _pick(place + 1, generator)


def _inputs(graph: Graph) -> dict[int, list[int]]:
    """source -> the readers that are its inputs; a group's key and value count for each of its heads."""
    group = graph.n_heads // graph.n_kv_heads
    number = {reader: i for i, reader in enumerate(graph.readers)}
    found: dict[int, list[int]] = {}
    for source, name in enumerate(graph.sources):
        node = parse_node(name)
        if node.kind == "head" and graph.split_qkv:
            shared = f"L{node.layer}H{(node.head or 0) // group * group}"
            found[source] = [number[name, "q"], number[shared, "k"], number[shared, "v"]]
        elif source:
            found[source] = [number[name, None]]
    return found


def _edges_into(graph: Graph) -> dict[tuple[int, int], list[int]]:
    into: dict[tuple[int, int], list[int]] = {}
    for edge, (position, reader, _) in enumerate(graph.edge_table.tolist()):
        into.setdefault((position, reader), []).append(edge)
    return into


def _pick(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (1,), generator=generator))
