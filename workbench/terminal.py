"""The terminal side of every verb: options in small dataclasses, help, lines of output, progress bar. Torch-free.

A verb is a frozen dataclass that inherits the options it uses (`InWorkspace`, `Writes`, `Seeded`, `Threaded`,
`OnDevice`, `RunsModel`) and the settings dataclass of its analysis, if any, which `settings_of` hands on. A verb that
writes an artefact is an `Analysis` (`workbench.analysis`). `workbench.options` reads them from commands.

Under `torchrun` a verb runs once per rank: the first rank prints, and a failure is reported once (`joined_ranks`).
"""

import contextlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    ClassVar,
    Literal,
    TypeVar,
)

from interp.devices import set_model_dtype, set_sharded
from interp.errors import ConfigError, OtherRankError, WorkbenchError, as_typed, disk_errors
from interp.options import BASIC, Argument, ArtefactName, Device, ModelName, Seed
from interp.progress import Progress, report_made, reported
from interp.threads import set_threads

if TYPE_CHECKING:
    from interp.ranks import Ranks
    from interp.workspace import Workspace

ASK, ASK_ABOUT = "ask", "Ask a model, or about a feature: each answer has its controls"
"""The word before the name of an act (`workbench.ask`), and its help: loading the acts takes half a second."""


def say(text: str) -> None:
    """Print a line. Token text is data, so it is printed without markup."""
    print(text, flush=True)


def wrote(path: Path, finding: str) -> None:
    """Print the folder that was written, and the main finding on a second line."""
    say(f"wrote {path}")
    say(f"      {finding}")
    report_made(path)


@contextlib.contextmanager
def bar(title: str, unit: str = "") -> Iterator[Progress]:
    """Show a progress bar with rate and time left; call it with `(done, total, info)`.

    Where the output is not a terminal (a log, CI), a line is printed at every quarter instead.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield reported(title, _plain_lines(title, unit))
        return
    columns = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[info]}", style="dim", markup=False),
    ]
    with RichProgress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=None, rate="", info="")

        def report(done: int, total: int, info: dict) -> None:
            speed = progress.tasks[0].speed
            rate = f"{speed:,.0f} {unit}/s" if speed and unit else ""
            progress.update(task, completed=done, total=total, rate=rate, info=describe(info))

        yield report


def describe(info: dict) -> str:
    """Return the fields of a health line as text.

    >>> describe({"fvu": 0.1234, "step": 12})
    'fvu 0.123  step 12'
    """
    return "  ".join(
        f"{key} {value:,.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in info.items()
    )


def _plain_lines(title: str, unit: str) -> Progress:
    last = -1

    def report(done: int, total: int, info: dict) -> None:
        nonlocal last
        quarter = done * 4 // max(total, 1)
        if quarter > last:
            last = quarter
            say(f"  {title}: {done:,} of {total:,} {unit}  {describe(info)}".rstrip())

    return report


class Heading(Enum):
    """Headings of `workbench --help`, in their order. Every file of verbs has one as `HEADING`."""

    RECORD = "record and train"
    FEATURES = "features"
    CIRCUITS = "heads and circuits"
    MAPS = "geometry and maps"
    STUDIES = "comparisons and studies"


@dataclass(frozen=True, kw_only=True)
class Verb(ABC):
    """A command: the fields are its options, `run` does its work."""

    words: ClassVar[tuple[str, ...]] = ()
    """Words typed for the verb. Empty: the name of the class in lower case."""
    resumes: ClassVar[bool] = False
    """True where an interrupted command continues when it is repeated, and does not start again."""

    @abstractmethod
    def run(self) -> int | None:
        """Do the verb's work; return an exit code, or None for 0."""

    @classmethod
    def typed_words(cls) -> tuple[str, ...]:
        """Return the words typed for the verb, `("circuit", "find")` for example."""
        return cls.words or (cls.__name__.lower(),)


@dataclass(frozen=True, kw_only=True)
class InWorkspace(Verb):
    """Options of a verb that reads a workspace."""

    workspace: Path = Path("workspace")
    """The folder of all artefacts."""

    def open_workspace(self) -> "Workspace":
        """Return the workspace. Raises `MissingError` where it does not exist."""
        from interp.workspace import Workspace

        return Workspace(self.workspace)


@dataclass(frozen=True, kw_only=True)
class Writes(InWorkspace):
    """Options of a verb that writes an artefact."""

    name: Annotated[ArtefactName | None, BASIC] = None
    """Name of the artefact that is written. Default: derived from its input."""
    overwrite: bool = False
    """Replace an artefact of that name."""

    def open_workspace(self) -> "Workspace":
        """Return the workspace, created when missing."""
        from interp.workspace import Workspace

        return Workspace(self.workspace, create=True)

    def check_free(self, *folders: Path | None) -> None:
        """Raise `ConfigError` before the long work where a folder exists and may not be replaced."""
        for folder in folders:
            if folder is not None and folder.exists() and not self.overwrite:
                raise ConfigError(f"{folder} is already there; choose another --name, or --overwrite to replace it")


