"""Layer and strength of a direction: tried on one half of the questions, judged on the other half.

Torch-free; `interp.directions.choosing` measures it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from interp.errors import ConfigError
from interp.geometry.points import GeometryResult
from interp.geometry.sweeps import HARMLESS
from interp.interventions.intervention import Action
from interp.nulls import ALPHA, p_from_null
from interp.results import Record
from interp.statistics import Interval

RULE = "the largest effect beyond the mean of random directions, at a cost of at most {harmless:g} nats a token"
"""How the cell is chosen, before the other half is read."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Continuations of one prompt."""

    prompt: str
    plain: str
    steered: str
    random: str
    """steered by the same length along a random direction"""


@dataclass(frozen=True, kw_only=True)
class Damage:
    """Text that the model writes when it is steered, against the text that it writes unsteered."""

    repetition: float
    """share of three tokens in a row that occurred before in the same continuation: 0 to 1"""
    surprise: float
    """nats per token of the continuations, judged by the unsteered model"""


@dataclass(frozen=True, kw_only=True)
class JudgedCell:
    """Held-out evaluation of the chosen layer and strength."""

    effect: Interval[float]
    damage: Interval[float]
    """nats of loss per token on neutral text; above 0 is harm"""
    wrong: float
    """share of questions that moved the wrong way (anti-steering): 0 to 1"""
    random_effect: Float64[np.ndarray, " n_random"]
    random_damage: Float64[np.ndarray, " n_damaged"]
    """the same for random directions of the same length (the damage of the first of them)"""
    placebo_effect: Float64[np.ndarray, " n_placebo"]
    """the same along decoder directions of a dictionary, drawn at random; empty without one at this hook point"""
    n_questions: int
    samples: tuple[Sample, ...]
    plain: Damage
    steered: Damage
    random: Damage
    """of all samples"""

    @property
    def p(self) -> float:
        """Share of random directions with as large an effect."""
        return p_from_null(self.effect.estimate, self.random_effect)

    @property
    def works(self) -> bool:
        """True if its interval lies above 0, and the effect above that of every random direction and placebo.

        Fewer than 19 random directions cannot show that: p has to reach 0.05, too. The interval is over questions,
        which the directions share: it is no uncertainty of their order.
        """
        others = max([*self.random_effect, *self.placebo_effect])
        return bool(self.effect.low > 0 and self.effect.estimate > others and self.p <= ALPHA)


@dataclass(frozen=True, kw_only=True)
class SteeringChoice(GeometryResult):
    """Effects by layer and strength on the choosing half, the chosen cell, and its judgement on the other half."""

    action: Action
    question: str
    """the question, in words"""
    measured_in: str
    """unit of the effect"""
    hook_points: tuple[str, ...]
    strengths: tuple[float, ...]
    """in units of `units`; for `ablate` the one 1"""
    units: tuple[float, ...]
    """length of strength 1 at each hook point, in units of the activations"""
    effect: Float64[np.ndarray, "layers strengths"]
    """mean over the choosing questions, in the wanted direction"""
    damage: Float64[np.ndarray, "layers strengths"]
    """nats of loss per token on neutral text"""
    wrong: Float64[np.ndarray, "layers strengths"]
    """share of questions that moved the wrong way"""
    random_effect: Float64[np.ndarray, "layers strengths n_random"]
    """of random directions of the same length; NaN where the damage or an effect below 0 rules the cell out"""
    harmless: float
    """largest damage that may be chosen"""
    chosen: tuple[int, int] | None
    """layer and strength by number; None where no cell is harmless and better than random directions"""
    judged: JudgedCell | None
    n_questions: int
    """questions that chose"""
    seed: int

    @property
    def rule(self) -> str:
        """Rule by which the cell was chosen, in words."""
        return RULE.format(harmless=self.harmless)

    @property
    def layer(self) -> int:
        """Number of the chosen hook point; where none was chosen, of the one with the largest effect."""
        if self.chosen is not None:
            return self.chosen[0]
        return int(self.effect.max(1).argmax())

    @property
    def hook_point(self) -> str | None:
        """Hook point of the chosen cell."""
        return None if self.chosen is None else self.hook_points[self.chosen[0]]

    @property
    def strength(self) -> float | None:
        """Strength of the chosen cell."""
        return None if self.chosen is None else self.strengths[self.chosen[1]]

    @property
    def amount(self) -> float | None:
        """Length that is added at the chosen cell, in units of the activations."""
        return None if self.chosen is None else self.strengths[self.chosen[1]] * self.units[self.chosen[0]]

    @property
    def works(self) -> bool:
        """True if the chosen cell has an effect on the other half that no random direction and no placebo has."""
        return self.judged is not None and self.judged.works

    def sentence(self) -> str:
        if self.judged is None or self.chosen is None:
            return (
                f"no layer and strength was chosen: none of {self.effect.size} does more than random directions for at "
                f"most {self.harmless:g} nats a token"
            )
        (effect, low, high), harm = self.judged.effect, self.judged.damage.estimate
        random = self.judged.random_effect
        return (
            f"{self.action} at {self.hook_point}, strength {self.strength:g} ({self.amount:.3g} long), chosen on "
            f"{self.n_questions} questions: on {self.judged.n_questions} others {effect:+.2f} {self.measured_in} "
            f"[{low:+.2f}, {high:+.2f}] ({self.question}) for {harm:+.3f} nats of loss on neutral text; "
            f"{self.judged.wrong:.0%} of them moved the wrong way; {len(random)} random directions "
            f"{random.mean():+.2f}, at most {random.max():+.2f}"
        )

    def to_records(self) -> list[Record]:
        """Return one row per layer and strength: effect, its null, damage, and the share that moved the wrong way."""
        return [
            {"hook_point": point, "strength": strength, "effect": float(self.effect[i, j]),
             "random": float(self.random_effect[i, j].mean()), "random_high": float(self.random_effect[i, j].max()),
             "damage": float(self.damage[i, j]), "wrong": float(self.wrong[i, j])}
            for i, point in enumerate(self.hook_points) for j, strength in enumerate(self.strengths)
        ]  # fmt: skip


def chosen_cell(
    effect: Float64[np.ndarray, "layers strengths"],
    damage: Float64[np.ndarray, "layers strengths"],
    random_effect: Float64[np.ndarray, "layers strengths n_random"],
    harmless: float = HARMLESS,
) -> tuple[int, int] | None:
    """Return the cell that `RULE` chooses, by number; None where nothing harmless exceeds all random directions."""
    if random_effect.shape[2] < 1:
        raise ConfigError("random directions are the null of an effect; ask for one or more")
    allowed = (damage <= harmless) & (effect > 0) & (effect > random_effect.max(2))  # never so with NaN
    if not allowed.any():
        return None
    beyond = np.where(allowed, effect - random_effect.mean(2), -np.inf)
    row, column = np.unravel_index(int(beyond.argmax()), beyond.shape)
    return int(row), int(column)
