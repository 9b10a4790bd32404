"""Invariant 6: however calls interleave, what is held and spent never exceeds a hard budget.

The machine plays any order of reserving, settling, midnights, reloads and crashes against a model that only adds.
"""

from __future__ import annotations

import asyncio
import sqlite3
from fractions import Fraction
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from gateway.actions import Cost, Reservation, Usage, cost_of
from gateway.clock import ManualClock
from gateway.errors import Refusal
from gateway.limits import Allowance, AllowanceTable, BudgetRule, Limits
from gateway.limits.windows import windows_at
from tests.examples import examples
from tests.limits.conftest import IMPLEMENTATIONS
from tests.limits.footings import NOON_NS, Embedded, MakeLimits, OnRedis
from tests.limits.house import MODEL, act, rows, spend_table

DAY_NANOUSD = 20_000_000
MONTH_TOKENS = 60_000
USER_DAY_NANOUSD = 12_000_000
TABLE = AllowanceTable(
    agent_default=Allowance(
        budgets=(BudgetRule(window="day", nanousd=DAY_NANOUSD), BudgetRule(window="month", tokens=MONTH_TOKENS))
    ),
    user_default=Allowance(budgets=(BudgetRule(window="day", nanousd=USER_DAY_NANOUSD),)),
)


class Held:
    """A call under way: its reservation and the windows and levels it belongs to."""

    def __init__(self, reservation: Reservation, now_ns: int) -> None:
        self.reservation = reservation
        self.now_ns = now_ns
        windows = windows_at(now_ns)
        self.windows = (windows.day, windows.month)


class Budgets(RuleBasedStateMachine):
    """True costs stay at or below what was held, as a reservation promises."""

    calls = Bundle("calls")

    def __init__(self, footing: MakeLimits, runner: asyncio.Runner) -> None:
        super().__init__()
        self.footing = footing
        self.run = runner.run
        self.clock = ManualClock(NOON_NS + 86_400 * 7 * 10**9)  # 29 November: two midnights from a new month
        self.disk: sqlite3.Connection = spend_table()
        self.limits: Limits = self.run(footing(self.clock, TABLE))
        self.open: list[Held] = []

    @rule(
        target=calls,
        agent=st.sampled_from(["reader", "writer"]),
        user=st.sampled_from([None, "ada"]),
        max_tokens=st.integers(1, 6_000),
        n=st.sampled_from([None, 1, 2]),
    )
    def call(self, agent: str, user: str | None, max_tokens: int, n: int | None) -> Held | None:
        arguments: dict[str, Any] = {"max_tokens": max_tokens, "n": n}
        try:
            reservation = self.run(self.limits.reserve(act(agent, user, **arguments), MODEL))
        except Refusal as refusal:
            assert refusal.code == "budget_exhausted"
            return None
        held = Held(reservation, self.clock.now_ns())
        self.open.append(held)
        return held

    @rule(held=consumes(calls), share=st.fractions(0, 1), estimated=st.booleans())
    def settle(self, held: Held | None, share: Fraction, estimated: bool) -> None:
        if held not in self.open or held is None:
            return
        self.open.remove(held)
        reservation = held.reservation
        usage = Usage(
            input_tokens=int(reservation.input_tokens * share),
            output_tokens=int(reservation.max_output_tokens * share),
            estimated=estimated,
        )
        with self.disk:
            self.limits.settle(reservation, cost_of(MODEL, usage))(self.disk)
            self.limits.settle(reservation, Cost(nanousd=DAY_NANOUSD))(self.disk)

    @rule(seconds=st.sampled_from([1, 3_600, 43_200, 86_400]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    def teardown(self) -> None:
        self.run(self.footing.close())

    @rule()
    def reload(self) -> None:
        self.limits.reconfigure(TABLE)

    @rule()
    def crash(self) -> None:
        """The process dies; the next one reads what was spent and reaps what was open."""
        self.limits = self.run(self.footing.again(self.clock, TABLE, self.disk))
        for held in self.open:
            with self.disk:
                self.run(self.footing.reap(self.limits, held.reservation, held.now_ns, self.disk))
        self.open = []

    @invariant()
    def nothing_is_overspent(self) -> None:
        used = rows(self.disk)
        for held in self.open:
            for level in held.reservation.levels:
                for window in held.windows:
                    nanousd, tokens = used.get(("default", level, window), (0, 0))
                    used["default", level, window] = (
                        nanousd + held.reservation.nanousd,
                        tokens + held.reservation.tokens,
                    )
        for (_, level, window), (nanousd, tokens) in used.items():
            if window.startswith("day:"):
                assert nanousd <= (DAY_NANOUSD if level.startswith("agent:") else USER_DAY_NANOUSD)
            elif level.startswith("agent:"):
                assert tokens <= MONTH_TOKENS

    @invariant()
    def what_is_left_is_what_was_not_used(self) -> None:
        windows = windows_at(self.clock.now_ns())
        used = rows(self.disk)
        for agent in ("reader", "writer"):
            level = f"agent:{agent}"
            mine = [held for held in self.open if level in held.reservation.levels]
            day = sum(held.reservation.nanousd for held in mine if windows.day in held.windows)
            month = sum(held.reservation.tokens for held in mine if windows.month in held.windows)
            day += used.get(("default", level, windows.day), (0, 0))[0]
            month += used.get(("default", level, windows.month), (0, 0))[1]
            told = self.limits.remaining(agent)[level]["budgets"]
            assert told[0]["left_nanousd"] == DAY_NANOUSD - day
            assert told[1]["left_tokens"] == MONTH_TOKENS - month


@examples(few=20, many=60)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_however_calls_interleave_nothing_is_overspent(
    implementation: str, examples: int, request: pytest.FixtureRequest
) -> None:
    steps = settings(
        max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    with asyncio.Runner() as runner:
        url = "" if implementation == "memory" else request.getfixturevalue("redis_url")

        class OnOne(Budgets):
            """On the implementation under test."""

            def __init__(self) -> None:
                if url:
                    with redis.Redis.from_url(url) as client:
                        client.flushall()
                super().__init__(Embedded() if implementation == "memory" else OnRedis(url), runner)

        run_state_machine_as_test(OnOne, settings=steps)


async def test_of_many_calls_at_once_exactly_as_many_pass_as_the_budget_pays_for(
    make_limits: MakeLimits, clock: ManualClock
) -> None:
    limits = await make_limits(clock, AllowanceTable())
    price = (await limits.reserve(act(max_tokens=500), MODEL)).nanousd
    limits.reconfigure(
        AllowanceTable(agent_default=Allowance(budgets=(BudgetRule(window="day", nanousd=price * 11 + price // 2),)))
    )
    ended = await asyncio.gather(
        *(limits.reserve(act(max_tokens=500), MODEL) for _ in range(200)), return_exceptions=True
    )
    passed = [one for one in ended if not isinstance(one, BaseException)]
    assert len(passed) == 10  # the one that told the price is still open
    assert all(isinstance(one, Refusal) and one.code == "budget_exhausted" for one in ended if one not in passed)
