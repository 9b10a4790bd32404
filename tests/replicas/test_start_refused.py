"""A replica that does not fit to the others does not start, and says what to do."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from gateway.app import App
from gateway.errors import Refusal
from gateway.keys import make_keys
from gateway.process import load
from tests.footing import ORIGIN
from tests.replicas.house import lay_out, process_of


async def why_not(folder: Path, database_url: str, redis_url: str) -> str:
    """The sentence with which a replica does not start."""
    with pytest.raises(Refusal) as refused:
        await App(process_of(folder, "late", database_url, redis_url)).start()
    return refused.value.message


@pytest.mark.parametrize(
    ("name", "url"), [("GATEWAY_DATABASE_URL", "postgresql://db/gateway"), ("GATEWAY_REDIS_URL", "redis://cache")]
)
def test_one_engine_without_the_other(name: str, url: str) -> None:
    process, problems = load({name: url})
    assert process is None
    (problem,) = problems
    assert problem.message.startswith(f"{name} is set without GATEWAY_")


async def test_a_database_without_a_schema_or_with_a_newer_one(
    tmp_path: Path, empty_postgres_url: str, redis_url: str
) -> None:
    lay_out(tmp_path)
    assert "run `gateway migrate` once" in await why_not(tmp_path, empty_postgres_url, redis_url)
    with psycopg.connect(empty_postgres_url, autocommit=True) as database:
        database.execute(b"CREATE TABLE alembic_version (version_num text)")
        database.execute(b"INSERT INTO alembic_version VALUES ('9999')")
    assert "newer than this gateway's" in await why_not(tmp_path, empty_postgres_url, redis_url)


async def test_a_database_that_is_not_there(tmp_path: Path, redis_url: str) -> None:
    lay_out(tmp_path)
    sentence = await why_not(tmp_path, "postgresql://nobody@127.0.0.1:9/gateway", redis_url)
    assert sentence.startswith("PostgreSQL can't be reached: ")
    assert "GATEWAY_DATABASE_URL" in sentence


async def test_other_keys_than_those_of_the_others_or_none(
    tmp_path: Path, postgres_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LEDGER_URL", raising=False)
    lay_out(tmp_path)
    first = App(process_of(tmp_path, "first", postgres_url, redis_url))
    await first.start()
    try:
        keys = tmp_path / "keys"
        keys.rename(tmp_path / "theirs")
        make_keys(keys, ORIGIN, is_new=True)
        sentence = await why_not(tmp_path, postgres_url, redis_url)
        assert "not the one that the others have" in sentence
        assert "GATEWAY_KEYS_DIR" in sentence
        keys.rename(tmp_path / "mine")
        assert "missing" in await why_not(tmp_path, postgres_url, redis_url)
    finally:
        await first.stop(1)


@pytest.mark.parametrize("name", ["approvals.key", "mcp-session.key"])
async def test_one_other_key_than_the_others_have(
    tmp_path: Path, postgres_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("LEDGER_URL", raising=False)
    lay_out(tmp_path)
    first = App(process_of(tmp_path, "first", postgres_url, redis_url))
    await first.start()
    try:
        key = tmp_path / "keys" / name
        key.write_bytes(key.read_bytes()[::-1])
        sentence = await why_not(tmp_path, postgres_url, redis_url)
        assert f"The {key.stem} key of this replica is not the one that the others have" in sentence
        key.write_bytes(b"")
        assert f"{key} is not a key of 32 bytes" in await why_not(tmp_path, postgres_url, redis_url)
    finally:
        await first.stop(1)


async def test_a_data_directory_that_another_replica_has(
    tmp_path: Path, postgres_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LEDGER_URL", raising=False)
    lay_out(tmp_path)
    first = App(process_of(tmp_path, "late", postgres_url, redis_url))
    await first.start()
    try:
        assert "is in use by another gateway" in await why_not(tmp_path, postgres_url, redis_url)
    finally:
        await first.stop(1)
    again = App(process_of(tmp_path, "late", postgres_url, redis_url))
    await again.start()
    await again.stop(1)
