"""Settings of lenses that are fitted. Torch-free: the command line inherits them."""

from dataclasses import dataclass
from typing import Literal

from interp.errors import ConfigError
from interp.names import lens_hook_points
from interp.options import Seed

Products = Literal["float32", "bfloat16"]
CHECKPOINT = "checkpoint.safetensors"
"""File in a draft from which a fit resumes."""


@dataclass(frozen=True, kw_only=True)
class TunedLensConfig:
    """Settings of the training of a tuned lens."""

    steps: int = 250
    """Tuned lens: training steps."""
    positions: int = 256
    """Tuned lens: tokens per step; time is proportional to steps x positions x layers x vocabulary."""
    contexts: int = 4
    """Tuned lens: contexts per step that the positions are drawn from; the model runs over all of them."""
    lr: float = 1e-3
    """Tuned lens: peak learning rate; it rises over `warmup` steps, then falls linearly to 0."""
    warmup: int = 10
    """Tuned lens: steps over which the learning rate rises."""
    layers: tuple[int, ...] | None = None
    """Layers that get a translator: 0 is the embedding, i the residual stream after block i - 1. Default: all but the
    last, which is read without one."""
    heldout_positions: int = 1024
    """Held-out tokens that measure the lens; the same number decide whether a translator replaces the logit lens."""
    checkpoint_every: int = 25
    """Tuned lens: steps between checkpoints."""
    seed: Seed = 0
    """Determines every random number."""

    def __post_init__(self) -> None:
        counts = (self.steps, self.positions, self.contexts, self.heldout_positions, self.checkpoint_every)
        if min(counts) < 1 or self.warmup < 0 or not self.lr > 0:
            raise ConfigError("steps, positions, contexts, heldout_positions, checkpoint_every and lr must be above 0")

    def hook_points(self, n_layers: int) -> list[str]:
        """Return the hook points that get a translator. Raises `ConfigError` for a layer that cannot have one."""
        return fitted_hook_points(self.layers, n_layers)


@dataclass(frozen=True, kw_only=True)
class JacobianLensConfig:
    """Settings of the fit of a Jacobian lens."""

    rounds: int = 30
    """Jacobian lens: rounds of the fit. One reads `texts` other contexts and measures each row of the Jacobian in one
    of them; SmolLM2 takes half a minute on two cores, where the processor multiplies bfloat16."""
    texts: int = 48
    """Jacobian lens: largest number of contexts in a round, which are in memory together."""
    skip: int = 8
    """Jacobian lens: first positions of a context that are left out, since they are attention sinks."""
    layers: tuple[int, ...] | None = None
    """Layers that are fitted: 0 is the embedding, i the residual stream after block i - 1. Default: all but the last,
    which is read as it is."""
    heldout_positions: int = 1024
    """Held-out tokens that measure the lens."""
    products: Products | None = None
    """Jacobian lens: dtype of products; sums are float32. Default: bfloat16 where the processor is faster in it and the
    model is float32 on a CPU, otherwise the model's own."""
    seed: Seed = 0
    """Determines every random number."""

    def __post_init__(self) -> None:
        if min(self.rounds, self.texts, self.heldout_positions) < 1 or self.skip < 0:
            raise ConfigError("rounds, texts and heldout_positions must be above 0, and skip at least 0")

    def hook_points(self, n_layers: int) -> list[str]:
        """Return the hook points that are fitted. Raises `ConfigError` for a layer that cannot be."""
        return fitted_hook_points(self.layers, n_layers)


def fitted_hook_points(layers: tuple[int, ...] | None, n_layers: int) -> list[str]:
    """Return the hook points of `layers`, by default of all. Raises `ConfigError` for a layer that cannot be fitted."""
    layers = tuple(range(n_layers)) if layers is None else layers
    if not layers or not all(0 <= layer < n_layers for layer in layers):
        raise ConfigError(f"layers to fit are 0 .. {n_layers - 1} (the last is read as it is), got {layers}")
    return [lens_hook_points(n_layers)[layer] for layer in sorted(set(layers))]
