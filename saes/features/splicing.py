"""Splicing: a model runs on the reconstruction of an SAE or transcoder instead of the value itself.

    model.run_with_hooks(tokens, fwd_hooks=splice_hooks(sae))

Ablating, clamping and steering latents are interventions (`interp.interventions`), which leave the reconstruction error
as it is; `hooks_of(..., between=splice_hooks(sae))` does both.
"""

from typing import Any

from torch import Tensor

from interp.errors import ConfigError
from interp.interventions.edits import at_mask, from_position
from interp.models.adapter import Hook
from saes.kinds.base import SAE
from saes.kinds.crosscoder import CrosscoderSAE


def splice(sae: SAE) -> Hook:
    """Return a hook that replaces the activation by the SAE's reconstruction.

    Raises `ConfigError` for a transcoder, whose output belongs at another hook point (`splice_hooks` returns both
    hooks), and for a crosscoder.
    """
    [(_, hook), *more] = splice_hooks(sae)
    if more:
        raise ConfigError(
            f"expected an SAE that reconstructs {sae.hook_point}, {sae} predicts {sae.hook_point_out}; "
            "take `splice_hooks`"
        )
    return hook


def splice_hooks(sae: SAE, *, first: int = 0, mask: Tensor | None = None) -> list[tuple[str, Hook]]:
    """Return the hooks that splice an SAE or a transcoder into a model, each with its hook point.

    The `first` positions keep their values, or those where `mask [batch, pos]` is false. Raises
    `ConfigError` for a crosscoder.
    """
    if isinstance(sae, CrosscoderSAE):
        raise ConfigError(f"{sae} reads several hook points at once; splice an SAE or a transcoder of one of them")
    stored: dict[str, Tensor] = {}

    def read(value: Tensor, hook: Any = None) -> None:
        stored["x"] = value

    def write(value: Tensor, hook: Any = None) -> Tensor:
        x = stored.pop("x", value)
        return sae(x.flatten(2).to(sae.W_dec.dtype)).to(value.dtype).view_as(value)

    target = sae.hook_point_out or sae.hook_point
    written = from_position(write, first) if mask is None else at_mask(write, mask)
    return [(target, written)] if target == sae.hook_point else [(sae.hook_point, read), (target, written)]
