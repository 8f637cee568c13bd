"""Settings of a training run, the same for every kind (`saes.kinds.config` has those of the kinds). Torch-free.

`None` means "chosen from the token budget and `d_sae`": `saes.training.schedule` makes these choices.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from interp.errors import ConfigError, UnknownNameError
from interp.options import BASIC, Derived, Seed
from saes.kinds.config import check_setting

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
    """Peak learning rate of Adam. Default: by the size of the dictionary and the length of the run (`schedule`)."""

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
