"""The model on the contexts of one shard: what a recording stores, and what a live one computes when it is read."""

from collections.abc import Callable

import torch
from torch import Tensor

from interp.models.capture import Capture
from interp.recording.contexts import ShardText
from interp.recording.shards import store


def compute_activations(
    capture: Capture,
    text: ShardText,
    *,
    batch_size: int,
    dtype: torch.dtype,
    each: Callable[[int], None] | None = None,
) -> dict[str, Tensor]:
    """Hook point -> `[n_rows, d]` of every context of `text`, `batch_size` contexts a pass, as `dtype` stores them.

    `each(n_real)` is called after every pass. Raises `NonFiniteError` (NaN, infinity, or what `dtype` cannot hold).
    """
    stored: dict[str, Tensor] = {}
    context_length = text.tokens.shape[1]
    for first in range(0, len(text.tokens), batch_size):
        contexts = slice(first, first + batch_size)
        tokens = torch.from_numpy(text.tokens[contexts]).long().to(capture.model.cfg.device)
        for name, values in capture(tokens).items():
            if name not in stored:
                stored[name] = torch.empty(text.n_rows, values[0, 0].numel(), dtype=dtype)
            start = first * context_length
            store(values, stored[name][start : start + tokens.numel()], name, text, first)
        if each is not None:
            each(int((text.document[contexts] >= 0).sum()))
    return {name: stored[name] for name in capture.names}
