"""An agent as people write one: the unmodified official SDKs, a base URL and a key. Run by .venv-sdk's Python.

usage: python sdk_agent.py URL KEY WORD MCP_PATH plain|stream    prints what it saw as JSON
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
from openai import AsyncOpenAI


async def plain(client: AsyncOpenAI, messages: list[Any], tools: list[Any]) -> dict[str, Any]:
    answer = await client.chat.completions.create(model="up", messages=messages, tools=tools)
    choice = answer.choices[0]
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        for call in choice.message.tool_calls or []
        if call.type == "function"
    ]
    return {"content": choice.message.content, "calls": calls, "finish": choice.finish_reason}


async def streamed(client: AsyncOpenAI, messages: list[Any], tools: list[Any]) -> dict[str, Any]:
    text, finish = "", None
    calls: dict[int, Any] = {}
    stream = await client.chat.completions.create(model="up", messages=messages, tools=tools, stream=True)
    async for event in stream:
        for choice in event.choices:
            finish = choice.finish_reason or finish
            text += choice.delta.content or ""
            for part in choice.delta.tool_calls or []:
                call = calls.setdefault(
                    part.index, {"id": part.id, "type": "function", "function": {"name": "", "arguments": ""}}
                )
                if part.function is not None:
                    call["function"]["name"] += part.function.name or ""
                    call["function"]["arguments"] += part.function.arguments or ""
    return {"content": text or None, "calls": list(calls.values()), "finish": finish}


async def call(mcp: Client, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        result = await mcp.call_tool(name, arguments)
    except MCPError as error:
        return {"tool": name, "error": str(error)}
    text = "".join(getattr(part, "text", "") for part in result.content)
    return {"tool": name, "is_error": result.is_error, "text": text, "data": result.structured_content}


async def main(url: str, key: str, word: str, path: str, how: str) -> None:
    seen: dict[str, Any] = {"turns": [], "tools": []}
    ask = plain if how == "plain" else streamed
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=20)
    async with (
        client,
        httpx2.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=20) as http,
        Client(streamable_http_client(url + path, http_client=http)) as mcp,
    ):
        listed = (await mcp.list_tools()).tools
        seen["listed"] = sorted(tool.name for tool in listed)
        tools = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description or "", "parameters": tool.input_schema},
            }
            for tool in listed
        ]
        messages: list[Any] = [{"role": "user", "content": word}]
        for _ in range(10):
            turn = await ask(client, messages, tools)
            seen["turns"].append(turn)
            message = {"role": "assistant", "content": turn["content"]}
            if turn["calls"]:
                message["tool_calls"] = turn["calls"]
            messages.append(message)
            if turn["content"] == "done":
                break
            if not turn["calls"]:
                messages.append({"role": "user", "content": "Go on."})
            for one in turn["calls"]:
                result = await call(mcp, one["function"]["name"], json.loads(one["function"]["arguments"]))
                seen["tools"].append(result)
                messages.append({"role": "tool", "tool_call_id": one["id"], "content": json.dumps(result)})
        prefix = "ledger__" if path == "/mcp" else ""
        denied = {"to": "eve", "amount_cents": 100, "reference": word}
        seen["denied"] = await call(mcp, f"{prefix}transfer", denied)
        seen["closed"] = await call(mcp, f"{prefix}close_account", {})
        seen["invented"] = await call(mcp, f"{prefix}close_acount", {})
    print(json.dumps(seen))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
