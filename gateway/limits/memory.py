"""Limits in the memory of one process: exact, because one thread asks and nothing here waits.

Nothing is awaited between a check and its effect, so calls cannot interleave and M concurrent calls cannot
overspend. More than one process needs the shared implementation; `serve` refuses several workers on this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

from gateway.actions import Action, Caller, Cost, ModelTarget, Reservation, Target
from gateway.clock import Clock
from gateway.limits.account import Account, Spend
from gateway.limits.allowance import Allowance, AllowanceTable
from gateway.limits.bounds import bound_nanousd, input_bound, output_bound
from gateway.limits.interface import Persist, Rates, SpendRow
from gateway.limits.spend import add_nothing, add_spend
from gateway.limits.windows import windows_at


class _Held(NamedTuple):
    """An open reservation and the very counters it was taken from."""

    reservation: Reservation
    tenant: str
    accounts: tuple[Account, ...]
    spends: tuple[tuple[Spend, Spend], ...]  # (day, month) of each account, as they were at the start
    minutes: tuple[list[int], ...]  # bucket of each account's tokens per minute


class MemoryAdmission:
    """A place taken at every level until it is released."""

    __slots__ = ("_accounts", "_clock")

    def __init__(self, accounts: tuple[Account, ...], clock: Clock) -> None:
        self._accounts = accounts
        self._clock = clock

    def release(self) -> None:
        """Give the place back; doing so twice does nothing."""
        accounts, self._accounts = self._accounts, ()
        for account in accounts:
            account.in_flight -= 1

    def rates(self) -> Rates:
        """The tightest rates as they stand now; empty once the place was given back."""
        return _rates(self._accounts, int(self._clock.monotonic_s()))

    def __enter__(self) -> MemoryAdmission:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class MemoryLimits:
    """The embedded `Limits`. Belongs to the event loop's thread."""

    def __init__(self, clock: Clock, table: AllowanceTable | None = None) -> None:
        self._clock = clock
        self._table = table if table is not None else AllowanceTable()
        self._accounts: dict[tuple[str, str, str | None], tuple[Account, ...]] = {}
        self._agents: dict[tuple[str, str], Account] = {}
        self._users: dict[tuple[str, str], Account] = {}
        self._open: dict[str, _Held] = {}
        self._reaped: set[str] = set()
        self._windows = windows_at(clock.now_ns())

    # ------------------------------------------------------------ the path

    async def admit(self, action: Action) -> MemoryAdmission:
        """See `Limits.admit`."""
        accounts = self._accounts_of(action.caller)
        now_s = int(self._clock.monotonic_s())
        for account in accounts:
            if account.requests.used(now_s) >= account.minute_requests or account.in_flight >= account.concurrency:
                raise account.refuse_request(now_s)
        for account in accounts:
            account.requests.take(now_s, 1)
            account.in_flight += 1
        return MemoryAdmission(accounts, self._clock)

    async def reserve(self, action: Action, target: Target) -> Reservation:
        """See `Limits.reserve`."""
        open_one = self._open.get(action.id)
        if open_one is not None:
            return open_one.reservation
        accounts = self._accounts_of(action.caller)
        self._turn()
        bound = bound_of(action, target, accounts)
        nanousd, tokens = bound.nanousd, bound.input_tokens + bound.output_tokens
        now_s = int(self._clock.monotonic_s())
        windows = self._windows
        for account in accounts:
            day, month = account.day, account.month
            if day.window is not windows.day:
                account.turn(windows)
                day, month = account.day, account.month
            if (
                day.nanousd + nanousd > account.day_nanousd
                or month.nanousd + nanousd > account.month_nanousd
                or day.tokens + tokens > account.day_tokens
                or month.tokens + tokens > account.month_tokens
            ):
                refusal = account.refuse_budget(nanousd, tokens, windows)
                if refusal is not None:
                    raise refusal
            if tokens and account.tokens.used(now_s) + tokens > account.minute_tokens:
                raise account.refuse_tokens(now_s, tokens)
        return self._hold(action, accounts, bound, now_s)

    def _hold(self, action: Action, accounts: tuple[Account, ...], bound: Bound, now_s: int) -> Reservation:
        """Every level has room, so every level is charged."""
        nanousd, tokens = bound.nanousd, bound.input_tokens + bound.output_tokens
        spends = []
        minutes = []
        for account in accounts:
            day, month = account.day, account.month
            day.nanousd += nanousd
            day.tokens += tokens
            month.nanousd += nanousd
            month.tokens += tokens
            spends.append((day, month))
            minutes.append(account.tokens.take(now_s, tokens))
        reservation = Reservation(
            id=action.id,
            nanousd=nanousd,
            tokens=tokens,
            levels=tuple([account.level for account in accounts]),
            max_output_tokens=bound.output_tokens,
            input_tokens=bound.input_tokens,
        )
        self._open[action.id] = _Held(reservation, action.caller.agent.tenant, accounts, tuple(spends), tuple(minutes))
        return reservation

    def settle(self, reservation: Reservation, cost: Cost) -> Persist:
        """See `Limits.settle`."""
        held = self._open.pop(reservation.id, None)
        if held is None:
            return add_nothing
        usage = cost.usage
        nanousd = cost.nanousd
        tokens = usage.input_tokens + usage.output_tokens
        reserved = held.reservation
        if cost.estimated or usage.estimated:
            nanousd = max(nanousd, reserved.nanousd)
            tokens = max(tokens, reserved.tokens)
        more_nanousd = nanousd - reserved.nanousd
        more_tokens = tokens - reserved.tokens
        for (day, month), account, bucket in zip(held.spends, held.accounts, held.minutes, strict=True):
            day.nanousd += more_nanousd
            day.tokens += more_tokens
            month.nanousd += more_nanousd
            month.tokens += more_tokens
            account.tokens.correct(bucket, more_tokens)
        if not nanousd and not tokens:
            return add_nothing
        rows: list[SpendRow] = []
        tenant = held.tenant
        for (day, month), level in zip(held.spends, reserved.levels, strict=True):
            rows.append((tenant, level, day.window, nanousd, tokens))
            rows.append((tenant, level, month.window, nanousd, tokens))
        return partial(add_spend, rows)

    # ------------------------------------------------------------ start, reload, reaper, questions

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
        windows = windows_at(now_ns)
        rows: list[SpendRow] = [
            (tenant, level, window, reservation.nanousd, reservation.tokens)
            for level in reservation.levels
            for window in (windows.day, windows.month)
        ]
        for spend, nanousd, tokens in self._current(rows):
            spend.nanousd += nanousd
            spend.tokens += tokens
        return partial(add_spend, rows)

    def restore(self, rows: Iterable[SpendRow]) -> None:
        """See `Limits.restore`. Rows of past windows are passed over."""
        for spend, nanousd, tokens in self._current(rows):
            spend.nanousd = nanousd
            spend.tokens = tokens

    def reconfigure(self, table: AllowanceTable) -> None:
        """See `Limits.reconfigure`."""
        self._table = table
        for (_, agent_id), account in self._agents.items():
            account.allow(table.of_agent(agent_id))
        for (_, user), account in self._users.items():
            account.allow(table.of_user(user))

    def remaining(self, agent_id: str, user: str | None = None, *, tenant: str = "default") -> dict[str, Any]:
        """See `Limits.remaining`. Money in nano-dollars; limits that are not set are left out."""
        self._turn()
        now_s = int(self._clock.monotonic_s())
        accounts = [self._agent(tenant, agent_id)]
        if user is not None:
            accounts.append(self._user(tenant, user))
        told = {}
        for account in accounts:
            account.turn(self._windows)
            told[account.level] = account.remaining(now_s, self._windows)
        return told

    # ------------------------------------------------------------ accounts

    def _turn(self) -> None:
        """Begin new windows when the old have ended. A wall clock that is set back reopens no old window."""
        now_ns = self._clock.now_ns()
        if now_ns >= self._windows.day_end_ns:
            self._windows = windows_at(now_ns)

    def _accounts_of(self, caller: Caller) -> tuple[Account, ...]:
        agent = caller.agent
        key = (agent.tenant, agent.id, caller.user)
        accounts = self._accounts.get(key)
        if accounts is None:
            accounts = (self._agent(agent.tenant, agent.id),)
            if caller.user is not None:
                accounts += (self._user(agent.tenant, caller.user),)
            self._accounts[key] = accounts
        return accounts

    def _make(self, tenant: str, level: str, allowance: Allowance) -> Account:
        return Account(tenant, level, allowance, self._windows)

    def _agent(self, tenant: str, agent_id: str) -> Account:
        account = self._agents.get((tenant, agent_id))
        if account is None:
            account = self._make(tenant, f"agent:{agent_id}", self._table.of_agent(agent_id))
            self._agents[tenant, agent_id] = account
        return account

    def _user(self, tenant: str, user: str) -> Account:
        account = self._users.get((tenant, user))
        if account is None:
            account = self._make(tenant, f"user:{user}", self._table.of_user(user))
            self._users[tenant, user] = account
        return account

    def _current(self, rows: Iterable[SpendRow]) -> Iterator[tuple[Spend, int, int]]:
        """The counters of those rows whose windows are still open, with the rows' amounts."""
        self._turn()
        for tenant, level, window, nanousd, tokens in rows:
            kind, _, name = level.partition(":")
            if kind not in ("agent", "user"):
                continue  # a level that a later version or another implementation keeps
            account = self._agent(tenant, name) if kind == "agent" else self._user(tenant, name)
            account.turn(self._windows)
            for spend in (account.day, account.month):
                if spend.window == window:
                    yield spend, nanousd, tokens


class Bound(NamedTuple):
    """The most that an action can cost."""

    input_tokens: int = 0
    output_tokens: int = 0
    nanousd: int = 0


def bound_of(action: Action, target: Target, accounts: tuple[Account, ...]) -> Bound:
    """Raises `malformed`, and `budget_exhausted` for a model without a price under a money budget."""
    if not isinstance(target, ModelTarget):
        return Bound()
    input_tokens = input_bound(action)
    output_tokens = output_bound(action.arguments, target)
    nanousd = bound_nanousd(target, input_tokens, output_tokens)
    if not target.priced:
        _refuse_unpriced(accounts, target)
    return Bound(input_tokens, output_tokens, nanousd)


def _refuse_unpriced(accounts: tuple[Account, ...], target: ModelTarget) -> None:
    for account in accounts:
        if account.money_is_limited:
            raise account.refuse_unpriced(target.alias)


def _rates(accounts: tuple[Account, ...], now_s: int) -> Rates:
    """The level with the least left decides, for requests and for tokens apart."""
    requests: tuple[int, int, int] | None = None
    tokens: tuple[int, int, int] | None = None
    for account in accounts:
        limit = account.allowance.requests_per_minute
        if limit is not None:
            left = max(0, limit - account.requests.used(now_s))
            if requests is None or left < requests[0]:
                requests = (left, limit, account.requests.reset_s(now_s))
        limit = account.allowance.tokens_per_minute
        if limit is not None:
            left = max(0, limit - account.tokens.used(now_s))
            if tokens is None or left < tokens[0]:
                tokens = (left, limit, account.tokens.reset_s(now_s))
    return Rates(
        limit_requests=requests and requests[1],
        remaining_requests=requests and requests[0],
        reset_requests_s=requests[2] if requests else 0,
        limit_tokens=tokens and tokens[1],
        remaining_tokens=tokens and tokens[0],
        reset_tokens_s=tokens[2] if tokens else 0,
    )
