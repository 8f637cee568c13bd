"""Effects of nodes on a target in the model itself, to first order: nothing is frozen.

Edges are exact in the frozen model. Along them, a larger residual is not divided by a larger norm, and no gate or
attention pattern follows a change. The effect of a node here is its value times the gradient of the target with respect
to what it writes: norms, gates and attention follow, as far as a small change tells. One backward pass gives the
effects of all latents, errors and tokens (attribution patching, Syed et al. 2023).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from interp.interventions.edits import adding
from interp.models.adapter import Hook, run_with_hooks
from interp.tracing.edges import System
from interp.tracing.effects import final_input


def first_order_effects(system: System, reads: Float[Tensor, "targets d_model"]) -> Float[Tensor, "targets sources"]:
    """Return the effect of every source of a prompt on what each target reads of the unembedding's input.

    Removing a source changes the target by about minus its effect.
    """
    frozen = system.frozen
    n = frozen.shape.n_layers if frozen.shape.d_mlp is not None else 0
    points = ["blocks.0.hook_resid_pre", *(frozen.mlp_point(layer) for layer in range(n))]
    probes = [torch.zeros_like(frozen.embedding).requires_grad_() for _ in points]
    hooks: list[tuple[str, Hook]] = [(point, adding(probe)) for point, probe in zip(points, probes, strict=True)]
    final: list[Tensor] = []
    hooks.append((f"blocks.{frozen.shape.n_layers - 1}.hook_resid_post", lambda value, hook: final.append(value)))
    with torch.enable_grad():
        run_with_hooks(frozen.model, frozen.tokens, hooks)
        values = reads @ final_input(frozen, final[0][0, -1].float())
        gradients = [torch.autograd.grad(value, probes, retain_graph=True) for value in values]
    effects = reads.new_zeros(len(reads), system.n_sources)
    for layer, rows in enumerate(zip(*gradients, strict=True), start=-1):
        system.add_effects(effects, layer, torch.stack(rows, 1))
    return effects
