"""Durable records per second, and what waiting for them adds: the log on SQLite and on PostgreSQL, in one run.

usage: python -m bench.records [--rates 1000,2000,5000] [--seconds S] [--rounds N]

Open loop: pairs of an intent (awaited until it is durable) and its result (which rides the next commit) arrive at
random (Poisson), whether or not the earlier ones are done. Latencies are of the awaited intent, from the moment it was
due: a loop that is late makes it late, and so does its timer, which knows milliseconds. The floor is the same loop,
queue and thread over a store that keeps nothing. CPU is of this process, until all that was put off is done, and beside
it PostgreSQL's. `placed` is how long after an intent was durable it had its index, p99; `refused` are intents that were
not durable in time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import uvloop

from bench import payload
from bench.measure import cpu_us
from bench.record_stores import Subject, floor, postgresql, sqlite
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
from gateway.audit import Entry, records
from gateway.audit.appending import Appending
from gateway.clock import Ids, SystemClock
from gateway.errors import Refusal

BODY = payload.BODIES["chat"]
SUBJECTS = {"floor": floor, "sqlite": sqlite, "postgresql": postgresql}

_WATCH_S = 0.005  # how often it is looked how far the log has its places
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
    server_us: float
    placed_ms: float
    refused: float


def _entries() -> tuple[Entry, Entry]:
    action = Action(
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
    held = Reservation(id=action.id, nanousd=1000, tokens=10, levels=("agent:reader",))
    result = Result(status=Status.SUCCEEDED, cost=Cost(nanousd=500), body=BODY)
    return records.intent(action, _TOOL, _DECISION, held), records.result(action, _TOOL, _DECISION, result)


class Places:
    """How long records that are durable wait for their place in the log."""

    def __init__(self, log: Appending) -> None:
        self._log = log
        self._first = log.size
        self._grew: list[tuple[int, float]] = []  # the log's size, and when it was seen
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        size = self._first
        while True:
            if self._log.size != size:
                size = self._log.size
                self._grew.append((size, time.perf_counter()))
            await asyncio.sleep(_WATCH_S)

    async def lags_s(self, durable: list[tuple[str, float]]) -> list[float]:
        """Of records (id, when it was durable) that all have their place by now."""
        await asyncio.sleep(2 * _WATCH_S)
        self._watching.cancel()
        rows = await self._log.writer.read(
            lambda c: c.execute("SELECT id, idx FROM leaf WHERE idx >= ? ORDER BY idx", (self._first,)).fetchall()
        )
        waits, lags, grew = dict(durable), list[float](), iter(self._grew)
        size, seen_s = self._first, 0.0
        for id_, index in rows:
            while size <= index:
                size, seen_s = next(grew)
            if id_ in waits:
                lags.append(max(0.0, seen_s - waits.pop(id_)))
        if waits:
            raise SystemExit(f"{len(waits)} records that were acknowledged have no place in the log.")
        return lags


async def measure(subject: Subject, rate: int, seconds: float, seed: int) -> Figures:
    """One round: `rate` records a second, half of them awaited."""
    chance = random.Random(seed)
    waited: list[float] = []
    durable: list[tuple[str, float]] = []
    refused: list[str] = []
    places = None if subject.log is None else Places(subject.log)

    async def pair(due_s: float) -> None:
        intent, result = _entries()
        try:
            await subject.append(intent)
        except Refusal:
            refused.append(intent.leaf.id)
            return
        now_s = time.perf_counter()
        waited.append(now_s - due_s)
        durable.append((intent.leaf.id, now_s))
        subject.append_soon(result)

    cpu_s, server_us = _cpu_s(), _server_us(subject)
    began_s = time.perf_counter()
    next_s = began_s + chance.expovariate(rate / 2)
    async with asyncio.TaskGroup() as pairs:
        while (now_s := time.perf_counter()) - began_s < seconds:
            while next_s <= now_s:
                pairs.create_task(pair(next_s))
                next_s += chance.expovariate(rate / 2)
            await asyncio.sleep(max(0.0, min(next_s - time.perf_counter(), 0.002)))
    intent, result = _entries()  # the queue is one: when this is durable, the results before it are
    await subject.append(intent)
    await subject.append(result)
    took_s = time.perf_counter() - began_s
    await subject.caught_up()
    count = len(waited) * 2
    cpu_s, server_us = _cpu_s() - cpu_s, _server_us(subject) - server_us
    lags = [0.0] if places is None else await places.lags_s(durable)
    return Figures(
        per_second=count / took_s,
        p50_ms=1000 * _quantile(waited, 0.5),
        p99_ms=1000 * _quantile(waited, 0.99),
        cpu_us=1e6 * cpu_s / count,
        server_us=server_us / count,
        placed_ms=1000 * _quantile(lags, 0.99),
        refused=len(refused),
    )


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _server_us(subject: Subject) -> float:
    return 0.0 if subject.server_pid is None else cpu_us(subject.server_pid)


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
            print(f"round {number + 1} of {rounds}, load average {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return found


def main() -> None:
    """Print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", default="1000,2000,5000")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    rates = [int(rate) for rate in given.rates.split(",")]
    found = uvloop.run(run(rates, given.seconds, given.rounds))
    print(
        "| wanted | store | records/s | p50 ms | p99 ms | added p99 ms | CPU us/record | PostgreSQL us/record |"
        " placed p99 ms | refused |"
    )
    print("|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for rate in rates:
        least = _median(found["floor", rate])
        for name in SUBJECTS:
            of = _median(found[name, rate])
            print(
                f"| {rate:,} | {name} | {of.per_second:,.0f} | {of.p50_ms:.1f} | {of.p99_ms:.1f} |"
                f" {of.p99_ms - least.p99_ms:.1f} | {of.cpu_us:.0f} | {of.server_us:.0f} | {of.placed_ms:.0f} |"
                f" {of.refused:.0f} |"
            )


def _median(of: list[Figures]) -> Figures:
    middle = len(of) // 2
    return Figures(*(sorted(values)[middle] for values in zip(*of, strict=True)))


if __name__ == "__main__":
    main()
