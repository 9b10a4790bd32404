"""Authenticates rows: a row counts only if a gateway with these keys wrote it, and only as it was written.

Owns: which columns of which table are covered, the code (HMAC-SHA-256, RFC 2104) in the column `mac`, and the list of
rows that were refused. Never does: know what a row means, or whether it is the newest one; the log proves that, and
whoever compares rows with the log says so here (`distrust`). Fails closed: a row without a valid code, or older than
one that was seen, is treated as absent and reported.

Whoever can read the keys as well can write valid rows. That is outside what this protects.
"""

from __future__ import annotations

import hmac
import re
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import structlog

from gateway.store.interface import Connection
from gateway.store.moments import next_moment, read_began

log = structlog.get_logger("gateway.store")

_NEVER = 2**63  # no row is as new as this
_REMEMBERED_FAULTS = 1000
_NAMED_FAULTS = 3
_MAC_BYTES = 32
_HASH = re.compile("(?:agt_)?([0-9a-f]{64})")  # of a secret; that of an API token has its prefix
# MessagePack tags every value with its type and length, so that no two rows have the same bytes.
_encode = msgspec.msgpack.Encoder().encode


class Covered(NamedTuple):
    """The columns of a table that its code covers, the primary key first.

    `counter` grows with every change. `ends`: once this column is set, the row never comes back to life. `later`: how
    many columns at the end came with a later version; those that are NULL up to the end are left out of the code, so
    that rows from before keep theirs.
    """

    columns: tuple[str, ...]
    keys: int = 1
    counter: str | None = None
    ends: str | None = None
    later: int = 0

    @property
    def listed(self) -> str:
        """The columns and the code, as SQL."""
        return ", ".join(f'"{name}"' for name in (*self.columns, "mac"))

    def age(self, row: Sequence[Any]) -> int:
        """What is larger the newer a state of the row is."""
        if self.counter is not None:
            return int(row[self.columns.index(self.counter)])
        if self.ends is not None:
            return int(row[self.columns.index(self.ends)] is not None)
        return 0

    def authenticated(self, values: Sequence[Any]) -> Sequence[Any]:
        """What of a row's values the code is made of. No two rows of a table have the same."""
        end = len(values)
        while end > len(self.columns) - self.later and values[end - 1] is None:
            end -= 1
        return values[:end]


COVERED: dict[str, Covered] = {
    "agent": Covered(
        (
            *("id", "tenant", "env", "version", "team", "use_case", "tier", "status", "owners", "next_review"),
            *("labels", "source", "created_ns", "change_no"),
        ),
        counter="change_no",
    ),
    "agent_key": Covered(
        ("id", "tenant", "agent_id", "key_sha256", "user", "created_ns", "expires_ns", "revoked_ns"),
        ends="revoked_ns",
    ),
    "person": Covered(
        ("id", "tenant", "name", "roles", "created_ns", "removed_ns", "groups", "change_no", "given"),
        counter="change_no",
        later=1,
    ),
    "sign_in": Covered(
        ("token_sha256", "person_id", "expires_ns", "used_ns", "makers", "parent"), ends="used_ns", later=2
    ),
    "console_session": Covered(
        ("token_sha256", "person_id", "created_ns", "expires_ns", "revoked_ns", "makers", "parent"),
        ends="revoked_ns",
        later=2,
    ),
    "spend": Covered(("tenant", "level", "window", "replica", "nanousd", "tokens"), keys=4),
    "approval_case": Covered(
        (
            *("id", "tenant", "kind", "action_id", "parent", "digest", "idempotency", "agent", "user", "server"),
            *("tool", "risk", "effect", "rules", "definition_digest", "state", "open", "version", "fence"),
            *("requirement", "presented_digest", "asked", "opened_ns", "expires_ns", "decided_ns", "ended_ns"),
            *("told_until_ns", "code", "why", "released_to", "written", "votes", "findings"),
        ),
        counter="version",
        later=1,
    ),
    "case_vote": Covered(
        ("id", "case_id", "person", "choice", "presented_digest", "reason", "guidance", "ts_ns", "makers"), later=1
    ),
    "case_comment": Covered(("id", "case_id", "person", "text", "ts_ns")),
    "case_key": Covered(("idempotency", "case_id")),
    "case_attempt": Covered(
        ("case_id", "fence", "started_ns", "ended_ns", "outcome", "note", "replica"), keys=2, ends="ended_ns"
    ),
    "recorded": Covered(("tenant", "size", "state")),
}
"""Every table whose rows are believed by what they say. `docs/architecture.md` says why the others need no code."""


