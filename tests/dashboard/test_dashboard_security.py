"""Other sites and other machines stay out: by Host, by Origin, by token, and by what the browser is told."""

import re

import pytest
from fake_live import FakeLive
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import Client

from dashboard.app import create_app
from dashboard.security import (
    COOKIE,
    MAX_BODY,
    Guard,
    check_binding,
    content_security_policy,
    is_loopback,
    refuse_callback,
)
from interp.errors import ConfigError

TOKEN = "a-token-of-enough-letters"
CALLBACK = "/_dash-update-component"


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Frame-Options", "ALLOWALL")])
    return [b"hello"]


def guarded(**options) -> Client:
    return Client(Guard(hello, policy=lambda: "default-src 'self'", **options))


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        *((own, True) for own in ("127.0.0.1", "127.0.0.1:8050", "localhost:1", "[::1]:8050", "lab.example:8050")),
        *((evil, False) for evil in ("evil.example", "evil.example:8050", "127.0.0.1.evil.example", "localhost@evil")),
        *((odd, False) for odd in ("", "x", "lab.example.evil")),
    ],
)
def test_own_and_configured_names_are_answered_and_no_other(host, answered):
    answer = guarded(hosts=("lab.example",)).get("/", environ_overrides={"HTTP_HOST": host})
    assert answer.status_code == (200 if answered else 403)
    assert (b"hello" in answer.data) == answered


@given(st.from_regex(r"[a-z]{1,12}(\.[a-z]{2,8}){1,3}", fullmatch=True))
def test_no_other_name_gets_in(host):
    assert guarded().get("/", environ_overrides={"HTTP_HOST": host}).status_code == 403


@pytest.mark.parametrize(
    ("came", "status"),
    [
        ({"Origin": "http://127.0.0.1:8050"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "https://127.0.0.1.evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_only_the_own_origin_may_write(came, status):
    assert guarded().post("/", headers={"Host": "127.0.0.1:8050"} | came).status_code == status


def test_headers_are_ours_even_when_the_app_sets_its_own():
    answer = guarded().get("/", headers={"Host": "localhost"})
    assert answer.headers.getlist("X-Frame-Options") == ["SAMEORIGIN"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "default-src 'self'"


def test_without_its_token_nothing_is_answered():
    client = guarded(token=TOKEN)
    assert client.get("/", headers={"Host": "localhost"}).status_code == 403
    assert client.get("/?token=wrong", headers={"Host": "localhost"}).status_code == 403


def test_token_in_the_address_becomes_a_strict_cookie_that_suffices():
    client = guarded(token=TOKEN)
    first = client.get(f"/?token={TOKEN}", headers={"Host": "localhost"})
    assert first.status_code == 200
    assert re.search(rf"{COOKIE}={TOKEN}; .*HttpOnly; SameSite=Strict", first.headers["Set-Cookie"])
    assert client.get("/", headers={"Host": "localhost"}).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "lab.example"])
def test_listening_to_others_needs_a_token(host):
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match="token"):
        check_binding(host, None)
    check_binding(host, TOKEN)


def test_a_short_token_is_refused():
    with pytest.raises(ConfigError, match="16"):
        check_binding("127.0.0.1", "short")


KEY = "the-key-of-this-run"


def test_a_write_needs_the_key_of_this_run_which_a_page_hands_over():
    client = guarded(run_key=KEY)
    here = {"Host": "127.0.0.1:8050", "Origin": "http://127.0.0.1:8050"}
    assert client.post("/", headers=here, base_url="http://127.0.0.1:8050").status_code == 403
    fresh = guarded(run_key=KEY)
    page = fresh.get("/", base_url="http://127.0.0.1:8050")
    assert re.search(rf"workbench-run-8050={KEY}; .*HttpOnly; SameSite=Strict", page.headers["Set-Cookie"])
    assert fresh.post("/", headers=here, base_url="http://127.0.0.1:8050").status_code == 200
    assert "Set-Cookie" not in fresh.get("/", base_url="http://127.0.0.1:8050").headers


@pytest.mark.parametrize("cookie", ["workbench-run-8050=another", f"workbench-run-8051={KEY}", "\x00=;;", ""])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_no_other_cookie_and_no_other_method_writes(cookie, method):
    client = Client(Guard(hello, policy=lambda: "", run_key=KEY), use_cookies=False)
    answer = client.open("/", method=method, headers={"Host": "127.0.0.1:8050", "Cookie": cookie})
    assert answer.status_code == 403
    assert b"hello" not in answer.data


def test_a_page_of_an_earlier_run_gets_the_new_key_with_its_refusal_and_another_site_does_not():
    client = guarded(run_key=KEY)
    assert KEY in client.post("/", headers={"Host": "127.0.0.1:8050"}).headers["Set-Cookie"]
    foreign = {"Host": "127.0.0.1:8050", "Origin": "http://evil.example"}
    assert "Set-Cookie" not in client.post("/", headers=foreign).headers
    assert "Set-Cookie" not in client.post("/", headers={"Host": "evil.example"}).headers


class Unread:
    """A body that must not be read."""

    def read(self, *_):
        raise AssertionError("the body was read")

    readline = __iter__ = read


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"CONTENT_LENGTH": str(MAX_BODY + 1)}, 413),
        ({"CONTENT_LENGTH": "9" * 5000}, 413),
        ({"CONTENT_LENGTH": "-1"}, 400),
        ({"CONTENT_LENGTH": "1e3"}, 400),
        ({"CONTENT_LENGTH": "\u0663"}, 400),
        ({"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}, 411),
    ],
)
def test_a_large_or_endless_body_is_refused_before_it_is_read(headers, status):
    answer = []
    environ = {"REQUEST_METHOD": "POST", "HTTP_HOST": "127.0.0.1", "wsgi.input": Unread(), **headers}
    Guard(hello, policy=lambda: "")(environ, lambda given, _: answer.append(given))
    assert answer[0].startswith(str(status))


