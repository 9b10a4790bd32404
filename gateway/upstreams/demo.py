"""The scripted provider: a model without a model, so that everything runs without a key or a network.

Product code: the quickstart, demonstrations and users' own tests answer from a script (`demo_script`). It speaks
chat completions in full shape, streams, proposes tool calls and costs tokens. Two equal requests get equal
answers but for ids and time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from gateway.actions import ModelTarget, Reply, Usage
from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.upstreams.demo_script import Line, Script, Talk

_BYTES_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 3
_CHUNK_WORDS = 3
_CHUNK_ARGUMENT_CHARS = 12


class DemoProvider:
    """Answers from `script`. `new_id` gives unique texts; `sleep` takes seconds."""

    def __init__(
        self,
        name: str,
        script: Script,
        *,
        clock: Clock,
        new_id: Callable[[], str],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_hang_up: str = "cancel",
        drain_s: float = 0.0,
    ) -> None:
        self.name = name
        self.on_hang_up = on_hang_up
        self.drain_s = drain_s
        self._script = script
        self._clock = clock
        self._new_id = new_id
        self._sleep = sleep

    async def invoke(
        self, target: ModelTarget, body: bytes, *, stream: bool, request_id: str, traceparent: str | None = None
    ) -> Reply | DemoStream:
        """Answer a chat completion. Raises Refusal `malformed` for what is not one."""
        try:
            request = msgspec.json.decode(body, type=dict[str, Any])
            talk = _talk(request)
        except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
            raise Refusal("malformed", "The request is not a chat completion: check messages and tools.") from None
        line = self._script.answer(talk)
        answer = _Answer(line, request, target.model, self._new_id, self._clock.now_ns())
        if stream:
            return DemoStream(answer.events(), line, self._sleep)
        await self._sleep(line.delay_s)
        headers = {"content-type": "application/json"}
        return Reply(body=answer.body(), headers=headers, usage=answer.usage)

    async def aclose(self) -> None:
        """Nothing is held open."""


class DemoStream:
    """Server-sent events, one chunk at a time; each gives the event loop a turn, as a network would."""

    status = 200

    def __init__(self, events: list[bytes], line: Line, sleep: Callable[[float], Awaitable[None]]) -> None:
        self.headers = {"content-type": "text/event-stream"}
        self._events = iter(events)
        self._wait_s = line.delay_s
        self._chunk_delay_s = line.chunk_delay_s
        self._sleep = sleep

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        event = next(self._events, None)
        if event is None:
            raise StopAsyncIteration
        await self._sleep(self._wait_s)
        self._wait_s = self._chunk_delay_s
        return event

    async def aclose(self) -> None:
        """Nothing more is said."""
        self._events = iter(())


class _Answer:
    """One answer of the script in the shape of OpenAI's API, whole or as events."""

    def __init__(self, line: Line, request: dict[str, Any], model: str, new_id: Callable[[], str], now_ns: int) -> None:
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{new_id()}",
            "created": now_ns // 1_000_000_000,
            "model": model,
        }
        self._text = line.text
        self._calls: list[dict[str, Any]] = [
            {
                "id": f"call_{new_id()}",
                "type": "function",
                "function": {"name": name, "arguments": msgspec.json.encode(arguments).decode()},
            }
            for name, arguments in line.calls
        ]
        self._finish = "tool_calls" if self._calls else "stop"
        cap = request.get("max_completion_tokens") or request.get("max_tokens")
        if isinstance(cap, int) and self._tokens() > cap:
            self._cut(cap)
        options = request.get("stream_options")
        self._include_usage = isinstance(options, dict) and options.get("include_usage") is True
        self.usage = Usage(input_tokens=_prompt_tokens(request), output_tokens=self._tokens())

    def body(self) -> bytes:
        """The complete answer."""
        message: dict[str, Any] = {"role": "assistant", "content": self._text, "refusal": None}
        if self._calls:
            message["tool_calls"] = self._calls
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish}
        return msgspec.json.encode(
            {**self._head, "object": "chat.completion", "choices": [choice], "usage": self._usage_object()}
        )

    def events(self) -> list[bytes]:
        """The answer as server-sent events, the arguments of tool calls over several deltas."""
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "" if self._text is not None else None}]
        if self._text is not None:
            deltas += [{"content": piece} for piece in _words(self._text)]
        for index, call in enumerate(self._calls):
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            first = {"index": index, **call, "function": {"name": name, "arguments": ""}}
            deltas.append({"tool_calls": [first]})
            for start in range(0, len(arguments), _CHUNK_ARGUMENT_CHARS):
                piece = arguments[start : start + _CHUNK_ARGUMENT_CHARS]
                deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        chunks: list[dict[str, Any]] = [{"choices": [_choice(delta, None)]} for delta in deltas]
        chunks.append({"choices": [_choice({}, self._finish)]})
        if self._include_usage:
            for chunk in chunks:
                chunk["usage"] = None
            chunks.append({"choices": [], "usage": self._usage_object()})
        head = {**self._head, "object": "chat.completion.chunk"}
        return [_event(msgspec.json.encode({**head, **chunk})) for chunk in chunks] + [_event(b"[DONE]")]

    def _tokens(self) -> int:
        calls = sum(_tokens(call["function"]["name"]) + _tokens(call["function"]["arguments"]) for call in self._calls)
        return calls + _tokens(self._text or "")

    def _cut(self, cap: int) -> None:
        """Keep to `cap` tokens, as a real model would: half a tool call is none."""
        raw = (self._text or "").encode()[: max(0, cap) * _BYTES_PER_TOKEN]
        self._text = raw.decode("utf-8", "ignore")
        self._calls = []
        self._finish = "length"

    def _usage_object(self) -> dict[str, Any]:
        usage = self.usage
        return {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }


def _talk(request: dict[str, Any]) -> Talk:
    """What the rules look at, from a chat completion request."""
    messages = request["messages"]
    user = next((_text(one) for one in reversed(messages) if one["role"] == "user"), "")
    tools = [] if request.get("tool_choice") == "none" else request.get("tools") or []
    offered = tuple(tool["function"]["name"] for tool in tools if tool.get("type") == "function")
    last = messages[-1]
    if last["role"] != "tool":
        return Talk(user, offered, None, None)
    called = {call["id"]: call["function"]["name"] for one in messages for call in one.get("tool_calls") or []}
    return Talk(user, offered, called.get(last.get("tool_call_id"), "tool"), _text(last))


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if part.get("type") == "text")
    return content if isinstance(content, str) else ""


def _prompt_tokens(request: dict[str, Any]) -> int:
    tokens = sum(
        _TOKENS_PER_MESSAGE + _tokens(_text(message)) + _encoded_tokens(message.get("tool_calls"))
        for message in request["messages"]
    )
    return tokens + _encoded_tokens(request.get("tools"))


def _encoded_tokens(value: Any) -> int:
    return -(-len(msgspec.json.encode(value)) // _BYTES_PER_TOKEN) if value else 0


def _tokens(text: str) -> int:
    """A stand-in for a tokenizer: four bytes are a token, as with English text and most models."""
    return -(-len(text.encode()) // _BYTES_PER_TOKEN)


def _words(text: str) -> list[str]:
    """The text in pieces of a few words that join to exactly it."""
    words = text.split(" ")
    pieces = [" ".join(words[i : i + _CHUNK_WORDS]) for i in range(0, len(words), _CHUNK_WORDS)]
    return [piece if i == 0 else f" {piece}" for i, piece in enumerate(pieces)]


def _choice(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
