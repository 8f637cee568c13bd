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
from interp.models.adapter import run_with_cache
from interp.models.norms import norm_of
from interp.models.residual import ResidualStream, Side
from interp.models.rotary import read_rotation, rotary_hook_points
from interp.names import HeadName


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

        Raises `ConfigError` for an offset beyond the model's context.
        """
        if (layer, offset) not in self._rotations:
            self._rotations[layer, offset] = self._rotation(layer, offset)
        return self._rotations[layer, offset]

    @property
    def is_rotary(self) -> bool:
        return getattr(self.model.cfg, "positional_embedding_type", "") == "rotary"

    @torch.no_grad()
    def _rotation(self, layer: int, offset: int) -> Tensor:
        if not 0 <= offset < self.shape.n_ctx:
            raise ConfigError(f"the offset must lie within the context of {self.shape.n_ctx}, got {offset}")
        tokens = torch.zeros(1, offset + 1, dtype=torch.long, device=self.residual.device)
        points, cache = rotary_hook_points(self.model, layer), {}
        if points:
            cache = run_with_cache(self.model, tokens, points, stop_at_layer=layer + 1)[1]
        rotation, unit = read_rotation(self.model, layer, cache), torch.eye(self.shape.d_head, dtype=torch.float64)
        if rotation is None:
            return unit
        here, there = (rotation(unit, torch.full((len(unit),), place)) for place in (0, offset))
        return there @ torch.linalg.inv(here)  # some models scale what they rotate

    @torch.no_grad()
    def unembedding(self) -> Tensor:
        """`[d_model, d_vocab]` float64: gain of the final norm folded in, centred over the vocabulary."""
        W_U = self.model.unembed.original_component.weight.T.detach().double()
        norm = norm_of(self.model, "ln_final", self.shape.d_model)
        W_U = W_U if norm is None else norm.fold(W_U)
        return W_U - W_U.mean(1, keepdim=True)

    @torch.no_grad()
    def _read(self, layer: int, side: Side) -> Tensor:
        """`[heads, d_model, d_head]` float64, the block's first norm folded in."""
        if (layer, side) not in self._folded:
            W = self.residual.W(layer, side).detach().double()
            norm = norm_of(self.model.blocks[layer], "ln1", self.shape.d_model)
            self._folded[layer, side] = W if norm is None else norm.fold(W)
        return self._folded[layer, side]

    @torch.no_grad()
    def _write(self, layer: int) -> Tensor:
        return self.residual.W(layer, "o").detach().double()
