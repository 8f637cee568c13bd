"""Settings of a training run, the same for every kind (`saes.kinds.config` has those of the kinds). Torch-free.

`None` means "chosen from the token budget and `d_sae`"; `plan` makes these choices and prints them.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from interp.errors import ConfigError, UnknownNameError
from interp.options import BASIC, Derived, Seed
from saes.kinds.config import check_setting

MIN_STEPS = 250
"""Below this many steps an SAE does not converge at any learning rate: shrink the batch first."""
Null = Literal["none", "frozen-decoder", "frozen-encoder", "shuffled"]
NULLS: tuple[Null, ...] = ("frozen-decoder", "frozen-encoder", "shuffled")
"""What a null dictionary lacks: a half that learned, or rows with structure between their coordinates."""
DENSE = 0.1
"""A latent that fires on more than this fraction of tokens counts as dense."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a training run, the same for every kind."""

    tokens: Annotated[int, BASIC] = 1_100_000
    """Tokens to train on. Each token of the recording is seen once per epoch; epochs repeat until the budget is spent.
    """

    batch_size: int | None = None
    """Tokens per step. Default: 4,096, halved until the run has at least 250 steps (not below 256)."""

    lr: float | None = None
    """Peak learning rate of Adam. Default: by the size of the dictionary and the length of the run (`choose_lr`)."""

    warmup_steps: int = 20
    """Steps of linear warm-up from 0, at most a tenth of the run."""

    decay_fraction: Derived[float] = 0.2
    """Share of the run, at its end, over which the learning rate falls linearly to 0."""

    aux_coefficient: Derived[float] = 1 / 32
    """Weight of the AuxK loss, by which dead latents learn to predict the reconstruction error; 0: no AuxK."""

    k_aux: Derived[int | None] = None
    """Dead latents used per token in AuxK. Default: the power of two nearest d_in / 2 (Gao et al. 2024, A.2)."""

    dead_window: Derived[int | None] = None
    """A latent is dead when it has not fired for this many tokens. Default: a tenth of the run, at most 10 million."""

    sparsity_warmup: Derived[float] = 0.05
    """Share of the run, at its start, over which a sparsity penalty (JumpReLU, ReLU, Gated) rises to its full weight.
    """

    clip_norm: Derived[float] = 1.0
    """Maximum norm of the gradient of all parameters together; longer ones are rescaled to it."""

    heldout_fraction: float = 0.1
    """Share of documents held out from training, for the final evaluation."""

    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the dense encoder product. bfloat16 is faster on machines with native bfloat16 products."""

    checkpoint_every: int = 200
    """Steps between checkpoints."""

    log_every: int = 10
    """Steps between health lines."""

    seed: Seed = 0
    """Seed of the initial weights and of the order of tokens."""

    null: Null = "none"
    """Train a null dictionary: frozen-decoder and frozen-encoder leave that half as drawn at random (Korznikov et al.
    2026, arXiv 2602.14111); shuffled learns from rows whose coordinates come from different tokens of the batch."""

    def __post_init__(self) -> None:
        check_setting(self.tokens >= 1, "tokens", "at least 1", self.tokens)
        check_setting(self.batch_size is None or self.batch_size >= 1, "batch_size", "at least 1", self.batch_size)
        check_setting(self.lr is None or 0 < self.lr < 1, "lr", "between 0 and 1", self.lr)
        check_setting(self.warmup_steps >= 0, "warmup_steps", "at least 0", self.warmup_steps)
        check_setting(0 <= self.decay_fraction <= 1, "decay_fraction", "between 0 and 1", self.decay_fraction)
        check_setting(self.aux_coefficient >= 0, "aux_coefficient", "at least 0", self.aux_coefficient)
        check_setting(self.k_aux is None or self.k_aux >= 1, "k_aux", "at least 1", self.k_aux)
        check_setting(0 <= self.sparsity_warmup <= 1, "sparsity_warmup", "between 0 and 1", self.sparsity_warmup)
        check_setting(self.clip_norm > 0, "clip_norm", "above 0", self.clip_norm)
        check_setting(0 < self.heldout_fraction < 1, "heldout_fraction", "between 0 and 1", self.heldout_fraction)
        check_setting(self.checkpoint_every >= 1, "checkpoint_every", "at least 1", self.checkpoint_every)
        check_setting(self.log_every >= 1, "log_every", "at least 1", self.log_every)
        if self.encoder_dtype not in ("float32", "bfloat16"):
            raise UnknownNameError("encoder dtype", self.encoder_dtype, ["float32", "bfloat16"])
        if self.dead_window is not None and not 1 <= self.dead_window < self.tokens:
            raise ConfigError(
                f"dead_window must be shorter than the run of {self.tokens:,} tokens, got {self.dead_window:,}; "
                "a longer one could never find a dead latent: leave it out to have it chosen"
            )


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
