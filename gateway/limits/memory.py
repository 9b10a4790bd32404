"""Limits in the memory of one process: exact, because one thread asks and nothing here waits.

Nothing is awaited between a check and its effect, so calls cannot interleave and M concurrent calls cannot
overspend. More than one process needs the shared implementation; `serve` refuses several workers on this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from gateway.actions import Action, Cost, Reservation, Target
from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.limits import refusals
from gateway.limits.account import Account, Spend
from gateway.limits.admission import MemoryAdmission
from gateway.limits.allowance import Allowance, AllowanceTable
from gateway.limits.bound import Bound, bound_of
from gateway.limits.interface import Persist, SpendRow
from gateway.limits.levels import Accounts
from gateway.limits.overrun import Overrun, ReportsOverrun, report_to_nobody
from gateway.limits.soft import SoftBudget, TellsSoftBudget, tell_nobody
from gateway.limits.spend import LOCAL, Booking, SpendTable, add_nothing
from gateway.limits.windows import Windows, windows_at


class _Held(NamedTuple):
    """An open reservation and the very counters it was taken from."""

    reservation: Reservation
    tenant: str
    accounts: tuple[Account, ...]
    spends: tuple[tuple[Spend, ...], ...]  # those of each account, as they were at the start
    minutes: tuple[list[int], ...]  # bucket of each account's tokens per minute
    place: Account | None  # of the tool or the model, where a call is running until it is settled


class MemoryLimits:
    """The embedded `Limits`. Belongs to the event loop's thread."""

    def __init__(self, clock: Clock, table: AllowanceTable | None = None) -> None:
        self.spend_table: SpendTable = LOCAL
        """Where settlements are booked. Set it as soon as the log's keys are read."""
        self.on_soft_budget: TellsSoftBudget = tell_nobody
        """Told once of each soft budget that is passed, in each window."""
        self.on_overrun: ReportsOverrun = report_to_nobody
        """Told of each call that used more than was reserved for it."""
        self._clock = clock
        table = table if table is not None else AllowanceTable()
        self._zone = table.time_zone
        self._windows = windows_at(clock.now_ns(), self._zone)
        self._accounts = Accounts(self._make, table)
        self._open: dict[str, _Held] = {}
        self._reaped: set[str] = set()

    # ------------------------------------------------------------ the path

    async def admit(self, action: Action) -> MemoryAdmission:
        """See `Limits.admit`."""
        now_s = self._now_s()
        self._accounts.sweep(now_s, self._windows)
        accounts = self._accounts.of(action)
        for account in accounts:
            if account.requests.used(now_s) >= account.minute_requests or account.in_flight >= account.concurrency:
                raise _no_entry(account, now_s)
        for account in accounts:
            account.requests.take(now_s, 1)
            account.in_flight += 1
        return MemoryAdmission(accounts, self._clock)

    async def reserve(self, action: Action, target: Target) -> Reservation:
        """See `Limits.reserve`."""
        open_one = self._open.get(action.id)
        if open_one is not None:
            return open_one.reservation
        self._turn()
        accounts, place = self._accounts_of(action, target)
        bound = bound_of(action, target, accounts)
        nanousd, tokens = bound.nanousd, bound.input_tokens + bound.output_tokens
        now_s = self._now_s()
        if place is not None and (
            place.requests.used(now_s) >= place.minute_requests or place.in_flight >= place.concurrency
        ):
            raise _no_entry(place, now_s)
        windows = self._windows
        for account in accounts:
            if account.windows is not windows:
                account.turn(windows)
            for spend in account.spends:
                if spend.nanousd + nanousd > spend.max_nanousd or spend.tokens + tokens > spend.max_tokens:
                    refusal = _no_room(account, spend, nanousd, tokens)
                    if refusal is not None:
                        raise refusal
            if tokens and account.tokens.used(now_s) + tokens > account.minute_tokens:
                limit = account.minute_tokens
                left, wait_s = max(0, limit - account.tokens.total), account.tokens.wait_s(now_s, tokens, limit)
                raise refusals.too_many_tokens(account, tokens, left, limit, wait_s, now_s)
        return self._hold(action, accounts, place, bound, now_s)

    def _hold(
        self, action: Action, accounts: tuple[Account, ...], place: Account | None, bound: Bound, now_s: int
    ) -> Reservation:
        """Every level has room, so every level is charged."""
        nanousd, tokens = bound.nanousd, bound.input_tokens + bound.output_tokens
        spends = []
        minutes = []
        for account in accounts:
            for spend in account.spends:
                spend.nanousd += nanousd
                spend.tokens += tokens
            spends.append(account.spends)
            minutes.append(account.tokens.hold(now_s, tokens))
        if place is not None:
            place.requests.take(now_s, 1)
            place.in_flight += 1
        reservation = Reservation(
            id=action.id,
            target=action.target,
            nanousd=nanousd,
            tokens=tokens,
            levels=tuple([account.level for account in accounts]),
            max_output_tokens=bound.output_tokens,
            input_tokens=bound.input_tokens,
            tier=bound.tier,
            server_calls=bound.server_calls,
            has_unknown_price=bound.has_unknown_price,
        )
        self._open[action.id] = _Held(
            reservation, action.caller.agent.tenant, accounts, tuple(spends), tuple(minutes), place
        )
        return reservation

    def settle(self, reservation: Reservation, cost: Cost) -> Persist:
        """See `Limits.settle`."""
        held = self._open.pop(reservation.id, None)
        if held is None:
            return add_nothing
        if held.place is not None:
            held.place.in_flight -= 1
        usage = cost.usage
        nanousd = cost.nanousd
        tokens = usage.input_tokens + usage.output_tokens
        reserved = held.reservation
        if usage.estimated or (cost.estimated and not cost.is_counted):
            nanousd = max(nanousd, reserved.nanousd)
            tokens = max(tokens, reserved.tokens)
        more_nanousd = nanousd - reserved.nanousd
        more_tokens = tokens - reserved.tokens
        rows: list[SpendRow] = []
        tenant = held.tenant
        for spends, account, bucket in zip(held.spends, held.accounts, held.minutes, strict=True):
            for spend in spends:
                spend.nanousd += more_nanousd
                spend.tokens += more_tokens
                spend.booked_nanousd += nanousd
                spend.booked_tokens += tokens
                if spend.booked_nanousd > spend.soft_nanousd or spend.booked_tokens > spend.soft_tokens:
                    self._passed(account, spend)
                rows.append((tenant, account.level, spend.window, nanousd, tokens))
            account.tokens.settle(bucket, reserved.tokens, more_tokens)
        if more_nanousd > 0 or more_tokens > 0:
            self.on_overrun(Overrun(tenant, reserved, nanousd, tokens))
        if not nanousd and not tokens:
            return add_nothing
        return Booking(self.spend_table, rows)

    def _passed(self, account: Account, spend: Spend) -> None:
        """A soft budget was passed: tell it, once."""
        if not spend.is_told:
            spend.is_told = True
            self.on_soft_budget(SoftBudget.of(account, spend))

    # ------------------------------------------------------------ start, reload, reaper, questions

    def windows(self) -> Windows:
        """The windows of now, in the time zone in force: those whose spend `restore` wants."""
        self._turn()
        return self._windows

    def persist_unknown(
        self, reservation: Reservation, now_ns: int, *, tenant: str = "default", replica: str = ""
    ) -> Persist:
        """See `Limits.persist_unknown`."""
        open_one = self._open.get(reservation.id)
        if open_one is not None:
            taken = open_one.reservation
            return self.settle(taken, Cost(nanousd=taken.nanousd, estimated=True))
        if reservation.id in self._reaped or not (reservation.nanousd or reservation.tokens):
            return add_nothing
        self._reaped.add(reservation.id)
        rows = self._rows_of_unknown(reservation, now_ns, tenant)
        for spend, nanousd, tokens in self._current(rows):
            spend.nanousd += nanousd
            spend.tokens += tokens
            spend.booked_nanousd += nanousd
            spend.booked_tokens += tokens
        return Booking(self.spend_table, rows)

    def _rows_of_unknown(self, reservation: Reservation, now_ns: int, tenant: str) -> list[SpendRow]:
        """The whole of a reservation, in the windows of its time. Its minute is over by the time anybody is dead."""
        windows = windows_at(now_ns, self._zone)
        return [
            (tenant, level, window, reservation.nanousd, reservation.tokens)
            for level in reservation.levels
            for window in (windows.day, windows.month)
        ]

    def restore(self, rows: Iterable[SpendRow]) -> None:
        """See `Limits.restore`. Rows of past windows are passed over."""
        for spend, nanousd, tokens in self._current(rows):
            spend.begin_with(nanousd, tokens)

    def reconfigure(self, table: AllowanceTable) -> None:
        """See `Limits.reconfigure`."""
        if table.time_zone != self._zone:
            self._zone = table.time_zone
            self._windows = windows_at(self._clock.now_ns(), self._zone)
        for account in self._accounts:
            account.turn(self._windows)
        self._accounts.reconfigure(table)

    def remaining(
        self,
        agent_id: str,
        user: str | None = None,
        *,
        tenant: str = "default",
        team: str = "",
        use_case: str = "",
        session: str = "",
        target: Target | None = None,
    ) -> dict[str, Any]:
        """See `Limits.remaining`. Money in nano-dollars; limits that are not set are left out."""
        self._turn()
        now_s = self._now_s()
        told = {}
        for account in self._accounts.named(tenant, team, use_case, agent_id, user, session, target):
            if account.windows is not self._windows:
                account.turn(self._windows)
            told[account.level] = account.remaining(now_s)
        return told

    # ------------------------------------------------------------ accounts

    def _now_s(self) -> int:
        """The second that rates are counted in."""
        return int(self._clock.monotonic_s())

    def _turn(self) -> None:
        """Begin new windows when the old have ended. A wall clock that is set back reopens no old window."""
        now_ns = self._clock.now_ns()
        if now_ns >= self._windows.minute_end_ns:
            self._windows = windows_at(now_ns, self._zone)

    def _accounts_of(self, action: Action, target: Target) -> tuple[tuple[Account, ...], Account | None]:
        """All accounts that an action is held against, and which of them is its tool's or its model's."""
        accounts = self._accounts.of(action)
        if not self._accounts.limits_targets:
            return accounts, None
        place = self._accounts.of_target(action.caller.agent.tenant, target)
        return (accounts, None) if place is None else ((*accounts, place), place)

    def _make(self, tenant: str, level: str, allowance: Allowance) -> Account:
        return Account(tenant, level, allowance, self._windows)

    def _current(self, rows: Iterable[SpendRow]) -> Iterator[tuple[Spend, int, int]]:
        """The counters of those rows whose windows are still open, with the rows' amounts."""
        self._turn()
        for tenant, level, window, nanousd, tokens in rows:
            account = self._accounts.at(tenant, level)
            if account is None:
                continue
            account.turn(self._windows)
            for spend in account.spends:
                if spend.window == window:
                    yield spend, nanousd, tokens


def _no_entry(account: Account, now_s: int) -> Refusal:
    """Why this level takes no further request now."""
    if account.in_flight >= account.concurrency:
        return refusals.no_place(account, account.in_flight, now_s)
    limit = account.minute_requests
    return refusals.too_many_requests(account, limit, account.requests.wait_s(now_s, 1, limit), now_s)


def _no_room(account: Account, spend: Spend, nanousd: int, tokens: int) -> Refusal | None:
    """Why this much does not fit into a window; None if it does after all (it takes nothing of it)."""
    if nanousd and spend.nanousd + nanousd > spend.max_nanousd:
        limit = spend.max_nanousd
        left = max(0, limit - spend.nanousd)
        return refusals.over_budget(account, spend, "nanousd", needed=nanousd, left=left, limit=limit)
    if tokens and spend.tokens + tokens > spend.max_tokens:
        limit = spend.max_tokens
        left = max(0, limit - spend.tokens)
        return refusals.over_budget(account, spend, "tokens", needed=tokens, left=left, limit=limit)
    return None
