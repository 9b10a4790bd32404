"""Table `spend` on disk: what was spent per tenant, level and window. The memory's counters restart from it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from gateway.limits.interface import SpendRow

_ADD = """
INSERT INTO spend (tenant, level, "window", nanousd, tokens) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (tenant, level, "window")
DO UPDATE SET nanousd = nanousd + excluded.nanousd, tokens = tokens + excluded.tokens
"""


def add_spend(rows: Sequence[SpendRow], connection: sqlite3.Connection) -> None:
    """Add to the table inside the caller's transaction."""
    connection.executemany(_ADD, rows)


def add_nothing(_connection: sqlite3.Connection) -> None:
    """What a settlement returns that has nothing to book."""


def read_spend(connection: sqlite3.Connection, windows: Sequence[str]) -> list[SpendRow]:
    """The rows of these windows, for `Limits.restore`."""
    marks = ", ".join("?" for _ in windows)
    query = f'SELECT tenant, level, "window", nanousd, tokens FROM spend WHERE "window" IN ({marks})'  # noqa: S608 - only question marks are put in
    return list(connection.execute(query, tuple(windows)))
