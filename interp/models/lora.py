"""Adapters of peft (LoRA and its kin), merged into their base model when it loads, and LoRA trained here.

model = load_model("smollm2-135m+./my-lora")  # base and adapter, a folder or a hub id each
model = load_model("./my-lora")               # the base that the adapter's folder names

A LoRA (Hu et al. 2021) adds `alpha / r * B @ A` to a frozen matrix `[out, in]`: `A [r, in]` and `B [out, r]` are
trained, and `B` begins at 0. One without further settings is merged here; any other adapter needs peft.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.artifacts import write_json
from interp.errors import ConfigError, CorruptError, MismatchError, MissingError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

ADAPTER_CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PLAIN = {
    *("peft_type", "task_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "target_modules"),
    *("layers_to_transform", "layers_pattern", "inference_mode", "peft_version", "auto_mapping", "revision"),
}
"""Settings that change nothing of `alpha / r * B @ A`."""
_DEFAULTS = {"bias": "none", "init_lora_weights": True, "megatron_core": "megatron.core", "qalora_group_size": 16}
"""Of others, those that are not empty by default."""


def is_adapter(path: Path) -> bool:
    """Return True for a folder that peft wrote."""
    return (path / ADAPTER_CONFIG).is_file()


def base_of_adapter(path: Path) -> str:
    """Return the name of the model that an adapter was trained on. Raises `CorruptError` where the folder lacks it."""
    try:
        base = json.loads((path / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"{path / ADAPTER_CONFIG} does not say its base ({error}); give both: BASE+{path}") from None
    if not isinstance(base, str) or not base:
        raise ConfigError(f"{path} does not say its base model; give both: BASE+{path}")
    return base


def described(path: Path) -> str:
    """Return what an adapter's folder changes, in one line: its rank, and the modules of which layers.

    Raises `CorruptError` for a folder whose files cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        config = json.loads((path / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        with safe_open(path / WEIGHTS, "pt") as file:
            names = list(file.keys())
    except (OSError, ValueError, SafetensorError) as error:
        raise CorruptError(f"the adapter {path} cannot be read ({error})") from None
    modules = sorted({match[1] for name in names if (match := re.search(r"\.(\w+)\.lora_", name))})
    layers = sorted({int(match[1]) for name in names if (match := re.search(r"\.(?:layers|h|blocks)\.(\d+)\.", name))})
    where = f"layers {layers[0]} to {layers[-1]} ({len(layers)})" if layers else "no numbered layer"
    kind = f"{config.get('peft_type', 'adapter')} of rank {config.get('r', '?')}"
    return f"{kind} on {', '.join(modules) or f'{len(names)} matrices'} of {where}"


def merged(plain: "nn.Module", adapter: str, spec: str) -> Any:
    """Return a model of transformers with an adapter merged into its weights.

    Raises `MissingError` without such an adapter, or without peft where it needs that, `MismatchError` for one of
    another base, `CorruptError` for a file that cannot be read.
    """
    if adapter.startswith(("/", "./", "../", "~")) or Path(adapter).expanduser().exists():
        adapter = str(Path(adapter).expanduser())
        if not is_adapter(Path(adapter)):
            raise MissingError(f"{adapter} has no {ADAPTER_CONFIG}, so it is not an adapter of peft")
    try:
        if (scale := _plain_scale(Path(adapter) / ADAPTER_CONFIG)) is not None:
            return _add(plain, Path(adapter) / WEIGHTS, scale)
        import peft

        return peft.PeftModel.from_pretrained(plain, adapter).merge_and_unload()
    except ImportError:
        raise MissingError("an adapter of this kind is read through peft: pip install '.[adapters]'") from None
    except Exception as error:  # peft raises a dozen unrelated types; each becomes one line
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        phrases = ("size mismatch", "Target module", "not found in the base model")
        if any(phrase in str(error) for phrase in phrases):
            base = spec.partition("+")[0]
            raise MismatchError(f"the adapter {adapter} belongs to another base than {base}: {reason}") from error
        raise CorruptError(f"the adapter {adapter} cannot be read ({reason})") from error


def _plain_scale(config: Path) -> float | None:
    """Return `alpha / r` of a LoRA that needs no peft; None for any other adapter, and for one of the hub."""
    if not config.is_file():
        return None
    settings = json.loads(config.read_text(encoding="utf-8"))
    others = (value for key, value in settings.items() if key not in _PLAIN and value != _DEFAULTS.get(key))
    return settings["lora_alpha"] / settings["r"] if settings["peft_type"] == "LORA" and not any(others) else None


def _add(plain: "nn.Module", path: Path, scale: float) -> "nn.Module":
    """Add the products of a file to the matrices that it names. Raises `ValueError` for a module that does not fit."""
    import torch
    from safetensors.torch import load_file

    tensors, modules = load_file(path), dict(plain.named_modules())
    for name in [name for name in tensors if ".lora_A." in name]:
        a, b = tensors.pop(name), tensors.pop(name.replace(".lora_A.", ".lora_B."))
        module = modules.get(name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))
        if not isinstance(module, torch.nn.Linear):
            raise ValueError(f"{name} is not found in the base model as a linear layer")
        if module.weight.shape != (len(b), a.shape[1]):
            raise ValueError(f"size mismatch for {name}: {[len(b), a.shape[1]]}, the base has {[*module.weight.shape]}")
        module.weight.data += (scale * (b.float() @ a.float())).to(module.weight)
    if tensors:
        raise ValueError(f"no pair of LoRA matrices: {next(iter(tensors))}")
    return plain


class Lora:
    """LoRA of some linear layers of a model of transformers, by hooks; all other weights are frozen."""

    def __init__(
        self, plain: "nn.Module", names: Sequence[str], *, rank: int, alpha: float, generator: "torch.Generator"
    ):
        """`names` are those of linear layers, as `plain.named_modules()` has them."""
        import torch

        plain.requires_grad_(False)
        self.rank, self.alpha = rank, alpha
        self.factors: dict[str, tuple[Tensor, Tensor]] = {}
        for name in names:
            layer = plain.get_submodule(name)
            assert isinstance(layer, torch.nn.Linear)
            width = layer.in_features**-0.5
            a = (2 * torch.rand(rank, layer.in_features, generator=generator) - 1) * width
            a, b = a.to(layer.weight).requires_grad_(), torch.zeros(layer.out_features, rank).to(layer.weight)
            self.factors[name] = a, b.requires_grad_()
            layer.register_forward_hook(self._hook(*self.factors[name]))

    def _hook(self, a: "Tensor", b: "Tensor") -> Any:
        return lambda layer, inputs, output: output + self.alpha / self.rank * (inputs[0] @ a.T @ b.T)

    def save(self, folder: Path, base: str) -> None:
        """Write the files that peft reads, and `load_model`; `base` is the name of the frozen model."""
        from safetensors.torch import save_file

        tensors = {
            f"base_model.model.{name}.lora_{which}.weight": factor.detach().cpu().contiguous()
            for name, factors in self.factors.items() for which, factor in zip("AB", factors, strict=True)
        }  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / WEIGHTS)
        settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": self.rank,
                    "lora_alpha": self.alpha, "target_modules": sorted(self.factors)}  # fmt: skip
        write_json(folder / ADAPTER_CONFIG, settings)
