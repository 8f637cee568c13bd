"""Providers of replies: any OpenAI-compatible endpoint, or a model on this machine. Torch-free.

    provider = open_provider("http://localhost:8000/v1", "my-model")  # or open_provider("local:smollm2-135m")
    provider.complete(ProviderRequest("What is 1 + 1?", max_tokens=20), before_send=budget.take)

`Endpoint` speaks OpenAI's `/chat/completions` protocol, by httpx with retries by tenacity. Status 429 (after its
`Retry-After`), 408 and 5xx, timeouts, broken connections and replies that are not a chat completion are retried after
growing pauses. Every other refusal is an error at once, with the next move. Redirects are not followed, so the key is
sent to the given address only, and over plain http only to this machine.

With a `LocalModel`, on this machine, no text leaves it, and the only cost is time.
"""

import ipaddress
import json
import os
import re
import ssl
import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from interp.errors import ConfigError, MissingError, ResourceError, UnknownNameError
from saes.explain.asking import Provider, ProviderReply, ProviderRequest

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

    from interp.models.hooked import HookedModel

CHARACTERS_PER_TOKEN = 3.5
"""Bytes per token that the estimate assumes. English and code have about 4; a cost should be estimated too high."""
FIRST_PAUSE = 0.5
"""Seconds before the first retry."""
LONGEST_PAUSE = 60.0
"""Longest pause before a retry, in seconds."""
LARGEST_REPLY = 4 << 20
"""Largest reply that is read, in bytes."""
_TRANSIENT = (408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529)


ENDPOINT, ENDPOINT_MODEL = "WORKBENCH_ENDPOINT", "WORKBENCH_ENDPOINT_MODEL"
"""Environment variables with the provider that pages ask for labels, and the name of its model."""


def chosen_endpoint() -> tuple[str, str | None] | None:
    """Return the provider and model that the environment names; None where it names none.

    Who sets the variables agrees that excerpts of recorded text, prompts and samples are sent there.
    """
    where = os.environ.get(ENDPOINT, "").strip()
    return (where, os.environ.get(ENDPOINT_MODEL, "").strip() or None) if where else None


def required_endpoint() -> tuple[str, str | None]:
    """Return the provider and model that the environment names. Raises `ConfigError` where it names none."""
    chosen = chosen_endpoint()
    if chosen is None:
        raise ConfigError(
            f"no endpoint is chosen: set ${ENDPOINT} to an OpenAI-compatible base URL, or local:MODEL, and "
            f"${ENDPOINT_MODEL} to the name of its model"
        )
    return chosen


