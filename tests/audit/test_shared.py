"""The log that replicas share: contiguous whoever writes, taken over, fenced, and nothing done to it goes unseen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.audit.appending import Appending
from gateway.audit.shared import SharedLog
from gateway.audit.source import UnreadableError
from gateway.audit.view import Filter
from gateway.errors import Refusal
from gateway.store import Writer
from gateway.store.postgres import PostgresDatabase
from gateway.store.postgres import replicas as rows
from gateway.store.postgres.beside import Beside
from tests.audit.house import House


@pytest.fixture
def house(postgres_url: str, tmp_path: Path) -> House:
    return _house(tmp_path, "one", postgres_url)


def _house(folder: Path, name: str, url: str) -> House:
    """A replica's data directory; the keys are those of all."""
    data_dir = folder / name
    data_dir.mkdir()
    (folder / "keys").mkdir(exist_ok=True)
    (data_dir / "keys").symlink_to(folder / "keys")
    return House(data_dir, url)


@pytest.fixture
async def three(house: House, tmp_path: Path, postgres_url: str) -> AsyncIterator[list[tuple[House, Appending]]]:
    """Three replicas of one log."""
    others = [_house(tmp_path, name, postgres_url) for name in ("two", "three")]
    async with AsyncExitStack() as stack:
        yield [(one, await stack.enter_async_context(one.log())) for one in (house, *others)]


def done(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as database:
        for statement in statements:
            database.execute(statement.encode())


async def until_signed(log: Appending) -> None:
    await log.caught_up()
    size = log.size
    async with asyncio.timeout(20):
        while log.signed_size < size:
            await asyncio.sleep(0.02)


async def test_what_three_replicas_write_at_once_is_one_contiguous_log(
    three: list[tuple[House, Appending]],
) -> None:
    made = await asyncio.gather(*(one.pairs(log, 40) for one, log in three))
    _, log = three[0]
    await log.caught_up()
    page = await log.query(Filter(type="action.*", limit=1000))
    assert {record["action"]["id"] for record in page.records} == {one.id for actions in made for one in actions}
    assert len(page.records) == 3 * 40 * 2
    everything = await log.query(Filter(limit=1000))
    assert sorted(record["idx"] for record in everything.records) == list(range(len(everything.records)))
    assert sum(log.is_sequencer for _, log in three if isinstance(log, SharedLog)) == 1
    await until_signed(log)
    report = three[0][0].verify()
    assert (report.verdict, report.findings_count) == ("operator-signed", 0)


async def test_another_replica_places_records_once_the_one_that_did_has_stopped(
    house: House, tmp_path: Path, postgres_url: str
) -> None:
    other = _house(tmp_path, "two", postgres_url)
    async with other.log() as second:
        async with house.log() as first:
            await house.pairs(first, 3)
            await other.pairs(second, 3)
            await first.caught_up()
        await other.pairs(second, 3)
        await until_signed(second)
        assert isinstance(second, SharedLog)
        async with asyncio.timeout(20):
            while not second.is_sequencer:
                await asyncio.sleep(0.02)
    assert house.verify().ok
    assert other.verify().ok


async def test_an_ended_replica_can_make_nothing_durable_and_what_it_left_open_ends_once(
    house: House, tmp_path: Path, postgres_url: str
) -> None:
    other = _house(tmp_path, "two", postgres_url)
    settled: list[tuple[str, str]] = []
    async with other.log() as second, AsyncExitStack() as stack:
        first = await stack.enter_async_context(house.log())
        left = [house.action() for _ in range(3)]
        for action in left:
            await first.append(house.intent(action))
        assert isinstance(first, SharedLog)
        assert isinstance(second, SharedLog)
        replica = first._replica
        beside = Beside(postgres_url, name="reaper")
        assert beside.run(lambda db: rows.end(db, replica))
        beside.close()
        with pytest.raises(Refusal, match="ended"):
            await first.append(house.result(left[0]))
        assert first.writer.latched is not None
        ended = await asyncio.gather(
            *(second.end_for(replica, lambda _, held, whose: settled.append((held.id, whose))) for _ in range(2))
        )
        assert max(ended) == 3
        assert sorted(settled)[:3] == sorted((action.id, replica) for action in left)
        found = (await second.query(Filter(type="action.result", limit=10))).records
        assert [(one["result"]["status"], one["labels"]["ended_for"]) for one in found] == [("unknown", replica)] * 3
        assert await second.end_for(replica) == 0
        await until_signed(second)
    assert other.verify().ok


async def test_a_replica_with_other_keys_does_not_start(house: House, tmp_path: Path, postgres_url: str) -> None:
    async with house.log() as log:
        await house.pairs(log, 1)
    stranger = House(tmp_path / "stranger", postgres_url)
    stranger.data_dir.mkdir()
    with pytest.raises(Refusal, match="not the one that the others have"):
        async with stranger.log():
            pass


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        (
            "UPDATE leaf SET body = replace(encode(body, 'escape'), 'transfer', 'transfex')::bytea WHERE idx = 2",
            "record_altered",
        ),
        ("DELETE FROM leaf WHERE idx = 3", "records_missing"),
        ("DELETE FROM leaf WHERE idx = (SELECT max(idx) FROM leaf)", "records_missing"),
        (
            "UPDATE leaf SET idx = 1000 WHERE idx = 2; UPDATE leaf SET idx = 2 WHERE idx = 3; UPDATE leaf SET idx = 3 WHERE idx = 1000",
            "tree_mismatch",
        ),
        ("UPDATE checkpoint SET root = '\\x00' WHERE size = (SELECT max(size) FROM checkpoint)", "checkpoint_altered"),
        ("UPDATE record_view SET effect = 'deny' WHERE idx = 2", "projection_altered"),
        ("DELETE FROM payload WHERE seq = 1", "payload_missing"),
    ],
)
async def test_what_is_done_to_the_database_is_told(house: House, statement: str, code: str, postgres_url: str) -> None:
    async with house.log() as log:
        await house.pairs(log, 3)
    assert house.verify().ok
    done(postgres_url, *statement.split("; "))
    report = house.verify()
    assert report.verdict == "invalid"
    assert code in {finding.code for finding in report.findings}


