"""A norm taken apart: its scale, its gain, and its Jacobian, so that gradients pass through it in closed form.

For LayerNorm and RMSNorm alike `y = gain * unit(x) + bias`, with `unit(x) = (x - mean) / scale` (RMSNorm keeps the
mean) and `scale = sqrt(mean of squares + eps)`. A change dx moves y by

    dy = gain * (dx_c - unit(x) * <unit(x), dx_c> / d) / scale       dx_c: centred for LayerNorm, dx itself for RMSNorm

A norm as a linear map: its scale held at one value, so that parts of its input have outputs that sum.

`norm(x) = gain * (x - mean) / scale + bias` is not linear in `x` only because `scale` depends on it. With the scale of
the full input kept, every part of the input has its own share, and the shares plus the bias are the output exactly.
What a part does to the scale itself is left out.

Rotary positions as what they are: one fixed rotation of queries and keys per position (Su et al. 2021).

Being linear, a rotation acts on every part of a query by itself: rotated parts sum to the rotated query. `adjacent`
pairs dimensions (0, 1), (2, 3), ...; otherwise dimension `i` goes with `i + rotary_dim / 2`, as in Llama and GPT-NeoX.
A table narrower than the head leaves the other dimensions alone.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

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
    builds on this compares its scores with the model's own (`interp.circuits.score_explanation` does).
    """
    names = rotary_hook_points(model, layer)
    if names:
        cos, sin = (cache[name].reshape(-1, cache[name].shape[-1]) for name in names)
        return Rotation(cos, sin, adjacent=bool(getattr(model.cfg, "rotary_adjacent_pairs", False)))
    native = getattr(model.blocks[layer].attn.original_component, "rotary", None)
    if native is None:
        return None
    return Rotation(native.cos_cached, native.sin_cached, adjacent=True)
