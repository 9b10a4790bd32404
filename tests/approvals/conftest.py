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


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str | None:
    """The store that the room stands on: a file, or a real PostgreSQL."""
    return None if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def house(migrated: Path, tmp_path: Path, url: str | None) -> AsyncIterator[House]:
    folder = tmp_path / "var"
    folder.mkdir()
    if url is None:
        shutil.copy(migrated, folder / DATABASE_NAME)
    house = House(folder, url)
    await house.start()
    try:
        yield house
    finally:
        await house.stop()
