"""What the tests of telemetry share."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from gateway.actions import (
    Action,
    Agent,
    Answered,
    Caller,
    Cost,
    Decision,
    Effect,
    Kind,
    ModelTarget,
    Reply,
    Result,
    Rpc,
    Session,
    Status,
    Target,
    ToolTarget,
    Trace,
    Usage,
)
from gateway.telemetry import Observer

ACTION = Action(
    id="0197-action",
    kind=Kind.MODEL_INVOKE,
    door="openai.chat",
    caller=Caller(Agent(id="reader", tenant="acme", version="3"), "ada", "key-1", "key"),
    session=Session("session-1", "header"),
    trace=Trace("a" * 32, "b" * 16, "c" * 16),
    target="demo",
    request_id="request-1",
    received_ns=0,
    arguments={"model": "demo", "max_tokens": 5, "SECRET-ARGUMENT": "SECRET-CONTENT"},
    body=b'{"messages": [{"content": "SECRET-CONTENT"}]}',
)


def act(**changes: Any) -> Action:
    """`ACTION` with changes."""
    return msgspec.structs.replace(ACTION, **changes)


ALLOWED = Decision(effect=Effect.ALLOW, rules=("quickstart.reads",), revision="r1")
DONE = Result(
    status=Status.SUCCEEDED,
    cost=Cost(
        nanousd=125_000,
        usage=Usage(input_tokens=10, output_tokens=5, cached_input_tokens=3, reasoning_tokens=2),
    ),
    body=b"SECRET-ANSWER",
)
TRANSFER = act(kind=Kind.TOOL_CALL, target="ledger__transfer", door="mcp", body=None, rpc=Rpc("2026-07-28", "7"))
MODEL = ModelTarget(alias="demo", provider="openai", model="gpt-demo")
TOOL = ToolTarget(server="ledger", tool="transfer", server_kind="mcp", owner="", risk="low", effect="write")


class Reads:
    """A dialect that knows what an answer says of itself."""

    def answered(self, body: bytes, *, stream: bool) -> Answered:
        return Answered("chatcmpl-1", "gpt-demo-2026", ("stop",))


async def play(observer: Observer, action: Action, result: Result = DONE) -> str:
    """The path as the governor walks it; the `traceparent` for the upstream."""
    target: Target = MODEL if action.kind is Kind.MODEL_INVOKE else TOOL
    with observer.span("action", action):
        with observer.span("decide", action):
            await asyncio.sleep(0)
            observer.decided(action, ALLOWED)
        with observer.span("intent", action):
            await asyncio.sleep(0)
        call = observer.call(action, target, Reads())
        with call:
            await asyncio.sleep(0)
        call.answer(Reply(rpc=Rpc("2025-11-25", "41") if target is TOOL else None))
        call.ended(result)
        observer.ended(action, result.status, ALLOWED, result)
    return call.traceparent
