"""`workbench patch MODEL`: activation patching, every patch next to its null."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.models.short_name import short_name
from interp.options import TaskName
from interp.patching.patching_map import PatchingConfig, PatchingMap
from workbench.analysis import AnalysisRun, Resumable
from workbench.engine import OverDevices
from workbench.terminal import Heading, ModelArgument, RunsModel, Seeded, Threaded, settings_of, slug

if TYPE_CHECKING:
    from interp.patching.task import Task

HEADING = Heading.CIRCUITS


@dataclass(frozen=True, kw_only=True)
class PatchActivations(PatchingConfig, OverDevices, Seeded, Threaded, RunsModel, Resumable["PatchingMap"]):
    """Patch activations between two prompts, by layer, head and position.

    Example: workbench patch smollm2-135m --clean "The capital of France is" --corrupt "The capital of Italy is"
    --answer " Paris" --wrong " Rome"

    Give `--clean`, `--corrupt` and `--answer`, or `--task`. The map opens on the dashboard's *Prompt* page.

    One value of one run is replaced by the value of the other run. Effects are fractions of the gap that the metric has
    between the prompts: 0 changes nothing, 1 crosses the whole gap. The null of denoise is the same patch with the
    values of random tokens; of noise, a change of the same size in a random direction. Interrupted? The same command
    resumes.
    """

    words: ClassVar[tuple[str, ...]] = ("patch",)
    makes: ClassVar[str] = "patching"

    model: ModelArgument
    clean: str | None = None
    """Prompt that the model answers. Of a model without a tokenizer: token numbers, "3 5 7"."""
    corrupt: str | None = None
    """Prompt of the same number of tokens, with another answer."""
    answer: str | None = None
    """Answer to the clean prompt: one token, often with a leading space."""
    wrong: str | None = None
    """Answer to the corrupt prompt. With it the metric is a difference of logits, else the log-probability of the
    answer."""
    chat: bool = False
    """Put both prompts into the model's chat template, as the message of a user."""
    task: TaskName | None = None
    """Instead of a pair: induction, ioi, greater-than, or a .jsonl or .csv file with the columns clean, corrupt,
    correct and wrong."""
    prompts: int = 8
    """Prompt pairs of a task."""

    def __post_init__(self) -> None:
        super().__post_init__()
        pair = {"--clean": self.clean, "--corrupt": self.corrupt, "--answer": self.answer}
        lacking = [name for name, value in pair.items() if value is None]
        if self.task is None and lacking:
            raise ConfigError(f"a pair of prompts lacks {', '.join(lacking)}; add it, or name a --task")
        if self.task is not None and (len(lacking) < len(pair) or self.wrong is not None or self.chat):
            raise ConfigError("give one pair of prompts, or a --task, not both")

    def default_name(self) -> str:
        called = (self.answer or "").strip() if self.task is None else Path(self.task).stem
        return slug(f"{called}-{self.what}-{short_name(self.model)}")

    def measure(self, run: AnalysisRun) -> PatchingMap:
        from interp.patching.maps import measure_map

        model, config = run.model(self.model), settings_of(self, PatchingConfig)
        task = self._make_task(model)
        with run.progress("patching", "layers") as progress:
            return measure_map(
                model, task, config, model_name=self.model, seed=self.seed, draft=run.draft, progress=progress
            )

    def _make_task(self, model: HookedModel) -> "Task":
        from interp.circuits.tasks import open_task, pair_task

        if self.task is None:
            return pair_task(model, self.clean or "", self.corrupt or "", self.answer or "", self.wrong, chat=self.chat)
        return open_task(model, self.task, self.prompts, seed=self.seed)