@pytest.mark.parametrize("body", ["garbage", "{}", '{"case":null,"labels":[],"type":"key.created"}'])
async def test_what_is_no_record_among_those_without_a_place_is_told(
    house: House, postgres_url: str, body: str
) -> None:
    async with house.log() as log:
        await house.pairs(log, 3)
    with psycopg.connect(postgres_url, autocommit=True) as database:
        database.execute("INSERT INTO ingest (id, body) VALUES ('02', %s)", (body.encode(),))
    report = house.verify()
    assert report.verdict == "invalid"
    (finding,) = report.findings
    assert finding.code == "record_malformed"
    assert "record 02" in finding.message
    assert (report.leaves, report.payloads_checked) == (report.signed_size, 9)


@pytest.mark.parametrize("fault", ["ended", "no such database", "wrong password", "no server", "no address"])
async def test_a_database_that_can_not_be_read_is_no_finding(house: House, postgres_url: str, fault: str) -> None:
    async with house.log() as log:
        await house.pairs(log, 10)
    at = psycopg.conninfo.conninfo_to_dict(postgres_url)
    house.url = {
        "no such database": psycopg.conninfo.make_conninfo(postgres_url, dbname="nothing"),
        "wrong password": psycopg.conninfo.make_conninfo(postgres_url, password="other"),
        "no server": psycopg.conninfo.make_conninfo(postgres_url, port=9),
        "no address": f"{postgres_url}?secret={at['password']}",
    }.get(fault, postgres_url)

    def end() -> None:
        done(
            postgres_url,
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = 'gateway audit verify' AND datname = current_database()",
        )

    with pytest.raises(UnreadableError) as unread:
        house.verify(rest=end if fault == "ended" else None)
    assert str(unread.value).startswith("The trail could not be read: ")
    assert "GATEWAY_DATABASE_URL" in str(unread.value)
    assert str(at["password"]) not in str(unread.value)


