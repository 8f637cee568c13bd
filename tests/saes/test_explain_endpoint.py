"""The endpoint: what is asked again, what is given up with the next move, and that the key goes nowhere else."""

import json
import socket

import pytest
from fake_endpoint import FakeEndpoint, completion

from interp.errors import ConfigError, MissingError, ResourceError
from saes.explain.endpoint import ENDPOINT, ENDPOINT_MODEL, KEY, Endpoint, EndpointRequest, base_url, chosen_endpoint

SECRET = "sk-secret-of-the-test-123"


def ask(fake: FakeEndpoint, key: str = "", **settings):
    """(reply, pauses) of one question."""
    pauses: list[float] = []
    endpoint = Endpoint(fake.url, "m", key, sleep=pauses.append, **{"timeout": 5.0, **settings})
    return endpoint.complete(EndpointRequest("hello", max_tokens=20)), pauses


def failing_first(n: int, failure, then: str = "fine"):
    return lambda prompt, number: failure if number < n else then


def test_the_request_and_the_reply_are_the_documented_ones():
    with FakeEndpoint(lambda prompt, number: f"echo {prompt}") as fake:
        reply, _ = ask(fake, SECRET)
        ask(fake)
    assert (reply.text, reply.tokens_in, reply.tokens_out, reply.cut) == ("echo hello", 100, 7, False)
    expected = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20, "temperature": 0.0}
    assert fake.bodies == [expected] * 2
    assert [each.get("Authorization") for each in fake.headers] == [f"Bearer {SECRET}", None]


@pytest.mark.parametrize(
    "failure",
    [
        (429, {}, b'{"error": {"message": "slow down"}}'),
        (503, {}, b"<html><body>busy</body></html>"),
        (200, {}, b"this is no JSON"),
        (200, {}, b'{"choices": []}'),
        (200, {}, b'["a list"]'),
        (200, {}, b'{"choices": [{"message": {"content": 7}}]}'),
        (200, {}, b"[" * 100_000),
        (200, {}, b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": Infinity}}'),
        (200, {"Content-Length": "500"}, b'{"choices": [{"mess'),
    ],
)
def test_what_may_pass_is_asked_again(failure):
    with FakeEndpoint(failing_first(2, failure)) as fake:
        reply, pauses = ask(fake, timeout=1.0)
    assert reply.text == "fine"
    assert len(fake.prompts) == 3
    assert pauses == [0.5, 1.0]


def test_a_named_pause_is_kept():
    with FakeEndpoint(failing_first(2, (429, {"Retry-After": "7"}, b""))) as fake:
        assert ask(fake)[1] == [7.0, 7.0]
    with FakeEndpoint(failing_first(1, (429, {"Retry-After": "9999999"}, b""))) as fake:
        assert ask(fake)[1] == [60.0]


def test_what_does_not_pass_ends_with_the_next_move():
    with (
        FakeEndpoint(lambda *_: (503, {}, b"overloaded")) as fake,
        pytest.raises(ResourceError, match=r"6 attempts \(status 503: overloaded\).*again later"),
    ):
        ask(fake)
    assert len(fake.prompts) == 6


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, {"error": {"message": f"Incorrect API key provided: {SECRET}"}}, rf"refused the key in \${KEY} .*\*\*\*"),
        (404, {"error": {"message": "The model `m` does not exist"}}, r"does not exist.*usually ends in /v1"),
        (400, {"error": {"message": "too long"}}, r"status 400: .*too long"),
        (302, {}, "redirects elsewhere"),
    ],
)
def test_what_asking_again_cannot_mend_is_given_up_at_once(status, body, expected):
    headers = {"Location": "http://127.0.0.1:9/elsewhere"} if status == 302 else {}
    with (
        FakeEndpoint(lambda *_: (status, headers, json.dumps(body).encode())) as fake,
        pytest.raises(ConfigError, match=expected) as caught,
    ):
        ask(fake, SECRET)
    assert len(fake.prompts) == 1
    assert SECRET not in str(caught.value)


