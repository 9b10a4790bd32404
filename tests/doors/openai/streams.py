"""What tests of proposed calls share: streams as providers send them, and how they leave the gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from typing import Any, NamedTuple

from gateway.actions import Decision, Effect
from gateway.doors.openai.answer import proposals, release
from gateway.doors.openai.stream import ChatStream
from gateway.proposals import Proposal, Verdict, unreadable

DENIED = Decision(effect=Effect.DENY, rules=("no",), reasons=("Not this one.",))
ALLOWED = Decision(effect=Effect.ALLOW)


class Judge:
    """Releases what can be read, but for the named tools; remembers what it was asked."""

    def __init__(self, *denied: str) -> None:
        self.denied = denied
        self.asked: list[Proposal] = []

    async def __call__(self, found: list[Proposal]) -> list[Verdict]:
        return self.judge(found)

    def judge(self, found: list[Proposal]) -> list[Verdict]:
        self.asked += found
        return [self._verdict(one) for one in found]

    def _verdict(self, one: Proposal) -> Verdict:
        if one.arguments is None:
            return Verdict(one, unreadable(one.fault), release=False)
        denied = one.name in self.denied
        return Verdict(one, DENIED if denied else ALLOWED, release=not denied)


class Released(NamedTuple):
    """A choice as its client has it; `calls` are (name, arguments as text)."""

    text: Any
    calls: list[tuple[str, str]]
    finish: str | None
    raw: list[dict[str, Any]]  # the calls, as written


def sse(*events: dict[str, Any] | str) -> bytes:
    return "".join(f"data: {e if isinstance(e, str) else json.dumps(e)}\n\n" for e in events).encode()


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "choices": [{"index": index, "delta": delta, "finish_reason": finish, **more}],
    }


def call(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"tool_calls": list(parts)}


def fn(name: Any = None, arguments: Any = None, **more: Any) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**more, "function": function}


async def pieces(data: bytes, size: int = 1 << 20) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def streamed(
    data: bytes | AsyncIterator[bytes], judge: Judge | None = None, *, size: int = 1 << 20, **options: Any
) -> bytes:
    """What the client is sent."""
    stream = ChatStream(judge or Judge(), keep_usage=False, **options)
    return b"".join([out async for out in stream.run(pieces(data, size) if isinstance(data, bytes) else data)])


def events_of(out: bytes) -> list[dict[str, Any]]:
    found = [event for event in out.decode().split("\n\n") if event and not event.startswith(":")]
    return [json.loads(event.removeprefix("data: ")) for event in found if event != "data: [DONE]"]


def read(out: bytes, index: int = 0) -> Released:
    """One choice of a released stream. Each call must be one delta, as no SDK could read it in two ways."""
    text, finish = "", None
    raw: list[dict[str, Any]] = []
    for event in events_of(out):
        for choice in event["choices"]:
            if choice["index"] != index:
                continue
            delta = choice["delta"]
            text += delta.get("content") or ""
            raw += delta.get("tool_calls") or []
            if delta.get("function_call"):
                raw.append({"function": delta["function_call"]})
            finish = choice.get("finish_reason") or finish
    return Released(text, _calls(raw), finish, raw)


def whole(answer: dict[str, Any] | bytes, judge: Judge | None = None) -> Released:
    """The first choice of a complete answer, as it is released."""
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    body, found = proposals(body, None)
    if found:
        body = release(body, (judge or Judge()).judge(found))
    choice = json.loads(body)["choices"][0]
    message = choice["message"]
    raw = list(message.get("tool_calls") or [])
    if message.get("function_call"):
        raw.append({"function": message["function_call"]})
    return Released(message.get("content"), _calls(raw), choice.get("finish_reason"), raw)


def message(*calls: Any, finish: str | None = "tool_calls", **more: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": None, "tool_calls": list(calls), **more}
    return {"id": "c1", "choices": [{"index": 0, "message": said, "finish_reason": finish}]}


def _calls(raw: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    found = []
    for one in raw:
        inner = one.get("custom") or one["function"]
        found.append((inner["name"], inner.get("arguments", inner.get("input"))))
    return found
