"""The measurements behind the induction verdict: scores, direct edges, edges into all candidates at once.

Direct edges are exact and need no pass through the model: with everything between sender and reader frozen, the
reader's input is the clean stream plus what the sender alone would have written differently. So one block, from its
input to its attention pattern, is run per sender.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.circuits.induction_prompts import InductionPrompts
from interp.circuits.patterns import score_pattern
from interp.loss import repeat_losses, token_losses
from interp.models.adapter import Hook
from interp.models.residual import ResidualStream, Side
from interp.names import HeadName, parse_node
from interp.patching.partial import capture, run_from
from interp.patching.paths import KnownClean, PathPatcher
from interp.runtime import make_generator


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
        return found[0].unflatten(0, (len(differences), -1)).transpose(1, 2)


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
