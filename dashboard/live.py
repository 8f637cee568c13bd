"""The models of a server, which answer acts (`interp.acts`), one at a time.

Requests take turns (`turns`), so that no two of them share the hooks of a model.
"""

from collections.abc import Iterator
from typing import TypeVar, cast

from dashboard.turns import Turns
from interp.acts import Act, Streamed
from interp.workspace import Workspace
from saes.acts.prompt import ReadPrompt
from saes.acts.run import Run

A = TypeVar("A")


class LiveModel:
    """Answers acts with the models and dictionaries of a workspace; implements `dashboard.sources.Live`."""

    def __init__(self, workspace: Workspace, *, memory: int | None = None):
        """Open a workspace; `memory` bounds the bytes of its models in memory (`Run`)."""
        self._turns, self._run = Turns(), Run(workspace, memory, known_only=True)

    @property
    def state(self) -> str:
        """`cold` (nothing loaded), `loading` or `ready`."""
        return self._run.state

    def stage(self, visitor: str) -> str:
        """Return the progress of the requests of a page, in words."""
        return "loading the model" if self._run.state == "loading" else self._turns.stage(visitor)

    def cancel(self, visitor: str) -> None:
        """Drop the requests of a page."""
        self._turns.cancel(visitor)

    def ask(self, act: Act[Run, A]) -> A:
        """Answer an act, in its turn; a reading in memory is answered at once."""
        question: object = act  # of which the type checker must not think that all acts are readings
        known = question.known(self._run) if isinstance(question, ReadPrompt) else None
        if known is not None:
            return cast(A, known)
        with self._turns.take(type(act)) as turn, self._run.checked(turn.check):
            return act.measure(self._run)

    def steps(self, act: Streamed[Run, A]) -> Iterator[A]:
        """Answer an act step by step, each in a turn; what is wrong with the question is raised at the first."""
        with self._turns.take(type(act)) as turn, self._run.checked(turn.check):
            steps = act.measure(self._run)
        try:
            while True:
                with self._turns.take(type(act), again=turn) as turn, self._run.checked(turn.check):
                    step = next(steps, None)
                    turn.check()
                if step is None:
                    return
                yield step
        finally:
            close = getattr(steps, "close", None)
            if close is not None:
                close()
