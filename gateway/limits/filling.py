"""Filling Redis from what the database and the replicas know, after it was emptied, restarted or replaced.

A filling is named by the server's own run and a random part. Nothing is granted before it is complete: what ended
replicas spent stands in it (from the database), and every replica that the database calls alive has told what it
holds. A server that came back with an older state of its own has another run, and so is filled again too. Every
counter has the filling's name in its key, so that nothing of an earlier one is ever counted.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec
import structlog

from gateway.limits.exchange import Correction, Counter, Exchange, life_s
from gateway.limits.interface import SpendRow
from gateway.limits.scripts import COMPLETE
from gateway.limits.spend import ReplicaSpend

_CANDIDATE_S = 10
_JOINED_S = 60
_PAGE = 1_000
_NAMED = 3  # of those that are waited for

log = structlog.get_logger("gateway.limits")

ReadAll = Callable[[], Awaitable[Iterable[ReplicaSpend]]]
"""What each replica has spent in the windows of now."""

Holds = Callable[[bool], tuple[list[tuple[Counter, int]], list[Correction]]]
"""All that this replica holds, and has taken in this minute; of the latter, unless it is the first telling, what is
new."""

_decode = msgspec.json.Decoder(tuple[str, str, str, str]).decode


class Filling:
    """One replica's part in it."""

    def __init__(
        self,
        exchange: Exchange,
        *,
        read_all: ReadAll,
        live: Callable[[], Awaitable[set[str]]],
        holds: Holds,
        now_s: Callable[[], int],
    ) -> None:
        self.waits_for = "Redis was not asked yet"
        """Why this replica has not joined."""
        self._exchange = exchange
        self._redis: Any = exchange.redis
        self._read_all = read_all
        self._live = live
        self._holds = holds
        self._now_s = now_s
        self._told: str | None = None  # the candidate that was told what this replica holds
        self._complete = self._redis.register_script(COMPLETE)

    async def join(self) -> bool:
        """Whether this replica has joined the filling of now. Raises AwayError, RedisError, and Refusal without the
        database."""
        run = str((await self._redis.info("server"))["run_id"])
        if not await self.is_kept():
            return False
        alive = await self._live()
        if self._exchange.replica not in alive:
            # What it told this Redis would be given back by nobody: it was ended, and that was told already.
            self.waits_for = "this replica was ended by another"
            return False
        current = await self._redis.get(self._exchange.key("generation"))
        if current is not None and current.startswith(run):
            self._exchange.generation = current
            return True
        candidate = await self._fill(run, alive)
        if candidate is None:
            return False
        self._exchange.generation = candidate
        if current is not None:
            log.warning("limits_refilled", because="Redis was restarted or replaced")
            await self._forget(current)
        return True

    async def is_kept(self) -> bool:
        """Whether Redis keeps what it is told. Raises RedisError.

        Where it may not, the filling of now is given up at all replicas, since part of it may be gone.
        """
        memory = await self._redis.info("memory")
        if not int(memory.get("maxmemory", 0)) or memory.get("maxmemory_policy") == "noeviction":
            return True
        self.waits_for = "Redis may forget counters to save memory; set its maxmemory-policy to noeviction"
        await self._redis.delete(self._exchange.key("generation"))
        self._exchange.generation = None
        return False

    async def _fill(self, run: str, alive: set[str]) -> str | None:
        """Tell what this replica holds; the last one that does completes the filling. Its name, once it is complete."""
        await self._redis.set(self._exchange.key("next"), f"{run}-{secrets.token_hex(8)}", nx=True, ex=_CANDIDATE_S)
        candidate: str | None = await self._redis.get(self._exchange.key("next"))
        if candidate is None or not candidate.startswith(run):  # one of the server's former run, which nobody completes
            await self._redis.delete(self._exchange.key("next"))
            self.waits_for = "Redis was restarted just now"
            return None
        facts, taken = self._holds(candidate != self._told)
        await self._exchange.tell(facts, taken, self._now_s(), candidate=candidate)
        self._told = candidate
        joined = self._exchange.key("joined", candidate)
        await self._redis.sadd(joined, self._exchange.replica)
        await self._redis.expire(joined, _JOINED_S)
        there = await self._redis.smembers(joined)
        if not alive <= there:
            self.waits_for = _waits_for(alive - there)
            return None
        rows = [row for row in await self._read_all() if row[3] not in alive]
        for replica in there - alive:  # it has told, and was ended since
            spent = [(tenant, level, window, usd, n) for tenant, level, window, one, usd, n in rows if one == replica]
            await self.correct(candidate, replica, spent)
        await self._write(candidate, rows)
        keys = [self._exchange.key("generation"), self._exchange.key("next"), joined]
        if not await self._complete(keys=keys, args=[candidate, len(there)]):
            self.waits_for = "others complete it just now, or have begun again"
            return None
        log.info("limits_filled", replicas=len(alive))
        return candidate

    async def ended(self, replica: str, rows: Sequence[SpendRow]) -> None:
        """A replica holds what it spent, and nothing else; in the filling of now, and in the one being made."""
        await self._exchange.silence(replica)
        for place in ("generation", "next"):
            generation = await self._redis.get(self._exchange.key(place))
            if generation is not None:
                await self.correct(generation, replica, rows)

    async def correct(self, generation: str, replica: str, rows: Sequence[SpendRow]) -> None:
        """Set what an ended replica holds in a filling to what it spent, and at no moment to less."""
        await self._exchange.silence(replica)
        spent = [(*row[:3], replica, *row[3:]) for row in rows]
        await self._write(generation, spent)
        stays = {counter for row in spent for counter, _ in _counted(row)}
        pattern = self._exchange.key(generation, "*")
        page: list[str] = []
        async for found in self._redis.scan_iter(match=pattern, count=_PAGE):
            counter = Counter(*_decode(found[len(self._exchange.key(generation, "")) :]))
            if counter not in stays and not counter.counter.endswith("_per_minute"):
                page.append(found)
            if len(page) >= _PAGE:
                await self._drop(page, replica)
                page = []
        await self._drop(page, replica)

    async def _drop(self, places: list[str], replica: str) -> None:
        pipe = self._redis.pipeline(transaction=False)
        for place in places:
            pipe.hdel(place, replica)
        await pipe.execute()

    async def _write(self, generation: str, rows: Iterable[ReplicaSpend]) -> None:
        pipe = self._redis.pipeline(transaction=False)
        for row in rows:
            for counter, value in _counted(row):
                pipe.hset(self._exchange.counter_key(generation, counter), row[3], str(value))
                pipe.expire(self._exchange.counter_key(generation, counter), life_s(counter))
            if len(pipe) >= _PAGE:
                await pipe.execute()
        await pipe.execute()

    async def _forget(self, generation: str) -> None:
        """What another run of the server knew is in nobody's way, only in the memory."""
        pattern = self._exchange.key(generation, "*")
        async for found in self._redis.scan_iter(match=pattern, count=_PAGE):
            await self._redis.unlink(found)


def _waits_for(silent: set[str]) -> str:
    """Why nobody completes a filling. One that ended is not waited for; so one that lasts asks another Redis."""
    names = sorted(silent)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    who = ", ".join(names[:_NAMED]) + more
    told = "replica has not told yet what it holds" if len(names) == 1 else "replicas have not told yet what they hold"
    return (
        f"{len(names)} {told} of the limits ({who}); if that lasts, check that GATEWAY_REDIS_URL is the same at all "
        "replicas"
    )


def _counted(row: ReplicaSpend) -> list[tuple[Counter, int]]:
    """The counters that a row of table `spend` stands for, and what it says of each; nothing is no counter."""
    tenant, level, window, _, nanousd, tokens = row
    return [
        (Counter(tenant, level, counter, window), value)
        for unit, value in (("nanousd", nanousd), ("tokens", tokens))
        for counter in (unit, f"booked_{unit}")
        if value
    ]