@dataclass(frozen=True, kw_only=True)
class Seeded(Verb):
    """Option of a verb that draws random numbers."""

    seed: Seed = 0
    """Determines every random number."""

    def seed_range(self, n: int) -> tuple[int, ...]:
        """Return `n` consecutive seeds."""
        return tuple(range(self.seed, self.seed + n))


@dataclass(frozen=True, kw_only=True)
class Threaded(Verb):
    """Option of a verb that computes on several threads."""

    threads: int | None = None
    """CPU threads. Default: all cores."""

    def use_threads(self) -> int:
        """Set the thread count; return the number in use."""
        return set_threads(self.threads)


@dataclass(frozen=True, kw_only=True)
class OnDevice(Verb):
    """Option of a verb that computes with tensors: it trains, applies dictionaries, or reads a live recording."""

    device: Device | None = None
    """cpu, cuda, cuda:1 or mps. Default: the fastest device that passes a self-check against the CPU."""

    def use_device(self, ranks: "Ranks | None" = None, *, mps: bool = True) -> str:
        """Return the device, and print it.

        Args:
            ranks: under torchrun, the ranks: each has its own device, and the first prints.
            mps: whether mps may be taken when no device was asked for.
        """
        return self._choose_device(ranks, mps)

    def over_devices(self) -> bool:
        """Return whether models are spread over several devices."""
        return False

    def _choose_device(self, ranks: "Ranks | None", mps: bool, remark: str = "") -> str:
        from interp.devices import pick_device
        from interp.ranks import refuse_ranks

        if ranks is None and self.over_devices():
            refuse_ranks()
        set_sharded(self.over_devices())
        device = pick_device(self.device if ranks is None else ranks.device(self.device), mps=mps)
        if ranks is None or ranks.first:
            say(f"device: {device}{remark}")
        return device


@dataclass(frozen=True, kw_only=True)
class RunsModel(OnDevice):
    """Options of a verb that loads a model: its dtype too, which `load_model` takes from here."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Data type of the model's weights and of the values between its layers; sums and scores stay in float32."""

    def use_device(self, ranks: "Ranks | None" = None, *, mps: bool = True) -> str:
        """Return the device, print it, and load every model from here on in the dtype that was asked for."""
        set_model_dtype(self.dtype)
        return self._choose_device(ranks, mps, "" if self.dtype == "float32" else f", dtype: {self.dtype}")


@dataclass(frozen=True, kw_only=True)
class AppliesDictionary(Verb):
    """Option of a verb that applies a dictionary to a model or a recording."""

    allow_other_weights: bool = False
    """Apply a dictionary to a model whose weights differ from those it was trained on."""


S = TypeVar("S")
ModelArgument = Annotated[
    ModelName,
    Argument("MODEL", "A known name (`workbench models`), a Hugging Face id or folder, a .gguf file, or BASE+ADAPTER."),
]


def settings_of(verb: object, kind: type[S], **changed: object) -> S:
    """Return the settings of an analysis that a verb inherits, some of them `changed`.

    Args:
        verb: an instance of a subclass of `kind`.
        kind: the settings dataclass of the analysis.
        changed: fields whose value does not come from the option of the same name.
    """
    own = {field.name: getattr(verb, field.name) for field in fields(kind) if field.name not in changed}  # type: ignore[arg-type]
    return kind(**own | changed)


def slug(text: str) -> str:
    """Return a usable artefact name made from any text.

    >>> slug("HuggingFaceTB/SmolLM2-135M")
    'HuggingFaceTB-SmolLM2-135M'
    """
    usable = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text)
    return usable.strip("-.")[:64] or "unnamed"


def exit_code(find: "Callable[[], Verb]") -> int:
    """Run the verb that `find` returns, and return its exit code; errors are printed in one line."""
    verb: Verb | None = None
    try:
        with disk_errors():
            verb = find()
            return verb.run() or 0
    except WorkbenchError as error:
        print(f"workbench: {as_typed(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        after = "continues" if verb is not None and verb.resumes else "starts again"
        print(f"\nworkbench: stopped; the same command {after}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `workbench models | head`
        return 0
    finally:
        set_model_dtype()  # what loads models later in this process was not asked for --dtype
        set_sharded()


@contextlib.contextmanager
def joined_ranks() -> Iterator["Ranks"]:
    """Join the ranks of this run. A rank that ends because another failed prints nothing."""
    from interp.ranks import join

    with join() as ranks:
        try:
            yield ranks
        except OtherRankError as error:
            raise SystemExit(error.exit_code) from None


@contextlib.contextmanager
def first_bar(ranks: "Ranks", title: str, unit: str = "") -> Iterator[Progress]:
    """Show a progress bar on the first rank, and nothing on the others."""
    if not ranks.first:
        yield lambda done, total, info: None
        return
    with bar(title, unit) as progress:
        yield progress
