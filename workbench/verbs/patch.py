"""`workbench patch MODEL`: activation patching, every patch next to its null."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.options import TaskName
from interp.patching.config import PatchingConfig
from workbench.terminal import ModelArgument, RunsModel, Seeded, Threaded, Writes, bar, say, settings_of, slug, wrote

if TYPE_CHECKING:
    from interp.patching.maps import PatchingMap
    from interp.patching.task import Task


@dataclass(frozen=True, kw_only=True)
class Patch(PatchingConfig, Writes, Seeded, Threaded, RunsModel):
    """Patch activations between two prompts, by layer, head and position.

    Example: workbench patch smollm2-135m --clean "The capital of France is" --corrupt "The capital of Italy is"
    --answer " Paris" --wrong " Rome"

    Give `--clean`, `--corrupt` and `--answer`, or `--task`. The map opens on the dashboard's *Prompt* page.

    One value of one run is replaced by the value of the other run. Effects are fractions of the gap that the metric has
    between the prompts: 0 changes nothing, 1 crosses the whole gap. The null of denoise is the same patch with the
    values of random tokens; of noise, a change of the same size in a random direction. Interrupted? The same command
    resumes.
    """

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

    def run(self) -> None:
        from interp.models.adapter import weight_hash
        from interp.models.loading import load_model
        from interp.patching.maps import save_map

        workspace = self.open_workspace()
        threads = self.use_threads()
        folder = workspace.path("patching", self.name or slug(f"{self._called()}-{self.what}-{self.model}"))
        self.check_free(folder)
        model = load_model(self.model, device=self.use_device())
        task = self._make_task(model)
        with bar("patching", "layers") as progress:
            found, manifest = save_map(
                model,
                task,
                settings_of(self, PatchingConfig),
                folder,
                model_name=self.model,
                weight_hash=weight_hash(model),
                seed=self.seed,
                threads=threads,
                overwrite=self.overwrite,
                progress=progress,
            )
        s = manifest.summary
        wrote(
            folder,
            f"{task.metric.name}: clean {s['clean_metric']:.3g}, corrupt {s['corrupt_metric']:.3g}; "
            f"{s['n_beyond']} of {s['n_patches']} patches beyond their null",
        )
        for line in describe(found):
            say(f"      {line}")

    def _called(self) -> str:
        from workbench.opening import task_name

        if self.task is not None:
            return task_name(self.task)
        return (self.answer or "").strip()

    def _make_task(self, model: HookedModel) -> "Task":
        from interp.circuits.tasks import pair_task
        from workbench.opening import open_task

        if self.task is None:
            return pair_task(model, self.clean or "", self.corrupt or "", self.answer or "", self.wrong, chat=self.chat)
        return open_task(model, self.task, self.prompts, seed=self.seed)


def describe(found: "PatchingMap", n: int = 8) -> list[str]:
    """Return a short table: the largest effects, each with its null, and the rule by which one counts as found."""
    lines = [f"{'':{_WIDTH}}  effect    null (smallest to largest)"]
    for record in found.strongest(n):
        mark = "  beyond the null" if record["beyond"] else ""
        null = f"{record['null']:+.3f} ({record['null_low']:+.3f} to {record['null_high']:+.3f})"
        lines.append(f"{_where(record):{_WIDTH}}  {record['effect']:+.3f}   {null}{mark}")
    draws, null = len(found.null), found.summary()["null"]
    lines.append(
        f"null: {null}, {draws} map{'s' * (draws > 1)}, largest effect {found.threshold:.3g}; "
        f"a false discovery anywhere in a map has a chance of at most 1 in {draws + 1}"
    )
    return lines


_WIDTH = 34


def _where(record: dict[str, Any]) -> str:
    head = f"L{record['layer']}H{record['head']}" if "head" in record else f"layer {record['layer']}"
    position = f", position {record['position']} {record['token']!r}" if "position" in record else ""
    return (head + position)[:_WIDTH]
