"""A tool call through the gateway with the official MCP SDK, as any MCP client makes it.

usage: python -m gateway.quickstart.try_mcp URL KEY TOOL [ARGUMENTS_AS_JSON]
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError


async def call(url: str, key: str, tool: str, arguments: dict[str, Any]) -> int:
    """List the tools, call one, print both; 1 if anything was refused or failed, said in one sentence."""
    try:
        return await _call(url, key, tool, arguments)
    except* (MCPError, httpx2.HTTPError, OSError) as failed:  # the SDK's tasks fail as a group
        print(f"{url}: {_first(failed)}")
    return 1


async def _call(url: str, key: str, tool: str, arguments: dict[str, Any]) -> int:
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=60) as http:
        async with Client(streamable_http_client(url, http_client=http)) as client:
            listed = await client.list_tools()
            print("tools:", ", ".join(one.name for one in listed.tools))
            try:
                result = await client.call_tool(tool, arguments)
            except MCPError as error:
                print(f"{tool}: {error}")
                return 1
            for content in result.content:
                print(f"{tool}:", getattr(content, "text", content))
            return 1 if result.is_error else 0


def _first(failed: BaseExceptionGroup[Any]) -> str:
    one: BaseException = failed
    while isinstance(one, BaseExceptionGroup):
        one = one.exceptions[0]
    return str(one) or type(one).__name__


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    wanted = json.loads(sys.argv[4]) if len(sys.argv) == 5 else {}
    sys.exit(asyncio.run(call(sys.argv[1], sys.argv[2], sys.argv[3], wanted)))
