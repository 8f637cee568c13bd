"""The load of many visitors: every kind of click is answered whole, and what is not counts as an error."""

import threading

import pytest
from fake_live import FakeLive

from benchmarks.many_visitors import Log, Visitor
from dashboard.serve import make_server


@pytest.fixture(scope="module")
def port(workspace):
    server = make_server(workspace, live=FakeLive())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_every_click_of_a_visitor_is_answered_whole(port, monkeypatch):
    monkeypatch.setattr("benchmarks.many_visitors.N_FEATURES", 200)
    visitor = Visitor(port, Log(), seed=0)
    for _ in range(60):
        visitor.click()
    visitor.read(1)
    assert not visitor.log.problems
    kinds = {"page", "rows", "feature", "search", "map", "circuit", "heads", "read"}
    assert {kind for kind, _ in visitor.log.seconds} == kinds
    assert len(visitor.log.of("read")) == 1


def test_what_is_not_whole_counts_as_an_error(port):
    visitor = Visitor(port, Log(), seed=0)
    visitor.open("/feature/nothing/3")
    visitor.ask("GET", "/api/nothing", kind="search")
    visitor.call("feature-detail.children", "feature", feature__state_of_data={"features": "demo", "index": 10**6})
    assert visitor.log.problems.total() == 3
