"""Adapters of peft (LoRA and its kin), merged into their base model when it loads.

model = load_model("smollm2-135m+./my-lora")  # base and adapter, a folder or a hub id each
model = load_model("./my-lora")               # the base that the adapter's folder names
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import ConfigError, CorruptError, MismatchError, MissingError

if TYPE_CHECKING:
    from torch import nn

ADAPTER_CONFIG = "adapter_config.json"


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
        with safe_open(path / "adapter_model.safetensors", "pt") as file:
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

    Raises `MissingError` without peft or such an adapter, `MismatchError` for one of another base,
    `CorruptError` for a file that cannot be read.
    """
    try:
        import peft
    except ImportError:
        raise MissingError("an adapter is read through peft: pip install '.[adapters]'") from None
    if adapter.startswith(("/", "./", "../", "~")) or Path(adapter).expanduser().exists():
        adapter = str(Path(adapter).expanduser())
        if not is_adapter(Path(adapter)):
            raise MissingError(f"{adapter} has no {ADAPTER_CONFIG}, so it is not an adapter of peft")
    try:
        return peft.PeftModel.from_pretrained(plain, adapter).merge_and_unload()
    except Exception as error:  # peft raises a dozen unrelated types; each becomes one line
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        phrases = ("size mismatch", "Target module", "not found in the base model")
        if any(phrase in str(error) for phrase in phrases):
            base = spec.partition("+")[0]
            raise MismatchError(f"the adapter {adapter} belongs to another base than {base}: {reason}") from error
        raise CorruptError(f"the adapter {adapter} cannot be read ({reason})") from error
