"""An act on a monitor: a text under it, token by token. Torch-free until it is measured."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from interp.acts import Act
from interp.directions.monitor import Monitor, MonitoredText
from interp.options import ArtefactName, PromptText
from saes.acts.run import Run, without_gradients

if TYPE_CHECKING:
    from interp.directions.monitoring import Scorer


@dataclass(frozen=True, kw_only=True)
class RunMonitor(Act[Run, MonitoredText]):
    """Run a monitor on a text: the score of every token, and whether the text fires.

    A score is the log-odds above the threshold; the text fires where the mean over its tokens is above 0. Raises
    `MismatchError` for a model with other weights, `PromptError` for a text that is too long.
    """

    verb: ClassVar[str] = "run_monitor"
    monitor: ArtefactName
    """A monitor of the workspace: an artefact of `workbench monitor MODEL --examples FILE`."""
    text: PromptText
    """The text."""

    @without_gradients
    def measure(self, run: Run) -> MonitoredText:
        monitor = run.workspace.open(Monitor, self.monitor)
        _, tokens = run.prompt(self.text, monitor.settings.model)
        return scorer_of(run, monitor, monitor.settings.model).watch(tokens[0].tolist())


def scorer_of(run: Run, monitor: Monitor, spec: str) -> "Scorer":
    """Return what scores tokens of a model. Raises `MismatchError` for other weights."""
    from interp.directions.monitoring import Scorer

    return Scorer(run.model(spec), monitor)
