"""Writes `fresh.sql`, the schema of a new embedded database: a first start then needs neither alembic nor SQLAlchemy.

Run `python -m gateway.store.fresh` after adding a migration; a test compares the script with the migrations. A script
older than the newest migration is still right: `schema.migrate` upgrades what it made.
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from gateway.store import schema


def script_of(path: Path) -> str:
    """The script that makes a database with the schema and the rows of the one at `path`."""
    with closing(sqlite3.connect(path)) as connection:
        return "\n".join(connection.iterdump()) + "\n"


def main() -> None:
    """Write the script of what the migrations make."""
    with tempfile.TemporaryDirectory() as folder:
        migrated = Path(folder) / "migrated.db"
        schema.upgrade(migrated)
        schema.FRESH.write_text(script_of(migrated))


if __name__ == "__main__":
    main()
