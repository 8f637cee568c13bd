"""A norm as a linear map: its scale held at one value, so that parts of its input have outputs that sum.

`norm(x) = gain * (x - mean) / scale + bias` is not linear in `x` only because `scale` depends on it. With the scale of
the full input kept, every part of the input has its own share, and the shares plus the bias are the output exactly.
What a part does to the scale itself is left out.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.models.norms import Norm, norm_of


@dataclass(frozen=True)
class FrozenNorm:
    """One norm at one set of inputs; without a norm the identity."""

    norm: Norm | None
    scale: Tensor
    """`[..., 1]`: standard deviation or root mean square of each full input"""
    bias: Tensor
    """`[d_model]`, zero for RMS norms"""

    def fold(self, direction: Tensor) -> Tensor:
        """`u [..., d_model]`, gain and centring folded in: a part's share along `direction` is `part @ u / scale`."""
        return direction if self.norm is None else self.norm.fold_vector(direction)


@torch.no_grad()
def freeze(owner: Any, name: str, x: Tensor) -> FrozenNorm:
    """The bridge's norm `owner.name` (`block.ln1`, `model.ln_final`) at inputs `x [..., d_model]`.

    Raises `ConfigError` for a norm that is neither LayerNorm nor an RMS norm with a gain.
    """
    norm, zeros = norm_of(owner, name, x.shape[-1]), x.new_zeros(x.shape[-1])
    if norm is None:
        return FrozenNorm(None, torch.ones_like(x[..., :1]), zeros)
    return FrozenNorm(norm, norm.unit_and_scale(x)[1], zeros if norm.bias is None else norm.bias)
