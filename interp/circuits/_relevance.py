"""Gradients that follow relevance instead of the local slope (RelP, Jafari et al. 2025).

The values of a run stay as they are; only the backward pass differs:

    norm           linear at the scale of this run: no gradient to the scale
    activation     act(x) counts as the line from 0 to it, x * (act(x) / x): no gradient to the slope
    gated product  each of two factors has half of the gradient, so that their shares add up to the product

Change times gradient is then a share of the output, where the slope of a saturated activation or a norm says little.
One backward pass on the clean prompts; integrated gradients need several between two prompts. GIM (Edin et al. 2025)
halves the products of attention as well, which agreed less with exact patching (docs/log.md).
"""

import torch
from torch import Tensor

from interp.models.adapter import Hook, available_hook_points
from interp.models.residual import Norm, ResidualStream, norm_of

SMALLEST = 1e-6
"""Inputs nearer to 0 count as this far from it."""


def relevance_hooks(residual: ResidualStream) -> list[tuple[str, Hook]]:
    """Return hooks for one forward pass whose backward pass follows relevance. They come before all others."""
    model, points = residual.model, available_hook_points(residual.model)
    named = [("ln_final", norm_of(model, "ln_final", residual.shape.d_model))]
    for layer, block in enumerate(model.blocks):
        parts = ("ln1", "ln1_post", "ln2", "ln2_post")
        named += [(f"blocks.{layer}.{part}", norm_of(block, part, residual.shape.d_model)) for part in parts]
    hooks = []
    for name, norm in named:
        reads = name.replace("ln2", "ln1") if residual.parallel and name.endswith("ln2") else name  # of one stream
        hooks += [] if norm is None else _norm_hooks(norm, f"{reads}.hook_in", f"{name}.hook_out")
    if residual.has_mlp:
        hooks += [hook for layer in range(len(model.blocks)) for hook in _mlp_hooks(f"blocks.{layer}.mlp", points)]
    return hooks


def _norm_hooks(norm: Norm, reads: str, writes: str) -> list[tuple[str, Hook]]:
    seen: list[Tensor] = []

    def enter(value: Tensor, hook: object) -> None:
        seen.append(value)

    def leave(value: Tensor, hook: object) -> Tensor:
        x = seen.pop()
        return _with_gradient_of(norm.linear(x) / norm.unit_and_scale(x)[1].detach(), value)

    return [(reads, enter), (writes, leave)]


def _mlp_hooks(mlp: str, points: set[str]) -> list[tuple[str, Hook]]:
    """Return hooks by which the hidden layer of an MLP counts as linear in each of its one or two inputs."""
    inputs = [name for name in (f"{mlp}.hook_pre", f"{mlp}.hook_pre_linear") if name in points]
    seen: list[Tensor] = []

    def enter(value: Tensor, hook: object) -> None:
        seen.append(value)

    def leave(value: Tensor, hook: object) -> Tensor:
        factors = [seen.pop() for _ in inputs]
        shares = [x * (value / torch.where(x.abs() < SMALLEST, SMALLEST, x)).detach() for x in factors]
        return _with_gradient_of(torch.stack(shares).mean(0), value)

    return [*((name, enter) for name in inputs), (f"{mlp}.hook_post", leave)]


def _with_gradient_of(linear: Tensor, value: Tensor) -> Tensor:
    """Return `value` to rounding, with the gradient of `linear`."""
    return linear + (value - linear).detach()
