"""The endpoint: what is asked again, what is given up with the next move, and that the key goes nowhere else."""

import json
import socket

import pytest
from fake_endpoint import FakeEndpoint, completion

from interp.errors import ConfigError, MissingError, ResourceError, UnknownNameError
from saes.explain.asking import Budget, ProviderRequest
from saes.explain.providers import Endpoint, base_url, open_provider

KEY = "sk-secret-of-the-test-123"


def ask(fake: FakeEndpoint, *, budget: int = 100, **settings):
    """(reply, pauses) of one question."""
    pauses: list[float] = []
    endpoint = Endpoint(fake.url, "m", sleep=pauses.append, **{"retries": 3, "timeout": 5.0, **settings})
    reply = endpoint.complete(ProviderRequest("hello", max_tokens=20), before_send=Budget(budget).take)
    return reply, pauses


def failing_first(n: int, failure, then: str = "fine"):
    return lambda prompt, number: failure if number < n else then


def test_the_request_and_the_reply_are_the_documented_ones():
    with FakeEndpoint(lambda prompt, number: f"echo {prompt}") as fake:
        reply, _ = ask(fake, key=KEY, key_variable="K")
    assert (reply.text, reply.tokens_in, reply.tokens_out, reply.cut) == ("echo hello", 100, 7, False)
    expected = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20, "temperature": 0.0}
    assert fake.bodies == [expected]
    assert fake.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_no_key_no_header():
    with FakeEndpoint(lambda *_: "x") as fake:
        ask(fake)
    assert "Authorization" not in fake.headers[0]


@pytest.mark.parametrize(
    "failure",
    [
        (429, {}, b'{"error": {"message": "slow down"}}'),
        (500, {}, b"oops"),
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
        FakeEndpoint(lambda *_: (503, {}, b'{"error": "overloaded"}')) as fake,
        pytest.raises(ResourceError, match=r"4 attempts \(status 503: overloaded\).*saved"),
    ):
        ask(fake)
    assert len(fake.prompts) == 4


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}, r"refused the key in \$MY_KEY .*\*\*\*"),
        (403, {"error": "no"}, r"refused the key"),
        (404, {"error": {"message": "The model `m` does not exist"}}, r"does not exist.*usually ends in /v1"),
        (400, {"error": {"message": "too long"}}, r"status 400: too long"),
        (302, {}, "redirects elsewhere"),
    ],
)
def test_what_asking_again_cannot_mend_is_given_up_at_once(status, body, expected):
    headers = {"Location": "http://127.0.0.1:9/elsewhere"} if status == 302 else {}
    with (
        FakeEndpoint(lambda *_: (status, headers, json.dumps(body).encode())) as fake,
        pytest.raises(ConfigError, match=expected) as caught,
    ):
        ask(fake, key=KEY, key_variable="MY_KEY")
    assert len(fake.prompts) == 1
    assert KEY not in str(caught.value)


def test_without_a_key_a_401_says_which_variable_to_set():
    with FakeEndpoint(lambda *_: (401, {}, b"")) as fake, pytest.raises(ConfigError, match=r"wants a key.*\$MY_KEY"):
        ask(fake, key_variable="MY_KEY")


def test_where_nobody_listens_there_is_no_waiting():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pauses: list[float] = []
    endpoint = Endpoint(f"http://127.0.0.1:{port}/v1", "m", sleep=pauses.append)
    with pytest.raises(MissingError, match=r"nothing answers at .*start the server"):
        endpoint.complete(ProviderRequest("x", max_tokens=20), before_send=lambda: None)
    assert pauses == []


def test_newer_models_get_the_limit_under_its_new_name():
    def answer(prompt, number):
        body = fake.bodies[number]
        if "max_tokens" in body:
            message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return 400, {}, json.dumps({"error": {"message": message}}).encode()
        if "temperature" in body:
            message = "Unsupported value: 'temperature' does not support 0.0 with this model."
            return 400, {}, json.dumps({"error": {"message": message}}).encode()
        return "fine"

    with FakeEndpoint(answer) as fake:
        reply, pauses = ask(fake, retries=0)
    assert reply.text == "fine"
    assert pauses == []
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


def test_a_silent_server_is_not_waited_for():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = Endpoint(
            f"http://127.0.0.1:{silent.getsockname()[1]}", "m", timeout=0.2, retries=1, sleep=lambda _: None
        )
        with pytest.raises(ResourceError, match=r"2 attempts.*timed out"):
            endpoint.complete(ProviderRequest("x", max_tokens=20), before_send=lambda: None)


@pytest.mark.parametrize(
    ("url", "settings", "expected"),
    [
        ("http://user:password@host/v1", {}, "without user, password"),
        ("https://host/v1?key=abc", {}, "without user, password"),
        ("http://example.org/v1", {"key": KEY, "key_variable": "K"}, "unencrypted"),
        ("https://host/v1", {"key": "two\nlines", "key_variable": "K"}, "characters that no key has"),
        ("https://host/v1", {"concurrency": 0}, "concurrency must be at least 1"),
    ],
)
def test_addresses_that_would_give_secrets_away_are_refused(url, settings, expected):
    with pytest.raises(ConfigError, match=expected) as caught:
        Endpoint(url, "m", **settings)
    for secret in ("password@", "abc", KEY, "two\nlines"):
        assert secret not in str(caught.value)


@pytest.mark.parametrize("url", ["http://host:abc/v1", "http://[::1/v1"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match=r"is not an address.*http://HOST:PORT/v1"):
        Endpoint(url, "m").complete(ProviderRequest("x", max_tokens=20), before_send=lambda: None)


def test_a_proxy_that_cannot_be_used_is_named(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(ConfigError, match="unset ALL_PROXY"):
        Endpoint("https://example.org/v1", "m")


def test_addresses_are_understood_with_and_without_their_ending():
    assert base_url("http://localhost:8000/v1/") == base_url("http://localhost:8000/v1/chat/completions")
    assert repr(Endpoint("http://localhost:1/v1", "m", key=KEY)) == "Endpoint('http://localhost:1/v1', 'm')"


@pytest.mark.parametrize(
    ("spec", "model", "kind", "expected"),
    [
        ("smollm2-135m", None, UnknownNameError, "local:smollm2-135m"),
        ("ftp://host", "m", UnknownNameError, "unknown provider"),
        ("http://host/v1", None, ConfigError, "add --model"),
        ("local:smollm2-135m", "other", ConfigError, "names its model already"),
    ],
)
def test_providers_that_cannot_be_are_refused(spec, model, kind, expected):
    with pytest.raises(kind, match=expected):
        open_provider(spec, model)


def test_the_key_comes_from_the_environment_alone(monkeypatch):
    monkeypatch.setenv("SOME_KEY", KEY)
    with FakeEndpoint(lambda *_: "x") as fake:
        provider = open_provider(fake.url, "m", key_variable="SOME_KEY")
        provider.complete(ProviderRequest("x", max_tokens=20), before_send=lambda: None)
    assert fake.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in json.dumps(provider.identity)
