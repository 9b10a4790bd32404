"""Real PostgreSQL and Redis for tests in any folder: one server of each for a test process, emptied for each test.

Registered in the top conftest. Where a program is missing the test is skipped, or fails with GATEWAY_TEST_STRICT=1.
What breaks a server (kills or pauses it) takes one of its own: `own_postgres`, `own_redis`.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import redis

from gateway.quickstart.servers import PostgresServer, RedisServer, find_postgres, find_redis

_MIGRATED = "migrated"
_numbers = itertools.count(1)


def missing(why: str) -> NoReturn:
    """Skip the test, or fail it in strict runs."""
    if os.environ.get("GATEWAY_TEST_STRICT") == "1":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """The PostgreSQL that tests share; not to be stopped by one."""
    yield from _postgres(tmp_path_factory.mktemp("postgres"), durable=False)


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL of the test's own, durable, to be killed and paused."""
    yield from _postgres(tmp_path / "postgres", durable=True)


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A new database without a schema."""
    yield from _database(postgres_server, None)


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: PostgresServer) -> str:
    """The name of the database that new ones are copied from."""
    from gateway.store.postgres import schema

    url = postgres_server.create(_MIGRATED)
    schema.migrate(url)
    return _MIGRATED


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, migrated_postgres: str) -> Iterator[str]:
    """A new database with the gateway's schema in it."""
    yield from _database(postgres_server, migrated_postgres)


@pytest.fixture
def other_postgres_url(postgres_server: PostgresServer, migrated_postgres: str) -> Iterator[str]:
    """A second one, as another installation has."""
    yield from _database(postgres_server, migrated_postgres)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The Redis that tests share; not to be stopped by one."""
    yield from _redis(tmp_path_factory.mktemp("redis"))


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own, to be killed and paused."""
    yield from _redis(tmp_path / "redis")


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty Redis."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


def _postgres(folder: Path, *, durable: bool) -> Iterator[PostgresServer]:
    if find_postgres() is None:
        missing("PostgreSQL is not installed (Debian: postgresql)")
    with PostgresServer(folder, durable=durable) as server:
        yield server
    shutil.rmtree(folder)


def _redis(folder: Path) -> Iterator[RedisServer]:
    if find_redis() is None:
        missing("Redis is not installed (Debian: redis-server)")
    with RedisServer(folder) as server:
        yield server


def _database(server: PostgresServer, template: str | None) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    yield server.create(name, template=template)
    server.drop(name)
