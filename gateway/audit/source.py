"""Where a verifier reads a trail from: a data directory's file, or the database that replicas share."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from gateway.audit.keys import signing_key
from gateway.store.connections import DATABASE_NAME, open_for_reading
from gateway.store.interface import Connection
from gateway.store.lock import is_held

_DAMAGED = "58"
"""The class of errors of a PostgreSQL that does not find or can't read its own files: something is wrong then."""

_NOT_ALLOWED = "42501"
"""The error of a PostgreSQL that lets this user in, but not at the tables."""


class UnreadableError(Exception):
    """The trail could not be read, so that nothing is found of it, neither good nor bad. Its text is one sentence."""


class WrongKeyError(UnreadableError):
    """A key is not this log's, so that nothing was verified. Its text is one sentence."""


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
        """A connection that can't write. Raises UnreadableError, also from what is done in it."""
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
        path = self._data_dir / DATABASE_NAME
        if not path.exists():
            raise sqlite3.OperationalError(
                f"there is no {path}; the trail of replicas is in PostgreSQL, which GATEWAY_DATABASE_URL names"
            )
        connection = open_for_reading(path)
        try:
            yield connection
        finally:
            connection.close()


def is_replicas(data_dir: Path) -> bool:
    """Whether this is a replica's folder (or that of workers), which keeps no trail but the newest checkpoint.

    A data directory whose database was deleted must not look like one: it has the log's keys beside its checkpoint.
    """
    if (data_dir / DATABASE_NAME).exists():
        return False
    if _has_seen(data_dir):
        return not signing_key(data_dir / "keys").exists()
    return any(map(_has_seen, data_dir.glob("worker-*")))


def _has_seen(folder: Path) -> bool:
    """Whether it keeps what a gateway saw of a log."""
    return any((folder / "audit" / name).exists() for name in ("vkey", "checkpoint"))


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
        except UnreadableError:  # as whoever reads the trail itself will be told
            return False

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """See `Source.read`."""
        import psycopg

        from gateway.store.postgres.connection import LOST, PostgresConnection, connect

        try:
            raw = connect(self._url, name="gateway audit verify")
        except psycopg.OperationalError as error:
            raise UnreadableError(_told("PostgreSQL can't be reached", error)) from error
        except psycopg.Error as error:  # whose text may quote the password
            raise UnreadableError(
                f"The trail could not be read: the address of PostgreSQL is not understood ({type(error).__name__}); "
                "correct GATEWAY_DATABASE_URL."
            ) from error
        with raw:
            try:
                # A whole walk is one transaction, which may rest between two records.
                raw.execute("SET statement_timeout = 0")
                raw.execute("SET idle_in_transaction_session_timeout = 0")
                raw.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                yield PostgresConnection(raw)
            except psycopg.Error as error:
                state = error.sqlstate or ""
                is_away = isinstance(error, LOST) and not state.startswith(_DAMAGED)
                if not (raw.broken or is_away or state == _NOT_ALLOWED):
                    raise
                raise UnreadableError(_told("PostgreSQL does not give all of it", error)) from error


def _told(what: str, error: Exception) -> str:
    said = " ".join(str(error).split())[:300].rstrip(".")
    return f"The trail could not be read: {what} ({said}); correct GATEWAY_DATABASE_URL or start it, and verify again."