class RowMacs:
    """Makes and checks the codes of rows. Any thread may use it."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        # How old a row may be to be believed, and the moment since which this is known.
        self._floors: dict[tuple[str, str], tuple[int, int]] = {}
        self._faults: dict[tuple[str, str], str] = {}
        self._count = 0
        self._lock = threading.Lock()

    # ------------------------------------------------------------ codes

    def of(self, table: str, values: Sequence[Any]) -> bytes:
        """The code of a row, from the values of its covered columns in their order."""
        return hmac.digest(self._key, _encode((table, *COVERED[table].authenticated(values))), "sha256")

    def of_named(self, table: str, values: dict[str, Any]) -> bytes:
        """The same by names; a column that is left out is NULL."""
        return self.of(table, [values.get(name) for name in COVERED[table].columns])

    def is_ours(self, table: str, row: Sequence[Any]) -> bool:
        """Whether a gateway wrote this row (`Covered.listed`: the covered columns, then the code) as it is now."""
        *values, mac = row
        if not isinstance(mac, bytes) or len(mac) != _MAC_BYTES:
            return False
        try:
            return hmac.compare_digest(mac, self.of(table, values))
        except (TypeError, ValueError, OverflowError):  # a value that we never write has no form to authenticate
            return False

    # ------------------------------------------------------------ reading

    def read(self, db: Connection, table: str, where: str = "", values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows that are believed, with their covered columns. `where` is SQL of the caller's own."""
        statement = f"SELECT {COVERED[table].listed} FROM {table} {where}"  # noqa: S608 - names of ours
        began = read_began()
        return [tuple(row[:-1]) for row in db.execute(statement, values) if self.believes(table, row, began)]

    def believes(self, table: str, row: Sequence[Any], began: int) -> bool:
        """Whether a row (see `is_ours`) that was read since `began` counts; if not, it is reported."""
        covered = COVERED[table]
        if not self.is_ours(table, row):
            self.report(table, key_of(table, row), "was not written by this gateway, or was changed since")
            return False
        floor = self._floors.get((table, key_of(table, row))) if self._floors else None
        if floor is not None and covered.age(row) < floor[0] and floor[1] <= began:
            self.report(table, key_of(table, row), "is an older state of the row that was put back")
            return False
        return True

    # ------------------------------------------------------------ writing

    def change(self, db: Connection, table: str, where: str, values: Sequence[Any], **changes: Any) -> int:
        """Set columns of the believed rows that `where` finds, and their codes; how many rows that were."""
        covered = COVERED[table]
        names = [f'"{name}"' for name in changes]
        keys = " AND ".join(f'"{name}" = ?' for name in covered.columns[: covered.keys])
        update = f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in names)}, mac = ? WHERE {keys}"  # noqa: S608
        rows = self.read(db, table, where, values)
        for row in rows:
            changed = dict(zip(covered.columns, row, strict=True)) | changes
            mac = self.of_named(table, changed)
            db.execute(update, (*changes.values(), mac, *row[: covered.keys]))
        return len(rows)

    def insert(self, db: Connection, table: str, **values: Any) -> int:
        """Add a row with its code; a column that is left out is NULL. 0 where the row is there already."""
        columns = [f'"{name}"' for name in values]
        marks = ", ".join("?" * (len(values) + 1))
        done = db.execute(
            f"INSERT INTO {table} ({', '.join(columns)}, mac) VALUES ({marks}) ON CONFLICT DO NOTHING",  # noqa: S608
            (*values.values(), self.of_named(table, values)),
        )
        return done.rowcount

    # ------------------------------------------------------------ freshness

    def saw(self, table: str, key: str, age: int) -> None:
        """A durable row has this `Covered.age`: an older state of it counts no more. Call it after the commit."""
        with self._lock:
            at = (table, key)
            if age > self._floor(at):
                self._floors[at] = (age, next_moment())

    def forget(self, table: str, key: str) -> None:
        """An older state of this row can do no harm any more."""
        self._floors.pop((table, key), None)

    def distrust(self, table: str, row: Sequence[Any], reason: str, *, for_ever: bool = False) -> None:
        """The log contradicts this row: it is reported, and only a newer state of it counts from now on, if any."""
        covered = COVERED[table]
        has_age = not for_ever and (covered.counter is not None or covered.ends is not None)
        self.saw(table, key_of(table, row), covered.age(row) + 1 if has_age else _NEVER)
        self.report(table, key_of(table, row), reason)

    def next_change(self, table: str, key: str, before: int) -> int:
        """The counter of a new state of a row whose counter is `before`: larger than any that was seen or refused."""
        return max(before + 1, self._floor((table, key)))

    def _floor(self, at: tuple[str, str]) -> int:
        return self._floors.get(at, (0, 0))[0]

    # ------------------------------------------------------------ reporting

    def report(self, table: str, key: str, reason: str) -> None:
        """Somebody else changed a row: once per row in the log, and in `fault`."""
        with self._lock:
            if (table, key) in self._faults:
                return
            self._count += 1
            if len(self._faults) < _REMEMBERED_FAULTS:
                self._faults[table, key] = reason
        log.error("row_ignored", table=table, row=key, reason=reason)

    @property
    def fault(self) -> str | None:
        """What was found, in one paragraph for people; None if every row was as the gateway left it."""
        if not self._count:
            return None
        found = list(self._faults.items())[:_NAMED_FAULTS]
        named = "; ".join(f"table {table}, row {key}: it {reason}" for (table, key), reason in found)
        more = f"; and {self._count - len(found)} more" if self._count > len(found) else ""
        return (
            f"Somebody else writes to the database. Ignored: {named}{more}. Run `gateway audit verify`, find out who it"
            " was, and restore the database from a backup."
        )


def key_of(table: str, row: Sequence[Any]) -> str:
    """The primary key of a row for people; hashes of secrets are cut short."""
    return "/".join(_short(value) for value in row[: COVERED[table].keys])


def _short(value: Any) -> str:
    text = str(value)
    hashed = _HASH.fullmatch(text)
    if hashed is not None:
        return hashed[1][:16]
    return text[:120] if text.isprintable() else ascii(text)[:120]