async def test_an_older_database_is_told_by_whoever_saw_the_newer_one(
    house: House, tmp_path: Path, postgres_url: str
) -> None:
    """The last records, their checkpoints and the head go back to what they were; the log then grows another way."""
    async with house.log() as log:
        await house.pairs(log, 2)
    before = "SELECT size, frontier FROM log_head"
    with psycopg.connect(postgres_url) as database:
        row = database.execute(before.encode()).fetchone()
        assert row is not None
        size, frontier = row
    async with house.log() as log:
        await house.pairs(log, 2)
    with psycopg.connect(postgres_url) as database:
        for table in ("leaf", "record_view"):
            database.execute(f"DELETE FROM {table} WHERE idx >= %s".encode(), (size,))
        database.execute(b"DELETE FROM checkpoint WHERE size > %s", (size,))
        database.execute(b"UPDATE log_head SET size = %s, frontier = %s", (size, frontier))
    assert "records_missing" in {finding.code for finding in house.verify().findings}
    with pytest.raises(Refusal, match="does not have"):
        async with house.log():
            pass
    # One that never saw it goes on, and whoever did says so from then on.
    other = _house(tmp_path, "two", postgres_url)
    async with other.log() as log:
        await other.pairs(log, 5)
    assert "tree_mismatch" in {finding.code for finding in house.verify().findings}
    with pytest.raises(Refusal, match="does not have"):
        async with house.log():
            pass


async def test_a_result_that_is_written_anew_after_a_lost_commit_ends_its_intent(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house.log() as log:
        action = house.action()
        await log.append(house.intent(action))
        assert isinstance(log.writer, Writer)
        database = log.writer.database
        assert isinstance(database, PostgresDatabase)
        raw = database.connection.raw
        real = raw.execute

        def execute(query: Any, *more: Any, **options: Any) -> Any:
            if query != b"COMMIT":
                return real(query, *more, **options)
            raw.close()
            raise psycopg.OperationalError("the connection is lost")

        monkeypatch.setattr(raw, "execute", execute)
        await log.append(house.result(action))
        assert log.open_intents == 0
        with pytest.raises(Refusal, match="has ended already"):
            await log.append(house.result(action))
        (result,) = (await log.query(Filter(action=action.id, type="action.result"))).records
        assert result["result"]["status"] == "succeeded"
    assert house.verify().ok


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO ingest (id, body) SELECT id || 'x', body FROM leaf ORDER BY idx DESC LIMIT 1",
        "INSERT INTO ingest (id, body, mac) VALUES ('01', 'garbage', decode(repeat('00', 32), 'hex'))",
    ],
    ids=["forged", "garbage"],
)
async def test_what_no_replica_wrote_gets_no_place_and_stops_the_log(
    house: House, postgres_url: str, statement: str
) -> None:
    """Whoever can write to the database, and has no key, gets nothing signed."""
    async with house.log() as log:
        await house.pairs(log, 2)
        await until_signed(log)
        size = log.size
        done(postgres_url, statement)
        async with asyncio.timeout(20):
            while log.writer.latched is None:
                await asyncio.sleep(0.02)
        assert "was not written by a replica" in log.writer.latched
        with pytest.raises(Refusal, match="was not written by a replica"):
            await house.pairs(log, 1)
        assert log.size == size
    done(postgres_url, "DELETE FROM ingest WHERE id LIKE '%x' OR id = '01'")
    async with house.log() as log:  # as the sentence says
        await house.pairs(log, 1)
        await until_signed(log)
        assert log.size > size
    assert house.verify().ok


async def test_a_record_that_was_changed_while_it_waited_is_not_signed(house: House, postgres_url: str) -> None:
    other = Beside(postgres_url, name="nobody places")
    async with house.log() as log:
        await house.pairs(log, 1)
        await until_signed(log)
        # A leader that lives and does nothing: what comes now waits.
        await asyncio.to_thread(other.run, lambda c: rows.register(c, "idle", name="idle", version="1"))
        done(postgres_url, "UPDATE log_head SET writer = 'idle'")
        await house.pairs(log, 1)
        changed = "SET body = convert_to(replace(convert_from(body, 'UTF8'), 'action', 'acting'), 'UTF8')"
        done(postgres_url, f"UPDATE ingest {changed}")
        await asyncio.to_thread(other.run, lambda c: rows.end(c, "idle"))
        async with asyncio.timeout(20):
            while log.writer.latched is None:
                await asyncio.sleep(0.02)
        assert "was changed since" in log.writer.latched
    await asyncio.to_thread(other.close)


async def test_records_that_get_no_place_are_counted_and_told_of(house: House, postgres_url: str) -> None:
    """Whatever keeps them from it: here a leader that lives and does nothing."""
    other = Beside(postgres_url, name="nobody places")
    async with house.log() as log:
        assert isinstance(log, SharedLog)
        await house.pairs(log, 1)
        await until_signed(log)
        assert log.fault() is None
        await asyncio.to_thread(other.run, lambda c: rows.register(c, "idle", name="idle", version="1"))
        done(postgres_url, "UPDATE log_head SET writer = 'idle'")
        await house.pairs(log, 2)
        async with asyncio.timeout(20):
            while log.unsigned < 4:
                await asyncio.sleep(0.02)
        log._first_s -= 60  # as if it were a minute ago
        fault = log.fault()
        assert fault is not None
        assert "have waited" in fault
        await asyncio.to_thread(other.run, lambda c: rows.end(c, "idle"))
        async with asyncio.timeout(20):
            while log.fault() is not None or log.unsigned:
                await asyncio.sleep(0.02)
    await asyncio.to_thread(other.close)
    assert house.verify().ok


