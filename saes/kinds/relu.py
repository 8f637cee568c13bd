"""ReLU with an L1 penalty, the first kind and the baseline (Bricken et al. 2023; Cunningham et al. 2023, 2309.08600).

    loss = FVU + l1_coefficient * mean over tokens of sum_i f_i |W_dec_i| / sqrt(variance)

Decoder rows have norm 1 after every step, so `|W_dec_i|` is 1, and small activations on long rows cannot evade the
penalty. Division by the root of the data's variance makes the coefficient independent of units. The weight rises from 0
over the first steps (`TrainConfig.sparsity_warmup`). L1 shrinks every activation towards 0, large ones included. Dead
latents are not revived: this recipe has no AuxK.
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from saes.kernels.state import Active, Backward, Ops, Pass, Selected, TrainState, whole
from saes.kinds.base import OneLayerSAE, Recipe, ReLU, SAEMetadata, Trained, Weights
from saes.kinds.config import L1Config


@final
class ReLUSAE(OneLayerSAE):
    """Every positive pre-activation is active."""

    architecture = "standard"

    def __init__(self, weights: Weights, *, metadata: SAEMetadata | None = None):
        super().__init__(weights, activation=ReLU(), metadata=metadata)


@final
class ReLURecipe(Recipe):
    """Penalise activations by L1."""

    revives = False

    def __init__(self, config: L1Config):
        self.config = config

    def select(self, ops: Ops, state: TrainState, pre: Float[Tensor, "n d_sae"]) -> Selected:
        return whole(select_positive(ops, pre))

    def backward(self, ops: Ops, step: Pass) -> Backward:
        return l1_backward(self.config.l1_coefficient, step)

    def finish(self, trained: Trained) -> ReLUSAE:
        return ReLUSAE(trained.weights, metadata=trained.metadata)


def select_positive(ops: Ops, pre: Float[Tensor, "n d_sae"]) -> Active:
    """Return every positive entry of `pre [n, d_sae]`."""
    return ops.select_above(pre, torch.zeros(pre.shape[1], dtype=pre.dtype, device=pre.device))


def l1_backward(coefficient: float, step: Pass) -> Backward:
    """Return value and gradient of L1 on the activations."""
    values, weight = step.selected.active.values, l1_weight(coefficient, step)
    return Backward((step.decoded.grad_values + weight) * (values > 0), weight * float(values.double().sum()))


def l1_weight(coefficient: float, step: Pass) -> float:
    """Return the penalty for one unit of one activation of one token."""
    return coefficient * step.warmth / (step.n * step.variance**0.5)
