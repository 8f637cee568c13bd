"""Prompts that ask for induction, their corrupted twins, and what is measured on them.

A prompt repeats a block of random tokens. Its two corrupted twins replace every second token by others: where one of
them keeps a token, *the token is the same and the token before it is another*. A head's corrupted value at a position
is taken from the twin that keeps it, so the difference from the clean value is what the head knows of the token before
(and of others at odd distance), not of the token itself.

The measurements behind the induction verdict: scores, direct edges, edges into all candidates at once.

Direct edges are exact and need no pass through the model: with everything between sender and reader frozen, the
reader's input is the clean stream plus what the sender alone would have written differently. So one block, from its
input to its attention pattern, is run per sender.

What a head adds to the logits itself: its direct path replaced, nothing between, the final norm recomputed.

The final stream is a sum, so the path from a head to the logits is replaced by adding to it what the head writes on
prompts that do not repeat, minus what it writes here: there it has nothing to find. Measured is the logit of the right
next token above the mean of all logits, wherever that token can be known from the first block. Exact, and two passes
for all heads. What later parts make of the head's write is not in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from interp.circuits.config import InductionConfig
from interp.circuits.head_kinds import draw_prompts, score_pattern, target_masks, target_weights
from interp.circuits.task import final_point
from interp.errors import ConfigError
from interp.models.adapter import Hook
from interp.models.loss import repeat_losses, token_losses
from interp.models.residual import ResidualStream, Side
from interp.names import HeadName, parse_node
from interp.patching.partial import capture, run_from
from interp.patching.paths import KnownClean, PathPatcher
from interp.runtime import make_generator
from interp.statistics import t_interval
from interp.text.tokens import repeated_random_tokens


@dataclass(frozen=True)
class InductionPrompts:
    """The prompts of one seed."""

    tokens: Tensor
    """`[n, pos]`"""
    unrepeated: Tensor
    """`[n, pos]`: the same lags, nothing repeats: the null"""
    twins: tuple[Tensor, Tensor]
    """`[n, pos]` each: with the tokens at even (odd) positions replaced"""
    lags: Tensor
    start: int
    """1 after a BOS, else 0"""
    weights: Tensor
    """`[n, pos * pos, 3]`: attention times these, summed, are the scores of `measure_weights`"""

    def merge_twins(self, even_replaced: Tensor, odd_replaced: Tensor) -> Tensor:
        """Values `[n, pos, ...]`, each position from the twin that keeps its token."""
        even = (torch.arange(even_replaced.shape[1], device=even_replaced.device) % 2 == 0).view(
            1, -1, *[1] * (even_replaced.ndim - 2)
        )
        return torch.where(even, odd_replaced, even_replaced)

    def first(self, n: int) -> "InductionPrompts":
        """The first prompts."""
        return self.batches(n)[0]

    def batches(self, size: int) -> list["InductionPrompts"]:
        """The prompts in order, `size` at a time."""
        tokens, unrepeated, even, odd, lags, weights = (
            value.split(size) for value in (self.tokens, self.unrepeated, *self.twins, self.lags, self.weights)
        )
        return [
            InductionPrompts(tokens[i], unrepeated[i], (even[i], odd[i]), lags[i], self.start, weights[i])
            for i in range(len(tokens))
        ]


def draw_induction_prompts(model: Any, config: InductionConfig, seed: int) -> InductionPrompts:
    """The prompts of one seed. Raises `ConfigError` when the model's context or vocabulary holds no repeat."""
    from interp.models.adapter import bos_token_id, ordinary_tokens

    ids, bos = ordinary_tokens(model), bos_token_id(model)
    length, low, high = prompt_sizes(model, config, len(ids), bos)
    tokens, unrepeated = _draw(ids, bos, config.prompts_per_seed, length, low, high, seed)
    lags = torch.stack([_lag(row, bos) for row in tokens])
    generator = make_generator(seed, "corrupted twins")
    others = ids[torch.randint(len(ids) - 1, tokens.shape, generator=generator)]
    others = torch.where(others == tokens, ids[-1], others)  # any token but its own
    even = (torch.arange(length) % 2 == 0)[None].expand_as(tokens)
    is_bos = tokens == (-1 if bos is None else bos)
    twins = [torch.where(which & ~is_bos, others, tokens) for which in (even, ~even)]
    return InductionPrompts(
        tokens, unrepeated, (twins[0], twins[1]), lags, int(bos is not None), measure_weights(tokens, lags, bos)
    )


