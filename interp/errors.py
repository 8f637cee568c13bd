"""One exception tree. Catch `WorkbenchError` to catch all of ours.

    WorkbenchError
    ├── UsageError               what was asked cannot be done as asked
    │   ├── UnknownNameError     no such model, hook point, kind, corpus ... (lists the nearest)
    │   ├── ConfigError          a setting out of range, or settings that contradict each other
    │   ├── PromptError          empty, or longer than the context
    │   └── MissingError         a file, folder or package that is not there
    ├── ArtifactError            something on disk is not what it should be
    │   ├── CorruptError         truncated, edited, or not in the format (names the file)
    │   ├── SchemaError          written by a newer version
    │   └── MismatchError        right format, wrong parent: other model, other hook point, other config
    ├── NonFiniteError           NaN or infinity where numbers must be finite
    ├── ResourceError            the machine cannot: disk full, port in use, out of budget
    │   └── LostRankError        another of the ranks of a run is gone
    └── OtherRankError           another rank failed, and told why: that rank reports it

A message has three parts: what was expected, what came, the next move. The command line prints it on one
line and exits with 2. Exit code 1 is left for findings (`verify` found damage), 130 for Ctrl-C. A message names the
next move as `workbench VERB`; `as_typed` turns that into a command that works in the reader's shell.
"""

import re
import shutil
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class WorkbenchError(Exception):
    """Anything we raise on purpose."""

    exit_code = 2


class UsageError(WorkbenchError):
    """What was asked cannot be done as asked."""


class UnknownNameError(UsageError):
    """A name that is not known; the message lists the nearest right ones."""

    def __init__(self, what: str, name: str, known: Iterable[str], hint: str = ""):
        self.what, self.name, self.known = what, name, sorted(known)
        super().__init__(f"unknown {what} {name!r}; {nearest(name, self.known)}" + (f" {hint}" if hint else ""))


class ConfigError(UsageError):
    """A setting out of range, or settings that contradict each other."""


class PromptError(UsageError):
    """A prompt that is empty or does not fit the model's context."""


class MissingError(UsageError):
    """A file, folder or package that is not there."""


class ArtifactError(WorkbenchError):
    """Something on disk is not what it should be."""


class CorruptError(ArtifactError):
    """Truncated, edited, or not in the stated format."""


class SchemaError(ArtifactError):
    """Written by a newer version than this one."""


class MismatchError(ArtifactError):
    """Right format, wrong parent: another model, hook point or config."""


class NonFiniteError(WorkbenchError):
    """NaN or infinity where numbers must be finite."""


class ResourceError(WorkbenchError):
    """The machine cannot: disk full, port in use, out of budget."""


class LostRankError(ResourceError):
    """Another rank of the same run is gone, or has not answered in time."""


class OtherRankError(WorkbenchError):
    """Another rank of the same run failed and reports why; this one ends with it."""


def nearest(name: str, known: Iterable[str], n: int = 3) -> str:
    """`did you mean 'a', 'b'?`, or the known names when none is close (at most eight of them).

    >>> nearest("smolm2", ["smollm2-135m", "gpt2"])
    "did you mean 'smollm2-135m'?"
    """
    options = list(known)
    close = get_close_matches(name, options, n=n, cutoff=0.5)
    if close:
        return "did you mean " + ", ".join(map(repr, close)) + "?"
    if not options:
        return "there are none yet."
    more = f" and {len(options) - 8} more" if len(options) > 8 else ""
    return "known: " + ", ".join(map(repr, options[:8])) + more + "."


def program() -> str:
    """Return what to type for `workbench`.

    That is the bare name where the shell finds this installation under it, else the path of the script (relative to the
    working directory where it lies below it, as `.venv/bin/workbench` does after `make demo`), else `python -m
    workbench`.
    """
    script = Path(sys.executable).with_name("workbench")
    if not script.is_file():
        return f"{sys.executable} -m workbench"
    found = shutil.which("workbench")
    if found is not None and Path(found).resolve() == script.resolve():
        return "workbench"
    here = Path.cwd()
    return str(script.relative_to(here) if script.is_relative_to(here) else script)


def as_typed(text: str) -> str:
    """Return the text with each command in backquotes, `workbench VERB`, written as the reader can type it.

    >>> as_typed("no heads here; `workbench heads MODEL` scores them") == (
    ...     f"no heads here; `{program()} heads MODEL` scores them"
    ... )
    True
    """
    return re.sub(r"`workbench(?=[ `])", lambda _: f"`{program()}", text)
