"""Errors over HTTP: each has its status, and every route of data answers a wrong name with 404 and one sentence."""

import flask
import pytest
from fake_live import FakeLive

from dashboard.app import create_app
from dashboard.components.http_errors import answer, register
from interp.errors import (
    ConfigError,
    ConflictError,
    CorruptError,
    MismatchError,
    MissingError,
    NonFiniteError,
    PromptError,
    ResourceError,
    SchemaError,
    SupersededError,
    UnknownNameError,
)
from interp.workspace import Workspace

HERE = {"Host": "127.0.0.1:8050"}
DATA = ("/api/", "/atlas-data/", "/circuit-data/", "/graph-data/")
QUERIES = {
    "/api/notes": "key=nothing/here", "/api/feature.html": "features=nothing&index=0",
    "/api/head.html": "name=nothing&head=L0H0",
    "/graph-data/nothing/node.json": "n=0",
}  # fmt: skip
NO_NAME = (
    "/api/visitor/stage",
    "/api/visitor/cancel",
    "/api/notes/export",
    "/api/openapi.json",
    "/api/destinations",
)
CONFLICT = ConflictError("changed meanwhile", theirs="<b>x", field="note")


def test_every_route_of_data_answers_a_wrong_name_with_404_and_a_sentence(workspace: Workspace):
    server, seen = create_app(workspace, live=FakeLive()).server, 0
    client = server.test_client()
    client.get("/", headers=HERE)  # brings the key that writes need
    for rule in server.url_map.iter_rules():
        address = rule.rule
        if not f"{address}/".startswith(DATA) or address in NO_NAME:
            continue
        for argument in rule.arguments:
            address = address.replace(f"<{argument}>", "nothing")
        for method in (rule.methods or set()) & {"GET", "POST"}:
            query = QUERIES.get(address, "")
            body = {"json": {}} if method == "POST" else {}
            found = client.open(f"{address}?{query}", method=method, headers=HERE, **body)
            assert found.status_code == 404, (method, address, found.text)
            assert list(found.get_json()) == ["error"], address
            assert found.get_json()["error"].startswith("unknown "), (address, found.text)
            seen += 1
    assert seen >= 20


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnknownNameError("model", "x", ["y"]), 404), (MissingError("x"), 404), (MismatchError("x"), 409),
        (CONFLICT, 409), (SupersededError("x"), 409), (ResourceError("x"), 503), (CorruptError("x"), 500),
        (SchemaError("x"), 500), (ConfigError("x"), 400), (PromptError("x"), 400), (NonFiniteError("x"), 400),
        (RuntimeError("x"), 500),
    ],
)  # fmt: skip
def test_an_error_has_one_status_on_every_route(error, status):
    server = flask.Flask("errors")
    register(server)

    def broken():
        raise error

    addresses = ("/api/broken", "/graph-data/a/broken", "/elsewhere")
    for address in addresses:
        server.add_url_rule(address, address, broken)
    for address in addresses:
        found = server.test_client().get(address)
        assert found.status_code == status
        assert found.mimetype == ("text/plain" if address == "/elsewhere" else "application/json")
        assert found.headers["Cache-Control"] == "no-store"


def test_a_conflict_brings_the_other_text():
    with flask.Flask("errors").test_request_context("/api/notes/set"):
        assert answer(CONFLICT).get_json() == {"error": "changed meanwhile", "theirs": "<b>x", "field": "note"}
