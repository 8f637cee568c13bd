"""What a model writes next, with hooks in place: greedily, or sampled from a seed.

The whole text is run again for every token: hooks then see what they would see on a text given at once.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from interp.errors import ConfigError
from interp.models.adapter import Hook, run_with_hooks


@torch.no_grad()
def continue_tokens(
    model: Any,
    tokens: Tensor,
    n_new: int,
    *,
    hooks: Sequence[tuple[str, Hook]] = (),
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`[n_new]` token ids after `tokens [1, pos]`: the most likely ones, or above temperature 0 drawn by `generator`.

    Raises `ConfigError` for a negative temperature, sampling without a generator, or a text longer than the context.
    """
    if temperature < 0 or (temperature > 0 and generator is None):
        raise ConfigError(f"temperature must be at least 0, and sampling needs a generator; got {temperature}")
    if tokens.shape[1] + n_new > model.cfg.n_ctx:
        raise ConfigError(
            f"{tokens.shape[1]} tokens and {n_new} new ones exceed the context of {model.cfg.n_ctx}; ask for fewer"
        )
    start = tokens.shape[1]
    for _ in range(n_new):
        logits = run_with_hooks(model, tokens, [*hooks])[0, -1].float()
        tokens = torch.cat([tokens, _next(logits, temperature, generator).view(1, 1).to(tokens)], dim=1)
    return tokens[0, start:]


@torch.no_grad()
def next_token_logits(model: Any, tokens: Tensor, hooks: Sequence[tuple[str, Hook]] = ()) -> Tensor:
    """`[d_vocab]` float32 after `tokens [1, pos]`."""
    return run_with_hooks(model, tokens, [*hooks])[0, -1].float()


def _next(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    if not temperature:
        return logits.argmax()
    return torch.multinomial((logits / temperature).softmax(-1).cpu(), 1, generator=generator)[0]
