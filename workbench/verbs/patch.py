"""`workbench patch MODEL`: activation patching, every patch next to its null."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.models.short_name import short_name
from interp.nulls import Level
from interp.options import PromptText, TaskName
from interp.patching.patching_map import PatchingMap
from saes.acts.patching import PatchPrompts
from saes.acts.run import Run
from workbench.analysis import Resumable
from workbench.engine import OverDevices
from workbench.terminal import Heading, ModelArgument, RunsModel, Seeded, Threaded, slug

if TYPE_CHECKING:
    from interp.patching.task import Task

HEADING = Heading.CIRCUITS


@dataclass(frozen=True, kw_only=True)
class PatchActivations(OverDevices, Seeded, Threaded, RunsModel, Resumable[PatchingMap], PatchPrompts):
    """Patch activations between two prompts, by layer, head and position.

    Example: workbench patch smollm2-135m --clean "The capital of France is" --corrupt "The capital of Italy is"
    --answer " Paris" --wrong " Rome"

    Give `--clean`, `--corrupt` and `--answer`, or `--task`. The map opens on the dashboard's *Prompt* page.

    One value of one run is replaced by the value of the other run. Effects are fractions of the gap that the metric has
    between the prompts: 0 changes nothing, 1 crosses the whole gap. The null of denoise is the same patch with the
    values of random tokens; of noise, a change of the same size in a random direction. Each draw of the null is a map
    of its own and takes as long. Interrupted? The same command resumes.
    """

    words: ClassVar[tuple[str, ...]] = ("patch",)
    makes: ClassVar[str] = "patching"

    model: ModelArgument
    clean: PromptText = ""
    corrupt: PromptText = ""
    answer: str = ""
    task: TaskName | None = None
    """Instead of a pair: induction, ioi, greater-than, or a .jsonl or .csv file with the columns clean, corrupt,
    correct and wrong."""
    prompts: int = 8
    """Prompt pairs of a task."""
    nulls: Level = "standard"
    """Maps of the null: quick 5, standard 19, thorough 99. A map without true effects shows a discovery with a
    probability of at most 1 / (1 + draws)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        pair = {"--clean": self.clean, "--corrupt": self.corrupt, "--answer": self.answer}
        lacking = [name for name, value in pair.items() if not value]
        if self.task is None and lacking:
            raise ConfigError(f"a pair of prompts lacks {', '.join(lacking)}; add it, or name a --task")
        if self.task is not None and (len(lacking) < len(pair) or self.wrong or self.chat):
            raise ConfigError("give one pair of prompts, or a --task, not both")

    def default_name(self) -> str:
        called = self.answer.strip() if self.task is None else Path(self.task).stem
        return slug(f"{called}-{self.what}-{short_name(self.model)}")

    def make_task(self, run: Run, model: HookedModel) -> "Task":
        from interp.circuits.tasks import open_task

        if self.task is None:
            return super().make_task(run, model)
        return open_task(model, self.task, self.prompts, seed=self.seed)
