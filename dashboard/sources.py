"""The sources of all pages: a workspace, models that can be asked, and a queue of runs.

They are stored on the Flask application, not in a global. The models are a protocol, so that pages need no torch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import flask

from dashboard.queue import RunQueue
from interp.acts import Act, Streamed
from interp.artifacts import Manifest
from interp.errors import MissingError
from interp.workspace import Workspace
from saes.acts.run import Run

A = TypeVar("A")


class Live(Protocol):
    """Models that can be asked. `dashboard.live.LiveModel` is the real one; tests bring their own."""

    @property
    def state(self) -> str:
        """`cold` (nothing loaded), `loading` or `ready`."""
        ...

    def stage(self, visitor: str) -> str:
        """Return the progress of the requests of a page, in words."""
        ...

    def cancel(self, visitor: str) -> None:
        """Drop the requests of a page."""
        ...

    def ask(self, act: Act[Run, A]) -> A:
        """Answer an act, in its turn. Raises what `measure` of the act raises, and `SupersededError`."""
        ...

    def steps(self, act: Streamed[Run, A]) -> Iterator[A]:
        """Answer an act step by step; others take turns between two steps."""
        ...


_KEY = "workbench"


@dataclass(frozen=True)
class PageSources:
    """The sources of one dashboard."""

    workspace: Workspace
    live: Live
    runs: RunQueue | None = None
    """The queue of analyses; None where the server offers no runs."""


def attach(server: flask.Flask, context: PageSources) -> None:
    """Make `context` the one of this server."""
    server.config[_KEY] = context


def current() -> PageSources:
    """Return the context of the server that is answering."""
    return flask.current_app.config[_KEY]


class NothingYetError(MissingError):
    """The workspace has nothing that this page shows. This is no mistake, so the page explains itself."""


def open_artefact(
    workspace: Workspace, kinds: Sequence[str], name: str | None, *, prefer: Callable[[Manifest], bool] | None = None
) -> Manifest:
    """Return the artefact called `name` of one of the `kinds`; without a name, the one that the page opens on.

    The rule for the latter is `Workspace.default`. Raises `UnknownNameError` with the nearest names, `ConfigError` when
    the name cannot be one, and `NothingYetError` when no name is given and there is no artefact of these kinds.
    """
    if not name:
        manifest = workspace.default(*kinds, prefer=prefer)
        if manifest is None:
            raise NothingYetError(f"no artefact of kind {' or '.join(kinds)} was found in {workspace.root}")
        return manifest
    return workspace.find(name, *kinds)
