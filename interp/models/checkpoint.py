"""A small model on disk: `small.json` (its sizes) and `model.safetensors` (its weights, by plain names).

`load_model` opens such a folder by its path, like any other model folder.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.artifacts import atomic_file, write_json
from interp.errors import ConfigError, CorruptError
from interp.models.identity import plain_parameters
from interp.models.small import SmallConfig, build_small

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

CONFIG_FILE, WEIGHTS_FILE = "small.json", "model.safetensors"


def save_small(model: Any, config: SmallConfig, folder: Path) -> None:
    """Write a small model's weights and sizes; a crash leaves the old files or the new ones."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in plain_parameters(model.original_model)}
    with atomic_file(folder / WEIGHTS_FILE) as temporary:
        temporary.write_bytes(save(weights))
    write_json(folder / CONFIG_FILE, asdict(config))


def is_small_folder(folder: Path) -> bool:
    return (folder / CONFIG_FILE).is_file()


def load_small(folder: Path, *, device: str = "cpu", dtype: Any = None) -> "TransformerBridge":
    """The model that `save_small` wrote. Raises `CorruptError` when the files do not fit each other."""
    import torch
    from safetensors.torch import load_file

    try:
        config = SmallConfig(**json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))
        weights = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, TypeError, ConfigError) as error:
        raise CorruptError(f"{folder} is not a small model that can be read ({error}); write it again") from error
    except Exception as error:  # safetensors raises its own type, which it does not export for this purpose
        raise CorruptError(f"{folder / WEIGHTS_FILE} cannot be read ({error}); write it again") from error
    model = build_small(config, seed=0, device=device, dtype=dtype or torch.float32)
    _copy_weights(model, weights, folder)
    return model


def _copy_weights(model: Any, weights: dict[str, Any], folder: Path) -> None:
    import torch

    own = dict(plain_parameters(model.original_model))
    wrong = sorted(set(own) ^ set(weights)) + [n for n in own if n in weights and own[n].shape != weights[n].shape]
    if wrong:
        raise CorruptError(f"the weights in {folder} do not fit its {CONFIG_FILE}: {', '.join(wrong[:3])}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])
