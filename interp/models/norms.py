"""A norm taken apart: its scale, its gain, and its Jacobian, so that gradients pass through it in closed form.

For LayerNorm and RMSNorm alike `y = gain * unit(x) + bias`, with `unit(x) = (x - mean) / scale` (RMSNorm keeps the
mean) and `scale = sqrt(mean of squares + eps)`. A change dx moves y by

    dy = gain * (dx_c - unit(x) * <unit(x), dx_c> / d) / scale       dx_c: centred for LayerNorm, dx itself for RMSNorm
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Norm:
    """The parts of one norm."""

    gain: "Tensor | None"
    """`[d_model]`, None for 1"""
    bias: "Tensor | None"
    centred: bool
    """LayerNorm takes the mean away, RMSNorm does not"""
    eps: float

    def unit_and_scale(self, resid: "Tensor") -> "tuple[Tensor, Tensor]":
        """unit(x) `[..., d_model]` and the scale `[..., 1]`."""
        x = resid - resid.mean(-1, keepdim=True) if self.centred else resid
        scale = (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()
        return x / scale, scale

    def fold(self, weight: "Tensor") -> "Tensor":
        """`weight [..., d_model, k]` that reads unit(x): the gain multiplied in, centred for LayerNorm."""
        folded = weight if self.gain is None else self.gain[:, None] * weight
        return folded - folded.mean(-2, keepdim=True) if self.centred else folded

    def fold_vector(self, gradient: "Tensor") -> "Tensor":
        """The same for gradients `[..., d_model]` with respect to y."""
        folded = gradient if self.gain is None else gradient * self.gain
        return folded - folded.mean(-1, keepdim=True) if self.centred else folded


def norm_of(owner: Any, name: str, d_model: int) -> Norm | None:
    """The parts of the bridge's norm `owner.name` (`block.ln1`, `model.ln_final`); None where there is no norm."""
    return read_norm(getattr(getattr(owner, name, None), "original_component", None), d_model)


def read_norm(module: Any, d_model: int) -> Norm | None:
    """The parts of a norm module of torch or transformers; None for the identity.

    The parts are checked on a random vector. Raises `ConfigError` for a norm of another kind.
    """
    import torch

    if module is None or isinstance(module, torch.nn.Identity):
        return None
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    eps = next((float(getattr(module, name)) for name in ("eps", "variance_epsilon") if hasattr(module, name)), 1e-5)
    probe = torch.randn(2, d_model, generator=torch.Generator().manual_seed(0)) + 0.5
    like = next(iter(module.parameters()), probe)
    probe = probe.to(like.device, like.dtype)
    with torch.no_grad():
        expected = module(probe)
        gains = [None] if weight is None else [weight.detach(), 1 + weight.detach()]  # Gemma keeps gain - 1
        for gain in gains:
            for centred in (True, False):
                norm = Norm(gain, None if bias is None else bias.detach(), centred, eps)
                y = norm.unit_and_scale(probe)[0] * (1 if gain is None else gain) + (0 if bias is None else bias)
                if torch.allclose(y, expected, rtol=1e-2 if like.dtype != torch.float32 else 1e-4, atol=1e-4):
                    return norm
    raise ConfigError(
        f"{type(module).__name__} is neither LayerNorm nor RMSNorm; gradients through other norms are not implemented, "
        "use method='exact'"
    )
