"""Limits that replicas share through Redis, spent by leases: one trip for a block, not one for each request.

Each replica holds grants: of every limited counter of every level, how much it may use in all. What a replica has
booked and holds never exceeds its grant, and grants together never exceed the limit, so that N replicas and M
concurrent calls cannot overspend. Grants are absolute numbers: telling Redis twice, or an answer that was lost, does no
harm. Only the database says that a replica is dead; before that nobody takes its grants.

Fails closed: where Redis can't be reached, or has lost what it knew, nothing more is granted; what was granted is good
as long as this replica could renew it within `LEASE_S`. A limit that says `on_unavailable: allow` is counted by each
replica for itself meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import cast

import structlog

from gateway.actions import Action, Cost, Reservation, Target
from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.limits.account import Account, Spend
from gateway.limits.admission import MemoryAdmission, rates_of
from gateway.limits.allowance import Allowance, AllowanceTable
from gateway.limits.bound import bound_of
from gateway.limits.exchange import FAULTS, AwayError, Correction, Counter, Exchange, NoRoom, fault
from gateway.limits.filling import Filling
from gateway.limits.interface import Persist, Rates, SpendRow
from gateway.limits.leases import RefusedMinute, SharedMinute
from gateway.limits.memory import MemoryLimits
from gateway.limits.shared_account import SharedAccount
from gateway.limits.spend import Booking, ReplicaSpend, add_nothing
from gateway.limits.telling import Telling, keep_more, taken_back
from gateway.limits.wanting import Missing, Wanted, missing_entry, missing_room, refusal_of, want_of
from gateway.limits.windows import NS_PER_S, windows_at

LEASE_S = 5.0
_TRIES = 8
_LOOK_S = 10.0  # whether Redis was set to forget
_SKEW_NS = 300 * NS_PER_S  # by so much another replica may be in the next window already

log = structlog.get_logger("gateway.limits")

ReadSpend = Callable[[Sequence[str]], Awaitable[Iterable[ReplicaSpend]]]
"""What each replica has spent in the windows of these names."""


class SharedAdmission(MemoryAdmission):
    """A place taken at every level of one replica."""

    __slots__ = ("_limits",)

    def __init__(self, accounts: tuple[SharedAccount, ...], limits: RedisLimits) -> None:
        super().__init__(accounts, limits.clock)
        self._limits = limits

    def release(self) -> None:
        """See `MemoryAdmission.release`."""
        self._limits.touch(self._accounts)
        super().release()

    def rates(self) -> Rates:
        """See `MemoryAdmission.rates`."""
        return rates_of(self._accounts, self._limits.now_s())


class RedisLimits(MemoryLimits):
    """One replica's share of the limits. Belongs to the event loop's thread. Call `of_installation`, then `start`, then
    `tick` about twice a second, at the end `close`."""

    def __init__(
        self,
        url: str,
        *,
        replica: str,
        clock: Clock,
        read_all: ReadSpend,
        live: Callable[[], Awaitable[set[str]]],
        table: AllowanceTable | None = None,
    ) -> None:
        """`read_all` reads the database; `live` names those replicas that may still hold something: not ended, or ended
        and not yet told of by `ended`."""
        super().__init__(clock, table)
        self.clock = clock
        self.away: str | None = "Redis was not asked yet"
        """Why nothing more is granted just now; None while all is well."""
        self._replica = replica
        self._read_all = read_all
        self._exchange = Exchange(url, replica)
        self._filling = Filling(self._exchange, read_all=self._read_now, live=live, holds=self._holds, now_s=self.now_s)
        self._lock = asyncio.Lock()  # one question at a time: grants are absolute
        self._renewed_s = self._looked_s = float("-inf")
        self._telling = Telling(self._exchange, self._accounts, lambda passed: self.on_soft_budget(passed))
        self._ticks = 0  # what was refused before one need not be refused after it
        self._is_alone = False  # somebody was let through that was counted here only

    # ------------------------------------------------------------ the path

    async def admit(self, action: Action) -> SharedAdmission:
        """See `Limits.admit`. Raises `store_unavailable` too."""
        now_s = self.now_s()
        accounts = _shared(self._accounts.of(action))
        if not self._is_renewed or missing_entry(accounts, now_s, False):
            now_s = await self._ask(
                lambda at_s, everything: missing_entry(_shared(self._accounts.of(action)), at_s, everything)
            )
            accounts = _shared(self._accounts.of(action))
        for account in accounts:
            account.active = True
            account.requests.take(now_s, 1)
            account.in_flight += 1
        return SharedAdmission(accounts, self)

    async def reserve(self, action: Action, target: Target) -> Reservation:
        """See `Limits.reserve`. Raises `store_unavailable` too."""
        if (open_one := self._open.get(action.id)) is not None:
            return open_one.reservation
        accounts, place = self._accounts_of(action, target)
        bound = bound_of(action, target, accounts)

        def missing(at_s: int, everything: bool) -> list[Wanted]:
            self._turn()
            accounts, place = self._accounts_of(action, target)
            tokens = bound.input_tokens + bound.output_tokens
            entered = None if place is None else cast("SharedAccount", place)
            return missing_room(_shared(accounts), entered, bound.nanousd, tokens, self._windows, at_s, everything)

        now_s = self.now_s()
        if not self._is_renewed or missing(now_s, False):
            now_s = await self._ask(missing)
            if (open_one := self._open.get(action.id)) is not None:
                return open_one.reservation
            accounts, place = self._accounts_of(action, target)
        for account in _shared(accounts):
            account.active = True
        return self._hold(action, accounts, place, bound, now_s)

    def settle(self, reservation: Reservation, cost: Cost) -> Persist:
        """See `Limits.settle`. Redis is told with the next tick."""
        held = self._open.get(reservation.id)
        if held is not None:
            self.touch(held.accounts)
        persist = super().settle(reservation, cost)
        if persist is add_nothing:
            return persist
        assert isinstance(persist, Booking)
        return Booking(persist.table, persist.rows, self._replica)

    def persist_unknown(
        self, reservation: Reservation, now_ns: int, *, tenant: str = "default", replica: str = ""
    ) -> Persist:
        """See `Limits.persist_unknown`; of another replica's reservation only its rows on disk are told."""
        if (open_one := self._open.get(reservation.id)) is not None:
            return self.settle(open_one.reservation, Cost(nanousd=open_one.reservation.nanousd, estimated=True))
        if not (reservation.nanousd or reservation.tokens):
            return add_nothing
        return Booking(self.spend_table, self._rows_of_unknown(reservation, now_ns, tenant), replica)

    def restore(self, rows: Iterable[SpendRow]) -> None:
        """See `Limits.restore`: a replica begins with nothing spent; what others spent stands in Redis."""

    def reconfigure(self, table: AllowanceTable) -> None:
        """See `Limits.reconfigure`."""
        super().reconfigure(table)
        self._telling.touch_all()

    # ------------------------------------------------------------ asking Redis

    async def _ask(self, missing: Missing) -> int:
        """Have what is missing granted in all counters at once; nothing can come between this and the next line.

        The second for which that holds. Raises the refusal of the first counter without room.
        """
        if self._does_answer():
            async with self._lock:
                for _ in range(_TRIES):
                    now_s = self.now_s()
                    wanted = missing(now_s, False)
                    if not wanted:
                        return now_s
                    if not self._does_answer():
                        break
                    self._refuse_again(wanted[0], now_s)
                    await self._extend(wanted, now_s)
                else:
                    raise _unavailable("too many calls want the same at once")
        return self._count_alone(missing)

    def _refuse_again(self, first: Wanted, now_s: int) -> None:
        """What was refused a moment ago is refused without a question: a flood of calls is no flood of questions.

        Only the first that is missing: of the next nobody knows whether it would be what is refused.
        """
        share = first.share
        if isinstance(share, SharedMinute):
            refused = share.refused
            if refused.second == now_s and 0 < refused.need <= first.need:
                raise refusal_of(first, share.wait_s(first.need, now_s), now_s)
        elif share.refused_at == self._ticks and 0 < share.refused_need <= first.need:
            raise refusal_of(first, 1, now_s)

    async def _extend(self, wanted: Sequence[Wanted], now_s: int) -> None:
        corrections = []
        for one in wanted:
            for minute in (one.account.requests, one.account.tokens):
                if minute is one.share or minute.second != now_s:
                    minute.give_back()
                corrections += taken_back(one.account, minute)
            self.touch((one.account,))
        wants = [want_of(one) for one in wanted]
        try:
            answer = await self._exchange.ask(wants, corrections, now_s)
        except AwayError as error:
            self._lost(str(error))
            keep_more([one.account for one in wanted], corrections)
            return
        if isinstance(answer, NoRoom):
            one = wanted[answer.item]
            if isinstance(one.share, SharedMinute):
                share = one.share
                share.others, share.others_s = max(0, answer.others - share.mine.used(now_s)), now_s
                share.refused = RefusedMinute(now_s, one.need, answer.others_open, answer.seconds)
                wait_s = share.wait_s(one.need, now_s)
            else:
                wait_s = 1
                one.share.others = answer.others
                one.share.refused_at, one.share.refused_need = self._ticks, one.need
            raise refusal_of(one, wait_s, now_s)
        for one, (granted, others) in zip(wanted, answer, strict=True):
            one.account.is_known = True
            if isinstance(one.share, SharedMinute):
                one.share.granted(now_s, granted, others)
            else:
                one.share.granted += granted
                one.share.others = others

    def _count_alone(self, missing: Missing) -> int:
        """Redis is away: what may be counted by this replica alone is, by its own use and what it knows of others.

        Leases that could not be renewed for long are not used either: somebody may count this replica as dead.
        """
        now_s = self.now_s()
        is_late = not self._is_renewed
        wanted = [one for one in missing(now_s, is_late) if one.need or is_late]
        if any(not one.share.alone for one in wanted):
            raise _unavailable(self.away or "its counters were not renewed")
        for one in wanted:
            share = one.share
            if isinstance(share, SharedMinute):
                assert share.limit is not None
                if share.all_used(now_s) + one.need > share.limit:
                    wait_s = share.mine.wait_s(now_s, one.need, share.limit)
                    raise refusal_of(one, wait_s, now_s)
            elif share.limit - share.others - share.granted < one.need:
                raise refusal_of(one, 1, now_s)
        for one in wanted:
            if isinstance(one.share, SharedMinute):
                one.share.granted_alone(now_s, one.need)
            else:
                one.share.granted += one.need
            self.touch((one.account,))
        if wanted and not self._is_alone:
            self._is_alone = True
            log.warning("limits_counted_alone", reason=self.away, level=wanted[0].account.level)
        return now_s

    def _lost(self, reason: str) -> None:
        if self.away != reason:
            log.warning("limits_away", reason=reason)
        self.away = reason

    def _does_answer(self) -> bool:
        """Whether Redis did when last asked, and not long ago."""
        return self.away is None and self._is_renewed

    @property
    def _is_renewed(self) -> bool:
        return self._clock.monotonic_s() - self._renewed_s <= LEASE_S

    # ------------------------------------------------------------ beside the path

    def of_installation(self, installation: str) -> None:
        """Say with whom counters are shared, before `start` and `ended`: with those of the same database.

        Who counts over another database knows of other spend, so its counters are none of this one's.
        """
        self._exchange.installation = installation

    async def start(self) -> None:
        """Join the others. Where Redis is away it is tried again with each tick."""
        await self.tick()

    async def tick(self) -> None:
        """Renew: tell what is held, return what is not used, learn what the others hold. Raises nothing."""
        began_s = self._clock.monotonic_s()
        try:
            async with self._lock:
                self._ticks += 1
                self._turn()
                self._accounts.sweep(self.now_s(), self._windows)
                if not await self._joined_and_told():
                    self._lost(self._filling.waits_for)
                    return
        except AwayError as error:
            self._lost(str(error))
            return
        except FAULTS as error:
            self._lost(fault(error))
            return
        except Refusal as refusal:
            self._lost(f"the database can't be read ({refusal.code})")
            return
        if self.away is not None:
            log.info("limits_back")
        self.away = None
        self._is_alone = False
        self._renewed_s = began_s

    async def _joined_and_told(self) -> bool:
        """Whether this replica is in the filling of now, and has told what it holds. The lock is held."""
        if self._exchange.generation is not None:
            if self._clock.monotonic_s() - self._looked_s >= _LOOK_S:
                self._looked_s = self._clock.monotonic_s()
                if not await self._filling.is_kept():
                    return False
            try:
                await self._telling.tell(self._windows, self.now_s())
                return True
            except AwayError:
                if self._exchange.generation is not None:
                    raise
        if not await self._filling.join():
            return False
        self._telling.touch_all()
        await self._telling.tell(self._windows, self.now_s())
        return True

    def _passed(self, account: Account, spend: Spend) -> None:
        """See `MemoryLimits._passed`: that is for all replicas together, so it is found with the next tick."""

    async def ended(self, replica: str, rows: Iterable[SpendRow]) -> None:
        """A replica was ended and all it left open was booked: it holds what it spent, and nothing else.

        Raises Refusal(store_unavailable) where Redis can't be told; then it is to be told again.
        """
        try:
            await self._filling.ended(replica, list(rows))
            self._ticks += 1  # what was refused before may fit now
        except FAULTS as error:
            self._lost(fault(error))
            raise _unavailable(self.away or "it did not answer") from error

    async def close(self) -> None:
        """Give back what is not used, and close."""
        for account in _shared(tuple(self._accounts)):
            account.active = False
        self._telling.touch_all()
        await self.tick()
        await self._exchange.redis.aclose()

    def window_names(self) -> tuple[str, ...]:
        """Of the windows that anybody may be spending in now."""
        names: dict[str, None] = {}
        for now_ns in (self._clock.now_ns(), self._clock.now_ns() + _SKEW_NS):
            windows = windows_at(now_ns, self._zone)
            names |= dict.fromkeys((windows.minute, windows.day, windows.month))
        return tuple(names)

    async def _read_now(self) -> Iterable[ReplicaSpend]:
        return await self._read_all(self.window_names())

    def _holds(self, is_first: bool) -> tuple[list[tuple[Counter, int]], list[Correction]]:
        self._turn()
        return self._telling.holds(is_first, self._windows, self.now_s())

    # ------------------------------------------------------------ accounts

    def touch(self, accounts: Iterable[Account]) -> None:
        """Something of these is to be told with the next tick."""
        self._telling.touch(accounts)

    def now_s(self) -> int:
        """The second that rates are counted in: replicas share the wall clock."""
        return self._clock.now_ns() // NS_PER_S

    def _now_s(self) -> int:
        return self.now_s()

    def _make(self, tenant: str, level: str, allowance: Allowance) -> SharedAccount:
        return SharedAccount(tenant, level, allowance, self._windows)


def _shared(accounts: tuple[Account, ...]) -> tuple[SharedAccount, ...]:
    """They are: `_make` makes no others."""
    return cast("tuple[SharedAccount, ...]", accounts)


def _unavailable(reason: str) -> Refusal:
    return Refusal(
        "store_unavailable",
        f"Limits can't be counted now, so nothing may be spent: {reason}; try again.",
        retry_after_s=2,
    )
