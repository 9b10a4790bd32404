"""When a caller who finds no room may come back: at once where only running calls are in the way. On both footings."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.clock import ManualClock
from gateway.errors import Refusal
from gateway.limits import Allowance, AllowanceTable, BudgetRule, Limits
from tests.limits.footings import MakeLimits
from tests.limits.house import MODEL, act, cost
from tests.limits.replicas import Replicas

RATE = AllowanceTable(agent_default=Allowance(tokens_per_minute=10_000))


async def refusal(limits: Limits, max_tokens: int) -> Refusal:
    with pytest.raises(Refusal) as refused:
        await limits.reserve(act(max_tokens=max_tokens), MODEL)
    return refused.value


async def test_only_a_reservation_in_the_way_is_worth_a_second(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, RATE)
    held = await limits.reserve(act(max_tokens=6_000), MODEL)
    told = await refusal(limits, 6_000)
    assert (told.code, told.retry_after_s) == ("rate_limited", 1)
    assert "try again in 1 s" in told.message
    limits.settle(held, cost(100, 100))
    await limits.reserve(act(max_tokens=6_000), MODEL)


async def test_used_tokens_in_the_way_are_waited_for_until_they_leave(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    limits = await make_limits(clock, RATE)
    limits.settle(await limits.reserve(act(max_tokens=6_000), MODEL), cost(100, 6_000))
    clock.advance(10)
    assert (await refusal(limits, 6_000)).retry_after_s == 51


async def test_what_is_used_counts_and_what_is_held_beside_it_does_not(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    limits = await make_limits(clock, RATE)
    limits.settle(await limits.reserve(act(max_tokens=3_000), MODEL), cost(0, 3_000))
    clock.advance(10)
    await limits.reserve(act(max_tokens=4_000), MODEL)
    assert (await refusal(limits, 4_000)).retry_after_s == 1  # 3,000 used and 4,000 wanted fit
    assert (await refusal(limits, 8_000)).retry_after_s == 51  # 3,000 used and 8,000 wanted do not
    clock.advance(5)
    held = await limits.reserve(act(max_tokens=2_000), MODEL)
    limits.settle(held, cost(0, 2_000))
    assert (await refusal(limits, 6_000)).retry_after_s == 46  # the oldest has to leave, and only it


async def test_a_reservation_that_has_left_the_minute_holds_nobody_up(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    limits = await make_limits(clock, RATE)
    slow = await limits.reserve(act(max_tokens=9_000), MODEL)
    clock.advance(61)
    limits.settle(await limits.reserve(act(max_tokens=6_000), MODEL), cost(0, 6_000))
    assert (await refusal(limits, 6_000)).retry_after_s == 61
    limits.settle(slow, cost(0, 1))
    assert (await refusal(limits, 6_000)).retry_after_s == 61


@pytest.mark.parametrize("rule", [BudgetRule(window="day", nanousd=10_000_000), BudgetRule(window="day", tokens=6_000)])
async def test_a_budget_says_whether_only_running_calls_are_in_the_way(
    make_limits: MakeLimits, clock: ManualClock, rule: BudgetRule
) -> None:
    limits = await make_limits(clock, AllowanceTable(agent_default=Allowance(budgets=(rule,))))
    held = await limits.reserve(act(max_tokens=3_000), MODEL)
    told = await refusal(limits, 3_000)
    assert (told.code, told.retry_after_s, told.retry) == ("budget_exhausted", 1, False)
    assert "when the calls that are running have ended" in told.message
    limits.settle(held, cost(100, 3_000))
    told = await refusal(limits, 4_000)
    assert (told.code, told.retry_after_s) == ("budget_exhausted", None)
    assert "wait until 2026-11-23T00:00:00Z" in told.message


@pytest.fixture
async def replicas(redis_url: str, clock: ManualClock) -> AsyncIterator[Replicas]:
    """Two, on one Redis."""
    made = Replicas(redis_url, clock, RATE)
    await made.add(2)
    yield made
    await made.close()


async def test_what_another_replica_has_only_reserved_is_worth_a_second_too(
    replicas: Replicas, clock: ManualClock
) -> None:
    one, other = replicas.alive.values()
    held = await one.reserve(act(max_tokens=6_000), MODEL)
    assert (await refusal(other, 6_000)).retry_after_s == 1
    clock.advance(1)
    await replicas.tick()
    assert (await refusal(other, 6_000)).retry_after_s == 1
    one.settle(held, cost(0, 6_000))
    await replicas.tick()
    clock.advance(1)
    assert (await refusal(other, 6_000)).retry_after_s == 59


async def test_what_a_dead_replica_had_reserved_is_waited_for(replicas: Replicas, clock: ManualClock) -> None:
    one, other = replicas.alive.values()
    await one.reserve(act(max_tokens=6_000), MODEL)
    replicas.die(one)
    await replicas.end(one, other)  # nobody gives it back any more
    clock.advance(1)
    assert (await refusal(other, 6_000)).retry_after_s == 60
