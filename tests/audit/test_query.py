"""Asking the trail: every filter, pages without gaps or doubles, and one record with what belongs to it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.actions import Decision, Effect, Kind
from gateway.audit import records
from gateway.audit.appending import Appending
from gateway.audit.view import Filter
from gateway.clock import ManualClock
from gateway.errors import Refusal
from tests.audit.house import BOTH, House, ticked

START_NS = 1_800_000_000_000_000_000
SECOND_NS = 1_000_000_000


async def story(house: House, log: Appending, clock: ManualClock) -> dict[str, str]:
    """A transfer, a denied model call by another session, a proposal below the model call; their action ids."""
    transfer = house.action()
    await log.append(house.intent(transfer))
    clock.advance(10)
    await log.append(house.result(transfer))
    clock.advance(10)
    model = house.action(kind=Kind.MODEL_INVOKE, target="demo", body=b"{}")
    deny = Decision(effect=Effect.DENY, rules=("no_models", "quiet_hours"), input=b"{}")
    await log.append(records.refused(model, house.model, deny, Refusal("denied_by_policy", "No.")))
    clock.advance(10)
    proposal = house.action(kind=Kind.TOOL_PROPOSE, parent=model.id)
    await log.append(records.decided(proposal, house.tool, house.decision))
    await log.append(records.event("agent.suspended", tenant="default", person="olga", subject={"agent": "reader"}))
    return {"transfer": transfer.id, "model": model.id, "proposal": proposal.id}


FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["agent.suspended", "action.decided", "action.refused", "action.result", "action.intent", "gateway.start"]),
    ({"agent": "reader"}, ["agent.suspended", "action.decided", "action.refused", "action.result", "action.intent"]),
    ({"agent": "writer"}, []),
    ({"user": "olga"}, ["agent.suspended"]),
    ({"session": "s-1", "type": "action.result"}, ["action.result"]),
    ({"tool": "transfer"}, ["action.decided", "action.result", "action.intent"]),
    ({"tool": "ledger__transfer"}, ["action.decided", "action.result", "action.intent"]),
    ({"model": "demo"}, ["action.refused"]),
    ({"type": "action.*"}, ["action.decided", "action.refused", "action.result", "action.intent"]),
    ({"effect": "deny"}, ["action.refused"]),
    ({"status": "succeeded"}, ["action.result"]),
    ({"code": "denied_by_policy"}, ["action.refused"]),
    ({"rule": "quiet_hours"}, ["action.refused"]),
    ({"rule": "quiet"}, []),
    (
        {"since_ns": START_NS + 10 * SECOND_NS, "until_ns": START_NS + 30 * SECOND_NS},
        ["action.refused", "action.result"],
    ),
]


@BOTH
async def test_every_filter_finds_what_it_says_newest_first(house: House) -> None:
    clock = ManualClock(START_NS)
    async with house.log(clock=clock) as log:
        ids = await story(house, log, clock)
        for wanted, types in FILTERS:
            page = await log.query(Filter(**wanted))
            assert [record["type"] for record in page.records] == types, wanted
            assert page.cursor is None
        found = (await log.query(Filter(action=ids["transfer"]))).records
        assert [record["type"] for record in found] == ["action.result", "action.intent"]


@BOTH
async def test_pages_follow_each_other_while_the_log_grows(house: House) -> None:
    async with house.log() as log:
        await house.pairs(log, 10)
        seen: list[int] = []
        cursor = None
        while True:
            page = await log.query(Filter(limit=4, cursor=cursor, agent="reader"))
            seen += [record["idx"] for record in page.records]
            cursor = page.cursor
            if cursor is None:
                break
            await house.pairs(log, 1)
        assert seen == list(range(20, 0, -1))


@BOTH
@pytest.mark.parametrize(
    "wanted", [{"limit": 0}, {"limit": 1001}, {"cursor": "x"}, {"cursor": "9" * 30}, {"cursor": "-1"}]
)
async def test_a_bad_page_request_is_malformed(house: House, wanted: dict[str, Any]) -> None:
    async with house.log() as log:
        with pytest.raises(Refusal) as caught:
            await log.query(Filter(**wanted))
        assert caught.value.code == "malformed"


async def test_show_gives_the_action_its_parent_and_its_children(house: House) -> None:
    clock = ManualClock(START_NS)
    async with house.log(clock=clock) as log:
        ids = await story(house, log, clock)
        shown = await log.show(ids["transfer"])
        assert shown.record["type"] == "action.intent"
        assert [record["type"] for record in shown.related] == ["action.result"]
        assert {payload.name: payload.state for payload in shown.payloads} == {
            "arguments": "kept",
            "policy_input": "kept",
        }
        assert not shown.signed
        child = (await log.show(ids["model"])).related[0]
        assert child["action"]["id"] == ids["proposal"]
        parent = (await log.show(ids["proposal"])).related[0]
        assert parent["action"]["id"] == ids["model"]
        clock.advance(1)
        await ticked(log)
        clock.advance(1)
        await ticked(log)
        assert (await log.show(shown.record["id"])).signed
        for unknown in ("nothing", "", "x" * 5000):
            with pytest.raises(Refusal) as caught:
                await log.show(unknown)
            assert caught.value.code == "not_found"


async def test_the_projection_is_filled_when_idle_and_rebuilt_when_lost(house: House) -> None:
    clock = ManualClock(START_NS)
    async with house.log(clock=clock) as log:
        await house.pairs(log, 150)
        rows = 0
        async with asyncio.timeout(20):  # the log's own ticks may run beside these
            while rows < log.size:
                await ticked(log)
                rows = await log.writer.read(lambda c: c.execute("SELECT count(*) FROM record_view").fetchone()[0])
        assert rows == log.size == 301
    async with house.log() as log:
        await log.writer.write(lambda c: c.execute("DELETE FROM record_view").rowcount)
        assert len((await log.query(Filter(limit=1000))).records) == 303


async def test_after_a_latch_the_trail_can_still_be_read(house: House) -> None:
    async with house.log() as log:
        await house.pairs(log, 2)
        await log.query(Filter())
        log.writer.latch("test")
        assert len((await log.query(Filter(agent="reader"))).records) == 4


@BOTH
async def test_refusals_are_counted_all_of_them_since_a_moment(house: House) -> None:
    clock = ManualClock(START_NS)
    async with house.log(clock=clock) as log:
        transfer, model = house.action(), house.action(kind=Kind.MODEL_INVOKE, target="demo", body=b"{}")
        await log.append(records.refused(transfer, house.tool, None, Refusal("denied_by_policy", "No.")))
        clock.advance(10)
        for _ in range(1_200):  # more than a page can show
            log.append_soon(records.refused(transfer, house.tool, None, Refusal("denied_by_policy", "No.")))
        log.append_soon(records.refused(model, house.model, None, Refusal("rate_limited", "Later.")))
        await log.append(house.intent(house.action()))
        found = [(one.agent, one.code, one.count) for one in await log.refused(START_NS + SECOND_NS)]
        assert found == [("reader", "denied_by_policy", 1_200), ("reader", "rate_limited", 1)]
        assert await log.refused(START_NS + 11 * SECOND_NS) == []
