"""`AuditLog`: exactly one result, signed within a second, heartbeats, an orderly stop."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from typing import Any

import pytest

from gateway.actions import Reservation
from gateway.audit import AuditLog, records
from gateway.audit.appending import Appending
from gateway.audit.leaf import Leaf
from gateway.audit.view import Filter
from gateway.clock import ManualClock
from gateway.errors import Refusal
from gateway.store import Writer
from gateway.store.interface import Connection
from tests.audit.house import BOTH, ORIGIN, House, ticked

FIELDS = {"v", "id", "type", "ts", "writer", "tenant", "env", "actor", "session", "trace", "action", "model"}
FIELDS |= {"decision", "case", "obligations", "limits", "cost", "result", "refs", "payloads", "labels"}


async def last(log: Appending, **wanted: Any) -> list[dict[str, Any]]:
    return (await log.query(Filter(**wanted))).records


@BOTH
async def test_a_governed_action_is_two_records_with_everything_in_them(house: House) -> None:
    async with house.log() as log:
        action = house.action(parent="parent-1", digest="hmac-sha256:00")
        await log.append(house.intent(action))
        await log.append(house.result(action))
        result, intent = await last(log, action=action.id)
    assert set(intent) == set(result) == FIELDS | {"idx"}
    assert intent["type"] == "action.intent"
    assert intent["actor"] == {"agent": "reader", "version": "3", "user": "ada", "authn": "key"}
    assert intent["session"] == {"id": "s-1", "source": "header"}
    assert intent["trace"]["request"] == "req-1"
    assert intent["action"] == {
        "id": action.id,
        "kind": "tool.call",
        "server": "ledger",
        "tool": "transfer",
        "definition_digest": None,
        "risk": "high",
        "effect": "write",
        "digest": "hmac-sha256:00",
    }
    assert intent["limits"] == {"levels": ["agent:reader", "user:ada"], "reserved_usd": "0.01", "tokens": 500}
    assert intent["decision"]["rules"] == ["small_transfer"]
    committed = {part["name"]: part["commitment"] for part in intent["payloads"]}
    assert set(committed) == {"arguments", "policy_input"}
    assert intent["decision"]["input_commitment"] == committed["policy_input"]
    assert intent["labels"]["inspected"] == "schema"
    assert intent["refs"]["parent"] == "parent-1"
    assert result["refs"]["intent"] == intent["id"]
    assert result["result"] == {
        "status": "succeeded",
        "code": None,
        "latency_us": 1200,
        "usage": {"input_tokens": 5, "output_tokens": 6, "cached_input_tokens": 0, "estimated": False},
    }
    assert result["cost"] == {"usd": "0.0000005", "estimated": False}
    assert [intent["writer"]["seq"], result["writer"]["seq"]] == [2, 3]


@BOTH
async def test_a_second_result_for_an_intent_is_refused_and_leaves_no_gap(house: House) -> None:
    spent: list[int] = []
    async with house.log() as log:
        action = house.action()
        await log.append(house.intent(action))
        await log.append(house.result(action))
        entry = house.result(action)
        entry.also = lambda _: spent.append(1)
        with pytest.raises(Refusal, match="has ended already") as caught:
            await log.append(entry)
        assert caught.value.code == "conflict"
        with pytest.raises(Refusal, match="no open intent"):
            await log.append(house.result(house.action()))
        action = house.action()
        await log.append(house.intent(action))
        with pytest.raises(Refusal, match="open intent already"):
            await log.append(house.intent(action))
        await log.append(house.result(action))
    report = house.verify()
    assert report.ok
    assert report.leaves == 6


@BOTH
async def test_an_append_is_all_or_nothing_with_what_rides_along(house: House) -> None:
    def boom(connection: Connection) -> None:
        connection.execute("INSERT INTO spend VALUES ('t', 'a', 'day', '', 1, 1, NULL)")
        raise ValueError("no")

    async with house.log() as log:

        def spends(connection: Connection) -> None:
            row = {"tenant": "t", "level": "a", "window": "day", "replica": "", "nanousd": 1, "tokens": 1}
            log.macs.insert(connection, "spend", **row)

        one, two = house.action(), house.action()
        bad = house.intent(two)
        bad.also = boom
        with pytest.raises(ValueError, match="no"):
            await log.append(house.intent(one), bad)
        assert log.open_intents == 0
        assert await log.writer.read(lambda c: c.execute("SELECT count(*) FROM spend").fetchone()[0]) == 0
        good = house.intent(two)
        good.also = spends
        await log.append(house.intent(one), good)
        assert log.open_intents == 2
        assert await log.writer.read(lambda c: c.execute("SELECT count(*) FROM spend").fetchone()[0]) == 1
        await log.append(house.result(one), house.result(two))
    assert house.verify().ok


@BOTH
async def test_a_record_that_has_no_canonical_form_fails_alone(house: House) -> None:
    async with house.log() as log:
        broken = records.event("agent.created", tenant="default")
        broken.leaf.labels["name"] = "\ud800"
        large = records.event("agent.created", tenant="default")
        large.leaf.labels["name"] = "x" * 70_000
        outcomes = await asyncio.gather(
            log.append(house.intent(house.action())), log.append(broken), log.append(large), return_exceptions=True
        )
        assert outcomes[0] is None
        assert [getattr(outcome, "code", None) for outcome in outcomes[1:]] == ["malformed", "too_large"]
        assert log.writer.latched is None
    assert house.verify().ok


async def test_a_checkpoint_is_signed_within_a_second_of_a_record_and_when_idle(house: House) -> None:
    async with house.log() as log:
        await log.append(house.intent(house.action()))
        async with asyncio.timeout(1.5):  # the promise is one second; the rest is for a busy machine
            while log.signed_size < 2:
                await asyncio.sleep(0.01)
        assert house.verify().unsigned == 0


async def test_heartbeats_carry_what_strangers_tried(house: House) -> None:
    clock = ManualClock()
    async with house.log(clock=clock) as log:
        for _ in range(17):
            log.note_unauthenticated()
        await ticked(log)
        clock.advance(59)
        await ticked(log)
        clock.advance(2)
        await ticked(log)
        clock.advance(61)
        await ticked(log)
        await log.writer.write(lambda _: None)
        beats = await last(log, type="gateway.heartbeat")
        assert [beat["labels"]["unauthenticated"] for beat in beats] == ["0", "17"]
        log.note_unauthenticated()
    async with house.log() as log:
        (stop,) = await last(log, type="gateway.stop")
        assert stop["labels"]["unauthenticated"] == "1"


async def test_stop_ends_what_is_open_as_unknown_and_signs(house: House) -> None:
    settled: list[Reservation] = []
    writer = Writer.open(house.data_dir)
    log = AuditLog.open(house.data_dir, writer, origin=ORIGIN)
    await log.start()
    action = house.action()
    await log.append(house.intent(action))
    await log.stop(lambda _, reservation, __: settled.append(reservation))
    assert [reservation.id for reservation in settled] == [action.id]
    with pytest.raises(Refusal, match="not open"):
        await log.append(house.intent(house.action()))
    with pytest.raises(Refusal, match="not open"):
        log.append_soon(house.intent(house.action()))
    await log.stop()
    await writer.close()
    report = house.verify()
    assert report.ok
    assert (report.leaves, report.signed_size, report.interrupted) == (4, 4, 0)


async def test_a_flood_of_refusals_leaves_no_intent_without_its_result(house: House) -> None:
    """One answer may propose thousands of calls that are all denied while the disk is slow."""
    async with house.log() as log:
        action = house.action()
        await log.append(house.intent(action))
        go, begun = threading.Event(), threading.Event()

        def slow(_: Connection) -> None:
            begun.set()
            go.wait(30)

        log.writer.write_soon(slow)
        await asyncio.to_thread(begun.wait, 10)
        refusal = Refusal("denied_by_policy", "No.")
        with pytest.raises(Refusal) as caught:  # noqa: PT012 - one of many is refused
            for _ in range(20_000):
                log.append_soon(records.refused(action, house.tool, None, refusal))
        assert caught.value.code == "audit_unavailable"
        log.append_soon(house.result(action))
        other = asyncio.ensure_future(log.append(house.intent(house.action())))
        await asyncio.sleep(0)
        go.set()
        await other
        assert log.writer.latched is None
        assert log.open_intents == 1, "the other one's, which has no result yet"
        (result,) = await last(log, action=action.id, type="action.result")
        assert "reaper" not in result["labels"]


async def test_an_intent_that_became_durable_after_its_caller_was_refused_is_ended_as_cancelled(house: House) -> None:
    writer = Writer.open(house.data_dir, timeout_s=0.2)
    log = AuditLog.open(house.data_dir, writer, origin=ORIGIN)
    await log.start()
    go, begun = threading.Event(), threading.Event()

    def slow(_: Connection) -> None:
        begun.set()
        go.wait(30)

    action = house.action()
    entry = house.intent(action)
    entry.also = slow
    waiting = asyncio.ensure_future(log.append(entry))
    await asyncio.to_thread(begun.wait, 10)
    with pytest.raises(Refusal, match="took longer") as caught:
        await waiting
    assert caught.value.code == "audit_unavailable"
    go.set()
    async with asyncio.timeout(10):
        while log.size < 3 or log.open_intents:
            await asyncio.sleep(0.01)
    result, _ = await last(log, action=action.id)
    assert result["result"]["status"] == "cancelled"
    assert result["cost"]["usd"] == "0"
    await log.stop()
    await writer.close()
    report = house.verify()
    assert report.ok


async def test_epochs_follow_each_other_under_one_writer(house: House) -> None:
    for _ in range(3):
        async with house.log() as log:
            await house.pairs(log, 1)
    async with house.log() as log:
        starts = await last(log, type="gateway.start")
        assert [start["writer"]["epoch"] for start in starts] == [4, 3, 2, 1]
        assert len({start["writer"]["id"] for start in starts}) == 1
        assert [start["labels"]["previous"] for start in starts] == ["clean", "clean", "clean", "none"]
        assert starts[0]["labels"]["vkey"] == log.vkey


async def test_start_takes_a_lost_frontier_for_a_reason_to_hash_everything(house: House) -> None:
    async with house.log() as log:
        await house.pairs(log, 5)
    connection = sqlite3.connect(house.data_dir / "gateway.db")
    connection.execute("UPDATE log_head SET frontier = zeroblob(length(frontier))")
    connection.commit()
    connection.close()
    async with house.log() as log:
        await house.pairs(log, 5)
    assert house.verify().ok


@BOTH
async def test_what_is_written_is_what_the_projection_gives_back(house: House) -> None:
    async with house.log() as log:
        await house.pairs(log, 1)
        (record,) = await last(log, type="action.intent")
        idx = record.pop("idx")
        body = await log.writer.read(lambda c: c.execute("SELECT body FROM leaf WHERE idx = ?", (idx,)).fetchone()[0])
        assert json.loads(body) == record
    assert set(Leaf.__struct_fields__) == FIELDS
