"""Time and waiting: expiry, dropping, wake-ups, listening, stopping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from gateway.approvals.case import Choice, State
from gateway.store.interface import Connection
from tests.approvals.house import House, code_of

ENDED = frozenset(State) - {State.PENDING, State.APPROVED, State.EXECUTING}
TTL_S = 14_400


async def test_a_case_that_nobody_decided_counts_as_denied(house: House) -> None:
    case = await house.opened()
    house.clock.advance(TTL_S + 1)
    assert await code_of(house.vote(case, "ada")) == "decided"
    await house.room.tick()
    expired = await house.room.case(case.id)
    assert (expired.state, expired.code) == (State.EXPIRED, "approval_expired")
    assert await house.types(case.id) == ["action.requested", "case.expired"]


async def test_an_approval_that_nobody_claimed_expires_too(house: House) -> None:
    case = await house.passed({"ttl_s": 60})
    house.clock.advance(61)
    assert await code_of(house.begin(case)) == "decided"
    met = await house.meet()
    assert (met.case.id, met.case.state) == (case.id, State.EXPIRED)


async def test_of_a_vote_and_the_expiry_one_wins(house: House) -> None:
    case = await house.opened()
    voting = asyncio.create_task(code_of(house.vote(case, "ada")))
    await asyncio.sleep(0)
    house.clock.advance(TTL_S)
    await house.room.tick()
    voted = await voting
    state = (await house.room.case(case.id)).state
    assert (voted, state) in (("decided", State.EXPIRED), ("not refused", State.APPROVED))
    assert len(await house.types(case.id)) == 2


async def test_many_expire_in_one_tick(house: House) -> None:
    house.room.reconfigure(house.settings.model_copy(update={"pending_per_agent": 1000}))
    for n in range(130):
        await house.opened(arguments={"amount": n})
    house.clock.advance(TTL_S + 1)
    await house.room.tick()
    assert house.room.pending_count == 0


async def test_stored_ends_are_dropped_after_the_window(house: House) -> None:
    case = await house.done()
    house.clock.advance(house.settings.replay_s + 1)
    await house.room.tick()
    assert await house.room.ending(case) is None
    assert (await house.meet()).opened


async def test_a_waiter_is_woken_by_the_decision(house: House) -> None:
    case = await house.opened()
    waiting = asyncio.create_task(house.room.wait(case.id, 30, until=ENDED))
    while not house.room.waiting_callers:
        await asyncio.sleep(0)
    await house.vote(case, "ada", Choice.DENY)
    assert (await waiting).state is State.DENIED
    assert house.room.waiting_callers == 0


async def test_a_waiter_hears_what_came_right_after_a_change_it_does_not_wait_for(house: House) -> None:
    case = await house.opened()
    waiting = asyncio.create_task(house.room.wait(case.id, 30, until=ENDED))
    while not house.room.waiting_callers:
        await asyncio.sleep(0)
    case = await house.begin(await house.vote(case, "ada"))
    await house.end(case, body=b"{}")
    assert (await waiting).state is State.SUCCEEDED


async def test_when_time_is_up_the_case_is_told_as_it_is(house: House) -> None:
    case = await house.opened()
    assert await house.room.wait(case.id, 0, until=ENDED) == case
    assert await house.room.wait(case.id, 0.01, until=ENDED) == case
    assert house.room.waiting_callers == 0


async def test_a_change_of_the_agent_lets_waiters_look_around(house: House) -> None:
    case = await house.opened()
    waiting = asyncio.create_task(house.room.wait(case.id, 30, until=ENDED))
    while not house.room.waiting_callers:
        await asyncio.sleep(0)
    house.room.wake_agent("payer")
    assert (await waiting).state is State.PENDING


async def test_stopping_refuses_who_waits_and_ends_who_listens(house: House) -> None:
    case = await house.opened()
    waiting = asyncio.create_task(code_of(house.room.wait(case.id, 30, until=ENDED)))
    listener = house.room.subscribe()
    while not house.room.waiting_callers:
        await asyncio.sleep(0)
    house.room.stop_waiting()
    assert await waiting == "stopping"
    assert [case_id async for case_id in listener] == []
    assert await code_of(house.room.wait(case.id, 30, until=ENDED)) == "stopping"


async def test_listeners_hear_every_change_from_when_they_subscribed(house: House) -> None:
    listener = house.room.subscribe()
    first = await house.opened()
    await house.vote(first, "ada")
    second = await house.opened(arguments={"amount": 2})
    heard = [await anext(listener) for _ in range(3)]
    assert heard == [first.id, first.id, second.id]
    await listener.aclose()
    assert [case_id async for case_id in listener] == []


async def test_a_vote_reaches_its_waiter_at_once_among_a_thousand_open_cases(house: House) -> None:
    house.room.reconfigure(house.settings.model_copy(update={"pending_per_agent": 2000}))
    cases = []
    for some in range(0, 1000, 50):  # PostgreSQL takes its time for each
        mets = [house.meet(house.action(arguments={"amount": n})) for n in range(some, some + 50)]
        cases += [met.case for met in await asyncio.gather(*mets)]
    waits = [asyncio.create_task(house.room.wait(case.id, 60, until=ENDED)) for case in cases]
    while house.room.waiting_callers < len(waits):
        await asyncio.sleep(0.01)
    took_s = []
    for case, wait in list(zip(cases, waits, strict=True))[:20]:
        began_s = time.perf_counter()
        await house.vote(case, "ada", Choice.DENY)
        await wait
        took_s.append(time.perf_counter() - began_s)
    assert sorted(took_s)[10] < 0.1  # a few milliseconds on a quiet machine
    house.room.stop_waiting()
    await asyncio.gather(*waits, return_exceptions=True)


async def test_a_tick_ends_although_the_clock_steps_back_in_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    case = await house.opened({"ttl_s": 10})
    house.clock.advance(11)
    read = house.writer.read
    steps = iter([3600])

    async def stepped_back(fn: Callable[[Connection], Any]) -> Any:
        found = await read(fn)
        house.clock.advance(-next(steps, 0))
        return found

    monkeypatch.setattr(house.writer, "read", stepped_back)
    async with asyncio.timeout(20):
        await house.room.tick()
    assert (await house.room.case(case.id)).state is State.PENDING
    house.clock.advance(3601)
    await house.room.tick()
    assert (await house.room.case(case.id)).state is State.EXPIRED


async def test_a_case_that_can_not_be_opened_holds_up_no_other(house: House) -> None:
    house.room.reconfigure(house.settings.model_copy(update={"ttl_s": 10}))
    broken, other = await house.opened(), await house.opened(arguments={"amount": 1})
    spoil = "UPDATE approval_case SET asked = ? WHERE id = ?"
    await house.writer.write(lambda db: db.execute(spoil, (bytes(64), broken.id)))
    assert [case.id for case in (await house.room.find(status="pending")).cases] == [other.id]
    house.clock.advance(11)
    await house.room.tick()
    assert (await house.room.case(other.id)).state is State.EXPIRED
    assert await code_of(house.room.case(broken.id)) == "store_unavailable"
