"""Head loadings of an attribution graph: the share of its influence that passes through each attention head.

An edge of a graph is a sum over paths, and paths pass through heads. Let `A[t, s]` be the edge from a source to a
reader, and `A_h[t, s]` the part of it on paths through head h. The influence on the edge, `I_t |A[t, s]| / sum |A[t]|`
with `I_t` that of the reader, splits in the same proportion, so that the loading of a head is

    sum over readers t of  I_t / sum |A[t]|  *  sum over sources s of  sign(A[t, s]) A_h[t, s],

as a fraction of the influence of all edges. For each reader one stream of all its sources, with the signs of their
edges, is pushed forwards, and its own direction is pulled back; the product at a head's output is the inner sum.

A head at the reader's own position counts too. A path may pass through several heads, one after another, so loadings do
not sum to 1; a loading below 0 works against the edges that pass through it. Baseline: the mean of all heads.

    print(head_loadings(system, graph))
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError
from interp.progress import Progress
from interp.results import Record, Result
from interp.tracing.edges import System
from interp.tracing.effects import reader_of
from interp.tracing.frozen import Starts, apply_linear
from interp.tracing.graph import AttributionGraph
from interp.view import View

BATCH = 64
"""Readers in one pass."""


@dataclass(frozen=True, repr=False)
class HeadLoadings(Result):
    """Share of a graph's influence that passes through each head."""

    shares: Float[np.ndarray, "n_layers n_heads"]
    """of the influence of all stored edges"""
    crossing: float
    """share of the influence that is on edges between positions"""
    readers: int
    """nodes whose edges were split"""

    @property
    def mean(self) -> float:
        """Mean over all heads, the baseline of a single one."""
        return float(self.shares.mean())

    def view(self) -> View:
        best = self.to_records()[0]
        yield (
            f"{best['head']} carries {best['loading']:.1%} of the graph's influence, the mean head {self.mean:.1%}; "
            f"{self.crossing:.0%} of the influence is on edges between positions."
        )

    def to_records(self) -> list[Record]:
        """Return one row per head, the largest loading first: `head, loading`."""
        order = np.argsort(-np.abs(self.shares), axis=None, kind="stable").tolist()
        places = [np.unravel_index(at, self.shares.shape) for at in order]
        return [{"head": f"L{layer}H{head}", "loading": float(self.shares[layer, head])} for layer, head in places]


@torch.no_grad()
def head_loadings(system: System, graph: AttributionGraph, *, progress: Progress | None = None) -> HeadLoadings:
    """Return the share of a graph's influence that passes through each head.

    Args:
        system: the frozen model of the graph's prompt, of `open_system`.
        graph: its stored edges are split.
        progress: called with the number of readers done.
    Raises:
        ConfigError: a graph of another prompt, or without edges.

    >>> system = open_system(model, to_tokens(model, graph.prompt), Neurons())
    >>> head_loadings(system, graph).headline()
    "... carries ... of the graph's influence, the mean head ...; ... of the influence is on edges between positions."
    """
    frozen, edges = system.frozen, graph.edges
    if list(graph.tokens) != frozen.tokens[0].tolist() or not len(edges.weight):
        raise ConfigError(f"the graph has no edges, or belongs to another prompt: {graph.prompt[:60]!r}")
    numbers, rows = np.unique(edges.target, return_inverse=True)
    sums = np.bincount(rows, np.abs(edges.weight))
    readers = [graph.nodes[number] for number in numbers.tolist()]
    starts = [reader_of(system, graph, node) for node in readers]
    weight = [target.weight for target in graph.targets]
    influence = np.array([weight[node.index] if node.kind == "logit" else node.influence for node in readers])
    scale = torch.tensor(influence / np.maximum(sums, 1e-30), device=frozen.embedding.device)
    columns = zip(*(vars(start).values() for start in starts), strict=True)
    joined = Starts(*(torch.cat([part.to(scale.device) for part in column]) for column in columns))
    places = torch.zeros(len(graph.nodes), dtype=torch.long, device=scale.device)  # that of a target is not used
    sources = [number for number, node in enumerate(graph.nodes) if node.kind != "logit"]
    places[sources] = system.source_numbers([graph.nodes[number] for number in sources]).to(scale.device)
    total = torch.zeros(frozen.shape.n_layers, frozen.shape.n_heads, dtype=torch.float64, device=scale.device)
    order = torch.argsort(joined.layer, descending=True, stable=True)
    for done in range(0, len(order), BATCH):
        batch = order[done : done + BATCH]
        signs = torch.zeros(len(batch), system.n_sources, device=scale.device)
        for at, row in enumerate(batch.tolist()):
            into = np.flatnonzero(rows == row)
            signs[at, places[edges.source[into]]] = torch.tensor(np.sign(edges.weight[into]), device=scale.device)
        total += _through_heads(system, joined.take(batch), signs, scale[batch])
        if progress is not None:
            progress(min(done + BATCH, len(order)), len(order), {})
    whole = influence.sum()
    moved = np.array([node.position for node in graph.nodes])
    carried = influence[rows] * np.abs(edges.weight) / np.maximum(sums[rows], 1e-30)
    crossing = carried[moved[edges.source] != moved[edges.target]].sum() / whole
    return HeadLoadings((total / whole).cpu().numpy(), float(crossing), len(numbers))


def _through_heads(system: System, starts: Starts, signs: Tensor, scale: Tensor) -> Float[Tensor, "layers heads"]:
    """Return the signed effect of all sources on readers on paths through each head, weighted by reader and summed."""
    frozen = system.frozen
    streams = push_sources(system, signs, int(starts.layer[0]))
    outputs = [block.push_values(stream) for block, stream in zip(frozen.blocks, streams, strict=False)]
    loadings = torch.zeros(frozen.shape.n_layers, frozen.shape.n_heads, dtype=torch.float64, device=scale.device)

    def heads(layer: int, gradient: Tensor) -> None:
        reached, seen = gradient.shape[:2]
        product = rearrange(outputs[layer][:seen, :reached], "b q w -> q b w") * gradient
        per_head = product.sum(0).unflatten(-1, (frozen.shape.n_heads, -1)).sum(-1)
        loadings[layer] = scale[:seen] @ per_head.double()

    frozen.pull_back(starts, lambda layer, gradient: None, heads)
    return loadings


def push_sources(
    system: System, factors: Float[Tensor, "rows sources"], last: int, embedding: Tensor | None = None
) -> Iterator[Float[Tensor, "rows pos d_model"]]:
    """Yield the residual stream before each block up to `last`, of the sources alone, each times its factor in a row.

    `embedding [rows, pos, d_model]` is added to what tokens write.
    """
    frozen, n_pos = system.frozen, system.frozen.n_pos
    errors = factors[:, system.n_features : system.n_features + system.n_errors].unflatten(1, (-1, n_pos))
    stream = factors[:, -n_pos:, None] * frozen.embedding + (0 if embedding is None else embedding)
    for layer, block in enumerate(frozen.blocks[: last + 1]):
        yield stream
        if layer == last:
            return
        after = stream + block.push_attention(stream)
        out = system.written_at(layer, factors) + errors[:, layer, :, None] * system.errors[layer]
        skip = frozen.skips[layer]
        if skip is not None:
            through = apply_linear(block.norm2, stream if frozen.parallel else after) @ skip
            through[:, : frozen.skip_from] = 0
            out = out + through
        stream = after + (out if block.post2 is None else apply_linear(block.post2, out))
