"""Contract of `Limits`: eight levels at once, hard and soft; what is not limited is not counted."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from gateway.actions import Cost, ToolTarget
from gateway.clock import ManualClock
from gateway.errors import Refusal
from gateway.limits import Allowance, AllowanceTable, BudgetRule, MemoryLimits, SoftBudget
from gateway.limits.allowance import KINDS
from tests.limits.footings import MakeLimits
from tests.limits.house import MODEL, TOOL, act, cost, rows, spend_table

CENT = 10_000_000
NAMES = {
    "tenant": "default",
    "team": "team",
    "use_case": "case",
    "agent": "reader",
    "user": "ada",
    "session": "session",
    "tool": "ledger__transfer",
    "model": "demo",
}
OF_CALLER = [kind for kind in KINDS if kind not in ("tool", "model")]


def table(*kinds: str, named: bool = False, **limits: object) -> AllowanceTable:
    """The same allowance at each of these levels."""
    allowance = Allowance(**limits)  # type: ignore[arg-type]
    fields: dict[str, object] = {f"{kind}_default": allowance for kind in kinds}
    if named:
        fields = {f"{kind}s": {NAMES[kind]: allowance} for kind in kinds}
    return msgspec.structs.replace(AllowanceTable(), **fields)


@pytest.mark.parametrize("kind", OF_CALLER)
async def test_each_level_of_the_caller_has_its_rate(make_limits: MakeLimits, clock: ManualClock, kind: str) -> None:
    limits = await make_limits(clock, table(kind, requests_per_minute=1))
    (await limits.admit(act(user="ada"))).release()
    with pytest.raises(Refusal) as refused:
        await limits.admit(act(user="ada"))
    assert refused.value.detail["level"] == f"{kind}:{NAMES[kind]}"
    assert refused.value.retry_after_s == 61


@pytest.mark.parametrize("kind", ["tool", "model"])
async def test_a_tool_and_a_model_have_rates_and_places_from_the_look_up_on(
    make_limits: MakeLimits, clock: ManualClock, kind: str
) -> None:
    target = TOOL if kind == "tool" else MODEL
    limits = await make_limits(clock, table(kind, requests_per_minute=3, concurrency=1))
    first = await limits.reserve(act(), target)
    assert first.levels[-1] == f"{kind}:{NAMES[kind]}"
    with pytest.raises(Refusal, match="1 calls running") as refused:
        await limits.reserve(act("writer"), target)
    assert (refused.value.code, refused.value.detail["level"]) == ("rate_limited", f"{kind}:{NAMES[kind]}")
    limits.settle(first, Cost())
    limits.settle(first, Cost())
    for _ in range(2):
        limits.settle(await limits.reserve(act(), target), Cost())
    with pytest.raises(Refusal, match="3 requests per minute"):
        await limits.reserve(act(), target)
    other = MODEL if kind == "tool" else TOOL
    await limits.reserve(act(), other)


async def test_another_tool_has_counters_of_its_own(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, table("tool", named=True, requests_per_minute=1))
    await limits.reserve(act(), TOOL)
    with pytest.raises(Refusal):
        await limits.reserve(act(), TOOL)
    other = ToolTarget(server="ledger", tool="read", server_kind="mcp", owner="x", risk="low", effect="read")
    for _ in range(3):
        await limits.reserve(act(), other)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "tool"])
@pytest.mark.parametrize("window", ["minute", "day", "month"])
async def test_each_level_has_hard_budgets_that_a_restart_does_not_forget(
    make_limits: MakeLimits, clock: ManualClock, kind: str, window: str
) -> None:
    disk = spend_table()
    allowances = table(kind, budgets=(BudgetRule(window=window, nanousd=CENT),))  # type: ignore[arg-type]
    limits = await make_limits(clock, allowances)
    limits.settle(await limits.reserve(act(user="ada", max_tokens=4_000), MODEL), cost(0, 4_000))(disk)
    for _ in range(2):
        with pytest.raises(Refusal, match=f"left this {window} ") as refused:
            await limits.reserve(act(user="ada", max_tokens=2_000), MODEL)
        assert refused.value.detail["level"] == f"{kind}:{NAMES[kind]}"
        assert refused.value.detail["left"] == "0.002 USD"
        limits = await make_limits.again(clock, allowances, disk)
    await limits.reserve(act(user="ada", max_tokens=500), MODEL)


async def test_all_levels_are_held_at_once_and_told_on_disk(make_limits: MakeLimits, clock: ManualClock) -> None:
    disk = spend_table()
    limits = await make_limits(clock, table(*KINDS, budgets=(BudgetRule(window="month", nanousd=CENT),)))
    held = await limits.reserve(act(user="ada", max_tokens=100), MODEL)
    assert held.levels == tuple(f"{kind}:{NAMES[kind]}" for kind in KINDS if kind != "tool")
    limits.settle(held, cost(10, 10))(disk)
    months = {level for _, level, window in rows(disk) if window.startswith("month:")}
    assert months == set(held.levels)
    days = {level for _, level, window in rows(disk) if window.startswith("day:")}
    assert days == {"agent:reader", "user:ada"}  # these always; others where they have a budget
    told = limits.remaining("reader", "ada", team="team", use_case="case", session="session", target=MODEL)
    assert set(told) == set(held.levels)
    assert {one["budgets"][0]["left_nanousd"] for one in told.values()} == {CENT - 30_000}


async def test_a_level_without_limits_is_not_counted(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, AllowanceTable())
    held = await limits.reserve(act(user="ada"), MODEL)
    assert held.levels == ("agent:reader", "user:ada")
    assert set(limits.remaining("reader", "ada", team="team", session="session")) == {"agent:reader", "user:ada"}


async def test_a_level_that_is_limited_by_a_reload_counts_from_then_on(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    limits = await make_limits(clock, AllowanceTable())
    (await limits.admit(act())).release()
    limits.reconfigure(table("team", requests_per_minute=1))
    (await limits.admit(act())).release()
    with pytest.raises(Refusal):
        await limits.admit(act("writer"))
    limits.reconfigure(AllowanceTable())
    (await limits.admit(act())).release()


async def test_agents_of_one_team_share_its_budget_and_another_team_does_not(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    limits = await make_limits(clock, table("team", budgets=(BudgetRule(window="day", nanousd=CENT),)))
    await limits.reserve(act("reader", max_tokens=4_000), MODEL)
    with pytest.raises(Refusal, match="team:team has"):
        await limits.reserve(act("writer", max_tokens=4_000), MODEL)
    action = act("other", max_tokens=4_000)
    agent = msgspec.structs.replace(action.caller.agent, team="sales")
    await limits.reserve(
        msgspec.structs.replace(action, caller=msgspec.structs.replace(action.caller, agent=agent)), MODEL
    )


def test_idle_sessions_are_forgotten_and_those_in_use_are_not(clock: ManualClock) -> None:
    limits = MemoryLimits(
        clock, table("session", requests_per_minute=2, budgets=(BudgetRule(window="day", nanousd=CENT),))
    )

    async def visit() -> None:
        with await limits.admit(act(session="busy")):
            limits.settle(await limits.reserve(act(session="spent", max_tokens=10), MODEL), cost(1, 1))
            for number in range(20_000):
                (await limits.admit(act(session=f"s{number}"))).release()
                clock.advance(0.1)
            assert len(limits._accounts) < 3_000
            (await limits.admit(act(session="busy"))).release()
            told = limits.remaining("reader", session="spent")["session:spent"]["budgets"][0]
            assert told["left_nanousd"] == CENT - 3_000

    asyncio.run(visit())


# ---------------------------------------------------------------- soft budgets


async def test_a_soft_budget_refuses_nothing_and_is_told_once_in_each_window(clock: ManualClock) -> None:
    rules = (BudgetRule(window="day", nanousd=50_000, hard=False), BudgetRule(window="day", nanousd=CENT))
    limits = MemoryLimits(clock, table("team", budgets=rules))
    told: list[SoftBudget] = []
    limits.on_soft_budget = told.append
    for _ in range(4):
        limits.settle(await limits.reserve(act(max_tokens=100), MODEL), cost(10, 10))
    (passed,) = told
    assert passed.sentence == (
        "team:team has passed its soft budget of day:2026-11-22: 0.00006 USD of 0.00005 USD; nothing is refused."
    )
    soft, hard = limits.remaining("reader", team="team")["team:team"]["budgets"]
    assert (soft["hard"], soft["passed"], soft["left_nanousd"]) == (False, True, 0)
    assert "hard" not in hard
    clock.advance(86_400)
    for _ in range(2):
        limits.settle(await limits.reserve(act(max_tokens=100), MODEL), cost(10, 10))
    assert [one.window for one in told] == ["day:2026-11-22", "day:2026-11-23"]
    with pytest.raises(Refusal, match=r"of 0\.01 USD left this day"):
        await limits.reserve(act(max_tokens=5_000), MODEL)


async def test_what_is_only_held_passes_no_soft_budget(clock: ManualClock) -> None:
    limits = MemoryLimits(clock, table("agent", budgets=(BudgetRule(window="day", nanousd=50_000, hard=False),)))
    told: list[SoftBudget] = []
    limits.on_soft_budget = told.append
    held = await limits.reserve(act(max_tokens=4_000), MODEL)
    limits.settle(held, cost(1, 1))
    assert told == []
    (soft,) = limits.remaining("reader")["agent:reader"]["budgets"]
    assert (soft["passed"], soft["left_nanousd"]) == (False, 47_000)


async def test_a_restart_tells_no_soft_budget_again(clock: ManualClock) -> None:
    limits = MemoryLimits(clock)
    told: list[SoftBudget] = []
    limits.on_soft_budget = told.append
    limits.reconfigure(table("agent", budgets=(BudgetRule(window="day", nanousd=50_000, hard=False),)))
    limits.restore([("default", "agent:reader", "day:2026-11-22", 60_000, 1)])
    limits.settle(await limits.reserve(act(max_tokens=10), MODEL), cost(1, 1))
    assert told == []


async def test_a_model_without_a_price_passes_under_a_soft_money_budget(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    unpriced = msgspec.structs.replace(MODEL, priced=False, input_nanousd_per_mtok=0, output_nanousd_per_mtok=0)
    limits = await make_limits(clock, table("agent", budgets=(BudgetRule(window="day", nanousd=1, hard=False),)))
    await limits.reserve(act(), unpriced)
