"""A PostgreSQL connection that understands the rooms' statements: `?` for values, SQLite's words for types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from gateway.store.interface import Connection

_OPTIONS = {
    # What is acknowledged survives a power cut of the server, whatever its own default is.
    "synchronous_commit": "on",
    "timezone": "UTC",
    # In milliseconds. A statement of ours takes one; what takes thousands of times that has met something wrong.
    "statement_timeout": "10000",
    "lock_timeout": "4000",
    # A process that was stopped in the middle of a transaction must not hold up the others for longer than this.
    "idle_in_transaction_session_timeout": "4000",
}
LOST: tuple[type[psycopg.Error], ...] = (psycopg.OperationalError, psycopg.errors.IdleInTransactionSessionTimeout)
"""Errors that are no statement's fault, but the server's, the connection's or the time that was taken."""
_CONNECT_TIMEOUT_S = 3
_SILENT_MS = 5_000  # a peer that answers no packet for so long is gone
_STRING = re.compile(r"('(?:[^']|'')*')")
# Lists go in binary: as text, each of their values is searched and quoted, which costs more than all else in a batch.
_LIST = re.compile(r"\?(?=::\w+\[\])")


@cache
def translated(sql: str) -> str:
    """A statement in PostgreSQL's words."""
    parts = _STRING.split(sql.replace("%", "%%"))
    parts[::2] = [_LIST.sub("%b", part).replace("?", "%s").replace(" AS BLOB)", " AS bytea)") for part in parts[::2]]
    return "".join(parts)


class PostgresConnection:
    """See `interface.Connection`. Transactions are begun and ended by statements, by whoever owns the connection."""

    dialect = "postgresql"

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self.raw = raw

    @property
    def in_transaction(self) -> bool:
        """Whether one is open, also one that an error has ended but for its rollback."""
        return self.raw.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> psycopg.Cursor[Any]:
        """Run one statement."""
        return self.raw.execute(translated(sql).encode(), parameters)

    def executemany(self, sql: str, parameters: Any, /) -> psycopg.Cursor[Any]:
        """Run one statement for each of many rows, without waiting for each."""
        cursor = self.raw.cursor()
        cursor.executemany(translated(sql).encode(), parameters)
        return cursor


def connect(url: str, *, name: str) -> psycopg.Connection[Any]:
    """A new connection. `name` is what the server shows of it. Raises psycopg.Error."""
    return psycopg.connect(
        url,
        autocommit=True,  # BEGIN and COMMIT are ours
        application_name=name[:63],
        connect_timeout=_CONNECT_TIMEOUT_S,
        tcp_user_timeout=_SILENT_MS,
        options=" ".join(f"-c {key}={value}" for key, value in _OPTIONS.items()),
    )


def at_once(connection: Connection) -> AbstractContextManager[object]:
    """A block whose statements are sent without waiting for each; the first error is raised at its end."""
    return connection.raw.pipeline() if isinstance(connection, PostgresConnection) else nullcontext()
