"""The input document: what is in it, what it does with values that JSON or engines find hard, and its schema."""

from __future__ import annotations

import json
import math
from typing import Any

import jsonschema
import msgspec
import pytest

from gateway.actions import Kind
from gateway.errors import Refusal
from gateway.policy import document, json_schema
from gateway.policy.document import InputV1
from tests.policy.asking import POLICIES, action, asked, client, engine_of, ledger, model

VALIDATOR = jsonschema.Draft202012Validator(json.loads(json_schema()))


def test_the_stored_schema_is_the_one_that_the_types_give() -> None:
    assert (POLICIES / "input.schema.json").read_bytes() == json_schema()
    jsonschema.Draft202012Validator.check_schema(json.loads(json_schema()))


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("target", [ledger("transfer"), model(), client("Bash", "write", "high", declared=False)])
def test_every_document_fits_the_schema_and_the_types(kind: Kind, target: Any) -> None:
    raw = asked(kind, target, {"to": "acme-gmbh", "amount_cents": 5})
    VALIDATOR.validate(json.loads(raw))
    assert msgspec.json.encode(msgspec.json.decode(raw, type=InputV1)) == raw


def test_the_schema_refuses_what_is_not_in_the_document() -> None:
    whole = json.loads(asked(Kind.TOOL_CALL, ledger("transfer")))
    assert not VALIDATOR.is_valid({**whole, "extra": 1})
    assert not VALIDATOR.is_valid({**whole, "v": 2})
    assert not VALIDATOR.is_valid({key: value for key, value in whole.items() if key != "agent"})


def test_a_tool_call_reads_as_documented() -> None:
    target = ledger("transfer")
    raw = document(
        action(Kind.TOOL_CALL, target, {"to": "acme-gmbh"}),
        target,
        environment="prod",
        undeclared="observe",
        limits={"agent:demo-agent": {"budget": 1}},
        facts={"tainted": True},
        now_ns=7,
    )
    assert json.loads(raw) == {
        "v": 1,
        "now_ns": 7,
        "environment": "prod",
        "tenant": "default",
        "door": "mcp",
        "action": {
            "kind": "tool.call",
            "id": "0193e0c8-0000-7000-8000-000000000000",
            "digest": "",
            "arguments": {"to": "acme-gmbh"},
            "stream": False,
        },
        "agent": {
            "id": "demo-agent",
            "version": "1",
            "team": "finance",
            "use_case": "pay-suppliers",
            "tier": "standard",
            "status": "active",
            "env": "dev",
            "owners": {"business": "dana"},
            "labels": {},
        },
        "user": "ada",
        "session": {"id": "s-1", "source": "minted", "facts": {"tainted": True}},
        "claimed": {"session": None, "purpose": "pay the rent"},
        "target": {
            "type": "tool",
            "id": "ledger__transfer",
            "server": "ledger",
            "tool": "transfer",
            "kind": "mcp",
            "owner": "treasury@example.com",
            "risk": "high",
            "effect": "write",
            "data_classes": ["financial"],
            "reversible": False,
            "idempotent": False,
            "arguments": {
                "to": {"kind": "payee", "currency": None, "unit": None},
                "amount_cents": {"kind": "money", "currency": "USD", "unit": "cents"},
            },
            "declared": True,
            "definition_digest": "0" * 64,
        },
        "settings": {"undeclared_client_tools": "observe"},
        "limits": {"agent:demo-agent": {"budget": 1}},
        "approval": None,
    }


def test_an_approval_in_force_reads_as_documented() -> None:
    target = ledger("transfer")
    given = {"case": "c-1", "votes": [{"person": "olga", "groups": ["treasury"]}], "presented_digest": "sha256:0"}

    def with_approval(approval: dict[str, Any] | None) -> bytes:
        return document(
            action(Kind.TOOL_CALL, target),
            target,
            environment="dev",
            undeclared="deny",
            limits={},
            facts={},
            now_ns=7,
            approval=approval,
        )

    raw = with_approval(given)
    assert json.loads(raw)["approval"] == given
    VALIDATOR.validate(json.loads(raw))
    assert msgspec.json.encode(msgspec.json.decode(raw, type=InputV1)) == raw
    with pytest.raises(msgspec.ValidationError):
        with_approval({**given, "approved": True})


def test_a_model_call_reads_as_documented() -> None:
    whole = json.loads(asked(Kind.MODEL_INVOKE, model("demo")))
    assert whole["target"] == {
        "type": "model",
        "id": "demo",
        "alias": "demo",
        "provider": "demo",
        "model": "demo",
        "owner": "",
        "risk": "low",
        "data_classes": [],
    }


def test_the_same_action_gives_the_same_bytes() -> None:
    assert asked(Kind.TOOL_CALL, ledger("transfer"), {"a": 1}) == asked(Kind.TOOL_CALL, ledger("transfer"), {"a": 1})


@pytest.mark.parametrize(
    "value",
    [2**63 - 1, 2**64 - 1, 2**64, -(2**63) - 1, 10**30, 10**4000, 0.1, 1e300, -0.0, "\x00", "\u2028", "😀", None],
    ids=lambda value: ascii(value)[:20],
)
def test_what_json_can_hold_comes_through_as_it_is(value: object) -> None:
    raw = asked(Kind.TOOL_CALL, ledger("transfer"), {"x": value, "deep": [{"x": value}]})
    assert json.loads(raw)["action"]["arguments"] == {"x": value, "deep": [{"x": value}]}


def _nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    "arguments",
    [
        {"x": math.nan},
        {"x": math.inf},
        {"x": [{"y": -math.inf}], "z": None},
        {"x": 10**30, "y": math.nan},
        {"x": "\ud800"},
        {"\udfff": 1},
        {"x": 10**5000},
        {"x": {1, 2}.__class__},
        {"x": _nested(100_000)},
    ],
    ids=["nan", "inf", "deep inf", "nan by a large number", "surrogate", "surrogate key", "digits", "class", "nested"],
)
def test_what_json_cannot_hold_is_refused_as_malformed(arguments: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        asked(Kind.TOOL_CALL, ledger("transfer"), arguments)
    assert caught.value.code == "malformed"


def test_arguments_cannot_reach_outside_their_place() -> None:
    sly = {'"},"agent":{"id":"root': 1, "x": '"}, "agent": {"id": "root"}', "agent": {"id": "root"}, "__proto__": {}}
    whole = json.loads(asked(Kind.TOOL_CALL, ledger("transfer"), sly))
    assert whole["agent"]["id"] == "demo-agent"
    assert whole["action"]["arguments"] == sly


def test_the_engine_sees_what_was_sent() -> None:
    exact = '{"effect": "deny", "rules": ["r"], "reasons": [sprintf("%v", [input.action.arguments.x])]}'
    engine = engine_of("package gateway\ndecision := " + exact)
    for value in (9007199254740993, -1, 2**64 - 1, "é", "\u202e"):
        seen = engine.decide_now(asked(Kind.TOOL_CALL, ledger("transfer"), {"x": value})).reasons[0]
        assert seen == str(value)
