"""Prompts in pairs, and what is measured on them: what every kind of patching asks of its input."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from interp.errors import ConfigError, PromptError
from interp.models.adapter import token_strings

Metric = Callable[[Tensor], Tensor]
"""`metric(logits [batch, pos, d_vocab]) -> [batch]`, one number per prompt, in order; larger = more correct."""


def measure(metric: Metric, logits: Tensor, n_prompts: int) -> Tensor:
    """`[n_prompts]` float64 on the CPU. Raises `ConfigError` for a metric that gives anything but one number each."""
    values = torch.as_tensor(metric(logits))
    if values.shape != (n_prompts,):
        raise ConfigError(
            f"a metric gives one number per prompt, shape [{n_prompts}]; this one gave {list(values.shape)}"
        )
    return values.double().cpu()


def check_pairs(model: Any, clean: Tensor, corrupt: Tensor) -> None:
    """Raises `PromptError` unless both are `[batch, pos]` of the same shape; names both lengths and the tokens."""
    if clean.ndim == 2 and clean.shape == corrupt.shape and clean.shape[1] > 0 and len(clean) > 0:
        return
    if clean.ndim != 2 or corrupt.ndim != 2 or 0 in (*clean.shape, *corrupt.shape):
        raise PromptError(
            f"clean and corrupt prompts were expected as tokens [batch, pos], got {list(clean.shape)} and "
            f"{list(corrupt.shape)}"
        )
    if len(clean) != len(corrupt):
        raise PromptError(f"prompts come in pairs, got {len(clean)} clean and {len(corrupt)} corrupt ones")
    texts = ["|".join(token_strings(model, tokens[0])) for tokens in (clean, corrupt)]
    raise PromptError(
        f"clean and corrupt prompts need the same number of tokens, got {clean.shape[1]} ({texts[0]}) and "
        f"{corrupt.shape[1]} ({texts[1]}); reword one of them"
    )
