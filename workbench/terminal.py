"""What a person sees in the terminal: one line per finding, a bar on long work."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from interp.progress import Progress


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
