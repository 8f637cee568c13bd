"""Crosscoder: one set of latents for several places at once (Lindsey et al. 2024, "Sparse crosscoders").

The activations of the places (layers of a model, or one layer of several models on the same tokens) lie side by side in
one vector, each scaled to a mean norm of its own; then it is an SAE of that vector,
`recons = act((x - b_dec) @ W_enc + b_enc) @ W_dec + b_dec`. A decoder row has one block per place, and the sum of the
lengths of its blocks is 1 (see `saes.kernels.step`): a latent of one place only has lengths (1, 0), a shared one
(0.5, 0.5). Sparsity is BatchTopK (Minder et al. 2025, 2504.02922: fewer false "this model only" latents than L1) or L1.

On disk (our own layout: no other tool has one for any number of places), `architecture` is `crosscoder`:

    W_enc [sum d, d_sae], b_enc [d_sae], W_dec [d_sae, sum d], b_dec [sum d]    blocks in the order of `places`
    threshold [d_sae]      f = pre * 1[pre > threshold]; zeros after L1
    scales [n_places]      what training multiplied each place by
    cfg.json: places       [{"recording", "model", "weight_hash", "hook_point", "d"}]

Weights take raw activations; feature activations stay in the units of training, the one thing the places share.
"""

from typing import Any, final

import torch
from torch import Tensor, nn

from saes.kernels.state import Active, Backward, Ops, Pass, Selected, TrainState, whole
from saes.kernels.step import block_norms
from saes.kinds.base import SAE, SAEMetadata, Weights
from saes.kinds.batchtopk import estimate_threshold, smallest
from saes.kinds.recipe import Recipe, Trained
from saes.kinds.relu import l1_backward, select_positive
from saes.training.config import CrosscoderConfig


@final
class CrosscoderSAE(SAE):
    """Latents of several places; `x` is their activations side by side."""

    architecture = "crosscoder"

    def __init__(
        self,
        weights: Weights,
        *,
        threshold: Tensor,
        scales: Tensor,
        places: list[dict[str, Any]],
        metadata: SAEMetadata | None = None,
    ):
        """`scales [n_places]`; `places` as in `cfg.json`."""
        super().__init__(weights, metadata=metadata)
        self.threshold = nn.Parameter(threshold, requires_grad=False)
        self.scales = nn.Parameter(scales, requires_grad=False)
        self.places = places
        self.widths = tuple(int(place["d"]) for place in places)

    @property
    def hook_points(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(place["hook_point"] for place in self.places))

    def activate(self, pre: Tensor) -> Tensor:
        return pre.relu() * (pre > self.threshold)

    def select(self, ops: Ops, pre: Tensor) -> Active:
        return ops.select_above(pre, self.threshold)

    def decoder_norms(self) -> Tensor:
        """`[d_sae, n_places]`: length of each place's decoder in scaled units, so that places compare. Rows sum to 1: 1
        means the latent writes there only, 0 that it writes nothing there."""
        return block_norms(self.W_dec, self.widths) * self.scales

    def decoder_cosines(self) -> Tensor:
        """`[d_sae, n_places, n_places]`: cosines between a latent's decoders at places of one width. 1: the same
        direction in both."""
        blocks = torch.stack([nn.functional.normalize(part, dim=1) for part in self.W_dec.split(self.widths, 1)], 1)
        return blocks @ blocks.transpose(1, 2)

    def extra_tensors(self) -> dict[str, Tensor]:
        return {"threshold": self.threshold, "scales": self.scales}

    def extra_config(self) -> dict[str, Any]:
        return {"places": self.places}


@final
class CrosscoderRecipe(Recipe):
    """BatchTopK or L1, both weighted by the sum of decoder lengths, which is 1."""

    starts_from_data = True

    def __init__(self, config: CrosscoderConfig, widths: tuple[int, ...]):
        self.config, self.blocks = config, widths
        self.revives = config.sparsity == "batchtopk"

    def start(self, ops: Ops, state: TrainState, x: Tensor, target: Tensor | None) -> None:
        """Every block starts at unit length in the encoder and at `1 / n_places` in the decoder; in places of one width
        a latent starts in one direction, so that what they share is found as shared."""
        first, n = self.blocks[0], len(self.blocks)
        parts = [nn.functional.normalize(part, dim=1) for part in state.W_dec.split(self.blocks, dim=1)]
        parts = [parts[0] if width == first else part for width, part in zip(self.blocks, parts, strict=True)]
        state.W_enc = torch.cat(parts, dim=1)
        state.W_dec = state.W_enc / n

    def select(self, ops: Ops, state: TrainState, pre: Tensor) -> Selected:
        if self.config.sparsity == "l1":
            return whole(select_positive(ops, pre))
        return whole(ops.select_batch(pre, self.config.k * len(pre)))

    def backward(self, ops: Ops, step: Pass) -> Backward:
        if self.config.sparsity == "l1":
            return l1_backward(self.config.l1_coefficient, step)
        return super().backward(ops, step)

    def threshold(self, state: TrainState, active: Active) -> float | None:
        return smallest(active) if self.config.sparsity == "batchtopk" else None

    def finish(self, trained: Trained) -> CrosscoderSAE:
        firsts = torch.tensor([0, *self.blocks[:-1]]).cumsum(0)
        sae = CrosscoderSAE(
            trained.weights,
            threshold=torch.zeros_like(trained.weights.b_enc),
            scales=trained.scales.input[firsts].float(),
            places=[
                {
                    "recording": place.recording.folder.name,
                    "model": place.recording.model,
                    "weight_hash": place.recording.weight_hash,
                    "hook_point": place.hook_point,
                    "d": place.d,
                }
                for place in trained.places
            ],
            metadata=trained.metadata,
        )
        if self.config.sparsity == "batchtopk":
            sae.threshold.fill_(estimate_threshold(sae, trained.batches, self.config.k))
        return sae
