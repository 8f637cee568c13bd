"""A norm as a linear map: its scale held at one value, so that parts of its input have outputs that sum.

`norm(x) = gain * (x - mean) / scale + bias` is not linear in `x` only because `scale` depends on it. With the scale of
the full input kept, every part of the input has its own share, and the shares plus the bias are the output exactly.
What a part does to the scale itself is left out.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.models.norms import read_norm


@dataclass(frozen=True)
class FrozenNorm:
    """One norm at one set of inputs; without a norm the identity."""

    gain: Tensor
    """`[d_model]`"""
    bias: Tensor
    """`[d_model]`, zero for RMS norms"""
    centres: bool
    """whether the mean over `d_model` is taken off (LayerNorm)"""
    scale: Tensor
    """`[..., 1]`: standard deviation or root mean square of each full input"""

    def __call__(self, part: Tensor) -> Tensor:
        """The share of `part [..., d_model]`, one part of the input; without the bias."""
        if self.centres:
            part = part - part.mean(-1, keepdim=True)
        return part / self.scale * self.gain

    def fold(self, direction: Tensor) -> Tensor:
        """`u [..., d_model]` with `norm_share(part) @ direction == (part @ u) / scale`: gain and centring folded in."""
        folded = direction * self.gain
        return folded - folded.mean(-1, keepdim=True) if self.centres else folded


@torch.no_grad()
def freeze(norm: Any, x: Tensor) -> FrozenNorm:
    """The bridge's norm (`block.ln1`, `model.ln_final`; None for none) at inputs `x [..., d_model]`.

    Raises `ConfigError` for a norm that is neither LayerNorm nor an RMS norm with a gain.
    """
    zeros, module = x.new_zeros(x.shape[-1]), getattr(norm, "original_component", None)
    parts = read_norm(module, x.shape[-1])
    if parts is None:
        return FrozenNorm(torch.ones_like(zeros), zeros, False, torch.ones_like(x[..., :1]))
    gain = torch.ones_like(zeros) if parts.gain is None else parts.gain
    bias = zeros if parts.bias is None else parts.bias
    return FrozenNorm(gain, bias, parts.centred, parts.unit_and_scale(x)[1])
