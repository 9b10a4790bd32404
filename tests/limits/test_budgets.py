"""Contract of `Limits`: budgets are held before a call, corrected after it, and forgotten by no restart."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from gateway.actions import Cost, Reservation, Usage
from gateway.clock import ManualClock
from gateway.errors import Refusal
from gateway.limits import Allowance, AllowanceTable, BudgetRule, Limits, MemoryLimits, read_spend, windows_at
from gateway.limits.spend import add_spend
from gateway.store.schema import migrate
from tests.limits.footings import NOON_NS, MakeLimits
from tests.limits.house import MODEL, TOOL, act, cost, rows, spend_table

CENT = 10_000_000  # nano-dollars
HALF_A_DAY_S = 43_200
TODAY = ("default", "agent:reader", "day:2026-11-22")
THIS_MONTH = ("default", "agent:reader", "month:2026-11")


def budget(*rules: BudgetRule, user: tuple[BudgetRule, ...] = ()) -> AllowanceTable:
    return AllowanceTable(agent_default=Allowance(budgets=rules), user_default=Allowance(budgets=user))


def daily(nanousd: int | None = None, tokens: int | None = None) -> BudgetRule:
    return BudgetRule(window="day", nanousd=nanousd, tokens=tokens)


def monthly(nanousd: int | None = None, tokens: int | None = None) -> BudgetRule:
    return BudgetRule(window="month", nanousd=nanousd, tokens=tokens)


def left(limits: Limits, window: int = 0, level: str = "agent:reader") -> int:
    told = limits.remaining("reader", "ada")[level]["budgets"][window]
    amount = told.get("left_nanousd", told.get("left_tokens"))
    assert isinstance(amount, int)
    return amount


async def test_what_is_held_is_an_upper_bound_in_exact_integers(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, budget(daily(CENT)))
    action = act(max_tokens=100)
    held = await limits.reserve(action, MODEL)
    assert held.id == action.id
    assert held.max_output_tokens == 100
    assert action.body is not None
    assert held.input_tokens >= len(action.body)
    assert held.tokens == held.input_tokens + 100
    assert held.nanousd == 1_000 * held.input_tokens + 2_000 * 100
    assert left(limits) == CENT - held.nanousd


async def test_without_max_tokens_the_models_cap_is_held(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, AllowanceTable())
    assert (await limits.reserve(act(), MODEL)).max_output_tokens == 4_096
    assert (await limits.reserve(act(max_tokens=None), MODEL)).max_output_tokens == 4_096


async def test_a_call_beyond_the_budget_says_which_what_is_left_and_until_when(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    limits = await make_limits(clock, budget(daily(CENT), monthly(CENT * 30)))
    limits.settle(await limits.reserve(act(max_tokens=4_000), MODEL), cost(1_000, 4_000))
    with pytest.raises(Refusal) as refused:
        await limits.reserve(act(max_tokens=4_000), MODEL)
    refusal = refused.value
    assert refusal.code == "budget_exhausted"
    assert not refusal.retry
    assert refusal.detail["level"] == "agent:reader"
    assert refusal.detail["window"] == "day:2026-11-22"
    assert refusal.detail["left"] == "0.001 USD"
    assert refusal.detail["resets_at"] == "2026-11-23T00:00:00Z"
    assert "0.001 USD of 0.01 USD left this day" in refusal.message


@pytest.mark.parametrize(
    "rule", [daily(CENT), monthly(CENT), daily(tokens=5_000), monthly(tokens=5_000)], ids=["d$", "m$", "dt", "mt"]
)
@pytest.mark.parametrize("level", ["agent", "user"])
async def test_each_kind_of_budget_at_each_level_is_hard(
    make_limits: MakeLimits, clock: ManualClock, rule: BudgetRule, level: str
) -> None:
    table = budget(rule) if level == "agent" else budget(user=(rule,))
    limits = await make_limits(clock, table)
    await limits.reserve(act(user="ada", max_tokens=3_000), MODEL)
    with pytest.raises(Refusal) as refused:
        await limits.reserve(act(user="ada", max_tokens=3_000), MODEL)
    assert refused.value.code == "budget_exhausted"
    assert refused.value.detail["level"].startswith(level)


async def test_a_refusal_at_one_level_holds_nothing_at_another(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, budget(daily(CENT), user=(daily(CENT // 10),)))
    for _ in range(5):
        with pytest.raises(Refusal):
            await limits.reserve(act(user="ada", max_tokens=4_000), MODEL)
    assert left(limits) == CENT
    assert left(limits, level="user:ada") == CENT // 10


async def test_settling_gives_back_what_was_not_used(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, budget(daily(CENT)))
    for _ in range(50):  # each holds most of the budget, and uses little
        limits.settle(await limits.reserve(act(max_tokens=4_000), MODEL), cost(10, 10))
    assert left(limits) == CENT - 50 * 30_000


async def test_a_cost_of_nothing_gives_all_of_it_back(make_limits: MakeLimits, clock: ManualClock) -> None:
    table = spend_table()
    limits = await make_limits(clock, budget(daily(CENT)))
    limits.settle(await limits.reserve(act(max_tokens=4_000), MODEL), Cost())(table)
    assert left(limits) == CENT
    assert rows(table) == {}


async def test_a_true_cost_above_what_was_held_is_booked_as_it_is(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, budget(daily(CENT)))
    limits.settle(await limits.reserve(act(max_tokens=10), MODEL), cost(0, 10_000))
    assert left(limits) == 0
    with pytest.raises(Refusal, match="0 USD of"):
        await limits.reserve(act(max_tokens=1), MODEL)


@pytest.mark.parametrize(
    "told",
    [cost(1, 1, estimated=True), Cost(usage=Usage(estimated=True)), Cost(nanousd=1, estimated=True)],
    ids=["both", "usage", "money"],
)
async def test_an_estimated_cost_is_never_booked_below_what_was_held(
    make_limits: MakeLimits, clock: ManualClock, told: Cost
) -> None:
    table = spend_table()
    limits = await make_limits(clock, budget(daily(CENT)))
    held = await limits.reserve(act(max_tokens=1_000), MODEL)
    limits.settle(held, told)(table)
    assert left(limits) == CENT - held.nanousd
    assert rows(table)[TODAY] == (held.nanousd, held.tokens)


async def test_settling_twice_books_once(make_limits: MakeLimits, clock: ManualClock) -> None:
    table = spend_table()
    limits = await make_limits(clock, budget(daily(CENT)))
    held = await limits.reserve(act(max_tokens=1_000), MODEL)
    limits.settle(held, cost(10, 10))(table)
    limits.settle(held, cost(500, 500))(table)
    assert left(limits) == CENT - 30_000
    assert rows(table) == {TODAY: (30_000, 20), THIS_MONTH: (30_000, 20)}


async def test_reserving_twice_for_one_action_holds_once(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, budget(daily(CENT)))
    action = act(max_tokens=1_000)
    held = await limits.reserve(action, MODEL)
    assert await limits.reserve(action, MODEL) == held
    assert left(limits) == CENT - held.nanousd


async def test_spend_on_disk_is_the_sum_of_true_costs_per_level_and_window(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    table = spend_table()
    limits = await make_limits(clock, AllowanceTable())
    for user in ("ada", None, "bob"):
        limits.settle(await limits.reserve(act(user=user), MODEL), cost(10, 20))(table)
    limits.settle(await limits.reserve(act("writer", "ada"), MODEL), cost(1, 0))(table)
    assert rows(table) == {
        TODAY: (150_000, 90),
        THIS_MONTH: (150_000, 90),
        ("default", "user:ada", "day:2026-11-22"): (51_000, 31),
        ("default", "user:ada", "month:2026-11"): (51_000, 31),
        ("default", "user:bob", "day:2026-11-22"): (50_000, 30),
        ("default", "user:bob", "month:2026-11"): (50_000, 30),
        ("default", "agent:writer", "day:2026-11-22"): (1_000, 1),
        ("default", "agent:writer", "month:2026-11"): (1_000, 1),
    }


async def test_a_rolled_back_transaction_leaves_no_spend(make_limits: MakeLimits, clock: ManualClock) -> None:
    table = spend_table()
    limits = await make_limits(clock, AllowanceTable())
    limits.settle(await limits.reserve(act(), MODEL), cost(1, 1))(table)
    table.rollback()
    assert rows(table) == {}


async def test_a_restart_forgets_no_spend(make_limits: MakeLimits, clock: ManualClock) -> None:
    table = spend_table()
    allowances = budget(daily(CENT), monthly(CENT * 2), user=(daily(CENT),))
    before = await make_limits(clock, allowances)
    before.settle(await before.reserve(act(user="ada", max_tokens=2_000), MODEL), cost(500, 2_000))(table)
    after = await make_limits.again(clock, allowances, table)
    assert after.remaining("reader", "ada") == before.remaining("reader", "ada")
    assert left(after) == CENT - 4_500_000


async def test_spend_goes_into_the_table_that_the_store_makes(
    make_limits: MakeLimits, clock: ManualClock, tmp_path: Path
) -> None:
    database = tmp_path / "gateway.db"
    migrate(database)
    limits = await make_limits(clock, AllowanceTable())
    with closing(sqlite3.connect(database)) as connection:
        for _ in range(2):
            limits.settle(await limits.reserve(act(), MODEL), cost(5, 5))(connection)
        assert rows(connection) == {TODAY: (30_000, 20), THIS_MONTH: (30_000, 20)}
        assert sorted(read_spend(connection, windows_at(NOON_NS))) == [(*TODAY, 30_000, 20), (*THIS_MONTH, 30_000, 20)]
        assert read_spend(connection, windows_at(NOON_NS + 40 * 86_400 * 10**9)) == []


async def test_spend_of_past_windows_does_not_count_after_a_restart(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    table = spend_table()
    add_spend([("default", "agent:reader", "day:2026-11-21", CENT, 1), (*THIS_MONTH, 1_000, 1)], table)
    limits = await make_limits.again(clock, budget(daily(CENT), monthly(CENT)), table)
    assert left(limits, 0) == CENT
    assert left(limits, 1) == CENT - 1_000


async def test_an_unknown_end_is_booked_in_full_by_the_reaper(make_limits: MakeLimits, clock: ManualClock) -> None:
    table = spend_table()
    dead = await (await make_limits(clock, AllowanceTable())).reserve(act(user="ada", max_tokens=1_000), MODEL)
    limits = await make_limits(clock, budget(daily(CENT), user=(daily(CENT),)))
    await make_limits.reap(limits, dead, NOON_NS, table)
    assert rows(table)[TODAY] == (dead.nanousd, dead.tokens)
    assert left(limits) == left(limits, level="user:ada") == CENT - dead.nanousd


def test_in_one_process_an_unknown_end_is_booked_once_however_often_it_is_reaped(clock: ManualClock) -> None:
    table = spend_table()
    limits = MemoryLimits(clock, budget(daily(CENT)))
    dead = Reservation(id="x", nanousd=1_000, tokens=5, levels=("agent:reader",))
    for _ in range(2):
        limits.persist_unknown(dead, NOON_NS)(table)
    assert rows(table)[TODAY] == (1_000, 5)
    assert left(limits) == CENT - 1_000


@pytest.mark.parametrize("reaper_first", [True, False])
async def test_a_restart_counts_what_the_reaper_booked_once(
    make_limits: MakeLimits, clock: ManualClock, reaper_first: bool
) -> None:
    table = spend_table()
    before = await make_limits(clock, AllowanceTable())
    before.settle(await before.reserve(act(), MODEL), cost(10, 10))(table)
    dead = await before.reserve(act(max_tokens=1_000), MODEL)
    if reaper_first:
        limits = await make_limits(clock, budget(daily(CENT)))
        await make_limits.reap(limits, dead, NOON_NS, table)
        limits.restore(read_spend(table, windows_at(NOON_NS)))
        await make_limits.released(limits, table)
    else:
        limits = await make_limits.again(clock, budget(daily(CENT)), table)
        await make_limits.reap(limits, dead, NOON_NS, table)
    assert left(limits) == CENT - 30_000 - dead.nanousd


async def test_an_unknown_end_of_yesterday_is_yesterdays_spend(make_limits: MakeLimits, clock: ManualClock) -> None:
    table = spend_table()
    limits = await make_limits(clock, budget(daily(CENT), monthly(CENT)))
    dead = Reservation(id="x", nanousd=1_000, tokens=5, levels=("agent:reader",))
    await make_limits.reap(limits, dead, NOON_NS - 86_400 * 10**9, table)
    assert rows(table) == {(*TODAY[:2], "day:2026-11-21"): (1_000, 5), THIS_MONTH: (1_000, 5)}
    assert (left(limits, 0), left(limits, 1)) == (CENT, CENT - 1_000)


async def test_an_unknown_end_in_this_process_settles_the_open_reservation(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    table = spend_table()
    limits = await make_limits(clock, budget(daily(CENT)))
    held = await limits.reserve(act(max_tokens=1_000), MODEL)
    limits.persist_unknown(held, NOON_NS)(table)
    limits.settle(held, cost(1, 1))(table)
    assert rows(table)[TODAY] == (held.nanousd, held.tokens)
    assert left(limits) == CENT - held.nanousd


async def test_a_model_without_a_price_is_refused_under_a_money_budget(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    unpriced = msgspec.structs.replace(MODEL, priced=False, input_nanousd_per_mtok=0, output_nanousd_per_mtok=0)
    limits = await make_limits(clock, budget(daily(tokens=100_000), user=(monthly(CENT),)))
    with pytest.raises(Refusal, match="No price of model demo") as refused:
        await limits.reserve(act(user="ada"), unpriced)
    assert refused.value.code == "budget_exhausted"
    assert refused.value.detail["level"] == "user:ada"
    assert (await limits.reserve(act(), unpriced)).tokens > 0  # a budget of tokens needs no price


async def test_a_free_model_and_a_tool_pass_under_an_overspent_money_budget(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    free = msgspec.structs.replace(MODEL, input_nanousd_per_mtok=0, output_nanousd_per_mtok=0)
    limits = await make_limits(clock, budget(daily(CENT)))
    limits.settle(await limits.reserve(act(max_tokens=1), MODEL), cost(0, 10**6))
    assert (await limits.reserve(act(), free)).nanousd == 0
    assert (await limits.reserve(act(), TOOL)).nanousd == 0


async def test_a_reload_keeps_spend_and_counts_it_under_a_new_budget(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    limits = await make_limits(clock, AllowanceTable())
    limits.settle(await limits.reserve(act(max_tokens=1_000), MODEL), cost(1_000, 1_000))
    held = await limits.reserve(act(max_tokens=100), MODEL)
    limits.reconfigure(budget(daily(CENT)))
    assert left(limits) == CENT - 3_000_000 - held.nanousd
    limits.settle(held, Cost())
    assert left(limits) == CENT - 3_000_000


async def test_a_day_ends_at_midnight_utc_and_a_month_with_its_last_day(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    limits = await make_limits(clock, budget(daily(CENT), monthly(CENT * 2)))
    limits.settle(await limits.reserve(act(max_tokens=4_000), MODEL), cost(0, 4_500))
    clock.advance(HALF_A_DAY_S - 0.001)
    with pytest.raises(Refusal):
        await limits.reserve(act(max_tokens=4_000), MODEL)
    clock.advance(0.001)
    assert left(limits, 0) == CENT
    limits.settle(await limits.reserve(act(max_tokens=4_000), MODEL), cost(0, 4_500))
    clock.advance(86_400)
    with pytest.raises(Refusal, match="left this month") as refused:
        await limits.reserve(act(max_tokens=4_000), MODEL)
    assert refused.value.detail["resets_at"] == "2026-12-01T00:00:00Z"
    clock.advance(86_400 * 7)
    assert clock.now_ns() == datetime(2026, 12, 1, tzinfo=UTC).timestamp() * 10**9
    assert (left(limits, 0), left(limits, 1)) == (CENT, CENT * 2)


async def test_a_call_over_midnight_is_spend_of_the_day_it_began(make_limits: MakeLimits, clock: ManualClock) -> None:
    table = spend_table()
    limits = await make_limits(clock, budget(daily(CENT), monthly(CENT)))
    clock.advance(HALF_A_DAY_S - 1)
    held = await limits.reserve(act(max_tokens=1_000), MODEL)
    clock.advance(2)
    assert (left(limits, 0), left(limits, 1)) == (CENT, CENT - held.nanousd)
    limits.settle(held, cost(100, 100))(table)
    assert (left(limits, 0), left(limits, 1)) == (CENT, CENT - 300_000)
    assert rows(table) == {TODAY: (300_000, 200), THIS_MONTH: (300_000, 200)}


async def test_a_clock_set_back_over_midnight_reopens_no_budget(make_limits: MakeLimits, clock: ManualClock) -> None:
    limits = await make_limits(clock, budget(daily(CENT)))
    clock.advance(HALF_A_DAY_S)
    limits.settle(await limits.reserve(act(max_tokens=4_000), MODEL), cost(0, 4_500))
    clock.advance(-10)
    with pytest.raises(Refusal):
        await limits.reserve(act(max_tokens=4_000), MODEL)


async def test_remaining_tells_every_limit_that_is_set(make_limits: MakeLimits, clock: ManualClock) -> None:
    allowance = Allowance(
        requests_per_minute=10, concurrency=4, tokens_per_minute=50_000, budgets=(daily(CENT), monthly(tokens=90_000))
    )
    limits = await make_limits(clock, AllowanceTable(agents={"reader": allowance}))
    action = act(user="ada", max_tokens=100)
    with await limits.admit(action):
        held = await limits.reserve(action, MODEL)
        assert limits.remaining("reader", "ada") == {
            "agent:reader": {
                "requests_per_minute": {"limit": 10, "left": 9, "reset_s": 61},
                "tokens_per_minute": {"limit": 50_000, "left": 50_000 - held.tokens, "reset_s": 61},
                "concurrency": {"limit": 4, "left": 3},
                "budgets": [
                    {
                        "window": "day:2026-11-22",
                        "resets_at": "2026-11-23T00:00:00Z",
                        "limit_nanousd": CENT,
                        "left_nanousd": CENT - held.nanousd,
                    },
                    {
                        "window": "month:2026-11",
                        "resets_at": "2026-12-01T00:00:00Z",
                        "limit_tokens": 90_000,
                        "left_tokens": 90_000 - held.tokens,
                    },
                ],
            },
            "user:ada": {},
        }
