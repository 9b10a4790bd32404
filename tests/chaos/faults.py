"""What goes wrong: each is done to a house under load, and returns when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import redis

from gateway.quickstart.child import Server
from gateway.quickstart.topology import GatewayServer, Topology

Fault = Callable[[Topology], Awaitable[None]]
STANDS_STILL_S = 4.0
LONGER_THAN_ANY_LEASE_S = 9.0
_PATIENCE_S = 30.0


async def postgres_killed(topology: Topology) -> None:
    await _kill_and_start(topology.postgres)


async def postgres_paused(topology: Topology) -> None:
    await _pause(topology.postgres)


async def postgres_paused_for_long(topology: Topology) -> None:
    """Longer than a replica may be silent; but it was the database's silence, and nobody is to be ended for it."""
    await _pause(topology.postgres, LONGER_THAN_ANY_LEASE_S)


async def redis_killed(topology: Topology) -> None:
    await _kill_and_start(topology.redis)


async def redis_paused(topology: Topology) -> None:
    await _pause(topology.redis)


async def redis_away_for_long(topology: Topology) -> None:
    """Longer than what was granted is good for."""
    await asyncio.to_thread(topology.redis.kill)
    await asyncio.sleep(LONGER_THAN_ANY_LEASE_S)
    await asyncio.to_thread(topology.redis.start)


async def redis_emptied(topology: Topology) -> None:
    with redis.Redis.from_url(topology.redis.url) as client:
        await asyncio.to_thread(client.flushall)


async def opa_killed(topology: Topology) -> None:
    assert topology.opa is not None
    await _kill_and_start(topology.opa)


async def opa_paused(topology: Topology) -> None:
    assert topology.opa is not None
    await _pause(topology.opa)


async def replica_killed(topology: Topology) -> None:
    await _kill_and_start(topology.gateways[0])


async def replica_paused(topology: Topology) -> None:
    """So long that the other one ends it: then it can make nothing durable, and its process makes room."""
    paused = topology.gateways[1]
    name = f"/{paused.pid}"
    paused.pause()
    await asyncio.sleep(LONGER_THAN_ANY_LEASE_S)

    async def ask() -> dict[str, Any]:
        return await asyncio.to_thread(_replica, topology, name)

    async with asyncio.timeout(_PATIENCE_S):
        while not (found := await ask())["released"]:
            await asyncio.sleep(0.1)
    assert found["ended"]
    wrote = found["records"]
    await _wakes_and_ends(paused)
    after = await ask()
    assert after["records"] == wrote, "what was ended has written"
    assert not after["open"]
    await asyncio.to_thread(paused.start)


async def all_killed(topology: Topology) -> None:
    """The power is gone."""
    dying: list[Server] = [*topology.gateways, topology.postgres, topology.redis]
    await asyncio.gather(*(asyncio.to_thread(server.kill) for server in dying))
    for server in reversed(dying):
        await asyncio.to_thread(server.start)


async def replicas_replaced(topology: Topology) -> None:
    """A rolling restart: each is told to stop, ends what runs, and is there again before the next one goes."""
    for gateway in topology.gateways:
        await asyncio.to_thread(gateway.restart)


FAULTS: tuple[Fault, ...] = (
    postgres_killed,
    postgres_paused,
    postgres_paused_for_long,
    redis_killed,
    redis_paused,
    redis_away_for_long,
    redis_emptied,
    opa_killed,
    opa_paused,
    replica_killed,
    replica_paused,
    all_killed,
)
CUTTING: tuple[Fault, ...] = (replica_killed, replica_paused, all_killed)
"""Those that end a gateway in the middle of answers."""


async def _kill_and_start(server: Server) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


async def _pause(server: Server, seconds: float = STANDS_STILL_S) -> None:
    server.pause()
    try:
        await asyncio.sleep(seconds)
    finally:
        server.resume()


async def _wakes_and_ends(gateway: GatewayServer) -> None:
    gateway.resume()
    async with asyncio.timeout(_PATIENCE_S):
        while gateway.runs:
            await asyncio.sleep(0.1)


def _replica(topology: Topology, name: str) -> dict[str, Any]:
    """The row of a replica, how many of the records are its own, and how many of its intents are open."""
    with psycopg.connect(topology.postgres.url) as database:
        row = database.execute(
            b"SELECT id, ended_ns IS NOT NULL, released = 1 FROM replica WHERE name LIKE %s", (f"%{name}",)
        ).fetchone()
        assert row is not None
        written = database.execute(
            b"SELECT count(*) FROM (SELECT body FROM leaf UNION ALL SELECT body FROM ingest) AS record"
            b" WHERE convert_from(body, 'UTF8')::json -> 'writer' ->> 'id' = %s",
            (row[0],),
        ).fetchone()
        left = database.execute(b"SELECT count(*) FROM open_intent WHERE replica = %s", (row[0],)).fetchone()
    assert written is not None
    assert left is not None
    return {"ended": row[1], "released": row[2], "records": written[0], "open": left[0]}
