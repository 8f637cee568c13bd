"""A norm as a linear map: its scale held at one value, so that parts of its input have outputs that sum.

`norm(x) = gain * (x - mean) / scale + bias` is not linear in `x` only because `scale` depends on it. With the scale of
the full input kept, every part of the input has its own share, and the shares plus the bias are the output exactly.
What a part does to the scale itself is left out.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.errors import ConfigError


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
    ones, zeros = torch.ones_like(x[..., :1]), x.new_zeros(x.shape[-1])
    module = getattr(norm, "original_component", None)
    if module is None or isinstance(module, torch.nn.Identity):
        return FrozenNorm(torch.ones_like(zeros), zeros, False, ones)
    eps = next((float(value) for name in _EPS if (value := getattr(module, name, None)) is not None), 0.0)
    weight = getattr(module, "weight", None)
    gain = torch.ones_like(zeros) if weight is None else weight.detach()
    bias = getattr(module, "bias", None)
    bias = zeros if bias is None else bias.detach()
    wanted, size = module(x), x.pow(2).mean(-1, keepdim=True).sqrt()
    centres = _close(module(x + size), wanted)  # a shift along all ones changes an RMS norm, not a LayerNorm
    moved = x - x.mean(-1, keepdim=True) if centres else x
    scale = (moved.float().pow(2).mean(-1, keepdim=True) + eps).sqrt().to(x.dtype)
    for each in (gain, 1 + gain):  # Gemma keeps its gain as the difference from one
        frozen = FrozenNorm(each, bias, centres, scale)
        if _close(frozen(x) + bias, wanted):
            return frozen
    raise ConfigError(
        f"{type(module).__name__} is neither LayerNorm nor an RMS norm with a gain, so its output does not split into "
        "shares; direct attribution is not defined for this model"
    )


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max() + 1e-12))


_EPS = ("eps", "variance_epsilon", "epsilon")
