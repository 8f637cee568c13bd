"""BatchTopK: the `k * n` largest latents of a batch of `n` tokens (Bussmann et al. 2024, arXiv 2412.06410).

A batch is needed to select, so afterwards one fixed threshold takes its place: `f = pre * 1[pre > threshold]`, which is
a JumpReLU (its name on disk). The threshold is estimated from data with the finished weights: the mean over batches of
the value that lets `k` latents per token through (the paper takes the mean of the smallest active value, equation 6,
over the course of training, while the weights still move).
"""

from collections.abc import Iterable
from typing import ClassVar, Self, final

import torch
from torch import Tensor, nn

from interp.errors import ConfigError
from saes.config import SAEConfig
from saes.kernels.state import Active, Ops
from saes.kernels.step import Select, choose_ops
from saes.kinds.base import SAE, SAEMetadata, Weights


@final
class BatchTopKSAE(SAE):
    """Features above their threshold, as many as the token needs."""

    architecture: ClassVar[str] = "jumprelu"

    def __init__(self, weights: Weights, *, threshold: Tensor, metadata: SAEMetadata | None = None):
        super().__init__(weights, metadata=metadata)
        if bool((threshold < 0).any()):
            raise ConfigError(f"thresholds must be >= 0, got {float(threshold.min()):g}; activations would be negative")
        self.threshold = nn.Parameter(threshold, requires_grad=False)

    def activate(self, pre: Tensor) -> Tensor:
        return pre.relu() * (pre > self.threshold)

    def select(self, ops: Ops, pre: Tensor) -> Active:
        return ops.select_above(pre, self.threshold)

    @staticmethod
    def training_select(config: SAEConfig) -> Select:
        return lambda ops, pre: ops.select_batch(pre, config.k * len(pre))

    @classmethod
    def from_training(
        cls, config: SAEConfig, weights: Weights, *, metadata: SAEMetadata, batches: Iterable[Tensor]
    ) -> Self:
        sae = cls(weights, threshold=torch.zeros_like(weights.b_enc), metadata=metadata)
        sae.threshold.fill_(sae.estimate_threshold(batches, config.k))
        return sae

    @torch.no_grad()
    def estimate_threshold(self, batches: Iterable[Tensor], k: int) -> float:
        """Mean over `batches [n, d_in]` of the value that lets `k * n` latents through; 0 without batches."""
        found = []
        for x in batches:
            active = choose_ops(x).select_batch(self.pre_activations(x), k * len(x))
            found.append(float(active.values.min()) if len(active.values) else 0.0)
        return sum(found) / max(1, len(found))

    def extra_tensors(self) -> dict[str, Tensor]:
        return {"threshold": self.threshold}
