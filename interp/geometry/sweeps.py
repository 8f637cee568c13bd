"""Effects of interventions by their size: steering by strength, rotation by steps around the circle. Torch-free.

`interp.geometry._steering` and `interp.geometry.report` measure them.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float64

from interp.geometry.points import GeometryResult
from interp.nulls import null_range
from interp.results import Record, ends
from interp.statistics import Interval

HARMLESS = 0.1
"""largest acceptable cost of steering, in nats of loss on unrelated text"""


@dataclass(frozen=True, kw_only=True)
class StrengthSweep(GeometryResult):
    """Changes from the unsteered model, by strength."""

    hook_point: str
    strengths: tuple[float, ...]
    """in units of `unit`; negative values steer against the direction"""
    unit: float
    """length added at strength 1, in units of the activations"""
    effect: Interval[np.ndarray] = field(metadata=ends("low", "high"))
    """`[n]` nats: log-odds of the target tokens, mean over prompts; infinite bounds with one prompt"""
    side_effect: Interval[np.ndarray] = field(metadata=ends("side_low", "side_high"))
    """`[n]` nats of loss per token on unrelated text, mean over documents; above 0 is harm; infinite bounds with one"""
    random_effect: Float64[np.ndarray, "n_random n"]
    random_side_effect: Float64[np.ndarray, "n_random n"]
    """the same for random directions"""
    chosen: int | None
    """index of the harmless strength with the largest effect on the half that chooses; None where no strength above 0
    is harmless, and with fewer than two prompts or two documents"""
    judged_effect: Interval[float] = field(metadata=ends("judged_low", "judged_high"))
    """effect of the chosen strength on the prompts that judge; NaN where none was chosen"""
    judged_side_effect: Interval[float] = field(metadata=ends("judged_side_low", "judged_side_high"))
    """its side effect on the documents that judge"""
    judged_random: Float64[np.ndarray, " n_random"]
    """effects of random directions at that strength on the prompts that judge; NaN where none was chosen"""
    n_judging: int
    """prompts that judge"""
    baseline: float
    """probability of the targets without steering, mean over prompts"""
    n_prompts: int
    n_tokens: int
    seed: int

    def sentence(self) -> str:
        if max(self.strengths) <= 0:
            return f"nothing was steered along the direction at {self.hook_point}: no strength is above 0"
        if self.chosen is None and self.n_judging == 0:
            return (
                f"no strength was chosen at {self.hook_point}: it takes two prompts and two documents or more, half of "
                "them to choose and half to judge"
            )
        if self.chosen is None:
            return f"every strength at {self.hook_point} costs more than {HARMLESS} nats of loss on unrelated text"
        strength = self.strengths[self.chosen]
        (effect, low, high), (harm, harm_low, harm_high) = self.judged_effect, self.judged_side_effect
        random = self.judged_random
        return (
            f"at {self.hook_point} strength {strength:g} ({strength * self.unit:.3g} long), chosen on half of the "
            f"prompts, moves the targets on the other half by {effect:+.2f} nats [{low:+.2f}, {high:+.2f}] for "
            f"{harm:+.3f} [{harm_low:+.3f}, {harm_high:+.3f}] nats of loss on "
            f"unrelated text; {null_range('random directions', f'{random.mean():+.2f}', f'{random.max():+.2f}')}"
        )

    def to_records(self) -> list[Record]:
        """Return one row per strength: both effects with their intervals, then those of random directions."""
        return [
            {"strength": strength}
            | self.effect.at(i).columns("effect", "low", "high")
            | self.side_effect.at(i).columns("side_effect", "side_low", "side_high")
            | _mean_and_high(self.random_effect[:, i])
            | {"random_side_effect": float(self.random_side_effect[:, i].mean())}
            for i, strength in enumerate(self.strengths)
        ]


@dataclass(frozen=True, kw_only=True)
class RotationSweep(GeometryResult):
    """Effect of rotation on the answers, by steps `1 .. n - 1` around the circle (or along the line)."""

    name: str
    hook_point: str
    steps: tuple[int, ...]
    moved: Interval[np.ndarray] = field(metadata=ends("low", "high"))
    """`[n_steps]` nats: mean over words and prompts; above 0 where the answer follows the rotation"""
    random: Float[np.ndarray, "n_nulls n_steps"]
    """`[n_random + 1, n_steps]` nats: moved as far in random directions; last, rotated as far the other way, which at
    half a turn is the rotation itself"""
    swapped: Float[np.ndarray, " n_steps"]
    """`[n_steps]` nats: the whole activation replaced"""
    followed: Float[np.ndarray, " n_steps"]
    """`[n_steps]`: fraction of prompts whose best answer among the items is the rotated word's; chance is `1 / n`"""
    baseline: float
    """accuracy of the answers without rotation, 0 to 1: the model's ability on the task"""
    overall: Interval[float]
    """mean of `moved` over all steps, with its interval over prompts"""
    random_high: float
    """largest mean over all steps of a null"""
    n_items: int
    n_prompts: int
    seed: int

    @property
    def moves_output(self) -> bool:
        """True if the interval lies above 0 and above every null."""
        return self.overall.low > max(0.0, self.random_high)

    @property
    def n_following(self) -> int:
        """Number of steps whose own interval lies above 0 and above every null."""
        return int((self.moved.low > np.maximum(0.0, self.random.max(0))).sum())

    def sentence(self) -> str:
        word = "moves" if self.moves_output else "does not move"
        overall, low, high = self.overall
        return (
            f"rotating {self.name} at {self.hook_point} {word} the answer: {overall:+.2f} nats "
            f"[{low:+.2f}, {high:+.2f}] towards the rotated word's, random directions or the "
            f"other sense at most {self.random_high:+.2f}, whole activation swapped {self.swapped.mean():+.2f}; it "
            f"follows at {self.n_following} of {len(self.steps)} steps; without rotation {self.baseline:.0%} of "
            f"{self.n_prompts} prompts are answered right (chance {1 / self.n_items:.0%})"
        )

    def to_records(self) -> list[Record]:
        """Return one row per step: the effect with its interval, that of random directions, and the controls."""
        return [
            {"step": step}
            | self.moved.at(i).columns("effect", "low", "high")
            | _mean_and_high(self.random[:, i])
            | {"swapped": float(self.swapped[i]), "followed": float(self.followed[i])}
            for i, step in enumerate(self.steps)
        ]


def _mean_and_high(random: Float[np.ndarray, " n"]) -> Record:
    """Return the columns `random` and `random_high` for the effects `[n_random]` of random directions."""
    return {"random": float(random.mean()), "random_high": float(random.max())}
