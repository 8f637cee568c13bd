"""Serving: a free port when ours is taken, a refusal when the one asked for is, and no silent exposure."""

import socket
import threading
import urllib.request

import pytest
from fake_live import FakeLive

from dashboard import serve as serving
from interp.errors import ConfigError, MissingError, ResourceError


@pytest.fixture
def taken():
    """A port that something else listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_port_that_was_asked_for_and_is_in_use_is_an_error(workspace, taken):
    with pytest.raises(ResourceError, match=f"port {taken} on 127.0.0.1 is in use"):
        serving.serve(workspace, port=taken, open_browser=False)


def test_the_next_free_port_is_taken_by_itself(taken):
    assert serving.free_port("127.0.0.1", taken) > taken


def test_other_machines_need_a_token(workspace):
    with pytest.raises(ConfigError, match="token"):
        serving.serve(workspace, host="0.0.0.0", open_browser=False)


def test_a_missing_workspace_says_what_makes_one(tmp_path):
    with pytest.raises(MissingError, match="workbench demo"):
        serving.serve(tmp_path / "nothing", open_browser=False)


def test_serve_says_where_and_stops_on_interrupt(workspace, monkeypatch):
    said: list[str] = []

    class Interrupted:
        closed = False

        def serve_forever(self):
            raise KeyboardInterrupt

        def server_close(self):
            self.closed = True

    fake = Interrupted()
    monkeypatch.setattr(serving, "make_server", lambda *_, **__: fake)
    monkeypatch.setattr(serving, "free_port", lambda host: 8061)
    serving.serve(workspace, open_browser=False, say=said.append)
    assert "8050 is in use" in said[0]
    assert "http://127.0.0.1:8061/" in said[1]
    assert said[2] == "stopped"
    assert fake.closed


def test_the_server_answers_on_its_port(workspace):
    server = serving.make_server(workspace, live=FakeLive())
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/", timeout=10) as answer:
            assert answer.status == 200
            assert b"Interp workbench" in answer.read()
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
