"""The attention of a few heads on one prompt, kept beside a circuit so that a page can show it without the model."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from interp.artifacts import atomic_file
from interp.names import HeadName

FILE = "patterns.safetensors"


def head_patterns(model: Any, tokens: Tensor, heads: Iterable[HeadName]) -> dict[str, Tensor]:
    """Head -> `[dest, src]` float32 on `tokens [1, pos]`; empty when the model's attention has no patterns."""
    from interp.models.adapter import available_hook_points, run_with_cache

    points = {head: f"blocks.{head.layer}.attn.hook_pattern" for head in heads}
    if not points or not set(points.values()) <= available_hook_points(model):
        return {}
    last = max(head.layer for head in points)
    _, cache = run_with_cache(model, tokens.to(model.cfg.device), sorted(set(points.values())), stop_at_layer=last + 1)
    return {str(head): cache[point][0, head.head].float().cpu().contiguous() for head, point in points.items()}


def save_patterns(patterns: dict[str, Tensor], folder: Path) -> None:
    """Write them into a circuit's folder; nothing when there are none."""
    if patterns:
        from safetensors.torch import save

        with atomic_file(folder / FILE) as temporary:
            temporary.write_bytes(save(patterns))
