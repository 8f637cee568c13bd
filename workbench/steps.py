"""Steps of a pipeline: each is a verb that could be typed by hand, printed, and run unless its artefact exists."""

import time
from dataclasses import dataclass
from typing import Any

from interp.doctor.certificate import Certificate
from interp.workspace import Workspace
from workbench.analysis import Analysis
from workbench.options import command_line
from workbench.terminal import say


@dataclass(frozen=True)
class WorkspaceStep:
    """One artefact: its purpose, and the verb that makes it."""

    title: str
    why: str
    verb: Analysis[Any]

    @property
    def kind(self) -> str:
        """Kind of the artefact."""
        return self.verb.writes()

    @property
    def name(self) -> str:
        """Name of the artefact."""
        return self.verb.name or self.verb.default_name()

    def is_there(self, workspace: Workspace) -> bool:
        """Return True where the workspace has the artefact; a quick examination does not count."""
        present = self.name in workspace.names(self.kind)
        return present and not (self.kind == "certificate" and workspace.open(Certificate, self.name).settings.quick)


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
