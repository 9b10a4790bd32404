"""Commands beside replicas that need no running one: `gateway migrate` and `gateway audit verify`, as scripts see them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.app import App
from gateway.cli import run
from tests.replicas.house import lay_out, process_of


@pytest.fixture
async def replica(tmp_path: Path, postgres_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory of a replica that ran and ended; its environment is ours."""
    monkeypatch.delenv("LEDGER_URL", raising=False)
    lay_out(tmp_path)
    process = process_of(tmp_path, "replica", postgres_url, redis_url)
    app = App(process)
    await app.start()
    await app.stop(1)
    for name, value in (("DATABASE_URL", postgres_url), ("REDIS_URL", redis_url), ("KEYS_DIR", str(process.keys_dir))):
        monkeypatch.setenv(f"GATEWAY_{name}", value)
    monkeypatch.setenv("GATEWAY_CONFIG", str(process.config))
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(process.data_dir))
    return process.data_dir


def test_the_trail_is_verified_from_where_the_environment_says(
    replica: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["audit", "verify"]) == 0
    assert "operator-signed" in capfd.readouterr().out
    monkeypatch.delenv("GATEWAY_DATABASE_URL")
    monkeypatch.delenv("GATEWAY_REDIS_URL")
    monkeypatch.delenv("GATEWAY_KEYS_DIR")
    for folder in (replica, replica.parent / "common"):
        if folder != replica:  # as workers have it
            folder.mkdir()
            replica.rename(folder / "worker-1")
        assert run(["audit", "verify", "--data-dir", str(folder)]) == 2
        said = capfd.readouterr()
        assert said.out == ""
        (sentence,) = said.err.splitlines()
        assert f"{folder} is the folder of a replica" in sentence
        assert "set GATEWAY_DATABASE_URL" in sentence


def test_a_database_that_is_away_is_no_verdict(
    replica: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/gateway")
    assert run(["audit", "verify", "--json"]) == 2
    said = capfd.readouterr()
    assert said.out == ""
    (sentence,) = said.err.splitlines()
    assert sentence.startswith("gateway: The trail could not be read: PostgreSQL can't be reached (")


@pytest.mark.parametrize("name", ["approvals.key", "mcp-session.key", "digest.key"])
def test_a_lost_key_of_a_log_with_records_comes_from_the_backup_and_is_not_made(
    replica: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    key = replica.parent / "keys" / name
    key.unlink()
    assert run(["migrate"]) == 1
    sentence = capfd.readouterr().err
    assert f"{key} is missing" in sentence
    assert "restore it from a backup" in sentence
    assert "run `gateway migrate`" not in sentence
    assert not key.exists()
