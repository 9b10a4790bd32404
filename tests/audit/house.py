"""What the tests of the trail share: actors, actions, and logs that are opened and closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.actions import (
    Action,
    Agent,
    Caller,
    Cost,
    Decision,
    Effect,
    Kind,
    ModelTarget,
    Reservation,
    Result,
    Session,
    Status,
    ToolTarget,
    Trace,
    Usage,
)
from gateway.audit import AuditLog, Entry, records
from gateway.clock import Ids, SystemClock
from gateway.store import Writer

ORIGIN = "gateway.local/audit/default"


class House:
    """Makes actions and records, opens logs on one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.ids = Ids(SystemClock())
        self.agent = Agent(id="reader", team="treasury", use_case="reporting", version="3")
        self.model = ModelTarget(alias="demo", provider="demo", model="demo-1", data_classes=("internal",))
        self.tool = ToolTarget(
            server="ledger", tool="transfer", server_kind="mcp", owner="t@example.com", risk="high", effect="write"
        )
        self.decision = Decision(
            effect=Effect.ALLOW,
            rules=("small_transfer",),
            reasons=("Under 10,000 cents.",),
            revision="r1",
            input=b'{"policy":"input"}',
        )

    def action(self, **changes: Any) -> Action:
        """A call of the ledger's transfer tool by `reader` for `ada`."""
        given: dict[str, Any] = {
            "id": self.ids.new(),
            "kind": Kind.TOOL_CALL,
            "door": "mcp",
            "caller": Caller(self.agent, "ada", "key-1", "key"),
            "session": Session("s-1", "header"),
            "trace": Trace("a" * 32, "b" * 16),
            "target": "ledger__transfer",
            "request_id": "req-1",
            "received_ns": 1,
            "arguments": {"to": "payee-1", "amount_cents": 100},
        }
        return Action(**(given | changes))

    def reservation(self, action: Action) -> Reservation:
        """One cent and 500 tokens."""
        return Reservation(id=action.id, nanousd=10_000_000, tokens=500, levels=("agent:reader", "user:ada"))

    def intent(self, action: Action) -> Entry:
        """An allowed intent with a reservation."""
        return records.intent(action, self.tool, self.decision, self.reservation(action), ("schema",))

    def result(self, action: Action, body: bytes = b'{"ok":true}') -> Entry:
        """A success that cost half a micro-dollar."""
        usage = Usage(input_tokens=5, output_tokens=6)
        ended = Result(status=Status.SUCCEEDED, latency_us=1200, cost=Cost(nanousd=500, usage=usage), body=body)
        return records.result(action, self.tool, self.decision, ended, self.reservation(action))

    async def pairs(self, log: AuditLog, count: int) -> list[Action]:
        """Append `count` intents, each with its result."""
        actions = [self.action() for _ in range(count)]
        for action in actions:
            await log.append(self.intent(action))
            await log.append(self.result(action))
        return actions

    @asynccontextmanager
    async def log(self, **options: Any) -> AsyncIterator[AuditLog]:
        """A started log, stopped in order at the end."""
        writer = Writer.open(self.data_dir)
        try:
            log = AuditLog.open(self.data_dir, writer, origin=ORIGIN, **options)
            await log.start()
            yield log
            await log.stop()
        finally:
            await writer.close()