def test_policy_names_no_other_server():
    policy = content_security_policy(["'sha256-x'"])
    assert not re.search(
        r"https?:|\*|'unsafe-inline'|unsafe-eval", policy.replace("style-src 'self' 'unsafe-inline'", "")
    )


@pytest.fixture(scope="module")
def app_client(workspace) -> Client:
    return Client(create_app(workspace, live=FakeLive()).server)


def test_app_refuses_a_foreign_host_and_a_foreign_origin(app_client):
    assert app_client.get("/", headers={"Host": "evil.example"}).status_code == 403
    foreign = {"Host": "127.0.0.1:8050", "Origin": "http://evil.example"}
    assert app_client.post(CALLBACK, json={}, headers=foreign).status_code == 403


def test_page_refers_to_this_server_only(app_client):
    answer = app_client.get("/", headers={"Host": "127.0.0.1:8050"})
    assert answer.status_code == 200
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', answer.text)
    assert answer.text.count("sha256") == 0
    assert "sha256-" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path", ["/assets/../app.py", "/assets/%2e%2e/app.py", "/assets/..%2fapp.py", "//assets/../../pyproject.toml"]
)
def test_assets_do_not_lead_out(app_client, path):
    answer = app_client.get(path, headers={"Host": "127.0.0.1:8050"})
    assert "create_app" not in answer.text
    assert "build-system" not in answer.text


HERE = {"Host": "127.0.0.1:8050"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400), ("{", 400), ("[]", 400), ("{}", 400), ("null", 400), ("[" * 100_000, 400),
        ('{"output": 3}', 400),
        ('{"output": "no-such.children"}', 404),
        ('{"output": "feature-detail.children"}', 400),
        ('{"output": "feature-detail.children", "inputs": [{"id": "a"}], "state": [1]}', 400),
        ('{"output": "feature-detail.children", "inputs": {"a": 1}, "state": []}', 400),
    ],
)  # fmt: skip
def test_a_malformed_callback_is_a_400_and_an_unknown_one_a_404(app_client, body, status):
    app_client.get("/_dash-dependencies", headers=HERE)
    answer = app_client.post(CALLBACK, data=body, content_type="application/json", headers=HERE)
    assert answer.status_code == status


_json = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "property", "value"]), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["inputs", "state", "outputs", "changedPropIds"]), _json))
def test_no_body_gets_to_dash_in_another_shape(body):
    """A body either is refused, or has for every input of the callback something with an id and a property."""
    body["output"] = "known.children"
    known = {"known.children": {"inputs": [1], "state": []}}
    if refuse_callback(body, known) is None:
        assert len(body["inputs"]) == 1
        assert not body.get("state")


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere", "/feature/nothing/3", "/atlas/nothing", "/circuit/edge-circuits/nothing", "/heads/..%2f..%2fetc",
        "/assets/nothing.js", "/_dash-component-suites/dash/nothing.js", "/_dash-component-suites/no/thing.js",
        "/atlas-data/nothing/about.json",
    ],
)  # fmt: skip
def test_what_is_missing_is_a_404(app_client, path):
    assert app_client.get(path, headers=HERE).status_code == 404


@pytest.mark.parametrize(
    "path",
    ["/", "/atlas", "/feature/demo/3", "/feature/demo", "/atlas/embeddings", "/circuit/induction",
     "/circuit/induction-circuits/induction", "/prompt", "/sae?name=nothing"],
)  # fmt: skip
def test_what_is_there_is_a_200(app_client, path):
    assert app_client.get(path, headers=HERE).status_code == 200
