"""Sums over the attention of every head, a batch of contexts at a time, which an interrupted run continues from.

Each layer's patterns are reduced inside their hook: products with the targets of all kinds at once, sums of keys and
queries by token and word, and the strongest query of each context, of which the best examples stay. The sums have a
fixed size, so memory does not grow with the text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.artifacts.files import atomic_file
from interp.circuits.head_kinds import HeadPrompts, pattern_point
from interp.circuits.heads_in_text import N_EXAMPLES, PER_DOCUMENT
from interp.circuits.text_kinds import TextKind, sink_positions
from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.models.passes import run_from

GROUPS = 64
"""Groups of whole documents, which intervals are over."""
LEAST = 5
"""Least occurrences of a token or word that is counted by itself."""
VALUES = ("entropy", "strongest", "outside", "distance")
"""Values of each query besides the scores."""


@dataclass
class TextRead:
    """A text as the sums see it."""

    tokens: Int[Tensor, "n_contexts pos"]
    documents: Int[Tensor, "n_contexts pos"]
    """-1 for BOS and padding"""
    text_of: Mapping[int, str]
    """text of every token"""
    kinds: Mapping[str, TextKind]

    def __post_init__(self) -> None:
        controls = {name: kind.control for name, kind in self.kinds.items() if kind.control is not None}
        self.columns = [*(kind.targets for kind in self.kinds.values()), *controls.values()]
        self.control_of = {name: len(self.kinds) + i for i, name in enumerate(controls)}  # number of its column
        self._known = self.documents[self.documents >= 0].unique()
        self.n_documents = len(self._known)
        ids, counts = self.tokens[self.documents >= 0].unique(return_counts=True)
        kept = ids[counts >= LEAST]
        self.token_ids = kept
        self._row_of = torch.zeros(int(self.tokens.max()) + 1, dtype=torch.int64)
        self._row_of[kept] = torch.arange(1, len(kept) + 1)  # row 0: rare ones
        self._word_row = self._count_words(len(kept) + 1)
        self.n_items = 1 + len(kept) + len(self._word_row)

    def _count_words(self, first: int) -> dict[str, int]:
        counts: dict[str, int] = {}
        for at in range(len(self.tokens)):
            for word in self.prompts(slice(at, at + 1)).words[0]:
                counts[word.text] = counts.get(word.text, 0) + 1
        kept = [word for word, n in counts.items() if n >= LEAST and len(word) > 1]
        return {word: first + i for i, word in enumerate(kept)}

    def prompts(self, rows: slice) -> HeadPrompts:
        tokens, documents = self.tokens[rows], self.documents[rows]
        is_bos, opens = documents < 0, torch.zeros_like(documents, dtype=torch.bool)
        opens[:, 1:] = documents[:, 1:] != documents[:, :-1]  # no word runs across documents, which follow at once
        pieces = [
            ["" if hidden else "\n" * opened + self.text_of[token] for token, hidden, opened in zip(*row, strict=True)]
            for row in zip(tokens.tolist(), is_bos.tolist(), opens.tolist(), strict=True)
        ]
        return HeadPrompts(tokens, is_bos, pieces)

    def groups(self, rows: slice) -> Int[Tensor, "batch pos"]:
        """Return the group of each token's document; -1 for BOS and padding."""
        documents = self.documents[rows]
        number = torch.searchsorted(self._known, documents.clamp_min(0))
        return torch.where(documents < 0, -1, number * min(GROUPS, self.n_documents) // self.n_documents)

    def rows_of(self, rows: slice, prompts: HeadPrompts) -> Int[Tensor, "2 batch pos"]:
        """Return the item rows of each position's token and of its word; 0 for a rare one or no word."""
        words = torch.zeros_like(prompts.tokens)
        for at, line in enumerate(prompts.words):
            for word in line:
                words[at, word.first : word.last + 1] = self._word_row.get(word.text, 0)
        return torch.stack([self._row_of[prompts.tokens], words])

    @property
    def words(self) -> list[str]:
        return list(self._word_row)


class TextSums:
    """Sums over the contexts that were read; `state` is all that a resumed run needs."""

    def __init__(self, model: HookedModel, text: TextRead):
        self.model, self.text = model, text
        self.n_layers, self.n_heads = model.cfg.n_layers, model.cfg.n_heads
        n, k, length = self.n_layers * self.n_heads, len(text.columns), text.tokens.shape[1]
        self.state = {
            "done": torch.zeros((), dtype=torch.int64),
            "queries": torch.zeros(GROUPS, k + 1, dtype=torch.float64),
            "values": torch.zeros(GROUPS, n, 2 * k + len(VALUES), dtype=torch.float64),
            "targets": torch.zeros(len(text.tokens), k),
            "counts": torch.zeros(text.n_items),
            "on_kind": torch.zeros(text.n_items, k),
            "items": torch.zeros(text.n_items, n, 3),
            "strength": torch.full((n, N_EXAMPLES), -1.0),
            "where": torch.zeros(n, N_EXAMPLES, 4, dtype=torch.int64),
            "attention": torch.zeros(n, N_EXAMPLES, 2, length, dtype=torch.float16),
        }

    def save(self, path: Path) -> None:
        from safetensors.torch import save_file

        with atomic_file(path) as temporary:
            save_file(self.state, temporary)

    def resume(self, path: Path) -> None:
        from safetensors.torch import load_file

        self.state |= load_file(path)

    @torch.no_grad()
    def add(self, rows: slice) -> None:
        """Read a batch of contexts. Raises `ConfigError` where a layer gave no pattern."""
        prompts, group = self.text.prompts(rows), self.text.groups(rows)
        batch = _Batch(prompts, group, self.text, rows)
        reduced: dict[int, tuple[Tensor, ...]] = {}
        device = self.model.cfg.device

        def reduce(pattern: Tensor, hook: object, layer: int) -> None:
            reduced[layer] = batch.reduce(pattern.float().cpu())

        hooks = [(pattern_point(layer), partial(reduce, layer=layer)) for layer in range(self.n_layers)]
        run_from(self.model, prompts.tokens.to(device), hooks, until=hooks[-1][0])
        if len(reduced) != self.n_layers:
            raise ConfigError(
                f"{len(reduced)} of {self.n_layers} layers gave attention patterns; load the model with "
                "attention='eager'"
            )
        layers = [reduced[layer] for layer in range(self.n_layers)]
        values, items, strength, query, key, attention = (torch.cat(parts, 1) for parts in zip(*layers, strict=True))
        state = self.state
        state["values"] += values
        state["queries"] += batch.queries
        state["targets"][rows] = batch.targets
        for row in batch.item_rows.flatten(1):
            state["items"].index_add_(0, row, items)
            state["counts"].index_add_(0, row, batch.counted.flatten().float())
            state["on_kind"].index_add_(0, row, batch.is_key.flatten(0, 1).float())
        self._keep_best(rows, strength.T, query.T, key.T, attention.transpose(0, 1))
        state["done"] = torch.tensor(min(rows.stop, len(self.text.tokens)))

    def _keep_best(self, rows: slice, strength: Tensor, query: Tensor, key: Tensor, attention: Tensor) -> None:
        """Keep the strongest examples of each head, at most `PER_DOCUMENT` of one document."""
        state, n = self.state, len(strength)
        context = torch.arange(rows.start, rows.start + strength.shape[1]).expand(n, -1)
        document = self.text.documents[context, query]
        where = torch.cat([state["where"], torch.stack([context, document, query, key], 2)], 1)
        strength = torch.cat([state["strength"], strength], 1)
        order = strength.argsort(dim=1, descending=True, stable=True)
        ranked = where[..., 1].gather(1, order)
        earlier = (ranked[:, :, None] == ranked[:, None, :]).tril(-1).sum(2)
        sorted_strength = strength.gather(1, order).masked_fill(earlier >= PER_DOCUMENT, -1)
        best = sorted_strength.argsort(dim=1, descending=True, stable=True)[:, :N_EXAMPLES]
        chosen = order.gather(1, best)
        state["strength"] = sorted_strength.gather(1, best)
        state["where"] = where[torch.arange(n)[:, None], chosen]
        both = torch.cat([state["attention"], attention.half()], 1)
        state["attention"] = both[torch.arange(n)[:, None], chosen]


class _Batch:
    """Targets of a batch, and what a pattern is reduced with."""

    def __init__(self, prompts: HeadPrompts, group: Tensor, text: TextRead, rows: slice):
        n = prompts.tokens.shape[1]
        sink = sink_positions(prompts.is_bos)
        self.counted = ~sink
        self.keep = (~sink).float()
        causal = torch.ones(n, n).tril()
        keys = causal * self.keep[:, None, :]
        masks = [targets(prompts) & ~prompts.is_bos[:, :, None] & causal.bool() for targets in text.columns]
        targets = torch.stack(masks, 3)
        n_keys = keys.sum(2).clamp_min(1)
        on_text = (targets * self.keep[:, None, :, None]).sum(2)
        on_sink = targets.sum(2) - on_text
        n_sink = (causal.sum(1) - keys.sum(2)).clamp_min(1)
        has = (targets.any(2) & self.counted[:, :, None]).float()
        self.targets = has.sum(1)  # queries of each context that have one
        distance = (torch.arange(n)[:, None] - torch.arange(n)).float() * keys
        self.reads = torch.cat([targets * has[:, :, None], keys[..., None], distance[..., None]], 3).float()
        self.shuffled = on_text / n_keys[..., None] * has
        self.uniform = on_sink / (n_sink + n_keys)[..., None] * has
        self.n_keys, self.largest = n_keys, torch.arange(1, n + 1).log().clamp_min(1e-9)
        self.by_group = torch.nn.functional.one_hot((group + 1).flatten(), GROUPS + 1)[:, 1:].float()
        self.by_group *= self.counted.flatten()[:, None]
        self.queries = (self.by_group.T @ torch.cat([has, self.counted[..., None].float()], 2).flatten(0, 1)).double()
        self.item_rows = text.rows_of(rows, prompts) * self.counted
        self.is_key = (targets & self.counted[:, :, None, None]).any(1) & self.counted[:, :, None]

    def reduce(self, pattern: Float[Tensor, "batch n_heads dest src"]) -> tuple[Tensor, ...]:
        """Return sums by group `[group, head, value]`, by position `[batch * pos, head, 3]`, and an example of each
        context `[batch, head]`: strength, query, key, attention."""
        counted, n_heads = self.counted.float(), pattern.shape[1]
        entropy = torch.special.entr(pattern).sum(-1) / self.largest
        reads = torch.stack([rows.transpose(0, 1) @ kinds for rows, kinds in zip(pattern, self.reads, strict=True)])
        scores, outside, distance = reads[..., :-2], reads[..., -2], reads[..., -1]  # [batch, dest, head, ...]
        pattern = pattern * self.keep[:, None, None, :]
        strongest = pattern.amax(-1) * counted[:, None]
        received = (counted[:, None, None] @ pattern)[:, :, 0].transpose(1, 2)
        share = outside * (counted / self.n_keys)[..., None]
        expected = share.flip(1).cumsum(1).flip(1) * self.keep[..., None]
        items = torch.stack([received, expected, outside * counted[..., None]], 3).flatten(0, 1)
        shuffled = outside[..., None] * self.shuffled[:, :, None] + self.uniform[:, :, None]
        others = torch.stack([entropy.transpose(1, 2), strongest.transpose(1, 2), outside, distance], 3)
        values = torch.cat([scores, shuffled, others], 3).flatten(0, 1).flatten(1)
        sums = (self.by_group.T @ values).unflatten(1, (n_heads, -1)).double()
        strength, query = strongest.max(-1)
        at = torch.arange(len(pattern))[:, None], torch.arange(n_heads)
        key = pattern[*at, query].argmax(-1)
        attention = torch.stack([pattern[*at, query], pattern[*at, :, key]], 2)
        return sums, items, strength, query, key, attention
