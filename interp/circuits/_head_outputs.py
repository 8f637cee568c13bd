"""Outputs of heads for the tokens that they attend to, from weights and the attention that tokens received.

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
from interp.circuits.head_weights import Factored, HeadWeights, embeddings
from interp.circuits.heads_in_text import HeadWord
from interp.circuits.text_kinds import ORDERED
from interp.models.adapter import token_strings
from interp.models.hooked import HookedModel
from interp.models.identity import tokenizer_of
from interp.names import HeadName
from interp.nulls import DRAWS, prediction_bound
from interp.seeds import make_generator
from interp.text.corpora import MONTHS, NUMBER_WORDS, ORDINALS, WEEKDAYS

if TYPE_CHECKING:
    from interp.lenses.jacobian_lens import JacobianLens

PERMUTATIONS = DRAWS["standard"]
"""Permutations of the tokens whose logits are read, the null of what a head writes."""
N_WORDS, N_SHORT = 8, 4
LEAST_PAIRS = 4


@dataclass
class HeadOutputs:
    """Inputs of heads at the tokens of a text, and what their OV and QK circuits make of them."""

    model: HookedModel
    tokens: Int[Tensor, " n"]
    seed: int = 0

    def __post_init__(self) -> None:
        self.weights = HeadWeights(self.model)
        self.unembedding = self.weights.unembedding().float().cpu()
        self.heads = self.weights.residual.all_heads()

    @cached_property
    def _inputs(self) -> tuple[Tensor, Tensor]:
        return self._read(self.tokens, False), self._read(self.tokens, True)

    def _read(self, tokens: Tensor, through_block_0: bool) -> Tensor:
        rows = embeddings(self.model, tokens, through_block_0=through_block_0).cpu()
        return (rows / rows.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)).float()

    def inputs(self, head: HeadName) -> Float[Tensor, "n d_model"]:
        return self._inputs[head.layer > 0]

    def about_own_token(self, attention: Float[Tensor, "n n_heads n_kinds"]) -> tuple[np.ndarray, np.ndarray]:
        """Return how much heads raise the tokens that they attend to, weighted by attention, and a bound under permuted
        tokens, `[n_heads, n_kinds]` each."""
        n = len(self.tokens)
        generator = make_generator(self.seed, "permuted tokens")
        orders = [torch.arange(n), *(torch.randperm(n, generator=generator) for _ in range(PERMUTATIONS))]
        raised = self.unembedding[:, self.tokens]
        values = np.zeros((len(self.heads), 1 + PERMUTATIONS, attention.shape[2]))
        for i, head in enumerate(self.heads):
            reads, writes = self._factors(self.weights.ov(head))
            z = _own(self.inputs(head) @ reads, writes @ raised, orders)
            share = attention[:, i]
            values[i] = (z @ share / share.sum(0).clamp_min(1e-12)).numpy()
        return values[:, 0], _bound(values[:, 1:])

    def about_next_word(self) -> tuple[np.ndarray, np.ndarray]:
        """Return how much heads raise the next word of an order, among the words of that order, and the bound under
        permuted words, `[n_heads]` each; NaN where no order has four pairs of words that are tokens."""
        tokenizer = tokenizer_of(self.model, required=False)
        encoded = [[]] * len(ORDERED) if tokenizer is None else tokenizer.encode_batch([f" {word}" for word in ORDERED])
        known = {word: ids[0] for word, ids in zip(ORDERED, encoded, strict=True) if len(ids) == 1}
        generator, groups = make_generator(self.seed, "permuted words"), []
        for order in (WEEKDAYS, MONTHS, NUMBER_WORDS, ORDINALS):
            pairs = [
                (known[PREVIOUS[word]], known[word]) for word in order if {word, PREVIOUS.get(word)} <= known.keys()
            ]
            if (n := len(pairs)) >= LEAST_PAIRS:
                before, after = torch.tensor(pairs).T
                draws = [torch.arange(n), *(torch.randperm(n, generator=generator) for _ in range(PERMUTATIONS))]
                inputs = self._read(before, False), self._read(before, True)
                groups.append((inputs, self.unembedding[:, after], draws))
        if not groups:
            unknown = np.full(len(self.heads), np.nan)
            return unknown, unknown
        values = np.zeros((len(self.heads), 1 + PERMUTATIONS, 1))
        for i, head in enumerate(self.heads):
            reads, writes = self._factors(self.weights.ov(head))
            values_of = [_own(read[head.layer > 0] @ reads, writes @ raised, draws) for read, raised, draws in groups]
            values[i, :, 0] = torch.cat(values_of, 1).mean(1)
        return values[:, 0, 0], _bound(values[:, 1:])[:, 0]

    def written(
        self, attention: Float[Tensor, "n n_heads"], expected: Float[Tensor, "n n_heads"], lens: "JacobianLens | None"
    ) -> list[HeadWord]:
        """Return the tokens that each head raises when it reads what it attends to, against what shuffled keys read.

        Only those beyond the largest of as many normal draws as the vocabulary has tokens.
        """
        chance_of_any = (2 * np.log(self.unembedding.shape[1])) ** 0.5
        share, chance = (x / x.sum(0).clamp_min(1e-12) for x in (attention, expected))
        directions = torch.stack([
            self._write(head, (share - chance)[:, i] @ self.inputs(head)) for i, head in enumerate(self.heads)
        ])  # fmt: skip
        read = {"writes": directions}
        if lens is not None:
            pairs = zip(self.heads, directions, strict=True)
            read["lens"] = torch.stack([lens.carry(f"blocks.{h.layer}.hook_resid_post", row) for h, row in pairs])
        return [
            _line(head, side, text, value)
            for side, rows in read.items()
            for head, tops in zip(self.heads, self._raised(rows, N_WORDS), strict=True)
            for text, value in tops
            if value > chance_of_any
        ]

    def circuits(self, keys: list[tuple[HeadName, int]], queries: list[tuple[HeadName, int]]) -> list[HeadWord]:
        """Return what heads write for key tokens, beyond what they write for all, and the key tokens that they look for
        from query tokens.

        `keys` and `queries` are heads with an index of `tokens`.
        """
        texts, lines = token_strings(self.model, self.tokens), []
        rows = [self._write(head, self.inputs(head)[at] - self.inputs(head).mean(0)) for head, at in keys]
        for (head, at), tops in zip(keys, self._raised(torch.stack(rows), N_SHORT) if rows else [], strict=True):
            lines.append(_line(head, "ov", texts[at], tops[0][1], tokens=[text for text, _ in tops]))
        for head, at in queries:
            asks, holds = self._factors(self.weights.qk(head, offset=1))
            inputs = self.inputs(head)
            scores = (inputs[at] @ asks) @ holds @ inputs.T
            top = scores.topk(min(N_SHORT, len(scores)))
            value = float((top.values[0] - scores.mean()) / scores.std().clamp_min(1e-12))
            lines.append(_line(head, "qk", texts[at], value, tokens=[texts[i] for i in top.indices.tolist()]))
        return lines

    def _write(self, head: HeadName, reads: Float[Tensor, " d_model"]) -> Float[Tensor, " d_model"]:
        left, right = self._factors(self.weights.ov(head))
        return (reads @ left) @ right

    @staticmethod
    def _factors(product: Factored) -> tuple[Tensor, Tensor]:
        return product.left.float().cpu(), product.right.float().cpu()

    def _raised(self, directions: Float[Tensor, "n d_model"], k: int) -> list[list[tuple[str, float]]]:
        """Return the tokens that each direction raises most, in standard deviations over the vocabulary."""
        raised = []
        for rows in directions.split(128):
            effects = rows @ self.unembedding
            effects /= effects.std(1, keepdim=True).clamp_min(1e-12)
            top = effects.topk(min(k, effects.shape[1]))
            texts = token_strings(self.model, top.indices)
            raised += list(zip(*[iter(zip(texts, top.values.flatten().tolist(), strict=True))] * top.indices.shape[1],
                              strict=True))  # fmt: skip
        return raised


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
