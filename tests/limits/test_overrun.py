"""A cost above what was reserved is booked as it is, and reported; an estimate from counts is booked as it is."""

from __future__ import annotations

import pytest

from gateway.actions import Cost, Usage
from gateway.clock import ManualClock
from gateway.limits import Allowance, AllowanceTable, BudgetRule, Limits, Overrun
from tests.limits.footings import MakeLimits
from tests.limits.house import MODEL, act, cost, rows, spend_table

TABLE = AllowanceTable(agent_default=Allowance(budgets=(BudgetRule(window="day", nanousd=10**9),)))


def watched(limits: Limits) -> list[Overrun]:
    reported: list[Overrun] = []
    limits.on_overrun = reported.append
    return reported


@pytest.mark.parametrize(
    ("nanousd", "tokens"), [(10**8, 0), (0, 10**6), (10**8, 10**6)], ids=["money", "tokens", "both"]
)
async def test_more_than_was_reserved_is_booked_and_reported_once(
    make_limits: MakeLimits, clock: ManualClock, nanousd: int, tokens: int
) -> None:
    limits = await make_limits(clock, TABLE)
    reported = watched(limits)
    table = spend_table()
    held = await limits.reserve(act(max_tokens=10), MODEL)
    told = Cost(nanousd=nanousd, usage=Usage(output_tokens=tokens))
    limits.settle(held, told)(table)
    limits.settle(held, told)(table)
    (overrun,) = reported
    assert (overrun.reserved, overrun.nanousd, overrun.tokens) == (held, nanousd, tokens)
    assert "Check the prices and max_output_tokens of model demo" in overrun.sentence
    assert rows(table)["default", "agent:reader", "day:2026-11-22"] == (nanousd, tokens)


async def test_what_is_within_is_not_reported(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, TABLE)
    reported = watched(limits)
    for told in (cost(10, 10), Cost(), cost(1, 1, estimated=True), Cost(usage=Usage(estimated=True))):
        limits.settle(await limits.reserve(act(max_tokens=10), MODEL), told)
    held = await limits.reserve(act(max_tokens=10), MODEL)
    limits.persist_unknown(held, clock.now_ns())
    assert not reported


async def test_an_estimate_that_follows_from_counts_is_booked_as_it_is(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    limits = await make_limits(clock, TABLE)
    table = spend_table()
    counted = Cost(nanousd=5, usage=Usage(input_tokens=1, output_tokens=2), estimated=True, is_counted=True)
    limits.settle(await limits.reserve(act(max_tokens=100), MODEL), counted)(table)
    assert rows(table)["default", "agent:reader", "day:2026-11-22"] == (5, 3)
