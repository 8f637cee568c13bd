"""JumpReLU: `f = pre * 1[pre > threshold]`, one learned threshold per latent (Rajamanoharan et al. 2024, 2407.14435).

The step function has zero gradient, so the threshold learns from pre-activations within half a bandwidth of it
(straight-through estimators with a rectangular kernel, equations 11 and 12), taken before the step is applied:

    df/dthreshold      = -(threshold / bandwidth) * 1[|pre - threshold| < bandwidth / 2]
    dL0/dthreshold     = -(1 / bandwidth)         * 1[|pre - threshold| < bandwidth / 2]

The parameter is the threshold itself, not its logarithm: Adam would move a small threshold by only `threshold * lr` a
step. It is float32 whatever the encoder's dtype, and clamped to at least 0 after every step. Pre-activations at or
below 0 never fire and contribute no gradient. Thresholds start at the value that lets `k` latents per token through on
the first batch, and their learning rate is five times that of the weights: activations grow as weights learn, and in a
run of some hundred steps thresholds would lag behind.

Two penalties, with target L0 `k`:

    quadratic   coefficient * (L0 / k - 1)^2            0 at the target, 1 when nothing fires; moves thresholds only
    tanh        coefficient * mean sum tanh(4 f) / k    about L0 / k; pulls small activations to 0 as well
"""

from types import MappingProxyType
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from saes.kernels.state import Active, Backward, Ops, Pass, Selected, TrainState, sum_by_latent
from saes.kinds.base import JumpReLU, OneLayerSAE, SAEMetadata, Trained, TrainingRecipe, Weights
from saes.kinds.config import JumpReLUConfig

TANH_SCALE = 4.0
THRESHOLD = "threshold"


@final
class JumpReLUSAE(OneLayerSAE):
    """Latents above their threshold; their number differs by token."""

    architecture = "jumprelu"

    def __init__(self, weights: Weights, *, threshold: Float[Tensor, " d_sae"], metadata: SAEMetadata | None = None):
        activation = JumpReLU(threshold)
        super().__init__(weights, activation=activation, metadata=metadata)
        self.threshold = activation.threshold


@final
class JumpReLURecipe(TrainingRecipe):
    """Learn thresholds by straight-through estimators."""

    starts_from_data = True
    quicker = MappingProxyType({THRESHOLD: 5.0})

    def __init__(self, config: JumpReLUConfig):
        self.config = config

    def start(
        self, ops: Ops, state: TrainState, x: Float[Tensor, "n d_in"], target: Float[Tensor, "n d_out"] | None
    ) -> None:
        pre = torch.addmm(state.b_enc, x - state.b_dec, state.W_enc.T)
        values, wanted = ops.select_batch(pre, self.config.k * len(x)).values, self.config.k * len(x)
        state.extra[THRESHOLD] = torch.full_like(state.b_enc, float(values.min()) if len(values) == wanted else 0.0)

    def select(self, ops: Ops, state: TrainState, pre: Float[Tensor, "n d_sae"]) -> Selected:
        threshold = state.extra[THRESHOLD]
        near = ops.select_above(pre, (threshold - self.config.bandwidth / 2).clamp_min(0))
        fires = near.values > threshold[near.latents]
        return Selected(near._replace(values=near.values * fires), near.values)

    def backward(self, ops: Ops, step: Pass) -> Backward:
        (active, raw), config = step.selected, self.config
        fires, weight = active.values > 0, config.sparsity_coefficient * step.warmth
        threshold, along = step.state.extra[THRESHOLD], step.decoded.grad_values  # along: dloss/df
        at = threshold[active.latents]
        band = ((raw - at).abs() < config.bandwidth / 2).to(raw.dtype)
        l0 = step.tokens.total(float(fires.sum())) / step.n
        if config.sparsity == "tanh":
            bounded = torch.tanh(TANH_SCALE * active.values)
            penalty = weight * float(bounded.double().sum()) / (step.n * config.k)
            along = along + weight * TANH_SCALE * (1 - bounded.square()) / (step.n * config.k)
            to_l0 = 0.0
        else:
            penalty = weight * (l0 / config.k - 1) ** 2 / step.tokens.world  # of the whole batch: each rank's share
            to_l0 = weight * 2 * (l0 / config.k - 1) / config.k / step.n
        to_threshold = -band * (at * along + to_l0) / config.bandwidth
        return Backward(along * fires, penalty, {THRESHOLD: sum_by_latent(active, to_threshold, threshold)})

    def constrain(self, state: TrainState) -> None:
        state.extra[THRESHOLD].clamp_min_(0)

    def threshold(self, state: TrainState, active: Active) -> float:
        return float(state.extra[THRESHOLD].mean())

    def finish(self, trained: Trained) -> JumpReLUSAE:
        threshold = trained.own[THRESHOLD] / trained.scales.unit
        return JumpReLUSAE(trained.weights, threshold=threshold, metadata=trained.metadata)
