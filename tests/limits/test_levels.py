"""Contract of `Limits`: eight levels at once, and soft budgets, which refuse nothing and are told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.actions import Action, Agent, Caller, Cost, ModelTarget, Session, ToolTarget
from gateway.clock import ManualClock
from gateway.errors import Refusal
from gateway.limits import Allowance, AllowanceTable, BudgetRule, SoftBudget
from tests.limits.footings import MakeLimits
from tests.limits.house import MODEL, TOOL, act, cost, rows, spend_table

LEVELS = {
    "tenant": "tenant:default",
    "team": "team:finance",
    "use_case": "use_case:invoices",
    "agent": "agent:reader",
    "user": "user:ada",
    "session": "session:run-1",
    "tool": "tool:ledger__transfer",
    "model": "model:demo",
}
DAY = "day:2026-11-22"


def call(**other: str) -> Action:
    """A call that has every level; `other` takes another name at one."""
    names = {"team": "finance", "use_case": "invoices", "agent": "reader", "user": "ada", "session": "run-1"} | other
    agent = Agent(id=names["agent"], team=names["team"], use_case=names["use_case"])
    caller = Caller(agent, names["user"], "key-1", "key")
    return msgspec.structs.replace(act(max_tokens=1_000), caller=caller, session=Session(names["session"], "header"))


def table(kind: str, allowance: Allowance) -> AllowanceTable:
    defaults: dict[str, Any] = {f"{kind}_default": allowance}
    return AllowanceTable(**defaults)


def target_of(kind: str) -> ModelTarget | ToolTarget:
    return TOOL if kind == "tool" else MODEL


@pytest.mark.parametrize("kind", LEVELS)
async def test_each_level_has_a_rate_of_its_own(make_limits: MakeLimits, clock: ManualClock, kind: str) -> None:
    limits = await make_limits(clock, table(kind, Allowance(requests_per_minute=1)))

    async def go(action: Action) -> None:
        with await limits.admit(action):
            limits.settle(await limits.reserve(action, target_of(kind)), Cost())

    await go(call())
    with pytest.raises(Refusal) as refused:
        await go(call())
    assert (refused.value.code, refused.value.detail["level"]) == ("rate_limited", LEVELS[kind])
    if kind in ("team", "use_case", "agent", "user", "session"):
        await go(call(**{kind: "another"}))
    clock.advance(61)
    await go(call())


@pytest.mark.parametrize("kind", LEVELS)
async def test_each_level_has_places_of_its_own(make_limits: MakeLimits, clock: ManualClock, kind: str) -> None:
    limits = await make_limits(clock, table(kind, Allowance(concurrency=1)))
    first, second = call(), call()
    target = target_of(kind)
    with await limits.admit(first):
        held = await limits.reserve(first, target)
        with pytest.raises(Refusal, match="1 calls running") as refused, await limits.admit(second):
            await limits.reserve(second, target)
        assert refused.value.detail["level"] == LEVELS[kind]
        limits.settle(held, Cost())
    with await limits.admit(second):
        await limits.reserve(second, target)


@pytest.mark.parametrize("kind", [kind for kind in LEVELS if kind != "tool"])
async def test_each_level_has_budgets_of_its_own_and_they_are_booked(
    make_limits: MakeLimits, clock: ManualClock, kind: str
) -> None:
    disk = spend_table()
    limits = await make_limits(clock, table(kind, Allowance(budgets=(BudgetRule(window="day", nanousd=4_000_000),))))
    held = await limits.reserve(call(), MODEL)
    with pytest.raises(Refusal) as refused:
        await limits.reserve(call(), MODEL)
    assert (refused.value.code, refused.value.detail["level"]) == ("budget_exhausted", LEVELS[kind])
    assert LEVELS[kind] in held.levels
    limits.settle(held, cost(10, 10))(disk)
    assert rows(disk)["default", LEVELS[kind], DAY] == (30_000, 20)
    await limits.reserve(call(), MODEL)


async def test_levels_without_limits_are_not_counted_but_agents_and_users(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    limits = await make_limits(clock, AllowanceTable())
    held = await limits.reserve(call(), MODEL)
    assert held.levels == ("agent:reader", "user:ada")


async def test_the_widest_level_without_room_is_named_and_nothing_is_held_at_any(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    small, large = (Allowance(budgets=(BudgetRule(window="day", nanousd=amount),)) for amount in (1_000, 10_000_000))
    limits = await make_limits(clock, AllowanceTable(tenant_default=large, team_default=small, agent_default=small))
    with pytest.raises(Refusal) as refused:
        await limits.reserve(call(), MODEL)
    assert refused.value.detail["level"] == "team:finance"
    told = limits.remaining("reader", "ada", team="finance", use_case="invoices")
    assert told["tenant:default"]["budgets"][0]["left_nanousd"] == 10_000_000
    assert told["agent:reader"]["budgets"][0]["left_nanousd"] == 1_000


async def test_a_soft_budget_refuses_nothing_and_is_told_once_in_each_window(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    rules = (BudgetRule(window="day", nanousd=50_000, hard=False), BudgetRule(window="day", nanousd=90_000_000))
    limits = await make_limits(clock, table("agent", Allowance(budgets=rules)))
    told: list[SoftBudget] = []
    limits.on_soft_budget = told.append

    async def spend() -> None:
        held = await limits.reserve(call(), MODEL)  # which asks for more than the soft budget has
        limits.settle(held, cost(10, 10))
        if hasattr(limits, "tick"):
            await limits.tick()

    def shown() -> dict[str, Any]:
        soft: dict[str, Any] = limits.remaining("reader")["agent:reader"]["budgets"][0]
        return soft

    await spend()
    assert not told
    assert shown()["passed"] is False
    await spend()
    await spend()
    (passed,) = told
    assert (passed.level, passed.window, passed.nanousd) == ("agent:reader", DAY, 60_000)
    assert (shown()["hard"], shown()["passed"]) == (False, True)
    clock.advance(43_200)
    assert shown()["passed"] is False
    await spend()
    await spend()
    assert [one.window for one in told] == [DAY, "day:2026-11-23"]
