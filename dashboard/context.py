"""What pages are given: the workspace and a model that can be asked. It hangs on the Flask app: no global."""

from dataclasses import dataclass

import flask

from dashboard.prompt.results import Live
from interp.workspace import Workspace

_KEY = "workbench"


@dataclass(frozen=True)
class Context:
    """One dashboard's sources."""

    workspace: Workspace
    live: Live


def attach(server: flask.Flask, context: Context) -> None:
    """Make `context` the one that pages of this server see."""
    server.config[_KEY] = context


def current() -> Context:
    """The context of the server that is answering."""
    return flask.current_app.config[_KEY]
