"""Access control: keeps other sites and other machines out of a server on your own machine.

A page elsewhere can make your browser talk to 127.0.0.1, and with DNS rebinding even read the answers. So every request
must name a host that we know (`Host`), every write must come from our own pages (`Origin`) and carry the key of this
run of the server, a random cookie that each page sets (SameSite=Strict). Beyond loopback every request must carry a
token, which the printed address transfers once to a second cookie.

A write is any request but GET and HEAD, callbacks of pages included. Its body has a stated length of at most `MAX_BODY`
bytes, checked before it is read. `refuse_callback` checks the shape of a callback's body before Dash reads it.
"""

import hmac
from collections.abc import Callable, Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from dashboard.answers import is_list, is_object
from interp.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
COOKIE = "workbench-token"
MAX_BODY = 1_000_000
"""Bytes that the body of a request may have."""
Refusal = tuple[str, str]
"""HTTP status, and a sentence for the reader."""
READS = ("GET", "HEAD")

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

StartResponse = Callable[..., Any]
WSGIApp = Callable[["WSGIEnvironment", StartResponse], Iterable[bytes]]


def is_loopback(host: str) -> bool:
    """Return True when only this machine can reach a server bound to `host`."""
    return host in LOOPBACK or host.startswith("127.")


def check_binding(host: str, token: str | None) -> None:
    """Refuse to listen to other machines without a token. Raises `ConfigError`."""
    if not is_loopback(host) and not token:
        raise ConfigError(
            f"host {host!r} lets other machines in and no token was set; give a token of your own, or keep 127.0.0.1"
        )
    if token is not None and len(token) < 16:
        raise ConfigError(f"a token needs at least 16 characters, got {len(token)}; make a longer one")


