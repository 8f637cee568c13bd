"""Progress of long work: the callback that every analysis takes, and reports to the process that started this one.

Long work calls `progress(done, total, facts)` after every unit. `done` and `total` count the same unit (batches, heads,
steps). `facts` holds short values to show with the progress bar, such as `{"fvu": 0.12}`. The callback runs in the
thread that does the work, and an exception raised in it stops the work.

A process whose environment has the path of a file in `RUN_FILE` writes there how far it is and which artefacts it wrote
(`follow_starter`, `reported`, `report_made`). It also ends when its starter ends. Torch-free.
"""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

Progress = Callable[[int, int, dict], None]

RUN_FILE = "WORKBENCH_RUN_FILE"
"""Environment variable with the path of the file to report to."""
_PAUSE = 0.25
"""Seconds between two reports."""
_GRACE = 20.0
"""Seconds that work has to end after its starter did."""
_LOW_PRIORITY = 10


class RunFile:
    """The report of one process, replaced as a whole, so that a reader never sees half of it."""

    def __init__(self, path: Path):
        self.path = path
        self.state: dict[str, object] = {"stage": "", "done": None, "total": None}
        self._made: list[str] = []
        self._written = 0.0

    def stage(self, title: str, done: int, total: int) -> None:
        """Report how far a stage is. Most calls return at once: a few reports a second are enough."""
        now = time.time()
        if title != self.state["stage"]:
            self.state |= {"stage": title, "since": now, "first": done}
        elif now - self._written < _PAUSE and done < total:
            return
        self.state |= {"done": done, "total": total, "now": now}
        self._write()

    def made(self, path: Path) -> None:
        """Report an artefact that was written."""
        self._made.append(str(path))
        self._write()

    def _write(self) -> None:
        self._written = time.time()
        temporary = self.path.with_name(self.path.name + ".tmp")
        with contextlib.suppress(OSError):  # a full disk stops the work itself, with a better message
            temporary.write_text(json.dumps(self.state | {"made": self._made}, default=float), encoding="utf-8")
            os.replace(temporary, self.path)


_reports: list[RunFile] = []


def duration(seconds: float) -> str:
    """Return a time as text.

    >>> duration(95), duration(5400)
    ('2 minutes', '1.5 hours')
    """
    for unit, size in (("days", 86_400), ("hours", 3600)):
        if seconds >= 1.5 * size:
            return f"{round(seconds / size, 1):g} {unit}"
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{max(seconds, 1):.0f} seconds"


def follow_starter() -> None:
    """Report to the process that started this one, run at low priority, and end when it ends. Else do nothing.

    The starter has the other end of the standard input, which closes however the starter ends. Then this process
    interrupts itself as Ctrl-C would, so that unfinished work stays resumable.
    """
    path = os.environ.pop(RUN_FILE, "")  # popped: processes that this one starts report nothing
    if not path:
        return
    _reports.append(RunFile(Path(path)))
    # a starter in the background ignores Ctrl-C, and hands that on
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(OSError, AttributeError):
        os.nice(_LOW_PRIORITY)
    threading.Thread(target=_end_with_starter, daemon=True).start()


def _end_with_starter() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_GRACE)
    os._exit(130)


def reported(title: str, show: Progress) -> Progress:
    """Return a callback that reports to the starter, if there is one, and then calls `show`."""
    if not _reports:
        return show

    def report(done: int, total: int, facts: dict) -> None:
        _reports[0].stage(title, done, total)
        show(done, total, facts)

    return report


def report_made(path: Path) -> None:
    """Report an artefact that was written to the starter, if there is one."""
    for report in _reports:
        report.made(path)
