"""Values at chosen hook points, in one pass that stops after the last of them.

`run_with_cache` gives the same numbers (bit for bit; tested). `Capture` skips everything that recording does not need:
layers and logits after the last hook point, the key-value cache, and values inside norms and attention that the bridge
computes a second time for hook points without hooks.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

from interp.errors import ConfigError
from interp.models.adapter import DelegatingForward, hook_points_by_name, watched_inside

if TYPE_CHECKING:
    from torch import Tensor
    from transformer_lens.model_bridge import TransformerBridge


class _AllCaptured(Exception):
    """Raised inside the forward pass once all values are captured."""


class Capture:
    """Hooks installed for the length of a `with` block.

        with Capture(model, ["blocks.9.hook_resid_post"]) as capture:
            values = capture(tokens)["blocks.9.hook_resid_post"]     # [batch, pos, d_model]

    `hook_points` are canonical names that the model has (`interp.names.check_hook_points`).
    """

    def __init__(self, model: "TransformerBridge", hook_points: list[str]):
        self.model, self.names = model, list(hook_points)
        self._values: dict[str, Tensor] = {}
        self._handles: list[tuple[Any, Any]] = []
        self._shortened: list[tuple[Any, str]] = []
        # a plain forward of a Hugging Face model fills a key-value cache unless told otherwise
        config = getattr(model.original_model, "config", None)
        self._options = {"use_cache": False} if hasattr(config, "use_cache") else {}

    def __enter__(self) -> "Capture":
        points = hook_points_by_name(self.model)
        for name in self.names:
            point = points[name]
            self._handles.append((point, point.add_hook(self._keep(name))))
        for norm in unwatched_native_norms(self.model):
            self._shorten(norm, "_hf_autograd_forward_with_hooks", partial(_plain_norm, norm.original_component))
        for attention in unwatched_attention(self.model):
            self._shorten(attention, "forward", DelegatingForward(attention))
        return self

    def __exit__(self, *_: object) -> None:
        for module, method in self._shortened:
            object.__delattr__(module, method)
        for point, handle in self._handles:
            handle.hook.remove()
            point.fwd_hooks.remove(handle)
        self._shortened.clear()
        self._handles.clear()

    def __call__(self, tokens: "Tensor") -> "dict[str, Tensor]":
        """Return values `[batch, pos, ...]` by hook point for `tokens [batch, pos]`, in the model's dtype, no
        gradients.

        Raises `ConfigError` when a hook point did not fire.
        """
        import torch

        self._values = {}
        try:
            # not inference_mode: a model may cache rotary tables while it runs, and be trained later
            with torch.no_grad():
                self.model(tokens, return_type=None, **self._options)
        except _AllCaptured:
            pass
        missing = [name for name in self.names if name not in self._values]
        if missing:
            raise ConfigError(
                f"the model has {', '.join(missing)} but did not pass through it; choose another hook point"
            )
        values, self._values = self._values, {}
        return values

    def _shorten(self, module: Any, method: str, replacement: Any) -> None:
        """Override a method on the instance within the block."""
        object.__setattr__(module, method, replacement)
        self._shortened.append((module, method))

    def _keep(self, name: str) -> Any:
        def hook(value: "Tensor", hook: Any) -> None:
            self._values[name] = value
            if len(self._values) == len(self.names):
                raise _AllCaptured

        return hook


def _plain_norm(norm: Any, x: "Tensor") -> "Tensor":
    return norm(x).to(x.dtype)


def unwatched_native_norms(model: "TransformerBridge") -> list[Any]:
    """Return norms whose output equals the wrapped module's, and whose inner hook points have no hooks."""
    from transformer_lens.model_bridge.generalized_components import NormalizationBridge

    found = {}
    for module in model.modules():
        if not isinstance(module, NormalizationBridge) or module.original_component is None:
            continue
        native = module.use_native_layernorm_autograd or getattr(module.config, "layer_norm_folding", False)
        if native and not (module.hook_scale.has_hooks() or module.hook_normalized.has_hooks()):
            found[id(module)] = module
    return list(found.values())


def unwatched_attention(model: "TransformerBridge") -> list[Any]:
    """Return attention layers whose wrapped module gives the bridge's numbers, and whose inner hook points have no
    hooks.

    Rotary models only, for which both were found to agree bit for bit; none while a flag of the bridge asks for values
    that the wrapped module does not compute (per-head results, split inputs).
    """
    from transformer_lens.model_bridge.generalized_components import PositionEmbeddingsAttentionBridge

    flags = ("use_attn_result", "use_split_qkv_input", "use_attn_in")
    if any(getattr(model.cfg, flag, False) for flag in flags):
        return []
    layers = [getattr(block, "attn", None) for block in getattr(model, "blocks", [])]
    return [
        layer
        for layer in layers
        if type(layer) is PositionEmbeddingsAttentionBridge
        and "forward" not in layer.__dict__  # permanently delegated, in a model with the fused kernel
        and not watched_inside(layer)
    ]
