"""The forward pass of a small model without its hooks: what a training loop needs, at the price of a plain module.

The bridge looks at every activation by name, takes norms apart and keeps attention patterns; in training nobody looks,
and a step costs half as much again. The weights are the bridge's own tensors, so gradients reach them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_WRAPPER = "_original_component."


def training_forward(model: Any) -> "Callable[[Tensor], Tensor]":
    """`tokens [n, pos]` -> logits `[n, pos, d_vocab]`, the model's own to rounding.

    A model that is not one of `build_small`'s, or on which somebody has put a hook, is returned as it is.
    """
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge.sources.native.model import NativeModel

    native = getattr(model, "original_model", None)
    hooked = any(each._forward_hooks or each._backward_hooks for each in model.modules() if isinstance(each, HookPoint))
    if hooked or not isinstance(native, NativeModel) or model.cfg.act_fn not in ("gelu", "relu", "silu"):
        return model
    return _Unhooked(model, native)


class _Unhooked:
    """The pass of a native model: pre-norm blocks of causal attention and perhaps an MLP."""

    def __init__(self, model: Any, native: Any):
        from torch.nn import functional

        self.weights = {name.replace(_WRAPPER, ""): weight for name, weight in native.named_parameters()}
        self.cfg, self.rotary = model.cfg, native.rotary
        self.act = getattr(functional, model.cfg.act_fn)

    def __call__(self, tokens: "Tensor") -> "Tensor":
        weights = self.weights
        x = weights["tok_embed.weight"][tokens]
        if self.rotary is None:
            x = x + weights["pos.weight"][: tokens.shape[1]]
        for layer in range(self.cfg.n_layers):
            x = self._attend(x, f"layers.{layer}.")
            if not self.cfg.attn_only:
                x = self._think(x, f"layers.{layer}.")
        return self._norm(x, "ln_out") @ weights["head.weight"].T

    def _attend(self, x: "Tensor", at: str) -> "Tensor":
        import torch
        from torch.nn.functional import linear, scaled_dot_product_attention

        read = [f"{at}attn.{name}." for name in "qkv"]
        weight, bias = (torch.cat([self.weights[name + kind] for name in read]) for kind in ("weight", "bias"))
        heads = linear(self._norm(x, at + "ln1"), weight, bias).unflatten(-1, (3, self.cfg.n_heads, -1))
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        if self.rotary is not None:
            q, k = self.rotary.apply_rope(q, k)
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return x + linear(mixed, self.weights[f"{at}attn.o.weight"], self.weights[f"{at}attn.o.bias"])

    def _think(self, x: "Tensor", at: str) -> "Tensor":
        from torch.nn.functional import linear

        w, into, out = self.weights, f"{at}mlp.fc_in.", f"{at}mlp.fc_out."
        inner = self.act(linear(self._norm(x, at + "ln2"), w[into + "weight"], w[into + "bias"]))
        return x + linear(inner, w[out + "weight"], w[out + "bias"])

    def _norm(self, x: "Tensor", name: str) -> "Tensor":
        from torch.nn.functional import layer_norm, rms_norm

        weight, width = self.weights.get(name + ".weight"), x.shape[-1:]
        if weight is None:
            return x
        if self.cfg.normalization_type == "RMS":
            return rms_norm(x, width, weight, self.cfg.eps)
        return layer_norm(x, width, weight, self.weights[name + ".bias"], self.cfg.eps)
