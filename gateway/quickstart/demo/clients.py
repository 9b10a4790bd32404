"""The agents of the story: the official `openai` and `mcp` SDKs as their users write them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from openai import OpenAI, OpenAIError

from gateway.quickstart.demo.told import NotAsTold

OPENAI = "openai SDK"
MCP = "mcp SDK"
ASK_S = 120.0  # longer than a call is held while it waits for a person
MODEL = "demo"
QUESTION: Any = [{"role": "user", "content": "What can you tell me about my payments?"}]


class Answer(NamedTuple):
    """What a client was given. `action` is what the record bears, `replayed` that a stored result was given."""

    text: str
    action: str
    decision: str
    data: dict[str, Any] | None = None
    refused: bool = False
    replayed: bool = False


def chat(url: str, key: str, session: str) -> Answer:
    """A chat call."""
    with _openai(url, key, session) as client:
        try:
            raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION)
        except OpenAIError as error:
            raise NotAsTold(f"The chat call of the openai SDK failed: {error}.") from error
        text = raw.parse().choices[0].message.content or ""
        return Answer(text, raw.headers.get("x-gateway-action", ""), raw.headers.get("x-gateway-decision", ""))


def streamed_chat(url: str, key: str, session: str) -> tuple[Answer, int]:
    """A streamed chat call; the answer, and in how many pieces it came."""
    pieces: list[str] = []
    with _openai(url, key, session) as client:
        try:
            with client.chat.completions.with_streaming_response.create(
                model=MODEL, messages=QUESTION, stream=True
            ) as raw:
                for event in raw.parse():
                    pieces += [choice.delta.content for choice in event.choices if choice.delta.content]
                headers = raw.headers
        except OpenAIError as error:
            raise NotAsTold(f"The streamed call of the openai SDK failed: {error}.") from error
    told = Answer("".join(pieces), headers.get("x-gateway-action", ""), headers.get("x-gateway-decision", ""))
    return told, len(pieces)


class Tools:
    """The ledger's tools as an MCP client sees them."""

    def __init__(self, client: Client, last: dict[str, str]) -> None:
        self._client = client
        self._last = last

    async def call(self, tool: str, arguments: dict[str, Any]) -> Answer:
        """One tool call. A refusal is an answer too: the model reads it."""
        self._last.clear()
        try:
            result = await self._client.call_tool(tool, arguments)
        except MCPError as error:
            return self._answer(str(error), None, refused=True)
        text = " ".join(getattr(part, "text", "") for part in result.content)
        return self._answer(text, result.structured_content, refused=result.is_error)

    def _answer(self, text: str, data: dict[str, Any] | None, *, refused: bool) -> Answer:
        headers = self._last
        return Answer(
            text,
            headers.get("x-gateway-action", ""),
            headers.get("x-gateway-decision", ""),
            data,
            refused,
            headers.get("x-gateway-replayed") == "true",
        )


@contextlib.asynccontextmanager
async def tools(url: str, key: str, session: str) -> AsyncIterator[Tools]:
    """An MCP client on the ledger."""
    last: dict[str, str] = {}

    async def keep(response: httpx2.Response) -> None:
        # The first request of a call that waits in several legs is the one that asked for it.
        for name in ("x-gateway-action", "x-gateway-decision"):
            if name in response.headers:
                last.setdefault(name, response.headers[name])
        if "x-gateway-replayed" in response.headers:
            last["x-gateway-replayed"] = response.headers["x-gateway-replayed"]

    headers = {"authorization": f"Bearer {key}", "x-gateway-session": session}
    try:
        async with (
            httpx2.AsyncClient(
                headers=headers, timeout=ASK_S, trust_env=False, event_hooks={"response": [keep]}
            ) as http,
            Client(streamable_http_client(f"{url}/mcp/ledger", http_client=http)) as client,
        ):
            yield Tools(client, last)
    except BaseExceptionGroup as group:  # the SDK's tasks fail as a group
        first = _first(group)
        if isinstance(first, (MCPError, httpx2.HTTPError, OSError)):
            raise NotAsTold(f"The mcp SDK could not talk to {url}/mcp/ledger: {first!r}.") from group
        raise first from group


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    one: BaseException = group
    while isinstance(one, BaseExceptionGroup):
        one = one.exceptions[0]
    return one


def _openai(url: str, key: str, session: str) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key=key, timeout=ASK_S, default_headers={"x-gateway-session": session})
