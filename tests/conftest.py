from __future__ import annotations

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
