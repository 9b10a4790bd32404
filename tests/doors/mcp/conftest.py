from __future__ import annotations

import pytest

from tests.doors.mcp.house import House, tool


@pytest.fixture
def house() -> House:
    """A house with two tool servers: `ledger` (get_balance, transfer) and `git` (log)."""
    house = House()
    house.rooms.add(tool("ledger", "get_balance"))
    house.rooms.add(tool("ledger", "transfer", effect="write"))
    house.rooms.add(tool("git", "log"))
    return house
