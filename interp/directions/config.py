"""Settings of one direction's layer, strength and measures. Torch-free: the command line inherits them."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from interp.errors import ConfigError
from interp.geometry.points import check_count
from interp.geometry.sweeps import HARMLESS
from interp.interventions.intervention import Action
from interp.nulls import DRAWS, PER_PART
from interp.options import BASIC, Seed, Word

ACTIONS: tuple[Action, ...] = ("add", "set", "ablate")
STRENGTHS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


@dataclass(frozen=True, kw_only=True)
class DirectionConfig:
    """Settings of the report on one direction."""

    targets: tuple[Word, ...] = ()
    """Words whose log-odds measure the effect of steering. Default: for replies and texts their own log-probability,
    else the words that the direction points to, else the tokens that it raises."""
    interventions: bool = True
    """Also steer along it."""
    action: Annotated[Action, BASIC] = "add"
    """What steering does: `add` to the coordinate, `set` it, or `ablate` it at the embedding and after every block."""
    strengths: tuple[float, ...] = STRENGTHS
    """Strengths to try. 1 is the distance between the means of the two sides."""
    layers: int = 6
    """Layers to try, from a sixth to three quarters of the depth, where the direction's hook point is not given."""
    harmless: float = HARMLESS
    """Largest loss on neutral text that may be chosen, in nats per token."""
    n_random: int = PER_PART
    """Random directions as the null of every layer and strength."""
    n_judging: int = DRAWS["thorough"]
    """Random directions as the null of the chosen one; fewer than 19 show no effect."""
    seed: Seed = 0
    """Determines every random number."""

    def __post_init__(self) -> None:
        for name in ("n_random", "n_judging"):
            check_count(name, getattr(self, name), 1, "random directions are the null of steering")
        check_count("layers", self.layers, 1, "a direction is steered at one layer or more")
        if self.action not in ACTIONS:
            raise ConfigError(f"steering can {', '.join(ACTIONS)}, got {self.action!r}")
        if not self.strengths or not all(0 < strength < np.inf for strength in self.strengths):
            raise ConfigError(
                f"strengths are numbers above 0, got {list(self.strengths)}; exchange the two sides to steer away"
            )
