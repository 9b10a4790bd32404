"""The schema's version in PostgreSQL: looked at when a replica starts, changed by `gateway migrate` alone."""

from __future__ import annotations

from pathlib import Path

import psycopg

from gateway.errors import Refusal
from gateway.store.database import LostError
from gateway.store.postgres.connection import PostgresConnection, connect
from gateway.store.schema import HEAD

_MIGRATIONS = Path(__file__).parents[1] / "migrations"
_LOCK = 0x6761_7465_0002  # two migrations at once take turns


def version(url: str) -> str | None:
    """Revision of the database, None if it is empty. Raises LostError."""
    try:
        with connect(url, name="gateway schema") as raw:
            found = PostgresConnection(raw)
            is_there = found.execute("SELECT to_regclass('alembic_version') IS NOT NULL").fetchone() == (True,)
            row = found.execute("SELECT version_num FROM alembic_version").fetchone() if is_there else None
            return None if row is None else str(row[0])
    except psycopg.Error as error:
        raise LostError(" ".join(str(error).split())[:300]) from error


def check(url: str) -> None:
    """Raises Refusal(store_unavailable) where the schema is not this code's, and LostError."""
    found = version(url)
    if found == HEAD:
        return
    if found is not None and found > HEAD:
        raise Refusal(
            "store_unavailable",
            f"The database has schema {found}, which is newer than this gateway's {HEAD}: install the gateway version "
            "that migrated it, or a later one.",
        )
    raise Refusal(
        "store_unavailable",
        f"The database has schema {found or 'none'} and this gateway needs {HEAD}: run `gateway migrate` once, then "
        "start again.",
    )


def migrate(url: str) -> bool:
    """Bring the database to `HEAD`. True if anything was done. Raises Refusal and LostError."""
    found = version(url)
    if found == HEAD:
        return False
    if found is not None and found > HEAD:
        check(url)
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import OperationalError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    _, mark, rest = url.partition("://")
    engine = create_engine(f"postgresql+psycopg{mark}{rest}")
    try:
        with engine.begin() as connection:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except OperationalError as error:
        raise LostError(" ".join(str(error.orig).split())[:300]) from error
    finally:
        engine.dispose()
    return True
