"""The sources of the pages, the workspace and a live model; stored on the Flask application, not in a global."""

from dataclasses import dataclass

import flask

from dashboard.prompt.results import Live
from interp.workspace import Workspace

_KEY = "workbench"


@dataclass(frozen=True)
class Context:
    """The sources of one dashboard."""

    workspace: Workspace
    live: Live


def attach(server: flask.Flask, context: Context) -> None:
    """Make `context` the one of this server."""
    server.config[_KEY] = context


def current() -> Context:
    """Return the context of the server that is answering."""
    return flask.current_app.config[_KEY]