def test_without_a_key_a_401_says_which_variable_to_set():
    with FakeEndpoint(lambda *_: (401, {}, b"")) as fake, pytest.raises(ConfigError, match=rf"wants a key.*\${KEY}"):
        ask(fake)


def test_where_nobody_listens_or_answers_there_is_no_long_wait():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        url, pauses = f"http://127.0.0.1:{one.getsockname()[1]}/v1", list[float]()
        with pytest.raises(MissingError, match=r"nothing answers at .*start the server"):
            Endpoint(url, "m", sleep=pauses.append).complete(EndpointRequest("x", max_tokens=20))
        assert pauses == []
        one.listen()
        with pytest.raises(ResourceError, match=r"6 attempts.*timed out"):
            Endpoint(url, "m", timeout=0.1, sleep=pauses.append).complete(EndpointRequest("x", max_tokens=20))


def test_newer_models_get_the_limit_under_its_new_name():
    def answer(prompt, number):
        if "max_tokens" in fake.bodies[number]:
            message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return 400, {}, json.dumps({"error": {"message": message}}).encode()
        return "fine"

    with FakeEndpoint(answer) as fake:
        reply, pauses = ask(fake)
    assert (reply.text, pauses) == ("fine", [])
    assert fake.bodies[-1].keys() == {"model", "messages", "max_completion_tokens"}


def test_a_reply_without_text_is_empty_not_an_error():
    with FakeEndpoint(lambda *_: (200, {}, completion(None))) as fake:
        assert ask(fake)[0].text == ""


def test_failed_attempts_count_against_the_budget():
    with (
        FakeEndpoint(lambda *_: (500, {}, b"")) as fake,
        pytest.raises(ResourceError, match="budget of 2 requests is spent"),
    ):
        ask(fake, budget=2)
    assert len(fake.prompts) == 2


@pytest.mark.parametrize(
    ("url", "key", "expected"),
    [
        ("http://user:password@host/v1", "", "without user, password"),
        ("https://host/v1?key=abc", "", "without user, password"),
        ("http://example.org/v1", SECRET, "unencrypted"),
        ("https://host/v1", "two\nlines", "characters that no key has"),
        ("http://host:abc/v1", "", r"is not an http.*http://HOST:PORT/v1"),
        ("http://[::1/v1", "", "is not an http"),
        ("ftp://host", "", "is not an http"),
        ("local:smollm2-135m", "", "is not an http"),
    ],
)
def test_addresses_that_are_none_or_would_give_secrets_away_are_refused(url, key, expected):
    with pytest.raises(ConfigError, match=expected) as caught:
        Endpoint(url, "m", key)
    for secret in ("password@", "abc/v1?", SECRET, "two\nlines"):
        assert secret not in str(caught.value)


def test_a_proxy_that_cannot_be_used_is_named(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(ConfigError, match="or ALL_PROXY"):
        Endpoint("https://example.org/v1", "m").complete(EndpointRequest("x", max_tokens=20))


def test_addresses_are_understood_with_and_without_their_ending():
    assert base_url("http://localhost:8000/v1/") == base_url("http://localhost:8000/v1/chat/completions")


def test_endpoint_and_key_come_from_the_environment(monkeypatch):
    monkeypatch.setenv(ENDPOINT, "http://localhost:1/v1")
    monkeypatch.delenv(ENDPOINT_MODEL, raising=False)
    with pytest.raises(ConfigError, match=ENDPOINT_MODEL):
        chosen_endpoint()
    with FakeEndpoint(lambda *_: "x") as fake:
        for name, value in ((ENDPOINT, fake.url), (ENDPOINT_MODEL, "m"), (KEY, SECRET)):
            monkeypatch.setenv(name, value)
        chosen_endpoint().complete(EndpointRequest("x", max_tokens=20))
    assert fake.headers[0]["Authorization"] == f"Bearer {SECRET}"
