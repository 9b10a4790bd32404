"""The writer: durable when awaited, grouped, isolated from its callers' faults, shut after the disk's."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from gateway.errors import Refusal
from gateway.store import Writer
from gateway.store.connections import open_for_reading
from gateway.store.interface import Connection


def count(connection: Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM spend").fetchone()[0])


def committed(data_dir: Path) -> int:
    connection = open_for_reading(data_dir / "gateway.db")
    try:
        return count(connection)
    finally:
        connection.close()


class put:  # noqa: N801 - reads as a verb where it is used
    """Inserts one row and returns its number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, connection: Connection) -> int:
        connection.execute(
            "INSERT INTO spend (tenant, level, window, replica, nanousd, tokens) VALUES ('t', ?, 'day', '', 1, 1)",
            (str(self.number),),
        )
        return self.number


async def test_what_was_awaited_is_seen_by_another_connection(data_dir: Path) -> None:
    writer = Writer.open(data_dir)
    assert await writer.write(put(7)) == 7
    assert committed(data_dir) == 1
    assert await writer.read(count) == 1
    await writer.close()


async def test_many_awaiters_share_commits_and_each_gets_its_own_answer(data_dir: Path) -> None:
    writer = Writer.open(data_dir)
    assert await asyncio.gather(*(writer.write(put(number)) for number in range(500))) == list(range(500))
    assert writer.commits < 100
    await writer.close()
    assert committed(data_dir) == 500


async def test_what_nobody_awaits_is_committed_soon_and_before_close(data_dir: Path) -> None:
    writer = Writer.open(data_dir)
    for number in range(50):
        writer.write_soon(put(number))
    await writer.close()
    assert committed(data_dir) == 50


async def test_an_awaited_write_takes_along_what_lingers(data_dir: Path) -> None:
    writer = Writer.open(data_dir, linger_s=30.0)
    writer.write_soon(put(1))
    async with asyncio.timeout(10):
        await writer.write(put(2))
    assert committed(data_dir) == 2
    await writer.close()


async def test_a_fault_of_one_write_undoes_only_its_own_part(data_dir: Path) -> None:
    writer = Writer.open(data_dir)

    def faulty(connection: Connection) -> None:
        put(100)(connection)
        raise ValueError("mine")

    outcomes = await asyncio.gather(
        writer.write(put(1)), writer.write(faulty), writer.write(put(1)), writer.write(put(2)), return_exceptions=True
    )
    assert outcomes[0] == 1
    assert outcomes[3] == 2
    assert isinstance(outcomes[1], ValueError)
    assert isinstance(outcomes[2], sqlite3.IntegrityError)
    assert writer.latched is None
    await writer.close()
    assert committed(data_dir) == 2


async def test_a_disk_error_latches_until_the_next_start(data_dir: Path) -> None:
    writer = Writer.open(data_dir)

    def full(connection: Connection) -> None:
        connection.execute("PRAGMA max_page_count=1")
        connection.execute("CREATE TABLE filler (data BLOB)")
        connection.execute("INSERT INTO filler VALUES (zeroblob(10000000))")

    with pytest.raises(Refusal) as caught:
        await writer.write(full)
    assert caught.value.code == "audit_unavailable"
    assert caught.value.http_status == 503
    assert "full" in (writer.latched or "")
    for _ in range(3):
        with pytest.raises(Refusal, match="full"):
            await writer.write(put(1))
        with pytest.raises(Refusal, match="full"):
            writer.write_soon(put(1))
    await writer.close()
    again = Writer.open(data_dir)
    assert await again.write(put(1)) == 1
    await again.close()


async def test_a_write_that_takes_too_long_is_refused_and_skipped(data_dir: Path) -> None:
    writer = Writer.open(data_dir, timeout_s=0.1)
    go, begun = threading.Event(), threading.Event()

    def block(_: Connection) -> None:
        begun.set()
        go.wait(30)

    blocked = writer.submit(None, block)
    await asyncio.to_thread(begun.wait, 10)
    with pytest.raises(Refusal, match=r"took longer than 0\.1 s"):
        await writer.write(put(1))
    go.set()
    with pytest.raises(Refusal):
        await blocked
    assert writer.latched is None
    await writer.close()
    assert committed(data_dir) == 0


async def test_a_full_queue_refuses_instead_of_growing(data_dir: Path) -> None:
    writer = Writer.open(data_dir, timeout_s=60)  # however slow the machine is
    go = threading.Event()
    begun = threading.Event()

    def block(_: Connection) -> None:
        begun.set()
        go.wait(30)

    writer.write_soon(block)
    first = asyncio.ensure_future(writer.write(lambda _: None))
    await asyncio.to_thread(begun.wait, 10)
    waiting = [writer.submit(None, lambda _: None) for _ in range(4096 - writer.queued)]
    with pytest.raises(Refusal, match="waiting for the disk"):
        await writer.write(put(1))
    go.set()
    await asyncio.gather(first, *waiting)
    await writer.close()


