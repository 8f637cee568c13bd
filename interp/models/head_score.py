"""Attention scores of one head as a bilinear form of the residual stream, with the nonlinear rest frozen on a prompt.

A score is `scale * rotate(norm(q)) . rotate(norm(k))`. With the scale of the block's norm held at its value on the
prompt, and so those of the norms on queries and keys (Qwen 3, Gemma 3, OLMo 2), query and key are affine in the
residual stream: a part of it has a share of each (`HeadSide`), and the shares and biases sum to the model's own.

A soft cap, `cap * tanh(score / cap)` (Gemma 2), is linearised at the score: a part's contribution is multiplied by the
slope of the cap there, which is what a small part changes, and the rest of the capped score is a constant (`capped`).
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from interp.errors import ConfigError
from interp.models.adapter import MASKED_SCORE, available_hook_points
from interp.models.hooked import HookedModel
from interp.models.residual import Norm, ResidualStream, Rotation, Side, freeze, read_norm
from interp.names import HeadName


@dataclass(frozen=True)
class HeadSide:
    """Queries, keys or values of one head at some positions, as an affine map of the residual stream."""

    weight: Float64[Tensor, "d_model d_head"]
    """gain and centring of the block's norm folded in"""
    scale: Float64[Tensor, "n 1"]
    """of the block's norm, frozen"""
    constant: Float64[Tensor, " d_head"]
    """from the biases of the block's norm and the projection"""
    norm: Norm | None
    """of queries or keys; None without one"""
    norm_scale: Float64[Tensor, "n 1"]
    """of that norm, frozen"""
    rotation: Rotation | None
    positions: Int[Tensor, " n"]

    def __call__(self, part: Float[Tensor, "*rows n d_model"]) -> Float64[Tensor, "*rows n d_head"]:
        """Return the shares of parts of the residual stream, normed and rotated."""
        return self.finish(part.double() @ self.weight)

    def finish(self, projected: Float64[Tensor, "*rows n d_head"]) -> Float64[Tensor, "*rows n d_head"]:
        """Return the shares of parts that were multiplied by `weight`."""
        return self._normed(projected / self.scale)

    def pull(self, direction: Float64[Tensor, "*rows n d_head"]) -> Float64[Tensor, "*rows n d_model"]:
        """Return the directions in the residual stream that read the products with `direction`: the adjoint."""
        if self.rotation is not None:
            back = replace(self.rotation, sin=-self.rotation.sin)
            direction = back(direction, self.positions)
        if self.norm is not None:
            direction = self.norm.fold_vector(direction) / self.norm_scale
        return direction @ self.weight.T / self.scale

    @cached_property
    def bias(self) -> Float64[Tensor, "n d_head"]:
        """Share that no part has: the biases of both norms and of the projection."""
        bias = self._normed(self.constant.expand(len(self.positions), -1))
        if self.norm is None or self.norm.bias is None:
            return bias
        own = self.norm.bias.double().expand_as(bias)
        return bias + (own if self.rotation is None else self.rotation(own, self.positions))

    def _normed(self, x: Tensor) -> Tensor:
        x = x if self.norm is None else self.norm.linear(x) / self.norm_scale
        return x if self.rotation is None else self.rotation(x, self.positions)


def read_side(
    residual: ResidualStream,
    head: HeadName,
    side: Side,
    resid: Float[Tensor, "n d_model"],
    rotation: Rotation | None,
    positions: Int[Tensor, " n"],
) -> HeadSide:
    """Return one side of a head, frozen where the residual stream before its block is `resid` at `positions`."""
    index = head.head if side == "q" else residual.kv_head(head.head)
    weight = residual.W(head.layer, side)[index].double()
    block, bias = residual.model.blocks[head.layer], residual.b(head.layer, side)
    first = freeze(block, "ln1", resid)
    constant = first.bias.double() @ weight + (0 if bias is None else bias[index].double())
    weight, scale = first.fold(weight.T).T, first.scale.double()
    norm, norm_scale = None, torch.ones_like(scale)
    module = _norm_module(block, side)
    if module is not None:
        whole = resid.double() @ weight / scale + constant
        width = next((len(parameter) for parameter in module.parameters()), residual.shape.d_head)
        norm = read_norm(module, width)
        if norm is not None and width != residual.shape.d_head:  # OLMo 2 norms all heads together
            whole = residual.project(head.layer, side, resid).flatten(-2).double()
            norm_scale = norm.unit_and_scale(whole)[1]
            norm = _slice(norm, slice(index * residual.shape.d_head, (index + 1) * residual.shape.d_head))
        elif norm is not None:
            norm_scale = norm.unit_and_scale(whole)[1]
    turned = None if side == "v" else rotation
    return HeadSide(weight, scale, constant.detach(), norm, norm_scale, turned, positions)


