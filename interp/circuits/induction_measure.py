"""Prompts with repeats, their corrupted versions, and the measurements behind the induction verdict.

A prompt repeats a block of random tokens. It has two corrupted versions: one replaces all tokens at even positions, the
other those at odd positions. So where a version retains a token, *the token before it differs*. A head's corrupted
value at a position is taken from the version that retains the token. Its difference from the clean value then depends
on the previous token (and others at odd distance), not on the token itself.

Direct edges (`DirectEdges`) are exact and need no full forward pass. With all nodes between sender and reader frozen,
the reader's input is the clean stream plus the change of the sender's output. So each sender costs one block, from its
input to its attention pattern. `into_candidates` patches the edges into all candidates at once. In a model with
post-norms the change is taken at the scale of the clean run.

Direct effects on the logits (`direct_outputs`) replace the path from a head to the final stream. The head's output on
prompts without repeats is added and its own output subtracted, and the final norm is recomputed. The metric is the
logit of the correct next token above the mean logit, at all positions where the first block determines that token. This
is exact and takes two passes for all heads. Indirect effects through later components are not included.
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
from interp.errors import ConfigError
from interp.models.adapter import Hook, widened
from interp.models.hooked import HookedModel
from interp.models.passes import capture, repeat_losses, run_from, token_losses
from interp.models.residual import ResidualStream, Side
from interp.names import HeadName, parse_node
from interp.patching.paths import KnownClean, PathPatcher
from interp.patching.task import final_point
from interp.runtime import make_generator
from interp.text.tokens import repeated_random_tokens


@dataclass(frozen=True)
class InductionPrompts:
    """Prompts of one seed."""

    tokens: Tensor
    """`[n, pos]` prompts that repeat a block"""
    unrepeated: Tensor
    """`[n, pos]` prompts without repeats, the null, with the same lags"""
    corrupted: tuple[Tensor, Tensor]
    """`[n, pos]` each: with the tokens at even (odd) positions replaced"""
    lags: Tensor
    """`[n]` length of the repeated block of each prompt"""
    start: int
    """1 after a BOS, else 0"""
    weights: Tensor
    """`[n, pos * pos, 3]`: weights of attention in the three scores of `measure_weights`"""

    def merge_corrupted(self, even_replaced: Tensor, odd_replaced: Tensor) -> Tensor:
        """Merge values `[n, pos, ...]` of the two versions: each position from the one that retains its token."""
        even = (torch.arange(even_replaced.shape[1], device=even_replaced.device) % 2 == 0).view(
            1, -1, *[1] * (even_replaced.ndim - 2)
        )
        return torch.where(even, odd_replaced, even_replaced)

    def first(self, n: int) -> "InductionPrompts":
        """Return the first `n` prompts."""
        return self.batches(n)[0]

    def batches(self, size: int) -> list["InductionPrompts"]:
        """Return the prompts in order, in batches of `size`."""
        tokens, unrepeated, even, odd, lags, weights = (
            value.split(size) for value in (self.tokens, self.unrepeated, *self.corrupted, self.lags, self.weights)
        )
        return [
            InductionPrompts(tokens[i], unrepeated[i], (even[i], odd[i]), lags[i], self.start, weights[i])
            for i in range(len(tokens))
        ]


def draw_induction_prompts(model: HookedModel, config: InductionConfig, seed: int) -> InductionPrompts:
    """Draw the prompts of one seed. Raises `ConfigError` when context or vocabulary are too small for a repeat."""
    from interp.models.adapter import bos_token_id, ordinary_tokens

    ids, bos = ordinary_tokens(model), bos_token_id(model)
    length, low, high = prompt_sizes(model, config, len(ids), bos)
    tokens, unrepeated = _draw(ids, bos, config.prompts_per_seed, length, low, high, seed)
    lags = torch.stack([_lag(row, bos) for row in tokens])
    generator = make_generator(seed, "corrupted twins")
    others = ids[torch.randint(len(ids) - 1, tokens.shape, generator=generator)]
    others = torch.where(others == tokens, ids[-1], others)  # any other token
    even = (torch.arange(length) % 2 == 0)[None].expand_as(tokens)
    is_bos = tokens == (-1 if bos is None else bos)
    corrupted = [torch.where(which & ~is_bos, others, tokens) for which in (even, ~even)]
    return InductionPrompts(
        tokens, unrepeated, (corrupted[0], corrupted[1]), lags, int(bos is not None), measure_weights(tokens, lags, bos)
    )


def _draw(ids: Tensor, bos: int | None, n: int, length: int, low: int, high: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw prompts with and without repeats; tokens of the latter are independent where the vocabulary is too small."""
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


