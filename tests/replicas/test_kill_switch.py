"""An agent that is suspended at one replica is stopped at the other within a second, whatever has failed meanwhile."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import httpx
import pytest

from gateway.actions import AgentStatus
from gateway.quickstart.servers import RedisServer
from gateway.store.postgres import replicas as rows
from gateway.store.postgres.beside import Beside
from tests.e2e.wiretap import Wiretap
from tests.invariants.counter import is_paid
from tests.replicas.house import Pair, code_of, pay, until

SOON_S = 1.0
ANSWERED_S = 10.0  # where nothing can be asked: refused, and not left hanging
STORY = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "Tell me a long story."}]}


async def suspend(pair: Pair) -> float:
    """Suspend the agent at the first; when that was answered."""
    async with pair.one.running.operator() as operator:
        said = await operator.post("/api/v1/agents/reader/suspend", json={"reason": "a drill"})
        assert said.status_code == 200, said.text
    return time.monotonic()


async def streaming(pair: Pair, agent: httpx.AsyncClient) -> asyncio.Task[httpx.Response]:
    """A stream of a long answer that has begun at the other."""
    stream = asyncio.create_task(agent.post("/v1/chat/completions", json=STORY))
    governor = pair.other.running.app.governor

    async def streams() -> bool:
        return governor.open_streams == 1

    await until(streams, "a stream at the other")
    return stream


@pytest.mark.parametrize("fault", ["killed", "paused"])
async def test_it_holds_within_a_second_while_redis_is_away(apart: Pair, own_redis: RedisServer, fault: str) -> None:
    _, there = await apart.key()
    stream = await streaming(apart, there)
    await asyncio.to_thread(own_redis.kill if fault == "killed" else own_redis.pause)
    since_s = await suspend(apart)

    async def is_refused() -> bool:
        return (await there.get("/v1/models")).status_code in (403, 503)

    ended = await asyncio.wait_for(stream, SOON_S)
    await until(is_refused, "a refusal at the other", SOON_S)
    assert time.monotonic() - since_s < SOON_S
    assert '"agent_suspended"' in ended.text


async def test_it_holds_while_a_dead_replica_can_not_be_buried_for_want_of_redis(
    apart: Pair, own_redis: RedisServer
) -> None:
    """What has to be given back of a dead one's limits is tried again and again; nothing waits for that."""
    dead = Beside(apart.database_url, name="test")
    await asyncio.to_thread(own_redis.pause)
    await asyncio.to_thread(dead.run, lambda c: rows.register(c, "dead", name="dead", version="0"))
    await asyncio.to_thread(dead.run, lambda c: rows.end(c, "dead"))
    await asyncio.to_thread(dead.close)
    agents = apart.other.running.app.registry.agents

    async def is_so(status: AgentStatus) -> bool:
        found = agents.get("reader")
        return found is not None and found.status is status

    async with apart.one.running.operator() as operator:
        for _ in range(3):  # each right after the other has looked
            for act, status in (("suspend", AgentStatus.SUSPENDED), ("resume", AgentStatus.ACTIVE)):
                said = await operator.post(f"/api/v1/agents/reader/{act}", json={"reason": "a drill"})
                assert said.status_code == 200, said.text
                await until(partial(is_so, status), f"the other has heard: {act}", SOON_S)


@pytest.mark.parametrize("fault", ["cut", "stalled"])
async def test_who_can_not_ask_whether_it_holds_goes_on_with_nothing(tapped: tuple[Pair, Wiretap], fault: str) -> None:
    """The other can't reach PostgreSQL: whether or not it has heard, it begins no call of the agent's any more."""
    pair, line = tapped
    here, there = await pair.key()
    assert is_paid(await pay(pair.other, there, f"before-{fault}", 1))
    stream = await streaming(pair, there)
    if fault == "cut":
        line.cut()
    else:
        line.stall()
    await suspend(pair)
    ended = await asyncio.wait_for(stream, ANSWERED_S)
    assert '"store_unavailable"' in ended.text
    assert "as it seems" in ended.text
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}
    asked, told = await asyncio.wait_for(
        asyncio.gather(there.post("/v1/chat/completions", json=body), pay(pair.other, there, f"after-{fault}", 1)),
        ANSWERED_S,
    )
    assert (asked.status_code, asked.json()["error"]["code"]) == (503, "audit_unavailable")
    assert code_of(told) in ("audit_unavailable", "store_unavailable")
    assert code_of(await pay(pair.one, here, f"after-{fault}", 1)) == "agent_suspended"
    assert pair.paid(f"after-{fault}") == 0
