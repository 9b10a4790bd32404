"""Canonical bytes: equal to RFC 8785 inside the domain, refused outside."""

from __future__ import annotations

from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from gateway.verify.canonical import MAX_INT, NotCanonicalError, decode, encode
from gateway.verify.commitments import commitment, commitment_holds

text = st.text(st.characters(exclude_categories=["Cs"]))
keys = st.text(st.characters(max_codepoint=127), max_size=6)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INT, MAX_INT) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(keys, values, max_size=5))
def test_encoding_equals_rfc_8785_inside_the_domain(value: dict[str, Any]) -> None:
    body = encode(value)
    assert body == rfc8785.dumps(value)
    assert decode(body) == value


@pytest.mark.parametrize(
    "body",
    [
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a": 1}',
        b'{"a":1.0}',
        b'{"a":1e2}',
        b'{"a":9007199254740992}',
        b'{"a":-9007199254740992}',
        b'{"a":[{"b":99999999999999999999}]}',
        b'{"\\u0061":1}',
        b'{"a":"\\u00e9"}',
        '{"é":1}'.encode(),
        b"[1]",
        b"1",
        b"",
        b"\xff",
        b'{"a":1}\n',
        b'{"a":NaN}',
    ],
)
def test_other_forms_are_not_canonical(body: bytes) -> None:
    with pytest.raises(NotCanonicalError):
        decode(body)


def test_long_digit_runs_in_text_are_fine() -> None:
    assert decode(b'{"a":"12345678901234567890"}') == {"a": "12345678901234567890"}


def test_a_commitment_holds_for_exactly_one_payload() -> None:
    salt = b"s" * 32
    stated = commitment(salt, "arguments", "application/json", b"{}")
    assert commitment_holds(stated, salt, "arguments", "application/json", b"{}")
    assert not commitment_holds(stated, b"t" * 32, "arguments", "application/json", b"{}")
    assert not commitment_holds(stated, salt, "argument", "sapplication/json", b"{}")
    assert not commitment_holds(stated, salt, "arguments", "application/json", b"{ }")
