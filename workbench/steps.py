"""Steps of a pipeline: each is a verb that could be typed by hand, printed, and run unless its artefact exists."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from interp.doctor.certificate import Certificate
from interp.errors import WorkbenchError, as_typed, disk_errors
from interp.workspace import Workspace
from workbench.analysis import Analysis
from workbench.options import command_line
from workbench.terminal import RunsModel, say

SHARED = ("workspace", "seed", "threads", "device", "dtype")
"""Options that the steps of a pipeline take from its own command."""
V = TypeVar("V", bound=Analysis[Any])


@dataclass(frozen=True)
class WorkspaceStep:
    """One artefact: its purpose, and the verb that makes it."""

    title: str
    why: str
    verb: Analysis[Any]
    needs: tuple[str, ...] = ()
    """Kinds of artefacts that it reads; where the step that makes one failed, it is left out."""

    @property
    def kind(self) -> str:
        """Kind of the artefact."""
        return self.verb.writes()

    @property
    def name(self) -> str:
        """Name of the artefact."""
        return self.verb.name or self.verb.default_name()

    def is_there(self, workspace: Workspace) -> bool:
        """Return True where the workspace has the artefact; for a whole examination a quick one does not count."""
        if self.name not in workspace.names(self.kind):
            return False
        quick = self.kind == "certificate" and workspace.open(Certificate, self.name).settings.quick
        return not quick or getattr(self.verb, "quick", False)


def sharing(verb: V, pipeline: object) -> V:
    """Return a verb with the shared options of a pipeline, where both have them.

    Of a verb that does not run a model, `dtype` is that of what it stores.
    """
    both = {field.name for field in fields(verb)} & {*vars(pipeline)} & {*SHARED}
    if not isinstance(verb, RunsModel):
        both -= {"dtype"}
    if getattr(verb, "engine", "") == "vllm":
        both -= {"device"}  # it chooses its own
    return replace(verb, **{name: getattr(pipeline, name) for name in both})


def run_step(workspace: Workspace, step: WorkspaceStep, number: str) -> None:
    """Run one verb unless its artefact exists."""
    say(f"\n{number}  {step.title}")
    if step.is_there(workspace):
        say(f"     found {workspace.path(step.kind, step.name)}")
        return
    say(f"     {step.why}")
    say(f"     $ {command_line(step.verb)}")
    started = time.time()
    step.verb.run()
    say(f"      {time.time() - started:.0f} s")


class Pipeline:
    """Steps that run one after another. One that fails stops only those that read what it makes."""

    def __init__(self, workspace: Workspace, n: int):
        self.workspace, self.n = workspace, n
        self.failures: list[str] = []
        """A sentence for each step without a result, and for an examination with a failed check."""
        self._done = 0
        self._absent: set[str] = set()

    def run(self, steps: Iterable[WorkspaceStep]) -> None:
        """Run steps, and print why one failed or was left out."""
        for step in steps:
            self._done += 1
            why = self._left_out(step) or self._failure(step)
            if why:
                say(f"     {why}")
                self.failures.append(f"{step.title}: {why}")

    def _left_out(self, step: WorkspaceStep) -> str:
        lacking = [kind.replace("_", " ") for kind in step.needs if kind in self._absent]
        if not lacking:
            return ""
        self._absent.add(step.kind)
        say(f"\n{self._done}/{self.n}  {step.title}")
        return f"left out, since it reads the {' and the '.join(lacking)}"

    def _failure(self, step: WorkspaceStep) -> str:
        """Run a step; return why it failed, or an empty text."""
        try:
            with disk_errors():
                run_step(self.workspace, step, f"{self._done}/{self.n}")
        except WorkbenchError as error:
            why = as_typed(str(error))
        except Exception as error:  # whatever it is, the steps that follow were asked for too
            why = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        else:
            return self._examined(step)
        self._absent.add(step.kind)
        return f"failed: {why}"

    def _examined(self, step: WorkspaceStep) -> str:
        """Return what an examination found, where a check failed."""
        if step.kind != "certificate":
            return ""
        certificate = self.workspace.open(Certificate, step.name)
        return certificate.headline() if certificate.failed else ""
