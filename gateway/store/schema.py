"""The schema's version: a cheap look at every start, a script for a new database, alembic only for an older one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from gateway.errors import Refusal

HEAD = "0008"  # the newest revision in migrations/versions; a test keeps the two equal
FRESH = Path(__file__).with_name("fresh.sql")  # what the migrations make of an empty database; `fresh.py` writes it
_MIGRATIONS = Path(__file__).parent / "migrations"


def version(connection: sqlite3.Connection) -> str | None:
    """Revision of the database, None if it is empty."""
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        return None
    return None if row is None else str(row[0])


def is_current(path: Path) -> bool:
    """Whether the database is at this code's revision. Refusal(store_unavailable) if it is newer."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    connection = sqlite3.connect(path)
    try:
        found = version(connection)
    except sqlite3.DatabaseError as error:
        raise Refusal(
            "store_unavailable",
            f"The database {path} can't be read ({error}): restore it from a backup; "
            "`gateway audit verify` tells what of the trail is left.",
        ) from error
    finally:
        connection.close()
    if found is not None and found > HEAD:
        raise Refusal(
            "store_unavailable",
            f"The database {path} has schema {found}, which is newer than this gateway's {HEAD}: "
            "install the gateway version that wrote it, or a later one.",
        )
    return found == HEAD


def migrate(path: Path) -> bool:
    """Bring the database to `HEAD`, creating it if need be. True if anything was done.

    Revisions are zero-padded numbers so that "newer than the code" can be told. Raises Refusal(store_unavailable)
    for a newer or unreadable database.
    """
    if is_current(path):
        return False
    if not path.exists() or path.stat().st_size == 0:
        _create(path)
    if not is_current(path):
        upgrade(path)
    return True


def _create(path: Path) -> None:
    """Write the schema into a new database, whole or not at all: the script is one transaction."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(FRESH.read_text())


def upgrade(path: Path) -> None:
    """Run the migrations inside the package that the database at `path` does not have yet."""
    # Late: alembic and SQLAlchemy cost more time than the rest of a start.
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()
