"""TopK: each token keeps its `k` largest latents (Gao et al. 2024, 2406.04093, equation 3; then ReLU)."""

from collections.abc import Iterable
from typing import Any, ClassVar, Self, final

import torch
from torch import Tensor

from interp.errors import ConfigError
from saes.config import SAEConfig
from saes.kernels.state import Active, Ops
from saes.kernels.step import Select
from saes.kinds.base import SAE, SAEMetadata, Weights


@final
class TopKSAE(SAE):
    """At most `k` features per token (fewer where fewer pre-activations are positive)."""

    architecture: ClassVar[str] = "topk"

    def __init__(self, weights: Weights, *, k: int, metadata: SAEMetadata | None = None):
        super().__init__(weights, metadata=metadata)
        if not 1 <= k <= self.d_sae:
            raise ConfigError(f"k must lie between 1 and d_sae = {self.d_sae}, got {k}")
        self.k = k

    def activate(self, pre: Tensor) -> Tensor:
        values, latents = pre.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(pre).scatter(-1, latents, values.relu())

    def select(self, ops: Ops, pre: Tensor) -> Active:
        return ops.select_topk(pre, self.k)

    @staticmethod
    def training_select(config: SAEConfig) -> Select:
        return lambda ops, pre: ops.select_topk(pre, config.k)

    @classmethod
    def from_training(
        cls, config: SAEConfig, weights: Weights, *, metadata: SAEMetadata, batches: Iterable[Tensor]
    ) -> Self:
        return cls(weights, k=config.k, metadata=metadata)

    def extra_config(self) -> dict[str, Any]:
        return {"k": self.k, "rescale_acts_by_decoder_norm": False}
