"""What heads write about the tokens that they attend to, from weights and the attention that tokens received.

The input of a head at a token is the token's residual after block 0, run on the token alone (its embedding for heads of
layer 0), normed. Values are in standard deviations over the tokens of the text, so that scales of norms drop out.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.head_kinds import PREVIOUS
from interp.circuits.head_weights import HeadWeights, embeddings
from interp.circuits.heads_in_text import HeadWord
from interp.circuits.text_kinds import ORDERED
from interp.models.adapter import token_strings
from interp.models.hooked import HookedModel
from interp.models.identity import tokenizer_of
from interp.names import HeadName
from interp.nulls import prediction_bound
from interp.seeds import make_generator

if TYPE_CHECKING:
    from interp.lenses.jacobian_lens import JacobianLens

DRAWS = 19
"""Permutations of the tokens whose logits are read, the null of what a head writes."""
N_WORDS = 8


@dataclass
class HeadOutputs:
    """Inputs of heads at the tokens of a text, and what their OV and QK circuits make of them."""

    model: HookedModel
    tokens: Int[Tensor, " n"]
    seed: int = 0

    def __post_init__(self) -> None:
        self.weights = HeadWeights(self.model)
        self.unembedding = self.weights.unembedding()
        self.heads = self.weights.residual.all_heads()

    @cached_property
    def _inputs(self) -> tuple[Tensor, Tensor]:
        return self._read(self.tokens, False), self._read(self.tokens, True)

    def _read(self, tokens: Tensor, through_block_0: bool) -> Tensor:
        rows = embeddings(self.model, tokens, through_block_0=through_block_0).cpu()
        return rows / rows.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)

    def inputs(self, head: HeadName) -> Float[Tensor, "n d_model"]:
        return self._inputs[head.layer > 0]

    def about_own_token(self, attention: Float[Tensor, "n n_heads n_kinds"]) -> tuple[np.ndarray, np.ndarray]:
        """Return how much heads raise the tokens that they attend to, weighted by attention, and a bound under permuted
        tokens, `[n_heads, n_kinds]` each."""
        n = len(self.tokens)
        generator = make_generator(self.seed, "permuted tokens")
        orders = [torch.arange(n), *(torch.randperm(n, generator=generator) for _ in range(DRAWS))]
        raised = self.unembedding[:, self.tokens]
        values = np.zeros((len(self.heads), 1 + DRAWS, attention.shape[2]))
        for i, head in enumerate(self.heads):
            z = _own(self.inputs(head) @ self.weights.ov(head).left, self.weights.ov(head).right @ raised, orders)
            share = attention[:, i].double()
            values[i] = (z @ share / share.sum(0).clamp_min(1e-12)).numpy()
        return values[:, 0], _bound(values[:, 1:])

    def about_next_word(self) -> tuple[np.ndarray, np.ndarray]:
        """Return how much heads raise the next word of an order, among the words of all orders, and the bound under
        permuted words, `[n_heads]` each; NaN where fewer than four pairs of words are tokens."""
        tokenizer = tokenizer_of(self.model, required=False)
        encoded = [[]] * len(ORDERED) if tokenizer is None else tokenizer.encode_batch([f" {word}" for word in ORDERED])
        known = {word: ids[0] for word, ids in zip(ORDERED, encoded, strict=True) if len(ids) == 1}
        pairs = [(known[word], known[after]) for after, word in PREVIOUS.items() if word in known and after in known]
        if len(pairs) < 4:
            return (np.full(len(self.heads), np.nan),) * 2
        before, after = torch.tensor(pairs).T
        generator = make_generator(self.seed, "permuted words")
        n = len(pairs)
        orders = [torch.arange(n), *(torch.randperm(n, generator=generator) for _ in range(DRAWS))]
        inputs = self._read(before, False), self._read(before, True)
        values = np.zeros((len(self.heads), 1 + DRAWS, 1))
        for i, head in enumerate(self.heads):
            ov = self.weights.ov(head)
            values[i, :, 0] = _own(
                inputs[head.layer > 0] @ ov.left, ov.right @ self.unembedding[:, after], orders
            ).mean(1)
        return values[:, 0, 0], _bound(values[:, 1:])[:, 0]

    def written(
        self, attention: Float[Tensor, "n n_heads"], expected: Float[Tensor, "n n_heads"], lens: "JacobianLens | None"
    ) -> list[HeadWord]:
        """Return the tokens that each head raises when it reads what it attends to, against what shuffled keys read."""
        lines = []
        for i, head in enumerate(self.heads):
            share, chance = (x[:, i].double() / x[:, i].double().sum().clamp_min(1e-12) for x in (attention, expected))
            ov = self.weights.ov(head)
            direction = ((share - chance) @ self.inputs(head) @ ov.left) @ ov.right
            read = {"writes": direction}
            if lens is not None:
                read["lens"] = lens.carry(f"blocks.{head.layer}.hook_resid_post", direction)
            for side, vector in read.items():
                effects = vector @ self.unembedding
                effects /= effects.std().clamp_min(1e-12)
                top = effects.topk(min(N_WORDS, len(effects)))
                texts = token_strings(self.model, top.indices)
                lines += [_line(head, side, *pair) for pair in zip(texts, top.values.tolist(), strict=True)]
        return lines

    def circuits(self, head: HeadName, keys: list[int], queries: list[int]) -> list[HeadWord]:
        """Return what a head writes for key tokens, and which key tokens it looks for from query tokens; `keys` and
        `queries` are indices of `tokens`."""
        ov, qk = self.weights.ov(head), self.weights.qk(head, offset=min(1, self.weights.shape.n_ctx - 1))
        inputs, lines = self.inputs(head), []
        texts = token_strings(self.model, self.tokens)
        for key in keys:
            effects = (inputs[key] @ ov.left) @ ov.right @ self.unembedding
            top = effects.topk(min(4, len(effects)))
            lines.append(_line(head, "ov", texts[key], float(top.values[0] / effects.std()), 0,
                               token_strings(self.model, top.indices)))  # fmt: skip
        for query in queries:
            scores = (inputs[query] @ qk.left) @ (qk.right @ inputs.T)
            top = scores.topk(min(4, len(scores)))
            value = float((top.values[0] - scores.mean()) / scores.std().clamp_min(1e-12))
            lines.append(_line(head, "qk", texts[query], value, 0, [texts[i] for i in top.indices.tolist()]))
        return lines


def _line(
    head: HeadName, side: str, text: str, value: float, count: int = 0, tokens: list[str] | None = None
) -> HeadWord:
    return HeadWord(
        layer=head.layer, head=head.head, side=side, text=text, value=value, count=count, tokens=tokens or []
    )


def _own(
    left: Float[Tensor, "n d_head"], right: Float[Tensor, "d_head n"], orders: list[Tensor]
) -> Float[Tensor, "n_orders n"]:
    """Return entry `(i, order[i])` of `left @ right` in standard deviations of its row, for each order."""
    right = right - right.mean(1, keepdim=True)
    spread = ((left @ (right @ right.T / right.shape[1])) * left).sum(1).clamp_min(0).sqrt().clamp_min(1e-12)
    return torch.stack([(left * right[:, order].T).sum(1) / spread for order in orders])


def _bound(draws: np.ndarray) -> np.ndarray:
    """Return the size that one of all heads reaches in 5 % of cases; `draws [n_heads, n_draws, n_kinds]`."""
    mean, spread = draws.mean(1), draws.std(1, ddof=1)
    return np.abs(mean) + prediction_bound(0.0, spread, draws.shape[1], n_tests=2 * len(draws))
