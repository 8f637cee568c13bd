"""The schedule of a training run: steps, batch, and the learning rate with its warm-up and decay. Torch-free."""

import math
from dataclasses import dataclass

from interp.errors import ConfigError
from saes.training.config import TrainConfig

MIN_STEPS = 250
"""Below this many steps an SAE does not converge at any learning rate: shrink the batch first."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """A `TrainConfig` with every default resolved."""

    n_steps: int
    batch_size: int
    lr: float
    warmup_steps: int
    decay_start: int
    """First step of the decay."""
    k_aux: int
    dead_window: int
    sparsity_warmup_steps: int

    def lr_at(self, step: int) -> float:
        """Return the learning rate of step `step` (from 0): linear warm-up, constant, linear decay to almost 0."""
        up = (step + 1) / (self.warmup_steps + 1)
        down = (self.n_steps - step) / (self.n_steps - self.decay_start + 1)
        return self.lr * min(1.0, up, down)

    def __str__(self) -> str:
        return (
            f"{self.n_steps:,} steps of {self.batch_size:,} tokens, learning rate {self.lr:.1e} "
            f"({self.warmup_steps} steps up, down from {self.decay_start:,}), dead after {self.dead_window:,} tokens"
        )


def plan(train: TrainConfig, *, d_in: int, d_sae: int) -> TrainingPlan:
    """Resolve every number of a run from the token budget and the sizes.

    Raises `ConfigError` when the budget is less than one batch.
    """
    batch = train.batch_size or choose_batch(train.tokens)
    n_steps = train.tokens // batch
    if n_steps < 1:
        raise ConfigError(
            f"a run of {train.tokens:,} tokens has no batch of {batch:,}; raise tokens or lower batch_size"
        )
    return TrainingPlan(
        n_steps=n_steps,
        batch_size=batch,
        lr=train.lr or choose_lr(n_steps, d_sae),
        warmup_steps=min(train.warmup_steps, n_steps // 10),
        decay_start=n_steps - round(train.decay_fraction * n_steps),
        k_aux=min(train.k_aux or 2 ** round(math.log2(max(2, d_in / 2))), d_sae),
        dead_window=train.dead_window or max(1, min(10_000_000, train.tokens // 10)),
        sparsity_warmup_steps=round(train.sparsity_warmup * n_steps),
    )


def choose_batch(tokens: int) -> int:
    """Return 4,096, halved until the run has `MIN_STEPS` steps; never below 256."""
    batch = 4096
    while batch > 256 and tokens // batch < MIN_STEPS:
        batch //= 2
    return batch


def choose_lr(n_steps: int, d_sae: int) -> float:
    """Return `2e-4 * sqrt(2^14 / d_sae)` (Gao et al. 2024, figure 3), raised for runs of fewer than 10,000 steps.

    With unit-norm decoder rows Adam rotates a direction by about `lr` a step, so the angle that it can cover grows as
    `lr * sqrt(n_steps)`. Below 10,000 steps the rate is multiplied by `sqrt(10_000 / n_steps)`, at most 8.
    """
    return 2e-4 * math.sqrt(2**14 / d_sae) * min(8.0, max(1.0, math.sqrt(10_000 / n_steps)))
