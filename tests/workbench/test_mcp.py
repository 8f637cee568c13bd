"""The server for agents, asked by the protocol's own client over standard input and output."""

import asyncio
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

from fake_live import FakeLive
from make_workspace import build

from dashboard import api
from workbench.verbs.serve import mcp_server


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory):
    return build(tmp_path_factory.mktemp("mcp") / "workspace")


def converse(root: Path, calls: list[tuple[str, dict[str, Any]]]) -> tuple[list[Any], list[Any]]:
    """Start the verb as an agent's program does, list its tools, and make some calls."""
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    command = StdioServerParameters(
        command=sys.executable,
        args=["-m", "workbench", "mcp", "--workspace", str(root)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )

    async def run() -> tuple[list[Any], list[Any]]:
        async with stdio_client(command) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            tools = (await session.list_tools()).tools
            return tools, [await session.call_tool(name, arguments) for name, arguments in calls]

    with ThreadPoolExecutor(1) as pool:  # this process may already have an event loop
        return pool.submit(asyncio.run, run()).result(timeout=200)


def test_a_foreign_client_lists_tools_and_reads_features_with_their_nulls(workspace):
    tools, [found, feature, unknown, malformed, outside] = converse(
        workspace.root,
        [
            ("search", {"query": "prose", "limit": 3}),
            ("feature", {"features": "demo", "index": 3}),
            ("feature", {"features": "demp", "index": 3}),
            ("feature", {"features": "demo", "index": "three"}),
            ("feature", {"features": "../../etc", "index": 0}),
        ],
    )
    assert {each.name for each in tools} == {*api.READS, *api.ACTS}
    assert all(each.description and each.annotations.read_only_hint for each in tools)
    assert not found.is_error
    assert json.loads(found.content[0].text)["query"] == "prose"
    assert json.loads(feature.content[0].text)["relations"]["scales"]["neuron_null"] == 0.19
    for refused, words in ((unknown, "demo"), (malformed, "integer"), (outside, "not a usable name")):
        assert refused.is_error
        assert words in refused.content[0].text


def test_the_acts_are_those_of_the_live_model(workspace):
    """Steering through the server gives what the page gives: the feature beside both controls."""
    assert mcp_server(workspace, FakeLive()).name == "interp-workbench"
    live = FakeLive()
    asked = {"model": "smollm2-135m", "features": "demo", "index": 3, "text": "The meeting", "strength": 2}
    rows = api.call(live, "steer", asked, api.ACTS)
    names = [row["name"] for row in rows]
    assert names[:2] == ["unchanged", "feature"]
    assert any("random" in name for name in names)
    prompt = {"model": "smollm2-135m", "text": "The meeting", "features": "demo"}
    assert api.call(live, "prompt", prompt, api.ACTS)["next"]
