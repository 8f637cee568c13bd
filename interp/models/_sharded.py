"""A model over several devices: its layers on the GPUs, then in the memory of the machine, then on disk.

accelerate assigns the layers by the free memory and moves values between them; hooks, edits and gradients work as ever.
The weights of layers on disk exist only while such a layer runs: analyses that read weights (attention of heads by
their circuits, graphs, planted truths) are not for such a model. Each pass reads every layer on disk once.
"""

import atexit
import re
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from interp.cache import cache_folder
from interp.devices import free_memory
from interp.errors import ConfigError, CorruptError
from interp.models.identity import hash_tensors, plain_parameters

USED = 0.7
"""Share of the free memory of the machine that weights may take; values of a pass need the rest."""


def read_sharded(location: str, dtype: torch.dtype) -> tuple[Any, str, str]:
    """Return the plain module, spread over the devices, the hash of its weights and the device of its embedding.

    Args:
        location: folder or hub id of a model of transformers, with weights in safetensors.
        dtype: of weights and values.

    Raises `ConfigError` for weights in another format than safetensors.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    scratch = cache_folder() / "sharded"
    scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=scratch))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    local = Path(location).is_dir()
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(location, local_files_only=local))
    devices = devices_of(empty, dtype)
    plain = AutoModelForCausalLM.from_pretrained(
        location, dtype=dtype, attn_implementation="eager", device_map=devices, offload_folder=str(folder),
        local_files_only=local,
    )  # fmt: skip
    return plain.eval(), hash_of_files(location, plain), _named(min(devices.values(), key=_order))


def devices_of(empty: Any, dtype: torch.dtype) -> dict[str, int | str]:
    """Return where each part of a model goes: the number of a GPU, `cpu` or `disk`.

    `empty` is the module without values. All but its layers lies on the first device, which every pass begins and ends
    on.
    """
    from accelerate import infer_auto_device_map

    free = int((free_memory("cpu") or 0) * USED)
    gpus = range(torch.cuda.device_count())
    limits: dict[int | str, int] = {number: int((free_memory(f"cuda:{number}") or 0) * 0.9) for number in gpus}
    empty.tie_weights()
    devices: Any = infer_auto_device_map(
        empty, max_memory={**limits, "cpu": free}, dtype=dtype, no_split_module_classes=list(empty._no_split_modules)
    )
    layers = [name for name, _ in empty.named_modules() if _LAYER.search(name)]
    others = [
        name
        for name, module in empty.named_modules()
        if (any(True for _ in module.parameters(False)) or any(True for _ in module.buffers(False)))
        and not name.startswith(tuple(f"{layer}." for layer in layers))
    ]
    first = min(limits, default="cpu")
    return {layer: _device_of(layer, devices) for layer in layers} | dict.fromkeys(others, first)


def _device_of(module: str, devices: dict[str, int | str]) -> int | str:
    """Return the device of a module, which may be given for one that it lies in."""
    while module not in devices:
        if not module:
            return "cpu"
        module = module.rpartition(".")[0]
    return devices[module]


_LAYER = re.compile(r"\.(layers|h|blocks)\.\d+$")


def _named(device: int | str) -> str:
    return f"cuda:{device}" if isinstance(device, int) else device


def _order(device: int | str) -> tuple[bool, str]:
    return isinstance(device, str), str(device)


def describe_devices(plain: Any) -> str:
    """Return how many layers lie where, as `12 on cuda:0, 8 on cpu, 10 on disk`."""
    if not hasattr(plain, "hf_device_map"):
        return "all on one device"
    counts = Counter(_named(device) for module, device in plain.hf_device_map.items() if _LAYER.search(module))
    return ", ".join(f"{n} on {name}" for name, n in counts.items())


def hash_of_files(location: str, plain: Any) -> str:
    """Return the hash that `identity.hash_weights` would give, tensor by tensor from the safetensors files."""
    folder = Path(location)
    if not folder.is_dir():
        from transformers.utils.hub import cached_file

        folder = Path(str(cached_file(location, "config.json", local_files_only=True))).parent
    where: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as handle:
            where |= dict.fromkeys(handle.keys(), file)
    names = sorted(name for name, _ in plain_parameters(plain))
    if not where:
        raise ConfigError(f"{location} has no .safetensors files, which a model over several devices is read from")
    if lost := [name for name in names if name not in where]:
        raise CorruptError(f"{folder} has no {lost[0]} in its .safetensors files; are all of them there?")

    def read(name: str) -> Tensor:
        with safe_open(where[name], "pt") as handle:
            return handle.get_tensor(name)

    return hash_tensors(names, read)
