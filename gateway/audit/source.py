"""Where a verifier reads a trail from: a data directory's file, or the database that replicas share."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from gateway.store.connections import DATABASE_NAME, open_for_reading
from gateway.store.interface import Connection
from gateway.store.lock import is_held


class Source(Protocol):
    """A trail to verify."""

    folder: Path
    """Holds the public key and the newest checkpoint that this machine has seen."""
    keys: Path
    faults: tuple[type[Exception], ...]
    """What reading may raise; a finding then, not the end."""
    bytes_type: str
    """What the database calls bytes."""
    shared: bool

    def running(self) -> bool:
        """Whether anybody writes it now."""
        ...

    def read(self) -> AbstractContextManager[Connection]:
        """A connection that can't write."""
        ...


class FileSource:
    """The embedded database of a data directory."""

    faults: tuple[type[Exception], ...] = (sqlite3.Error, TypeError)
    bytes_type = "blob"
    shared = False

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / "audit"
        self.keys = data_dir / "keys"
        self._data_dir = data_dir

    def running(self) -> bool:
        """See `Source.running`."""
        return is_held(self._data_dir)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """See `Source.read`."""
        connection = open_for_reading(self._data_dir / DATABASE_NAME)
        try:
            yield connection
        finally:
            connection.close()


def _newest(data_dir: Path) -> Path:
    """Where this machine keeps the newest checkpoint; workers that share a socket have a folder each."""
    own = data_dir / "audit"
    kept = [one for one in (own, *data_dir.glob("worker-*/audit")) if (one / "checkpoint").exists()]
    return max(kept, key=lambda one: (one / "checkpoint").stat().st_mtime_ns, default=own)


class PostgresSource:
    """The database that replicas share, as of one moment: what is written meanwhile is not seen."""

    bytes_type = "bytea"
    shared = True

    def __init__(self, url: str, data_dir: Path, keys: Path) -> None:
        import psycopg

        from gateway.store.database import LostError

        self.faults: tuple[type[Exception], ...] = (psycopg.Error, LostError, TypeError)
        self.folder = _newest(data_dir)
        self.keys = keys
        self._url = url

    def running(self) -> bool:
        """See `Source.running`: whether a replica is alive."""
        try:
            with self.read() as connection:
                return bool(connection.execute("SELECT 1 FROM replica WHERE ended_ns IS NULL LIMIT 1").fetchone())
        except self.faults:
            return False

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """See `Source.read`."""
        from gateway.store.postgres.connection import PostgresConnection, connect

        with connect(self._url, name="gateway audit verify") as raw:
            # A whole walk is one transaction, which may rest between two records.
            raw.execute("SET statement_timeout = 0")
            raw.execute("SET idle_in_transaction_session_timeout = 0")
            raw.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield PostgresConnection(raw)
