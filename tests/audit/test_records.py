"""Builders: whatever an agent or an upstream sends, the record fits and is canonical. Digests: keyed RFC 8785."""

from __future__ import annotations

from typing import Any

import pytest
import rfc8785
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.actions import Cost, Decision, Effect, Kind, Reservation, Result, Session, Status, Usage
from gateway.audit import records
from gateway.audit.digests import Digester, canonical
from gateway.audit.leaf import MAX_LEAF_BYTES
from gateway.errors import Refusal
from gateway.verify.canonical import decode, encode
from tests.audit.house import House

hostile = st.text(st.characters(), max_size=400) | st.just("\ud800" * 300) | st.just("é\x00\x1f" * 2000)
json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | hostile,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(hostile, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hostile, st.dictionaries(hostile, json_like, max_size=3), st.integers(-(2**70), 2**70))
def test_every_record_is_canonical_and_fits_whatever_comes_in(
    house: House, text: str, obligation: dict[str, Any], number: int
) -> None:
    action = house.action(
        target=text, session=Session(text, "header"), request_id=text, kind=Kind.MODEL_INVOKE, body=b"{}"
    )
    decision = Decision(
        effect=Effect.DENY,
        rules=(text,) * 40,
        reasons=(text,) * 40,
        notes=(text,) * 40,
        obligations=(obligation,) * 40,
        input=b"{}",
    )
    usage = Usage(input_tokens=number, output_tokens=number)
    result = Result(status=Status.FAILED, code=text, latency_us=number, cost=Cost(usage=usage, nanousd=number))
    reservation = Reservation(id=action.id, nanousd=1, tokens=number, levels=("agent:reader",))
    for entry in (
        records.intent(action, house.model, decision, reservation, (text,)),
        records.result(action, house.model, decision, result),
        records.refused(action, None, decision, Refusal("denied_by_policy", text, notes=(text,) * 40)),
        records.decided(action, None, decision),
        records.requested(action, house.tool, decision, "case-1"),
        records.event("agent.created", tenant="default", person=text, subject=obligation, labels={text: text}),
    ):
        body = encode(entry.leaf)
        assert decode(body)["type"] == entry.leaf.type
        assert len(body) < MAX_LEAF_BYTES


def test_money_in_records_is_a_decimal_string(house: House) -> None:
    action = house.action()
    ended = Result(status=Status.SUCCEEDED, cost=Cost(nanousd=1_234_567_891))
    leaf = records.result(action, house.tool, None, ended).leaf
    assert leaf.cost is not None
    assert leaf.cost.usd == "1.234567891"


def test_obligations_keep_their_meaning_without_floats() -> None:
    assert records.plain({"a": 1.5, "b": 2.0, "c": 2**60, "d": float("nan"), "e": [True, None]}) == {
        "a": "1.5",
        "b": 2,
        "c": "1152921504606846976",
        "d": "NaN",
        "e": [True, None],
    }


# ---------------------------------------------------------------- digests

inside = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inside, max_size=5))
def test_digests_are_over_rfc_8785_bytes(value: dict[str, Any]) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": float("inf"), "b": 2**53},
        {"a": "\ud800"},
        {"a": "\ud800", "b": 2**53},
        {"\ud800": 1},
        {"a": object()},
    ],
)
def test_what_has_no_canonical_form_is_refused_as_malformed(arguments: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        Digester(b"k" * 32).digest("t", "a", None, "x", arguments)
    assert caught.value.code == "malformed"


def test_a_digest_tells_actions_apart_and_nothing_else() -> None:
    digester = Digester(b"k" * 32)
    base = digester.digest("t", "a", "u", "x", {"to": "p", "cents": 1})
    assert base == digester.digest("t", "a", "u", "x", {"cents": 1, "to": "p"})
    assert base == digester.digest("t", "a", "u", "x", {"cents": 1.0, "to": "p"})  # JSON has one number type
    large = [digester.digest("t", "a", "u", "x", {"to": "p", "cents": 2**53 + more}) for more in (0, 1, 2)]
    assert len({base, *large}) == 4  # as doubles, two of them are equal
    others = [
        digester.digest("t2", "a", "u", "x", {"to": "p", "cents": 1}),
        digester.digest("t", "b", "u", "x", {"to": "p", "cents": 1}),
        digester.digest("t", "a", None, "x", {"to": "p", "cents": 1}),
        digester.digest("t", "a", "u", "y", {"to": "p", "cents": 1}),
        digester.digest("t", "a", "u", "x", {"to": "p", "cents": 2}),
        digester.digest("t", "a", "u", "x", {"to": "p", "cents": "1"}),
        digester.digest("t", "a", "u", "x", {"to": "p", "cents": True}),
        Digester(b"l" * 32).digest("t", "a", "u", "x", {"to": "p", "cents": 1}),
    ]
    assert len({base, *others}) == 9
