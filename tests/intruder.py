"""Somebody with write access to the database alone: raw SQL on whatever footing the gateway under test has."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import psycopg
import redis

from gateway.process import Process
from gateway.store.connections import DATABASE_NAME

Row = dict[str, Any]


class Intruder:
    """Reads and writes rows behind the gateway's back. Statements use `?`."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run a statement in a transaction of its own; the rows it returns."""
        url = self._process.database_url
        if url is None:
            with closing(sqlite3.connect(self._process.data_dir / DATABASE_NAME, timeout=10)) as connection:
                cursor = connection.execute(statement, values)
                names = [column[0] for column in cursor.description or ()]
                rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
                connection.commit()
                return rows
        with psycopg.connect(url.get_secret_value()) as other:
            found = other.execute(statement.replace("?", "%s").encode(), values)
            if found.description is None:
                return []
            return [
                dict(zip([column.name for column in found.description], row, strict=True)) for row in found.fetchall()
            ]

    def rows(self, table: str, where: str = "true", *values: Any) -> list[Row]:
        """Rows as they stand there, codes included."""
        return self.run(f"SELECT * FROM {table} WHERE {where}", values)

    def insert(self, table: str, row: Row) -> None:
        """Add a row."""
        names = ", ".join(f'"{name}"' for name in row)
        self.run(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})", list(row.values()))

    def empty_redis(self) -> None:
        """Counters that replicas share outlive a restart; the embedded gateway has none."""
        if self._process.redis_url is not None:
            with closing(redis.Redis.from_url(self._process.redis_url.get_secret_value())) as client:
                client.flushdb()

    def put_back(self, table: str, row: Row, key: str = "id") -> None:
        """Replace a row by an older copy of it."""
        self.run(f"DELETE FROM {table} WHERE {key} = ?", [row[key]])
        self.insert(table, row)
