from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.fixtures import make_house
from tests.telemetry.receiver import Collector

__all__ = ["collector", "make_house"]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector
