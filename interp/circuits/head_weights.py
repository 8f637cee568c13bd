"""The two circuits of a head as factored matrices (Elhage et al. 2021), norms folded in.

Row vectors, weights as `x @ W`. What a head reads is the unit-scaled stream, so the norm's gain (and for LayerNorm the
centring) is multiplied into a copy of `W_Q W_K W_V`; the model's weights stay as they are.

    qk   W_Q W_K^T     [d_model, d_model]   what a query looks for in a key       left = W_Q, right = W_K^T
    ov   W_V W_O       [d_model, d_model]   what is read from a key and written   left = W_V, right = W_O

Neither product is ever formed: everything here works on the `d_head` wide factors.

Rotary heads rotate queries and keys by their positions, so their QK circuit depends on how far the key is behind the
query. `offset=0` is the weights alone, a query looking at its own position; `offset=n` looks `n` positions back.
Biases are left out.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from interp.errors import ConfigError
from interp.models.residual import ResidualStream
from interp.names import HeadName
from interp.patching.partial import reader, run_from


@dataclass(frozen=True)
class Factored:
    """`left [a, d_head] @ right [d_head, b]`, never multiplied out; float64."""

    left: Tensor
    right: Tensor

    @property
    def T(self) -> "Factored":
        return Factored(self.right.T, self.left.T)

    @cached_property
    def core(self) -> tuple[Tensor, Tensor]:
        """`R_left, R_right [d_head, d_head]`, triangular: left = Q R_left, right = R_right^T Q'^T, Q orthonormal."""
        return torch.linalg.qr(self.left, mode="r").R, torch.linalg.qr(self.right.T, mode="r").R

    @cached_property
    def singular_values(self) -> Tensor:
        """`[d_head]`, largest first."""
        left, right = self.core
        return torch.linalg.svdvals(left @ right.T)

    @cached_property
    def norm(self) -> float:
        """Frobenius."""
        return float(self.singular_values.square().sum().sqrt())

    def composed_norm(self, other: "Factored") -> float:
        """Frobenius norm of `self @ other`, by way of a `d_head x d_head` matrix."""
        left, right = self.core[0], other.core[1]
        return float((left @ (self.right @ other.left) @ right.T).norm())

    def rows(self, x: Tensor) -> "Factored":
        """`x [n, a]` in place of the identity on the left: for example an embedding."""
        return Factored(x.double() @ self.left, self.right)

    def columns(self, y: Tensor) -> "Factored":
        """`y [b, n]` on the right: for example an unembedding."""
        return Factored(self.left, self.right @ y.double())

    def dense(self) -> Tensor:
        """The product; only for few rows and columns."""
        return self.left @ self.right


