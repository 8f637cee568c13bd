"""Serving: a free port when ours is taken, a refusal when the one asked for is, and no silent exposure."""

import gzip
import json
import re
import socket
from pathlib import Path

import plotly.graph_objects as go
import pytest
from plotly.basedatatypes import BaseTraceType

import dashboard
from dashboard import serve as serving
from dashboard.app import ADDRESS_OF_PLOTLY, LIBRARIES
from interp.errors import ConfigError, MissingError, ResourceError
from interp.workspace import Workspace


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


def test_serve_says_where_and_stops_on_interrupt(tmp_path, monkeypatch):
    said: list[str] = []
    make, made = serving.make_server, []

    def interrupted(*given, port, **more):
        server = make(*given, **more)
        made.append(server)

        def answer_once():
            asked = server.app.test_client().get("/api/notes?key=features/demo%2312", headers={"Host": "127.0.0.1"})
            assert asked.status_code == 200
            raise KeyboardInterrupt

        monkeypatch.setattr(server, "serve_forever", answer_once)
        return server

    monkeypatch.setattr(serving, "make_server", interrupted)
    monkeypatch.setattr(serving, "free_port", lambda host: 8061)
    serving.serve(Workspace(tmp_path, create=True), open_browser=False, say=said.append)
    assert "8050 is in use" in said[0]
    assert "http://127.0.0.1:8061/" in said[1]
    assert said[2] == "stopped"
    assert made[0].socket.fileno() == -1


def test_scripts_are_compressed_once_and_kept_by_the_browser(server):
    headers = {"Host": "127.0.0.1:8050"}
    client = server.test_client()
    page = client.get("/", headers=headers).get_data(as_text=True)
    assert '<html lang="en">' in page
    style = re.search(r'href="(/assets/style\.css\?m=[^"]+)"', page)[1]
    script = re.search(r'src="(/_dash-component-suites/dash_mantine_components/[^"]+)"', page)[1]
    for address in (style, script):
        plain = client.get(address, headers=headers)
        packed = client.get(address, headers={**headers, "Accept-Encoding": "gzip, br"})
        assert (plain.content_encoding, packed.content_encoding) == (None, "gzip")
        assert gzip.decompress(packed.data) == plain.data
        assert len(packed.data) < 0.4 * len(plain.data)
        assert packed.cache_control.immutable
        assert packed.cache_control.max_age == 31_536_000
        assert "Accept-Encoding" in packed.vary
    again = client.get(
        style, headers={**headers, "Accept-Encoding": "gzip", "If-None-Match": packed_tag(client, style)}
    )
    assert again.status_code == 304
    kept = {**headers, "Accept-Encoding": "gzip", "If-None-Match": packed_tag(client, ADDRESS_OF_PLOTLY)}
    assert client.get(ADDRESS_OF_PLOTLY, headers=kept).status_code == 304
    unversioned = client.get("/assets/atlas/early.mjs", headers=headers)
    assert not unversioned.cache_control.immutable  # modules import each other without a version


def test_plotly_comes_with_the_traces_that_pages_draw_and_the_whole_of_it_uncompressed(server):
    headers = {"Host": "127.0.0.1:8050"}
    small = server.test_client().get(ADDRESS_OF_PLOTLY, headers={**headers, "Accept-Encoding": "gzip"})
    assert small.content_encoding == "gzip"
    assert "Accept-Encoding" in small.vary
    code = gzip.decompress(small.data).decode()
    assert "plotly.js (cartesian" in code[:100]
    sources = "".join(path.read_text(encoding="utf-8") for path in Path(dashboard.__file__).parent.rglob("*.py"))
    named = re.findall(r"\bgo\.([A-Z]\w+)\(", sources) + re.findall(r"\.add_([a-z0-9]+)\(", sources)
    traces = {
        name.lower()
        for name in dir(go)
        if isinstance(each := getattr(go, name), type) and issubclass(each, BaseTraceType)
    }
    drawn = {name.lower() for name in named} & traces
    assert {"scatter", "bar", "heatmap"} <= drawn
    for trace in drawn:
        assert re.search(rf'moduleType:"trace",name:"{trace}"', code), f"{trace} is not in the bundle"
    whole = server.test_client().get(ADDRESS_OF_PLOTLY, headers=headers)
    assert whole.content_encoding is None
    assert len(whole.data) > len(code)


def test_long_answers_are_compressed_and_short_ones_are_not(server):
    client, headers = server.test_client(), {"Host": "127.0.0.1:8050", "Accept-Encoding": "gzip"}
    long = client.get("/api/features?features=demo&limit=200", headers=headers)
    assert long.content_encoding == "gzip"
    assert len(json.loads(gzip.decompress(long.data))["rows"]) == 200
    assert not long.cache_control.immutable
    assert client.get("/api/features?features=demo&limit=2", headers=headers).content_encoding is None
    page = client.get("/_dash-layout", headers=headers)
    assert json.loads(gzip.decompress(page.data))


def packed_tag(client, address: str) -> str:
    """The ETag of the compressed answer."""
    return client.get(address, headers={"Host": "127.0.0.1:8050", "Accept-Encoding": "gzip"}).headers["ETag"]


def test_large_libraries_are_left_for_later_except_where_they_are_used(server):
    client = server.test_client()
    for address, eager in (("/", set()), ("/feature/demo/1", {"dash_ag_grid"}), ("/circuit", set(LIBRARIES))):
        page = client.get(address, headers={"Host": "127.0.0.1:8050"}).get_data(as_text=True)
        left = set(re.findall(r'<template class="wb-later" data-namespace="(\w+)"', page))
        loaded = {name for name in LIBRARIES if re.search(rf'<script src="[^"]*/{name}/', page)}
        assert (left, loaded) == (set(LIBRARIES) - eager, eager), address
