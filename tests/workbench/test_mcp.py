"""The server for agents, asked by the protocol's own client over standard input and output."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from make_workspace import build

from dashboard import api
from interp.workspace import Workspace
from saes.acts import catalogue


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory):
    return build(tmp_path_factory.mktemp("mcp") / "workspace")


ROOT = Path(__file__).parents[2]
VERB = ("-m", "workbench", "mcp", "--workspace")
FAKED = (
    "-c",
    "import asyncio, sys; from fake_live import FakeLive; from interp.workspace import Workspace; "
    "from workbench.serve import converse; asyncio.run(converse(Workspace(sys.argv[1]), FakeLive()))",
)
"""The same server, with acts that need no model."""


Call = tuple[str, dict[str, Any]]


def converse(
    root: Path,
    calls: list[Call],
    program: tuple[str, ...] = VERB,
    *,
    until: Call | None = None,
    after: Sequence[Call] = (),
) -> tuple[list[Any], list[Any]]:
    """Start a server as an agent's program does, list its tools, and make some calls.

    The call `until` is repeated until the run that it asks for has ended; then come those of `after`.
    """
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
            answers = [await session.call_tool(name, arguments) for name, arguments in calls]
            if until is not None:
                answers.append(await session.call_tool(*until))
                while json.loads(answers[-1].content[0].text)["state"] in ("waiting", "running"):
                    await asyncio.sleep(0.2)
                    answers[-1] = await session.call_tool(*until)
            return tools, answers + [await session.call_tool(name, arguments) for name, arguments in after]

    with ThreadPoolExecutor(1) as pool:  # this process may already have an event loop
        return pool.submit(asyncio.run, run()).result(timeout=200)


READS: list[Call] = [
    ("search", {"query": "prose", "limit": 3}),
    ("feature", {"features": "demo", "index": 3}),
    ("feature", {"features": "demp", "index": 3}),
    ("feature", {"features": "demo", "index": "three"}),
    ("feature", {"features": "../../etc", "index": 0}),
]
TOY = {"model": "planted:induction", "n_prompts": 2, "seeds": [0], "name": "toy", "context_length": 13}
TOY |= {"min_lag": 3, "max_lag": 5}
STARTS: list[Call] = [
    ("analyses", {}),
    ("analysis", {"verb": "heads"}),
    ("start", {"verb": "heads", "options": {"model": "no such model"}}),
    ("start", {"verb": "heads", "options": TOY}),
]
AFTER: list[Call] = [("artefact", {"key": "heads/toy"}), ("kinds", {}), ("runs", {})]


@pytest.fixture(scope="module")
def conversation(workspace: Workspace) -> tuple[list[Any], list[Any]]:
    """Return the tools and the answers of one server: to reads, to what runs an analysis, and to reads of it."""
    return converse(workspace.root, READS + STARTS, until=("run", {"id": "0001-heads"}), after=AFTER)


def test_a_foreign_client_lists_tools_and_reads_features_with_their_nulls(conversation):
    tools, [found, feature, unknown, malformed, outside] = conversation[0], conversation[1][: len(READS)]
    offered = {name for name, act in catalogue().items() if act.offered}
    assert sorted(each.name for each in tools) == sorted([*api.READS, *offered, *api.RUNS]), "no name has two meanings"
    assert all(each.description for each in tools)
    assert {each.name for each in tools if not each.annotations.read_only_hint} == {"start", "cancel"}
    assert not found.is_error
    assert json.loads(found.content[0].text)["query"] == "prose"
    assert json.loads(feature.content[0].text)["relations"]["scales"]["neuron_null"] == 0.19
    for refused, words in ((unknown, "demo"), (malformed, "integer"), (outside, "not a usable name")):
        assert refused.is_error
        assert words in refused.content[0].text


def test_a_foreign_client_acts_and_gets_every_number_with_its_control(workspace):
    about = {"features": "demo", "feature": 3}
    asked = [
        ("steer", about | {"text": "The meeting", "strength": 2}),
        ("ablate", about),
        ("separate_lists", about),
        ("read_prompt", {"model": "smollm2-135m", "text": "The meeting", "features": "demo"}),
        ("next_tokens", {"model": "smollm2-135m", "text": "The meeting"}),
        ("say", {"direction": "praise", "message": "What did you think of the food?", "strength": 2}),
        ("separate_lists", {}),
        ("separate_lists", about | {"feature": "three"}),
        ("answer_chats", {"message": "Hello"}),
    ]
    tools, answers = converse(workspace.root, asked, FAKED)
    steered, ablated, lists, prompt, following, said, lacking, malformed, unknown = answers
    names = [row["name"] for row in json.loads(steered.content[0].text)]
    assert names[:2] == ["unchanged", "feature"]
    assert any("random" in name for name in names)
    assert all(row["random"] and row["alike"] for row in json.loads(ablated.content[0].text))
    found = json.loads(lists.content[0].text)
    assert found["n_random"] == 1999
    assert all("p" in row for row in found["lists"])
    assert json.loads(prompt.content[0].text)["random_active"]
    following = json.loads(following.content[0].text)
    assert following["guesses"]
    assert following["entropy"] < following["uniform"]
    chats = {chat: reply["shift"] for chat, reply in json.loads(said.content[0].text)[-1]["replies"].items()}
    assert list(chats) == ["unsteered", "steered", "random direction"]
    assert chats["steered"] > chats["random direction"] > chats["unsteered"] == 0
    for refused, words in (
        (lacking, "separate_lists: features is missing"),
        (malformed, "separate_lists: feature should be a valid integer, found 'three'"),
        (unknown, "unknown"),
    ):
        assert refused.is_error
        assert words in refused.content[0].text
    described = {each.name: each.description for each in tools}
    assert "p-value by random directions" in described["separate_lists"]


def test_an_agent_runs_an_analysis_follows_it_and_reads_what_it_made(conversation):
    answers = conversation[1][len(READS) :]
    listed, described, refused, run, ended, artefact, kinds, runs = (each.content[0].text for each in answers)
    assert {
        "verb": "heads",
        "about": "Score every head by kind, in repeated random tokens or over a text.",
    } in json.loads(listed)
    assert {"n_prompts", "seeds"} <= {each["name"] for each in json.loads(described)["options"]}
    assert answers[2].is_error
    assert "no such model" in refused
    assert json.loads(run)["state"] in ("waiting", "running")
    assert (json.loads(ended)["state"], json.loads(ended)["made"]) == ("done", ["heads/toy"]), ended
    found = json.loads(artefact)
    assert found["settings"]["prompts"] == 2
    assert {row["kind"] for row in found["scores"]["rows"]} >= {"induction"}
    assert json.loads(kinds)["heads"]["fields"]["scores"]["columns"]["score"] == "double"
    assert [each["id"] for each in json.loads(runs)] == ["0001-heads"]
