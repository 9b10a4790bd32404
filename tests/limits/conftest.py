"""Every implementation of `Limits`; the contract's tests run over each."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.clock import ManualClock
from tests.limits.footings import NOON_NS, Embedded, MakeLimits, OnRedis

IMPLEMENTATIONS = ("memory", "redis")


@pytest.fixture(params=IMPLEMENTATIONS)
async def make_limits(request: pytest.FixtureRequest) -> AsyncIterator[MakeLimits]:
    """Makes the implementation under test."""
    made = Embedded() if request.param == "memory" else OnRedis(request.getfixturevalue("redis_url"))
    yield made
    await made.close()


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands at noon of 22 November 2026, UTC."""
    return ManualClock(NOON_NS)
