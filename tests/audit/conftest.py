"""A migrated data directory for each test: migrated once, copied, since alembic takes longer than the tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.store import schema
from gateway.store.connections import DATABASE_NAME
from tests.audit.house import House


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / DATABASE_NAME
    assert schema.migrate(path)
    return path


@pytest.fixture
def house(request: pytest.FixtureRequest, migrated: Path, tmp_path: Path) -> House:
    """On a file, or where a test asks for both (`BOTH`) also on a real PostgreSQL."""
    folder = tmp_path / "var"
    folder.mkdir()
    if getattr(request, "param", "sqlite") == "postgresql":
        return House(folder, str(request.getfixturevalue("postgres_url")))
    shutil.copy(migrated, folder / DATABASE_NAME)
    return House(folder)