def content_security_policy(script_hashes: Iterable[str]) -> str:
    """Return the policy: everything from this server, nothing from elsewhere.

    Styles may be inline: figures, tables and layout set them on elements. Nothing is compiled from text: no figure uses
    Plotly's WebGL traces, which would need `unsafe-eval`.
    """
    rules = {
        "default-src": "'self'",
        "script-src": " ".join(["'self'", *script_hashes]),
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "worker-src": "'self' blob:",
        "connect-src": "'self'",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'self'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


class Guard:
    """WSGI middleware: known hosts, our own origin and the run's key on writes, the token, body size, and the headers.

    `hosts` are names without port that `Host` may carry, besides the loopback ones. `run_key` is the random key of this
    run of the server; without one, writes need none. `policy` is asked at every answer: Dash adds its router's inline
    script, and with it a hash, at the first request.
    """

    def __init__(
        self,
        app: WSGIApp,
        *,
        policy: Callable[[], str],
        hosts: Iterable[str] = (),
        token: str | None = None,
        run_key: str | None = None,
    ):
        self.app, self.policy, self.token, self.run_key = app, policy, token, run_key
        self.hosts = {*LOOPBACK, *hosts}
        self.headers = [
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "SAMEORIGIN"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ]

    def __call__(self, environ: "WSGIEnvironment", start_response: StartResponse) -> Iterable[bytes]:
        stranger = self._stranger(environ)
        refusal = stranger or self._refused_write(environ)
        if refusal:
            body = refusal[1].encode()
            headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
            # a page of an earlier run of the server gets the key of this one, so that its next write succeeds
            renewed = [] if stranger else self._run_cookie(environ)
            start_response(refusal[0], headers + self._headers() + renewed)
            return [body]

        def start(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> object:
            ours = self._headers()
            names = {name.lower() for name, _ in ours}
            others = [(name, value) for name, value in headers if name.lower() not in names]
            cookies = self._new_cookie(environ) + self._run_cookie(environ)
            return start_response(status, others + ours + cookies, exc_info)

        return self.app(environ, start)

    def _headers(self) -> list[tuple[str, str]]:
        return [("Content-Security-Policy", self.policy()), *self.headers]

    def _stranger(self, environ: "WSGIEnvironment") -> Refusal | None:
        """Return the refusal of a request from another site or another machine."""
        host = environ.get("HTTP_HOST", "")
        if _name(host) not in self.hosts:
            return _FORBIDDEN, "This server answers only to its own address; open the one printed when it started.\n"
        writes = environ["REQUEST_METHOD"] not in READS
        foreign = not _same_origin(environ.get("HTTP_ORIGIN"), host)
        if writes and (foreign or environ.get("HTTP_SEC_FETCH_SITE") == "cross-site"):
            return _FORBIDDEN, "This request came from another site.\n"
        if self.token and not self._has_token(environ):
            return _FORBIDDEN, "Open the address with its token, as printed when the server started.\n"
        return None

    def _refused_write(self, environ: "WSGIEnvironment") -> Refusal | None:
        """Return the refusal of a write without the run's key, or with a body that is too large."""
        if environ.get("HTTP_TRANSFER_ENCODING"):
            return "411 Length Required", "A request with a body must state its length (Content-Length).\n"
        length = environ.get("CONTENT_LENGTH") or "0"
        if not (length.isascii() and length.isdigit()):
            return "400 Bad Request", f"Content-Length should be a whole number, found {length[:40]!r}.\n"
        if len(length) > 12 or int(length) > MAX_BODY:
            return "413 Content Too Large", f"The body of a request may have {MAX_BODY:,} bytes; send a smaller one.\n"
        if environ["REQUEST_METHOD"] in READS or not self.run_key:
            return None
        if not hmac.compare_digest(_cookie(environ, _run_cookie_name(environ)).encode(), self.run_key.encode()):
            return (
                _FORBIDDEN,
                "The server was started anew since this page was loaded; reload the page and try again.\n",
            )
        return None

    def _run_cookie(self, environ: "WSGIEnvironment") -> list[tuple[str, str]]:
        name = _run_cookie_name(environ)
        if not self.run_key or _cookie(environ, name) == self.run_key:
            return []
        return [("Set-Cookie", f"{name}={self.run_key}; Path=/; HttpOnly; SameSite=Strict")]

    def _has_token(self, environ: "WSGIEnvironment") -> bool:
        assert self.token
        tokens = (_cookie(environ, COOKIE), _query_token(environ))
        return any(hmac.compare_digest(token.encode(), self.token.encode()) for token in tokens)

    def _new_cookie(self, environ: "WSGIEnvironment") -> list[tuple[str, str]]:
        if not self.token or not _query_token(environ):
            return []
        return [("Set-Cookie", f"{COOKIE}={self.token}; Path=/; HttpOnly; SameSite=Strict")]


def refuse_callback(body: object, callbacks: Mapping[str, Mapping[str, Any]]) -> Refusal | None:
    """Return the refusal of a callback's body that does not have the shape of any of `callbacks`, by output."""
    if not is_object(body) or not isinstance(body.get("output"), str):
        return "400 Bad Request", "A callback is a JSON object with an `output`.\n"
    known = callbacks.get(body["output"])
    if known is None:
        return "404 Not Found", "There is no such callback; reload the page.\n"
    for part, expected in (("inputs", known["inputs"]), ("state", known["state"])):
        values = body.get(part, [])
        if not is_list(values) or len(values) != len(expected) or not all(map(_is_value, values)):
            return "400 Bad Request", f"This callback takes {len(expected)} {part}, each with an `id` and `property`.\n"
    outputs, changed = body.get("outputs", []), body.get("changedPropIds", [])
    if not _is_value(outputs) and not (is_list(outputs) and all(map(_is_value, outputs))):
        return "400 Bad Request", "The outputs of a callback each have an `id` and a `property`.\n"
    if not is_list(changed) or not all(isinstance(name, str) for name in changed):
        return "400 Bad Request", "`changedPropIds` is a list of texts.\n"
    return None


def _is_value(value: object) -> bool:
    """Return True for `{"id", "property", ...}`, and for a list of them (an input of a pattern)."""
    if is_list(value):
        return all(is_object(element) and _is_value(element) for element in value)
    return is_object(value) and isinstance(value.get("id"), str | dict) and isinstance(value.get("property"), str)


_FORBIDDEN = "403 Forbidden"


def _cookie(environ: "WSGIEnvironment", name: str) -> str:
    try:
        cookies = SimpleCookie(environ.get("HTTP_COOKIE", ""))
    except CookieError:  # some other server on this host set a cookie that is none
        return ""
    return cookies[name].value if name in cookies else ""


def _run_cookie_name(environ: "WSGIEnvironment") -> str:
    """Return the name of the cookie with the run's key: one per port, since the ports of a host share their cookies."""
    try:
        port = urlsplit(f"//{environ.get('HTTP_HOST', '')}").port
    except ValueError:
        port = None
    return f"workbench-run-{port or 80}"


def _name(host: str) -> str:
    """Return the host without its port; `[::1]:80` -> `::1`."""
    return (urlsplit(f"//{host}").hostname or "") if host else ""


def _same_origin(origin: str | None, host: str) -> bool:
    """Return True when a write has no `Origin` (no browser sent it across sites) or one that names its own host."""
    return origin is None or urlsplit(origin).netloc == host


def _query_token(environ: "WSGIEnvironment") -> str:
    return parse_qs(environ.get("QUERY_STRING", "")).get("token", [""])[0]