class Stuck:
    """A writer whose disk takes its time: its thread stands inside a transaction until `go`."""

    def __init__(self, data_dir: Path) -> None:
        self.go = threading.Event()
        self.begun = threading.Event()
        self.writer = Writer.open(data_dir, linger_s=0)

    async def __aenter__(self) -> Writer:
        self.writer.write_soon(self._block)
        await asyncio.to_thread(self.begun.wait, 10)
        return self.writer

    async def __aexit__(self, *_: object) -> None:
        self.go.set()
        await self.writer.close()

    def _block(self, _: Connection) -> None:
        self.begun.set()
        self.go.wait(30)


async def test_a_flood_that_nobody_awaits_crowds_out_neither_results_nor_awaited_writes(data_dir: Path) -> None:
    stuck = Stuck(data_dir)
    async with stuck as writer:
        with pytest.raises(Refusal, match="waiting for the disk") as caught:  # noqa: PT012 - one of many is refused
            for _ in range(20_000):
                writer.write_soon(lambda _: None)
        assert caught.value.code == "audit_unavailable"
        writer.submit_soon(None, put(1), certain=True)
        awaited = writer.submit(None, put(2))
        assert writer.latched is None
        stuck.go.set()
        assert await awaited == 2
        writer.write_soon(put(3))
    assert committed(data_dir) == 3


async def test_what_must_be_written_and_cannot_be_queued_latches(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.writer._LIMITS", (1, 1, 3))
    async with Stuck(data_dir) as writer:
        for number in range(3):
            writer.submit_soon(None, put(number), certain=True)
        with pytest.raises(Refusal, match="waiting for the disk"):
            writer.submit_soon(None, put(9), certain=True)
        assert writer.latched is not None
        with pytest.raises(Refusal):
            writer.write_soon(put(9))


async def test_a_late_commit_is_told_to_who_gave_up(data_dir: Path) -> None:
    writer = Writer.open(data_dir)
    go, begun, told = threading.Event(), threading.Event(), asyncio.Event()

    def block(_: Connection) -> None:
        begun.set()
        go.wait(30)

    future = writer.submit(None, block, told.set)
    await asyncio.to_thread(begun.wait, 10)
    future.cancel()
    go.set()
    async with asyncio.timeout(10):
        await told.wait()
    await writer.close()


async def test_what_already_happened_is_written_however_long_the_file_is_busy(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.connections.BUSY_TIMEOUT_S", 0.02)
    writer = Writer.open(data_dir, timeout_s=0.1)
    other = sqlite3.connect(writer.database.place, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waited, left = (writer.submit(None, put(number), certain=True) for number in (1, 2))
    writer.submit_soon(None, put(3), certain=True)
    left.cancel()
    with pytest.raises(Refusal):
        await writer.write(put(9))
    assert not waited.done()
    other.execute("ROLLBACK")
    async with asyncio.timeout(10):
        assert await waited == 1
    other.execute("BEGIN IMMEDIATE")
    last = writer.submit(None, put(4), certain=True)
    await writer.close()  # there is no later
    with pytest.raises(Refusal):
        await last
    other.execute("ROLLBACK")
    other.close()
    assert committed(data_dir) == 3


async def test_a_fault_in_the_writer_itself_is_told_and_latches(data_dir: Path) -> None:
    class Broken:
        def apply(self, connection: Connection, items: list[object]) -> list[object]:
            put(1)(connection)
            raise RuntimeError("broken")

        def alone(self, item: object) -> bool:
            return False

        def undone(self) -> None:
            raise AssertionError("the writer latched, so nobody goes on")

        def committed(self) -> None:
            raise AssertionError("nothing was committed")

    writer = Writer.open(data_dir)
    with pytest.raises(Refusal, match="broken"):
        await writer.submit(Broken(), 1)
    assert writer.latched
    await writer.close()
    assert committed(data_dir) == 0


async def test_readers_cannot_write(data_dir: Path) -> None:
    writer = Writer.open(data_dir)
    with pytest.raises(sqlite3.OperationalError):
        await writer.read(put(1))
    await writer.close()


async def test_a_second_gateway_on_the_same_directory_is_refused(data_dir: Path) -> None:
    writer = Writer.open(data_dir)
    with pytest.raises(Refusal, match="in use by another gateway"):
        Writer.open(data_dir)
    await writer.close()
    again = Writer.open(data_dir)
    await again.close()
    with pytest.raises(Refusal):
        await again.write(put(1))
    await again.close()
