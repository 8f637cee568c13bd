"""Experiments: the way in which they are written down and run.

    @trial("model", "logits alone", did="...", expected="...", means="...")
    def logits_alone(setup):
        return gap < setup.same, f"a difference of {gap:.2g}"      # passed or not, and what came

A trial that raises is "not checked", never "passed"; so is one that raises `Skip`, with its reason.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import Any, Generic, TypeVar, Unpack

import torch
from torch import Tensor

from interp.doctor._prompts import ExperimentTokens
from interp.doctor._reference import Reference
from interp.doctor.certificate import Check, Experiment, Part
from interp.models.hooked import HookedModel, PassOptions
from interp.models.identity import weight_hash
from interp.models.passes import token_losses

S = TypeVar("S")
"""Set-up of an experiment."""


class Skip(Exception):
    """The trial cannot be run in this set-up; its text is the reason."""


@dataclass(frozen=True)
class Setup:
    """A model under examination, and its reference."""

    model: HookedModel
    prompts: ExperimentTokens
    reference: Reference | None
    why_alone: str
    """reason why there is no reference"""
    seed: int = 0
    quick: bool = False
    """run the cheap trials only"""
    known: dict[str, Any] = field(default_factory=dict)
    """what one trial measured and another needs"""

    @property
    def same(self) -> float:
        """Largest `gap` of values that are the same but for rounding, by the model's dtype."""
        return 2e-3 if self.model.cfg.dtype == torch.float32 else 0.25

    @cached_property
    def weight_hash(self) -> str:
        """Hash of the weights as they are now; of a model in 16 bits the hash that its files have."""
        return weight_hash(self.model)

    @property
    def same_norm(self) -> float:
        """Largest `relative` difference of values that are the same but for rounding, by the model's dtype."""
        return 2e-3 if self.model.cfg.dtype == torch.float32 else 0.15

    def alike(self, difference: float) -> "Outcome":
        """Return the outcome for logits that have to be the same but for rounding, by their largest `gap`."""
        return difference < self.same, f"differences up to {difference:.2g} of the spread of the logits"

    def held_against(self) -> Reference:
        """Return the reference, or skip the trial."""
        if self.reference is None:
            raise Skip(self.why_alone)
        return self.reference

    def clean(self, tokens: Tensor) -> Tensor:
        """Return the logits of an unchanged pass over a prompt, computed once."""
        return self._once("clean", tokens, self.logits)

    def expected(self, tokens: Tensor) -> Tensor:
        """Return the logits of the reference for a prompt, computed once; skips the trial without a reference."""
        return self._once("expected", tokens, self.held_against().logits)

    def losses(self, tokens: Tensor) -> Tensor:
        """Return the loss of every token but the first in an unchanged pass, `[batch, pos - 1]`, computed once."""
        return self._once("losses", tokens, lambda tokens: token_losses(self.logits(tokens), tokens.cpu()))

    def _once(self, name: str, tokens: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        known, key = self.known.setdefault(name, {}), (tuple(tokens.shape), *tokens.flatten().tolist())
        if key not in known:
            known[key] = compute(tokens)
        return known[key]

    @torch.no_grad()
    def logits(self, tokens: Tensor, **options: Unpack[PassOptions]) -> Tensor:
        """Return logits `[batch, pos, d_vocab]` float32 on the CPU."""
        return self.model(tokens.to(self.model.cfg.device), **options).float().cpu()


Outcome = tuple[bool | None, str]
"""Passed or not (None: a number without a right value), and the outcome in words."""


@dataclass(frozen=True)
class DoctorTrial(Generic[S]):
    """An experiment and the function that runs it."""

    experiment: Experiment
    function: Callable[[S], Outcome]
    cheap: bool
    """part of a quick examination"""

    def run(self, setup: S) -> Check:
        """Run the experiment; an exception becomes the reason why it is not checked."""
        try:
            passed, came = self.function(setup)
        except Skip as reason:
            return self.experiment.not_checked(str(reason))
        except Exception as error:
            if isinstance(error, NotImplementedError) and "meta device" in str(error):
                return self.experiment.not_checked("it reads weights of layers that lie on disk (--engine sharded)")
            reason = (str(error).splitlines() or [""])[0]
            return self.experiment.not_checked(f"it ended with {type(error).__name__}: {reason}")
        return self.experiment.measured(came) if passed is None else self.experiment.judged(passed, came)


def trial(
    part: Part, name: str, *, did: str, expected: str, means: str, cheap: bool = False
) -> Callable[[Callable[[S], Outcome]], DoctorTrial[S]]:
    """Return a decorator that makes a trial of a function; `cheap` ones are run in a quick examination too."""

    def made(function: Callable[[S], Outcome]) -> DoctorTrial[S]:
        experiment = Experiment(part=part, name=name, did=did, expected=expected, means=means)
        return DoctorTrial(experiment, function, cheap)

    return made


def trials_of(module: ModuleType) -> list[DoctorTrial]:
    """Return the trials of a module, in the order of its lines."""
    return [value for value in vars(module).values() if isinstance(value, DoctorTrial)]


def due(trials: Iterable[DoctorTrial[S]], *, quick: bool) -> list[DoctorTrial[S]]:
    """Return the trials of an examination; of a quick one the cheap ones."""
    return [trial for trial in trials if trial.cheap or not quick]


def run_trials(trials: Iterable[DoctorTrial[S]], setup: S) -> Iterator[Check]:
    """Yield the check of each trial as it is done."""
    for trial in trials:
        yield trial.run(setup)


def gap(came: Tensor, expected: Tensor) -> float:
    """Return the largest difference in units of the spread of the expected values; infinite for non-finite values.

    0 is equality. Both have one shape.
    """
    came, expected = came.detach().float().cpu(), expected.detach().float().cpu()
    if came.shape != expected.shape or not bool(came.isfinite().all()):
        return float("inf")
    return float((came - expected).abs().max() / expected.std().clamp_min(1e-12))


def relative(came: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over that of the expected values: few large coordinates do not decide it alone.

    0 is equality. Infinite where a value is not finite, or the shapes differ.
    """
    came, expected = came.detach().float().cpu(), expected.detach().float().cpu()
    if came.shape != expected.shape or not bool(came.isfinite().all()):
        return float("inf")
    return float((came - expected).norm() / expected.norm().clamp_min(1e-12))


def worst(gaps: Iterable[float]) -> float:
    """Return the largest of some gaps, 0 where there is none."""
    return max(gaps, default=0.0)
