"""Every implementation of `Limits`; the contract's tests run over each."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.clock import Clock, ManualClock
from gateway.limits import AllowanceTable, Limits, MemoryLimits

MakeLimits = Callable[[Clock, AllowanceTable], Limits]

IMPLEMENTATIONS: dict[str, MakeLimits] = {"memory": MemoryLimits}

NOON_NS = 1_795_348_800_000_000_000  # 2026-11-22T12:00:00Z


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def make_limits(request: pytest.FixtureRequest) -> MakeLimits:
    """Makes the implementation under test."""
    return IMPLEMENTATIONS[request.param]


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands at noon of 22 November 2026, UTC."""
    return ManualClock(NOON_NS)
