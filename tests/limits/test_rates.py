"""Contract of `Limits`: requests per minute, places, tokens per minute."""

from __future__ import annotations

import pytest

from gateway.clock import ManualClock
from gateway.errors import Refusal
from gateway.limits import Allowance, AllowanceTable, Rates
from tests.limits.footings import MakeLimits
from tests.limits.house import MODEL, TOOL, act, cost


def per_minute(requests: int | None = None, *, places: int | None = None, tokens: int | None = None) -> AllowanceTable:
    return AllowanceTable(
        agent_default=Allowance(requests_per_minute=requests, concurrency=places, tokens_per_minute=tokens)
    )


async def test_requests_beyond_the_rate_are_refused_and_say_when_to_come_back(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    limits = await make_limits(clock, per_minute(3))
    for _ in range(3):
        (await limits.admit(act())).release()
    clock.advance(10)
    with pytest.raises(Refusal, match="3 requests per minute") as refused:
        await limits.admit(act())
    assert refused.value.code == "rate_limited"
    assert refused.value.retry_after_s == 51
    clock.advance(refused.value.retry_after_s - 1)
    with pytest.raises(Refusal):
        await limits.admit(act())
    clock.advance(1)
    await limits.admit(act())


async def test_no_sixty_seconds_hold_more_than_the_limit(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, per_minute(5))
    admitted: list[float] = []
    for _ in range(1_500):
        clock.advance(0.37)
        try:
            (await limits.admit(act())).release()
        except Refusal:
            continue
        admitted.append(clock.monotonic_s())
    assert len(admitted) > 30
    assert all(later - earlier > 60 for earlier, later in zip(admitted, admitted[5:], strict=False))


async def test_a_refused_request_is_not_counted(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, per_minute(1))
    (await limits.admit(act())).release()
    for _ in range(50):
        with pytest.raises(Refusal):
            await limits.admit(act())
    clock.advance(61)
    await limits.admit(act())


async def test_refusals_are_numbered_so_that_a_flood_can_be_put_together(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    limits = await make_limits(clock, per_minute(0))
    seen = []
    for _ in range(3):
        with pytest.raises(Refusal) as refused:
            await limits.admit(act())
        seen.append(refused.value.detail["refused_this_minute"])
    assert seen == ["1", "2", "3"]


async def test_a_place_is_held_until_the_block_ends(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, per_minute(places=2))
    with (
        await limits.admit(act()),
        await limits.admit(act()),
        pytest.raises(Refusal, match="2 calls running") as refused,
    ):
        await limits.admit(act())
    assert refused.value.code == "rate_limited"
    assert refused.value.retry_after_s == 1
    with await limits.admit(act()), await limits.admit(act()):
        pass


async def test_a_place_is_given_back_when_the_block_fails(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, per_minute(places=1))
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), await limits.admit(act()):
            raise ZeroDivisionError
    await limits.admit(act())


async def test_a_place_given_back_twice_is_one_place(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, per_minute(places=1))
    first = await limits.admit(act())
    first.release()
    first.release()
    with await limits.admit(act()), pytest.raises(Refusal):
        await limits.admit(act())


async def test_a_user_is_limited_over_all_agents(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, AllowanceTable(user_default=Allowance(requests_per_minute=2)))
    (await limits.admit(act("reader", "ada"))).release()
    (await limits.admit(act("writer", "ada"))).release()
    with pytest.raises(Refusal) as refused:
        await limits.admit(act("third", "ada"))
    assert refused.value.detail["level"] == "user:ada"
    (await limits.admit(act("reader", "bob"))).release()
    (await limits.admit(act("reader"))).release()


async def test_a_refusal_at_one_level_takes_nothing_at_another(make_limits: MakeLimits, clock: ManualClock) -> None:
    table = AllowanceTable(
        agent_default=Allowance(requests_per_minute=2, concurrency=2), user_default=Allowance(requests_per_minute=1)
    )
    limits = await make_limits(clock, table)
    (await limits.admit(act("reader", "ada"))).release()
    for _ in range(10):
        with pytest.raises(Refusal):
            await limits.admit(act("reader", "ada"))
    (await limits.admit(act("reader"))).release()


async def test_tenants_do_not_share_limits(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, per_minute(1))
    await limits.admit(act(tenant="one"))
    await limits.admit(act(tenant="two"))


async def test_tokens_per_minute_count_what_is_reserved_and_then_what_was_used(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    limits = await make_limits(clock, per_minute(tokens=10_000))
    first = await limits.reserve(act(max_tokens=6_000), MODEL)
    with pytest.raises(Refusal) as refused:
        await limits.reserve(act(max_tokens=6_000), MODEL)
    assert refused.value.code == "rate_limited"
    assert refused.value.retry_after_s == 1  # only what is reserved is in the way: test_retry_after.py
    limits.settle(first, cost(100, 100))
    await limits.reserve(act(max_tokens=6_000), MODEL)


async def test_a_correction_after_the_minute_changes_nothing(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, per_minute(tokens=10_000))
    slow = await limits.reserve(act(max_tokens=9_000), MODEL)
    clock.advance(61)
    await limits.reserve(act(max_tokens=9_000), MODEL)
    limits.settle(slow, cost(1, 1))
    with pytest.raises(Refusal):
        await limits.reserve(act(max_tokens=9_000), MODEL)


async def test_waiting_as_told_for_tokens_is_enough(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, per_minute(tokens=10_000))
    for _ in range(4):
        limits.settle(await limits.reserve(act(max_tokens=2_000), MODEL), cost(400, 2_000))
        clock.advance(5.5)
    with pytest.raises(Refusal) as refused:
        await limits.reserve(act(max_tokens=4_000), MODEL)
    assert refused.value.retry_after_s is not None
    clock.advance(refused.value.retry_after_s)
    await limits.reserve(act(max_tokens=4_000), MODEL)


async def test_a_call_larger_than_a_whole_minute_is_not_told_to_retry(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    limits = await make_limits(clock, per_minute(tokens=1_000))
    with pytest.raises(Refusal, match="can never pass") as refused:
        await limits.reserve(act(max_tokens=1_000), MODEL)
    assert refused.value.code == "budget_exhausted"
    assert not refused.value.retry


async def test_tool_calls_count_as_requests_but_take_no_tokens(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, per_minute(1, tokens=0))
    action = act()
    with await limits.admit(action):
        held = await limits.reserve(action, TOOL)
    assert (held.nanousd, held.tokens) == (0, 0)
    with pytest.raises(Refusal):
        await limits.admit(act())


async def test_a_reload_changes_limits_and_keeps_counts(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, per_minute(5, places=5, tokens=50_000))
    held = [await limits.admit(act()) for _ in range(3)]
    reservation = await limits.reserve(act(max_tokens=9_000), MODEL)
    limits.reconfigure(per_minute(3, places=9, tokens=50_000))
    with pytest.raises(Refusal, match="requests per minute"):
        await limits.admit(act())
    limits.reconfigure(per_minute(9, places=3, tokens=10_000))
    with pytest.raises(Refusal, match="calls running"):
        await limits.admit(act())
    with pytest.raises(Refusal, match="tokens"):
        await limits.reserve(act(max_tokens=9_000), MODEL)
    for admission in held:
        admission.release()
    limits.settle(reservation, cost(1, 1))
    await limits.admit(act())
    await limits.reserve(act(max_tokens=9_000), MODEL)


async def test_rates_tell_the_tightest_level(make_limits: MakeLimits, clock: ManualClock) -> None:
    table = AllowanceTable(
        agent_default=Allowance(requests_per_minute=10, tokens_per_minute=1_000_000),
        user_default=Allowance(requests_per_minute=5),
    )
    limits = await make_limits(clock, table)
    (await limits.admit(act("reader", "ada"))).release()
    clock.advance(20)
    assert (await limits.admit(act("reader", "ada"))).rates() == Rates(
        limit_requests=5,
        remaining_requests=3,
        reset_requests_s=61,
        limit_tokens=1_000_000,
        remaining_tokens=1_000_000,
        reset_tokens_s=0,
    )


async def test_without_limits_nothing_is_refused(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, AllowanceTable())
    held = [await limits.admit(act()) for _ in range(500)]
    assert held[0].rates() == Rates()
    await limits.reserve(act(max_tokens=10**9), MODEL)
