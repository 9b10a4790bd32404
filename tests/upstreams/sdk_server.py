"""A tool server on the real MCP SDK: `python sdk_server.py stdio|http [legacy]`. Prints its URL when it serves HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from typing import Any

import mcp.types as types
import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

SCHEMA = {
    "type": "object",
    "properties": {"region": {"type": "string", "x-mcp-header": "Region"}, "n": {"type": "integer"}},
}


async def list_tools(_ctx: Any, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    if params is None or params.cursor is None:
        return types.ListToolsResult(tools=[types.Tool(name="echo", input_schema=SCHEMA)], next_cursor="2")
    return types.ListToolsResult(tools=[types.Tool(name="die", input_schema={"type": "object"})])


async def call_tool(ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    if params.name == "die":
        os._exit(9)
    await ctx.session.send_log_message(level="info", data="working", logger="x")
    text = json.dumps(params.arguments)
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], structured_content={"ok": True})


def make() -> Server[Any]:
    schemas = {"echo": SCHEMA}
    return Server("sdk", on_list_tools=list_tools, on_call_tool=call_tool, get_tool_input_schema=schemas.get)


class Legacy:
    """What a server of the last era says to the modern question, before the SDK sees it."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and dict(scope["headers"]).get(b"mcp-protocol-version") == b"2026-07-28":
            body = b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Bad Request"}}'
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 400, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await self._app(scope, receive, send)


async def over_stdio() -> None:
    server = make()
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def over_http() -> None:
    app: Any = make().streamable_http_app()
    if "legacy" in sys.argv:
        app = Legacy(app)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp\n")
        sys.stdout.flush()
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
        uvicorn.Server(config).run(sockets=[listener])


if sys.argv[1] == "stdio":
    asyncio.run(over_stdio())
else:
    over_http()
