"""The query projection `record_view`: filled behind the log, asked by people.

It can be thrown away and built again from the records; nothing is proved by it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.audit.leaf import Leaf, decode_leaf
from gateway.clock import rfc3339
from gateway.errors import Refusal
from gateway.store.interface import Connection, Store

_STEP = 100  # records per transaction: a few milliseconds of the writer's thread
_IDLE_STEPS = 50
MAX_LIMIT = 1000
MAX_COUNTED = 10_000

COLUMNS = (
    'idx, id, ts, type, tenant, agent, "user", session, action, parent, kind, server, tool, model, effect, status, '
    "code, rules, case_id"
)
# A record never changes: one that stands there already was projected by somebody else a moment ago.
_SHARED = f"INSERT INTO record_view ({COLUMNS}) SELECT * FROM unnest(?::bigint[]{', ?::text[]' * 18})"  # noqa: S608
_INSERT = f"INSERT INTO record_view ({COLUMNS}) VALUES ({', '.join('?' * 19)}) ON CONFLICT DO NOTHING"  # noqa: S608


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """What to look for; everything given must hold. Times in nanoseconds since the epoch, `until_ns` exclusive.

    `tool` is a tool's name or `server__tool`; `type` may end in `*`; `cursor` is what the page before gave.
    """

    since_ns: int | None = None
    until_ns: int | None = None
    agent: str | None = None
    user: str | None = None
    session: str | None = None
    kind: str | None = None
    tool: str | None = None
    model: str | None = None
    type: str | None = None
    effect: str | None = None
    status: str | None = None
    code: str | None = None
    action: str | None = None
    rule: str | None = None
    case: str | None = None
    reads: bool = True  # also `audit.read`: that somebody looked
    limit: int = 50
    cursor: str | None = None


class Refused(msgspec.Struct, frozen=True):
    """How many actions of an agent were refused with one code."""

    agent: str
    code: str
    count: int


class Page(msgspec.Struct, frozen=True):
    """Records as stored, each with its `idx`, newest first. `cursor` is null on the last page."""

    records: list[dict[str, Any]]
    cursor: str | None
    total: int | None = None  # of all pages together; None: more than `MAX_COUNTED`


# Calls without a new record until nothing seems to be going on: streams make records only at their ends.
_IDLE_AFTER = 12


class View:
    """Fills and asks the projection of one tenant."""

    def __init__(self, writer: Store, tenant: str) -> None:
        self._writer = writer
        self._tenant = tenant
        self._filled: int | None = None
        self._seen = -1
        self._still = 0  # calls of `fill_behind` since the log last grew

    async def fill(self, size: int) -> None:
        """Bring the projection up to `size` records. Once latched it stays as it is."""
        while (self._filled is None or self._filled < size) and self._writer.latched is None:
            self._filled = await self._writer.write(_fill_step)

    async def fill_behind(self, size: int) -> None:
        """Do a little while there is traffic, and a good deal when there is none."""
        self._still = self._still + 1 if size == self._seen else 0
        for _ in range(_IDLE_STEPS if self._still >= _IDLE_AFTER else 1):
            if self._writer.queued or self._filled == size:
                break
            self._filled = await self._writer.write(_fill_step)
        self._seen = size

    async def query(self, wanted: Filter) -> Page:
        """A page of records; call `fill` before. Raises Refusal(malformed) for a bad limit or cursor."""
        return await self._writer.read(lambda connection: _query(connection, self._tenant, wanted))

    async def refused(self, since_ns: int) -> list[Refused]:
        """How many actions were refused since then, most first; call `fill` before."""
        found = "SELECT coalesce(agent, 'unknown'), coalesce(code, 'unknown'), count(*) FROM record_view"
        found += " WHERE type = 'action.refused' AND ts >= ? AND tenant = ? GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"
        given = (rfc3339(since_ns), self._tenant)
        rows = await self._writer.read(lambda connection: connection.execute(found, given).fetchall())
        return [Refused(*row) for row in rows]


def _fill_step(connection: Connection) -> int:
    row = connection.execute("SELECT max(idx) FROM record_view").fetchone()
    start = 0 if row[0] is None else int(row[0]) + 1
    rows = connection.execute(
        "SELECT idx, body FROM leaf WHERE idx >= ? ORDER BY idx LIMIT ?", (start, _STEP)
    ).fetchall()
    connection.executemany(_INSERT, [row_of(idx, decode_leaf(body)) for idx, body in rows])
    return start + len(rows)


def project(connection: Connection, rows: list[tuple[Any, ...]]) -> None:
    """Rows of `row_of`, into the projection that replicas share."""
    connection.execute(_SHARED, [list(column) for column in zip(*rows, strict=True)])


def row_of(idx: int, leaf: Leaf) -> tuple[Any, ...]:
    """What the projection holds of a record: values in the order of `COLUMNS`."""
    actor, action, decision, result = leaf.actor, leaf.action, leaf.decision, leaf.result
    return (
        idx,
        leaf.id,
        leaf.ts,
        leaf.type,
        leaf.tenant,
        (None if actor is None else actor.agent) or leaf.labels.get("subject.agent") or _of_case(leaf),
        None if actor is None else actor.user,
        None if leaf.session is None else leaf.session.id,
        None if action is None else action.id,
        None if leaf.refs is None else leaf.refs.parent,
        None if action is None else action.kind,
        None if action is None else action.server,
        None if action is None else action.tool,
        None if leaf.model is None else leaf.model.requested,
        None if decision is None else decision.effect,
        None if result is None else result.status,
        None if result is None else result.code,
        None if decision is None or not decision.rules else f"|{'|'.join(decision.rules)}|",
        leaf.case,
    )


def _of_case(leaf: Leaf) -> str | None:
    """Whose case a person's record is about: a person has no agent, but an agent's records are to show them."""
    return None if leaf.case is None else leaf.labels.get("agent")


def _query(connection: Connection, tenant: str, wanted: Filter) -> Page:
    if not 1 <= wanted.limit <= MAX_LIMIT:
        raise Refusal("malformed", f"The limit is between 1 and {MAX_LIMIT}.")
    clauses, values = ["view.tenant = ?"], list[Any]([tenant])

    def add(clause: str, *given: Any) -> None:
        clauses.append(clause)
        values.extend(given)

    for column in ("agent", "user", "session", "kind", "model", "effect", "status", "code", "action"):
        value = getattr(wanted, column)
        if value is not None:
            add(f'view."{column}" = ?', value)
    if wanted.tool is not None:
        add("(view.tool = ? OR view.server || '__' || view.tool = ?)", wanted.tool, wanted.tool)
    if wanted.type is not None and wanted.type.endswith("*"):
        add("substr(view.type, 1, ?) = ?", len(wanted.type) - 1, wanted.type[:-1])
    elif wanted.type is not None:
        add("view.type = ?", wanted.type)
    if wanted.rule is not None:
        add("replace(view.rules, ?, '') <> view.rules", f"|{wanted.rule}|")
    if wanted.case is not None:
        add("view.case_id = ?", wanted.case)
    if wanted.since_ns is not None:
        add("view.ts >= ?", rfc3339(wanted.since_ns))
    if wanted.until_ns is not None:
        add("view.ts < ?", rfc3339(wanted.until_ns))
    if not wanted.reads:
        add("view.type <> 'audit.read'")
    total = _count(connection, clauses, values)
    if wanted.cursor is not None:
        if not (wanted.cursor.isascii() and wanted.cursor.isdigit() and len(wanted.cursor) < 19):
            raise Refusal("malformed", "The cursor is not one that a page gave: leave it out to start anew.")
        add("view.idx < ?", int(wanted.cursor))
    # Only constants of this module enter the text; every value is bound.
    statement = (
        "SELECT view.idx, leaf.body FROM record_view AS view JOIN leaf ON leaf.idx = view.idx WHERE "  # noqa: S608
        f"{' AND '.join(clauses)} ORDER BY view.idx DESC LIMIT ?"
    )
    rows = connection.execute(statement, (*values, wanted.limit + 1)).fetchall()
    records = [as_document(idx, body) for idx, body in rows[: wanted.limit]]
    return Page(records, str(records[-1]["idx"]) if len(rows) > wanted.limit else None, total)


def _count(connection: Connection, clauses: list[str], values: list[Any]) -> int | None:
    some = f"SELECT 1 FROM record_view AS view WHERE {' AND '.join(clauses)} LIMIT ?"  # noqa: S608
    (count,) = connection.execute(f"SELECT count(*) FROM ({some}) AS counted", (*values, MAX_COUNTED + 1)).fetchone()  # noqa: S608
    return int(count) if count <= MAX_COUNTED else None


def as_document(idx: int, body: bytes) -> dict[str, Any]:
    """A record for people and machines: as stored, with its index."""
    return {"idx": idx, **msgspec.json.decode(body)}