def _draw(ids: Tensor, bos: int | None, n: int, length: int, low: int, high: int, seed: int) -> tuple[Tensor, Tensor]:
    """Repeated prompts, and ones that do not repeat: independent draws where the vocabulary is shorter than these."""
    if len(ids) >= length - (bos is not None):
        return draw_prompts(ids, bos, n, length, low, high, seed)
    tokens = repeated_random_tokens(
        n_prompts=n, context_length=length, d_vocab_ids=ids, min_lag=low, max_lag=high, bos=bos,
        generator=make_generator(seed, "head prompts"),
    ).tokens  # fmt: skip
    independent = ids[torch.randint(len(ids), tokens.shape, generator=make_generator(seed, "independent tokens"))]
    if bos is not None:
        independent[:, 0] = bos
    return tokens, independent


def prompt_sizes(model: Any, config: InductionConfig, n_ids: int, bos: int | None) -> tuple[int, int, int]:
    """Context length, shortest and longest lag."""
    length = config.context_length or min(int(model.cfg.n_ctx), 65)
    if length > model.cfg.n_ctx:
        raise ConfigError(f"context_length {length} exceeds the model's context of {model.cfg.n_ctx}")
    high = config.max_lag or min((length - (bos is not None)) // 2, n_ids)
    low = config.min_lag or max(high // 2, 2)
    return length, min(low, high), high


def measure_weights(tokens: Tensor, lags: Tensor, bos: int | None) -> Tensor:
    """`[n, pos * pos, 3]`: strict induction, TransformerLens' stripe, previous token.

    strict: queries whose token occurred before, all their matches summed. tl: the mean of the diagonal `lag - 1`
    back, whose first entry has no match yet.
    """
    masks = target_masks(tokens, bos)
    position = torch.arange(tokens.shape[1])
    distance = position[:, None] - position[None, :]
    stripe = distance[None] == (lags - 1)[:, None, None]
    return target_weights({"strict": masks["induction"], "tl": stripe, "previous_token": masks["previous_token"]})


def _lag(row: Tensor, bos: int | None) -> Tensor:
    text = row[1:] if bos is not None else row
    return (text[1:] == text[0]).nonzero()[0, 0] + 1


@dataclass
class Held:
    """What one batch of prompts makes the model hold, for exact direct edges."""

    prompts: InductionPrompts
    resid: dict[int, Tensor]
    """layer -> its input, for the layers of the candidates"""
    clean_z: list[Tensor]
    """per layer below the deepest candidate `[batch, pos, n_heads, d_head]`"""
    corrupt_z: list[Tensor]


@torch.no_grad()
def hold(model: Any, prompts: InductionPrompts, layers: Sequence[int]) -> Held:
    """One clean pass and one of each twin, up to the deepest layer of interest."""
    depth = max(layers, default=0)
    z_names = [f"blocks.{layer}.attn.hook_z" for layer in range(depth)]
    resid_names = {layer: f"blocks.{layer}.hook_resid_pre" for layer in layers}
    clean = capture(model, prompts.tokens, [*z_names, *resid_names.values()])
    even, odd = (capture(model, twin, z_names) for twin in prompts.twins) if z_names else ({}, {})
    return Held(
        prompts,
        {layer: clean[name] for layer, name in resid_names.items()},
        [clean[name] for name in z_names],
        [prompts.merge_twins(even[name], odd[name]) for name in z_names],
    )


class DirectEdges:
    """Strict induction scores of heads when one sender's direct edge into their queries or keys is patched."""

    def __init__(self, model: Any, held: Held, *, at_once: int = 4):
        self.model, self.held, self.residual, self.at_once = model, held, ResidualStream(model), at_once
        self.weights = held.prompts.weights[..., :1]

    def difference(self, sender: HeadName) -> Tensor:
        """`[batch, pos, d_model]`: corrupted minus clean write of a head."""
        held = self.held
        z = held.corrupt_z[sender.layer][:, :, sender.head] - held.clean_z[sender.layer][:, :, sender.head]
        return z @ self.residual.W(sender.layer, "o")[sender.head]

    def turned(self, sender: HeadName, seed: int) -> Tensor:
        """The sender's difference turned by a random rotation: its size at every position, another direction."""
        own = self.difference(sender)
        gaussian = torch.randn(own.shape[-1], own.shape[-1], generator=make_generator(seed, "turned writes"))
        return own @ torch.linalg.qr(gaussian).Q.to(own)

    def scores(self, layer: int, side: Side, differences: Sequence[Tensor]) -> Tensor:
        """`[n_differences, n_heads, batch]`: strict scores of a layer's heads, each difference by itself."""
        parts = [
            self._scores(layer, side, list(differences[i : i + self.at_once]))
            for i in range(0, len(differences), self.at_once)
        ]
        return torch.cat(parts)

    def clean(self, layer: int) -> Tensor:
        """`[n_heads, batch]`"""
        return self._scores(layer, "k", [torch.zeros_like(self.held.resid[layer])])[0]

    @torch.no_grad()
    def _scores(self, layer: int, side: Side, differences: list[Tensor]) -> Tensor:
        resid = self.held.resid[layer]
        changed = torch.cat([resid + difference for difference in differences])
        new = self.residual.project(layer, side, changed)
        found: list[Tensor] = []

        def reduce(pattern: Tensor, hook: Any) -> None:
            weights = self.weights.to(pattern.device).repeat(len(differences), 1, 1)
            found.append(score_pattern(pattern.float(), weights)[..., 0].cpu())

        hooks: list[tuple[str, Hook]] = [
            (f"blocks.{layer}.attn.hook_{side}", lambda value, hook: new.reshape(value.shape)),
            (f"blocks.{layer}.attn.hook_pattern", reduce),
        ]
        run_from(
            self.model, resid.repeat(len(differences), 1, 1), hooks, layer=layer,
            until=f"blocks.{layer}.attn.hook_pattern",
        )  # fmt: skip
        return rearrange(found[0], "(sender batch) head -> sender head batch", sender=len(differences))


@dataclass(frozen=True)
class GroupEffect:
    """One sender's value sent into all candidates after it, which see each other: changes against the clean run."""

    strict: dict[HeadName, Tensor]
    """candidate -> `[n]` change of its strict score"""
    first: Tensor | None
    """`[n]` change of the first block's loss, nats; None where the pass ended before the logits"""
    second: Tensor | None
    """`[n]` change of the loss after the repeat began"""


@dataclass(frozen=True)
class CleanRun:
    """The plain model on the prompts."""

    strict: dict[HeadName, Tensor]
    first: Tensor
    second: Tensor


@torch.no_grad()
def clean_run(model: Any, prompts: InductionPrompts, candidates: Sequence[HeadName]) -> CleanRun:
    """Scores and losses without a patch."""
    watch = _Watch(candidates, prompts.weights[..., :1])
    logits = run_from(model, prompts.tokens, watch.hooks())
    assert logits is not None
    first, second = _halves(logits, prompts)
    return CleanRun(watch.strict(), first, second)


@torch.no_grad()
def into_candidates(
    model: Any, prompts: InductionPrompts, held: Held, sender: HeadName, side: Side, candidates: Sequence[HeadName],
    clean: CleanRun, *, with_loss: bool = True,
) -> GroupEffect:  # fmt: skip
    """Path-patch a sender into the queries, keys or values of every candidate in a later layer.

    Without the loss the pass ends at the last candidate's pattern.
    """
    after = [head for head in candidates if head.layer > sender.layer]
    patcher = PathPatcher(model, [str(sender)], [(str(head), side) for head in after], "receivers")
    corrupt, clean_z = (z[sender.layer][:, :, sender.head] for z in (held.corrupt_z, held.clean_z))
    node = parse_node(str(sender))
    known = KnownClean(held.resid[min(head.layer for head in after)], {node: clean_z})
    watch = _Watch(after, prompts.weights[..., :1])
    last = f"blocks.{max(head.layer for head in after)}.attn.hook_pattern"
    logits = patcher.run(
        prompts.tokens, {node: corrupt}, hooks=watch.hooks(), until=None if with_loss else last, known=known
    )
    strict = {head: score - clean.strict[head] for head, score in watch.strict().items()}
    if logits is None:
        return GroupEffect(strict, None, None)
    first, second = _halves(logits, prompts)
    return GroupEffect(strict, first - clean.first, second - clean.second)


def collect_effects(effects: Sequence[GroupEffect]) -> GroupEffect:
    """Batches put together."""
    first = [effect.first for effect in effects if effect.first is not None]
    second = [effect.second for effect in effects if effect.second is not None]
    return GroupEffect(
        {head: torch.cat([effect.strict[head] for effect in effects]) for head in effects[0].strict},
        torch.cat(first) if first else None,
        torch.cat(second) if second else None,
    )


class _Watch:
    """Reduces the patterns of some heads' layers to strict scores."""

    def __init__(self, heads: Sequence[HeadName], weights: Tensor):
        self.heads, self.weights, self.found = list(heads), weights, {}

    def hooks(self) -> list[tuple[str, Hook]]:
        return [
            (f"blocks.{layer}.attn.hook_pattern", self._reduce(layer))
            for layer in sorted({head.layer for head in self.heads})
        ]

    def strict(self) -> dict[HeadName, Tensor]:
        """Head -> `[n]`."""
        return {head: self.found[head.layer][:, head.head] for head in self.heads}

    def _reduce(self, layer: int) -> Callable[..., None]:
        def reduce(pattern: Tensor, hook: Any) -> None:
            self.found[layer] = score_pattern(pattern.float(), self.weights.to(pattern.device))[..., 0].cpu()

        return reduce


def _halves(logits: Tensor, prompts: InductionPrompts) -> tuple[Tensor, Tensor]:
    return repeat_losses(token_losses(logits, prompts.tokens).cpu(), prompts.lags, start=prompts.start)


@dataclass(frozen=True)
class DirectOutput:
    """One head's direct path to the logits, replaced."""

    change: np.ndarray
    """`[n]` change of the right token's logit above the mean, by prompt; negative: the head argues for it"""
    control: np.ndarray | None
    """`[n]` the same of the strongest other head of its layer (no induction head itself)"""

    def evidence(self) -> dict[str, float]:
        """The change with its interval, and the bound of the control, in logits."""
        mean, low, high = t_interval(self.change)
        found = {"logit_effect": float(mean), "low": float(low), "high": float(high)}
        if self.control is not None:
            found["logit_effect_of_other_head"] = float(self.control.mean())
        return found


def direct_outputs(
    model: Any, drawn: Sequence[InductionPrompts], heads: Sequence[HeadName], batch_size: int
) -> dict[HeadName, DirectOutput]:
    """Of each head in `heads`, with all other heads of its layer as controls."""
    if not heads:
        return {}
    layers = sorted({head.layer for head in heads})
    parts = [part for prompts in drawn for part in prompts.batches(batch_size)]
    changes = torch.cat([direct_logit_changes(model, part, layers) for part in parts], -1).double().numpy()
    found = {}
    for head in heads:
        of_layer = changes[layers.index(head.layer)]
        others = [i for i in range(len(of_layer)) if HeadName(head.layer, i) not in heads]
        strongest = min(others, key=lambda i: of_layer[i].mean(), default=None)
        found[head] = DirectOutput(of_layer[head.head], None if strongest is None else of_layer[strongest])
    return found


@torch.no_grad()
def direct_logit_changes(model: Any, prompts: InductionPrompts, layers: Sequence[int]) -> Tensor:
    """`[n_layers, n_heads, n]`: mean change of the right token's logit above the mean, each head of `layers` alone."""
    residual, tokens = ResidualStream(model), prompts.tokens
    names = [f"blocks.{layer}.attn.hook_z" for layer in layers]
    final = final_point(model)
    clean, other = capture(model, tokens, [*names, final]), capture(model, prompts.unrepeated, names)
    known = _known(prompts).to(clean[final].device)
    following = tokens[:, 1:].to(known.device)[known]
    W_U = model.W_U
    direction = W_U.T[following] - W_U.mean(1)
    stream = clean[final][:, :-1][known]

    def above_mean(resid: Tensor) -> Tensor:
        logits = (residual.norm_final(resid[None])[0] * direction).sum(-1)
        total = logits.new_zeros(known.shape, dtype=torch.float32).masked_scatter_(known, logits.float())
        return (total.sum(1) / known.sum(1)).cpu()

    before, changes = above_mean(stream), []
    for layer, name in zip(layers, names, strict=True):
        change = (other[name] - clean[name])[:, :-1][known]  # [n_known, n_heads, d_head]
        W_O = residual.W(layer, "o")
        changes.append(torch.stack([above_mean(stream + change[:, i] @ W) - before for i, W in enumerate(W_O)]))
    return torch.stack(changes)


def _known(prompts: InductionPrompts) -> Tensor:
    """`[n, pos - 1]` bool: positions whose next token followed the same token one lag before."""
    position = torch.arange(prompts.tokens.shape[1] - 1)[None]
    return position >= (prompts.start + prompts.lags)[:, None]
