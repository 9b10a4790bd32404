"""Gives codes to rows that were written before rows had any: once, after they were compared with the log.

An upgrade must end no session, vote or key, and must not turn what somebody forged before into a row of ours. So a row
that its records contradict gets no code; it is reported like any other row without one. Once the log says that rows
are authenticated (`gateway.start` with the label `rows`) nothing is sealed any more, whatever the database asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import structlog

from gateway.audit.check import Report
from gateway.errors import Refusal
from gateway.store.interface import Connection
from gateway.store.macs import COVERED, RowMacs, key_of

log = structlog.get_logger("gateway.audit")

_AT_ONCE = 500
# A case's row counts its votes, so they come first.
_ORDER = ("case_vote", *(table for table in COVERED if table not in ("case_vote", "recorded")))


class Chunk(NamedTuple):
    """Rows of one table that are sealed in one transaction, by their primary keys."""

    table: str
    keys: list[tuple[Any, ...]]


def is_wanted(db: Connection) -> bool:
    """Whether rows wait to be sealed."""
    return db.execute("SELECT 1 FROM unsealed LIMIT 1").fetchone() is not None


def plan(db: Connection, report: Report) -> list[Chunk]:
    """What is sealed, given what `gateway audit verify` found. Raises Refusal where the log itself does not hold."""
    if report.rows_sealed:
        log.error("rows_not_sealed", reason="The log says that rows were authenticated before.")
        return []
    if not report.records_hold:
        first = report.findings[0].message if report.findings else "the log can't be verified"
        raise Refusal(
            "audit_unavailable",
            "The rows of the database can't be compared with the audit log, which is not as it was signed: "
            f"{first}. Run `gateway audit verify` and restore the database from a backup.",
        )
    contradicted = set(report.contradicted)
    waiting = {str(name) for (name,) in db.execute("SELECT name FROM unsealed")}
    chunks = []
    for table in (table for table in _ORDER if table in waiting):
        keys = [key for key in _unsealed(db, table) if (table, key_of(table, key)) not in contradicted]
        chunks += [Chunk(table, keys[at : at + _AT_ONCE]) for at in range(0, len(keys), _AT_ONCE)]
    for table, key in sorted(contradicted):
        if table in waiting:
            log.error("row_not_sealed", table=table, row=key, reason="The audit log contradicts it.")
    return chunks


def seal(db: Connection, macs: RowMacs, chunk: Chunk) -> None:
    """Seal the rows of a chunk as they are."""
    covered = COVERED[chunk.table]
    where = " AND ".join(f'"{name}" = ?' for name in covered.columns[: covered.keys])
    find = f"SELECT {covered.listed} FROM {chunk.table} WHERE {where}"  # noqa: S608 - names of ours
    write = f"UPDATE {chunk.table} SET mac = ? WHERE {where}"  # noqa: S608 - names of ours
    for key in chunk.keys:
        if chunk.table == "approval_case":
            votes = "(SELECT count(*) FROM case_vote WHERE case_id = approval_case.id AND mac IS NOT NULL)"
            db.execute(f"UPDATE approval_case SET votes = {votes} WHERE id = ?", key)  # noqa: S608 - ours
        row = db.execute(find, key).fetchone()
        db.execute(write, (macs.of(chunk.table, row[:-1]), *key))


def finish(db: Connection) -> None:
    """Nothing waits any more."""
    db.execute("DELETE FROM unsealed")


def _unsealed(db: Connection, table: str) -> Iterator[tuple[Any, ...]]:
    covered = COVERED[table]
    keys = ", ".join(f'"{name}"' for name in covered.columns[: covered.keys])
    rows: Iterable[Any] = db.execute(f"SELECT {keys} FROM {table} WHERE mac IS NULL")  # noqa: S608 - names of ours
    return (tuple(row) for row in rows)
