"""What the tests of the trail share: actors, actions, and logs that are opened and closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

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
from gateway.audit import keys as audit_keys
from gateway.audit.appending import Appending
from gateway.audit.check import Report, verify
from gateway.audit.shared import SharedLog
from gateway.audit.source import FileSource, PostgresSource
from gateway.clock import Ids, SystemClock
from gateway.replicas import Replicas
from gateway.store import Writer
from gateway.store.postgres import PostgresDatabase

ORIGIN = "gateway.local/audit/default"


BOTH = pytest.mark.parametrize("house", ["sqlite", "postgresql"], indirect=True)


def embedded(log: Appending) -> AuditLog:
    """A log that stands in a data directory, with what only such a one has."""
    assert isinstance(log, AuditLog)
    return log


async def ticked(log: Appending) -> None:
    """What time does to an embedded log."""
    await embedded(log).tick()


class House:
    """Makes actions and records, opens logs on one data directory."""

    def __init__(self, data_dir: Path, url: str | None = None) -> None:
        """`url`: a PostgreSQL that replicas share; without it everything stands in the data directory."""
        self.data_dir = data_dir
        self.url = url
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

    async def pairs(self, log: Appending, count: int) -> list[Action]:
        """Append `count` intents, each with its result."""
        actions = [self.action() for _ in range(count)]
        for action in actions:
            await log.append(self.intent(action))
            await log.append(self.result(action))
        return actions

    @asynccontextmanager
    async def log(self, **options: Any) -> AsyncIterator[Appending]:
        """A started log, stopped in order at the end."""
        if self.url is not None:
            async with self._replica(self.url, **options) as shared:
                yield shared
            return
        writer = Writer.open(self.data_dir)
        try:
            log = AuditLog.open(self.data_dir, writer, origin=ORIGIN, **options)
            await log.start()
            yield log
            await log.stop()
        finally:
            await writer.close()

    @asynccontextmanager
    async def _replica(self, url: str, **options: Any) -> AsyncIterator[Appending]:
        """The log as a replica has it, which is ended in order."""
        keys = self.data_dir / "keys"
        audit_keys.load(keys, ORIGIN, create=True, random_bytes=audit_keys.system_random)
        clock = options.pop("clock", None) or SystemClock()
        replica = self.ids.new()
        group = Replicas(url, replica, name="house", version="0", clock=SystemClock())
        await group.register()
        writer = Writer(PostgresDatabase(url, replica))
        try:
            log = SharedLog.open(
                self.data_dir,
                writer,
                url=url,
                replica=replica,
                keys_dir=keys,
                origin=ORIGIN,
                clock=clock,
                ids=self.ids,
                **options,
            )
            await log.start()
            yield log
            await log.stop()
        finally:
            await writer.close()
            await group.stop()

    def verify(self, **options: Any) -> Report:
        """What an auditor finds, wherever the trail stands."""
        if self.url is None:
            return verify(FileSource(self.data_dir), **options)
        return verify(PostgresSource(self.url, self.data_dir, self.data_dir / "keys"), **options)
