"""Arms: one change of a model along several vectors, measured together: a candidate, and its nulls.

    arms = Arms("blocks.9.hook_resid_post", vectors, amounts)       # [arms, d], [arms]
    prefix, _ = prefix_of(model, tokens, arms)
    values = read_arms(model, prefix, arms, read, at=at)           # [1 + arms, ...]

An arm changes the values of a hook point as an `Intervention` on a `Direction` does, by the same arithmetic: the
strength that is judged is the one that is applied. The blocks before the change run once for all arms, and so do the
positions before it; then several arms share a pass, and logits are computed only where they are read.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from interp.interventions.edits import adding, change_of
from interp.interventions.intervention import Action, stream_points
from interp.models.adapter import Hook, available_hook_points, bos_token_id
from interp.models.generation import Offset
from interp.models.hooked import HookedModel
from interp.models.passes import block_after, capture, past_of, read_hook, run_from
from interp.names import canonical_hook_point, check_hook_points, parse_hook_point
from interp.seeds import make_generator

PASS_TOKENS, PASS_LOGITS = 2_048, 768 * 49_152
"""Tokens of a pass, and numbers of logits that are in memory together (151 MB in float32)."""
LEAST_PAST = 3
"""Fewest unchanged positions of a text that are worth a pass of their own."""


@dataclass(frozen=True)
class AdditionScale:
    """Factor of every addition, where a dictionary normalises tokens before it reads them."""

    hook_point: str
    """The hook point that is read."""
    of: Callable[[Tensor], Tensor]
    """Maps its values `[n, pos, d]` float32 to the factor `[n, pos, 1]`."""


@dataclass(frozen=True)
class Arms:
    """Changes along vectors, each in a part of the batch of its own.

    `ablate` makes them at the embedding and after every block.
    """

    hook_point: str
    vectors: Float[Tensor, "arms d"]
    """of any length; a vector of zeros changes nothing"""
    amounts: Float[Tensor, " arms"]
    """`add`: multiple of the vector; `set`: coordinate `x . v / |v|^2`; unused by `ablate`"""
    action: Action = "add"
    scale: AdditionScale | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def part(self, at: slice | np.ndarray | Sequence[int]) -> "Arms":
        """Return some of the arms."""
        return replace(self, vectors=self.vectors[at], amounts=self.amounts[at])

    def times(self, factor: float | Float[Tensor, " arms"]) -> "Arms":
        """Return the same arms with their amounts multiplied."""
        return replace(self, amounts=self.amounts * factor)

    def with_unchanged(self) -> "Arms":
        """Return the same arms after one that changes nothing."""
        vectors, amounts = (torch.cat([torch.zeros_like(rows[:1]), rows]) for rows in (self.vectors, self.amounts))
        return replace(self, vectors=vectors, amounts=amounts)

    def start(self, model: HookedModel) -> int | None:
        """Return the block before which nothing changes, from which passes run; None for the whole model."""
        layer = parse_hook_point(self.hook_point).layer
        if self.action == "ablate" or layer is None:
            return None
        following = block_after(model, canonical_hook_point(self.hook_point))
        return layer if following is None else following

    def change(self, value: Float[Tensor, "arms_n pos d"], sizes: Float[Tensor, "rows pos"]) -> Tensor:
        """Return the change that is added to values `[arms * n, pos, d]`; `sizes` (of 1, n or all rows) multiply it."""
        n = len(value) // len(self)
        vectors = self.vectors.to(value).repeat_interleave(n, 0)[:, None]
        amounts = self.amounts.to(value).repeat_interleave(n)[:, None, None]
        rows = sizes if len(sizes) == len(value) else sizes.expand(n, -1).repeat(len(self), 1)
        factor = rows.to(value)[..., None]
        if self.action == "add":
            return amounts * factor * vectors
        squared = vectors.square().sum(-1, keepdim=True)
        coordinate = (value * vectors).sum(-1, keepdim=True) / torch.where(squared > 0, squared, 1.0)
        return change_of(coordinate, self.action, amounts) * factor * vectors

    def changing(self, model: HookedModel, sizes: Callable[[Tensor], Tensor]) -> list[tuple[str, Hook]]:
        """Return hooks that make the changes, with the sizes that a function gives for a value."""
        points = [self.hook_point] if self.action != "ablate" else stream_points(model.cfg.n_layers)
        return [(name, adding(lambda value: self.change(value, sizes(value)))) for name in points]

    def hooks(self, model: HookedModel, offset: Offset | None = None) -> list[tuple[str, Hook]]:
        """Return hooks that make the changes in every pass, from the token after BOS on."""
        first, scale = int(bos_token_id(model) is not None), self.scale
        factors: dict[str, Tensor] = {}

        def sizes(value: Tensor) -> Tensor:
            at = torch.arange(value.shape[1], device=value.device) + (offset.tokens if offset else 0)
            after_bos = (at >= first).to(value)[None]
            return after_bos * factors["now"].to(value) if factors else after_bos

        changes = self.changing(model, sizes)
        check_hook_points([name for name, _ in changes], available_hook_points(model), model.cfg.n_layers)
        if scale is None:
            return changes

        def measure(value: Tensor, hook: object = None) -> None:
            factors["now"] = scale.of(value.float())[..., 0]

        return [(scale.hook_point, measure), *changes]


@dataclass(frozen=True)
class Prefix:
    """An unchanged run of some texts, up to the block from which arms run: one pass that all arms share."""

    tokens: Int[Tensor, "n pos"]
    value: Tensor
    """residual before block `layer`, `[n, pos, d]`; without a layer the tokens"""
    layer: int | None
    sizes: Float[Tensor, "n pos"]
    """factor of every addition; 0 where nothing is added, as on BOS"""


def prefix_of(
    model: HookedModel, tokens: Int[Tensor, "n pos"], arms: Arms, others: Sequence[str] = ()
) -> tuple[Prefix, dict[str, Tensor]]:
    """Run the blocks before the change once; return the values of `others` too."""
    layer, scale, before = arms.start(model), arms.scale, ""
    if layer is not None:
        before = f"blocks.{layer}.hook_resid_pre"
    names = {*others, before, "" if scale is None else scale.hook_point} - {""}
    values = capture(model, tokens, sorted(names)) if names else {}
    sizes = torch.ones(tokens.shape, device=tokens.device)
    if scale is not None:
        sizes = scale.of(values[scale.hook_point].float())[..., 0].clone()
    sizes[:, : int(bos_token_id(model) is not None)] = 0
    return Prefix(tokens, values[before] if before else tokens, layer, sizes), values


@torch.no_grad()
def read_arms(
    model: HookedModel,
    prefix: Prefix,
    arms: Arms,
    read: Callable[[Tensor], Tensor],
    *,
    at: Int[Tensor, "n k"],
    done: Callable[[int], None] | None = None,
) -> Tensor:
    """Read the logits of the unchanged model and then of every arm, `[1 + arms, ...]`.

    `read` maps logits `[m, n, k, d_vocab]` at the positions `at` to `[m, ...]`. `done` is called with the number of
    tokens of each pass; an error that it raises (a cancelled request) ends the measurement.
    """
    n, pos = prefix.tokens.shape
    past, first = _past(model, prefix, at)
    together = max(1, min(PASS_TOKENS // (n * (pos - first)), PASS_LOGITS // (at.numel() * model.cfg.d_vocab)))
    between = prefix.layer is not None and block_after(model, canonical_hook_point(arms.hook_point)) == prefix.layer
    every, rows = arms.with_unchanged(), []
    at, sizes = at.to(prefix.tokens.device) - first, prefix.sizes[:, first:]
    for start in range(0, len(every), together):
        part = every.part(slice(start, start + together))
        value = prefix.value[:, first:].repeat(len(part), *[1] * (prefix.value.ndim - 1))
        hooks: list[tuple[str, Hook]] = []
        if between:
            value = value + part.change(value, sizes)
        else:
            hooks = part.changing(model, lambda _: sizes)
        hooks.append(read_hook(at.repeat(len(part), 1)))
        before = copy.deepcopy(past)
        if before is not None:
            before.batch_repeat_interleave(len(part))
        logits = run_from(model, value, hooks, layer=prefix.layer or 0, past=before)
        assert logits is not None  # only a pass with `until` has none
        rows.append(read(logits.unflatten(0, (len(part), n))).cpu())
        if done:
            done(len(part) * n * pos)
    return torch.cat(rows)


def _past(model: HookedModel, prefix: Prefix, at: Int[Tensor, "n k"]) -> tuple[Any, int]:
    """Return keys and values of the positions of one text before anything is changed or read, and their number."""
    changed = prefix.sizes[0].nonzero()
    first = int(torch.cat([changed[:1, 0], at.min()[None].to(changed)]).min())
    if len(prefix.tokens) > 1 or prefix.layer is None or first < LEAST_PAST:
        return None, 0
    past = past_of(model, prefix.value[:, :first], prefix.layer)
    return past, first if past is not None else 0


def positions_from(tokens: Int[Tensor, "n pos"], first: int) -> Int[Tensor, "n k"]:
    """Return the positions of some texts from `first` on; below 0 it counts from the end."""
    n, pos = tokens.shape
    return torch.arange(pos)[first:].expand(n, -1)


def random_directions(d: int, n: int, seed: int, *purpose: str) -> Float64[np.ndarray, "n d"]:
    """Return directions of unit length, drawn uniformly."""
    drawn = torch.randn(n, d, generator=make_generator(seed, "random directions", *purpose), dtype=torch.float64)
    return (drawn / drawn.norm(dim=1, keepdim=True)).numpy()
