"""Table `spend` on disk: what was spent per tenant, level and window. The memory's counters restart from it."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.limits.interface import SpendRow
from gateway.limits.windows import Windows
from gateway.store.interface import Connection

_ADD = """
INSERT INTO spend (tenant, level, "window", replica, nanousd, tokens) VALUES (?, ?, ?, '', ?, ?)
ON CONFLICT (tenant, level, "window", replica)
DO UPDATE SET nanousd = spend.nanousd + excluded.nanousd, tokens = spend.tokens + excluded.tokens
"""

_READ = 'SELECT tenant, level, "window", nanousd, tokens FROM spend WHERE "window" IN (?, ?)'


def add_spend(rows: Sequence[SpendRow], connection: Connection) -> None:
    """Add to the table inside the caller's transaction."""
    connection.executemany(_ADD, rows)


def add_nothing(_connection: Connection) -> None:
    """What a settlement returns that has nothing to book."""


def read_spend(connection: Connection, windows: Windows) -> list[SpendRow]:
    """What was spent in these windows, for `Limits.restore`."""
    return list(connection.execute(_READ, (windows.day, windows.month)))
