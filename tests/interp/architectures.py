"""One tiny random model per architecture that analyses must handle."""

from functools import cache
from typing import Any

import torch

from interp.models.hooked import HookedModel, wrap_in_memory
from interp.models.small import SmallConfig, build_small

NAMES = ("native-ln", "native-rms", "native-raw", "gpt2", "llama-gqa", "neox")
POST_NORM = ("gemma-2", "gemma-3")
ALL_NAMES = (*NAMES, *POST_NORM)
NORMED_KEYS = ("qwen-3", "olmo-2")
"""Norms of queries and keys: of every head, and of all heads together after the projection."""


@cache
def tiny(name: str) -> Any:
    """The model that tests share: read-only. One that has run with gradients cannot be copied: see `new_tiny`."""
    return new_tiny(name)


def new_tiny(name: str) -> Any:
    """Two layers, `d_model` 32, vocabulary 50, eager attention, weights large enough that attention is not flat.

    `native-raw` has no norms, `llama-gqa` four query heads over two key-value heads, `neox` parallel attention and MLP.
    `gemma-2` and `gemma-3` norm what attention and MLP write, share keys and values, scale embeddings, and have layers
    with a sliding window of 4; `gemma-2` caps scores and logits, `gemma-3` norms queries and keys. Biases and norm
    gains are random too.
    """
    model = _native(name.removeprefix("native-")) if name.startswith("native") else _from_transformers(name)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * (0.6 if "embed" in key or "wte" in key or "wpe" in key else 0.25))
            elif "weight" in key:
                parameter.copy_((name not in POST_NORM) + 0.2 * noise)  # Gemma stores gain - 1
            else:
                parameter.copy_(0.3 * noise)
    return model


def blank(**config: Any) -> HookedModel:
    """A model without norms whose weights are all 0, into which a test writes what it computes."""
    model = build_small(SmallConfig(normalization=None, **config), seed=0, device="cpu", dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def gain(name: str, module: Any) -> torch.Tensor:
    """The gain of a norm of `tiny(name)`: its weight, or 1 plus its weight in Gemma."""
    return module.weight.detach() + (name in POST_NORM)


def hold_post_norm(model: HookedModel, tokens: torch.Tensor, layer: int) -> list[tuple[str, Any]]:
    """Hooks that hold one layer's norm after attention at its scale on `tokens`, written out by hand."""
    seen: dict[str, torch.Tensor] = {}
    written, added = f"blocks.{layer}.attn.o.hook_out", f"blocks.{layer}.hook_attn_out"

    def see(value: torch.Tensor, hook: Any) -> None:
        seen["now"] = value

    with torch.no_grad():
        model.run_with_hooks(tokens, fwd_hooks=[(written, see)])
    module = model.blocks[layer].ln1_post.original_component
    root = (seen["now"].double().pow(2).mean(-1, keepdim=True) + module.eps).sqrt()

    def hold(value: torch.Tensor, hook: Any) -> torch.Tensor:
        return ((1 + module.weight.detach()) * seen["now"] / root).to(value.dtype)

    return [(written, see), (added, hold)]


def _native(norm: str) -> Any:
    config = SmallConfig(
        d_model=32,
        n_heads=4,
        d_mlp=64,
        d_vocab=50,
        n_ctx=16,
        normalization={"ln": "LN", "rms": "RMS", "raw": None}[norm],
        positions="rotary" if norm == "rms" else "standard",
    )
    return build_small(config, seed=3, device="cpu", dtype=torch.float32)


def _from_transformers(name: str) -> HookedModel:
    import transformers

    sizes = {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0}
    common = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, **sizes}
    made = {
        "gpt2": (
            "GPT2LMHeadModel",
            transformers.GPT2Config,
            {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16},
        ),
        "llama-gqa": ("LlamaForCausalLM", transformers.LlamaConfig, {**common, "num_key_value_heads": 2}),
        "neox": ("GPTNeoXForCausalLM", transformers.GPTNeoXConfig, {**common, "rotary_pct": 0.5}),
    }
    gemma = {**common, "num_key_value_heads": 2, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4}
    gemma |= {"layer_types": ["sliding_attention", "full_attention"], "max_position_embeddings": 64}
    caps = {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 10.0}
    made["gemma-2"] = ("Gemma2ForCausalLM", transformers.Gemma2Config, {**gemma, **caps})
    made["gemma-3"] = ("Gemma3ForCausalLM", transformers.Gemma3TextConfig, gemma)
    normed = {**common, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
    made["qwen-3"] = ("Qwen3ForCausalLM", transformers.Qwen3Config, normed)
    made["olmo-2"] = ("Olmo2ForCausalLM", transformers.Olmo2Config, normed)
    architecture, config_class, options = made[name]
    config = config_class(**{**sizes, **options}, attn_implementation="eager")
    plain = getattr(transformers, architecture)(config).eval()
    return wrap_in_memory(plain)