class Endpoint:
    """One model at one address."""

    remote = True
    starts = False
    """The protocol has no field for the beginning of a reply, and servers treat unfinished replies differently."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None = None,
        key_variable: str = "",
        concurrency: int = 4,
        timeout: float = 60.0,
        retries: int = 5,
        sleep: Callable[[float], None] = time.sleep,
    ):
        for name, number, least in (("concurrency", concurrency, 1), ("retries", retries, 0)):
            if number < least:
                raise ConfigError(f"{name} must be at least {least}, got {number}")
        if timeout <= 0:
            raise ConfigError(f"timeout must be above 0 seconds, got {timeout}")
        key = (key or "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ConfigError(f"${key_variable} holds characters that no key has; set it to the key alone")
        self.where = base_url(url)
        self.model, self.concurrency, self.timeout, self.retries = model, concurrency, timeout, retries
        self._local = is_this_machine(urlsplit(self.where).hostname or "")
        if key and self.where.startswith("http://") and not self._local:
            raise ConfigError(
                f"the key in ${key_variable} would cross the network unencrypted to {self.where}; use an https "
                "address, or unset the variable if the endpoint needs no key"
            )
        self._key, self._key_variable, self._sleep = key, key_variable, sleep
        self._client = self._open()
        self._answered = False
        self._limit_name, self._has_temperature = "max_tokens", True

    def __repr__(self) -> str:
        return f"Endpoint({self.where!r}, {self.model!r})"

    @property
    def identity(self) -> dict[str, str]:
        return {"endpoint": self.where, "model": self.model}

    def count_tokens(self, text: str) -> int:
        """Estimate the number of tokens of a text: the tokenizer is not known."""
        return -int(-len(text.encode("utf-8", "replace")) // CHARACTERS_PER_TOKEN)

    def complete(self, request: ProviderRequest, *, before_send: Callable[[], None]) -> ProviderReply:
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

        attempts = Retrying(
            retry=retry_if_exception_type(_Again),
            stop=stop_after_attempt(self.retries + 1),
            wait=_pause,
            sleep=self._sleep,
            retry_error_callback=self._give_up,
        )
        reply = attempts(self._ask, request, before_send)
        self._answered = True
        return reply

    def _open(self) -> "httpx.Client":
        """Open the client; on this machine without the proxies of the environment."""
        import httpx

        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "interp-workbench"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            return httpx.Client(
                headers=headers, timeout=self.timeout, trust_env=not self._local, follow_redirects=False
            )
        except ImportError as error:  # a SOCKS proxy in the environment
            raise ConfigError(f"the proxy of the environment cannot be used ({error}); unset ALL_PROXY") from None

    def _give_up(self, state: "RetryCallState") -> ProviderReply:
        problem = state.outcome.exception() if state.outcome else None
        raise ResourceError(
            f"{self.where} did not answer in {state.attempt_number} attempts ({problem}); the replies so far are "
            "saved: run the same command again later, with a smaller --concurrency or a longer --timeout"
        ) from None

    def _ask(self, request: ProviderRequest, before_send: Callable[[], None]) -> ProviderReply:
        """Send a request, and again at once for each field that the server rejects and that can be adapted."""
        while True:
            before_send()
            body = self._body(request)
            status, headers, raw = self._post(body)
            if status == 200:
                return read_completion(raw)
            message = self._error_message(raw)
            if not (status == 400 and self._adapt(message, body)):
                raise self._refusal(status, headers.get("Retry-After"), message)

    def _body(self, request: ProviderRequest) -> bytes:
        body: dict[str, object] = {"model": self.model, "messages": [{"role": "user", "content": request.content}]}
        body[self._limit_name] = request.max_tokens
        if self._has_temperature:
            body["temperature"] = request.temperature
        return json.dumps(body).encode()

    def _post(self, body: bytes) -> "tuple[int, httpx.Headers, bytes]":
        """Return status, headers and at most `LARGEST_REPLY` bytes of the body."""
        import httpx

        raw = b""
        try:
            with self._client.stream("POST", f"{self.where}/chat/completions", content=body) as response:
                for part in response.iter_bytes():
                    raw += part
                    if len(raw) > LARGEST_REPLY:
                        break
                return response.status_code, response.headers, raw[:LARGEST_REPLY]
        except httpx.InvalidURL as error:
            raise ConfigError(f"{self.where} is not an address ({error}); write it as http://HOST:PORT/v1") from None
        except httpx.HTTPError as error:
            raise self._broken(error) from None

    def _refusal(self, status: int, retry_after: str | None, message: str) -> Exception:
        """Return the exception for an HTTP status."""
        if status in _TRANSIENT:
            return _Again(f"status {status}{message}", _seconds(retry_after))
        if status in (401, 403):
            what = f"refused the key in ${self._key_variable}" if self._key else "wants a key"
            return ConfigError(f"{self.where} {what} (status {status}{message}); set ${self._key_variable or 'KEY'} to "
                               "a valid one, or name another variable with --key-variable")  # fmt: skip
        if status in (301, 302, 303, 307, 308):
            return ConfigError(f"{self.where} redirects elsewhere (status {status}); give the final address")
        if status == 404:
            return ConfigError(
                f"{self.where} has no chat completions or no model {self.model!r} (status 404{message}); the address "
                "usually ends in /v1"
            )
        return ConfigError(f"{self.where} refused the request (status {status}{message})")

    def _adapt(self, message: str, sent: bytes) -> bool:
        """Adapt the fields to newer models, which renamed the token limit and accept no temperature.

        Returns False when neither is the problem. Quotes in a prompt are escaped, so an unescaped name in the body
        `sent` is the name of a field.
        """
        if "max_completion_tokens" in message and b'"max_tokens":' in sent:
            self._limit_name = "max_completion_tokens"
        elif "temperature" in message and "upport" in message and b'"temperature":' in sent:
            self._has_temperature = False
        else:
            return False
        return True

    def _broken(self, error: "httpx.HTTPError") -> Exception:
        """Return the exception for a failed connection."""
        import httpx

        untrusted = next((e for e in _causes(error) if isinstance(e, ssl.SSLCertVerificationError)), None)
        if untrusted is not None:
            return ConfigError(f"the certificate of {self.where} cannot be trusted ({untrusted.verify_message})")
        if isinstance(error, httpx.TimeoutException):
            return _Again("timed out")
        problem = self._redacted(str(error)) or type(error).__name__
        if isinstance(error, httpx.ConnectError) and not self._answered:
            return MissingError(
                f"nothing answers at {self.where} ({problem}); start the server, or correct the address"
            )
        return _Again(problem)

    def _error_message(self, body: bytes) -> str:
        """Return `: message` of an error body, on one line and without the key; empty when there is no message."""
        text = body[:65536].decode("utf-8", "replace")
        try:
            error = json.loads(text)["error"]
            text = str(error["message"] if isinstance(error, dict) else error)
        except (ValueError, KeyError, TypeError, RecursionError):
            text = re.sub(r"<[^>]*>", " ", text)
        text = " ".join(self._redacted(text).split())[:300]
        return f": {text}" if text else ""

    def _redacted(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


class _Again(Exception):
    """Failure that is worth another attempt after `wait` seconds; None for the usual pause."""

    def __init__(self, problem: str, wait: float | None = None):
        self.wait = wait
        super().__init__(problem)


def _pause(state: "RetryCallState") -> float:
    """Return the seconds until the next attempt: as the server asked, else doubled each time, up to `LONGEST_PAUSE`."""
    problem = state.outcome.exception() if state.outcome else None
    wait = problem.wait if isinstance(problem, _Again) else None
    return min(FIRST_PAUSE * 2 ** (state.attempt_number - 1) if wait is None else wait, LONGEST_PAUSE)


def _causes(error: BaseException) -> list[BaseException]:
    """Return an exception and its chain of causes."""
    causes: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in causes:
        causes.append(current)
        current = current.__cause__ or current.__context__
    return causes


def base_url(url: str) -> str:
    """Return the base address, such as `http://host/v1`, without a final `/` or `/chat/completions`.

    Raises `ConfigError` on an address that contains secrets, or that is not http or https.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"{url!r} is not an address ({error}); write it as http://HOST:PORT/v1") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError("give the address without user, password or query: it is written into the result; "
                          f"a key belongs into an environment variable (got host {parts.hostname!r})")  # fmt: skip
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"expected an http or https address, got {url!r}; write it as http://HOST/v1")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/chat/completions')}"


