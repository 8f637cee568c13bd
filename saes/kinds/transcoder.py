"""Transcoder: latents of one hook point that predict the value at another, usually an MLP's input and output (Dunefsky
et al. 2024, 2406.11944); `W_skip` adds a linear connection from input to output (Paulo et al. 2025, 2501.18823).

`recons = act(x @ W_enc + b_enc) @ W_dec + b_dec [+ x @ W_skip.T]`. Nothing is subtracted from the input, since `b_dec`
is a value at the target. `metadata.hook_point` is the source, `metadata.hook_point_out` the target.

Training centres the input; `b_enc` absorbs the mean afterwards. The encoder starts from random rows. Each decoder row
starts as the mean of the centred target over those tokens of a first batch on which its latent fires, so that the first
steps need not rotate a random decoder. `W_skip [d_out, d_in]` starts at 0 and learns the linear part: where the target
is almost linear in the source, little remains for latents to explain.
"""

from dataclasses import replace
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saes.kernels.state import Active, Backward, Ops, Pass, Selected, TrainState, entry_rows
from saes.kernels.step import SKIP
from saes.kinds.base import Activation, JumpReLU, OneLayerSAE, ReLU, SAEMetadata, TopK, Trained, TrainingRecipe, Weights
from saes.kinds.config import TranscoderConfig
from saes.kinds.jumprelu import THRESHOLD
from saes.kinds.topk import estimate_threshold


@final
class Transcoder(OneLayerSAE):
    """Latents that read one hook point and write to another. SAELens knows those with ReLU and JumpReLU."""

    subtracts_b_dec: ClassVar[bool] = False

    def __init__(
        self,
        weights: Weights,
        *,
        activation: Activation | None = None,
        W_skip: Float[Tensor, "d_out d_in"] | None = None,
        metadata: SAEMetadata | None = None,
    ):
        """`weights.W_dec [d_sae, d_out]`, `weights.b_dec [d_out]`, `W_skip [d_out, d_in]`; `activation` defaults to
        ReLU.
        """
        super().__init__(weights, activation=activation or ReLU(), metadata=metadata)
        self.W_skip = None if W_skip is None else nn.Parameter(W_skip, requires_grad=False)
        self.architecture = transcoder_architecture(self.activation, skip=W_skip is not None)

    def complete(
        self, recons: Float[Tensor, "*#batch d_out"], x: Float[Tensor, "*#batch d_in"]
    ) -> Float[Tensor, "*#batch d_out"]:
        return recons if self.W_skip is None else recons + x.to(self.W_skip.dtype) @ self.W_skip.T

    def extra_tensors(self) -> dict[str, Tensor]:
        skip = {} if self.W_skip is None else {"W_skip": self.W_skip}
        return {**super().extra_tensors(), **skip}

    def extra_config(self) -> dict[str, object]:
        return {"d_out": self.d_out, **super().extra_config()}


def transcoder_architecture(activation: Activation, *, skip: bool) -> str:
    """Return the name on disk: `transcoder`, `skip_transcoder`, `jumprelu_transcoder`, `topk_skip_transcoder` ..."""
    before = {"standard": ""}.get(activation.architecture, activation.architecture + "_")
    return before + ("skip_transcoder" if skip else "transcoder")


@final
class TranscoderRecipe(TrainingRecipe):
    """Select, penalise and revive latents as the SAE of the same kind does."""

    starts_from_data = True

    def __init__(self, config: TranscoderConfig, inner: TrainingRecipe):
        """`inner` is the recipe of the SAE whose latents it has (`TranscoderConfig.selects`)."""
        self.config, self.inner = config, inner
        self.revives, self.quicker, self.ends = inner.revives, inner.quicker, inner.ends

    def start(
        self, ops: Ops, state: TrainState, x: Float[Tensor, "n d_in"], target: Float[Tensor, "n d_out"] | None
    ) -> None:
        assert target is not None
        if self.inner.starts_from_data:
            inner = replace(state, b_dec=torch.zeros_like(x[0]))  # nothing is subtracted from a transcoder's input
            self.inner.start(ops, inner, x, None)
            state.extra = inner.extra
        pre = torch.addmm(state.b_enc, x, state.W_enc.T)
        active = self.select(ops, state, pre).active
        acts = torch.zeros_like(pre)
        acts[entry_rows(active), active.latents] = active.values
        rows = acts.T @ (target - target.mean(0))
        lengths = rows.norm(dim=1, keepdim=True)
        state.W_dec = torch.where(lengths > 0, rows / lengths.clamp_min(1e-30), state.W_dec)
        if self.config.skip:
            state.extra[SKIP] = torch.zeros(target.shape[1], x.shape[1], dtype=x.dtype)

    def select(self, ops: Ops, state: TrainState, pre: Float[Tensor, "n d_sae"]) -> Selected:
        return self.inner.select(ops, state, pre)

    def backward(self, ops: Ops, step: Pass) -> Backward:
        return self.inner.backward(ops, step)

    def constrain(self, state: TrainState) -> None:
        self.inner.constrain(state)

    def threshold(self, state: TrainState, active: Active) -> float | None:
        return self.inner.threshold(state, active)

    def finish(self, trained: Trained) -> Transcoder:
        weights, skip, scales = trained.weights, None, trained.scales
        if SKIP in trained.own:
            skip = trained.own[SKIP] * (scales.input[None] / scales.output[:, None]).float()
            if scales.shift is not None:
                weights = weights._replace(b_dec=weights.b_dec - skip @ (scales.shift / scales.input).float())
        kind = self.config.selection
        if kind == "gated":
            weights, threshold = ungated(weights, trained)
            activation: Activation = JumpReLU(threshold)
        elif kind == "jumprelu":
            activation = JumpReLU(trained.own[THRESHOLD] / scales.unit)
        elif kind in ("batchtopk", "matryoshka"):
            zero = torch.zeros_like(weights.b_enc)
            bare = Transcoder(weights, activation=JumpReLU(zero))
            activation = JumpReLU(zero + estimate_threshold(bare, trained.batches, self.config.k))
        else:
            activation = TopK(self.config.k) if kind == "topk" else ReLU()
        return Transcoder(weights, activation=activation, W_skip=skip, metadata=trained.metadata)


def ungated(weights: Weights, trained: Trained) -> tuple[Weights, Float[Tensor, " d_sae"]]:
    """Return a gated encoder as an equal JumpReLU: its weights, and thresholds `[d_sae]`.

    Gate and magnitude share the directions. With `m = z exp(r_mag) + b_mag` and `gate = z + b_gate`, the gate is open
    where `m > b_mag - b_gate exp(r_mag)` (Rajamanoharan et al. 2024, section 3.2).
    """
    scales, slope = trained.scales, trained.own["r_mag"].exp()
    shift = torch.zeros_like(weights.b_enc)
    if scales.shift is not None:
        shift = (scales.shift / scales.input).float() @ weights.W_enc  # how far centring the input moves z
    b_mag = trained.own["b_mag"] / scales.unit
    threshold = (b_mag - (weights.b_enc + shift) * slope).clamp_min(0)
    return weights._replace(W_enc=weights.W_enc * slope, b_enc=b_mag - shift * slope), threshold
