"""Lists as parameters: whatever stands in them arrives as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from gateway.store.postgres import PostgresConnection, connect

TEXTS = ["", "null", "NULL", '"', "\\", "{a,b}", "a b", "ä€🦉", "?", "%s", "'"]
BYTES = [b"", b"\x00\xff", b'"\\{},', bytes(range(256))]


@pytest.fixture
def database(postgres_url: str) -> Iterator[PostgresConnection]:
    raw = connect(postgres_url, name="test")
    yield PostgresConnection(raw)
    raw.close()


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("text", []),
        ("text", [None, None]),
        ("text", TEXTS),
        ("text", [None, *TEXTS, None]),
        ("bytea", []),
        ("bytea", [None]),
        ("bytea", BYTES),
        ("bytea", [None, *BYTES]),
        ("bigint", []),
        ("bigint", [1, -1]),
        ("bigint", [0, 2**15, 2**31, 2**63 - 1, -(2**63)]),
    ],
)
def test_a_list_arrives_as_it_was(database: PostgresConnection, kind: str, values: list[Any]) -> None:
    # More often than psycopg sends a statement before it has it prepared.
    for _ in range(7):
        rows = database.execute(f"SELECT value FROM unnest(?::{kind}[]) AS t (value)", (values,))
        assert [row[0] for row in rows] == values


def test_one_statement_takes_lists_of_whatever_is_in_them(database: PostgresConnection) -> None:
    sql = "SELECT count(*) FROM unnest(?::bigint[], ?::text[], ?::bytea[])"
    for numbers, texts, blobs in [
        ([1], ["a"], [b"a"]),
        ([2**40, 1], [None, None], [None, b"a"]),
        ([], [], []),
        ([2**20], ["b"], [None]),
    ] * 4:
        row = database.execute(sql, (numbers, texts, blobs)).fetchone()
        assert row is not None
        assert row[0] == len(numbers)


def test_a_text_that_postgresql_can_not_keep_is_the_statements_fault(database: PostgresConnection) -> None:
    with pytest.raises(psycopg.DataError):
        database.execute("SELECT ?::text[]", (["a\x00b"],))
    assert database.execute("SELECT 1").fetchone() == (1,)
