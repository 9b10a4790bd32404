"""What is read of cases: single ones, lists, and what belongs to them. Nothing here changes anything."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec

from gateway.actions import Action
from gateway.approvals.case import Attempt, Case, Comment, Ending, State, Vote
from gateway.approvals.rows import Rows
from gateway.errors import Refusal
from gateway.store.interface import Connection

T = TypeVar("T")

MAX_COUNTED = 10_000

# What people should take up first: who waits, by when it expires; then what they must find out; then what goes on.
_RANK = "CASE state WHEN 'pending' THEN 0 WHEN 'unknown' THEN 1 ELSE 2 END"
_DUE = "CASE state WHEN 'pending' THEN expires_ns ELSE -opened_ns END"
MAX_LIKE = 50
_LOOKS = 20  # at votes that are given meanwhile
_PLACE = re.compile(r"([0-2])_(-?[0-9]{1,18}|-?[1-8][0-9]{18})_([0-9a-f-]{1,64})")  # numbers that fit into 63 bits


class Reads(Protocol):
    """store/: what is committed."""

    async def read(self, fn: Callable[[Connection], T]) -> T: ...


class Page(msgspec.Struct, frozen=True):
    """Cases in the order that was asked for, and where the next page begins."""

    cases: list[Case]
    cursor: str | None
    total: int | None = None  # of all pages together; None: more than `MAX_COUNTED`, or not counted


class Looking:
    """The reading half of `Approvals`."""

    def __init__(self, reads: Reads, rows: Rows) -> None:
        self._reads = reads
        self._rows = rows

    async def case(self, case_id: str) -> Case:
        """Raises Refusal(not_found)."""
        found = await self._reads.read(lambda db: self._rows.case(db, case_id))
        if found is None:
            raise Refusal("not_found", "There is no case of this id; `gateway approvals list` shows those there are.")
        return found

    async def open_case(self, action: Action) -> Case | None:
        """The open case of an action's identity; there is at most one."""
        return await self._reads.read(lambda db: self._rows.open_by_digest(db, action.digest))

    async def find(
        self,
        *,
        status: str | None = None,
        agent: str | None = None,
        tool: str | None = None,
        rule: str | None = None,
        risk: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Cases, newest first. `status`: a state, or `open`. `tool`: a name or `server__tool`. Raises `malformed`."""
        where: list[str] = []
        values: list[Any] = []

        def must(condition: str, *given: Any) -> None:
            where.append(condition)
            values.extend(given)

        if status == "open":
            must("open = 1")
        elif status is not None:
            if status not in set(State):
                known = ", ".join(state.value for state in State)
                raise Refusal("malformed", f"There is no state {status!r}; there are open, {known}.")
            must("state = ?", status)
        if agent is not None:
            must("agent = ?", agent)
        if tool is not None:
            server, has_server, name = tool.partition("__")
            if has_server:
                must("server = ? AND tool = ?", server, name)
            else:
                must("tool = ?", tool)
        if rule is not None:
            must("replace(rules, ?, '') <> rules", f"|{rule}|")
        if risk is not None:
            must("risk = ?", risk)
        total = await self._count(where, values)
        if cursor is not None:
            must("id < ?", cursor)
        condition = f"WHERE {' AND '.join(where)} " if where else ""
        found = await self._reads.read(
            lambda db: self._rows.readable(db, f"{condition}ORDER BY id DESC LIMIT ?", (*values, limit + 1))
        )
        return Page(found[:limit], found[limit - 1].id if len(found) > limit else None, total)

    async def _count(self, where: list[str], values: list[Any]) -> int | None:
        """How many cases there are, up to `MAX_COUNTED`; None: more."""
        # Only constants of this module enter the text; every value is bound.
        condition = f"WHERE {' AND '.join(where)} " if where else ""
        statement = f"SELECT count(*) FROM (SELECT 1 FROM approval_case {condition}LIMIT ?) AS counted"  # noqa: S608
        given = (*values, MAX_COUNTED + 1)
        (count,) = await self._reads.read(lambda db: db.execute(statement, given).fetchone())
        return int(count) if count <= MAX_COUNTED else None

    async def queue(
        self, *, pending: bool = False, agent: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page:
        """Open cases as people should take them up: those that wait, the soonest to expire first; then unknown
        outcomes, then what goes on, each newest first. `pending`: only those that wait. Raises `malformed`.
        """
        where = ["open = 1"]
        values: list[Any] = []
        if pending:
            where.append("state = 'pending'")
        if agent is not None:
            where.append("agent = ?")
            values.append(agent)
        if cursor is not None:
            place = _PLACE.fullmatch(cursor)
            if place is None:
                raise Refusal("malformed", "The cursor is not one that a page of this list ended with.")
            where.append(f"({_RANK}, {_DUE}, id) > (?, ?, ?)")
            values += [int(place[1]), int(place[2]), place[3]]
        found = await self._reads.read(
            lambda db: self._rows.readable(
                db, f"WHERE {' AND '.join(where)} ORDER BY {_RANK}, {_DUE}, id LIMIT ?", (*values, limit + 1)
            )
        )
        return Page(found[:limit], _place(found[limit - 1]) if len(found) > limit else None)

    async def like(self, case: Case) -> list[Case]:
        """Other cases of the same agent and tool that wait, such as one with a regenerated field: the newest first."""
        return await self._reads.read(
            lambda db: self._rows.readable(
                db,
                "WHERE agent = ? AND server = ? AND tool = ? AND state = 'pending' AND id <> ?"
                " ORDER BY id DESC LIMIT ?",
                (case.agent_id, case.server, case.tool, case.id, MAX_LIKE),
            )
        )

    async def to_run(self) -> list[str]:
        """Approved calls that run without being claimed, and that nobody has tried to carry out since."""
        found = await self._reads.read(
            lambda db: self._rows.readable(
                db,
                "WHERE state = 'approved' AND kind = 'tool.call' AND NOT EXISTS (SELECT 1 FROM case_attempt"
                " WHERE case_id = approval_case.id AND started_ns >= approval_case.decided_ns)",
                (),
            )
        )
        return [case.id for case in found if case.requirement.execute_on == "decision"]

    async def votes(self, case_id: str) -> list[Vote]:
        """All votes, oldest first. Raises `not_found`, and `store_unavailable` where one is missing."""
        for _ in range(_LOOKS):  # somebody may vote between the two reads
            case = await self.case(case_id)
            found = await self._reads.read(partial(self._rows.votes, case=case, or_later=True))
            if len(found) == case.votes:
                return found
        raise Refusal("store_unavailable", "The votes on the case change faster than they can be read. Try again.")

    async def comments(self, case_id: str) -> list[Comment]:
        """Oldest first."""
        return await self._reads.read(lambda db: self._rows.comments(db, case_id))

    async def attempts(self, case_id: str) -> list[Attempt]:
        """Oldest first."""
        return await self._reads.read(lambda db: self._rows.attempts(db, case_id))

    async def ending(self, case: Case) -> Ending | None:
        """How the last attempt ended, while that is kept."""
        return await self._reads.read(lambda db: self._rows.ending(db, case.id))


def _place(case: Case) -> str:
    """Where a case stands in the queue."""
    if case.state is State.PENDING:
        return f"0_{case.expires_ns}_{case.id}"
    return f"{1 if case.state is State.UNKNOWN else 2}_{-case.opened_ns}_{case.id}"
