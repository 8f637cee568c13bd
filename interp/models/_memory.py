"""An estimate of the memory that a Hugging Face model takes, from its config alone, before any weight is read.

    print(estimate("google/gemma-2-2b", "bfloat16"))

Weights are counted exactly: the architecture is built from the config on torch's `meta` device, which holds no values.
The values of one pass are those of 2,048 tokens, the default batch of a recording. Verbs that need gradients, or keep
the values of several layers, take more.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.cache import size_text
from interp.devices import free_memory, parse_dtype
from interp.errors import ConfigError
from interp.text.corpora import hub_reachable

PASS_TOKENS, CONTEXT = 2_048, 128
"""Tokens of the pass that the estimate includes, in contexts of 128."""
_HASHED_AT_ONCE = 2
"""Parameters that are copied as float32 at a time while the weights are hashed."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a model takes on its device and, while it is read, in the memory of the machine."""

    n_params: int
    weights: int
    """weights on the device"""
    values: int
    """values of one pass of `PASS_TOKENS` tokens without gradients: one layer at a time, and the logits"""
    reading: int
    """weights in the dtype of their files, with the float32 copies that are hashed: in the memory of the machine"""

    @property
    def on_device(self) -> int:
        """Bytes on the device."""
        return self.weights + self.values

    def __str__(self) -> str:
        return (
            f"{size_text(self.on_device)} (weights of {self.n_params / 1e9:,.2f} billion parameters "
            f"{size_text(self.weights)}, one pass of {PASS_TOKENS:,} tokens {size_text(self.values)})"
        )


def estimate(location: str, dtype: str) -> MemoryEstimate:
    """Return the memory that the model of a folder or hub id takes in a dtype.

    Raises `OSError` or `ValueError` where there is no config, or none of a known architecture.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    local = Path(location).is_dir() or not hub_reachable()
    config = AutoConfig.from_pretrained(location, local_files_only=local)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    sizes = [parameter.numel() for parameter in model.parameters()]  # tied ones are counted once
    stored = getattr(config, "dtype", None) or torch.float32
    width, stored_width = parse_dtype(dtype).itemsize, stored.itemsize
    hashed = 0 if stored == torch.float32 else _HASHED_AT_ONCE * 4 * max(sizes)
    values = PASS_TOKENS * (
        _per_token(config.get_text_config()) * width + config.get_text_config().vocab_size * (width + 4)
    )
    return MemoryEstimate(sum(sizes), sum(sizes) * width, values, sum(sizes) * stored_width + hashed)


def _per_token(config: Any) -> int:
    """Return the values per token that exist at a time within a block: residual, heads, patterns and MLP."""
    d_model, d_mlp = config.hidden_size, getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return 8 * d_model + 3 * d_mlp + 2 * getattr(config, "num_attention_heads", 0) * CONTEXT


def check_memory(spec: str, location: str, dtype: str, device: str) -> None:
    """Raise `ConfigError`, before any weight is read, for a model that does not fit into the free memory.

    A model whose config cannot be read is not judged here: reading it reports the reason. Nothing is judged where the
    system does not tell how much is free.
    """
    try:
        needed = estimate(location, dtype)
    except Exception:  # transformers raises a dozen unrelated types for a bad config
        return
    on_cpu = device == "cpu"
    if (free := free_memory(device)) is not None and needed.on_device > free:
        raise ConfigError(
            f"{spec} needs about {needed} on {device} in {dtype}, and {size_text(free)} are free; {_next_move(dtype)}"
        )
    at_once = max(needed.reading, needed.on_device) if on_cpu else needed.reading
    if (free := free_memory("cpu")) is not None and at_once > free:
        raise ConfigError(
            f"reading {spec} takes about {size_text(at_once)} of the machine's memory, and {size_text(free)} are free; "
            "choose a smaller model, or close other programs"
        )


def _next_move(dtype: str) -> str:
    if dtype == "float32":
        return "halve it with --dtype bfloat16, or choose a smaller model or another --device"
    return "choose a smaller model or another --device, or close other programs"
