"""Norms and rotary positions, decomposed so that analyses can treat them as linear maps.

**Norms.** LayerNorm and RMSNorm both compute `y = gain * unit(x) + bias`, with `unit(x) = (x - mean) / scale` (RMSNorm
subtracts no mean) and `scale = sqrt(mean of squares + eps)`. A change dx of the input changes the output by

    dy = gain * (dx_c - unit(x) * <unit(x), dx_c> / d) / scale       dx_c: centred for LayerNorm, dx itself for RMSNorm

so gradients pass in closed form (`Norm`). `norm(x)` is nonlinear in `x` only because `scale` depends on it. With the
scale of the full input held fixed (`FrozenNorm`), every component of the input has its own share of the output, and the
shares plus the bias equal the output exactly. The effect of a component on the scale is left out.

**Rotary positions** (Su et al. 2021) are one fixed rotation of queries and keys per position (`Rotation`). A rotation
is linear: the rotated components of a query sum to the rotated query. `adjacent` pairs dimensions (0, 1), (2, 3), ...;
otherwise dimension `i` is paired with `i + rotary_dim / 2`, as in Llama and GPT-NeoX. Dimensions beyond the width of
the table are not rotated.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor

from interp.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Norm:
    """Parameters of one norm."""

    gain: "Tensor | None"
    """`[d_model]`, None for 1"""
    bias: "Tensor | None"
    centred: bool
    """True for LayerNorm, which subtracts the mean; False for RMSNorm"""
    eps: float

    def unit_and_scale(self, resid: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return unit(x) `[..., d_model]` and the scale `[..., 1]`."""
        x = resid - resid.mean(-1, keepdim=True) if self.centred else resid
        scale = (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()
        return x / scale, scale

    def fold(self, weight: "Tensor") -> "Tensor":
        """Return `weight [..., d_model, k]` with respect to unit(x): multiplied by the gain, centred for LayerNorm."""
        folded = weight if self.gain is None else self.gain[:, None] * weight
        return folded - folded.mean(-2, keepdim=True) if self.centred else folded

    def fold_vector(self, gradient: "Tensor") -> "Tensor":
        """Fold gradients `[..., d_model]` with respect to y in the same way."""
        folded = gradient if self.gain is None else gradient * self.gain
        return folded - folded.mean(-1, keepdim=True) if self.centred else folded


def norm_of(owner: Any, name: str, d_model: int) -> Norm | None:
    """Return the parameters of the bridge's norm `owner.name` (`block.ln1`, `model.ln_final`); None without a norm."""
    return read_norm(getattr(getattr(owner, name, None), "original_component", None), d_model)


def read_norm(module: Any, d_model: int) -> Norm | None:
    """Return the parameters of a norm module of torch or transformers; None for the identity.

    They are checked on a random vector. Raises `ConfigError` for a norm of another kind.
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
        gains = [None] if weight is None else [weight.detach(), 1 + weight.detach()]  # Gemma stores gain - 1
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


@dataclass(frozen=True)
class FrozenNorm:
    """One norm at fixed inputs, as a linear map; the identity without a norm."""

    norm: Norm | None
    scale: Tensor
    """`[..., 1]`: standard deviation or root mean square of each full input"""
    bias: Tensor
    """`[d_model]`, zero for RMS norms"""

    def fold(self, direction: Tensor) -> Tensor:
        """Fold gain and centring into `u [..., d_model]`: a component's share is `component @ u / scale`."""
        return direction if self.norm is None else self.norm.fold_vector(direction)


@torch.no_grad()
def freeze(owner: Any, name: str, x: Tensor) -> FrozenNorm:
    """Freeze the bridge's norm `owner.name` (`block.ln1`, `model.ln_final`) at inputs `x [..., d_model]`.

    Raises `ConfigError` for a norm that is neither LayerNorm nor an RMS norm with a gain.
    """
    norm, zeros = norm_of(owner, name, x.shape[-1]), x.new_zeros(x.shape[-1])
    if norm is None:
        return FrozenNorm(None, torch.ones_like(x[..., :1]), zeros)
    return FrozenNorm(norm, norm.unit_and_scale(x)[1], zeros if norm.bias is None else norm.bias)


@dataclass(frozen=True)
class Rotation:
    """Rotations of all positions of a prompt."""

    cos: Tensor
    """`[pos, rotary_dim]`"""
    sin: Tensor
    adjacent: bool

    def __call__(self, x: Tensor, positions: Tensor) -> Tensor:
        """Return `x [..., n, d_head]` with row `i` rotated as at `positions[i]`."""
        cos, sin = (table[positions].to(x) for table in (self.cos, self.sin))
        width = cos.shape[-1]
        turned, rest = x[..., :width], x[..., width:]
        if self.adjacent:
            partner = torch.stack([-turned[..., 1::2], turned[..., ::2]], -1)
            partner = rearrange(partner, "... pair two -> ... (pair two)")
        else:
            partner = torch.cat([-turned[..., width // 2 :], turned[..., : width // 2]], -1)
        return torch.cat([turned * cos + partner * sin, rest], -1)


def rotary_hook_points(model: Any, layer: int) -> list[str]:
    """Return the hook points that `read_rotation` needs in its cache; none for other kinds of positions or small
    models.
    """
    from interp.models.adapter import available_hook_points

    names = [f"blocks.{layer}.attn.hook_{table}" for table in ("cos", "sin")]
    return names if set(names) <= available_hook_points(model) else []


def read_rotation(model: Any, layer: int, cache: dict[str, Tensor]) -> Rotation | None:
    """Return the rotation in one layer's attention, or None without rotary positions.

    `cache` holds the model's `rotary_hook_points`. Pairings of dimensions differ between model families, so callers
    compare their scores with the model's own (as `interp.circuits.score_explanation` does).
    """
    names = rotary_hook_points(model, layer)
    if names:
        cos, sin = (cache[name].reshape(-1, cache[name].shape[-1]) for name in names)
        return Rotation(cos, sin, adjacent=bool(getattr(model.cfg, "rotary_adjacent_pairs", False)))
    native = getattr(model.blocks[layer].attn.original_component, "rotary", None)
    if native is None:
        return None
    return Rotation(native.cos_cached, native.sin_cached, adjacent=True)
