"""Which intents are open is what the log says, whatever somebody wrote into the table `open_intent`."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from gateway.actions import Reservation
from gateway.audit.appending import Appending
from gateway.audit.log import AuditLog
from gateway.audit.shared import SharedLog
from gateway.audit.view import Filter
from gateway.store import Writer
from gateway.store.interface import Connection
from gateway.store.postgres import replicas as rows
from gateway.store.postgres.beside import Beside

from .house import ORIGIN, House

FORGED = [
    "DELETE FROM open_intent WHERE action_id = '{open}'",
    "UPDATE open_intent SET reservation = NULL WHERE action_id = '{open}'",
    """UPDATE open_intent SET reservation = '{{"id":"{open}","nanousd":1,"tokens":1,"levels":[]}}'""",
    "UPDATE open_intent SET replica = 'another'",
    "UPDATE open_intent SET leaf_id = 'another'",
    "INSERT INTO open_intent (action_id, leaf_id, replica) VALUES ('{ended}', '{record}', '{replica}')",
]
forged = pytest.mark.parametrize("statement", FORGED)


async def left_open(house: House, log: Appending) -> dict[str, str]:
    """An action without a result and one with, as the placeholders of statements."""
    ended, open_one = house.action(), house.action()
    await log.append(house.intent(ended))
    await log.append(house.result(ended))
    await log.append(house.intent(open_one))
    (result,) = (await log.query(Filter(action=ended.id, type="action.result"))).records
    return {"open": open_one.id, "ended": ended.id, "record": result["refs"]["intent"], "replica": ""}


async def is_ended_once(log: Appending, left: dict[str, str], settled: list[Reservation]) -> None:
    """The open action has ended unknown at what its record reserved; the other one has the result it had."""
    for action, status in ((left["open"], "unknown"), (left["ended"], "succeeded")):
        results = (await log.query(Filter(action=action, type="action.result"))).records
        assert [one["result"]["status"] for one in results] == [status]
    assert [(one.id, one.nanousd, one.tokens, one.levels) for one in settled] == [
        (left["open"], 10_000_000, 500, ("agent:reader", "user:ada"))
    ]
    assert "table open_intent" in (log.macs.fault or "")


def settling(settled: list[Reservation]) -> Callable[[Connection, Reservation, str], None]:
    return lambda connection, reservation, replica: settled.append(reservation)


@forged
async def test_a_start_ends_what_the_log_says_is_open(house: House, statement: str) -> None:
    writer = Writer.open(house.data_dir)
    log = AuditLog.open(house.data_dir, writer, origin=ORIGIN)
    await log.start()
    left = await left_open(house, log)
    assert log._ticking is not None
    log._ticking.cancel()  # it dies without an end
    await writer.close()
    with closing(sqlite3.connect(house.data_dir / "gateway.db")) as database, database:
        database.execute(statement.format(**left))
    settled: list[Reservation] = []
    writer = Writer.open(house.data_dir)
    log = AuditLog.open(house.data_dir, writer, origin=ORIGIN)
    await log.start(settling(settled))
    await is_ended_once(log, left, settled)
    await log.stop()
    await writer.close()
    report = await asyncio.to_thread(house.verify)
    assert report.findings == []
    assert report.interrupted == 0


@forged
async def test_a_replica_ends_what_the_log_says_another_one_left_open(
    house: House, postgres_url: str, tmp_path: Path, statement: str
) -> None:
    house, other = House(house.data_dir, postgres_url), House(house.data_dir, postgres_url)
    beside = Beside(postgres_url, name="ends a replica")
    async with other.log() as second:
        assert isinstance(second, SharedLog)
        async with house.log() as first:
            assert isinstance(first, SharedLog)
            replica = first._replica
            left = await left_open(house, first) | {"replica": replica}
            await asyncio.to_thread(beside.run, lambda c: rows.end(c, replica))
        with psycopg.connect(postgres_url) as database:
            database.execute(statement.format(**left).encode())
        settled: list[Reservation] = []
        for _ in range(2):  # the second one finds nothing left to do
            await second.end_for(replica, settling(settled))
        await second.caught_up()
        await is_ended_once(second, left, settled)
    await asyncio.to_thread(beside.close)
    report = await asyncio.to_thread(house.verify)
    assert report.findings == []


async def test_an_honest_log_reports_nothing(house: House) -> None:
    async with house.log() as log:
        await left_open(house, log)
    async with house.log() as log:
        assert log.macs.fault is None
