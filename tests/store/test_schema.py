"""The schema: one head, equal to the models, cheap to check, and never downgraded silently."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlmodel import SQLModel

import gateway
from gateway.errors import Refusal
from gateway.store import Writer, schema, tables
from gateway.store.connections import open_for_writing
from gateway.store.fresh import script_of


def test_the_version_in_code_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == schema.HEAD


def test_a_new_database_is_what_the_migrations_make(migrated: Path, tmp_path: Path) -> None:
    upgraded = tmp_path / "upgraded.db"
    schema.upgrade(upgraded)
    assert schema.FRESH.read_text() == script_of(upgraded), "run python -m gateway.store.fresh"
    assert script_of(migrated) == script_of(upgraded)
    for pragma in ("user_version", "application_id", "encoding", "auto_vacuum", "page_size", "journal_mode"):
        assert _pragma(migrated, pragma) == _pragma(upgraded, pragma)


def test_a_new_database_of_an_older_script_is_upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = tmp_path / "older.sql"
    older.write_text("BEGIN; CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL); COMMIT;")
    monkeypatch.setattr(schema, "FRESH", older)
    assert schema.migrate(tmp_path / "gateway.db")
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as database:
        assert schema.version(database) == schema.HEAD


def _pragma(path: Path, name: str) -> object:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(f"PRAGMA {name}").fetchone()


def test_migrated_tables_equal_the_models(migrated: Path) -> None:
    engine = create_engine(f"sqlite:///{migrated}")
    models = [model for model in vars(tables).values() if isinstance(model, type) and issubclass(model, SQLModel)]
    names = {str(model.__tablename__) for model in models if model is not SQLModel}
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": lambda name, kind, _: kind != "table" or name in names}
        )
        assert compare_metadata(context, SQLModel.metadata) == []
    engine.dispose()


def test_migrating_twice_changes_nothing(migrated: Path) -> None:
    before = migrated.read_bytes()
    assert not schema.migrate(migrated)
    assert migrated.read_bytes() == before


@pytest.mark.parametrize("name", ["current", "new"])
def test_a_start_imports_neither_alembic_nor_sqlmodel(name: str, data_dir: Path, tmp_path: Path) -> None:
    code = (
        "import asyncio, sys, pathlib; from gateway.store import Writer\n"
        "async def main():\n"
        "    writer = Writer.open(pathlib.Path(sys.argv[1])); await writer.close()\n"
        "asyncio.run(main())\n"
        "sys.exit(any(name in sys.modules for name in ('alembic', 'sqlalchemy', 'sqlmodel', 'pydantic')))"
    )
    root = str(Path(gateway.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code, str(data_dir if name == "current" else tmp_path / name)],
        cwd=root,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0


def test_a_newer_database_is_refused_in_one_sentence(data_dir: Path) -> None:
    connection = sqlite3.connect(data_dir / "gateway.db")
    connection.execute("UPDATE alembic_version SET version_num = '9000'")
    connection.commit()
    connection.close()
    with pytest.raises(Refusal, match="schema 9000, which is newer than this gateway's") as caught:
        Writer.open(data_dir)
    assert caught.value.code == "store_unavailable"


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").write_bytes(b"not a database" * 500)
    with pytest.raises(Refusal, match="can't be read"):
        Writer.open(tmp_path)


def test_a_database_that_was_open_to_others_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    for name in ("gateway.db", "gateway.db-wal", "gateway.db-shm"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o644)
    connection = open_for_writing(path)
    connection.execute("CREATE TABLE t (x)")
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
    connection.close()
