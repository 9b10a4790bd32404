"""Durable records per second, and what waiting for them adds: the log on SQLite and on PostgreSQL, in one run.

    .venv/bin/python -m bench.records [--rates 1000,2000,5000] [--seconds 4] [--rounds 3]

Open loop: pairs of an intent (awaited until it is durable) and its result (which rides the next commit) arrive at
random (Poisson), whether or not the earlier ones are done. The floor is the same loop, thread and queue over a store
that keeps nothing. Latencies are of the awaited intent; `placed` is how long after the last record all had their index;
`refused` are intents that were not durable in time.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from bench import payload
from gateway.actions import (
    Action,
    Agent,
    Caller,
    Cost,
    Decision,
    Effect,
    Kind,
    Reservation,
    Result,
    Session,
    Status,
    ToolTarget,
    Trace,
)
from gateway.audit import AuditLog, Entry, records
from gateway.audit import keys as audit_keys
from gateway.audit.appending import Appending
from gateway.audit.shared import SharedLog
from gateway.clock import Ids, SystemClock
from gateway.errors import Refusal
from gateway.quickstart.servers import PostgresServer
from gateway.replicas import Replicas
from gateway.store import Writer
from gateway.store.interface import Connection
from gateway.store.postgres import PostgresDatabase, schema

ORIGIN = "gateway.local/audit/default"
BODY = payload.BODIES["chat"]
Append = Callable[[Entry], Any]

_IDS = Ids(SystemClock())
_CALLER = Caller(Agent(id="reader", team="treasury"), "ada", "key-1", "key")
_TOOL = ToolTarget(server="ledger", tool="transfer", server_kind="mcp", owner="o", risk="high", effect="read")
_DECISION = Decision(effect=Effect.ALLOW, rules=("small",), revision="r1", input=BODY)


class Figures(NamedTuple):
    """Of one round at one rate. Times in milliseconds, CPU in microseconds a record."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    placed_ms: float
    refused: float


class Subject(NamedTuple):
    """A log, or what stands in for one: how to append, how to append without waiting, and how to catch up."""

    append: Callable[[Entry], Any]
    append_soon: Callable[[Entry], None]
    caught_up: Callable[[], Any]


def _action() -> Action:
    return Action(
        id=_IDS.new(),
        kind=Kind.TOOL_CALL,
        door="mcp",
        caller=_CALLER,
        session=Session("s-1", "header"),
        trace=Trace("a" * 32, "b" * 16),
        target="ledger__transfer",
        request_id="r",
        received_ns=1,
        arguments={"to": "acme-gmbh", "amount_cents": 100, "reference": "INV-1"},
    )


def _entries() -> tuple[Entry, Entry]:
    action = _action()
    held = Reservation(id=action.id, nanousd=1000, tokens=10, levels=("agent:reader",))
    result = Result(status=Status.SUCCEEDED, cost=Cost(nanousd=500), body=BODY)
    return records.intent(action, _TOOL, _DECISION, held), records.result(action, _TOOL, _DECISION, result)


async def measure(subject: Subject, rate: int, seconds: float, seed: int) -> Figures:
    """One round: `rate` records a second, half of them awaited."""
    chance = random.Random(seed)
    waited: list[float] = []
    refused: list[str] = []
    tasks: set[asyncio.Task[None]] = set()

    async def pair() -> None:
        intent, result = _entries()
        began_s = time.perf_counter()
        try:
            await subject.append(intent)
        except Refusal:
            refused.append(intent.leaf.id)
            return
        waited.append(time.perf_counter() - began_s)
        subject.append_soon(result)

    cpu_s = _cpu_s()
    began_s = next_s = time.perf_counter()
    while (now_s := time.perf_counter()) - began_s < seconds:
        while next_s <= now_s:
            next_s += chance.expovariate(rate / 2)
            task = asyncio.create_task(pair())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.sleep(max(0.0, min(next_s - time.perf_counter(), 0.002)))
    while tasks:
        await asyncio.gather(*tasks)
    took_s = time.perf_counter() - began_s
    await subject.caught_up()
    placed_s = time.perf_counter() - began_s - took_s
    waited.sort()
    count = len(waited) * 2
    return Figures(
        per_second=count / took_s,
        p50_ms=1000 * waited[len(waited) // 2],
        p99_ms=1000 * waited[int(len(waited) * 0.99)],
        cpu_us=1e6 * (_cpu_s() - cpu_s) / count,
        placed_ms=1000 * placed_s,
        refused=len(refused),
    )


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# ---------------------------------------------------------------- subjects


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
    """The embedded log."""
    writer = Writer.open(folder)
    log = AuditLog.open(folder, writer, origin=ORIGIN)
    await log.start()

    async def nothing() -> None: ...

    yield Subject(log.append, log.append_soon, nothing)
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
        replica = _IDS.new()
        group = Replicas(server.url, replica, name="bench", version="0", clock=clock)
        await group.register()
        writer = Writer(PostgresDatabase(server.url, replica))
        log: Appending = SharedLog.open(
            folder, writer, url=server.url, replica=replica, keys_dir=keys, origin=ORIGIN, clock=clock, ids=_IDS
        )
        assert isinstance(log, SharedLog)
        await log.start()
        yield Subject(log.append, log.append_soon, log.caught_up)
        await log.stop()
        await writer.close()
        await group.stop()
    finally:
        await asyncio.to_thread(server.stop)


SUBJECTS = {"floor": floor, "sqlite": sqlite, "postgresql": postgresql}


async def run(rates: list[int], seconds: float, rounds: int) -> dict[tuple[str, int], list[Figures]]:
    """All subjects in turns, so that a neighbour of the machine meets each alike."""
    found: dict[tuple[str, int], list[Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-records-") as place:
        for number in range(rounds):
            for name, subject in SUBJECTS.items():
                folder = Path(place) / f"{name}-{number}"
                folder.mkdir(mode=0o755)
                async with subject(folder) as made:
                    for rate in rates:
                        found.setdefault((name, rate), []).append(await measure(made, rate, seconds, number))
    return found


def main() -> None:
    """Print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rates", default="1000,2000,5000")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    rates = [int(rate) for rate in given.rates.split(",")]
    found = uvloop.run(run(rates, given.seconds, given.rounds))
    print("| wanted | store | records/s | p50 ms | p99 ms | added p99 ms | CPU us/record | placed ms | refused |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|---:|")
    for rate in rates:
        least = _median(found["floor", rate])
        for name in SUBJECTS:
            of = _median(found[name, rate])
            print(
                f"| {rate:,} | {name} | {of.per_second:,.0f} | {of.p50_ms:.1f} | {of.p99_ms:.1f} |"
                f" {of.p99_ms - least.p99_ms:.1f} | {of.cpu_us:.0f} | {of.placed_ms:.0f} | {of.refused:.0f} |"
            )


def _median(of: list[Figures]) -> Figures:
    middle = len(of) // 2
    return Figures(*(sorted(values)[middle] for values in zip(*of, strict=True)))


if __name__ == "__main__":
    main()
