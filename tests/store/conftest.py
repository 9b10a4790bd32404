"""A migrated database once per session, copied for each test: alembic takes longer than the tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.store import schema
from gateway.store.connections import DATABASE_NAME


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / DATABASE_NAME
    assert schema.migrate(path)
    return path


@pytest.fixture
def data_dir(migrated: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "var"
    folder.mkdir()
    shutil.copy(migrated, folder / DATABASE_NAME)
    return folder
