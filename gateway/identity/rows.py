"""Rows of the control tables, written through SQLModel inside a transaction that somebody else holds.

The writer lends its connection for one change; SQLAlchemy must then neither commit, roll back nor close it, for
the change and its audit record are one transaction. Importing this module costs about a second (SQLAlchemy), so
it is imported in a thread at the first change, never at a start and never in the writer's own thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool
from sqlmodel import Session, SQLModel, select

from gateway.store.interface import Connection
from gateway.store.macs import COVERED, RowMacs
from gateway.store.tables import AgentKeyRow, AgentRow, ConsoleSessionRow, PersonRow, SignInRow

__all__ = [
    "AgentKeyRow",
    "AgentRow",
    "ConsoleSessionRow",
    "PersonRow",
    "SignInRow",
    "merging",
    "select",
    "session",
]


class _Lent:
    """A connection that is used but not owned: ending a transaction is left to its owner."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def commit(self) -> None:
        """The owner commits."""

    def rollback(self) -> None:
        """The owner undoes its savepoint."""

    def close(self) -> None:
        """The owner keeps it open."""


_SQLITE = "sqlite://"
_lent = threading.local()


@cache
def _engine(dialect: str) -> Engine:
    # Without a look for a type that no table of ours has: it would want a connection of the driver's own class.
    more = {} if dialect == _SQLITE else {"use_native_hstore": False}
    return create_engine(dialect, creator=lambda: _Lent(_lent.connection), poolclass=NullPool, **more)


@contextmanager
def session(connection: Connection) -> Iterator[Session]:
    """A session on `connection`; what was added is flushed at the end, and durable when the owner commits."""
    # PostgreSQL's stands behind our words for it; SQLAlchemy speaks its own.
    raw = getattr(connection, "raw", None)
    _lent.connection = connection if raw is None else raw
    try:
        with Session(_engine(_SQLITE if raw is None else "postgresql+psycopg://")) as inner:
            yield inner
            inner.flush()
    finally:
        del _lent.connection


def merging(macs: RowMacs, *rows: SQLModel) -> Callable[[Connection], None]:
    """A function that inserts or updates `rows` by their primary key, with their codes.

    It may be repeated: a change that became durable after its caller had given up is simply made again.
    """
    for row in rows:
        table = str(row.__tablename__)
        row.mac = macs.of(table, [getattr(row, name) for name in COVERED[table].columns])

    def write(connection: Connection) -> None:
        with session(connection) as inner:
            for row in rows:
                inner.merge(row)

    return write
