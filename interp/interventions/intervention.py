"""An intervention as a value: the target, what is done to it, by how much and at which positions. Torch-free.

    Intervention(target=Latent(dictionary="saes/demo", index=540), action="set", amount=0.0)
    Intervention(target=Component(name="L5H1"), action="ablate")
    Intervention(target=Direction(hook_point="blocks.9.hook_resid_post", vector=v, origin="concept months"), amount=2.0)

`interp.interventions.apply` does it in a model; `Recipe` keeps several of them in a file.
"""

import math
import re
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from interp.errors import ConfigError, UnknownNameError
from interp.names import canonical_hook_point

Action = Literal["add", "scale", "set", "ablate", "replace", "exchange"]
"""`add` an amount, `scale` by a factor, `set` to a value, `ablate` (set to 0), `replace` by another run's value,
`exchange` the coordinates along two directions (Gurnee et al. 2026)."""
COMPONENT = re.compile(r"L(\d+)(?:H(\d+)|N(\d+)|(MLP)|(ATTN))")


@dataclass(frozen=True, kw_only=True)
class Latent:
    """A latent of a dictionary. Its value is its activation; a change of it is written along its decoder direction."""

    dictionary: str
    """Key of the dictionary: `saes/demo`, `features/demo` (an SAE's or neurons), or `transcoders/demo`."""
    index: int
    """Number of the latent, from 0."""
    layer: int | None = None
    """Layer that it reads, where the dictionary has latents of several layers."""

    def __post_init__(self) -> None:
        if type(self.index) is not int or not 0 <= self.index < 2**31:
            raise ConfigError(f"a latent is a number from 0, got {self.index!r}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Direction:
    """A vector in the values of a hook point. Its value in a run is the coordinate along it, `x . v / |v|^2`."""

    hook_point: str
    vector: Float[np.ndarray, " d"]
    origin: str
    """What it is and where it comes from, such as `mean difference of months, shapes/smollm2-135m`."""

    def __post_init__(self) -> None:
        canonical_hook_point(self.hook_point)
        if self.vector.ndim != 1 or not np.isfinite(self.vector).all() or not self.vector.any():
            raise ConfigError(f"a direction is a vector of finite numbers, not all 0, got shape {self.vector.shape}")


@dataclass(frozen=True, kw_only=True)
class Component:
    """A head `L5H1` (its z), all heads of a layer `L5ATTN` (the output bias remains), an MLP `L5MLP` (its output), or a
    neuron `L5N123`. Its value is the tensor there."""

    name: str

    def __post_init__(self) -> None:
        if not COMPONENT.fullmatch(self.name):
            raise UnknownNameError("component", self.name, ["L5H1", "L5ATTN", "L5MLP", "L5N123"])


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """One change of what a model computes.

        step = Intervention(target=Latent(dictionary="saes/demo", index=540), action="add", amount=75.0)

    `amount` is a raw activation. Commands, pages and acts take multiples of the feature's largest activation instead:
    `workbench steer demo --feature 540 --amount 1` adds 75, since that is its maximum.
    """

    target: Latent | Direction | Component
    action: Action = "add"
    amount: float = 0.0
    """Raw value to add or to set, as an activation of the latent or a multiple of the direction's vector; for `scale` a
    factor. Unused by `ablate`, `replace` and `exchange`."""
    positions: tuple[int, int | None] | None = None
    """First position, and the one after the last (None: to the end, generated tokens included). None: all but BOS."""
    other: tuple[int, ...] = ()
    """`replace`: token ids of the other run, as many as the prompt has."""
    partner: Direction | None = None
    """`exchange`: the other direction. Both count as unit vectors, and what is orthogonal to both stays."""
    along: Direction | None = None
    """Write the change of a latent, or of an exchange, along this vector instead: a control of the same amounts."""

    def __post_init__(self) -> None:
        if self.action not in get_args(Action):
            raise UnknownNameError("action", str(self.action), get_args(Action))
        if type(self.amount) not in (int, float) or not math.isfinite(self.amount):
            raise ConfigError(f"the amount of an intervention is a finite number, got {self.amount!r}")
        if (self.action == "replace") != bool(self.other):
            raise ConfigError(
                f"`replace` needs the tokens of another run, and no other action does; got {self.action} with "
                f"{len(self.other)} tokens"
            )
        if (self.action == "exchange") != (self.partner is not None):
            raise ConfigError(f"`exchange` needs a second direction, and no other action does; got {self.action}")
        if self.partner is not None:
            self._check_exchange(self.partner)
        elif self.along is not None and not isinstance(self.target, Latent):
            raise ConfigError("only the change of a latent or of an exchange can be written along another direction")
        start, stop = self.positions or (0, None)
        if start < 0 or (stop is not None and stop <= start):
            raise ConfigError(f"positions are [first, after the last), from 0, got {self.positions}")

    def _check_exchange(self, partner: Direction) -> None:
        direction = self.target
        if not isinstance(direction, Direction) or direction.hook_point != partner.hook_point:
            raise ConfigError("coordinates are exchanged between two directions of one hook point")
        if direction.vector.shape != partner.vector.shape:
            raise ConfigError(f"the two directions have {len(direction.vector)} and {len(partner.vector)} numbers")
        lengths = np.linalg.norm(direction.vector) * np.linalg.norm(partner.vector)
        cosine = abs(direction.vector @ partner.vector) / lengths
        if cosine > 1 - 1e-6:
            raise ConfigError("the two directions are parallel, so they have no coordinates of their own")


def everywhere(step: Intervention, n_layers: int) -> list[Intervention]:
    """Return the ablation of a direction at the embedding and after every block (Arditi et al. 2024); else the step."""
    if step.action != "ablate" or not isinstance(step.target, Direction):
        return [step]
    targets = [replace(step.target, hook_point=name) for name in stream_points(n_layers)]
    return [replace(step, target=direction) for direction in targets]


def stream_points(n_layers: int) -> list[str]:
    """Return the hook points of the residual stream: before the first block and after every block."""
    return ["blocks.0.hook_resid_pre", *(f"blocks.{layer}.hook_resid_post" for layer in range(n_layers))]


def at_random(step: Intervention, seed: list[int]) -> Intervention:
    """Return an intervention along a random direction of the same length, at the same hook point."""
    assert isinstance(step.target, Direction)
    vector = random_vector(len(step.target.vector), float(np.linalg.norm(step.target.vector)), seed)
    return replace(step, target=replace(step.target, vector=vector, origin="a random direction"))


def random_vector(d: int, length: float, seed: list[int]) -> np.ndarray:
    """Return a random vector `[d]` of some length, float64."""
    drawn = np.random.default_rng(seed).standard_normal(d)
    return drawn * length / np.linalg.norm(drawn)
