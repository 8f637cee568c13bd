"""Training a transcoder: latents of one place reconstruct another (the class that is used is in `transcoder.py`).

Training sees the input less its mean, which `b_enc` makes up for afterwards. The encoder starts from random rows; each
decoder row starts as the mean target (less its mean) over the tokens of a first batch on which its latent fires, so
that the first steps need not turn a random decoder round. A skip connection `W_skip [d_out, d_in]` starts at 0 and
learns whatever is linear (Paulo et al. 2025, 2501.18823): where the places are almost linear in each other, it leaves
little for latents to name.
"""

from typing import final

import torch
from torch import Tensor

from saes.config import TranscoderConfig
from saes.kernels.rule import Selected, entry_rows
from saes.kernels.state import Active, Ops, TrainState
from saes.kernels.step import SKIP
from saes.kinds.activations import JumpReLU, TopK
from saes.kinds.batchtopk import BatchTopKRecipe, estimate_threshold
from saes.kinds.recipe import Recipe, Trained
from saes.kinds.topk import TopKRecipe
from saes.kinds.transcoder import Transcoder


@final
class TranscoderRecipe(Recipe):
    """Selects as TopK or BatchTopK do; dead latents learn from AuxK as theirs do."""

    starts_from_data = True

    def __init__(self, config: TranscoderConfig):
        self.config = config
        self.selection = (TopKRecipe if config.selection == "topk" else BatchTopKRecipe)(config)

    def start(self, ops: Ops, state: TrainState, x: Tensor, target: Tensor | None) -> None:
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

    def select(self, ops: Ops, state: TrainState, pre: Tensor) -> Selected:
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
