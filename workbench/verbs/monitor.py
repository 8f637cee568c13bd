"""`workbench monitor MODEL`: a probe with a threshold, which watches a text or a chat token by token."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from interp.directions.monitor import Monitor, MonitorConfig
from interp.models.short_name import short_name
from interp.options import BASIC
from workbench.analysis import Analysis, AnalysisRun
from workbench.terminal import Heading, ModelArgument, RunsModel, Threaded, settings_of, slug

HEADING = Heading.FEATURES


@dataclass(frozen=True, kw_only=True)
class TrainMonitor(MonitorConfig, Threaded, RunsModel, Analysis["Monitor"]):
    """Train a monitor of texts: a probe with a threshold, judged on groups left out.

    Example: workbench monitor smollm2-135m --examples questions.jsonl --other letters.txt

    A line of --examples is {"text": "...", "label": true, "group": "..."}; the group is the document, template or
    entity that texts share. Half of the groups train the probe, a quarter chooses its threshold, a quarter states its
    rates, next to those of the leaky split by text, shuffled labels, random directions and untrained models. Run it:
    workbench ask run-monitor --monitor NAME --text TEXT.
    """

    words: ClassVar[tuple[str, ...]] = ("monitor",)
    makes: ClassVar[str] = "monitor"

    model: ModelArgument
    examples: Annotated[Path, BASIC]
    """A .jsonl file of texts with labels and groups."""
    other: tuple[Path, ...] = ()
    """Other texts, for drift: .txt files with one a line, or folders of .txt files."""

    def default_name(self) -> str:
        return slug(f"{self.examples.stem}-{short_name(self.model)}")

    def measure(self, run: AnalysisRun) -> Monitor:
        from interp.directions.examples import read_labelled, read_texts
        from interp.directions.monitoring import train_monitor

        examples = read_labelled(self.examples)
        others = {path.name: read_texts(path) for path in self.other}
        model = run.model(self.model)
        with run.progress("monitor", "steps") as progress:
            return train_monitor(model, examples, settings_of(self, MonitorConfig), others=others, progress=progress)
