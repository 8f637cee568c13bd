"""Modules at our hook points, for programs that keep the names of transformers' modules.

Blocks are `model.layers.N` with the children that Llama, Qwen, Mistral, Gemma and their descendants have in
transformers and in vLLM. In Gemma 2 and 3 a norm follows attention and MLP, and `hook_attn_out` and `hook_mlp_out` are
what it gives: what is added to the residual stream.
"""

from collections.abc import Collection
from typing import Literal, NamedTuple

from interp.errors import ConfigError

BLOCK = "model.layers.{layer}"


class Site(NamedTuple):
    """The module whose input or output is the value of a hook point."""

    path: str
    """Path of the module in the model."""
    side: Literal["in", "out"]
    residual: bool
    """True for the residual stream, which an engine with fused norms holds in two parts."""


_NORM_FOLLOWS = "pre_feedforward_layernorm"
_PLAIN: dict[str, tuple[str, Literal["in", "out"], bool]] = {
    "hook_resid_pre": ("", "in", True),
    "hook_attn_out": ("self_attn", "out", False),
    "hook_resid_mid": ("post_attention_layernorm", "in", True),
    "mlp.hook_in": ("mlp", "in", False),
    "hook_mlp_out": ("mlp", "out", False),
    "hook_resid_post": ("", "out", True),
}
_WITH_NORMS: dict[str, tuple[str, Literal["in", "out"], bool]] = {
    **_PLAIN,
    "ln1_post.hook_in": ("self_attn", "out", False),
    "hook_attn_out": ("post_attention_layernorm", "out", False),
    "hook_resid_mid": (_NORM_FOLLOWS, "in", True),
    "ln2_post.hook_in": ("mlp", "out", False),
    "hook_mlp_out": ("post_feedforward_layernorm", "out", False),
}


def sites_of(modules: Collection[str], n_layers: int, spec: str) -> dict[str, Site]:
    """Return the site of every hook point that can be read in a model with these modules (paths).

    Raises `ConfigError` for a model whose blocks have other names, or another order of their parts.
    """
    first = BLOCK.format(layer=0)
    needed = {f"{first}.{child}" for child in ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm")}
    if lacking := sorted(needed - set(modules)):
        raise ConfigError(
            f"{spec} has no {lacking[0]}, so its modules cannot be found by the names of Llama's; record it with "
            "--engine bridge"
        )
    table = _WITH_NORMS if f"{first}.{_NORM_FOLLOWS}" in modules else _PLAIN
    return {
        f"blocks.{layer}.{name}": Site(
            ".".join(part for part in (BLOCK.format(layer=layer), child) if part), side, residual
        )
        for layer in range(n_layers)
        for name, (child, side, residual) in table.items()
    }
