"""`POST /api/act/<name>`: every act answers over HTTP, and no body of any kind is an error of ours."""

import json
import random
import zlib
from typing import Any

import pytest
from act_bodies import HOSTILE, damaged, least_body, whole_body

from interp.acts import Act, Streamed
from saes.acts import catalogue

ActType = type[Act[Any, Any]]
BODIES = 25
"""Damaged bodies of each act."""
JSON = "application/json"
MORE: dict[str, dict[str, Any]] = {
    "attention": {"layer": 1, "head": 1}, "explain_attention": {"layer": 2, "head": 2, "query": 2, "key": 1},
    "read_layers": {"start": 0, "stop": 3}, "patch": {"corrupt": "one two", "chat": False},
    "swap_route": {"instead": "Italy"},
}  # fmt: skip
"""Fields in which a body that is made from the schema fits the model but by chance."""


@pytest.mark.parametrize("act", catalogue().values(), ids=catalogue())
def test_every_act_answers_over_http(client, act: ActType):
    for body in (least_body(act.schema()), whole_body(act.schema())):
        answer = client.post(f"/api/act/{act.verb}", json=body | MORE.get(act.verb, {}) | {"visitor": "v"})
        assert answer.status_code == 200, answer.text
        assert answer.mimetype == ("application/x-ndjson" if issubclass(act, Streamed) else JSON)
        assert not issubclass(act, Streamed) or all(
            "error" not in json.loads(line) for line in answer.text.splitlines()
        )


@pytest.mark.parametrize("act", catalogue().values(), ids=catalogue())
def test_no_body_is_an_error_of_ours(client, act: ActType):
    """An answer or a sentence that says what is wrong with the question: never a 500, never an unexpected error."""
    drawn, schema = random.Random(zlib.crc32(act.verb.encode())), act.schema()
    whole = whole_body(schema) | MORE.get(act.verb, {}) | {"visitor": "v"}
    seen: set[int] = set()
    for number in range(BODIES):
        body = damaged(whole, drawn)
        answer = client.post(f"/api/act/{act.verb}", data=body, content_type=JSON)
        said = answer.text
        assert answer.status_code in (200, 400, 404), (number, body[:300], said[:300])
        assert "unexpected" not in said.lower(), (number, body[:300], said[:300])
        if answer.status_code != 200:
            assert answer.mimetype == JSON
            assert 10 < len(answer.get_json()["error"]) < 1000
        seen.add(answer.status_code)
    assert 400 in seen


@pytest.mark.parametrize(
    "body", [*HOSTILE, b"", b"{", b"\xff\xfe", b"[" * 20_000, b'{"a": ' * 20_000, b'{"text": NaN}']
)
def test_what_is_no_object_of_fields_is_refused(client, body):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    for content in (JSON, "text/plain", ""):
        answer = client.post("/api/act/read_prompt", data=data, content_type=content)
        assert answer.status_code == 400
        assert answer.get_json()["error"]


def test_names_that_are_no_act_are_not_found(client):
    for name in ("steeer", "__init__", "Steer", "%00", "%F0%9F%A6%9C", "a" * 3000, "reading", "steer "):
        answer = client.post(f"/api/act/{name}", json={})
        assert answer.status_code == 404
        assert answer.get_json()["error"].startswith("unknown act")
    for method in ("GET", "PUT", "DELETE"):
        assert client.open("/api/act/steer", method=method).status_code in (404, 405)
