"""What an ended replica leaves behind in Redis: what it spent, at every moment, and no voice."""

from __future__ import annotations

import redis

from gateway.clock import ManualClock
from gateway.errors import Refusal
from gateway.limits import Allowance, AllowanceTable, BudgetRule
from tests.limits.house import act
from tests.limits.replicas import CHEAP, Replicas

BUDGET = 1_000_000
TABLE = AllowanceTable(agent_default=Allowance(budgets=(BudgetRule(window="day", nanousd=BUDGET),)))


async def test_while_a_replica_is_being_ended_what_it_spent_counts(redis_url: str, clock: ManualClock) -> None:
    group = Replicas(redis_url, clock, TABLE)
    dead, ends, asks = await group.add(3)
    assert await group.call(dead, 900_000)
    group.settle(group.open[0], 900_000)
    assert await group.call(dead, 50_000, agent="writer")  # open, so that there is something to be given back too
    await group.tick()
    group.die(dead)
    filling = ends._filling
    drop, write = filling._drop, filling._write
    answers: list[str] = []

    async def ask() -> None:
        try:
            await asks.reserve(act(max_tokens=100_001), CHEAP)
        except Refusal as refusal:
            answers.append(refusal.code)
        else:
            answers.append("granted")
        await asks.tick()  # so that it is asked anew

    async def drop_and_ask(places: list[str], replica: str) -> None:
        await drop(places, replica)
        await ask()

    async def write_and_ask(generation: str, rows: object) -> None:
        await write(generation, rows)  # type: ignore[arg-type]
        await ask()

    filling._drop, filling._write = drop_and_ask, write_and_ask  # type: ignore[method-assign]
    await group.end(dead, by=ends)
    assert set(answers) == {"budget_exhausted"}
    assert len(answers) >= 2
    assert await group.call(asks, 100_000)
    await group.close()


async def test_an_ended_replica_that_wakes_after_a_flush_is_granted_nothing(redis_url: str, clock: ManualClock) -> None:
    group = Replicas(redis_url, clock, TABLE)
    dead, lives = await group.add(2)
    group.die(dead)
    await group.end(dead, by=lives)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()  # and with it, that nothing is to be heard of it
    await group.tick(3)
    assert lives.away is None
    await dead.tick()
    assert dead.away == "this replica was ended by another"
    assert await group.call(lives, BUDGET)
    await group.close()
