"""Activation functions as values, for kinds that come with any of them (transcoders, SAEs of normalised tokens)."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from interp.errors import ConfigError
from saes.kernels.state import Active, Ops


class Activation(nn.Module, ABC):
    """Pre-activations `[..., d_sae]` to feature activations `>= 0` of the same shape."""

    architecture: ClassVar[str]
    """what SAELens calls an autoencoder with it"""

    @abstractmethod
    def forward(self, pre: Tensor) -> Tensor:
        """`[..., d_sae]` to the same shape."""

    @abstractmethod
    def select(self, ops: Ops, pre: Tensor) -> Active:
        """The same for `pre [n, d_sae]`, active latents only."""

    def tensors(self) -> dict[str, Tensor]:
        """What it needs on disk as tensors."""
        return {}

    def settings(self) -> dict[str, Any]:
        """What it needs in `cfg.json`."""
        return {}


@final
class ReLU(Activation):
    """`f = max(pre, 0)`."""

    architecture: ClassVar[str] = "standard"

    def forward(self, pre: Tensor) -> Tensor:
        return pre.relu()

    def select(self, ops: Ops, pre: Tensor) -> Active:
        return ops.select_above(pre, pre.new_zeros(pre.shape[-1]))


@final
class TopK(Activation):
    """The `k` largest of each token, where positive."""

    architecture: ClassVar[str] = "topk"

    def __init__(self, k: int):
        super().__init__()
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}")
        self.k = k

    def forward(self, pre: Tensor) -> Tensor:
        values, latents = pre.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(pre).scatter(-1, latents, values.relu())

    def select(self, ops: Ops, pre: Tensor) -> Active:
        return ops.select_topk(pre, self.k)

    def settings(self) -> dict[str, Any]:
        return {"k": self.k, "rescale_acts_by_decoder_norm": False}


@final
class JumpReLU(Activation):
    """`f = pre * 1[pre > threshold]`, thresholds `[d_sae] >= 0`."""

    architecture: ClassVar[str] = "jumprelu"

    def __init__(self, threshold: Tensor):
        super().__init__()
        if bool((threshold < 0).any()):
            raise ConfigError(f"thresholds must be >= 0, got {float(threshold.min()):g}; activations would be negative")
        self.threshold = nn.Parameter(threshold, requires_grad=False)

    def forward(self, pre: Tensor) -> Tensor:
        return pre.relu() * (pre > self.threshold)

    def select(self, ops: Ops, pre: Tensor) -> Active:
        return ops.select_above(pre, self.threshold)

    def tensors(self) -> dict[str, Tensor]:
        return {"threshold": self.threshold}