def prompt_sizes(model: HookedModel, config: InductionConfig, n_ids: int, bos: int | None) -> tuple[int, int, int]:
    """Return context length, shortest and longest lag. Raises `ConfigError` for a length beyond the context."""
    length = config.context_length or min(int(model.cfg.n_ctx), 65)
    if length > model.cfg.n_ctx:
        raise ConfigError(f"context_length {length} exceeds the model's context of {model.cfg.n_ctx}")
    high = config.max_lag or min((length - (bos is not None)) // 2, n_ids)
    low = config.min_lag or max(high // 2, 2)
    return length, min(low, high), high


def measure_weights(tokens: Tensor, lags: Tensor, bos: int | None) -> Tensor:
    """Return attention weights of three scores, `[n, pos * pos, 3]`: strict induction, stripe, previous token.

    The strict score takes queries whose token occurred before and sums attention over all matches. The stripe (`tl`, as
    in TransformerLens) is the mean of the diagonal `lag - 1` back, whose first entry has no match yet.
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
class EdgeInputs:
    """Activations of one batch of prompts that exact direct edges need."""

    prompts: InductionPrompts
    resid: dict[int, Tensor]
    """input of each layer that has candidates, `[batch, pos, d_model]`"""
    clean_z: list[Tensor]
    """`[batch, pos, n_heads, d_head]` for each layer before the last candidate's"""
    corrupt_z: list[Tensor]
    """the same on corrupted prompts"""


@torch.no_grad()
def capture_edge_inputs(model: HookedModel, prompts: InductionPrompts, layers: Sequence[int]) -> EdgeInputs:
    """Capture the inputs of direct edges: a clean pass and two corrupted ones, up to the last of `layers`."""
    depth = max(layers, default=0)
    z_names = [f"blocks.{layer}.attn.hook_z" for layer in range(depth)]
    resid_names = {layer: f"blocks.{layer}.hook_resid_pre" for layer in layers}
    clean = capture(model, prompts.tokens, [*z_names, *resid_names.values()])
    even, odd = (capture(model, tokens, z_names) for tokens in prompts.corrupted) if z_names else ({}, {})
    return EdgeInputs(
        prompts,
        {layer: clean[name] for layer, name in resid_names.items()},
        [clean[name] for name in z_names],
        [prompts.merge_corrupted(even[name], odd[name]) for name in z_names],
    )


class DirectEdges:
    """Strict induction scores of heads under a patch of one sender's direct edge into their queries or keys."""

    def __init__(self, model: HookedModel, inputs: EdgeInputs, *, at_once: int = 4):
        self.model, self.inputs, self.residual, self.at_once = model, inputs, ResidualStream(model), at_once
        self.weights = inputs.prompts.weights[..., :1]
        self.scales = [self.residual.write_scale(layer, z) for layer, z in enumerate(inputs.clean_z)]

    def difference(self, sender: HeadName) -> Tensor:
        """Return corrupted minus clean output of a head, `[batch, pos, d_model]`."""
        inputs = self.inputs
        z = inputs.corrupt_z[sender.layer][:, :, sender.head] - inputs.clean_z[sender.layer][:, :, sender.head]
        out, scale = z @ self.residual.W_write(sender.layer)[sender.head], self.scales[sender.layer]
        return out if scale is None else out / scale

    def rotated(self, sender: HeadName, seed: int) -> Tensor:
        """Return the sender's difference under a random rotation: the same norms in another direction."""
        own = self.difference(sender)
        gaussian = torch.randn(own.shape[-1], own.shape[-1], generator=make_generator(seed, "turned writes"))
        return own @ torch.linalg.qr(gaussian).Q.to(own)

    def scores(self, layer: int, side: Side, differences: Sequence[Tensor]) -> Tensor:
        """Return strict scores of a layer's heads for each difference, `[n_differences, n_heads, batch]`."""
        parts = [
            self._scores(layer, side, list(differences[i : i + self.at_once]))
            for i in range(0, len(differences), self.at_once)
        ]
        return torch.cat(parts)

    def clean(self, layer: int) -> Tensor:
        """Return strict scores without a patch, `[n_heads, batch]`."""
        return self._scores(layer, "k", [torch.zeros_like(self.inputs.resid[layer])])[0]

    @torch.no_grad()
    def _scores(self, layer: int, side: Side, differences: list[Tensor]) -> Tensor:
        resid = self.inputs.resid[layer]
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
    """Effect of patching one sender into all later candidates at once, as changes from the clean run.

    Candidates also read the changes of earlier candidates.
    """

    strict: dict[HeadName, Tensor]
    """`[n]` change of each candidate's strict score"""
    first: Tensor | None
    """`[n]` change of the loss before the repeat, nats; None where the pass ended before the logits"""
    second: Tensor | None
    """`[n]` change of the loss after the start of the repeat, nats"""


@dataclass(frozen=True)
class CleanRun:
    """Strict scores and losses of the model without a patch."""

    strict: dict[HeadName, Tensor]
    first: Tensor
    second: Tensor


@torch.no_grad()
def clean_run(model: HookedModel, prompts: InductionPrompts, candidates: Sequence[HeadName]) -> CleanRun:
    """Measure strict scores and losses without a patch."""
    scores = _StrictScores(candidates, prompts.weights[..., :1])
    logits = run_from(model, prompts.tokens, scores.hooks())
    assert logits is not None
    first, second = _halves(logits, prompts)
    return CleanRun(scores.strict(), first, second)


@torch.no_grad()
def into_candidates(
    model: HookedModel, prompts: InductionPrompts, inputs: EdgeInputs, sender: HeadName, side: Side,
    candidates: Sequence[HeadName], clean: CleanRun, *, with_loss: bool = True,
) -> GroupEffect:  # fmt: skip
    """Path-patch a sender into the queries, keys or values of every candidate in a later layer.

    Without the loss, the pass ends at the last candidate's attention pattern.
    """
    after = [head for head in candidates if head.layer > sender.layer]
    patcher = PathPatcher(model, [str(sender)], [(str(head), side) for head in after], "receivers")
    corrupt, clean_z = (z[sender.layer][:, :, sender.head] for z in (inputs.corrupt_z, inputs.clean_z))
    node = parse_node(str(sender))
    scale = patcher.residual.write_scale(sender.layer, inputs.clean_z[sender.layer])
    known = KnownClean(inputs.resid[min(head.layer for head in after)], {node: clean_z}, {node: scale})
    scores = _StrictScores(after, prompts.weights[..., :1])
    last = f"blocks.{max(head.layer for head in after)}.attn.hook_pattern"
    logits = patcher.run(
        prompts.tokens, {node: corrupt}, hooks=scores.hooks(), until=None if with_loss else last, known=known
    )
    strict = {head: score - clean.strict[head] for head, score in scores.strict().items()}
    if logits is None:
        return GroupEffect(strict, None, None)
    first, second = _halves(logits, prompts)
    return GroupEffect(strict, first - clean.first, second - clean.second)


def collect_effects(effects: Sequence[GroupEffect]) -> GroupEffect:
    """Concatenate the effects of batches."""
    first = [effect.first for effect in effects if effect.first is not None]
    second = [effect.second for effect in effects if effect.second is not None]
    return GroupEffect(
        {head: torch.cat([effect.strict[head] for effect in effects]) for head in effects[0].strict},
        torch.cat(first) if first else None,
        torch.cat(second) if second else None,
    )


class _StrictScores:
    """Hooks that reduce attention patterns of some heads to strict scores."""

    def __init__(self, heads: Sequence[HeadName], weights: Tensor):
        self.heads, self.weights, self.found = list(heads), weights, {}

    def hooks(self) -> list[tuple[str, Hook]]:
        return [
            (f"blocks.{layer}.attn.hook_pattern", self._reduce(layer))
            for layer in sorted({head.layer for head in self.heads})
        ]

    def strict(self) -> dict[HeadName, Tensor]:
        """Return the strict score of each head, `[n]`."""
        return {head: self.found[head.layer][:, head.head] for head in self.heads}

    def _reduce(self, layer: int) -> Callable[..., None]:
        def reduce(pattern: Tensor, hook: Any) -> None:
            self.found[layer] = score_pattern(pattern.float(), self.weights.to(pattern.device))[..., 0].cpu()

        return reduce


def _halves(logits: Tensor, prompts: InductionPrompts) -> tuple[Tensor, Tensor]:
    return repeat_losses(token_losses(logits, prompts.tokens).cpu(), prompts.lags, start=prompts.start)


@dataclass(frozen=True)
class DirectOutput:
    """Effect of replacing one head's direct path to the logits."""

    change: np.ndarray
    """`[n]` change of the correct token's logit above the mean, by prompt; below 0 the head raises that logit"""
    control: np.ndarray | None
    """`[n]` the same for the strongest head of the layer that is not an induction head"""


def direct_outputs(
    model: HookedModel, drawn: Sequence[InductionPrompts], heads: Sequence[HeadName], batch_size: int
) -> dict[HeadName, DirectOutput]:
    """Measure the direct effect on the logits of each of `heads`, with other heads of its layer as controls."""
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
def direct_logit_changes(model: HookedModel, prompts: InductionPrompts, layers: Sequence[int]) -> Tensor:
    """Replace the direct path of each head of `layers`; return the change of the correct token's logit above the mean.

    `[n_layers, n_heads, n]`, mean over positions.
    """
    residual, tokens = ResidualStream(model), prompts.tokens
    names = [f"blocks.{layer}.attn.hook_z" for layer in layers]
    final = final_point(model)
    clean, other = capture(model, tokens, [*names, final]), capture(model, prompts.unrepeated, names)
    known = _known(prompts).to(clean[final].device)
    following = tokens[:, 1:].to(known.device)[known]
    W_U = widened(model.W_U)
    direction = W_U.T[following] - W_U.mean(1)
    stream = clean[final][:, :-1][known]

    def above_mean(resid: Tensor) -> Tensor:
        logits = (residual.norm_final(resid[None])[0] * direction).sum(-1)
        total = logits.new_zeros(known.shape, dtype=torch.float32).masked_scatter_(known, logits.float())
        return (total.sum(1) / known.sum(1)).cpu()

    before, changes = above_mean(stream), []
    for layer, name in zip(layers, names, strict=True):
        own, new = (values[name][:, :-1][known] for values in (clean, other))  # [n_known, n_heads, d_head]
        scale = residual.write_scale(layer, own)
        change = new - own if scale is None else (new - own) / scale[..., None]
        weight = residual.W_write(layer)
        changes.append(torch.stack([above_mean(stream + change[:, i] @ W) - before for i, W in enumerate(weight)]))
    return torch.stack(changes)


def _known(prompts: InductionPrompts) -> Tensor:
    """Return positions whose next token the first block determines, `[n, pos - 1]` bool."""
    position = torch.arange(prompts.tokens.shape[1] - 1)[None]
    return position >= (prompts.start + prompts.lags)[:, None]
