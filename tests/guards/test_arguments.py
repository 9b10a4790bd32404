"""Arguments against the schema that a tool's server published; and schemas that are out to harm."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gateway.actions import Action, Agent, Caller, Kind, ModelTarget, Session, Target, ToolTarget, Trace
from gateway.errors import Refusal
from gateway.guards import ARGUMENT_NAMES, INPUT_SCHEMA, Guards

BOTH = (INPUT_SCHEMA, ARGUMENT_NAMES)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "to": {"type": "string"},
        "amount": {"type": "integer", "minimum": 1, "maximum": 100},
        "kind": {"enum": ["a", "b"]},
        "lines": {"type": "array", "items": {"type": "object", "required": ["id"]}},
    },
    "required": ["to"],
    "additionalProperties": False,
}


def action(kind: Kind, arguments: dict[str, Any]) -> Action:
    return Action(
        id="0193e0c8-0000-7000-8000-000000000000",
        kind=kind,
        door="mcp",
        caller=Caller(Agent(id="reader"), None, "k", "key"),
        session=Session("s", "minted"),
        trace=Trace("1" * 32, "1" * 16),
        target="s__t",
        request_id="r",
        received_ns=0,
        arguments=arguments,
    )


def tool(schema: Any, digest: str | None = "d1") -> ToolTarget:
    return ToolTarget(
        server="s",
        tool="t",
        server_kind="mcp",
        owner="o",
        risk="low",
        effect="read",
        definition={"name": "t", "inputSchema": schema},
        definition_digest=digest,
    )


def inspect(
    schema: Any, arguments: dict[str, Any], guards: Guards | None = None, digest: str = "d1"
) -> tuple[str, ...]:
    return (guards or Guards()).inspect_input(action(Kind.TOOL_CALL, arguments), tool(schema, digest))


def refused(schema: Any, arguments: dict[str, Any], guards: Guards | None = None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        inspect(schema, arguments, guards)
    return caught.value


@pytest.mark.parametrize("kind", [Kind.TOOL_CALL, Kind.TOOL_PROPOSE])
def test_fitting_arguments_are_named_as_inspected(kind: Kind) -> None:
    asked = action(kind, {"to": "x", "amount": 5})
    assert Guards().inspect_input(asked, tool(SCHEMA)) == BOTH


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (Kind.MODEL_INVOKE, ModelTarget(alias="m", provider="p", model="m")),
        (Kind.TOOL_LIST, tool(SCHEMA)),
    ],
    ids=["model", "list"],
)
def test_what_was_not_inspected_is_not_named(kind: Kind, target: Target) -> None:
    assert Guards().inspect_input(action(kind, {"odd": 1}), target) == ()


@pytest.mark.parametrize(
    "target",
    [
        tool(None),
        tool({}),
        tool(True),
        ToolTarget(server="client", tool="t", server_kind="client", owner="", risk="low", effect="read"),
    ],
    ids=["no schema", "empty schema", "schema true", "no definition"],
)
def test_without_a_schema_only_the_names_are_inspected(target: ToolTarget) -> None:
    assert Guards().inspect_input(action(Kind.TOOL_CALL, {"odd": 1}), target) == (ARGUMENT_NAMES,)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, ['"to" is a required property']),
        ({"to": 1}, ["`to`", "string"]),
        ({"to": None}, ["`to`", "string"]),
        ({"to": "x", "amount": 0}, ["`amount`", "minimum of 1"]),
        ({"to": "x", "amount": 101}, ["`amount`", "maximum of 100"]),
        ({"to": "x", "amount": 10**400}, ["`amount`"]),
        ({"to": "x", "amount": "5"}, ["`amount`", "integer"]),
        ({"to": "x", "amount": True}, ["`amount`", "integer"]),
        ({"to": "x", "amount": 5.5}, ["`amount`", "integer"]),
        ({"to": "x", "amount": float("nan")}, ["`amount`"]),
        ({"to": "x", "kind": "c"}, ["`kind`", '"a" or "b"']),
        ({"to": "x", "TO": "y"}, ["'TO'", "unexpected"]),
        ({"to": "x", "lines": [{"id": 1}, {}]}, ["`lines.1`", '"id"']),
        ({"to": 1, "amount": 0}, ["`to`", "`amount`"]),
    ],
)
def test_a_misfit_names_the_argument_and_what_would_pass(arguments: dict[str, Any], words: list[str]) -> None:
    refusal = refused(SCHEMA, arguments)
    assert refusal.code == "malformed"
    assert "s__t" in refusal.message
    for word in words:
        assert word in refusal.message


def test_messages_show_no_value_and_stay_short() -> None:
    many = {f"p{number}": {"type": "integer"} for number in range(200)}
    refusal = refused({"type": "object", "properties": many}, dict.fromkeys(many, "SECRET" * 1000))
    assert "SECRET" not in refusal.message
    assert len(refusal.message) < 1000
    refusal = refused({"properties": {"x": {"enum": ["option" * 50] * 100}}}, {"x": "SECRET"})
    assert "SECRET" not in refusal.message
    assert len(refusal.message) < 1000


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "https://schemas.example.com/x.json"},
        {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/x"}}},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "other.json"},
        {"$id": "https://example.com/a", "$ref": "b"},
        {"$schema": "https://example.com/own-meta", "type": "object"},
        {"$ref": "#/$defs/missing"},
        {"type": "objekt"},
        {"properties": {"a": {"pattern": "["}}},
        {"properties": {"a": {"pattern": "(a{1000}){1000}"}}},
        {"required": "to"},
        [],
        "object",
        7,
        False,
    ],
    ids=lambda schema: str(schema)[:40],
)
def test_a_schema_that_cannot_be_used_refuses_the_call_each_time(schema: Any) -> None:
    guards = Guards()
    for _ in range(2):
        refusal = refused(schema, {"a": "x"}, guards)
        if schema is False:
            continue
        assert refusal.code == "upstream_failed"
        assert refusal.detail["dispatched"] == "no"
        assert len(refusal.message) < 600


def test_a_schema_nested_without_end_refuses_the_call() -> None:
    deep: dict[str, Any] = {}
    for _ in range(20_000):
        deep = {"properties": {"a": deep}}
    assert refused(deep, {}).code == "upstream_failed"


def test_references_within_the_schema_are_followed_even_in_circles() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "additionalProperties": False}
    schema = {"$defs": {"node": node}, "$ref": "#/$defs/node"}
    assert inspect(schema, {"next": {"next": {}}}) == BOTH
    assert "`next.next`" in refused(schema, {"next": {"next": {"x": 1}}}).message


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(?!x)(a|aa)+$", "^(a|a)*?b$", r"^(?=(a+))\1*$"])
def test_a_pattern_cannot_stall_the_gateway(pattern: str) -> None:
    schema = {"properties": {"x": {"type": "string", "pattern": pattern}}}
    begun = time.perf_counter()
    assert refused(schema, {"x": "a" * 5_000 + "!"}).code == "malformed"
    assert time.perf_counter() - begun < 1


def test_older_drafts_are_read_as_they_say() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": {"x": {"items": [{"type": "string"}]}},
    }
    assert inspect(schema, {"x": ["a", 1]}) == BOTH
    assert "`x.0`" in refused(schema, {"x": [1]}).message


def test_a_changed_definition_is_checked_by_its_new_schema() -> None:
    guards = Guards()
    assert inspect({"required": ["a"]}, {"a": 1}, guards, "old") == BOTH
    with pytest.raises(Refusal):
        inspect({"required": ["b"]}, {"a": 1}, guards, "new")
    assert inspect({"required": ["a"]}, {"a": 1}, guards, "old") == BOTH


def test_without_a_digest_nothing_is_remembered() -> None:
    guards = Guards()
    asked = action(Kind.TOOL_CALL, {"a": 1})
    assert guards.inspect_input(asked, tool({"required": ["a"]}, None)) == BOTH
    with pytest.raises(Refusal):
        guards.inspect_input(asked, tool({"required": ["b"]}, None))


def test_only_so_many_validators_are_kept() -> None:
    guards = Guards()
    for number in range(1_100):
        inspect({"required": ["a"]}, {"a": 1}, guards, f"d{number}")
    assert len(guards._schemas) <= 1024
    assert inspect({"required": ["a"]}, {"a": 1}, guards, "d0") == BOTH


def test_arguments_that_are_not_json_are_refused() -> None:
    odd: dict[Any, Any] = {1: 2}
    assert refused(SCHEMA, odd).code == "malformed"
    assert refused(SCHEMA, {"to": object()}).code == "malformed"


@pytest.mark.parametrize(
    "arguments", [{"lines": [1] * 200_000}, {"lines": [{}] * 100_000}, {"to": "a" * 1_000_000, "x": 1}]
)
def test_what_is_wrong_in_huge_arguments_is_not_searched_for(arguments: dict[str, Any]) -> None:
    began_s = time.process_time()
    refusal = refused(SCHEMA, arguments)
    assert time.process_time() - began_s < 0.1
    assert refusal.code == "malformed"
    assert "too many" in refusal.message
