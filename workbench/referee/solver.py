"""A scripted agent: the baseline that agents are compared with.

It connects to the server as any agent does, takes for each question the answer that stands out most in one read, tests
it, and submits it whatever the test says: the score then counts it with and without the rule. A claim that it is asked
about it believes.
"""

from collections.abc import Awaitable, Callable
from typing import Any

Call = Callable[..., Awaitable[Any]]


async def solve(call: Call) -> None:
    """Answer all questions of a server, which `call(tool, **arguments)` asks."""
    for listed in await call("questions"):
        if not listed["answered"]:
            await _answer(call, await call("question", question=listed["question"]))


async def _answer(call: Call, question: dict[str, Any]) -> None:
    name, details = question["question"], question["details"]
    match question["sort"]:
        case "which feature":
            rows = await call("latents", question=name)
            answer = str(max(rows, key=lambda row: _on(row["fires"], details["tokens"]))["latent"])
        case "which head":
            rows = [row for row in await call("head_scores", question=name) if row["kind"] == details["head_kind"]]
            answer = max(rows, key=lambda row: row["score"])["head"]
        case "what does it do":
            rows = [row for row in await call("head_scores", question=name) if row["head"] == details["head"]]
            answer = max(rows, key=lambda row: row["score"])["kind"]
        case "which edge":
            rows = [row for row in await call("edge_scores", question=name) if row["edge"] in question["choices"]]
            answer = rows[0]["edge"] if rows else question["choices"][0]
        case _:
            answer = "yes"
    test = await call("test", question=name, answer=answer)
    await call("submit", question=name, answer=answer, test=test["test"])


def _on(fires: list[list[float]], tokens: list[int]) -> float:
    """Return a latent's activation on some tokens, less that on others."""
    return sum(value if token in tokens else -value for token, value in fires)
