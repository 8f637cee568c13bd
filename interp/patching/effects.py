"""Effects of interventions as rows of tables. Torch-free."""

from dataclasses import dataclass

from interp.artifacts import Measured


@dataclass(frozen=True, kw_only=True)
class AblationEffect:
    """Change of the loss by ablating a group of components, in nats; above 0 the model got worse."""

    group: str
    kind: str
    """zero, mean or resample."""
    loss_first_half: float
    loss_second_half: float
    low: Measured
    high: Measured
    """95 % interval of the second."""
    n_heads: int
    """Components of the group."""
