"""Kinds with an L1 penalty: ReLU and Gated.

**ReLU**, the first kind and the baseline (Bricken et al. 2023; Cunningham et al. 2023, 2309.08600).

    loss = FVU + l1_coefficient * mean over tokens of sum_i f_i |W_dec_i| / sqrt(variance)

Decoder rows have norm 1 after every step, so `|W_dec_i|` is 1, and small activations on long rows cannot evade the
penalty. Division by the root of the data's variance makes the coefficient independent of units. The weight rises from 0
over the first steps (`TrainConfig.sparsity_warmup`). L1 shrinks every activation towards 0, large ones included. Dead
latents are not revived: this recipe has no AuxK.

**Gated**: one path decides whether a latent fires, another how strongly (Rajamanoharan et al. 2024, 2404.16014).

    z = (x - b_dec) @ W_enc          gate = z + b_gate          magnitude = relu(z * exp(r_mag) + b_mag)
    f = 1[gate > 0] * magnitude

    loss = FVU + l1_coefficient * mean sum relu(gate) / sqrt(variance) + FVU of relu(gate) through the frozen decoder

L1 acts on the gate alone, so magnitudes are not shrunk. The gate is a step function with zero gradient; the last term
supplies one: the ReLU of the gate must reconstruct the input too, with `W_dec` and the added `b_dec` held fixed
(equation 8). Decoder rows have norm 1.
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saes.kernels.state import Active, Backward, Ops, Pass, Selected, TrainState, sum_by_latent, whole
from saes.kinds.base import OneLayerSAE, ReLU, SAEMetadata, Trained, TrainingRecipe, Weights
from saes.kinds.config import L1Config


@final
class ReLUSAE(OneLayerSAE):
    """Every positive pre-activation is active."""

    architecture = "standard"

    def __init__(self, weights: Weights, *, metadata: SAEMetadata | None = None):
        super().__init__(weights, activation=ReLU(), metadata=metadata)


@final
class ReLURecipe(TrainingRecipe):
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


@final
class GatedSAE(OneLayerSAE):
    """`b_enc` is the gate's bias (`b_gate` on disk)."""

    architecture = "gated"

    def __init__(
        self,
        weights: Weights,
        *,
        r_mag: Float[Tensor, " d_sae"],
        b_mag: Float[Tensor, " d_sae"],
        metadata: SAEMetadata | None = None,
    ):
        super().__init__(weights, metadata=metadata)
        self.r_mag = nn.Parameter(r_mag, requires_grad=False)
        self.b_mag = nn.Parameter(b_mag, requires_grad=False)

    def activate(self, pre: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        return (pre > 0) * _magnitude(pre, self.b_enc, self.r_mag, self.b_mag)

    def select(self, ops: Ops, pre: Float[Tensor, "n d_sae"]) -> Active:
        gate = select_positive(ops, pre)
        params = (self.b_enc[gate.latents], self.r_mag[gate.latents], self.b_mag[gate.latents])
        return gate._replace(values=_magnitude(gate.values, *params))

    def saved_tensors(self) -> dict[str, Tensor]:
        named = super().saved_tensors()
        return {"b_gate": named.pop("b_enc"), **named}

    def extra_tensors(self) -> dict[str, Tensor]:
        return {"r_mag": self.r_mag, "b_mag": self.b_mag}

    def extra_config(self) -> dict[str, object]:
        return {}


@final
class GatedRecipe(TrainingRecipe):
    """The state's `b_enc` is `b_gate`; `r_mag` and `b_mag` are its own."""

    revives = False

    starts_from_data = True

    def __init__(self, config: L1Config):
        self.config = config

    def start(
        self, ops: Ops, state: TrainState, x: Float[Tensor, "n d_in"], target: Float[Tensor, "n d_out"] | None
    ) -> None:
        state.extra = {name: torch.zeros_like(state.b_enc) for name in ("r_mag", "b_mag")}

    def select(self, ops: Ops, state: TrainState, pre: Float[Tensor, "n d_sae"]) -> Selected:
        gate, params = select_positive(ops, pre), (state.b_enc, state.extra["r_mag"], state.extra["b_mag"])
        return Selected(gate._replace(values=_magnitude(gate.values, *(t[gate.latents] for t in params))), gate.values)

    def backward(self, ops: Ops, step: Pass) -> Backward:
        (active, gate), state = step.selected, step.state
        b_gate, weight = state.b_enc, l1_weight(self.config.l1_coefficient, step)
        to_magnitude = step.decoded.grad_values * (active.values > 0)  # a copy: `decode` below reuses its buffers
        to_raw = to_magnitude * state.extra["r_mag"].exp()[active.latents]
        kept = step.decoded.grad.clone(), step.decoded.squared.clone()
        frozen = ops.decode(step.target, state.W_dec, active._replace(values=gate), step.scale)
        to_gate = frozen.grad_values + weight
        auxiliary = float(frozen.squared.double().sum()) * step.scale / 2
        step.decoded.grad.copy_(kept[0])
        step.decoded.squared.copy_(kept[1])
        extra = {
            "r_mag": sum_by_latent(active, to_raw * (gate - b_gate[active.latents]), b_gate),
            "b_mag": sum_by_latent(active, to_magnitude, b_gate),
            "b_enc": sum_by_latent(active, to_gate, b_gate),
        }
        return Backward(to_raw + to_gate, auxiliary + weight * float(gate.double().sum()), extra)

    def finish(self, trained: Trained) -> GatedSAE:
        b_mag = trained.own["b_mag"] / trained.scales.unit
        return GatedSAE(trained.weights, r_mag=trained.own["r_mag"], b_mag=b_mag, metadata=trained.metadata)


def _magnitude(
    gate: Float[Tensor, "*#batch n"],
    b_gate: Float[Tensor, " n"],
    r_mag: Float[Tensor, " n"],
    b_mag: Float[Tensor, " n"],
) -> Float[Tensor, "*#batch n"]:
    return ((gate - b_gate) * r_mag.exp() + b_mag).relu()
