"""`workbench entropy RECORDING`: the entropy of every head's attention over a recorded text."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from interp.options import BASIC, Count, RecordingName
from workbench.analysis import Analysis, AnalysisRun
from workbench.engine import OverDevices
from workbench.terminal import Argument, Heading, RunsModel, Seeded, Threaded

if TYPE_CHECKING:
    from interp.circuits.attention_entropy import AttentionEntropy

HEADING = Heading.CIRCUITS


@dataclass(frozen=True, kw_only=True)
class Entropy(OverDevices, Seeded, Threaded, RunsModel, Analysis["AttentionEntropy"]):
    """Measure how evenly every head spreads its attention over a recorded text.

    0 is attention to one token, 1 the same attention to all earlier tokens: the entropy as a fraction of the largest
    possible at the position. The interval is over documents, the null an untrained model on the same text.
    """

    makes: ClassVar[str] = "attention_entropy"

    recording: Annotated[RecordingName, Argument("RECORDING")]
    """Recording whose text is read; its model is the one measured."""
    contexts: Annotated[Count, BASIC] = 64
    """Contexts to read, from the first on."""

    def measure(self, run: AnalysisRun) -> "AttentionEntropy":
        from interp.circuits.attention_entropy import measure_entropy

        recording = run.recording(self.recording)
        model = run.recorded_model(recording)
        run.parents[f"model:{recording.model}"] = recording.weight_hash
        text = recording.contexts_and_documents(limit=self.contexts)
        with run.progress("attention entropy", "contexts") as progress:
            return measure_entropy(
                model, *text, model_name=recording.model, recording=self.recording, seed=self.seed, progress=progress
            )
