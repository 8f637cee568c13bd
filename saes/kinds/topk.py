"""TopK: the `k` largest latents of each token are active (Gao et al. 2024, 2406.04093, equation 3; then ReLU)."""

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError
from saes.kernels.state import Active, Ops, Selected, TrainState, whole
from saes.kinds.base import SAE, SAEMetadata, Weights
from saes.kinds.recipe import Recipe, Trained
from saes.training.config import KConfig


@final
class TopKSAE(SAE):
    """At most `k` active latents per token (fewer where fewer pre-activations are positive)."""

    architecture = "topk"

    def __init__(self, weights: Weights, *, k: int, metadata: SAEMetadata | None = None):
        super().__init__(weights, metadata=metadata)
        if not 1 <= k <= self.d_sae:
            raise ConfigError(f"k must lie between 1 and d_sae = {self.d_sae}, got {k}")
        self.k = k

    def activate(self, pre: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        values, latents = pre.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(pre).scatter(-1, latents, values.relu())

    def select(self, ops: Ops, pre: Float[Tensor, "n d_sae"]) -> Active:
        return ops.select_topk(pre, self.k)

    def extra_config(self) -> dict[str, Any]:
        return {"k": self.k, "rescale_acts_by_decoder_norm": False}


@final
class TopKRecipe(Recipe):
    """Select exactly `k` latents per token."""

    shares_latents = True

    def __init__(self, config: KConfig):
        self.k = config.k

    def select(self, ops: Ops, state: TrainState, pre: Float[Tensor, "n d_sae"]) -> Selected:
        return whole(ops.select_topk(pre, self.k))

    def finish(self, trained: Trained) -> TopKSAE:
        return TopKSAE(trained.weights, k=self.k, metadata=trained.metadata)
