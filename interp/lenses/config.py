"""Settings of a tuned lens. Torch-free: the command line inherits them."""

from dataclasses import dataclass

from interp.errors import ConfigError
from interp.names import lens_hook_points
from interp.options import Seed


@dataclass(frozen=True, kw_only=True)
class TunedLensConfig:
    """Settings of the training of a tuned lens."""

    steps: int = 250
    """Training steps."""
    positions: int = 256
    """Tokens per step; time is proportional to steps x positions x layers x vocabulary."""
    contexts: int = 4
    """Contexts per step that the positions are drawn from; the model runs over all of them."""
    lr: float = 1e-3
    """Peak learning rate; it rises over `warmup` steps, then falls linearly to 0."""
    warmup: int = 10
    """Steps over which the learning rate rises."""
    layers: tuple[int, ...] | None = None
    """Layers that get a translator: 0 is the embedding, i the residual stream after block i - 1. Default: all but the
    last, which is read without one."""
    heldout_positions: int = 1024
    """Held-out tokens that measure the lens, and as many that decide whether a translator replaces the logit lens."""
    checkpoint_every: int = 25
    """Steps between checkpoints."""
    seed: Seed = 0
    """Determines every random number."""

    def __post_init__(self) -> None:
        counts = (self.steps, self.positions, self.contexts, self.heldout_positions, self.checkpoint_every)
        if min(counts) < 1 or self.warmup < 0 or not self.lr > 0:
            raise ConfigError("steps, positions, contexts, heldout_positions, checkpoint_every and lr must be above 0")

    def hook_points(self, n_layers: int) -> list[str]:
        """Return the hook points that get a translator. Raises `ConfigError` for a layer that cannot have one."""
        layers = tuple(range(n_layers)) if self.layers is None else self.layers
        if not layers or not all(0 <= layer < n_layers for layer in layers):
            raise ConfigError(
                f"layers to translate are 0 .. {n_layers - 1} (the last is read without a translator), got {layers}"
            )
        return [lens_hook_points(n_layers)[layer] for layer in sorted(set(layers))]