def _norm_module(block: Any, side: Side) -> Any:
    """Return the module that norms queries or keys in a block; None where there is none, and for values."""
    attention = block.attn.original_component
    names = () if side == "v" else (f"{side}_norm", f"{side}_layernorm")
    return next((module for name in names if (module := getattr(attention, name, None)) is not None), None)


def _slice(norm: Norm, columns: slice) -> Norm:
    if norm.centred:
        raise ConfigError("this model centres the queries of all heads together, so that one head has no shares")
    cut = (None if value is None else value[columns] for value in (norm.gain, norm.bias))
    return Norm(*cut, centred=False, eps=norm.eps)


def score_scale(model: HookedModel, layer: int) -> float:
    """Return the factor of the product of query and key: the layer's own scaling, else `1/sqrt(d_head)`."""
    scaling = getattr(model.blocks[layer].attn.original_component, "scaling", None)
    return model.cfg.d_head**-0.5 if scaling is None else float(scaling)


def score_cap(model: HookedModel, layer: int) -> float | None:
    """Return the soft cap of a layer's scores; None without one."""
    return getattr(model.blocks[layer].attn.original_component, "attn_logit_softcapping", None) or None


def capped(
    scores: Float64[Tensor, "*n"], cap: float | None
) -> tuple[Float64[Tensor, "*n"], Float64[Tensor, "*n"], Float64[Tensor, "*n"]]:
    """Return capped scores, the slope of the cap at each, and the constant: `capped = slope * score + constant`."""
    if cap is None:
        return scores, torch.ones_like(scores), torch.zeros_like(scores)
    bent = (scores / cap).tanh()
    slope = 1 - bent**2
    return cap * bent, slope, cap * bent - slope * scores


def mask_hook_points(model: HookedModel, layer: int) -> list[str]:
    """Return the hook point from which `visible_keys` reads the mask; none in models without sliding windows."""
    name = f"blocks.{layer}.attn.hook_attn_scores"
    return [name] if name in available_hook_points(model) else []


def visible_keys(layer: int, cache: dict[str, Tensor], n_pos: int, device: Any = None) -> Bool[Tensor, "query key"]:
    """Return which keys each query of the first prompt may attend to, the same for all heads of a layer."""
    causal = torch.ones(n_pos, n_pos, dtype=torch.bool, device=device).tril()
    scores = cache.get(f"blocks.{layer}.attn.hook_attn_scores")
    return causal if scores is None else causal & (scores[0, 0] > MASKED_SCORE)


def relative_scores(
    scores: Float64[Tensor, "*rows key"], visible: Bool[Tensor, "*rows key"]
) -> Float64[Tensor, "*rows key"]:
    """Return each key's score less the mean of the other visible keys of its query; NaN where it is not visible.

    The score itself where a query has a single key.
    """
    seen = torch.where(visible, scores, 0)
    others = (visible.sum(-1, keepdim=True) - 1).clamp_min(1)
    means = (seen.sum(-1, keepdim=True) - seen) / others
    return torch.where(visible, scores - means, torch.nan)


def check_scores(scores: Float64[Tensor, " key"], attention: Float[Tensor, " key"], model: HookedModel) -> None:
    """Raise `ConfigError` unless the softmax of the scores is the model's own attention.

    Only keys with attention above 0 are compared.
    """
    seen = attention > 0
    ours = scores[seen].softmax(0)
    tolerance = 1e-3 if model.cfg.dtype == torch.float32 else 3e-2
    error = float((ours - attention[seen]).abs().max())
    if error > tolerance:
        raise ConfigError(
            f"the scores of {getattr(model.cfg, 'architecture', None) or 'this model'} are not products of projected "
            f"and normed residuals (attention differs by {error:.2g}): it changes queries, keys or scores in another "
            "way, such as by a bias, which this analysis cannot decompose; use a model without it"
        )
