"""The type of every loaded model, a transformer whose values can be read and replaced during a pass, and its makers.

`interp.models.loading.load_model` returns one. The class behind it is TransformerLens' `TransformerBridge`, which finds
most of its attributes by `__getattr__`, so that a type checker knows nothing about them; `HookedModel` names those that
are used here, with their types. Importing this loads no torch, so that a page may.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, Unpack

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformer_lens import TransformerBridgeConfig
    from transformer_lens.hook_points import HookPoint

Hook = Callable[..., "Tensor | None"]
"""`hook(value, hook)`, called by keyword for the second; returns the replacement, or None to leave the value."""


class PassOptions(TypedDict, total=False):
    """Options of a forward pass; the last three are those of models of transformers."""

    return_type: Literal["logits"] | None
    start_at_layer: int
    stop_at_layer: int | None
    use_cache: bool
    past_key_values: object
    attention_mask: "Tensor"


class WrappedModule(Protocol):
    """Module between the hook points of its input and output."""

    original_component: Any
    """the module of torch or transformers"""

    def __call__(self, value: "Tensor") -> "Tensor": ...


class ModelConfig(Protocol):
    """Sizes of a model and where it computes. What only some architectures have is read by `getattr`."""

    n_layers: int
    n_heads: int
    n_key_value_heads: int | None
    """None when every query head has its own"""
    d_head: int
    d_model: int
    d_mlp: int | None
    """a number in attention-only models too; `adapter.head_shape` says None there"""
    d_vocab: int
    n_ctx: int
    act_fn: str
    attn_only: bool
    normalization_type: str | None
    eps: float
    model_name: str
    device: "torch.device | str"
    dtype: "torch.dtype"

    def to_dict(self) -> dict[str, object]: ...

    @classmethod
    def from_dict(cls, config_dict: dict[str, object]) -> "ModelConfig": ...


class HookedModel(Protocol):
    """Transformer with hook points, as `load_model` returns it. Weights are `[n_in, n_out]`: `x @ W_U` are logits."""

    cfg: ModelConfig
    tokenizer: Any
    """tokenizer of transformers, or None; `identity.tokenizer_of` gives one interface for all"""
    original_model: "nn.Module"
    """the wrapped module; its submodules are wrapped too"""
    hook_dict: "Mapping[str, HookPoint]"
    """by TransformerLens' names; `adapter.hook_points_by_name` has ours"""
    blocks: Sequence[Any]
    """layers, with an `attn`, and an `mlp` unless attention-only; which norms they have depends on the architecture"""
    embed: WrappedModule
    unembed: WrappedModule
    ln_final: WrappedModule
    """final norm; an architecture may have none"""
    W_E: "Tensor"
    W_U: "Tensor"
    W_pos: "Tensor"
    """learned embedding of positions; models with rotary positions have none"""

    def __call__(self, value: "Tensor", **options: Unpack[PassOptions]) -> "Tensor":
        """Return logits `[batch, pos, d_vocab]`."""
        ...

    def forward(self, value: object, *args: object, **options: object) -> object: ...

    def run_with_hooks(
        self, value: "Tensor", *, fwd_hooks: Sequence[tuple[str, Hook]], **options: Unpack[PassOptions]
    ) -> "Tensor": ...

    def run_with_cache(
        self, value: "Tensor", *, names_filter: list[str], stop_at_layer: int | None, return_cache_object: bool
    ) -> "tuple[Tensor, Mapping[str, Tensor]]": ...

    def hooks(self, *, fwd_hooks: Sequence[tuple[str, Hook]]) -> AbstractContextManager[object]: ...

    # of torch.nn.Module
    def parameters(self) -> "Iterator[nn.Parameter]": ...

    def named_parameters(self) -> "Iterator[tuple[str, nn.Parameter]]": ...

    def buffers(self) -> "Iterator[Tensor]": ...

    def modules(self) -> "Iterator[nn.Module]": ...

    def train(self) -> "HookedModel": ...

    def eval(self) -> "HookedModel": ...


def wrap_native(config: "ModelConfig | TransformerBridgeConfig", *, device: str, dtype: "torch.dtype") -> HookedModel:
    """Return an initialised model of TransformerLens' own, in evaluation mode."""
    from transformer_lens import TransformerBridge

    bridge: Any = TransformerBridge  # `boot_native` is attached when it is imported
    return bridge.boot_native(config, device=device, dtype=dtype).eval()


def wrap_transformers(
    plain: "nn.Module", location: str, tokenizer: object, *, device: str, dtype: "torch.dtype"
) -> HookedModel:
    """Return a model of transformers with hook points, in evaluation mode; `location` is its folder or hub id."""
    from transformer_lens import TransformerBridge

    bridge: Any = TransformerBridge.boot_transformers(
        location, hf_model=plain, tokenizer=tokenizer, device=device, dtype=dtype
    )
    return bridge.eval()


def wrap_in_memory(plain: "nn.Module") -> HookedModel:
    """Return a model of transformers that has no tokenizer and no files, with hook points, in evaluation mode."""
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    bridge: Any = build_bridge_from_module(plain, type(plain).__name__, hf_config=plain.config)
    return bridge.eval()
