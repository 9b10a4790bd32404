"""The memory limiter is the model of the Redis limiter: the same trace, the same answers, to the last word."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from typing import Any

import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from gateway.actions import Reservation, Target, Usage, cost_of
from gateway.clock import ManualClock
from gateway.errors import Refusal
from gateway.limits import Admission, Allowance, AllowanceTable, BudgetRule, Limits, MemoryLimits
from gateway.limits.redis import RedisLimits
from tests.limits.footings import NOON_NS, OnRedis
from tests.limits.house import MODEL, TOOL, act

DAY = BudgetRule(window="day", nanousd=20_000_000)
MONTH = BudgetRule(window="month", tokens=60_000)
MINUTE = BudgetRule(window="minute", nanousd=15_000_000)
TABLES = (
    AllowanceTable(
        agent_default=Allowance(requests_per_minute=6, concurrency=3, tokens_per_minute=12_000, budgets=(DAY, MONTH)),
        user_default=Allowance(requests_per_minute=4, budgets=(BudgetRule(window="day", nanousd=12_000_000),)),
        session_default=Allowance(requests_per_minute=5, concurrency=2, budgets=(MINUTE,)),
    ),
    AllowanceTable(
        tenant_default=Allowance(requests_per_minute=9, budgets=(MINUTE, MONTH)),
        team_default=Allowance(concurrency=3),
        use_case_default=Allowance(tokens_per_minute=15_000),
        tool_default=Allowance(requests_per_minute=2, concurrency=1),
        model_default=Allowance(requests_per_minute=4, concurrency=2, tokens_per_minute=20_000, budgets=(DAY,)),
    ),
    AllowanceTable(
        agent_default=Allowance(requests_per_minute=12, concurrency=1, budgets=(DAY,)),
        model_default=Allowance(budgets=(BudgetRule(window="day", nanousd=9_000_000, hard=False),)),
        time_zone="Asia/Kathmandu",
    ),
    AllowanceTable(),
)


def told(refusal: Refusal) -> tuple[Any, ...]:
    return refusal.code, refusal.message, refusal.retry_after_s, refusal.detail


class Trace(RuleBasedStateMachine):
    """Both limiters, and what is under way at both."""

    places = Bundle("places")
    calls = Bundle("calls")

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        super().__init__()
        self.run = runner.run
        self.clock = ManualClock(NOON_NS + 86_400 * 7 * 10**9)
        self.memory = MemoryLimits(self.clock, TABLES[0])
        self.footing = OnRedis(url, ticking=False)
        self.redis: RedisLimits = self.run(self.footing(self.clock, TABLES[0]))

    @rule(
        target=places,
        agent=st.sampled_from(["reader", "writer"]),
        user=st.sampled_from([None, "ada"]),
        session=st.sampled_from(["s1", "s2"]),
    )
    def admit(self, agent: str, user: str | None, session: str) -> tuple[Admission, Admission] | None:
        answers: list[Admission | Refusal] = []
        for limits in (self.memory, self.redis):
            try:
                answers.append(self.run(enter(limits, agent, user, session)))
            except Refusal as refusal:
                answers.append(refusal)
        memory, shared = answers
        if isinstance(memory, Refusal) or isinstance(shared, Refusal):
            assert isinstance(memory, Refusal)
            assert isinstance(shared, Refusal)
            assert told(shared) == told(memory)
            return None
        assert shared.rates() == memory.rates()
        return memory, shared

    @rule(place=consumes(places))
    def release(self, place: tuple[Admission, Admission] | None) -> None:
        for one in place or ():
            one.release()

    @rule(
        target=calls,
        agent=st.sampled_from(["reader", "writer"]),
        user=st.sampled_from([None, "ada"]),
        session=st.sampled_from(["s1", "s2"]),
        max_tokens=st.integers(1, 6_000),
        is_tool=st.sampled_from([False, False, False, True]),
    )
    def reserve(
        self, agent: str, user: str | None, session: str, max_tokens: int, is_tool: bool
    ) -> tuple[Reservation, Target] | None:
        target: Target = TOOL if is_tool else MODEL
        action = act(agent, user, session=session, max_tokens=max_tokens)
        answers: list[Reservation | Refusal] = []
        for limits in (self.memory, self.redis):
            try:
                answers.append(self.run(limits.reserve(action, target)))
            except Refusal as refusal:
                answers.append(refusal)
        memory, shared = answers
        if isinstance(memory, Refusal) or isinstance(shared, Refusal):
            assert isinstance(memory, Refusal)
            assert isinstance(shared, Refusal), told(memory)
            assert told(shared) == told(memory)
            return None
        assert shared == memory
        return memory, target

    @rule(call=consumes(calls), share=st.fractions(0, 2), estimated=st.booleans())
    def settle(self, call: tuple[Reservation, Target] | None, share: Fraction, estimated: bool) -> None:
        if call is None:
            return
        held, target = call
        usage = Usage(
            input_tokens=int(held.input_tokens * share),
            output_tokens=int(held.max_output_tokens * share),
            estimated=estimated,
        )
        cost = cost_of(MODEL, usage if target is MODEL else Usage())
        for limits in (self.memory, self.redis):
            limits.settle(held, cost)

    @rule(seconds=st.sampled_from([0.25, 1, 3, 30, 61, 3_600, 43_200, 86_400]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.run(self.redis.tick())

    @rule()
    def tick(self) -> None:
        self.run(self.redis.tick())

    @rule(table=st.integers(0, len(TABLES) - 1))
    def reconfigure(self, table: int) -> None:
        for limits in (self.memory, self.redis):
            limits.reconfigure(TABLES[table])

    @invariant()
    def as_much_is_left(self) -> None:
        for agent, session in (("reader", "s1"), ("writer", "s2")):
            shared, memory = (
                limits.remaining(agent, "ada", team="team", use_case="case", session=session)
                for limits in (self.redis, self.memory)
            )
            assert shared == memory

    def teardown(self) -> None:
        self.run(self.footing.close())


async def enter(limits: Limits, agent: str, user: str | None, session: str) -> Admission:
    return await limits.admit(act(agent, user, session=session))


def test_memory_and_redis_give_the_same_answers(redis_url: str) -> None:
    steps = settings(
        max_examples=40,
        stateful_step_count=40,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    with asyncio.Runner() as runner:

        class OnThisRedis(Trace):
            """On the Redis of the test."""

            def __init__(self) -> None:
                with redis.Redis.from_url(redis_url) as client:
                    client.flushall()
                super().__init__(redis_url, runner)

        run_state_machine_as_test(OnThisRedis, settings=steps)
