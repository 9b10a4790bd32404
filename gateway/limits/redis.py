"""Limits that replicas share through Redis, spent by leases: one trip for a block, not one for each request.

Each replica holds grants: of every limited counter of every level, how much it may use in all. What a replica has
booked and holds never exceeds its grant, and grants together never exceed the limit, so that N replicas and M
concurrent calls cannot overspend. Grants are absolute numbers: telling Redis twice, or an answer that was lost, does no
harm. Only the database says that a replica is dead; before that nobody takes its grants.

Fails closed: where Redis can't be reached, or has lost what it knew, nothing more is granted; what was granted is good
as long as this replica could renew it within `LEASE_S`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.actions import Action, Cost, Reservation, Target
from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.limits.allowance import AllowanceTable
from gateway.limits.filling import Filling, key
from gateway.limits.interface import Persist, SpendRow
from gateway.limits.memory import MemoryAdmission, MemoryLimits, bound_of
from gateway.limits.scripts import EXTEND, TELL
from gateway.limits.shared_account import GRANTS, SharedAccount
from gateway.limits.spend import ReplicaSpend, add_nothing, add_spend
from gateway.limits.windows import NS_PER_S, windows_at

LEASE_S = 5.0
TIMEOUT_S = 1.0
_TRIES = 8
_LIFE_S = 40 * 86_400  # of a window's counters, and a little over a month
_MINUTE_LIFE_S = 90
_PARTS = {"concurrency": 10, "minute_requests": 60, "minute_tokens": 60}  # a block is this part of the limit
_PART = 50

log = structlog.get_logger("gateway.limits")


class Wanted(NamedTuple):
    """What is missing in one counter of one account."""

    account: SharedAccount
    counter: str
    need: int


class RedisLimits(MemoryLimits):
    """One replica's share of the limits. Belongs to the event loop's thread. Call `start`, then `tick` about twice a
    second, at the end `close`."""

    def __init__(
        self,
        url: str,
        *,
        replica: str,
        clock: Clock,
        read_all: Callable[[], Awaitable[Iterable[ReplicaSpend]]],
        live: Callable[[], Awaitable[set[str]]],
        table: AllowanceTable | None = None,
    ) -> None:
        """`read_all` reads what every replica has spent, `live` names those that nobody has ended (the database)."""
        super().__init__(clock, table)
        self.away: str | None = "Redis was not asked yet"
        """Why nothing more is granted just now; None while all is well."""
        self._replica = replica
        self._redis: Any = Redis.from_url(
            url, decode_responses=True, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
        )
        self._extend_script = self._redis.register_script(EXTEND)
        self._tell_script = self._redis.register_script(TELL)
        self._filling = Filling(self._redis, replica, read_all=read_all, live=live, holds=self._grants)
        self._turn_lock = asyncio.Lock()  # one question at a time: grants are absolute
        self._renewed_s = float("-inf")

    # ------------------------------------------------------------ the path

    async def admit(self, action: Action) -> MemoryAdmission:
        """See `Limits.admit`. Raises `store_unavailable` too."""
        accounts = self._shared(action)
        for _ in range(_TRIES):
            now_s = self._now_s()
            wanted = [
                Wanted(account, counter, 1)
                for account in accounts
                for counter, is_full in (
                    ("concurrency", account.in_flight >= account.concurrency),
                    ("minute_requests", account.requests.used(now_s) >= account.minute_requests),
                )
                if is_full and account.limits[counter] is not None
            ]
            if not wanted:
                self._renewed_or_refuse(accounts)
                for account in accounts:
                    account.active = True
                    account.in_flight += 1
                    if account.limits["minute_requests"] is not None:
                        account.requests.take(now_s, 1)
                return MemoryAdmission(accounts, self._clock)
            await self._ask(wanted)
        raise _unavailable("too many calls want the same at once")

    async def reserve(self, action: Action, target: Target) -> Reservation:
        """See `Limits.reserve`. Raises `store_unavailable` too."""
        open_one = self._open.get(action.id)
        if open_one is not None:
            return open_one.reservation
        accounts = self._shared(action)
        bound = bound_of(action, target, accounts)
        nanousd = bound.nanousd
        tokens = bound.input_tokens + bound.output_tokens
        for _ in range(_TRIES):
            self._turn()
            now_s = self._now_s()
            wanted = []
            for account in accounts:
                account.turn(self._windows)
                for counter, amount in (
                    ("day_nanousd", nanousd),
                    ("month_nanousd", nanousd),
                    ("day_tokens", tokens),
                    ("month_tokens", tokens),
                ):
                    short = account.used(counter) + amount - getattr(account, counter)
                    if amount and short > 0 and account.limits[counter] is not None:
                        wanted.append(Wanted(account, counter, short))
                if (
                    tokens
                    and account.limits["minute_tokens"] is not None
                    and account.tokens.used(now_s) + tokens > account.minute_tokens
                ):
                    wanted.append(Wanted(account, "minute_tokens", tokens))
            if not wanted:
                self._renewed_or_refuse(accounts)
                for account in accounts:
                    account.active = True
                return self._hold(action, accounts, bound, now_s)
            await self._ask(wanted, {"nanousd": nanousd, "tokens": tokens})
        raise _unavailable("too many calls want the same at once")

    def settle(self, reservation: Reservation, cost: Cost) -> Persist:
        """See `Limits.settle`. Redis is told with the next tick."""
        persist = super().settle(reservation, cost)
        if persist is add_nothing:
            return persist
        assert isinstance(persist, partial)
        return partial(add_spend, *persist.args, replica=self._replica)

    def persist_unknown(
        self, reservation: Reservation, now_ns: int, *, tenant: str = "default", replica: str = ""
    ) -> Persist:
        """See `Limits.persist_unknown`; of another replica's reservation only its rows on disk are told."""
        open_one = self._open.get(reservation.id)
        if open_one is not None:
            return self.settle(open_one.reservation, Cost(nanousd=open_one.reservation.nanousd, estimated=True))
        if not (reservation.nanousd or reservation.tokens):
            return add_nothing
        windows = windows_at(now_ns)
        rows: list[SpendRow] = [
            (tenant, level, window, reservation.nanousd, reservation.tokens)
            for level in reservation.levels
            for window in (windows.day, windows.month)
        ]
        return partial(add_spend, rows, replica=replica)

    def restore(self, rows: Iterable[SpendRow]) -> None:
        """See `Limits.restore`: a replica begins with nothing spent; what others spent stands in Redis."""

    # ------------------------------------------------------------ asking Redis

    async def _ask(self, wanted: Sequence[Wanted], amounts: dict[str, int] | None = None) -> None:
        """Have what is missing granted in all counters at once. Raises the refusal of the first without room."""
        generation = self._filling.generation
        if generation is None:
            raise _unavailable(self.away or "its counters are being filled again")
        async with self._turn_lock:
            still = [one for one in wanted if self._is_short(one)]
            if len(still) != len(wanted):  # somebody's block was enough for this one too: look again
                return
            await self._tell_back(wanted)
            now_s = self._now_s()
            tenant = wanted[0].account.tenant
            keys = [key("generation", tenant=tenant), key("of", self._replica, tenant=tenant)]
            values: list[Any] = [generation, self._replica, now_s]
            for account, counter, need in wanted:
                limit = account.limits[counter] or 0
                is_minute = counter.startswith("minute")
                keys.append(_counter_key(account, counter))
                block = limit // _PARTS.get(counter, _PART)
                mine = 0 if is_minute else getattr(account, counter)
                values += ["minute" if is_minute else "grant", limit, mine, need, need + block]
                values.append(_MINUTE_LIFE_S if is_minute else _LIFE_S)
            answer = await self._run(self._extend_script, keys, values)
            if answer[0] == "ok":
                for index, (account, counter, _) in enumerate(wanted):
                    granted, others = int(answer[1 + 2 * index]), int(answer[2 + 2 * index])
                    self._grant(account, counter, granted, others, now_s)
                return
        _, index, others, wait_s = answer
        account, counter, need = wanted[int(index)]
        if counter.startswith("minute"):
            minute = account.requests if counter == "minute_requests" else account.tokens
            minute.shared, minute.shared_s = int(others), now_s
        else:
            account.others[counter] = int(others)
        kind = counter.partition("_")[2]
        raise account.refuse(counter, (amounts or {}).get(kind, need), int(wait_s), now_s, self._windows)

    def _is_short(self, one: Wanted) -> bool:
        account, counter, need = one
        now_s = self._now_s()
        if counter == "concurrency":
            return account.in_flight >= account.concurrency
        if counter == "minute_requests":
            return account.requests.used(now_s) >= account.minute_requests
        if counter == "minute_tokens":
            return account.tokens.used(now_s) + need > account.minute_tokens
        return True  # of budgets the shortage is exact; one that is met meanwhile only makes the block larger

    def _grant(self, account: SharedAccount, counter: str, granted: int, others: int, now_s: int) -> None:
        if counter.startswith("minute"):
            minute = account.requests if counter == "minute_requests" else account.tokens
            minute.granted(now_s, granted, others)
            return
        setattr(account, counter, getattr(account, counter) + granted)
        account.others[counter] = others

    async def _tell_back(self, wanted: Sequence[Wanted]) -> None:
        """What was taken ahead in an earlier second and not used goes back first, or it would be missing here."""
        now_s = self._now_s()
        told = []
        for account in {id(one.account): one.account for one in wanted}.values():
            for minute in (account.requests, account.tokens):
                if minute.second != now_s:
                    minute.give_back()
            if account.requests.back or account.tokens.back:
                told.append(account)
        if told:
            await self._tell(told, grants=False)

    async def _tell(self, accounts: Sequence[SharedAccount], *, grants: bool) -> None:
        """Tell what this replica holds of these accounts, and hear what the others hold. The lock is held."""
        for tenant in {account.tenant for account in accounts}:
            keys = [key("generation", tenant=tenant), key("of", self._replica, tenant=tenant)]
            values: list[Any] = [self._filling.generation or "", self._replica]
            heard: list[tuple[SharedAccount, str] | None] = []
            for account in accounts:
                if account.tenant != tenant:
                    continue
                for counter, minute in (("minute_requests", account.requests), ("minute_tokens", account.tokens)):
                    back, minute.back = minute.back, []
                    for second, amount in back:
                        keys.append(_counter_key(account, counter))
                        values += ["minute", amount, second, _MINUTE_LIFE_S]
                        heard.append(None)
                for counter in GRANTS if grants else ():
                    if account.limits[counter] is not None:
                        keys.append(_counter_key(account, counter))
                        values += ["grant", self._lowered(account, counter), 0, _LIFE_S]
                        heard.append((account, counter))
            if not heard:
                continue
            answer = await self._run(self._tell_script, keys, values)
            for one, others in zip(heard, answer[1:], strict=True):
                if one is not None:
                    one[0].others[one[1]] = int(others)

    @staticmethod
    def _lowered(account: SharedAccount, counter: str) -> int:
        """The grant from now on: what is used, and a block only where it was lately. Lowered here before it is told."""
        used, granted = account.used(counter), getattr(account, counter)
        keep = (account.limits[counter] or 0) // _PARTS.get(counter, _PART) if account.active else 0
        value: int = max(used, min(granted, used + keep))
        setattr(account, counter, value)
        return value

    async def _run(self, script: Any, keys: list[str], values: list[Any]) -> list[Any]:
        try:
            answer: list[Any] = await script(keys=keys, args=values)
        except (RedisError, OSError, TimeoutError) as error:
            self._lost(error)
            raise _unavailable(self.away or "it did not answer") from error
        if answer[0] == "away":
            self._filling.generation = None
            self.away = "Redis has lost its counters, and they are being filled again from the database"
            raise _unavailable(self.away)
        return answer

    def _lost(self, error: Exception) -> None:
        reason = f"Redis can't be reached ({type(error).__name__})"
        if self.away != reason:
            log.warning("limits_away", reason=reason)
        self.away = reason

    def _renewed_or_refuse(self, accounts: Sequence[SharedAccount]) -> None:
        """Leases that could not be renewed for long are not used: somebody may count this replica as dead."""
        if self._clock.monotonic_s() - self._renewed_s <= LEASE_S:
            return
        if any(limit is not None for account in accounts for limit in account.limits.values()):
            raise _unavailable(self.away or "its counters were not renewed")

    # ------------------------------------------------------------ beside the path

    async def start(self) -> None:
        """Join the others. Where Redis is away it is tried again with each tick."""
        await self.tick()

    async def tick(self) -> None:
        """Renew: tell what is held, return what is not used, learn what the others hold. Raises nothing."""
        try:
            async with self._turn_lock:
                if not await self._filling.join():
                    self.away = self._filling.waits_for
                    return
                self._turn()
                accounts = [one for one in self._all_accounts() if any(one.limits.values()) or one.limits]
                for account in accounts:
                    account.turn(self._windows)
                await self._tell(accounts, grants=True)
                for account in accounts:
                    account.active = False
        except (RedisError, OSError, TimeoutError) as error:
            self._lost(error)
            return
        except Refusal as refusal:
            log.warning("limits_tick", code=refusal.code, message=refusal.message)
            return
        if self.away is not None:
            log.info("limits_back")
        self.away = None
        self._renewed_s = self._clock.monotonic_s()

    async def ended(self, replica: str, rows: Iterable[SpendRow]) -> None:
        """A replica was ended and all it left open was booked: it holds what it spent, and nothing else.

        Raises Refusal(store_unavailable) where Redis can't be told; then it is to be told again.
        """
        spent = {(level, window): (usd, tokens) for _, level, window, usd, tokens in rows}
        try:
            for place in await self._redis.smembers(key("of", replica)):
                level, counter, window = place.partition("}:g:")[2].rsplit("|", 2)
                usd, tokens = spent.get((level, window), (0, 0))
                value = usd if counter.endswith("nanousd") else tokens if counter.endswith("tokens") else 0
                if value:
                    await self._redis.hset(place, replica, str(value))
                else:
                    await self._redis.hdel(place, replica)
            await self._redis.delete(key("of", replica))
        except (RedisError, OSError, TimeoutError) as error:
            self._lost(error)
            raise _unavailable(self.away or "it did not answer") from error

    async def close(self) -> None:
        """Give back what is not used, and close."""
        for account in self._all_accounts():
            account.active = False
        await self.tick()
        await self._redis.aclose()

    def _grants(self) -> dict[str, int]:
        """What this replica holds now, by key: told when Redis is filled again."""
        held = {}
        for account in self._all_accounts():
            for counter in GRANTS:
                if account.limits[counter] is not None:
                    held[_counter_key(account, counter)] = max(account.used(counter), getattr(account, counter))
        return held

    # ------------------------------------------------------------ accounts

    def _make(self, tenant: str, level: str, allowance: Any) -> SharedAccount:
        return SharedAccount(tenant, level, allowance, self._windows)

    def _shared(self, action: Action) -> tuple[SharedAccount, ...]:
        accounts: Any = self._accounts_of(action.caller)
        return tuple(accounts)

    def _all_accounts(self) -> list[SharedAccount]:
        accounts: list[Any] = [*self._agents.values(), *self._users.values()]
        return accounts

    def _now_s(self) -> int:
        return self._clock.now_ns() // NS_PER_S


def _counter_key(account: SharedAccount, counter: str) -> str:
    if counter.startswith("minute"):
        return key("m", f"{account.level}|{counter}", tenant=account.tenant)
    return key("g", f"{account.level}|{counter}|{account.window_of(counter)}", tenant=account.tenant)


def _unavailable(reason: str) -> Refusal:
    return Refusal(
        "store_unavailable",
        f"Limits can't be counted now, so nothing may be spent: {reason}; try again.",
        retry_after_s=2,
    )
