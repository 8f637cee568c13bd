"""Edges that cannot matter: those that no path from `embed` to `logits` runs through.

A source none of whose inputs are in the circuit writes what it writes in the corrupted run, so an edge from it carries
nothing; an edge into a part that no kept path leads from is not read. Taking both out leaves every measure of the
circuit as it was and its size honest. Information moves between positions only through keys and values, and only
forwards.
"""

import torch
from torch import Tensor

from interp.circuits.graph import Graph


def prune(graph: Graph, kept: Tensor, length: int | None = None) -> Tensor:
    """`kept [n_edges]` bool without the edges on no path from `embed` to `logits`.

    A graph over some of the `length` positions: at the others the stream is whole, as if all their edges were kept, so
    a part is also reached, or read, by way of them. Without a length there may be positions after the last.
    """
    mask, chosen = graph.slot_mask(kept), list(graph.positions or ())
    if chosen:
        whole = mask.new_ones(length or chosen[-1] + 2, *mask.shape[1:])
        whole &= torch.arange(graph.n_sources) < graph.sources_of_slot[:, None]
        whole[chosen] = mask
        mask = whole
    mask = mask & _reached(graph, mask)[:, None, :]
    mask &= _needed(graph, mask)[:, :, None]
    return kept.cpu() & graph.edge_values((mask[chosen] if chosen else mask).float()).bool()


def _reached(graph: Graph, mask: Tensor) -> Tensor:
    """`[n_positions, n_sources]` bool: the sources whose output depends on `embed`."""
    alive = torch.zeros(len(mask), graph.n_sources, dtype=torch.bool)
    alive[:, 0] = True
    for layer in range(graph.n_layers):
        reads = (mask[:, graph.attention_slots(layer)] & alive[:, None, :]).any(2)
        q = reads[:, : graph.n_heads]
        kv = reads[:, graph.n_heads :].unflatten(1, (2, graph.n_kv_heads)).any(1)
        kv = _earlier(graph, kv).repeat_interleave(graph.n_heads // graph.n_kv_heads, 1)
        alive[:, graph.head_sources(layer)] = q | kv
        if graph.has_mlp:
            alive[:, graph.mlp_source(layer)] = (mask[:, graph.mlp_slot(layer)] & alive).any(1)
    return alive


def _needed(graph: Graph, mask: Tensor) -> Tensor:
    """`[n_positions, n_slots]` bool: the inputs that the logits depend on."""
    needed = torch.zeros(mask.shape[:2], dtype=torch.bool)
    needed[:, graph.logits_slot] = True
    for layer in reversed(range(graph.n_layers)):
        if graph.has_mlp:
            source = graph.mlp_source(layer)
            needed[:, graph.mlp_slot(layer)] = (mask[:, :, source] & needed).any(1)
        heads = (mask[:, :, graph.head_sources(layer)] & needed[:, :, None]).any(1)
        groups = _later(graph, heads).unflatten(1, (graph.n_kv_heads, -1)).any(2)
        needed[:, graph.side_slots(layer, "q")] = heads
        needed[:, graph.side_slots(layer, "k")] = groups
        needed[:, graph.side_slots(layer, "v")] = groups
    return needed


def _earlier(graph: Graph, flags: Tensor) -> Tensor:
    """True where a flag is up at this position or before it."""
    if graph.positions is None:
        return flags
    return flags.long().cumsum(0).bool()


def _later(graph: Graph, flags: Tensor) -> Tensor:
    if graph.positions is None:
        return flags
    return flags.flip(0).long().cumsum(0).flip(0).bool()
