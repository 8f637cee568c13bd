"""What a person sees in the terminal: one line per finding, a bar on long work.

The options that every verb shares, and the few lines that every verb needs. Torch-free.

A verb that `torchrun` started several times over: the first rank speaks, and a failure is reported once.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from interp.errors import OtherRankError
from interp.progress import Progress

if TYPE_CHECKING:
    from interp.ranks import Ranks
    from interp.workspace import Workspace


def say(text: str) -> None:
    """One line. Token text is data: it is printed without markup."""
    print(text, flush=True)


def wrote(path: Path, finding: str) -> None:
    """Where the verb wrote, and one line of what it found."""
    say(f"wrote {path}")
    say(f"      {finding}")


@contextlib.contextmanager
def bar(title: str, unit: str = "") -> Iterator[Progress]:
    """A progress bar with rate and time left; call it with `(done, total, info)`.

    Where the output is no terminal (a log, CI) it prints a line at every quarter instead.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines(title, unit)
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
    """`{"fvu": 0.1234, "step": 12}` -> `fvu 0.123  step 12`."""
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


@dataclass(frozen=True, kw_only=True)
class Options(ABC):
    """Shared by all verbs."""

    words: ClassVar[tuple[str, ...]] = ()
    """what is typed for the verb; empty: the name of the class"""

    workspace: Path = Path("workspace")
    """The folder that holds all artefacts."""
    name: str | None = None
    """Name of the artefact that is written. Default: made from what it is made of."""
    seed: int = 0
    """Every random number follows from this."""
    threads: int | None = None
    """CPU threads. Default: all cores."""
    overwrite: bool = False
    """Replace an artefact of that name."""

    def open_workspace(self) -> "Workspace":
        """The workspace, made when missing."""
        from interp.workspace import Workspace

        return Workspace(self.workspace, create=True)

    @abstractmethod
    def run(self) -> int | None:
        """Do the verb's work; an exit code, or None for 0."""

    def use_threads(self) -> int:
        """Set the thread count; returns the number in use."""
        from interp.runtime import set_threads

        return set_threads(self.threads)


def slug(text: str) -> str:
    """A usable artefact name from any text.

    >>> slug("HuggingFaceTB/SmolLM2-135M")
    'HuggingFaceTB-SmolLM2-135M'
    """
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text)
    return kept.strip("-.")[:64] or "unnamed"


@contextlib.contextmanager
def together() -> Iterator["Ranks"]:
    """The ranks of this run. One that ends because another failed ends without a word of its own."""
    from interp.ranks import join

    with join() as ranks:
        try:
            yield ranks
        except OtherRankError as error:
            raise SystemExit(error.exit_code) from None


@contextlib.contextmanager
def first_bar(ranks: "Ranks", title: str, unit: str = "") -> Iterator[Progress]:
    """The first rank's progress bar; on the others it shows nothing."""
    if not ranks.first:
        yield lambda done, total, info: None
        return
    with bar(title, unit) as progress:
        yield progress
