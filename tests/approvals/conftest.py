"""A room of cases over a real writer and a real log, on a database that is migrated once and copied."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.store import schema
from gateway.store.connections import DATABASE_NAME
from tests.approvals.house import House


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / DATABASE_NAME
    assert schema.migrate(path)
    return path


@pytest.fixture
async def house(migrated: Path, tmp_path: Path) -> AsyncIterator[House]:
    folder = tmp_path / "var"
    folder.mkdir()
    shutil.copy(migrated, folder / DATABASE_NAME)
    house = House(folder)
    await house.start()
    try:
        yield house
    finally:
        await house.stop()
