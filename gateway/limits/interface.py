"""What govern may ask of limits, whichever way the counters are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Protocol

import msgspec

from gateway.actions import Action, Cost, Reservation, Target
from gateway.limits.allowance import AllowanceTable
from gateway.limits.overrun import ReportsOverrun
from gateway.limits.soft import TellsSoftBudget
from gateway.store.interface import Connection

Level = str
"""`tenant:ID`, `team:ID`, `use_case:ID`, `agent:ID`, `user:NAME`, `session:ID`, `tool:SERVER__TOOL` or
`model:ALIAS`."""

SpendRow = tuple[str, Level, str, int, int]
"""(tenant, level, window, nano-dollars, tokens): a row of table `spend`, or what is added to one."""

Persist = Callable[[Connection], None]
"""Books spend on disk; called inside the transaction that makes the action's result durable."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """The tightest rates that apply to a caller, for rate-limit headers. None: not limited."""

    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests_s: int = 0  # until the allowance is whole again
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens_s: int = 0


class Admission(Protocol):
    """A place taken at every level. Held until the block ends; for a stream, until its last byte.

    The place is taken when `admit` returns, not when the block is entered. Releasing twice does nothing.
    """

    def release(self) -> None: ...

    def rates(self) -> Rates: ...

    def __enter__(self) -> Admission: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Limits(Protocol):
    """Rates, concurrency and budgets of every level at once.

    `admit` -> `reserve` -> (the action runs) -> `settle`. Levels are the tenant, team, use case, agent, user and
    session of the caller, and the tool or model that is used; without a limit a level has no counters, except agents
    and users, whose days and months are told on disk. Windows are minutes, days and months of the calendar in the
    table's time zone.
    """

    on_soft_budget: TellsSoftBudget
    """Told once of each soft budget that is passed, in each window."""

    on_overrun: ReportsOverrun
    """Told of each call that used more than was reserved for it."""

    async def admit(self, action: Action) -> Admission:
        """Count a request and take a place at every level of the caller, or refuse.

        Raises Refusal `rate_limited` with `retry_after_s`: obeyed, the next request is not too early.
        """
        ...

    async def reserve(self, action: Action, target: Target) -> Reservation:
        """Hold the upper bound of what the action can cost, at every level or at none.

        It also counts the request and takes the place at the level of the tool or model, which is known only now;
        that place is given back by `settle`.
        Asked again for an action whose reservation is open, it gives that reservation.
        Raises Refusal `budget_exhausted` (day, month, no price, or larger than a whole minute),
        `rate_limited` with `retry_after_s` (tokens per minute; rate or places of the tool or model; 1 where only what
        running calls have reserved is in the way),
        `malformed` (token counts that are none).
        """
        ...

    def settle(self, reservation: Reservation, cost: Cost) -> Persist:
        """Give back what was held, book the true cost in the window the reservation began in.

        Memory is corrected now; the function returned does the same on disk. Settling again does nothing, and
        so does its function. An estimated cost is never booked below the reservation, unless the provider counted what
        it is for (`Cost.is_counted`). A cost above the reservation is booked as it is, and reported. `Cost()` books
        nothing: for an action that certainly did not happen.
        """
        ...

    def persist_unknown(
        self, reservation: Reservation, now_ns: int, *, tenant: str = "default", replica: str = ""
    ) -> Persist:
        """Book the whole reservation of an action whose end nobody knows, in the window of `now_ns`.

        For the reaper, which finds intents of a former process: hand in the time of the intent. For a
        reservation that is open in this process it is a settlement in full.
        """
        ...

    def restore(self, rows: Iterable[SpendRow]) -> None:
        """Take over what table `spend` holds; it replaces the counters of its levels and windows.

        Call it before the first action. Whether the reaper ran before or runs after makes no difference.
        """
        ...

    def reconfigure(self, table: AllowanceTable) -> None:
        """Put new allowances in force. Counters, places and reservations stay."""
        ...

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
        """What is left, by level; reservations that are open count as used. For `/api/v1/me` and policy.

        Levels without a limit are left out, except the agent and the user. A soft budget says `hard` false, and
        whether it was `passed`.
        """
        ...
