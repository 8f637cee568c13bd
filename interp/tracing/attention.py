"""The split of an edge between positions by the last head through which its paths change position.

A path from a source to a reader at a later position can pass through several heads. Each path has one last head that
brings it to the reader's position; behind it the path stays there. So the edge is the sum over heads of the paths that
arrive through them, plus the paths that never leave the position (for a source at the reader's own position):

    split = split_edge(system, graph, "token:4:4649", "feature:13:5:1033")
    print(split)                        # heads, with the key positions that they read

The score of a head at its key position is explained further by `interp.explain_score`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError
from interp.results import Record, Result
from interp.tracing.edges import System
from interp.tracing.effects import push
from interp.tracing.frozen import FrozenModel, Starts
from interp.tracing.graph import AttributionGraph, GraphNode
from interp.tracing.interventions import read_of


@dataclass(frozen=True, repr=False)
class EdgeSplit(Result):
    """One edge, split by the last head that moves it, and by the position that this head reads."""

    source: str
    target: str
    total: float
    """the edge: sum of `heads` and `stays`"""
    stays: float
    """paths that are at the target's position from the source on; 0 for a source at another position"""
    heads: Float[np.ndarray, "n_layers n_heads pos"]
    """share of each head by the key position that it reads"""
    patterns: Float[np.ndarray, "n_layers n_heads pos"]
    """attention of each head from the target's position to each key position"""
    token_texts: tuple[str, ...]

    def headline(self) -> str:
        """Name the edge and the number of heads that carry most of it."""
        sizes = np.sort(np.abs(self.heads).sum(2), axis=None)[::-1]
        n = int(np.searchsorted(np.cumsum(sizes), 0.5 * sizes.sum())) + 1 if sizes.sum() else 0
        return (
            f"{self.source} -> {self.target}: {self.total:+.3g}, of which {self.stays:+.3g} without a move; {n} heads "
            "carry half of the rest."
        )

    def to_records(self) -> list[Record]:
        """Return one row per head and key position, the largest share first."""
        order = np.argsort(-np.abs(self.heads), axis=None, kind="stable")
        rows = [np.unravel_index(i, self.heads.shape) for i in order.tolist() if self.heads.flat[i]]
        return [
            {
                "head": f"L{layer}H{head}",
                "position": int(key),
                "token": self.token_texts[key],
                "effect": float(self.heads[layer, head, key]),
                "attention": float(self.patterns[layer, head, key]),
            }
            for layer, head, key in rows
        ]


@torch.no_grad()
def split_edge(system: System, graph: AttributionGraph, source: str, target: str) -> EdgeSplit:
    """Split an edge of a graph, named by the ids of its nodes.

    Raises `UnknownNameError` for a node that is not there, `ConfigError` for a target that reads nothing.
    """
    frozen, start, end = system.frozen, graph.node(source), graph.node(target)
    vectors, embedding = written_by(system, start)
    reader = reader_of(system, graph, end)
    before = push(frozen, vectors, embedding).before
    heads, stays = _follow(frozen, reader, before, vectors, embedding)
    position = int(reader.position[0])
    patterns = torch.stack([block.pattern[:, position] for block in frozen.blocks])
    return EdgeSplit(
        source=source,
        target=target,
        total=float(heads.sum() + stays),
        stays=stays,
        heads=heads.double().cpu().numpy(),
        patterns=patterns.double().cpu().numpy(),
        token_texts=graph.token_texts,
    )


def written_by(system: System, node: GraphNode) -> tuple[dict[int, Tensor], Tensor | None]:
    """Return what a node writes on the clean run: into MLP outputs by layer, or into the embedding.

    Raises `ConfigError` for a target, or for a latent that is not active.
    """
    frozen = system.frozen
    zero = torch.zeros_like(frozen.embedding)
    if node.kind == "token":
        zero[node.position] = frozen.embedding[node.position]
        return {}, zero
    if node.kind == "error":
        zero[node.position] = system.errors[node.layer, node.position]
        return {node.layer: zero}, None
    number = _number(system, node)
    written = {}
    for layer in range(node.layer, frozen.shape.n_layers if system.replacement.cross_layer else node.layer + 1):
        written[layer] = zero.clone()
        written[layer][node.position] = system.activation[number] * system.written_by(number, layer)[0]
    return written, None


def reader_of(system: System, graph: AttributionGraph, node: GraphNode) -> Starts:
    """Return what a node of a graph reads. Raises `ConfigError` for tokens and errors, which read nothing."""
    if node.kind == "feature":
        return system.feature_starts(_number(system, node))
    if node.kind != "logit":
        raise ConfigError(f"{node.id} reads nothing: a {node.kind} is a source only")
    layer = torch.tensor([system.frozen.shape.n_layers])
    return Starts(layer, torch.tensor([node.position]), read_of(system, graph, node.index)[None])


def _follow(
    frozen: FrozenModel,
    reader: Starts,
    before: list[Tensor],
    vectors: dict[int, Tensor],
    embedding: Tensor | None,
) -> tuple[Tensor, float]:
    """Pull a reader back along paths that stay at its position, and collect what each head brings there."""
    layer, position = int(reader.layer[0]), int(reader.position[0])
    n, shape = len(frozen.blocks), frozen.shape
    heads = before[0].new_zeros(n, shape.n_heads, frozen.n_pos)
    norm = frozen.final if layer == n else frozen.blocks[layer].norm2
    gradient = norm.fold(reader.read) / norm.scale[position]  # [1, d_model]
    stays = 0.0
    reads_after_attention = layer < n and not frozen.parallel
    for at in reversed(range(min(layer + 1, n) if reads_after_attention else layer)):
        block = frozen.blocks[at]
        own = gradient
        if at != layer:  # the MLP of the reader's own layer comes after it
            out = gradient if block.post2 is None else block.post2.fold(gradient) / block.post2.scale[position]
            if at in vectors:
                stays += float((out[0] * vectors[at][position]).sum())
            skip = frozen.skips[at]
            if skip is not None and position >= frozen.skip_from:
                own = own + block.norm2.fold(out @ skip.T) / block.norm2.scale[position]
        into = gradient if frozen.parallel else own
        into = into if block.post1 is None else block.post1.fold(into) / block.post1.scale[position]
        at_heads = rearrange(into @ block.W_O.T, "1 (h e) -> h e", h=shape.n_heads)
        values = rearrange(before[at] / block.norm1.scale @ block.W_V, "k (kv e) -> kv k e", kv=shape.n_kv_heads)
        values = values.repeat_interleave(shape.n_heads // shape.n_kv_heads, 0)
        heads[at] = block.pattern[:, position] * torch.einsum("hke,he->hk", values, at_heads)
        heads[at, :, position] = 0
        kept = at_heads * block.pattern[:, position, position, None]
        kept = rearrange(kept, "(kv g) e -> kv g e", kv=shape.n_kv_heads).sum(1)
        gradient = own + kept.reshape(1, -1) @ block.W_V.T / block.norm1.scale[position]
    if embedding is not None:
        stays += float((gradient[0] * embedding[position]).sum())
    return heads, stays


def _number(system: System, node: GraphNode) -> Tensor:
    here = (system.layer == node.layer) & (system.position == node.position) & (system.latent == node.index)
    if node.kind != "feature" or not here.any():
        raise ConfigError(f"{node.id} is not an active latent of this prompt and dictionary")
    return here.nonzero()[0]
