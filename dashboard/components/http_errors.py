"""Errors over HTTP: routes raise our exceptions, and one handler answers all of them.

    404   a name, file or package that does not exist
    409   what does not fit together: tables of a dictionary that was made again, a text that another visitor changed,
          a request that a newer one replaced
    503   a resource that is exhausted or taken
    500   a damaged artefact, and every error that we did not raise on purpose
    400   any other mistake in the request

The routes of data answer `{"error": sentence}`; a conflict adds `theirs`, the stored text, and its `field`. Any other
address answers the sentence as text.
"""

import flask
from werkzeug.exceptions import InternalServerError

from dashboard.components.frame import explain
from interp.errors import (
    ArtifactError,
    ConflictError,
    MismatchError,
    MissingError,
    ResourceError,
    SupersededError,
    UnknownNameError,
    WorkbenchError,
)

_STATUS: tuple[tuple[type[WorkbenchError], int], ...] = (
    (UnknownNameError, 404), (MissingError, 404), (MismatchError, 409), (ConflictError, 409), (SupersededError, 409),
    (ResourceError, 503), (ArtifactError, 500),
)  # fmt: skip
"""The first class that matches decides."""
_DATA = ("/api/", "/atlas-data/", "/circuit-data/", "/graph-data/")


def register(server: flask.Flask) -> None:
    """Let the handler answer every error of a route."""
    server.register_error_handler(WorkbenchError, answer)
    server.register_error_handler(InternalServerError, _unexpected)


def answer(error: Exception) -> flask.Response:
    """Return the answer to an error: its status and its sentence, as JSON on the routes of data."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 400)
    status = status if isinstance(error, WorkbenchError) else 500
    fresh = {"Cache-Control": "no-store"}
    if not f"{flask.request.path}/".startswith(_DATA):
        return flask.Response(f"{explain(error)}\n", status, mimetype="text/plain", headers=fresh)
    body = {"error": explain(error)}
    if isinstance(error, ConflictError):
        body |= {"theirs": error.theirs, "field": error.field}
    return flask.Response(flask.json.dumps(body), status, mimetype="application/json", headers=fresh)


def _unexpected(error: InternalServerError) -> flask.Response:  # Flask has logged it
    cause = error.original_exception
    return answer(cause if isinstance(cause, Exception) else error)
