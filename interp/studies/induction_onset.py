"""Onset of induction as an artefact: curves of models over training, and their transitions.

`interp.studies.induction_emerges` trains and measures. Torch-free.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Float64, Int64

from interp.artifacts import Artefact, DocumentField
from interp.errors import ConfigError
from interp.models.short_name import short_name
from interp.results import Record, Result
from interp.studies._transitions import Transition
from interp.view import Dots, Facts, Finding, Rows, View

CURVES = ("loss_first", "loss_repeat", "accuracy", "induction", "previous", "composition")
LEAST = {"loss_first": 0.5, "loss_repeat": 0.5, "accuracy": 0.2, "induction": 0.1, "previous": 0.1, "composition": 0.2}
"""Smallest changes that count: in the one-layer control the induction score drifts from 0.04 to 0.07 without a head."""

UNTRAINED = "untrained"
"""Name of the control of checkpoints: their model with random weights."""


@dataclass(frozen=True)
class InductionRun(Result):
    """Curves of one model and seed over training, with their transitions."""

    spec: str
    seed: int
    steps: Int64[np.ndarray, " n"]
    """training steps; the first is 0"""
    curves: dict[str, Float64[np.ndarray, " n"]]
    """by the names in `CURVES`"""
    transitions: dict[str, Transition]
    """transition of each curve"""

    def __post_init__(self) -> None:
        shape = (set(self.curves), set(self.transitions), {len(curve) for curve in self.curves.values()})
        if shape != (set(CURVES), set(CURVES), {len(self.steps)}):
            raise ConfigError(
                f"expected the curves {', '.join(CURVES)}, each with {len(self.steps)} values and a transition, "
                f"got {', '.join(sorted(self.curves))}"
            )

    @property
    def label(self) -> str:
        """Toy and seed."""
        return f"{self.spec} seed {self.seed}"

    @property
    def onset(self) -> float | None:
        """Onset of copying: of the accuracy on the second copy, if that changes suddenly.

        The loss is not a substitute: it falls earlier, when the model learns which tokens occur, and continues long
        after.
        """
        return self.transitions["accuracy"].onset

    @property
    def together(self) -> float | None:
        """Steps between the middles of the transitions of accuracy and induction score; None without both."""
        copies, score = (self.transitions[name].middle for name in ("accuracy", "induction"))
        return None if copies is None or score is None else abs(copies - score)

    def to_records(self) -> list[Record]:
        """Return one row per measured step: `step` and a column per curve."""
        return [
            {"step": int(step)} | {name: float(curve[i]) for name, curve in self.curves.items()}
            for i, step in enumerate(self.steps)
        ]

    def view(self) -> View:
        summary = "no sudden onset of copying" if self.onset is None else f"copying sets in at step {self.onset:.0f}"
        yield f"{short_name(self.spec)}, seed {self.seed}: {summary}"
        yield Rows(self._rows)

    def _rows(self) -> list[Record]:
        """Return the transition of each curve."""
        names = ("sudden", "onset", "middle", "end", "before", "after")
        return [{"curve": c} | {n: getattr(t, n) for n in names} for c, t in self.transitions.items()]


@dataclass(frozen=True, kw_only=True)
class OnsetSettings:
    """Settings that determine the runs of a study of onset."""

    specs: tuple[str, ...]
    """Toys, or a folder of checkpoints; those after the first are controls."""
    seeds: tuple[int, ...]
    steps: int | None
    """Training steps; None for those of each toy's recipe."""
    every: int
    """Steps between two measurements; 0 where checkpoints of a folder were measured."""


@dataclass(frozen=True, kw_only=True)
class InductionOnset(Artefact, kind="induction_onset", title="Onset of induction", made_by="dynamics induction"):
    """Models over training, each with the step at which it begins to copy."""

    settings: OnsetSettings
    runs: Annotated[tuple[InductionRun, ...], DocumentField("runs.json")]
    """Every seed of every toy."""

    def control(self, run: InductionRun) -> InductionRun | None:
        """Return the control of a run: another toy, of the same seed if there is one, else the first."""
        others = [candidate for candidate in self.runs if candidate.spec != run.spec]
        return next((candidate for candidate in others if candidate.seed == run.seed), others[0] if others else None)

    def to_records(self) -> list[Record]:
        """Return one row per run: `spec, seed, onset, together` (steps)."""
        names = ("spec", "seed", "onset", "together")
        return [{name: getattr(run, name) for name in names} for run in self.runs]

    def view(self) -> View:
        yield self._sentence()
        yield Facts(
            *[(f"{run.spec} {run.seed} from step", f"{run.onset:,.0f}") for run in self.runs if run.onset is not None]
        )
        for run in self.runs:
            where = "does not begin to copy" if run.onset is None else f"begins to copy at step {run.onset:.0f}"
            timing = "" if run.together is None else f", within {run.together:.0f} steps of its heads' induction score"
            yield f"{run.label}: {where}{timing}; induction {run.curves['induction'][-1]:.2f}"
        dated = [run for run in self.runs if run.onset is not None]
        controls = [
            (run, control) for run in dated if (control := self.control(run)) is not None and control.onset is None
        ]
        if not controls:
            return
        run, control = max(controls, key=lambda pair: pair[0].curves["induction"][-1])
        of_folder = self.settings.every == 0
        same_data = "" if of_folder else ", trained on the same data,"
        score, null = float(run.curves["induction"][-1]), float(control.curves["induction"].max())
        yield Finding(
            kind="onset",
            title="A model begins to copy, all at once",
            sentence=f"{short_name(run.spec)} begins to copy at step {run.onset:,.0f}; its induction heads end at "
            f"{score:.2f}.",
            more=f"{control.spec}{same_data} never reaches more than {null:.2f}.",
            value=score,
            null=null,
            about=f"induction score; null: {'random weights' if of_folder else 'a model of one layer'}",
            proof="See the training",
            dots=Dots(
                x=tuple(run.steps.astype(float).tolist()),
                y=tuple(run.curves["induction"].tolist()),
                across="training step",
                up="induction score",
            ),
        )

    def _sentence(self) -> str:
        """Count the models that begin to copy."""
        dated = sum(run.onset is not None for run in self.runs)
        if self.settings.every:
            return f"{dated} of {len(self.runs)} small models begin to copy suddenly"
        first = self.runs[0]
        subject = f"{len(first.steps)} checkpoints of {short_name(first.spec)}"
        if first.onset is not None:
            return f"{subject}: copying sets in at step {first.onset:,.0f}"
        score = first.curves["induction"]
        return f"{subject}: no sudden onset found; induction score from {score[0]:.2f} to {score[-1]:.2f}"
