"""The writer over a real PostgreSQL: commits whose outcome is always known, a fence, one lock, and a server that goes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest

from gateway.clock import Ids, SystemClock
from gateway.errors import Refusal
from gateway.quickstart.servers import PostgresServer
from gateway.store import Writer
from gateway.store.interface import Connection
from gateway.store.postgres import PostgresDatabase, schema
from gateway.store.postgres import replicas as rows
from gateway.store.postgres.beside import Beside

PATIENCE_S = 30
_ids = Ids(SystemClock())


def joined(url: str, **options: Any) -> Writer:
    """A writer of a new replica."""
    replica = _ids.new()
    beside = Beside(url, name="test")
    beside.run(lambda db: rows.register(db, replica, name="test", version="0"))
    beside.close()
    return Writer(PostgresDatabase(url, replica), **options)


@pytest.fixture
async def writer(postgres_url: str) -> AsyncIterator[Writer]:
    made = joined(postgres_url)
    yield made
    await made.close()


def is_away(writer: Writer) -> bool:
    return writer.away is not None


def put(topic: str) -> Any:
    def write(db: Connection) -> str:
        db.execute("INSERT INTO changed (topic, version) VALUES (?, 1)", (topic,))
        return topic

    return write


def topics(url: str) -> list[str]:
    with psycopg.connect(url) as database:
        return [str(topic) for (topic,) in database.execute(b"SELECT topic FROM changed ORDER BY topic")]


async def test_a_part_that_fails_undoes_itself_alone(writer: Writer, postgres_url: str) -> None:
    def broken(db: Connection) -> None:
        put("never")(db)
        raise ValueError("no")

    done = await asyncio.gather(
        writer.write(put("a")),
        writer.write(broken),
        writer.write(put("a")),
        writer.write(put("b")),
        return_exceptions=True,
    )
    assert done[0] == "a"
    assert isinstance(done[1], ValueError)
    assert isinstance(done[2], psycopg.errors.UniqueViolation)
    assert done[3] == "b"
    assert topics(postgres_url) == ["a", "b"]


@pytest.mark.parametrize("made", [True, False])
async def test_a_commit_whose_answer_was_lost_is_looked_up(
    writer: Writer, postgres_url: str, monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    """The connection breaks at COMMIT: after it was made, or before."""
    database = writer.database
    assert isinstance(database, PostgresDatabase)
    raw = database.connection.raw
    real = raw.execute
    broken: list[bool] = []

    def execute(query: Any, *more: Any, **options: Any) -> Any:
        if query != b"COMMIT" or broken:
            return real(query, *more, **options)
        broken.append(True)
        if made:
            real(query, *more, **options)
        raw.close()
        raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(raw, "execute", execute)
    waited = writer.submit(None, put("once"), certain=True)  # what already happened is written, however long it takes
    async with asyncio.timeout(PATIENCE_S):
        assert await waited == "once"
        assert await writer.write(put("next")) == "next"
    assert topics(postgres_url) == ["next", "once"]
    assert writer.latched is None


async def test_whoever_was_ended_can_write_nothing_more(writer: Writer, postgres_url: str) -> None:
    await writer.write(put("before"))
    database = writer.database
    assert isinstance(database, PostgresDatabase)
    other = joined(postgres_url)
    assert not await other.write(lambda db: rows.end(db, database.replica, 60.0))  # not silent for so long
    assert await other.write(lambda db: rows.end(db, database.replica))
    with pytest.raises(Refusal, match="ended"):
        await writer.write(put("after"))
    assert "another replica has ended this one" in str(writer.latched)
    assert await other.read(lambda db: db.execute("SELECT topic FROM changed").fetchall()) == [("before",)]
    await other.close()


async def test_changes_of_two_replicas_are_as_serial_as_in_one_file(writer: Writer, postgres_url: str) -> None:
    """Each reads, and writes what it read and one more: no update is lost."""
    other = joined(postgres_url)

    def count(db: Connection) -> None:
        row = db.execute("SELECT version FROM changed WHERE topic = 'counted'").fetchone()
        if row is None:
            db.execute("INSERT INTO changed (topic, version) VALUES ('counted', 1)")
        else:
            db.execute("UPDATE changed SET version = ? WHERE topic = 'counted'", (row[0] + 1,))

    await asyncio.gather(*(one.write(count) for _ in range(50) for one in (writer, other)))
    assert await other.read(rows.versions) == {"counted": 100}
    await other.close()


async def test_a_server_that_goes_is_told_at_once_and_comes_back_by_itself(own_postgres: PostgresServer) -> None:
    await asyncio.to_thread(schema.migrate, own_postgres.url)
    writer = joined(own_postgres.url)
    await writer.write(put("before"))
    await asyncio.to_thread(own_postgres.kill)
    with pytest.raises(Refusal) as refused:
        await writer.write(put("lost"))
    assert refused.value.code == "audit_unavailable"
    assert refused.value.http_status == 503
    kept = writer.submit(None, put("kept"), certain=True)
    async with asyncio.timeout(PATIENCE_S):
        while not is_away(writer):
            await asyncio.sleep(0.01)
    with pytest.raises(Refusal) as unread:
        await writer.read(rows.versions)
    assert unread.value.code == "store_unavailable"
    await asyncio.to_thread(own_postgres.start)
    async with asyncio.timeout(PATIENCE_S):
        assert await kept == "kept"
        while is_away(writer):
            await asyncio.sleep(0.01)
    assert await writer.write(put("after")) == "after"
    assert sorted(await writer.read(rows.versions)) == ["after", "before", "kept"]
    await writer.close()


async def test_a_schema_that_is_not_this_codes_is_refused_with_what_to_do(empty_postgres_url: str) -> None:
    with pytest.raises(Refusal, match="run `gateway migrate`"):
        schema.check(empty_postgres_url)
    assert await asyncio.to_thread(schema.migrate, empty_postgres_url)
    assert not await asyncio.to_thread(schema.migrate, empty_postgres_url)
    schema.check(empty_postgres_url)
    with psycopg.connect(empty_postgres_url) as database:
        database.execute(b"UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Refusal, match="newer than this gateway"):
        schema.check(empty_postgres_url)


def stand_still(times: int) -> Callable[[Connection], list[str]]:
    """Work in the middle of which its process stands still, so long that the server ends the transaction."""
    left = [times]

    def work(db: Connection) -> list[str]:
        if left[0]:
            left[0] -= 1
            db.execute("SET LOCAL idle_in_transaction_session_timeout = 20")
            threading.Event().wait(0.3)
        db.execute("SELECT 1")
        return [str(topic) for (topic,) in db.execute("SELECT topic FROM changed ORDER BY topic")]

    return work


async def test_who_stood_still_in_a_transaction_makes_it_anew_or_says_that_it_could_not(writer: Writer) -> None:
    await writer.write(put("before"))
    assert await writer.read(stand_still(1)) == ["before"]
    with pytest.raises(Refusal) as unread:
        await writer.read(stand_still(2))
    assert unread.value.code == "store_unavailable"
    with pytest.raises(Refusal) as unwritten:
        await writer.write(stand_still(1))
    assert unwritten.value.code == "audit_unavailable"
    async with asyncio.timeout(PATIENCE_S):
        assert await writer.submit(None, stand_still(1), certain=True) == ["before"]
    assert writer.latched is None
