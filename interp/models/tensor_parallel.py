"""A model that the processes of `torchrun` share: transformers' tensor parallel plan divides every layer over them.

Each process holds its part of every matrix, and all of them compute each pass together. The residual stream, and what
attention and MLP read and add to it, are whole in every process. What lies between is the part of one process: its
heads, its neurons.
"""

import re
from typing import Any

import torch

from interp.errors import ConfigError
from interp.models._sharded import hash_of_files
from interp.models.hooked import HookedModel

_INSIDE = re.compile(r"\.(attn|mlp)\.(?!(o|out)\.hook_out$|hook_(in|out)$)")


def processes() -> int:
    """Return the number of processes that share a model: those that `interp.ranks` has joined, or one."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_initialized() else 1


def split_over(plain: Any) -> int:
    """Return the number of processes that a module of transformers is divided over; 1 for a whole one."""
    return next((mesh.size() for part in plain.parameters() if (mesh := getattr(part, "device_mesh", None))), 1)


def is_part(hook_point: str) -> bool:
    """Return True for a hook point that holds the heads or neurons of one process."""
    return _INSIDE.search(hook_point) is not None


def read_split(spec: str, location: str, dtype: torch.dtype, *, local: bool) -> tuple[Any, str, str]:
    """Return the plain module, of which this process holds a part, the hash of its weights and its device.

    Raises `ConfigError` where the heads, or the rows of the vocabulary, cannot be divided over the processes.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.distributed import DistributedConfig

    n, config = processes(), AutoConfig.from_pretrained(location, local_files_only=local).get_text_config()
    heads, key_heads = config.num_attention_heads, getattr(config, "num_key_value_heads", config.num_attention_heads)
    one = key_heads == 1  # head of keys and values, which each process computes for its own heads of queries
    sizes = (heads, config.vocab_size, 0 if one else key_heads)
    if any(size % n for size in sizes):
        able = [m for m in range(1, heads + 1) if not any(size % m for size in sizes)]
        raise ConfigError(
            f"{spec} has {heads} heads, {key_heads} of keys and values, and {config.vocab_size:,} tokens, which {n} "
            f"processes cannot share; torchrun --nproc-per-node {' or '.join(map(str, able))}"
        )
    shared = {f"model.layers.*.self_attn.{part}_proj": "replicate" for part in "kv"}
    plain = AutoModelForCausalLM.from_pretrained(
        location, dtype=dtype, attn_implementation="eager", local_files_only=local,
        distributed_config=DistributedConfig(tp_plan=shared if one else "auto"),
    )  # fmt: skip
    if split_over(plain) != n:
        raise ConfigError(f"transformers has no plan to divide {spec} over processes; run it without torchrun")
    for attention in plain.modules() if one else ():
        if hasattr(attention, "num_key_value_groups"):
            attention.num_key_value_groups //= n
    device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    return plain.eval(), hash_of_files(location, plain), device


def mend_unembedding(model: HookedModel) -> None:
    """Remove the bias of zeros that TransformerLens gives an unembedding without one: it is as long as the vocabulary,
    of which this process has a part.
    """
    head: Any = model.unembed.original_component
    if head.bias is not None and len(head.bias) != head.weight.to_local().shape[0]:
        head.bias = None
