"""What the tests of telemetry share."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.actions import Action, Agent, Caller, Kind, Session, Trace

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
