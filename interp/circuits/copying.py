"""Does a head copy: does attending to a token raise that token's own logit (Elhage et al. 2021)?

The head's full OV circuit takes tokens to logits, `M = E W_V W_O W_U` with `E` the embedding of each token and the
norms folded in. Two scores of it:

    eigenvalue   sum of Re(eigenvalues) / sum of |eigenvalues|; 1 copies, -1 suppresses what it attends to, 0 neither
    top1         share of tokens whose own logit is raised most; by chance 1 / number of tokens

The non-zero eigenvalues of the token by token matrix are those of the `d_head` square `W_O W_U E W_V`. In a deep model
the raw embedding is not what later heads see, so `through_block_0=True` uses each token's residual after the first
block, run on that token alone. Large vocabularies are sampled: both axes hold the same `n_tokens` tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from interp.circuits.head_weights import Factored, HeadWeights
from interp.models.adapter import ordinary_tokens, token_strings
from interp.names import HeadName
from interp.patching.partial import capture
from interp.runtime import make_generator


@dataclass(frozen=True)
class Copying:
    """Copying scores per head."""

    eigenvalue: dict[HeadName, float]
    """-1 to 1"""
    top1: dict[HeadName, float]
    """0 to 1"""
    group_top1: float
    """the same for the sum of all these heads"""
    settings: dict[str, Any] = field(default_factory=dict)
    """n_tokens, through_block_0, seed"""


class TokenTables:
    """Factored token-to-token matrices over a sample of tokens."""

    def __init__(
        self,
        model: Any,
        *,
        n_tokens: int = 2048,
        through_block_0: bool = False,
        seed: int = 0,
        weights: HeadWeights | None = None,
    ):
        self.model, self.weights = model, weights or HeadWeights(model)
        ids = ordinary_tokens(model)
        chosen = torch.randperm(len(ids), generator=make_generator(seed, "sampled tokens"))[:n_tokens].sort().values
        self.tokens = ids[chosen]
        self.through_block_0 = through_block_0
        self.embedding = embeddings(model, self.tokens, through_block_0=through_block_0)
        self.unembedding = self.weights.unembedding()[:, self.tokens]

    def ov(self, head: HeadName) -> Factored:
        """`[token attended to, logit of token]`, unit-scaled input, per unit of the final norm's scale."""
        return self.weights.ov(head).rows(self.embedding).columns(self.unembedding)

    def qk(self, head: HeadName, *, offset: int = 0) -> Factored:
        """`[query token, key token]`: attention scores, before division by the square root of d_head."""
        return self.weights.qk(head, offset=offset).rows(self.embedding).columns(self.embedding.T)

    def top(self, table: Factored, row: int, n: int = 10) -> list[tuple[str, float]]:
        """The largest entries of one row of a table, as `(token, value)`."""
        values = (table.left[row] @ table.right).topk(n)
        texts = token_strings(self.model, self.tokens[values.indices])
        return list(zip(texts, values.values.tolist(), strict=True))


@torch.no_grad()
def copying(
    model: Any,
    heads: Sequence[HeadName],
    *,
    n_tokens: int = 2048,
    through_block_0: bool = False,
    seed: int = 0,
    weights: HeadWeights | None = None,
) -> Copying:
    """Copying scores of some heads on `n_tokens` sampled tokens (all of them, when the vocabulary is smaller)."""
    tables = TokenTables(model, n_tokens=n_tokens, through_block_0=through_block_0, seed=seed, weights=weights)
    own = torch.arange(len(tables.tokens))
    eigenvalue, top1 = {}, {}
    total = torch.zeros(len(own), len(own), dtype=torch.float32)
    for head in heads:
        table = tables.ov(head)
        eigenvalue[head] = eigenvalue_score(table)
        logits = table.left.float() @ table.right.float()
        top1[head] = float((logits.argmax(1) == own).float().mean())
        total += logits
    return Copying(
        eigenvalue,
        top1,
        float((total.argmax(1) == own).float().mean()) if heads else 0.0,
        {"n_tokens": len(own), "through_block_0": through_block_0, "seed": seed},
    )


def eigenvalue_score(table: Factored) -> float:
    """Sum of the eigenvalues' real parts over the sum of their sizes, of a square table; 0 for the zero matrix."""
    values = torch.linalg.eigvals(table.right @ table.left)
    size = float(values.abs().sum())
    return float(values.real.sum()) / size if size else 0.0


@torch.no_grad()
def embeddings(model: Any, tokens: Tensor, *, through_block_0: bool = False, batch_size: int = 1024) -> Tensor:
    """`[n, d_model]` float64: token embeddings without positions, or the stream after block 0 on each token alone."""
    if not through_block_0:
        return model.embed.original_component.weight.detach()[tokens].double()
    point = "blocks.0.hook_resid_post"
    rows = [capture(model, part[:, None], [point])[point][:, 0] for part in tokens.split(batch_size)]
    return torch.cat(rows).double()
