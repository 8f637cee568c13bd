"""Access control: other sites and other machines are kept out of a server that runs on your own.

A page elsewhere can make your browser talk to 127.0.0.1, and with DNS rebinding even read the answers. So every request
must name a host that we know (`Host`), every write must come from our own pages (`Origin`), and beyond loopback every
request must carry a token, which the printed address hands over once and a cookie keeps (SameSite=Strict).
"""

import hmac
from collections.abc import Callable, Iterable
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from interp.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
COOKIE = "workbench-token"

StartResponse = Callable[..., Any]
WSGIApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


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
    """WSGI middleware: known hosts, our own origin on writes, the token, and the headers.

    `hosts` are names without port that `Host` may carry, besides the loopback ones. `policy` is asked at every answer:
    Dash adds its router's inline script, and with it a hash, at the first request.
    """

    def __init__(self, app: WSGIApp, *, policy: Callable[[], str], hosts: Iterable[str] = (), token: str | None = None):
        self.app, self.policy, self.token = app, policy, token
        self.hosts = {*LOOPBACK, *hosts}
        self.headers = [
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "SAMEORIGIN"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ]

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        refusal = self._refusal(environ)
        if refusal:
            body = refusal.encode()
            headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
            start_response("403 Forbidden", headers + self._headers())
            return [body]

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            ours = self._headers()
            names = {name.lower() for name, _ in ours}
            others = [(name, value) for name, value in headers if name.lower() not in names]
            return start_response(status, others + ours + self._new_cookie(environ), exc_info)

        return self.app(environ, start)

    def _headers(self) -> list[tuple[str, str]]:
        return [("Content-Security-Policy", self.policy()), *self.headers]

    def _refusal(self, environ: dict[str, Any]) -> str | None:
        host = environ.get("HTTP_HOST", "")
        if _name(host) not in self.hosts:
            return "This server answers only to its own address; open the one that was printed when it started.\n"
        origin = environ.get("HTTP_ORIGIN")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD") and not _same_origin(origin, host):
            return "This request came from another site.\n"
        if environ.get("HTTP_SEC_FETCH_SITE") == "cross-site" and environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return "This request came from another site.\n"
        if self.token and not self._has_token(environ):
            return "Open the address with its token, as printed when the server started.\n"
        return None

    def _has_token(self, environ: dict[str, Any]) -> bool:
        assert self.token
        cookies = SimpleCookie(environ.get("HTTP_COOKIE", ""))
        cookie = cookies[COOKIE].value if COOKIE in cookies else ""
        return any(
            hmac.compare_digest(given.encode(), self.token.encode()) for given in (cookie, _query_token(environ))
        )

    def _new_cookie(self, environ: dict[str, Any]) -> list[tuple[str, str]]:
        if not self.token or not _query_token(environ):
            return []
        return [("Set-Cookie", f"{COOKIE}={self.token}; Path=/; HttpOnly; SameSite=Strict")]


def _name(host: str) -> str:
    """Return the host without its port; `[::1]:80` -> `::1`."""
    return (urlsplit(f"//{host}").hostname or "") if host else ""


def _same_origin(origin: str | None, host: str) -> bool:
    """Return True when a write has no `Origin` (no browser sent it across sites) or one that names its own host."""
    return origin is None or urlsplit(origin).netloc == host


def _query_token(environ: dict[str, Any]) -> str:
    return parse_qs(environ.get("QUERY_STRING", "")).get("token", [""])[0]
