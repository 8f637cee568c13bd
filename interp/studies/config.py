"""Settings of grokking and of scaling laws. Torch-free: the command line inherits them."""

from dataclasses import dataclass
from typing import Annotated

from interp.errors import ConfigError
from interp.options import BASIC


@dataclass(frozen=True, kw_only=True)
class ModularConfig:
    """Settings of a small transformer that learns addition modulo a prime."""

    p: int = 37
    """The modulus, a prime."""
    train_fraction: float = 0.75
    """Fraction of the pairs to train on, mirror images together; the others are the test set."""
    d_model: int = 64
    """Width of the residual stream."""
    n_heads: int = 4
    """Attention heads."""
    d_mlp: int = 192
    """Width of the MLP."""
    lr: float = 5e-3
    """Learning rate of AdamW."""
    weight_decay: float = 1.0
    """Weight decay of AdamW. 0 is the control: it memorises and never generalises. At 2 some seeds end with two
    frequencies, which do not explain all of the accuracy."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Betas of AdamW."""
    eps: float = 1e-5
    """Epsilon of AdamW. With 1e-8, steps stay long where gradients vanish, and accuracy collapses repeatedly (Thilak et
    al. 2022, arXiv 2206.04817)."""
    batches: int = 3
    """Batches that the training pairs are divided into, drawn anew in each epoch."""
    epochs: int = 800
    """Largest number of passes over the training pairs."""
    settle: int | None = 140
    """Epochs of training after the last seed has generalised. None: train for all `epochs`."""
    log_every: int = 4
    """Epochs between two measurements."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the weights and of the split; all of them train at once."""

    def __post_init__(self) -> None:
        if not isinstance(self.p, int) or self.p < 5 or any(self.p % factor == 0 for factor in range(2, self.p)):
            raise ConfigError(f"p must be a prime of at least 5, got {self.p}: frequencies of others share components")
        if not 0 < self.train_fraction < 1 or not 0 < round(self.train_fraction * self.p) < self.p:
            raise ConfigError(
                f"train_fraction must leave pairs to train on and to test, got {self.train_fraction} of p {self.p}"
            )
        if min(self.d_model, self.n_heads, self.d_mlp) < 1 or self.d_model % self.n_heads:
            raise ConfigError(
                f"d_model {self.d_model} must be a multiple of n_heads {self.n_heads}, and every size at least 1"
            )
        if len(self.betas) != 2:
            raise ConfigError(f"betas are two numbers, got {len(self.betas)}")
        if (
            min(self.epochs, self.batches, self.log_every, len(self.seeds)) < 1
            or (self.settle or 0) < 0
            or not (self.lr > 0 and self.eps > 0 and self.weight_decay >= 0)
        ):
            raise ConfigError(
                "epochs, batches, log_every, lr, eps must be above 0, weight_decay and settle at least 0; a seed given"
            )


@dataclass(frozen=True, kw_only=True)
class ScalingRecipe:
    """Settings of small language models of several sizes, trained on the same bytes."""

    widths: tuple[int, ...] = (16, 24, 32, 48, 64, 96)
    """Widths of the residual stream, multiples of 8; at least four."""
    n_layers: int = 2
    """Layers of every model."""
    context_length: int = 64
    """Bytes per context."""
    batch_size: int = 64
    """Contexts per step."""
    tokens: Annotated[int, BASIC] = 2_000_000
    """Bytes that each model is trained on, in one pass."""
    n_checkpoints: int = 6
    """Measurements of the loss, from an eighth of the tokens to all of them, evenly spaced in their logarithm."""
    heldout_contexts: int = 256
    """Held-out contexts that measure the loss."""
    lr: float = 8e-3
    """Learning rate at width 16."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of the weights and of the order of the text."""

    def __post_init__(self) -> None:
        if any(width < 8 or width % 8 for width in self.widths):
            raise ConfigError(f"widths must be multiples of 8, got {self.widths}")
        if self.steps < 8 * self.n_checkpoints:
            raise ConfigError(
                f"{self.tokens:,} tokens are {self.steps} steps, too few for {self.n_checkpoints} checkpoints"
            )

    @property
    def steps(self) -> int:
        """Number of optimiser steps of every model."""
        return self.tokens // (self.batch_size * self.context_length)

    @property
    def checkpoints(self) -> list[int]:
        """Steps at which the loss is measured."""
        first, last = self.steps / 8, self.steps
        exponents = [i / (self.n_checkpoints - 1) for i in range(self.n_checkpoints)]
        return [round(first * (last / first) ** each) for each in exponents]

    def n_params(self, width: int) -> int:
        """Return the parameters without embeddings and unembedding: `12 n_layers d_model^2` (Kaplan et al. 2020)."""
        return 12 * self.n_layers * width**2
