"""Settings of one direction's layer, strength and measures. Torch-free: the command line inherits them."""

import re
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


def check_rule(rule: str) -> None:
    """Raise `ConfigError` for a rule that is not a regular expression."""
    try:
        re.compile(rule)
    except re.error as error:
        raise ConfigError(f"the rule {rule!r} is not a regular expression: {error}") from None


@dataclass(frozen=True, kw_only=True)
class DirectionConfig:
    """Settings of the report on one direction."""

    targets: tuple[Word, ...] = ()
    """Words whose log-odds measure the effect of steering. Default: for replies and texts their own log-probability,
    else the words that the direction points to, else the tokens that it raises."""
    rule: str | None = None
    """A regular expression. The effect is then the share of sampled continuations in which it is found, instead of a
    log-probability: slower, as text has to be written in every cell."""
    n_samples: int = 2
    """Samples of each prompt, for a rule or a judge."""
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
    n_random: int | None = None
    """Random directions as the null of every layer and strength. Default: 9, 5 with a rule."""
    n_judging: int | None = None
    """Random directions as the null of the chosen one. Default: 99, 19 with a rule; fewer than 19 show no effect."""
    seed: Seed = 0
    """Determines every random number."""

    def __post_init__(self) -> None:
        check_rule(self.rule or "")
        for name, count in zip(("n_random", "n_judging"), self.nulls, strict=True):
            check_count(name, count, 1, "random directions are the null of steering")
        check_count("n_samples", self.n_samples, 1, "a share needs a sample of each prompt")
        check_count("layers", self.layers, 1, "a direction is steered at one layer or more")
        if self.action not in ACTIONS:
            raise ConfigError(f"steering can {', '.join(ACTIONS)}, got {self.action!r}")
        if not self.strengths or not all(0 < strength < np.inf for strength in self.strengths):
            raise ConfigError(
                f"strengths are numbers above 0, got {list(self.strengths)}; exchange the two sides to steer away"
            )

    @property
    def nulls(self) -> tuple[int, int]:
        """Numbers of random directions for every cell, and for the chosen one."""
        default = (PER_PART, DRAWS["thorough"]) if self.rule is None else (DRAWS["quick"], DRAWS["standard"])
        counts = (self.n_random, self.n_judging)
        return counts[0] if counts[0] is not None else default[0], counts[1] if counts[1] is not None else default[1]
