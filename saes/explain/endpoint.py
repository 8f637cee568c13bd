"""A chat endpoint that speaks OpenAI's `/chat/completions`, over the standard library alone. Torch-free.

Asked again, with growing pauses: 429 (after its `Retry-After`), 408, 5xx, timeouts, broken connections, replies that
are no chat completion. Given up at once: everything that asking again cannot mend. Redirects are not followed, so the
key goes nowhere but to the address given, and over plain http only to this machine.
"""

import http.client
import ipaddress
import json
import re
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener
from urllib.request import Request as HTTPRequest

from interp.errors import ConfigError, MissingError, ResourceError
from saes.explain.protocol import Reply, Request

CHARACTERS_PER_TOKEN = 3.5
"""English and code have about 4; a little too many tokens is the better error in an estimate of cost"""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
LARGEST_REPLY = 4 << 20
_TRANSIENT = (408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529)


class Endpoint:
    """One model at one address."""

    remote = True
    starts = False
    """The protocol has no such field, and servers differ in what they make of an unfinished answer."""

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
        if concurrency < 1 or retries < 0 or timeout <= 0:
            raise ConfigError(
                f"concurrency must be at least 1, retries at least 0 and timeout above 0, "
                f"got {concurrency}, {retries} and {timeout}"
            )
        key = (key or "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ConfigError(f"${key_variable} holds characters that no key has; set it to the key alone")
        self.where = base_url(url)
        self.model, self.concurrency, self.timeout, self.retries = model, concurrency, timeout, retries
        local = is_this_machine(urlsplit(self.where).hostname or "")
        if key and self.where.startswith("http://") and not local:
            raise ConfigError(
                f"the key in ${key_variable} would cross the network unencrypted to {self.where}; use an https "
                "address, or unset the variable if the endpoint needs no key"
            )
        self._key, self._key_variable, self._sleep = key, key_variable, sleep
        self._opener = build_opener(ProxyHandler({}) if local else ProxyHandler(), _NoRedirect())
        self._answered = False
        self._limit_name, self._has_temperature = "max_tokens", True

    def __repr__(self) -> str:
        return f"Endpoint({self.where!r}, {self.model!r})"

    @property
    def identity(self) -> dict[str, str]:
        return {"endpoint": self.where, "model": self.model}

    def count_tokens(self, text: str) -> int:
        """An estimate: the tokenizer is not known."""
        return -int(-len(text.encode("utf-8", "replace")) // CHARACTERS_PER_TOKEN)

    def complete(self, request: Request, *, before_send: Callable[[], None]) -> Reply:
        failures = 0
        while True:
            before_send()
            try:
                reply = self._send(self._body(request))
            except _Adapted:
                continue
            except _Again as again:
                failures += 1
                if failures > self.retries:
                    raise ResourceError(
                        f"{self.where} did not answer in {failures} attempts ({again}); what was answered is kept: run "
                        "the same command again later, with a smaller --concurrency or a longer --timeout"
                    ) from None
                wait = FIRST_PAUSE * 2 ** (failures - 1) if again.wait is None else again.wait
                self._sleep(min(wait, LONGEST_PAUSE))
            else:
                self._answered = True
                return reply

    def _body(self, request: Request) -> bytes:
        body: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": request.content}]}
        body[self._limit_name] = request.max_tokens
        if self._has_temperature:
            body["temperature"] = request.temperature
        return json.dumps(body).encode()

    def _send(self, body: bytes) -> Reply:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "interp-workbench"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = HTTPRequest(f"{self.where}/chat/completions", body, headers, method="POST")
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                return read_completion(response.read(LARGEST_REPLY))
        except HTTPError as error:
            with error:
                said = self._said(_body_of(error))
                if error.code == 400 and self._adapt(said, body):
                    raise _Adapted from None
                raise self._refusal(error.code, error.headers.get("Retry-After"), said) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from None

    def _refusal(self, status: int, retry_after: str | None, said: str) -> Exception:
        """The exception that an HTTP status becomes."""
        if status in _TRANSIENT:
            return _Again(f"status {status}{said}", _seconds(retry_after))
        if status in (401, 403):
            what = f"refused the key in ${self._key_variable}" if self._key else "wants a key"
            return ConfigError(f"{self.where} {what} (status {status}{said}); set ${self._key_variable or 'KEY'} to a "
                               "valid one, or name another variable with --key-variable")  # fmt: skip
        if status in (301, 302, 303, 307, 308):
            return ConfigError(f"{self.where} redirects elsewhere (status {status}); give the final address")
        if status == 404:
            return ConfigError(
                f"{self.where} has no chat completions or no model {self.model!r} (status 404{said}); the address "
                "usually ends in /v1"
            )
        return ConfigError(f"{self.where} refused the request (status {status}{said})")

    def _adapt(self, said: str, sent: bytes) -> bool:
        """Newer models renamed the limit and fix the temperature, and refuse what was `sent` in the old way.

        Quotes in a prompt are escaped, so an unescaped name in the body is that of a field.
        """
        if "max_completion_tokens" in said and b'"max_tokens":' in sent:
            self._limit_name = "max_completion_tokens"
        elif "temperature" in said and "upport" in said and b'"temperature":' in sent:
            self._has_temperature = False
        else:
            return False
        return True

    def _broken(self, error: Exception) -> Exception:
        """The exception that a failed connection becomes."""
        reason = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            return ConfigError(f"the certificate of {self.where} cannot be trusted ({reason.verify_message})")
        if not self._answered and not isinstance(
            reason, TimeoutError | ConnectionResetError | http.client.HTTPException
        ):
            return MissingError(
                f"nothing answers at {self.where} ({self._redacted(str(reason)) or type(reason).__name__}); start the "
                "server, or correct the address"
            )
        return _Again(self._redacted(str(reason)) or type(reason).__name__)

    def _said(self, body: bytes) -> str:
        """`: message` of an error body, on one line, without the key."""
        text = body.decode("utf-8", "replace")
        try:
            error = json.loads(text)["error"]
            text = str(error["message"] if isinstance(error, dict) else error)
        except (ValueError, KeyError, TypeError):
            text = re.sub(r"<[^>]*>", " ", text)
        text = " ".join(self._redacted(text).split())[:300]
        return f": {text}" if text else ""

    def _redacted(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


class _Again(Exception):
    """Worth another attempt; `wait` is in seconds, None for the usual pause."""

    def __init__(self, problem: str, wait: float | None = None):
        self.wait = wait
        super().__init__(problem)


class _Adapted(Exception):
    """Refused for a field that is now sent differently."""


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl) -> None:
        return None


def base_url(url: str) -> str:
    """`http://host/v1`, whatever was typed after it. Raises `ConfigError` on an address that holds secrets."""
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError("give the address without user, password or query: it is written into the result; "
                          f"a key belongs into an environment variable (got host {parts.hostname!r})")  # fmt: skip
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is no http or https address")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/chat/completions')}"


def is_this_machine(host: str) -> bool:
    """Whether a host name is the loopback, by name or number."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def read_completion(raw: bytes) -> Reply:
    """The text and usage of a chat completion. Raises when it is none."""
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
    return Reply(text, counts[0], counts[1], choice.get("finish_reason") == "length")


def _body_of(error: HTTPError) -> bytes:
    """What the server said with its refusal; nothing when the connection broke meanwhile."""
    try:
        return error.read(65536)
    except (OSError, http.client.HTTPException):
        return b""


def _seconds(retry_after: str | None) -> float | None:
    """`Retry-After` in seconds; dates are not read."""
    try:
        return max(0.0, float(retry_after)) if retry_after else None
    except ValueError:
        return None
