"""Reasons for the attention of a head, in the nodes of an attribution graph.

An edge between positions passes through heads (`interp.tracing.effects.split_edge`), whose attention the graph holds
fixed. The score behind it, before the softmax, is a product of a query and a key, and each is affine in the residual
stream (`interp.models.head_score`), which the frozen model splits over the nodes of the graph: tokens, latents and
errors, those of earlier positions through the heads that moved them. So the score is exactly a sum over pairs of nodes,
one that the query reads and one that the key reads:

    found = attention_reasons(system, graph, "L1H0", query=8, key=3)
    print(found)                            # pairs of nodes, the largest first
    found.key_side                          # share of each node in the key, with that of the strongest node elsewhere

As the softmax depends on differences only, all contributions are *relative*: those to the score of this key, less the
mean of the same over the other keys that the query may attend to. A cap on scores is linearised at each score.

**Nulls.** Shuffled keys: the same query with every other key in turn; a node of the query has its share there, and of
the nodes that a key reads, the strongest one counts. Another position: this key's relative score for other queries.

A graph holds what reaches its targets through values, so a node that matters through a query or key alone may not be
in it: the largest of those left out are named too (`left_out`), the others summed by position, `other:POSITION`.
`pos_embed`, `bias` and `cap` are no nodes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from interp.errors import ConfigError, PromptError
from interp.models.head_score import (
    capped,
    check_scores,
    read_side,
    relative_scores,
    score_cap,
    score_scale,
)
from interp.models.residual import ResidualStream
from interp.names import HeadName, parse_head
from interp.results import Record, Result
from interp.tracing.edges import ReaderEffects, System
from interp.tracing.graph import AttributionGraph, GraphNode
from interp.tracing.loadings import push_sources
from interp.view import View

PAIRED = 8
"""Nodes of the query whose pairs are computed."""
LEFT_OUT = 4
"""Nodes that the graph left out that are named for query and for key, those of largest share."""
LEAST_KEYS = 3
"""With fewer other keys the null has the key itself too, so that nothing lies outside of it."""
LOOSE = ("pos_embed", "bias", "cap")
"""Parts of a score that no node has: position embeddings, biases, and the constant of a cap."""


class NodeShare(NamedTuple):
    """Share of one node, or another part, in a relative score, summed over all parts of the other side."""

    node: str
    """its id, `other:POSITION`, or one of `LOOSE`"""
    value: float
    low: float
    """least of the null: of any node or position, its share with other keys"""
    high: float

    @property
    def above(self) -> bool:
        """True where the value lies outside of the null."""
        return not self.low <= self.value <= self.high


@dataclass(frozen=True, repr=False)
class AttentionReasons(Result):
    """Reasons for the attention of one head from one position to another, in nodes of a graph."""

    head: HeadName
    query: int
    key: int
    attention: float
    """0 to 1, after the softmax"""
    score: float
    """before the softmax, in nats"""
    relative_score: float
    """the score less the mean of the other keys: sum of `query_side`, and of `key_side`"""
    query_side: tuple[NodeShare, ...]
    """largest first"""
    key_side: tuple[NodeShare, ...]
    """largest first"""
    left_out: tuple[str, ...]
    """parts of both sides that are nodes which the graph left out"""
    paired: tuple[str, ...]
    """parts of the query that have a row in `pairs`"""
    pairs: Float[np.ndarray, "n_query n_key"]
    """relative contributions of `paired` with each part of `key_side`"""
    other_keys: Float[np.ndarray, " n_other_keys"]
    """null: relative scores of the other keys of this query"""
    other_queries: Float[np.ndarray, " n_other_queries"]
    """null: relative scores of this key for other queries"""
    token_texts: tuple[str, ...]

    def view(self) -> View:
        query, key = (f"{self.token_texts[at]!r} ({at})" for at in (self.query, self.key))
        yield (
            f"{self.head} attends from {query} to {key} at {self.attention:.0%}: score {self.relative_score:+.2f} "
            f"above the mean of other keys ({_range(self.other_keys)} for these; {_range(self.other_queries)} for "
            "this key from other positions)."
        )

    def to_records(self) -> list[Record]:
        """Return one row per pair of nodes: `query_node, key_node, relative`, the largest first."""
        order = np.argsort(-np.abs(self.pairs), axis=None, kind="stable").tolist()
        rows = [np.unravel_index(at, self.pairs.shape) for at in order if self.pairs.flat[at]]
        return [
            {"query_node": self.paired[i], "key_node": self.key_side[j].node, "relative": float(self.pairs[i, j])}
            for i, j in rows
        ]


def _range(values: np.ndarray) -> str:
    return f"{values.min():+.2f} to {values.max():+.2f}" if len(values) else "none"


@torch.no_grad()
def attention_reasons(
    system: System, graph: AttributionGraph, head: HeadName | str, *, query: int, key: int, paired: int = PAIRED
) -> AttentionReasons:
    """Explain why a head attends from one position to another, by pairs of nodes of a graph.

    Args:
        system: the frozen model of the graph's prompt, of `open_system`.
        graph: its nodes are named; others are summed.
        head: such as `L18H6`.
        query: the position that attends. key: the position that it attends to.
        paired: nodes of the query whose pairs with all parts of the key are computed, those of largest share; parts
            that are no nodes have theirs too, but for the cap.
    Returns: shares of nodes in query and key, and pairs, each beside its null.
    Raises:
        UnknownNameError: a head that the model lacks.
        PromptError: a key that the query may not attend to.
        ConfigError: a graph of another prompt, or a model whose scores are not such products.

    >>> system = open_system(model, to_tokens(model, graph.prompt), Neurons())
    >>> attention_reasons(system, graph, "L1H0", query=3, key=1).headline()
    "L1H0 attends from ... (3) to ... (1) at ...: score ... above the mean of other keys (...)."
    """
    if list(graph.tokens) != system.frozen.tokens[0].tolist():
        raise ConfigError(f"the graph belongs to another prompt, {graph.prompt[:60]!r}; open its own")
    at = _Attention(system, head, query, key)
    others = [row for row in range(len(at.keys)) if row != at.row]
    enough = others if len(others) >= LEAST_KEYS else [*range(len(at.keys))]
    gradients = torch.cat([at.query_gradients(), at.key_gradients(at.from_query)], 1)
    biases = torch.cat([at.query.bias[query] @ at.toward.T, at.key_bias(at.from_query)])
    rows = system.stream_rows(at.head.layer, gradients.float())
    known = system.source_numbers([node for node in graph.nodes if node.kind != "logit"])
    chosen, singles = zip(*(at.left_out(side, known, enough) for side in rows.effects.chunk(2)), strict=True)
    added = torch.cat(chosen).unique()
    names, column = _named(system, graph, known, added)
    shares = _by_part(rows, biases, column, len(names)).unflatten(0, (2, -1))  # [side, n_keys, parts]
    shares[..., -1] = at.constants
    of_query, of_keys = at.weights @ shares
    ranges = [side[enough].aminmax(dim=0) for side in (of_query, of_keys)]
    n_pooled = len(names) - len(LOOSE)
    n_nodes = n_pooled - system.frozen.n_pos
    for (low, high), (least, most) in zip(ranges, singles, strict=True):
        low[:n_pooled] = low[:n_pooled].min().clamp_max(least)
        high[:n_pooled] = high[:n_pooled].max().clamp_min(most)
    sides = zip((of_query, of_keys), ranges, strict=True)
    query_side, key_side = (_ranked(names, shares[at.row], *ends) for shares, ends in sides)
    ranked = [names.index(share.node) for share in query_side if share.node != "cap"]
    parts = [part for part in ranked if part < n_nodes][:paired] + [part for part in ranked if part >= n_nodes]
    pairs = at.pairs(parts, column, len(names))[:, [names.index(share.node) for share in key_side]]
    seen_from = torch.arange(len(at.relative)) != query
    from_others = at.relative[seen_from.to(at.relative.device), key]
    return AttentionReasons(
        head=at.head,
        query=query,
        key=key,
        attention=float(at.attention[at.row]),
        score=float(at.scores[at.row]),
        relative_score=float(at.relative[query, key]),
        query_side=query_side,
        key_side=key_side,
        left_out=tuple(names[n_nodes - len(added) : n_nodes]),
        paired=tuple(names[part] for part in parts),
        pairs=pairs.cpu().numpy(),
        other_keys=at.relative[query, at.keys[others]].cpu().numpy(),
        other_queries=from_others[~from_others.isnan()].cpu().numpy(),
        token_texts=graph.token_texts,
    )


class _Attention:
    """One head on the prompt of a system, with the keys that one query may attend to, as bilinear forms."""

    def __init__(self, system: System, head: HeadName | str, query: int, key: int):
        self.system, frozen = system, system.frozen
        residual = ResidualStream(frozen.model)
        self.head = residual.check_head(parse_head(head) if isinstance(head, str) else head)
        layer, model = self.head.layer, frozen.model
        block = frozen.blocks[layer]
        positions = torch.arange(frozen.n_pos, device=block.before.device)
        visible = (block.pattern > 0).any(0)
        if not (0 <= key <= query < frozen.n_pos and visible[query, key]):
            raise PromptError(
                f"expected 0 <= key <= query < {frozen.n_pos}, and a key that layer {layer} can see from the query; "
                f"got key {key}, query {query}"
            )
        self.query, self.key = (
            read_side(residual, self.head, side, block.before, block.rotation, positions) for side in ("q", "k")
        )
        queries, keys = (side(block.before) + side.bias for side in (self.query, self.key))
        scale, cap = score_scale(model, layer), score_cap(model, layer)
        plain = scale * queries @ keys.T
        self.at, self.keys = query, visible[query].nonzero()[:, 0]
        self.row = int((self.keys == key).nonzero())
        self.scores, slopes, self.constants = capped(plain[query, self.keys], cap)
        self.attention = block.pattern[self.head.head, query, self.keys]
        check_scores(self.scores, self.attention, model)
        self.relative = relative_scores(capped(plain, cap)[0], visible)
        self.slopes = scale * slopes
        self.toward = self.slopes[:, None] * keys[self.keys]
        """`[n_keys, d_head]`: product with a query is its share of each score"""
        self.from_query = queries[query][None]
        n = len(self.keys)
        identity = torch.eye(n, dtype=torch.float64, device=plain.device)
        self.weights = identity - (1 - identity) / max(n - 1, 1)
        """`[n_keys, n_keys]`: from scores to relative scores"""

    def query_gradients(self) -> Float64[Tensor, "pos n_keys d_model"]:
        """Return the directions at the query that read its score with each key."""
        pulled = self.query.pull(self.toward[:, None].expand(-1, len(self.query.positions), -1)).transpose(0, 1)
        out = torch.zeros_like(pulled)
        out[self.at] = pulled[self.at]
        return out[: self.at + 1]

    def key_gradients(self, vectors: Float64[Tensor, "n d_head"]) -> Float64[Tensor, "pos rows d_model"]:
        """Return the directions at the keys that read the score of each with each query vector, keys fastest."""
        n_pos, n_keys = self.at + 1, len(self.keys)
        pulled = self.key.pull(vectors[:, None].expand(-1, len(self.key.positions), -1))[:, self.keys]
        out = pulled.new_zeros(n_pos, len(vectors), n_keys, pulled.shape[-1])
        number = torch.arange(n_keys, device=self.keys.device)
        out[self.keys, :, number] = self.slopes[:, None, None] * pulled.transpose(0, 1)
        return out.flatten(1, 2)

    def key_bias(self, vectors: Float64[Tensor, "n d_head"]) -> Float64[Tensor, " rows"]:
        """Return the share of the biases of the keys, in the order of `key_gradients`."""
        return (vectors @ (self.slopes[:, None] * self.key.bias[self.keys]).T).flatten()

    def left_out(
        self, effects: Float[Tensor, "n_keys sources"], known: Tensor, null: list[int]
    ) -> tuple[Tensor, tuple[float, float]]:
        """Return the sources of largest relative share that a graph lacks, and the range of all of those over keys."""

        def relative(row: int) -> Tensor:
            shares = self.weights[row].float() @ effects
            shares[known.to(shares.device)] = 0
            return shares

        here, elsewhere = relative(self.row), [relative(row).aminmax() for row in null]
        chosen = here.abs().topk(min(LEFT_OUT, len(here))).indices
        ends = min(float(low) for low, _ in elsewhere), max(float(high) for _, high in elsewhere)
        return chosen[here[chosen] != 0].cpu(), ends

    def pairs(self, parts: list[int], column: Tensor, n: int) -> Float64[Tensor, "n_parts columns"]:
        """Return the relative contributions of parts of the query, given by number, with every part of the key."""
        frozen, bias = self.system.frozen, n - 2  # in the order of `LOOSE`
        rows = torch.tensor([*parts, n], device=column.device)[:, None]
        factors = (column == rows).float()
        factors[-1] = 1  # all sources, so that the rest is the bias
        extra = ((rows == bias - 1) | (rows == n))[..., None] * frozen.positions
        *_, before = push_sources(self.system, factors, self.head.layer, extra)
        *vectors, whole = self.query(before)[:, self.at]
        rest = self.from_query[0] - whole
        chosen = [rest if part == bias else vector for part, vector in zip(parts, vectors, strict=True)]
        queries = torch.stack(chosen) if chosen else self.from_query[:0]
        weights, shape = self.weights[self.row], (len(parts), len(self.keys))
        pulled = self.key.pull(queries[:, None].expand(-1, len(self.key.positions), -1))[:, self.keys]
        gradients = pulled.new_zeros(self.at + 1, len(parts), pulled.shape[-1])
        gradients[self.keys] = (self.slopes * weights)[:, None, None] * pulled.transpose(0, 1)
        rows = self.system.stream_rows(self.head.layer, gradients.float())
        return _by_part(rows, self.key_bias(queries).view(shape) @ weights, column, n)


def _by_part(rows: ReaderEffects, bias: Float64[Tensor, " rows"], column: Tensor, n: int) -> Float64[Tensor, "rows n"]:
    """Return what each named node and part contributes to each row, the constant of a cap left out."""
    out = bias.new_zeros(len(bias), n)
    out.index_add_(1, column, rows.effects.double())
    constant, positions = rows.constant.double(), rows.positions.double()
    out[:, -3:-1] = torch.stack([positions, constant - positions + bias], 1)
    return out


def _named(system: System, graph: AttributionGraph, known: Tensor, added: Tensor) -> tuple[list[str], Tensor]:
    """Return the names of all parts, and the number of the part that each source belongs to.

    Nodes of their own are the graph's, whose sources are `known`, and the sources `added`.
    """
    n_pos = system.frozen.n_pos
    every = torch.arange(n_pos)
    at = torch.cat([system.position.cpu(), every.repeat(system.errors.shape[0]), every])
    nodes = torch.cat([known, added])
    column = len(nodes) + at
    column[nodes] = torch.arange(len(nodes))
    names = [node.id for node in graph.nodes if node.kind != "logit"]
    names += [_id(system, number) for number in added.tolist()]
    names += [f"other:{position}" for position in range(n_pos)]
    return [*names, *LOOSE], column.to(system.frozen.embedding.device)


def _id(system: System, number: int) -> str:
    """Return the id that a source has as a node of a graph."""
    rest, n_pos = number - system.n_features, system.frozen.n_pos
    if rest < 0:
        layer, position, latent = (int(part[number]) for part in (system.layer, system.position, system.latent))
        return GraphNode("feature", layer, position, latent).id
    if rest < system.n_errors:
        return GraphNode("error", rest // n_pos, rest % n_pos, -1).id
    position = rest - system.n_errors
    return GraphNode("token", -1, position, int(system.frozen.tokens[0, position])).id


def _ranked(names: list[str], values: Tensor, low: Tensor, high: Tensor) -> tuple[NodeShare, ...]:
    """Return the parts with a share, the largest first."""
    order = values.abs().argsort(descending=True, stable=True).tolist()
    columns = [column.tolist() for column in (values, low, high)]
    return tuple(NodeShare(names[i], *(column[i] for column in columns)) for i in order if columns[0][i])
