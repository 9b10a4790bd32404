"""Agents that wait: the unmodified official Python SDKs with the time-outs they come with. Run by .venv-sdk's Python.

They ask once, and again while they are told in so many words that a person is still awaited. Both print what they got
as JSON, with the number of HTTP requests it took.

usage: python sdk_waits.py mcp URL KEY TOOL ARGUMENTS modern|legacy
       python sdk_waits.py openai URL KEY MODEL WORD plain|stream
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPError
from openai import DefaultHttpxClient, OpenAI, OpenAIError

PATIENCE = 10  # identical calls
WAITS = re.compile("waiting for approval|not executed yet", re.IGNORECASE)


async def by_mcp(url: str, key: str, tool: str, arguments: str, how: str) -> dict[str, Any]:
    seen: dict[str, Any] = {"requests": 0}

    async def count(request: httpx2.Request) -> None:
        seen["requests"] += b'"tools/call"' in request.content

    async with create_mcp_http_client(headers={"authorization": f"Bearer {key}"}) as http:
        http.event_hooks["request"].append(count)
        mode = "legacy" if how == "legacy" else "auto"
        async with Client(streamable_http_client(url, http_client=http), mode=mode) as client:
            for _ in range(PATIENCE):
                try:
                    result = await client.call_tool(tool, json.loads(arguments))
                except MCPError as error:
                    return {**seen, "error": str(error)}
                text = "".join(getattr(part, "text", "") for part in result.content)
                seen |= {"text": text, "is_error": result.is_error, "data": result.structured_content}
                if not (result.is_error and WAITS.search(text)):
                    break
    return seen


def by_openai(url: str, key: str, model: str, word: str, how: str) -> dict[str, Any]:
    seen: dict[str, Any] = {"requests": 0}

    def count(_request: object) -> None:
        seen["requests"] += 1

    http = DefaultHttpxClient(event_hooks={"request": [count]})
    with OpenAI(base_url=url, api_key=key, http_client=http) as client:
        for _ in range(PATIENCE):
            try:
                seen |= _streamed(client, model, word) if how == "stream" else _plain(client, model, word)
            except OpenAIError as error:
                return {**seen, "error": str(error)}
            if not WAITS.search(seen["text"]):
                break
    return seen


def _plain(client: OpenAI, model: str, word: str) -> dict[str, Any]:
    choice = client.chat.completions.create(model=model, messages=[{"role": "user", "content": word}]).choices[0]
    calls = [
        [call.function.name, call.function.arguments]
        for call in choice.message.tool_calls or []
        if call.type == "function"
    ]
    return {"text": choice.message.content or "", "calls": calls, "finish": choice.finish_reason}


def _streamed(client: OpenAI, model: str, word: str) -> dict[str, Any]:
    text, finish = "", None
    calls: dict[int, list[str]] = {}
    messages: list[Any] = [{"role": "user", "content": word}]
    with client.chat.completions.create(model=model, messages=messages, stream=True) as events:
        for event in events:
            for choice in event.choices:
                finish = choice.finish_reason or finish
                text += choice.delta.content or ""
                for part in choice.delta.tool_calls or []:
                    call = calls.setdefault(part.index, ["", ""])
                    if part.function is not None:
                        call[0] += part.function.name or ""
                        call[1] += part.function.arguments or ""
    return {"text": text, "calls": [calls[index] for index in sorted(calls)], "finish": finish}


def main(what: str, *given: str) -> None:
    print(json.dumps(asyncio.run(by_mcp(*given)) if what == "mcp" else by_openai(*given)))


if __name__ == "__main__":
    main(*sys.argv[1:])
