from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.quickstart.ledger_child import ledger
from gateway.quickstart.servers import PostgresServer, RedisServer
from tests.e2e.wiretap import Wiretap
from tests.replicas.house import Pair

_TOKEN = "not-secret"


@pytest.fixture(scope="session")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The ledger that the tests share: its file and its address."""
    folder = tmp_path_factory.mktemp("ledger")
    with ledger(folder, _TOKEN) as url:
        with closing(sqlite3.connect(folder / "ledger.db")) as books, books:
            books.execute("UPDATE account SET balance_cents = 1000000000")  # whichever tests run, none wants for money
        yield folder / "ledger.db", url


@pytest.fixture
async def pair(
    tmp_path: Path, postgres_url: str, redis_url: str, books: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Pair]:
    ledger_db, url = books
    monkeypatch.setenv("LEDGER_URL", url)
    monkeypatch.setenv("LEDGER_TOKEN", _TOKEN)
    async with Pair(tmp_path, postgres_url, redis_url, ledger_db) as pair:
        yield pair


@pytest.fixture
async def apart(
    tmp_path: Path,
    postgres_url: str,
    own_redis: RedisServer,
    books: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Pair]:
    """A pair with a Redis of its own, to be killed and paused."""
    ledger_db, url = books
    monkeypatch.setenv("LEDGER_URL", url)
    monkeypatch.setenv("LEDGER_TOKEN", _TOKEN)
    async with Pair(tmp_path, postgres_url, own_redis.url, ledger_db) as pair:
        yield pair
        await asyncio.to_thread(own_redis.resume)
        await asyncio.to_thread(own_redis.start)


@pytest.fixture
async def tapped(
    tmp_path: Path,
    postgres_server: PostgresServer,
    postgres_url: str,
    redis_url: str,
    books: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[Pair, Wiretap]]:
    """A pair of which the other reaches PostgreSQL by a line that a test can cut."""
    ledger_db, url = books
    monkeypatch.setenv("LEDGER_URL", url)
    monkeypatch.setenv("LEDGER_TOKEN", _TOKEN)
    with Wiretap(postgres_server.port) as line:
        by_line = postgres_url.replace(f":{postgres_server.port}/", f":{line.port}/")
        async with Pair(tmp_path, postgres_url, redis_url, ledger_db, others_database_url=by_line) as pair:
            yield pair, line
            line.cut()
