"""An act on an alignment: one test pair run again, with its swaps. Torch-free until it is measured."""

from dataclasses import dataclass
from typing import ClassVar

from interp.acts import Act
from interp.circuits.alignment import Alignment, SwappedRun
from interp.options import ArtefactName, Count
from saes.acts.session import Session


@dataclass(frozen=True, kw_only=True)
class SwapTestPair(Act[Session, SwappedRun]):
    """Run one test pair of an alignment: the predictions for base and source, and for the base after the swaps.

    Raises `ConfigError` for a number that no pair has, `MismatchError` for a model with other weights.
    """

    verb: ClassVar[str] = "swap_pair"
    alignment: ArtefactName
    """An artefact of `workbench align MODEL`."""
    pair: Count
    """Number of the test pair, from 0."""

    def measure(self, run: Session) -> SwappedRun:
        from interp.circuits.aligning import swapped_run

        alignment = run.workspace.open(Alignment, self.alignment)
        run.check("swapping")
        return swapped_run(run.model(alignment.settings.model), alignment, self.pair)
