"""Transcoder: latents of one hook point that predict the value at another, usually an MLP's input and output (Dunefsky
et al. 2024, 2406.11944); `W_skip` adds a linear connection from input to output (Paulo et al. 2025, 2501.18823).

`recons = act(x @ W_enc + b_enc) @ W_dec + b_dec [+ x @ W_skip.T]`. Nothing is subtracted from the input, since `b_dec`
is a value at the target. `metadata.hook_point` is the source, `metadata.hook_point_out` the target.

Training centres the input; `b_enc` absorbs the mean afterwards. The encoder starts from random rows. Each decoder row
starts as the mean of the centred target over those tokens of a first batch on which its latent fires, so that the first
steps need not rotate a random decoder. `W_skip [d_out, d_in]` starts at 0 and learns the linear part: where the target
is almost linear in the source, little remains for latents to explain.
"""

from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saes.kernels.state import Active, Ops, Selected, TrainState, entry_rows
from saes.kernels.step import SKIP
from saes.kinds.base import SAE, Activation, JumpReLU, ReLU, SAEMetadata, TopK, Weights
from saes.kinds.batchtopk import BatchTopKRecipe, estimate_threshold
from saes.kinds.recipe import Recipe, Trained
from saes.kinds.topk import TopKRecipe
from saes.training.config import TranscoderConfig


@final
class Transcoder(SAE):
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
        super().__init__(weights, metadata=metadata)
        self.activation = activation or ReLU()
        self.W_skip = None if W_skip is None else nn.Parameter(W_skip, requires_grad=False)
        self.architecture = transcoder_architecture(self.activation, skip=W_skip is not None)

    def activate(self, pre: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        return self.activation(pre)

    def select(self, ops: Ops, pre: Float[Tensor, "n d_sae"]) -> Active:
        return self.activation.select(ops, pre)

    def complete(
        self, recons: Float[Tensor, "*#batch d_out"], x: Float[Tensor, "*#batch d_in"]
    ) -> Float[Tensor, "*#batch d_out"]:
        return recons if self.W_skip is None else recons + x.to(self.W_skip.dtype) @ self.W_skip.T

    def extra_tensors(self) -> dict[str, Tensor]:
        skip = {} if self.W_skip is None else {"W_skip": self.W_skip}
        return {**self.activation.tensors(), **skip}

    def extra_config(self) -> dict[str, Any]:
        return {"d_out": self.d_out, **self.activation.settings()}


def transcoder_architecture(activation: Activation, *, skip: bool) -> str:
    """Return the name on disk: `transcoder`, `skip_transcoder`, `jumprelu_transcoder`, `topk_skip_transcoder` ..."""
    before = {"standard": ""}.get(activation.architecture, activation.architecture + "_")
    return before + ("skip_transcoder" if skip else "transcoder")


@final
class TranscoderRecipe(Recipe):
    """Select as TopK or BatchTopK do; dead latents learn from AuxK in the same way."""

    starts_from_data = True

    def __init__(self, config: TranscoderConfig):
        self.config = config
        self.selection = (TopKRecipe if config.selection == "topk" else BatchTopKRecipe)(config)

    def start(
        self, ops: Ops, state: TrainState, x: Float[Tensor, "n d_in"], target: Float[Tensor, "n d_out"] | None
    ) -> None:
        assert target is not None
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
        return self.selection.select(ops, state, pre)

    def threshold(self, state: TrainState, active: Active) -> float | None:
        return self.selection.threshold(state, active)

    def finish(self, trained: Trained) -> Transcoder:
        weights, skip, scales = trained.weights, None, trained.scales
        if SKIP in trained.own:
            skip = trained.own[SKIP] * (scales.input[None] / scales.output[:, None]).float()
            if scales.shift is not None:
                weights = weights._replace(b_dec=weights.b_dec - skip @ (scales.shift / scales.input).float())
        made = {"W_skip": skip, "metadata": trained.metadata}
        if self.config.selection == "topk":
            return Transcoder(weights, activation=TopK(self.config.k), **made)
        zero = JumpReLU(torch.zeros_like(weights.b_enc))
        found = estimate_threshold(Transcoder(weights, activation=zero), trained.batches, self.config.k)
        return Transcoder(weights, activation=JumpReLU(torch.full_like(zero.threshold, found)), **made)
