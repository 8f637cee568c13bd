"""Serve a workspace in the browser, to this machine unless a token says otherwise."""

import socket
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from threading import Thread, Timer
from typing import TYPE_CHECKING

from dashboard._startup import load_libraries
from dashboard.queue import RunQueue
from dashboard.security import check_binding, is_loopback
from dashboard.sources import Live
from interp.errors import ResourceError
from interp.workspace import Workspace

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer

DEFAULT_PORT = 8050
_TRIES = 50
SWITCH = 0.0005
"""Seconds after which a busy thread lets another one go on. A page asks for fifty small files while a thread computes,
and waited 5 ms, Python's default, several times for each."""


def serve(
    workspace: Workspace | str | Path,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = True,
    token: str | None = None,
    runs: RunQueue | None = None,
    model_memory: int | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve until interrupted (Ctrl-C).

    `port` None takes 8050, or the next free one and says so. `runs` is the queue of analyses that pages start; it works
    while the server runs. `model_memory` bounds the bytes of the models in memory (default: half of all memory). Raises
    `ResourceError` if the requested port is in use, `ConfigError` if `host` lets other machines in without a token.
    """
    check_binding(host, token)
    opened = workspace if isinstance(workspace, Workspace) else Workspace(workspace)
    chosen = port if port is not None else free_port(host)
    if port is None and chosen != DEFAULT_PORT:
        say(f"port {DEFAULT_PORT} is in use, so this one takes {chosen}")
    load_libraries()
    from dashboard.app import warm
    from dashboard.live import LiveModel

    live = LiveModel(opened, memory=model_memory)
    server = make_server(opened, host=host, port=chosen, token=token, live=live, runs=runs)
    if runs is not None:
        runs.start()
    address = f"http://{_in_address(host)}:{chosen}/" + (f"?token={token}" if token else "")
    say(f"{opened.root} is at {address}   (Ctrl-C stops)")
    sys.setswitchinterval(SWITCH)
    warming = Thread(target=warm, args=(server.app,), daemon=True)
    warming.start()
    if open_browser:
        Timer(0.3, webbrowser.open, [address]).start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        say("stopped")
    finally:
        server.server_close()
        if runs is not None:
            runs.stop()
        warming.join(timeout=10)  # a thread inside pyarrow while Python ends would abort the process


def make_server(
    workspace: Workspace,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    live: Live | None = None,
    runs: RunQueue | None = None,
) -> "BaseWSGIServer":
    """Return a threaded WSGI server, bound and not yet running; `port` 0 takes any free one (`server.server_port`)."""
    import logging

    from werkzeug.serving import make_server as bind

    load_libraries()
    from dashboard.app import create_app

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # one line per request says nothing to a reader
    app = create_app(workspace, live=live, token=token, runs=runs, hosts=() if is_loopback(host) else _names(host))
    if port and not _is_free(host, port):
        raise ResourceError(f"port {port} on {host} is in use; leave --port out to take a free one")
    try:
        return bind(host, port, app.server, threaded=True)
    except (OSError, SystemExit) as error:
        raise ResourceError(f"cannot listen on {host}:{port} ({error}); choose another --port or --host") from error


def free_port(host: str, first: int = DEFAULT_PORT) -> int:
    """Return `first`, or the next free port above it. Raises `ResourceError` when fifty are taken."""
    for port in range(first, first + _TRIES):
        if _is_free(host, port):
            return port
    raise ResourceError(f"ports {first} to {first + _TRIES - 1} on {host} are all in use; choose one with --port")


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _names(host: str) -> tuple[str, ...]:
    """Return the names by which other machines may call this one: its host, its name, its addresses."""
    name = socket.gethostname()
    try:
        addresses = socket.gethostbyname_ex(name)[2]
    except OSError:
        addresses = []
    return (host, name, *addresses)


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host
