"""Sessions are named by agents, so there may be any number of them; what is kept of them is bounded."""

from __future__ import annotations

import msgspec
import pytest

from gateway.actions import Action, Session
from gateway.clock import ManualClock
from gateway.errors import Refusal
from gateway.limits import Allowance, AllowanceTable, BudgetRule, MemoryLimits
from gateway.limits.levels import MOST_SESSIONS
from tests.limits.house import MODEL, act, cost

DAILY = AllowanceTable(session_default=Allowance(budgets=(BudgetRule(window="day", nanousd=100_000_000),)))


def in_session(name: str, max_tokens: int = 1) -> Action:
    return msgspec.structs.replace(act(max_tokens=max_tokens), session=Session(name, "header"))


async def spend(limits: MemoryLimits, session: str) -> None:
    action = in_session(session, 10_000)
    with await limits.admit(action):
        limits.settle(await limits.reserve(action, MODEL), cost(0, 40_000))


async def test_counters_of_the_longest_unused_sessions_are_forgotten(clock: ManualClock) -> None:
    limits = MemoryLimits(clock, DAILY)
    running = in_session("running", 40_000)
    held = await limits.reserve(running, MODEL)
    await spend(limits, "first")
    for number in range(MOST_SESSIONS):
        await spend(limits, f"session-{number}")
        if number % 1_000 == 0:
            await limits.admit(in_session("used"))
    sessions = [account for account in limits._accounts if account.level.startswith("session:")]
    assert len(sessions) == MOST_SESSIONS
    levels = {account.level for account in sessions}
    assert {"session:running", "session:used", f"session:session-{MOST_SESSIONS - 1}"} <= levels
    assert "session:first" not in levels
    with pytest.raises(Refusal, match="session:running has"):
        await limits.reserve(in_session("running", 20_000), MODEL)
    limits.settle(held, cost(1, 1))


async def test_sessions_that_were_only_counted_by_the_minute_leave_nothing(clock: ManualClock) -> None:
    limits = MemoryLimits(clock, AllowanceTable(session_default=Allowance(requests_per_minute=10)))
    for number in range(5_000):
        (await limits.admit(in_session(f"session-{number}"))).release()
        clock.advance(0.1)
    assert len(limits._accounts) < 2_100
