"""What a recording will hold and whether there is room for it, before the model works."""

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from interp.errors import ConfigError, ResourceError
from interp.models.capture import Capture

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
_TOKEN_BYTES = 3 * 4  # tokens, document, position
# dest x src: not one vector a token
_SQUARE = ("hook_pattern", "hook_attn_scores")


def probe_widths(model: "TransformerBridge", hook_points: list[str]) -> dict[str, int]:
    """Numbers per token at each hook point, from a run on 14 tokens (heads are laid side by side).

    Raises `ConfigError` for a place that does not hold one vector per token.
    """
    import torch

    for name in hook_points:
        if name.endswith(_SQUARE):
            raise ConfigError(f"{name} holds one number per pair of tokens, a recording one vector per token")
    tokens = torch.zeros(2, 7, dtype=torch.long, device=model.cfg.device)
    with Capture(model, hook_points) as capture:
        values = capture(tokens)
    for name, value in values.items():
        if value.shape[:2] != tokens.shape or value.ndim < 3 or not value.is_floating_point():
            raise ConfigError(
                f"{name} holds values of shape {tuple(value.shape)} for tokens of shape {tuple(tokens.shape)}; "
                "a recording needs one vector per token"
            )
    return {name: math.prod(values[name].shape[2:]) for name in hook_points}


def bytes_needed(widths: dict[str, int], n_rows: int, dtype: str) -> int:
    """Size of a recording of `n_rows` rows, small tables left out."""
    return n_rows * (sum(widths.values()) * _BYTES[dtype] + _TOKEN_BYTES)


def check_space(folder: Path, needed: int, budget_bytes: int | None, already: int = 0) -> None:
    """Raises `ResourceError` when the recording exceeds the budget or the free disk (less what is there already)."""
    smaller = "record fewer tokens or hook points, or in a narrower --dtype"
    if budget_bytes is not None and needed > budget_bytes:
        raise ResourceError(f"the recording needs {_size(needed)}, the budget is {_size(budget_bytes)}; {smaller}")
    free = shutil.disk_usage(existing_parent(folder)).free
    if needed - already > free:
        raise ResourceError(
            f"the recording needs {_size(needed - already)} at {folder}, {_size(free)} are free; {smaller}, "
            "or choose another --workspace"
        )


def existing_parent(path: Path) -> Path:
    """The nearest folder above `path` that exists."""
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path


def folder_bytes(folder: Path) -> int:
    """Total size of the files in a folder; 0 when it is not there."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.2f} MB"
