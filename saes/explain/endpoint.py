"""The language model that is asked: one at an OpenAI-compatible address that environment variables name. Torch-free.

    endpoint = chosen_endpoint()
    endpoint.complete(EndpointRequest("What is 1 + 1?", max_tokens=20))

Status 429 (after its `Retry-After`), 408 and 5xx, timeouts, broken connections and replies that are not a chat
completion are retried after growing pauses. Every other refusal is an error at once, with the next move. Redirects are
not followed, so the key is sent to the given address only, and over plain http only to this machine.
"""

import ipaddress
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from interp.artifacts import hash_json
from interp.errors import ConfigError, MissingError, ResourceError

if TYPE_CHECKING:
    import httpx

ENDPOINT, ENDPOINT_MODEL, KEY = "WORKBENCH_ENDPOINT", "WORKBENCH_ENDPOINT_MODEL", "WORKBENCH_API_KEY"
"""Environment variables with the base URL, the name of the model there, and the key where one is needed."""
TIMEOUT = 600.0
"""Seconds to wait for a reply: a model on a processor reads slowly."""
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each further attempt."""
LONGEST_PAUSE = 60.0
"""Longest pause that a server may ask for, in seconds."""
_TRANSIENT = (408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529)


@dataclass(frozen=True)
class EndpointRequest:
    """One user message, answered by the most likely tokens."""

    content: str
    max_tokens: int


@dataclass(frozen=True)
class EndpointReply:
    """Reply to one request."""

    text: str
    tokens_in: int
    tokens_out: int
    cut: bool
    """True when the reply was cut off at the limit of tokens."""


def named_endpoint() -> tuple[str, str] | None:
    """Return address and model that the environment names; None where it lacks one of them."""
    where, model = (os.environ.get(name, "").strip() for name in (ENDPOINT, ENDPOINT_MODEL))
    return (where, model) if where and model else None


def chosen_endpoint(budget: int | None = None) -> "Endpoint":
    """Return the endpoint that the environment names, with its key. Raises `ConfigError` where it names none."""
    named = named_endpoint()
    if named is None:
        raise ConfigError(
            f"no endpoint is chosen: set ${ENDPOINT} to an OpenAI-compatible base URL, such as "
            f"http://localhost:8080/v1, and ${ENDPOINT_MODEL} to the name of its model"
        )
    return Endpoint(*named, os.environ.get(KEY, ""), budget=budget)


class Endpoint:
    """One model at one address. At most `budget` requests are sent, failed attempts included."""

    def __init__(
        self, url: str, model: str, key: str = "", *, budget: int | None = None, timeout: float = TIMEOUT,
        sleep: Callable[[float], None] = time.sleep,
    ):  # fmt: skip
        self.where, self.model, self._key = base_url(url), model, key.strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise ConfigError(f"${KEY} holds characters that no key has; set it to the key alone")
        self._local = is_this_machine(urlsplit(self.where).hostname or "")
        if self._key and self.where.startswith("http://") and not self._local:
            raise ConfigError(
                f"the key in ${KEY} would cross the network unencrypted to {self.where}; use an https address, or "
                "unset the variable if the endpoint needs no key"
            )
        self._budget, self._attempts, self._timeout, self._sleep = budget, count(), timeout, sleep
        self._answered = self._newer = False

    def key_of(self, request: EndpointRequest) -> str:
        """Return the sha256 of what determines a reply: message, limit, address and model."""
        return hash_json({"endpoint": self.where, "model": self.model, **asdict(request)})

    def complete(self, request: EndpointRequest) -> EndpointReply:
        """Return the reply to a request.

        Raises `ConfigError` (refused, and a retry cannot help), `MissingError` (nothing at this address),
        `ResourceError` (every attempt failed, or the budget is spent).
        """
        pauses = iter(PAUSES)
        while True:
            try:
                return self._ask(request)
            except _Again as error:
                pause = next(pauses, None)
                if pause is None:
                    raise ResourceError(
                        f"{self.where} did not answer in {len(PAUSES) + 1} attempts ({error}); run the same command "
                        "again later to go on"
                    ) from None
                self._sleep(min(pause if error.wait is None else error.wait, LONGEST_PAUSE))

    @cached_property
    def _client(self) -> "httpx.Client":
        """The client; on this machine without the proxies of the environment."""
        import httpx

        headers = {"User-Agent": "interp-workbench"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        timeout = httpx.Timeout(self._timeout, connect=min(self._timeout, 10.0))
        try:
            return httpx.Client(base_url=self.where, headers=headers, timeout=timeout, trust_env=not self._local)
        except (httpx.InvalidURL, ImportError) as error:  # without `socksio` no SOCKS proxy of the environment
            raise ConfigError(f"{self.where} cannot be asked: {error}; correct the address, or ALL_PROXY") from None

    def _ask(self, request: EndpointRequest) -> EndpointReply:
        """Send a request; and again where the server has newer names for the fields."""
        import httpx

        if next(self._attempts) == self._budget:
            raise ResourceError(
                f"the budget of {self._budget:,} requests is spent; the replies so far are saved: run the same command "
                "again to go on, with a larger --max-requests"
            )
        limit = {"max_completion_tokens": request.max_tokens}
        older = {"max_tokens": request.max_tokens, "temperature": 0.0}
        message = {"role": "user", "content": request.content}
        body = {"model": self.model, "messages": [message], **(limit if self._newer else older)}
        try:
            response = self._client.post("chat/completions", json=body)
        except httpx.HTTPError as error:
            problem = self._redacted(str(error)) or type(error).__name__
            if isinstance(error, httpx.ConnectError) and not self._answered:
                raise MissingError(
                    f"nothing answers at {self.where} ({problem}); start the server, or correct the address"
                ) from None
            raise _Again("timed out" if isinstance(error, httpx.TimeoutException) else problem) from None
        if response.status_code == 200:
            self._answered = True
            return read_completion(response.content)
        if response.status_code == 400 and "max_completion_tokens" in response.text and not self._newer:
            self._newer = True
            return self._ask(request)
        raise self._refusal(response)

    def _refusal(self, response: "httpx.Response") -> Exception:
        """Return the exception for an HTTP status."""
        status, answer = response.status_code, " ".join(self._redacted(response.text[:300]).split())
        why = f"status {status}: {answer}" if answer else f"status {status}"
        if status in _TRANSIENT:
            wait = response.headers.get("Retry-After", "")
            return _Again(why, float(wait) if wait.isdecimal() else None)
        if status in (401, 403):
            what = f"refused the key in ${KEY}" if self._key else "wants a key"
            return ConfigError(f"{self.where} {what} ({why}); set ${KEY} to a valid one")
        if 300 <= status < 400:
            return ConfigError(f"{self.where} redirects elsewhere ({why}); give the final address")
        if status == 404:
            return ConfigError(
                f"{self.where} has no chat completions or no model {self.model!r} ({why}); the address usually ends in "
                "/v1"
            )
        return ConfigError(f"{self.where} refused the request ({why})")

    def _redacted(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


class _Again(Exception):
    """Failure that is worth another attempt after `wait` seconds; None for the usual pause."""

    def __init__(self, problem: str, wait: float | None = None):
        self.wait = wait
        super().__init__(problem)


def base_url(url: str) -> str:
    """Return the base address, such as `http://host/v1`, without a final `/` or `/chat/completions`.

    Raises `ConfigError` on an address that contains secrets, or that is not http or https.
    """
    try:
        parts = urlsplit(url)
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ConfigError("give the address without user, password or query: it is written into the result; "
                              f"a key belongs into ${KEY} (got host {parts.hostname!r})")  # fmt: skip
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/chat/completions')}"
    except ValueError:  # of a port or an IPv6 address that is none
        pass
    raise ConfigError(f"{url!r} is not an http or https address; write it as http://HOST:PORT/v1")


def is_this_machine(host: str) -> bool:
    """Return whether a host is the loopback interface, by name or by number."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def read_completion(raw: bytes) -> EndpointReply:
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
    return EndpointReply(text, counts[0], counts[1], choice.get("finish_reason") == "length")
