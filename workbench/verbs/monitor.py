"""`workbench monitor MODEL`: a probe with a threshold, which watches a text or a chat token by token."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from interp.directions.monitor import Monitor, MonitorConfig
from interp.models.short_name import short_name
from interp.options import BASIC, SAEName
from workbench.analysis import Analysis, AnalysisRun
from workbench.terminal import AppliesDictionary, Heading, ModelArgument, RunsModel, Threaded, settings_of, slug

HEADING = Heading.FEATURES


@dataclass(frozen=True, kw_only=True)
class TrainMonitor(MonitorConfig, AppliesDictionary, Threaded, RunsModel, Analysis["Monitor"]):
    """Train a monitor of texts: a probe with a threshold, judged on groups left out.

    Example: workbench monitor smollm2-135m --examples questions.jsonl --other letters.txt

    A line of --examples is {"text": "...", "label": true, "group": "..."}; the group is the document, template or
    entity that texts share. Half of the groups train the probe, a quarter chooses its threshold, a quarter states its
    rates, next to those of the leaky split by text, shuffled labels, random directions and an untrained model. Run it:
    workbench ask run-monitor --monitor NAME --text TEXT.
    """

    words: ClassVar[tuple[str, ...]] = ("monitor",)
    makes: ClassVar[str] = "monitor"

    model: ModelArgument
    examples: Annotated[Path, BASIC]
    """A .jsonl file of texts with labels and groups. Without groups, texts are split one by one, which may leak."""
    other: tuple[Path, ...] = ()
    """Other texts, for drift: .txt files with one a line, folders of .txt files, or .jsonl files as of --examples."""
    sae: Annotated[SAEName | None, BASIC] = None
    """An SAE of the workspace, whose latents are one more choice of coordinates."""

    def default_name(self) -> str:
        return slug(f"{self.examples.stem}-{short_name(self.model)}")

    def measure(self, run: AnalysisRun) -> Monitor:
        from interp.directions.examples import read_labelled
        from interp.directions.monitoring import train_monitor
        from saes.weights.folder import check_model

        examples = read_labelled(self.examples)
        others = [read_labelled(path, judged=False) for path in self.other]
        dictionary = None if self.sae is None else run.sae(self.sae)
        model = run.model(self.model)
        if dictionary is not None:
            check_model(dictionary, run.weight_hash(self.model), allow_other_weights=self.allow_other_weights)
        with run.progress("monitor", "steps") as progress:
            return train_monitor(
                model, examples, settings_of(self, MonitorConfig), dictionary=dictionary,
                dictionary_name=self.sae or "", others=others, model_name=self.model, progress=progress,
            )  # fmt: skip
