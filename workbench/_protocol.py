"""The Model Context Protocol over standard input and output: tools that are offered."""

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from interp.errors import MissingError, WorkbenchError


@dataclass(frozen=True)
class Tool:
    """A function that an agent can call."""

    name: str
    about: str
    schema: dict[str, Any]
    """JSON schema of its arguments."""
    writes: bool = False


def check_protocol() -> None:
    """Raise `MissingError` where the package of the protocol is not installed."""
    try:
        import mcp  # noqa: F401 - the error below is clearer than one from within
    except ImportError:
        raise MissingError(
            "this verb needs the package of the Model Context Protocol; install it with pip install 'mcp>=2,<3'"
        ) from None


async def offer(
    name: str, instructions: str, tools: Sequence[Tool], answer: Callable[[str, dict[str, object]], object]
) -> None:
    """Answer an agent until it closes the connection.

    Args:
        name: name of the server.
        instructions: what the agent's program tells it about the tools.
        tools: the tools.
        answer: answers a call, `answer(tool, arguments)`; a `WorkbenchError` is told to the agent as an error.
    """
    from mcp import types
    from mcp.server.lowlevel import Server
    from mcp.server.stdio import stdio_server

    listed = [
        types.Tool(
            name=tool.name, description=tool.about, input_schema=tool.schema,
            annotations=types.ToolAnnotations(
                read_only_hint=not tool.writes, destructive_hint=False, open_world_hint=False
            ),
        )
        for tool in tools
    ]  # fmt: skip

    def reply(name: str, arguments: dict[str, object]) -> tuple[str, bool]:
        try:
            return json.dumps(answer(name, arguments), ensure_ascii=False), False
        except WorkbenchError as error:
            return str(error), True

    async def list_tools(_context: object, _params: object) -> types.ListToolsResult:
        return types.ListToolsResult(tools=listed)

    async def call_tool(_context: object, params: types.CallToolRequestParams) -> types.CallToolResult:
        text, failed = await asyncio.to_thread(reply, params.name, params.arguments or {})
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=failed)

    server = Server(name, instructions=instructions, on_list_tools=list_tools, on_call_tool=call_tool)
    async with stdio_server() as (read, write):
        sys.stdout = sys.stderr  # the protocol holds standard output now; whatever prints must not join it
        await server.run(read, write, server.create_initialization_options())
