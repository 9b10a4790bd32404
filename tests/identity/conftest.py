from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.audit.log import AuditLog
from gateway.audit.records import event
from gateway.clock import Ids, ManualClock
from gateway.identity import Registry
from gateway.identity.journal import Change
from gateway.store import Writer
from gateway.store.interface import Connection


@dataclass
class House:
    """A registry over the real store and the real log; `again` is what a restart would find."""

    clock: ManualClock
    writer: Writer
    log: AuditLog
    registry: Registry
    suspended: list[str]

    async def journal(
        self,
        type: str,  # noqa: A002
        *,
        tenant: str,
        person: str | None,
        subject: dict[str, Any],
        labels: dict[str, str],
        also: Change,
    ) -> None:
        entry = event(type, tenant=tenant, person=person, subject=subject, labels=labels)
        entry.also = also
        await self.log.append(entry)

    async def again(self) -> Registry:
        registry = Registry(journal=self.journal, macs=self.log.macs, clock=self.clock, ids=Ids(self.clock))
        await registry.load(self.writer)
        return registry

    async def rows(self, statement: str) -> list[Any]:
        def read(db: Connection) -> list[Any]:
            return db.execute(statement).fetchall()

        return await self.writer.read(read)

    async def recorded(self, prefix: str) -> list[str]:
        bodies = await self.rows("SELECT body FROM leaf ORDER BY idx")
        found = []
        for (body,) in bodies:
            text = bytes(body).decode()
            kind = text.split('"type":"', 1)[1].split('"', 1)[0]
            if kind.startswith(prefix):
                found.append(kind)
        return found


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    clock = ManualClock()
    writer = Writer.open(tmp_path)
    log = AuditLog.open(tmp_path, writer, origin="test.local/audit", clock=clock)
    await log.start()
    suspended: list[str] = []
    made = House(clock, writer, log, None, suspended)  # type: ignore[arg-type]
    made.registry = Registry(
        journal=made.journal, macs=log.macs, clock=clock, ids=Ids(clock), on_suspend=suspended.append
    )
    await made.registry.load(writer)
    yield made
    await log.stop()
    await writer.close()
