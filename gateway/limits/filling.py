"""Filling Redis from what the database and the replicas know, after it was emptied, restarted or replaced.

A filling is named by the server's own run and a random part. Nothing is granted before it is complete: what ended
replicas spent stands in it (from the database), and every replica that the database calls alive has told what it
holds. A server that came back with an older state of its own has another run, and so is filled again too.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import structlog

from gateway.limits.spend import ReplicaSpend

_CANDIDATE_S = 10
_JOINED_S = 60
_LIFE_S = 40 * 86_400
_TENANT = "default"

# KEYS: generation, next, joined. ARGV: candidate, how many have to have joined.
_COMPLETE = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] or redis.call('SCARD', KEYS[3]) < tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return 1
"""

log = structlog.get_logger("gateway.limits")


def key(*parts: str, tenant: str = _TENANT) -> str:
    """A key of a tenant; all of them live on one node of a cluster."""
    return ":".join((f"gw:{{{tenant}}}", *parts))


class Filling:
    """One replica's part in it."""

    def __init__(
        self,
        redis: Any,
        replica: str,
        *,
        read_all: Callable[[], Awaitable[Iterable[ReplicaSpend]]],
        live: Callable[[], Awaitable[set[str]]],
        holds: Callable[[], dict[str, int]],
    ) -> None:
        """`holds`: what this replica holds now, by key."""
        self.generation: str | None = None
        """The filling that this replica has joined; None: nothing may be asked for."""
        self.waits_for = "Redis was not asked yet"
        self._redis = redis
        self._replica = replica
        self._read_all = read_all
        self._live = live
        self._holds = holds
        self._own: str | None = None  # the candidate that this replica made
        self._complete = redis.register_script(_COMPLETE)

    async def join(self) -> bool:
        """Whether this replica has joined the filling of now. Raises RedisError, and Refusal without the database."""
        run = str((await self._redis.info("server"))["run_id"])
        current = await self._redis.get(key("generation"))
        if current is not None and current.startswith(run):
            if current != self.generation:
                await self._tell()
                self.generation = current
            return True
        self.generation = None
        if current is not None:
            await self._forget(current)
        return await self._fill(run)

    async def _forget(self, stale: str) -> None:
        """What another run of the server knew is not what is true now."""
        log.warning("limits_refilled", because="Redis was restarted or replaced")
        async for found in self._redis.scan_iter(match=key("*").replace("{", "\\{").replace("}", "\\}"), count=500):
            if found not in (key("generation"), key("next")) and not found.startswith(key("joined")):
                await self._redis.delete(found)
        if await self._redis.get(key("generation")) == stale:
            await self._redis.delete(key("generation"))

    async def _fill(self, run: str) -> bool:
        mine = self._own if self._own is not None and self._own.startswith(run) else f"{run}:{secrets.token_hex(8)}"
        if await self._redis.set(key("next"), mine, nx=True, ex=_CANDIDATE_S):
            self._own = mine
        candidate = await self._redis.get(key("next"))
        if candidate is None:
            return False
        await self._tell()
        joined = key("joined", candidate)
        await self._redis.sadd(joined, self._replica)
        await self._redis.expire(joined, _JOINED_S)
        if candidate != self._own:
            self.waits_for = "Redis is being filled again from the database"
            return False
        alive = await self._live()
        for tenant, level, window, replica, usd, tokens in await self._read_all():
            if replica not in alive and tenant == _TENANT:
                await self._spent(level, window, replica, usd, tokens)
        there = await self._redis.smembers(joined)
        if not alive <= there:
            self.waits_for = f"{len(alive - there)} replicas have not told yet what they hold of the limits"
            return False
        if not await self._complete(keys=[key("generation"), key("next"), joined], args=[candidate, len(alive)]):
            return False
        log.info("limits_filled", replicas=len(alive))
        self.generation, self._own = candidate, None
        return True

    async def _spent(self, level: str, window: str, replica: str, usd: int, tokens: int) -> None:
        name = window.partition(":")[0]
        for counter, value in ((f"{name}_nanousd", usd), (f"{name}_tokens", tokens)):
            if value:
                place = key("g", f"{level}|{counter}|{window}")
                await self._redis.hset(place, replica, str(value))
                await self._redis.expire(place, _LIFE_S)

    async def _tell(self) -> None:
        """What this replica holds, as a fact: it was granted before."""
        for place, value in self._holds().items():
            if value:
                await self._redis.hset(place, self._replica, str(value))
                await self._redis.sadd(key("of", self._replica), place)
                await self._redis.expire(place, _LIFE_S)
            else:
                await self._redis.hdel(place, self._replica)
