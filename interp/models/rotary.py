"""Rotary positions as what they are: one fixed rotation of queries and keys per position (Su et al. 2021).

Being linear, a rotation acts on every part of a query by itself: rotated parts sum to the rotated query. `adjacent`
pairs dimensions (0, 1), (2, 3), ...; otherwise dimension `i` goes with `i + rotary_dim / 2`, as in Llama and GPT-NeoX.
A table narrower than the head leaves the other dimensions alone.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rotation:
    """The rotation of every position of a prompt."""

    cos: Tensor
    """`[pos, rotary_dim]`"""
    sin: Tensor
    adjacent: bool

    def __call__(self, x: Tensor, positions: Tensor) -> Tensor:
        """`x [..., n, d_head]` with row `i` rotated as at `positions[i]`."""
        cos, sin = (table[positions].to(x) for table in (self.cos, self.sin))
        width = cos.shape[-1]
        turned, rest = x[..., :width], x[..., width:]
        if self.adjacent:
            partner = torch.stack([-turned[..., 1::2], turned[..., ::2]], -1).flatten(-2)
        else:
            partner = torch.cat([-turned[..., width // 2 :], turned[..., : width // 2]], -1)
        return torch.cat([turned * cos + partner * sin, rest], -1)


def rotary_hook_points(model: Any, layer: int) -> list[str]:
    """The hook points that `read_rotation` needs in its cache; none for positions of other kinds and native models."""
    from interp.models.adapter import available_hook_points

    names = [f"blocks.{layer}.attn.hook_{table}" for table in ("cos", "sin")]
    return names if set(names) <= available_hook_points(model) else []


def read_rotation(model: Any, layer: int, cache: dict[str, Tensor]) -> Rotation | None:
    """The rotation in one layer's attention, None where there is none.

    `cache` holds the model's `rotary_hook_points`. Pairings of dimensions differ between model families; whoever
    builds on this compares its scores with the model's own (`interp.circuits.qk` does).
    """
    names = rotary_hook_points(model, layer)
    if names:
        cos, sin = (cache[name].reshape(-1, cache[name].shape[-1]) for name in names)
        return Rotation(cos, sin, adjacent=bool(getattr(model.cfg, "rotary_adjacent_pairs", False)))
    native = getattr(model.blocks[layer].attn.original_component, "rotary", None)
    if native is None:
        return None
    return Rotation(native.cos_cached, native.sin_cached, adjacent=True)
