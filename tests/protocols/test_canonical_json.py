"""The canonical text of JSON values: RFC 8785 inside its domain, and one text for each value beyond it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocols.canonical_json import canonical_json

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
small = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, width=64) | text
finite = small.filter(lambda one: not isinstance(one, float) or abs(one) != float("inf"))


def values(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def inside(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4)

    return st.recursive(scalars, inside, max_leaves=10)


@given(values(finite))
def test_inside_the_domain_of_rfc_8785_it_is_that(value: Any) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


@given(values(finite), st.integers(2**53, 2**80))
def test_with_a_large_integer_only_that_is_written_otherwise(value: Any, large: int) -> None:
    written = canonical_json([value, large, {"é": -large, "\U0001f600": value, "\uffff": large}])
    plain = rfc8785.dumps([value, 0, {"é": 1, "\U0001f600": value, "\uffff": 2}]).decode()
    head, _, rest = plain.rpartition(',0,{"é":1,')
    between, _, end = rest.rpartition('"\uffff":2}]')
    assert written.decode() == f'{head},{large},{{"é":{-large},{between}"\uffff":{large}}}]{end}'
    assert json.loads(written)[1] == large


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([float("nan"), 2**53], "nan"),
        ([float("inf")], "inf"),
        (["\ud800"], "UTF-8"),
        ({"\ud800": 2**53}, "half a character"),
        ([object()], "unsupported"),
    ],
)
def test_what_has_no_text_is_an_error(value: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        canonical_json(value)


@pytest.mark.parametrize("leaf", [1, 2**53])
def test_nesting_without_end_is_an_error(leaf: int) -> None:
    deep: Any = leaf
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested"):
        canonical_json(deep)
