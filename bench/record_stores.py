"""What `bench.records` appends to: the log on SQLite, one replica's on PostgreSQL, and a floor that keeps nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from gateway.audit import AuditLog, Entry
from gateway.audit import keys as audit_keys
from gateway.audit.appending import Appending
from gateway.audit.shared import SharedLog
from gateway.clock import Ids, SystemClock
from gateway.quickstart.servers import PostgresServer
from gateway.replicas import Replicas
from gateway.store import Writer
from gateway.store.interface import Connection
from gateway.store.postgres import PostgresDatabase, schema

ORIGIN = "gateway.local/audit/default"


class Subject(NamedTuple):
    """A log, or what stands in for one. `log` and `server_pid` only where a place in the log comes later."""

    append: Callable[[Entry], Awaitable[None]]
    append_soon: Callable[[Entry], None]
    caught_up: Callable[[], Awaitable[None]]
    log: Appending | None = None
    server_pid: int | None = None


class _Nothing:
    """A `store.Database` that keeps nothing."""

    faults: tuple[type[Exception], ...] = (OSError,)
    readers = 1
    place = "nowhere"
    away: str | None = None
    latch: Callable[[str], None] = staticmethod(lambda reason: None)
    connection: Any = None

    def begin(self, *, alone: bool) -> None: ...
    def commit(self) -> None: ...
    def roll_back(self) -> None: ...
    def committed(self, commits: int) -> None: ...
    def forget_deleted(self) -> None: ...
    def close(self, *, latched: bool) -> None: ...
    def is_lasting(self, error: Exception, *, began: bool) -> bool:
        return True

    def ends_batch(self, error: Exception) -> bool:
        return True

    def told(self, error: Exception) -> Exception:
        return error

    def read(self, fn: Callable[[Connection], Any]) -> Any:
        return fn(self.connection)


class _Takes:
    def alone(self, _item: Any) -> bool:
        return False

    def apply(self, _connection: Connection, items: list[Any]) -> list[Any]:
        return [None] * len(items)

    def committed(self) -> None: ...
    def undone(self) -> None: ...


@asynccontextmanager
async def floor(_folder: Path) -> AsyncIterator[Subject]:
    """The loop, the queue and the thread."""
    writer, takes = Writer(_Nothing()), _Takes()

    async def nothing() -> None: ...

    yield Subject(
        lambda entry: writer.submit(takes, (entry,)),
        lambda entry: writer.submit_soon(takes, (entry,), certain=True),
        nothing,
    )
    await writer.close()


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncIterator[Subject]:
    """The embedded log. What it puts off until nobody asks (the projection) is done when it has caught up."""
    writer = Writer.open(folder)
    log = AuditLog.open(folder, writer, origin=ORIGIN)
    await log.start()
    yield Subject(log.append, log.append_soon, log.caught_up)
    await log.stop()
    await writer.close()


@asynccontextmanager
async def postgresql(folder: Path) -> AsyncIterator[Subject]:
    """One replica's log, on a PostgreSQL of its own with its durable defaults."""
    server = await asyncio.to_thread(lambda: PostgresServer(folder / "postgres").__enter__())
    try:
        await asyncio.to_thread(schema.migrate, server.url)
        keys = folder / "keys"
        audit_keys.load(keys, ORIGIN, create=True, random_bytes=audit_keys.system_random)
        clock = SystemClock()
        ids = Ids(clock)
        replica = ids.new()
        group = Replicas(server.url, replica, name="bench", version="0", clock=clock)
        await group.register()
        writer = Writer(PostgresDatabase(server.url, replica))
        log = SharedLog.open(
            folder, writer, url=server.url, replica=replica, keys_dir=keys, origin=ORIGIN, clock=clock, ids=ids
        )
        await log.start()
        yield Subject(log.append, log.append_soon, log.caught_up, log, server.pid)
        await log.stop()
        await writer.close()
        await group.stop()
    finally:
        await asyncio.to_thread(server.stop)
