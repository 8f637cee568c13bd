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

from make_workspace import build

from dashboard import api


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory):
    return build(tmp_path_factory.mktemp("mcp") / "workspace")


ROOT = Path(__file__).parents[2]
VERB = ("-m", "workbench", "mcp", "--workspace")
FAKED = (
    "-c",
    "import asyncio, sys; from fake_live import FakeLive; from interp.workspace import Workspace; "
    "from workbench.verbs.serve import _converse; asyncio.run(_converse(Workspace(sys.argv[1]), FakeLive()))",
)
"""The same server, with acts that need no model."""


def converse(
    root: Path, calls: list[tuple[str, dict[str, Any]]], program: tuple[str, ...] = VERB
) -> tuple[list[Any], list[Any]]:
    """Start a server as an agent's program does, list its tools, and make some calls."""
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    command = StdioServerParameters(
        command=sys.executable,
        args=[*program, str(root)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "fixtures")))},
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


def test_a_foreign_client_acts_and_gets_every_number_with_its_control(workspace):
    about = {"model": "smollm2-135m", "features": "demo", "index": 3}
    asked = [
        ("steer", about | {"text": "The meeting", "strength": 2}),
        ("ablate", about),
        ("direction", about),
        ("prompt", {"model": "smollm2-135m", "text": "The meeting", "features": "demo"}),
        ("direction", {"model": "smollm2-135m"}),
    ]
    tools, [steered, ablated, lists, prompt, refused] = converse(workspace.root, asked, FAKED)
    names = [row["name"] for row in json.loads(steered.content[0].text)]
    assert names[:2] == ["unchanged", "feature"]
    assert any("random" in name for name in names)
    assert all(row["random"] and row["alike"] for row in json.loads(ablated.content[0].text))
    found = json.loads(lists.content[0].text)
    assert found["n_random"] == 1999
    assert all("p" in row for row in found["lists"])
    assert json.loads(prompt.content[0].text)["next"]
    assert refused.is_error
    assert "features, index" in refused.content[0].text
    described = {each.name: each.description for each in tools}
    assert "p-value by random directions" in described["direction"]
