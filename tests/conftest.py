from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.known_secrets import KNOWN
from gateway.redaction import Redactor
from tests.servers import (
    empty_postgres_url,
    migrated_postgres,
    other_postgres_url,
    own_postgres,
    own_redis,
    postgres_server,
    postgres_url,
    redis_server,
    redis_url,
)

__all__ = [
    "empty_postgres_url",
    "migrated_postgres",
    "other_postgres_url",
    "own_postgres",
    "own_redis",
    "postgres_server",
    "postgres_url",
    "redis_server",
    "redis_url",
]


@pytest.fixture(autouse=True)
def _secrets_of_one_test() -> Iterator[None]:
    """A gateway in this process remembers its secrets until the process ends; other tests use the same words."""
    yield
    KNOWN._values.clear()
    KNOWN.redactor = Redactor()
