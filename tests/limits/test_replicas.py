"""Many replicas on one real Redis: together they never overspend, whatever happens to it or to one of them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import redis

from gateway.clock import ManualClock
from gateway.errors import Refusal
from gateway.limits import Allowance, AllowanceTable, BudgetRule, SoftBudget
from gateway.limits.redis import LEASE_S, RedisLimits
from gateway.quickstart.servers import RedisServer
from tests.limits.house import TOOL, act
from tests.limits.replicas import CHEAP, Open, Replicas

BUDGET = 1_000_000


def budget(nanousd: int = BUDGET, **more: object) -> AllowanceTable:
    rule = BudgetRule(window="day", nanousd=nanousd, **more)  # type: ignore[arg-type]
    return AllowanceTable(agent_default=Allowance(budgets=(rule,)))


MakeReplicas = Callable[..., Awaitable[Replicas]]


@pytest.fixture
async def make_replicas(clock: ManualClock) -> AsyncIterator[MakeReplicas]:
    """Makes replicas on a Redis; closed when the test is over."""
    made: list[Replicas] = []

    async def make(
        url: str, count: int, table: AllowanceTable | None = None, installation: str = "installation"
    ) -> Replicas:
        made.append(Replicas(url, clock, budget() if table is None else table, installation))
        await made[-1].add(count)
        return made[-1]

    yield make
    for one in made:
        await one.close()


def is_away(replica: RedisLimits) -> bool:
    return replica.away is not None


async def refused(replica: RedisLimits, nanousd: int = 1) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        await replica.reserve(act(max_tokens=nanousd), CHEAP)
    return refusal.value


async def test_many_replicas_with_many_calls_each_never_overspend(redis_url: str, make_replicas: MakeReplicas) -> None:
    group = await make_replicas(redis_url, 4)
    chance = random.Random(4)
    busy = 4 * 25

    async def work(replica: RedisLimits) -> None:
        nonlocal busy
        for _ in range(20):
            reservation = await group.call(replica, chance.randrange(1, BUDGET // 100))
            assert group.used <= BUDGET
            if reservation is not None:
                await asyncio.sleep(0)
                group.settle(Open(replica, reservation), chance.randrange(reservation.nanousd + 1))
        busy -= 1

    async def tick() -> None:
        while busy:
            await group.tick()
            await asyncio.sleep(0)

    await asyncio.gather(tick(), *(work(replica) for replica in group.alive.values() for _ in range(25)))
    assert BUDGET * 0.99 < group.used <= BUDGET
    assert not group.open


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_nothing_is_overspent(
    redis_url: str, make_replicas: MakeReplicas, clock: ManualClock, seed: int
) -> None:
    """Calls, true costs, ticks of one or of all, floods of calls at once, flushes, deaths and new replicas."""
    chance = random.Random(seed)
    group = await make_replicas(redis_url, 3)

    async def call() -> None:
        replica = chance.choice(list(group.alive.values()))
        with contextlib.suppress(Refusal):  # store_unavailable, for a while
            await group.call(replica, chance.randrange(1, BUDGET // 8))

    for _ in range(250):
        match chance.randrange(12):
            case 0 | 1 | 2:
                await call()
            case 3:
                await asyncio.gather(*(call() for _ in range(chance.randrange(2, 12))))
            case 4 | 5 | 6 if group.open:
                one = chance.choice(group.open)
                group.settle(one, chance.randrange(one.reservation.nanousd // 20 + 1))
            case 7 | 8:
                await chance.choice(list(group.alive.values())).tick()
            case 9:
                clock.advance(chance.choice([0.5, 2, 4]))
                await group.tick(chance.randrange(1, 4))
            case 10 if chance.random() < 0.3:
                with redis.Redis.from_url(redis_url) as client:
                    client.flushall()
            case 11 if len(group.alive) > 1 and chance.random() < 0.3:
                dead = chance.choice(list(group.alive.values()))
                group.die(dead)
                await group.tick(chance.randrange(2))
                await call()
                await group.end(dead, by=chance.choice(list(group.alive.values())))
                await group.add()
            case _:
                pass
        assert group.used <= BUDGET
    last = chance.choice(list(group.alive.values()))
    last.remaining("reader")
    await group.tick(4)
    left = BUDGET - group.used
    assert last.remaining("reader")["agent:reader"]["budgets"][0]["left_nanousd"] == left
    if left:
        assert await group.call(last, left)
    assert await group.call(last, 1) is None


async def test_the_last_cent_can_be_spent_anywhere_after_a_tick_or_two(
    redis_url: str, make_replicas: MakeReplicas
) -> None:
    group = await make_replicas(redis_url, 3)
    first, second, third = group.alive.values()
    for replica in (first, second, third):
        assert await group.call(replica, 1_000)
    await group.tick(2)
    assert await group.call(third, BUDGET - 3_000)
    assert group.used == BUDGET
    assert (await refused(first)).code == "budget_exhausted"
    assert (await refused(third)).detail["left"] == "0 USD"
    group.settle(group.open[0], 999)
    await group.tick()
    assert await group.call(second, 1)
    assert group.used == BUDGET


async def test_what_is_left_is_told_of_all_replicas(redis_url: str, make_replicas: MakeReplicas) -> None:
    group = await make_replicas(redis_url, 2)
    first, second = group.alive.values()
    assert await group.call(first, 1_000)
    assert await group.call(second, 500)
    await group.tick(3)
    for replica in (first, second):
        told = replica.remaining("reader")["agent:reader"]["budgets"][0]
        assert told["left_nanousd"] == BUDGET - 1_500


async def test_a_dead_replicas_grants_come_back_when_it_is_ended_and_not_before(
    redis_url: str, make_replicas: MakeReplicas, clock: ManualClock
) -> None:
    group = await make_replicas(redis_url, 2)
    dead, lives = group.alive.values()
    assert await group.call(dead, 600_000)
    group.settle(group.open[0], 100_000)  # it died before it could tell
    assert await group.call(dead, 200_000)
    group.die(dead)
    for _ in range(20):
        clock.advance(1)
        await group.tick()
    assert await group.call(lives, 500_000) is None
    await group.end(dead, by=lives)
    assert group.used == 300_000
    assert await group.call(lives, 700_000)
    assert group.used == BUDGET


async def test_an_ended_replica_that_wakes_is_not_heard(redis_url: str, make_replicas: MakeReplicas) -> None:
    group = await make_replicas(redis_url, 2)
    dead, lives = group.alive.values()
    group.die(dead)
    await group.end(dead, by=lives)
    assert (await refused(dead)).code == "store_unavailable"
    await dead.tick()
    assert dead.away is not None
    assert await group.call(lives, BUDGET)


@pytest.mark.parametrize("times", [1, 2])
async def test_ended_may_be_told_again(redis_url: str, make_replicas: MakeReplicas, times: int) -> None:
    group = await make_replicas(redis_url, 2)
    dead, lives = group.alive.values()
    assert await group.call(dead, 400_000)
    group.die(dead)
    for _ in range(times):
        await group.end(dead, by=lives)
    assert await group.call(lives, 600_001) is None
    assert await group.call(lives, 600_000)


async def test_places_of_all_replicas_count_and_come_back(redis_url: str, make_replicas: MakeReplicas) -> None:
    table = AllowanceTable(agent_default=Allowance(concurrency=3))
    group = await make_replicas(redis_url, 3, table)
    places = [await replica.admit(act()) for replica in group.alive.values()]
    for replica in group.alive.values():
        with pytest.raises(Refusal, match="3 calls running"):
            await replica.admit(act())
    places[0].release()
    await group.tick()
    last = list(group.alive.values())[-1]
    (await last.admit(act())).release()


async def test_a_minutes_requests_are_shared(redis_url: str, make_replicas: MakeReplicas, clock: ManualClock) -> None:
    table = AllowanceTable(agent_default=Allowance(requests_per_minute=100))
    group = await make_replicas(redis_url, 3, table)
    passed = 0
    for _ in range(60):
        for replica in group.alive.values():
            try:
                (await replica.admit(act())).release()
            except Refusal as refusal:
                assert refusal.code == "rate_limited"
                continue
            passed += 1
        await group.tick()
    assert passed == 100
    clock.advance(61)
    await group.tick()
    (await next(iter(group.alive.values())).admit(act())).release()


# ---------------------------------------------------------------- two installations on one Redis


async def test_installations_on_one_redis_share_no_counter(redis_url: str, make_replicas: MakeReplicas) -> None:
    ours = await make_replicas(redis_url, 2, installation="ours")
    theirs = await make_replicas(redis_url, 2, installation="theirs")
    for group in (ours, theirs):
        first, second = group.alive.values()
        assert await group.call(first, 600_000)
        assert await group.call(second, 400_001) is None
        await group.tick(2)
        assert await group.call(second, 400_000)
    with redis.Redis.from_url(redis_url) as client:
        owners = {name.split(b":")[1] for name in client.scan_iter()}
        assert owners == {b"{ours}", b"{theirs}"}  # what stands in braces is the slot of a cluster


async def test_an_installation_that_is_filled_anew_leaves_the_other_as_it_is(
    redis_url: str, make_replicas: MakeReplicas
) -> None:
    ours = await make_replicas(redis_url, 1, installation="ours")
    theirs = await make_replicas(redis_url, 1, installation="theirs")
    (our,), (their,) = ours.alive.values(), theirs.alive.values()
    assert await theirs.call(their, 600_000)
    with redis.Redis.from_url(redis_url) as client:
        client.delete("gw:{ours}:generation")
    await ours.tick(2)
    assert our.away is None
    assert await ours.call(our, BUDGET)
    assert await theirs.call(their, 400_001) is None
    assert await theirs.call(their, 400_000)


# ---------------------------------------------------------------- Redis fails


@pytest.mark.parametrize(
    ("count", "named", "told"),
    [
        (1, 1, "1 replica has not told yet what it holds of the limits ("),
        (3, 3, "3 replicas have not told yet what they hold of the limits ("),
        (5, 3, " and 2 more); if that lasts, check that GATEWAY_REDIS_URL is the same at all replicas"),
    ],
)
async def test_who_waits_for_others_names_them_and_says_what_to_check(
    redis_url: str, make_replicas: MakeReplicas, count: int, named: int, told: str
) -> None:
    group = await make_replicas(redis_url, 1)
    (replica,) = group.alive.values()
    others = [f"other-{number}" for number in range(count)]
    group.unreleased.update(others)  # the database knows them; this Redis heard nothing of them
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    await group.tick(2)
    message = (await refused(replica, 500_000)).message
    assert told in message
    assert [other in message for other in others] == [True] * named + [False] * (count - named)


async def test_a_redis_that_refuses_a_password_can_be_reached(own_redis: RedisServer, clock: ManualClock) -> None:
    group = Replicas(own_redis.url.replace("redis://:", "redis://:x"), clock, budget())
    (replica,) = await group.add()
    assert replica.away is not None
    assert replica.away == ("Redis refuses (AuthenticationError); check the user and the password in GATEWAY_REDIS_URL")
    assert replica.away in (await refused(replica)).message
    own_redis.kill()
    await replica.tick()
    assert replica.away == (
        "Redis can't be reached (ConnectionError); check that it runs and that GATEWAY_REDIS_URL leads to it"
    )
    await group.close()


@pytest.mark.parametrize(
    ("command", "error", "check"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), "OutOfMemoryError", "its maxmemory"),
        (("REPLICAOF", "127.0.0.1", "1"), "ReadOnlyError", "the primary"),
        (("CONFIG", "SET", "min-replicas-to-write", "1"), "ResponseError", "min-replicas-to-write"),
        (("ACL", "SETUSER", "default", "resetkeys", "~other:*"), "NoPermissionError", "gw:*"),
    ],
)
async def test_a_redis_that_refuses_is_told_with_what_to_check(
    own_redis: RedisServer, make_replicas: MakeReplicas, command: tuple[str, ...], error: str, check: str
) -> None:
    group = await make_replicas(own_redis.url, 1)
    (replica,) = group.alive.values()
    with redis.Redis.from_url(own_redis.url) as client:
        client.execute_command(*command)
    message = (await refused(replica, 500_000)).message  # asked on the way
    assert f"Redis refuses ({error}); check " in message
    assert check in message
    await replica.tick()  # and beside it
    assert replica.away is not None
    assert replica.away.startswith(f"Redis refuses ({error}); check ")


async def test_after_a_flush_nothing_is_granted_until_all_have_told_what_they_hold(
    redis_url: str, make_replicas: MakeReplicas
) -> None:
    group = await make_replicas(redis_url, 3)
    first, second, third = group.alive.values()
    assert await group.call(first, 300_000)
    assert await group.call(second, 300_000)
    group.settle(group.open[0], 250_000)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    unavailable = await refused(third, 500_000)
    assert (unavailable.code, unavailable.http_status, unavailable.retry) == ("store_unavailable", 503, True)
    await third.tick()
    await first.tick()
    assert (await refused(third, 500_000)).code == "store_unavailable"  # the second has not told
    await second.tick()
    await group.tick(2)
    assert third.away is None
    assert await group.call(third, 450_001) is None
    assert await group.call(third, 450_000)
    assert group.used == BUDGET


async def test_a_flush_while_a_replica_is_dead_waits_for_its_end(redis_url: str, make_replicas: MakeReplicas) -> None:
    group = await make_replicas(redis_url, 2)
    dead, lives = group.alive.values()
    assert await group.call(dead, 300_000)
    group.die(dead)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    await group.tick(4)
    assert (await refused(lives)).code == "store_unavailable"
    await group.end(dead, by=lives)
    await group.tick(2)
    assert await group.call(lives, 700_001) is None
    assert await group.call(lives, 700_000)


async def test_a_redis_that_was_killed_refuses_and_comes_back_by_itself(
    own_redis: RedisServer, make_replicas: MakeReplicas
) -> None:
    group = await make_replicas(own_redis.url, 2)
    first, second = group.alive.values()
    assert await group.call(first, 400_000)
    own_redis.kill()
    assert (await refused(second, 300_000)).code == "store_unavailable"
    assert await group.call(first, 1)  # of the block it was granted
    await group.tick()
    assert is_away(first)
    own_redis.start()
    await group.tick(3)
    assert first.away is None
    assert await group.call(second, 599_999)
    assert group.used == BUDGET
    assert await group.call(first, 1) is None


async def test_an_older_snapshot_is_not_believed(own_redis: RedisServer, make_replicas: MakeReplicas) -> None:
    group = await make_replicas(own_redis.url, 2)
    first, second = group.alive.values()
    assert await group.call(first, 100_000)
    with redis.Redis.from_url(own_redis.url) as client:
        client.save()
    older = (own_redis.folder / "dump.rdb").read_bytes()
    assert await group.call(second, 700_000)
    own_redis.kill()
    shutil.rmtree(own_redis.folder / "appendonlydir")
    (own_redis.folder / "dump.rdb").write_bytes(older)
    restart_from_snapshot(own_redis)
    assert (await refused(first, 300_000)).code == "store_unavailable"
    await group.tick(3)
    assert first.away is None
    assert await group.call(first, 200_001) is None
    assert await group.call(first, 200_000)
    assert group.used == BUDGET


def restart_from_snapshot(server: RedisServer) -> None:
    """As an operator does who puts a backup in place: with no append-only file, so that the snapshot is read."""
    server._appendonly = False
    server.start()
    with redis.Redis.from_url(server.url) as client:
        assert any(b"nanousd" in found for found in client.keys("gw:*"))


async def test_a_redis_that_stands_still_refuses_soon_and_comes_back_by_itself(
    own_redis: RedisServer, make_replicas: MakeReplicas
) -> None:
    group = await make_replicas(own_redis.url, 2)
    first, second = group.alive.values()
    assert await group.call(first, 100_000)
    own_redis.pause()
    answers = await asyncio.gather(*(refused(second, 10_000) for _ in range(50)))  # one time-out, not fifty
    assert {answer.code for answer in answers} == {"store_unavailable"}
    own_redis.resume()  # now it hears the question that nobody waits for any more
    await group.tick(2)
    assert second.away is None
    assert await group.call(second, 900_000)
    assert group.used == BUDGET
    assert await group.call(first, 30_000) is None


async def test_a_replica_that_could_not_renew_for_long_refuses(
    redis_url: str, make_replicas: MakeReplicas, clock: ManualClock
) -> None:
    table = AllowanceTable(
        agents={"reader": Allowance(concurrency=20, budgets=(BudgetRule(window="day", nanousd=BUDGET),))}
    )
    (replica,) = (await make_replicas(redis_url, 1, table)).alive.values()
    (await replica.admit(act())).release()
    clock.advance(LEASE_S)
    (await replica.admit(act())).release()
    clock.advance(0.1)
    with pytest.raises(Refusal) as refusal:
        await replica.admit(act())
    assert refusal.value.code == "store_unavailable"
    assert (await refused(replica)).code == "store_unavailable"
    await replica.reserve(act(), TOOL)  # costs nothing, so no budget is asked
    (await replica.admit(act("unlimited"))).release()
    await replica.tick()
    (await replica.admit(act())).release()


async def test_a_redis_that_may_forget_counters_is_not_used(
    own_redis: RedisServer, make_replicas: MakeReplicas
) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        group = await make_replicas(own_redis.url, 1)
        (replica,) = group.alive.values()
        assert "maxmemory-policy" in (await refused(replica)).message
        client.config_set("maxmemory-policy", "noeviction")
    await group.tick()
    assert await group.call(replica, 1)


async def test_a_redis_that_is_set_to_forget_later_is_not_used_any_more_and_filled_anew(
    own_redis: RedisServer, make_replicas: MakeReplicas, clock: ManualClock
) -> None:
    group = await make_replicas(own_redis.url, 2)
    first, second = group.alive.values()
    assert await group.call(first, 400_000)
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "volatile-lru")
        clock.advance(10)
        await group.tick()
        for replica in (first, second):
            assert "maxmemory-policy" in (await refused(replica)).message
        for key in client.scan_iter("gw:{installation}:*nanousd*"):
            client.delete(key)  # as it may
        client.config_set("maxmemory-policy", "noeviction")
    await group.tick(3)
    assert (await refused(second, 700_000)).code == "budget_exhausted"
    assert await group.call(second, 500_000)


async def test_a_question_that_comes_late_is_not_heard(redis_url: str, make_replicas: MakeReplicas) -> None:
    group = await make_replicas(redis_url, 1)
    (replica,) = group.alive.values()
    assert await group.call(replica, 10)
    replica._exchange._seq = 0  # what it says from here on was said before
    assert (await refused(replica, 500_000)).code == "store_unavailable"


# ---------------------------------------------------------------- counted alone, and soft


async def test_a_limit_that_allows_it_is_counted_by_each_replica_alone_while_redis_is_away(
    own_redis: RedisServer, make_replicas: MakeReplicas, clock: ManualClock
) -> None:
    rule = BudgetRule(window="day", nanousd=BUDGET, on_unavailable="allow")
    allowance = Allowance(requests_per_minute=10, concurrency=2, budgets=(rule,), on_unavailable="allow")
    group = await make_replicas(own_redis.url, 2, AllowanceTable(agent_default=allowance))
    first, second = group.alive.values()
    assert await group.call(first, 300_000)
    await group.tick(2)
    own_redis.kill()
    clock.advance(LEASE_S + 1)
    for replica in (first, second):
        for _ in range(10):
            (await replica.admit(act())).release()
        with pytest.raises(Refusal) as refusal:
            await replica.admit(act())
        assert refusal.value.code == "rate_limited"
    assert await group.call(second, 700_001 + 300_000) is None
    assert await group.call(second, 1_000_000) or await group.call(second, 700_000)
    assert await group.call(first, 700_000)
    assert await group.call(first, 1) is None
    own_redis.start()
    await group.tick(4)
    assert first.away is None
    assert await group.call(second, 1) is None
    told = second.remaining("reader")["agent:reader"]
    assert told["budgets"][0]["left_nanousd"] == 0
    assert told["requests_per_minute"]["left"] == 0


async def test_a_soft_budget_that_all_pass_together_is_told_once(redis_url: str, make_replicas: MakeReplicas) -> None:
    group = await make_replicas(redis_url, 3, budget(1_000, hard=False))
    told: list[SoftBudget] = []
    for replica in group.alive.values():
        replica.on_soft_budget = told.append
    for replica in group.alive.values():
        assert await group.call(replica, 400)
        group.settle(group.open[0], 400)
    await group.tick(3)
    (passed,) = told
    assert (passed.level, passed.nanousd, passed.limit_nanousd) == ("agent:reader", 1_200, 1_000)
    assert passed.sentence.startswith("agent:reader has passed its soft budget of day:2026-11-22: 0.0000012 USD of ")
    for replica in group.alive.values():
        (shown,) = replica.remaining("reader")["agent:reader"]["budgets"]
        assert (shown["hard"], shown["passed"], shown["left_nanousd"]) == (False, True, 0)
        assert await group.call(replica, 10**9)  # nothing is refused
