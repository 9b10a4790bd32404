"""Columns that a later version added leave the codes of older rows as they are, and are covered as soon as they say
something."""

from __future__ import annotations

import hmac

import msgspec
import pytest

from gateway.store.macs import COVERED, RowMacs

KEY = b"k" * 32
LATER = [table for table, covered in COVERED.items() if covered.later]


def before(table: str, values: list[object]) -> bytes:
    """The code that the version before gave to a row."""
    return hmac.digest(KEY, msgspec.msgpack.encode((table, *values)), "sha256")


@pytest.mark.parametrize("table", LATER)
def test_a_row_of_the_version_before_keeps_its_code(table: str) -> None:
    covered, macs = COVERED[table], RowMacs(KEY)
    old: list[object] = [None] * (len(covered.columns) - covered.later)  # NULLs at its end were covered, and still are
    old[0] = "id"
    added: list[object] = [None] * covered.later
    assert macs.is_ours(table, [*old, *added, before(table, old)])
    assert macs.of(table, [*old, *added]) == before(table, old)


@pytest.mark.parametrize("table", LATER)
def test_what_is_added_is_covered(table: str) -> None:
    covered, macs = COVERED[table], RowMacs(KEY)
    row: list[object] = ["id", *[None] * (len(covered.columns) - 1)]
    codes = {macs.of(table, row)}
    for at in range(len(covered.columns) - covered.later, len(covered.columns)):
        changed = row.copy()
        changed[at] = "somebody"
        assert not macs.is_ours(table, [*changed, macs.of(table, row)])
        codes.add(macs.of(table, changed))
    assert len(codes) == covered.later + 1