async def test_what_is_put_in_behind_the_last_record_is_not_signed(house: House, postgres_url: str) -> None:
    """Not by the replica that places now, nor by one that takes its place over."""
    async with house.log() as log:
        await house.pairs(log, 2)
        await until_signed(log)
        size = log.size
        forged = f"INSERT INTO leaf (idx, id, body, hash) SELECT {size}, id || 'x', body, hash FROM leaf WHERE idx = 0"
        done(postgres_url, forged)
        with contextlib.suppress(Refusal):  # where it is told before these are durable
            await house.pairs(log, 1)
        async with asyncio.timeout(20):
            while log.writer.latched is None:
                await asyncio.sleep(0.02)
        assert "somebody else writes to the database" in log.writer.latched
        assert log.signed_size == size
    async with house.log() as log:
        async with asyncio.timeout(20):
            while log.writer.latched is None:
                await asyncio.sleep(0.02)
        assert "are not the" in log.writer.latched
        assert log.signed_size == size
    done(postgres_url, f"DELETE FROM leaf WHERE idx = {size}")
    async with house.log() as log:
        await until_signed(log)
        assert log.signed_size > size
    assert house.verify().ok


async def test_a_copy_of_a_placed_record_stops_the_log(house: House, postgres_url: str) -> None:
    async with house.log() as log:
        done(postgres_url, "CREATE TABLE seen (id text, body bytea, mac bytea)")
        done(
            postgres_url,
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN INSERT INTO seen VALUES (NEW.id, NEW.body, NEW.mac); RETURN NEW; END'",
        )
        done(postgres_url, "CREATE TRIGGER keep AFTER INSERT ON ingest FOR EACH ROW EXECUTE FUNCTION keep()")
        await house.pairs(log, 1)
        await until_signed(log)
        done(postgres_url, "DROP TRIGGER keep ON ingest")
        done(postgres_url, "INSERT INTO ingest (id, body, mac) SELECT * FROM seen LIMIT 1")
        async with asyncio.timeout(20):
            while log.writer.latched is None:
                await asyncio.sleep(0.02)
        assert "already" in log.writer.latched
    report = house.verify()
    assert report.unsigned >= 1


async def test_an_intent_whose_record_was_changed_or_taken_is_not_ended_by_its_word_and_holds_nobody_up(
    house: House, tmp_path: Path, postgres_url: str
) -> None:
    other = _house(tmp_path, "two", postgres_url)
    idle = Beside(postgres_url, name="nobody places")
    async with other.log() as second, AsyncExitStack() as stack:
        first = await stack.enter_async_context(house.log())
        assert isinstance(first, SharedLog)
        assert isinstance(second, SharedLog)
        await first.caught_up()
        await asyncio.to_thread(idle.run, lambda c: rows.register(c, "idle", name="idle", version="1"))
        done(postgres_url, "UPDATE log_head SET writer = 'idle'")
        left = [house.action() for _ in range(3)]
        for action in left:
            await first.append(house.intent(action))
        replica = first._replica
        await asyncio.to_thread(idle.run, lambda c: rows.end(c, replica))
        changed, taken, whole = (one.id for one in left)
        of = "(SELECT leaf_id FROM open_intent WHERE action_id = '{}')"
        done(postgres_url, f"UPDATE ingest SET body = body || ' ' WHERE id = {of.format(changed)}")
        done(postgres_url, f"DELETE FROM ingest WHERE id = {of.format(taken)}")
        assert await second.end_for(replica) == 1
        with psycopg.connect(postgres_url) as database:
            open_ones = {one for (one,) in database.execute("SELECT action_id FROM open_intent").fetchall()}
        assert open_ones == {changed, taken}
        assert whole not in open_ones
        await stack.aclose()
    await asyncio.to_thread(idle.close)
    assert {finding.code for finding in house.verify().findings} >= {"record_malformed"}
