"""Crosscoder: one set of latents for several sites at once (Lindsey et al. 2024, "Sparse crosscoders").

A site is a hook point of a model: several layers of one model, or one layer of several models on the same tokens. The
activations of all sites are scaled to mean norm 1 each and concatenated; the crosscoder is an SAE of that vector,
`recons = act((x - b_dec) @ W_enc + b_enc) @ W_dec + b_dec`. A decoder row has one block per site, and the norms of its
blocks sum to 1 (see `saes.kernels.step`): a latent of one site only has norms (1, 0), a shared one (0.5, 0.5).
Sparsity is BatchTopK (Minder et al. 2025, 2504.02922: fewer false "this model only" latents than L1) or L1.

On disk `architecture` is `crosscoder`. The layout is our own, as no other tool has one for any number of sites. The
keys say `places` for sites:

    W_enc [sum d, d_sae], b_enc [d_sae], W_dec [d_sae, sum d], b_dec [sum d]    blocks in the order of `places`
    threshold [d_sae]      f = pre * 1[pre > threshold]; zeros after L1
    scales [n_sites]       the factor that training multiplied each site by
    cfg.json: `places`     [{"recording", "model", "weight_hash", "hook_point", "d"}]

Weights take raw activations; feature activations stay in training units, the only units that the sites share.
"""

from typing import TypedDict, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saes.kernels.state import Active, Backward, Ops, Pass, Selected, TrainState, whole
from saes.kernels.step import block_norms
from saes.kinds.base import JumpReLU, OneLayerSAE, SAEMetadata, Trained, TrainingRecipe, Weights
from saes.kinds.config import CrosscoderConfig
from saes.kinds.l1 import l1_backward, select_positive
from saes.kinds.topk import estimate_threshold, smallest


class CrosscoderSite(TypedDict):
    """One element of `places` in `cfg.json`: a hook point of a recorded model, and its width `d`."""

    recording: str
    model: str
    weight_hash: str
    hook_point: str
    d: int


@final
class CrosscoderSAE(OneLayerSAE):
    """Latents of several sites; `x` is their activations, concatenated."""

    architecture = "crosscoder"

    def __init__(
        self,
        weights: Weights,
        *,
        threshold: Float[Tensor, " d_sae"],
        scales: Float[Tensor, " n_sites"],
        sites: list[CrosscoderSite],
        metadata: SAEMetadata | None = None,
    ):
        """`scales [n_sites]`; `sites` as `places` in `cfg.json`."""
        activation = JumpReLU(threshold)
        super().__init__(weights, activation=activation, metadata=metadata)
        self.threshold = activation.threshold
        self.scales = nn.Parameter(scales, requires_grad=False)
        self.sites = sites
        self.widths = tuple(site["d"] for site in sites)

    @property
    def hook_points(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(site["hook_point"] for site in self.sites))

    def decoder_norms(self) -> Float[Tensor, "d_sae n_sites"]:
        """Return the norm of each site's decoder block, `[d_sae, n_sites]`, in scaled units, so that sites compare.

        Rows sum to 1. 1: the latent writes to that site only; 0: it writes nothing there.
        """
        return block_norms(self.W_dec, self.widths) * self.scales

    def decoder_cosines(self) -> Float[Tensor, "d_sae n_sites n_sites"]:
        """Return the cosines between a latent's decoder blocks at sites of one width, `[d_sae, n_sites, n_sites]`.

        1: the same direction at both sites; 0: orthogonal.
        """
        blocks = torch.stack([nn.functional.normalize(part, dim=1) for part in self.W_dec.split(self.widths, 1)], 1)
        return blocks @ blocks.transpose(1, 2)

    def extra_tensors(self) -> dict[str, Tensor]:
        return {**super().extra_tensors(), "scales": self.scales}

    def extra_config(self) -> dict[str, object]:
        return {"places": self.sites}


@final
class CrosscoderRecipe(TrainingRecipe):
    """BatchTopK or L1, both weighted by the sum of decoder norms, which is 1."""

    starts_from_data = True

    def __init__(self, config: CrosscoderConfig, widths: tuple[int, ...]):
        self.config, self.blocks = config, widths
        self.revives = config.sparsity == "batchtopk"

    def start(
        self, ops: Ops, state: TrainState, x: Float[Tensor, "n d_in"], target: Float[Tensor, "n d_out"] | None
    ) -> None:
        """Start every block at norm 1 in the encoder and `1 / n_sites` in the decoder.

        At sites of one width a latent starts with the same direction everywhere, so that shared latents are found as
        shared.
        """
        first, n = self.blocks[0], len(self.blocks)
        parts = [nn.functional.normalize(part, dim=1) for part in state.W_dec.split(self.blocks, dim=1)]
        parts = [parts[0] if width == first else part for width, part in zip(self.blocks, parts, strict=True)]
        state.W_enc = torch.cat(parts, dim=1)
        state.W_dec = state.W_enc / n

    def select(self, ops: Ops, state: TrainState, pre: Float[Tensor, "n d_sae"]) -> Selected:
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
            sites=[
                CrosscoderSite(
                    recording=site.recording.folder.name,
                    model=site.recording.model,
                    weight_hash=site.recording.weight_hash,
                    hook_point=site.hook_point,
                    d=site.d,
                )
                for site in trained.sites
            ],
            metadata=trained.metadata,
        )
        if self.config.sparsity == "batchtopk":
            sae.threshold.fill_(estimate_threshold(sae, trained.batches, self.config.k))
        return sae
