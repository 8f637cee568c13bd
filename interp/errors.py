"""The exception tree. Every exception raised on purpose is a `WorkbenchError`.

    WorkbenchError
    ├── UsageError               the request cannot be carried out
    │   ├── UnknownNameError     no such model, hook point, kind, corpus ... (lists the nearest)
    │   ├── ConfigError          a setting out of range, or settings that contradict each other
    │   │   └── NoGapError       a metric that does not tell clean prompts from corrupt ones
    │   ├── ConflictError        a text that another writer changed meanwhile (carries it)
    │   ├── PromptError          a prompt that is empty, or longer than the context
    │   ├── SupersededError      a request that a newer one of the same page replaced
    │   └── MissingError         a file, folder or package that does not exist
    ├── ArtifactError            a file on disk does not have the expected content
    │   ├── CorruptError         truncated, edited, or not in the format (names the file)
    │   ├── SchemaError          written by a newer version
    │   └── MismatchError        right format, wrong parent: another model, hook point or config
    ├── NonFiniteError           NaN or infinity where numbers must be finite
    ├── ResourceError            a resource is exhausted or taken: disk, port, budget, time
    │   └── LostRankError        another rank of the run is gone
    └── OtherRankError           another rank of the run failed, and reports the cause itself

A message has three parts: what was expected, what was found, and the next move. The command line prints it on one line
and exits with 2. Exit code 1 is reserved for findings (`verify` found damage), 130 for Ctrl-C. A message names the next
move as `workbench VERB`; `as_typed` turns that into a command that works in the reader's shell.
"""

import contextlib
import errno
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path

from interp.departed import departed


class WorkbenchError(Exception):
    """Base class of every exception that is raised on purpose."""

    exit_code = 2


class UsageError(WorkbenchError):
    """A request that cannot be carried out."""


class UnknownNameError(UsageError):
    """An unknown name; the message lists the nearest known ones, or says what serves instead of one that is gone."""

    def __init__(self, what: str, name: str, known: Iterable[str], hint: str = ""):
        self.what, self.name, self.known = what, name, sorted(known)
        unknown = f"unknown {what} {name!r}; {nearest(name, self.known)}" + (f" {hint}" if hint else "")
        super().__init__(departed(what, name) or unknown)


class ConfigError(UsageError):
    """A setting out of range, or settings that contradict each other."""


class NoGapError(ConfigError):
    """A metric without a gap between clean and corrupted prompts: the model does not do the task."""


class ConflictError(UsageError):
    """A text that another writer changed meanwhile: `theirs` is the one stored now, `field` names it."""

    def __init__(self, message: str, *, theirs: str, field: str):
        self.theirs, self.field = theirs, field
        super().__init__(message)


class PromptError(UsageError):
    """A prompt that is empty or does not fit the model's context."""


class SupersededError(UsageError):
    """A newer request of the same page replaced this one, or the visitor cancelled it."""


class MissingError(UsageError):
    """A file, folder or package that does not exist."""


class ArtifactError(WorkbenchError):
    """A file on disk without the expected content."""


class CorruptError(ArtifactError):
    """A file that is truncated, edited, or not in the stated format."""


class SchemaError(ArtifactError):
    """An artefact written by a newer version than this one."""


class MismatchError(ArtifactError):
    """An artefact in the right format with another model, hook point or config than expected."""


class NonFiniteError(WorkbenchError):
    """NaN or infinity where numbers must be finite."""


class ResourceError(WorkbenchError):
    """A resource that is exhausted or taken: disk full, port in use, budget spent."""


class LostRankError(ResourceError):
    """Another rank of the same run ended, or did not answer in time."""


class OtherRankError(WorkbenchError):
    """Another rank of the same run failed and reports the cause; this rank ends with it."""


_FULL, _SHUT = (errno.ENOSPC, errno.EDQUOT), (errno.EROFS, errno.EACCES, errno.EPERM)
_WRITERS = ("safetensors", "duckdb", "_duckdb")
"""Libraries that write files and raise errors of their own, which hold the system's message."""


@contextlib.contextmanager
def disk_errors(path: Path | None = None) -> Iterator[None]:
    """Turn errors of a full or read-only disk into one line with the next move; `path` is what was being written."""
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if type(error).__module__.split(".")[0] in _WRITERS:
            number = next((code for code in _FULL + _SHUT if os.strerror(code) in str(error)), None)
        written = path or getattr(error, "filename", None) or "the files of this command"
        if number in _FULL:
            raise ResourceError(
                f"disk full while writing {written}; the files written before it are complete: "
                "free space and run again to resume"
            ) from error
        if number in _SHUT:
            act = "write" if path else "open"
            raise ResourceError(f"cannot {act} {written}: {os.strerror(number)}; choose another --workspace") from error
        raise


def nearest(name: str, known: Iterable[str], n: int = 3) -> str:
    """Return `did you mean 'a', 'b'?`, or the known names when none is close (at most eight of them).

    >>> nearest("smolm2", ["smollm2-135m", "gpt2"])
    "did you mean 'smollm2-135m'?"
    """
    options = list(known)
    close = get_close_matches(name, options, n=n, cutoff=0.5)
    if close:
        return "did you mean " + ", ".join(map(repr, close)) + "?"
    if not options:
        return "none exist yet."
    more = f" and {len(options) - 8} more" if len(options) > 8 else ""
    return "known: " + ", ".join(map(repr, options[:8])) + more + "."


def program() -> str:
    """Return the command that runs `workbench` in the reader's shell.

    It is the bare name where the shell finds this installation under it, else the path of the script, else
    `python -m workbench`. The path is relative where the script lies below the working directory, as
    `.venv/bin/workbench` does after `make demo`.
    """
    script = Path(sys.executable).with_name("workbench")
    if not script.is_file():
        return f"{sys.executable} -m workbench"
    command = shutil.which("workbench")
    if command is not None and Path(command).resolve() == script.resolve():
        return "workbench"
    folder = Path.cwd()
    return str(script.relative_to(folder) if script.is_relative_to(folder) else script)


def as_typed(text: str) -> str:
    """Return the text with each command in backquotes, `workbench VERB`, written as the reader can type it.

    >>> as_typed("no heads here; `workbench heads MODEL` scores them") == (
    ...     f"no heads here; `{program()} heads MODEL` scores them"
    ... )
    True
    """
    return re.sub(r"`workbench(?=[ `])", lambda _: f"`{program()}", text)
