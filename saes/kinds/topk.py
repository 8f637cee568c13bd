"""TopK and BatchTopK. TopK: the `k` largest latents of each token are active (Gao et al. 2024, 2406.04093, equation 3;
then ReLU).

BatchTopK: the `k * n` largest latents of a batch of `n` tokens (Bussmann et al. 2024, arXiv 2412.06410).

Selection needs a batch. After training one fixed threshold replaces it: `f = pre * 1[pre > threshold]`, a JumpReLU (and
saved as one). The threshold is estimated from data with the finished weights, as the mean over batches of the value
that lets `k` latents per token through. (The paper averages the smallest active value, equation 6, during training,
while the weights still move.)

Matryoshka BatchTopK has nested dictionaries in one (Bussmann et al. 2025, arXiv 2503.17547). Latents are selected in
the same way, over the whole dictionary. Each prefix of it (the first `m_1`, the first `m_2`, ... all of them) must then
reconstruct the input with its own active latents. Early latents therefore retain the general features that later ones
would otherwise absorb. The loss is the MEAN over prefixes of their FVU, as in dictionary_learning; SAELens and the
paper take the sum. The two agree up to a factor, and with the mean the weight of AuxK and gradient clipping are those
of other kinds. AuxK works on the error of the full dictionary.

A step makes one pass over the active latents whatever the number of prefixes: a row's entries are sorted by latent, so
each prefix's reconstruction continues the one before. Narrow inner prefixes make latents mix features that a wider one
would separate ("feature hedging", 2505.11756): choose the first prefix above the L0. The trained dictionary is one
JumpReLU over all latents.
"""

from collections.abc import Iterable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError
from saes.kernels.state import Active, Ops, Selected, TrainState, whole
from saes.kernels.step import choose_ops
from saes.kinds.base import OneLayerSAE, SAEMetadata, TopK, Trained, TrainingRecipe, Weights
from saes.kinds.config import KConfig, MatryoshkaConfig
from saes.kinds.jumprelu import JumpReLUSAE


@final
class TopKSAE(OneLayerSAE):
    """At most `k` active latents per token (fewer where fewer pre-activations are positive)."""

    architecture = "topk"

    def __init__(self, weights: Weights, *, k: int, metadata: SAEMetadata | None = None):
        super().__init__(weights, activation=TopK(k), metadata=metadata)
        if k > self.d_sae:
            raise ConfigError(f"k must lie between 1 and d_sae = {self.d_sae}, got {k}")
        self.k = k


@final
class TopKRecipe(TrainingRecipe):
    """Select exactly `k` latents per token."""

    shares_latents = True

    def __init__(self, config: KConfig):
        self.k = config.k

    def select(self, ops: Ops, state: TrainState, pre: Float[Tensor, "n d_sae"]) -> Selected:
        return whole(ops.select_topk(pre, self.k))

    def finish(self, trained: Trained) -> TopKSAE:
        return TopKSAE(trained.weights, k=self.k, metadata=trained.metadata)


@final
class BatchTopKRecipe(TrainingRecipe):
    """`k` latents per token on average; `ends`, where given, are nested prefixes."""

    def __init__(self, config: KConfig, *, ends: tuple[int, ...] = ()):
        self.k, self.ends, self.shares_latents = config.k, ends, not ends

    def select(self, ops: Ops, state: TrainState, pre: Float[Tensor, "n d_sae"]) -> Selected:
        return whole(ops.select_batch(pre, self.k * len(pre)))

    def threshold(self, state: TrainState, active: Active) -> float:
        return smallest(active)

    def finish(self, trained: Trained) -> JumpReLUSAE:
        sae = JumpReLUSAE(trained.weights, threshold=torch.zeros_like(trained.weights.b_enc), metadata=trained.metadata)
        sae.threshold.fill_(estimate_threshold(sae, trained.batches, self.k))
        return sae


def matryoshka_recipe(config: MatryoshkaConfig) -> BatchTopKRecipe:
    """Return the recipe of BatchTopK with nested prefixes."""
    return BatchTopKRecipe(config, ends=prefix_ends(config))


def prefix_ends(config: MatryoshkaConfig) -> tuple[int, ...]:
    """Return the ends of the prefixes, rising; the last is `d_sae`."""
    ends = {max(1, round(share * config.d_sae)) for share in config.prefixes}
    return tuple(sorted({*ends, config.d_sae}))


@torch.no_grad()
def estimate_threshold(sae: OneLayerSAE, batches: Iterable[Float[Tensor, "_ d_in"]], k: int) -> float:
    """Return the mean over `batches [n, d_in]` of the value that lets `k * n` latents through; 0 without batches."""
    levels = [smallest(choose_ops(x).select_batch(sae.pre_activations(x), k * len(x))) for x in batches]
    return sum(levels) / max(1, len(levels))


def smallest(active: Active) -> float:
    """Return the smallest active value; 0 when nothing is active."""
    return float(active.values.min()) if len(active.values) else 0.0
