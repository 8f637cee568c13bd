"""Hooks that put an SAE into a model: splice its reconstruction in, ablate or steer a feature.

A hook is `fn(value, hook) -> value` for `model.run_with_hooks(tokens, fwd_hooks=[(sae.hook_point, fn)])`; values are
`[batch, pos, d_in]`. An edit is a function of feature activations, `[batch, pos, d_sae] -> [batch, pos, d_sae]`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from interp.errors import ConfigError
from saes.kinds.base import SAE

Hook = Callable[..., Tensor]
Edit = Callable[[Tensor], Tensor]


def splice(sae: SAE, *, keep_error: bool = False, edit: Edit | None = None) -> Hook:
    """A hook that replaces the activation by the SAE's reconstruction, after an optional `edit` of its features.

    With `keep_error` the part that the SAE cannot reconstruct is added back, so that only the edit changes anything:
    without an edit the value then passes through unchanged. Raises `ConfigError` for a transcoder, whose output belongs
    at another hook point.
    """
    if sae.hook_point_out not in ("", sae.hook_point):
        raise ConfigError(f"{sae} predicts {sae.hook_point_out}; it cannot take the place of what it reads")

    def hook(value: Tensor, hook: Any = None) -> Tensor:
        x = value.to(sae.W_enc.dtype)
        acts = sae.encode(x)
        recons = sae.complete(sae.decode(edit(acts) if edit else acts), x)
        if keep_error:
            recons = x + (recons - sae.complete(sae.decode(acts), x)) if edit else x
        return recons.to(value.dtype)

    return hook


def ablate(sae: SAE, *features: int) -> Edit:
    """An edit that switches features off. Raises `ConfigError` on a number that is not a feature."""
    _check(sae, features)

    def edit(acts: Tensor) -> Tensor:
        edited = acts.clone()
        edited[..., list(features)] = 0
        return edited

    return edit


def clamp(sae: SAE, feature: int, value: float) -> Edit:
    """An edit that holds a feature at `value` on every token."""
    _check(sae, (feature,))

    def edit(acts: Tensor) -> Tensor:
        edited = acts.clone()
        edited[..., feature] = value
        return edited

    return edit


def steer(sae: SAE, feature: int, amount: float) -> Hook:
    """A hook that adds `amount` units of a feature's decoder direction to every token, without encoding anything."""
    _check(sae, (feature,))
    direction = sae.decoder_directions[feature] * amount

    def hook(value: Tensor, hook: Any = None) -> Tensor:
        return value + direction.to(value.device, value.dtype)

    return hook


def replace_with(vector: Tensor) -> Hook:
    """A hook that puts the same vector at every position: zeros or the mean are the usual baselines."""

    def hook(value: Tensor, hook: Any = None) -> Tensor:
        return vector.to(value.device, value.dtype).expand_as(value)

    return hook


def keep_positions(inner: Hook, n: int) -> Hook:
    """The hook applied to all but the first `n` positions (BOS was not in the training data)."""

    def hook(value: Tensor, hook: Any = None) -> Tensor:
        return torch.cat([value[:, :n], inner(value, hook=hook)[:, n:]], dim=1)

    return hook


def _check(sae: SAE, features: tuple[int, ...]) -> None:
    for feature in features:
        if not 0 <= feature < sae.d_sae:
            raise ConfigError(f"feature {feature} is not there; the SAE has features 0 to {sae.d_sae - 1}")