class HeadWeights:
    """The factored circuits of a model's heads. Grouped heads share `W_K` and `W_V`."""

    def __init__(self, model: Any):
        self.model, self.residual = model, ResidualStream(model)
        self.shape = self.residual.shape
        self._rotations: dict[tuple[int, int], Tensor] = {}
        self._folded: dict[tuple[int, str], Tensor] = {}

    def ov(self, head: HeadName) -> Factored:
        """`W_V W_O`."""
        self.residual.check_head(head)
        group = self.residual.kv_head(head.head)
        return Factored(self._read(head.layer, "v")[group], self._write(head.layer)[head.head])

    def qk(self, head: HeadName, *, offset: int = 0) -> Factored:
        """`W_Q W_K^T`, the key `offset` positions behind the query (rotary models only feel it)."""
        self.residual.check_head(head)
        W_Q = self._read(head.layer, "q")[head.head]
        W_K = self._read(head.layer, "k")[self.residual.kv_head(head.head)]
        if offset:
            W_Q = W_Q @ self.rotation(head.layer, offset)
        return Factored(W_Q, W_K.T)

    def rotation(self, layer: int, offset: int) -> Tensor:
        """`[d_head, d_head]`: what rotary position `offset` does to a query (row vector); the identity without rotary.

        Read off the model itself by sending unit queries through it, so it is right for every rotary variant.
        """
        if (layer, offset) not in self._rotations:
            self._rotations[layer, offset] = _rotation(self.model, self.shape, layer, offset)
        return self._rotations[layer, offset]

    @property
    def is_rotary(self) -> bool:
        return _has_rotation(self.model)

    @torch.no_grad()
    def unembedding(self) -> Tensor:
        """`[d_model, d_vocab]` float64: gain of the final norm folded in, centred over the vocabulary."""
        from interp.models.norms import read_norm

        W_U = self.model.unembed.original_component.weight.T.detach().double()
        final = getattr(self.model, "ln_final", None)
        norm = read_norm(getattr(final, "original_component", None), self.shape.d_model)
        W_U = W_U if norm is None else norm.fold(W_U)
        return W_U - W_U.mean(1, keepdim=True)

    @torch.no_grad()
    def _read(self, layer: int, side: str) -> Tensor:
        """`[heads, d_model, d_head]` float64, the block's first norm folded in."""
        if (layer, side) not in self._folded:
            from interp.models.norms import read_norm

            W = getattr(self.model.blocks[layer].attn, f"W_{side.upper()}").detach().double()
            module = getattr(self.model.blocks[layer], "ln1", None)
            norm = read_norm(getattr(module, "original_component", None), self.shape.d_model)
            self._folded[layer, side] = W if norm is None else norm.fold(W)
        return self._folded[layer, side]

    @torch.no_grad()
    def _write(self, layer: int) -> Tensor:
        return self.residual.W(layer, "o").detach().double()


def _has_rotation(model: Any) -> bool:
    return getattr(model.cfg, "positional_embedding_type", "") == "rotary"


@torch.no_grad()
def _rotation(model: Any, shape: Any, layer: int, offset: int) -> Tensor:
    if not _has_rotation(model):
        return torch.eye(shape.d_head, dtype=torch.float64)
    if not 0 <= offset < shape.n_ctx:
        raise ConfigError(f"the offset must lie within the context of {shape.n_ctx}, got {offset}")
    unit = torch.eye(shape.d_head, dtype=next(model.parameters()).dtype)[:, None, None].to(model.cfg.device)
    unit = unit.expand(-1, offset + 1, shape.n_heads, -1)  # every unit query at every position, in every head
    native = getattr(getattr(model.blocks[layer].attn, "original_component", None), "rotary", None)
    if native is not None:  # our own small models rotate without a hook point
        rotated = native.apply_rope(unit.transpose(1, 2), unit.transpose(1, 2))[0].transpose(1, 2)
    else:
        rotated = _hooked_rotation(model, layer, unit)
    rotated = rotated[:, :, 0].double().cpu()
    return rotated[:, offset] @ torch.linalg.inv(rotated[:, 0])


def _hooked_rotation(model: Any, layer: int, queries: Tensor) -> Tensor:
    """Rotated queries `[d_head, pos, n_heads, d_head]` of queries of the same shape."""
    prefix, seen = f"blocks.{layer}.attn.hook_", {}
    resid = torch.zeros(*queries.shape[:2], model.cfg.d_model, dtype=queries.dtype, device=queries.device)
    hooks: list[Any] = [(prefix + "q", lambda value, hook: queries.reshape(value.shape))]
    hooks += [(prefix + name, reader(seen, name)) for name in ("rot_q", "cos", "sin")]
    run_from(model, resid, hooks, layer=layer, until=prefix + "z")
    if "rot_q" in seen:
        return seen["rot_q"]
    if "cos" not in seen:
        raise ConfigError("rotated queries are not computed by this kernel; load the model with attention='eager'")
    # joint query-key-value layers (GPT-NeoX) hook the angles only
    heads_first = queries.transpose(1, 2)
    rotate = model.blocks[layer].attn._apply_rotary_pos_emb
    return rotate(heads_first, heads_first, seen["cos"], seen["sin"])[0].transpose(1, 2)