def is_this_machine(host: str) -> bool:
    """Return whether a host is the loopback interface, by name or by number."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def read_completion(raw: bytes) -> ProviderReply:
    """Return text and token counts of a chat completion. Raises `_Again` when the body is not one."""
    try:
        body = json.loads(raw)
        choice = body["choices"][0]
        text = choice["message"].get("content") or ""
        usage = body.get("usage") or {}
        counts = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
        if not isinstance(text, str):
            raise TypeError(f"content is a {type(text).__name__}")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        shown = raw[:80].decode("utf-8", "replace")
        raise _Again(f"no chat completion: {shown!r} ({type(error).__name__})") from None
    return ProviderReply(text, counts[0], counts[1], choice.get("finish_reason") == "length")


def _seconds(retry_after: str | None) -> float | None:
    """Return `Retry-After` in seconds; None when it is missing or a date."""
    try:
        return max(0.0, float(retry_after)) if retry_after else None
    except ValueError:
        return None


LOCAL = "local:"
KEY_VARIABLE = "WORKBENCH_API_KEY"


def open_provider(
    spec: str,
    model: str | None = None,
    *,
    key_variable: str = KEY_VARIABLE,
    concurrency: int = 4,
    timeout: float = 60.0,
    retries: int = 5,
    device: str | None = None,
) -> Provider:
    """Return the provider that a spec names: a base URL together with a model's name, or `local:MODEL`.

    The key is read from the environment variable `key_variable`, when that is set, and is never written to disk.
    Raises `UnknownNameError`, `ConfigError` (no model named, or an address that contains secrets).
    """
    if spec.startswith(LOCAL):
        if model is not None:
            raise ConfigError(f"{spec} names its model already; leave --model {model} out")

        return LocalModel(spec.removeprefix(LOCAL), device=device)
    if not spec.startswith(("http://", "https://")):
        raise UnknownNameError("provider", spec, ["local:smollm2-135m", "http://HOST/v1", "https://HOST/v1"])
    if not model:
        raise ConfigError(f"{spec} may serve several models and none was named; add --model NAME")
    key = os.environ.get(key_variable) if key_variable else None
    return Endpoint(
        spec, model, key=key, key_variable=key_variable, concurrency=concurrency, timeout=timeout, retries=retries
    )


class LocalModel:
    """A chat model on this machine, given by its name and loaded at the first request."""

    remote = False
    starts = True
    where = "this machine"
    concurrency = 1
    """One request at a time: two would share the same cores."""

    def __init__(self, spec: str, *, device: str | None = None):
        self.model, self._device = spec, device

    @cached_property
    def _loaded(self) -> "HookedModel":
        from interp.models.loading import load_model

        return load_model(self.model, device=self._device, attention="sdpa")

    @property
    def identity(self) -> dict[str, str]:
        from interp.models.adapter import weight_hash

        return {"local": self.model, "weight_hash": weight_hash(self._loaded)}

    def count_tokens(self, text: str) -> int:
        """Return the exact number of tokens, chat template included."""
        from interp.models.generation import chat_tokens

        return chat_tokens(self._loaded, text).shape[1]

    def complete(self, request: ProviderRequest, *, before_send: Callable[[], None]) -> ProviderReply:
        from interp.models.generation import complete_chat

        before_send()
        completion = complete_chat(
            self._loaded,
            request.content,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            start=request.start,
            bits=request.bits,
        )
        return ProviderReply(*completion)
