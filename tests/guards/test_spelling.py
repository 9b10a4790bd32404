"""Keys of arguments: no other spelling of what a schema declares, at any level; maps keep their case; in bounded time."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.actions import Action, Agent, ArgumentKind, Caller, Kind, Session, ToolTarget, Trace
from gateway.errors import Refusal
from gateway.guards import ARGUMENT_NAMES, INPUT_SCHEMA, Guards, check_keys, check_proposal
from gateway.guards.schema_keys import MAX_LOOKED_AT, SchemaKeys
from gateway.protocols.key_folding import fold, fold_name

PAYMENT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "to": {"type": "string"},
        "amount_cents": {"type": "integer"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
        "headers": {"type": "object", "additionalProperties": {"type": "string"}},
        "options": {"type": "object"},
        "pair": {"prefixItems": [{"properties": {"a": {}}}, {"properties": {"b": {}}}], "items": False},
        "either": {"anyOf": [{"properties": {"id": {}}}, {"properties": {"name": {}}}, {"type": "null"}]},
        "by_name": {"patternProperties": {"^x": {"properties": {"path": {}}}}},
        "tree": {"$ref": "#/$defs/tree"},
    },
    "$defs": {
        "line": {"allOf": [{"properties": {"sku": {}}}, {"if": {}, "then": {"properties": {"count": {}}}}]},
        "tree": {"properties": {"value": {}, "children": {"items": {"$ref": "#/$defs/tree"}}}},
    },
}


def tool(schema: Any, *described: str, kind: str = "mcp") -> ToolTarget:
    return ToolTarget(
        server="s",
        tool="t",
        server_kind=kind,
        owner="o",
        risk="low",
        effect="read",
        arguments={name: ArgumentKind("text") for name in described},
        definition=None if schema is None else {"name": "t", "inputSchema": schema},
        definition_digest="d",
    )


def action(arguments: dict[str, Any]) -> Action:
    return Action(
        id="0193e0c8-0000-7000-8000-000000000000",
        kind=Kind.TOOL_CALL,
        door="mcp",
        caller=Caller(Agent(id="reader"), None, "k", "key"),
        session=Session("s", "minted"),
        trace=Trace("1" * 32, "1" * 16),
        target="s__t",
        request_id="r",
        received_ns=0,
        arguments=arguments,
    )


# ---------------------------------------------------------------- with a schema


@pytest.mark.parametrize(
    ("arguments", "path", "meant"),
    [
        ({"To": "mallory"}, "To", "to"),
        ({"to": "ada", "TO": "mallory"}, "TO", "to"),
        ({"amount_cents": 1, "Amount_Cents": 9}, "Amount_Cents", "amount_cents"),
        ({"amountCents": 9}, "amountCents", "amount_cents"),
        ({"amount-cents": 9}, "amount-cents", "amount_cents"),
        ({"ａmount_cents": 9}, r"\uff41mount_cents", "amount_cents"),
        ({"t\u200bo": "x"}, r"t\u200bo", "to"),
        ({"to\0": "x"}, r"to\x00", "to"),
        ({"lines": [{"sku": 1}, {"SKU": 2}]}, "lines.1.SKU", "sku"),
        ({"lines": [{"Count": 2}]}, "lines.0.Count", "count"),
        ({"pair": [{"A": 1}, {"b": 1}]}, "pair.0.A", "a"),
        ({"pair": [{"a": 1}, {"B": 1}]}, "pair.1.B", "b"),
        ({"either": {"ID": 1}}, "either.ID", "id"),
        ({"either": {"id": 1, "Name": 1}}, "either.Name", "name"),
        ({"by_name": {"x1": {"Path": 1}}}, "by_name.x1.Path", "path"),
        ({"tree": {"children": [{"children": [{"Value": 1}]}]}}, "tree.children.0.children.0.Value", "value"),
        ({"Lines": []}, "Lines", "lines"),
        ({"Ｔo": 1, "\u017fku": 1}, r"\uff34o", "to"),
    ],
)
def test_another_spelling_of_a_declared_key_is_refused_with_its_path(
    arguments: dict[str, Any], path: str, meant: str
) -> None:
    said = check_keys(arguments, PAYMENT)
    assert said == f"The argument `{path}` is another spelling of `{meant}`; send `{meant}`."
    with pytest.raises(Refusal) as refused:
        Guards().inspect_input(action(arguments), tool(PAYMENT))
    assert refused.value.code == "malformed"
    assert said in refused.value.message
    assert refused.value.detail["guard"] == ARGUMENT_NAMES


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"to": "x", "amount_cents": 1},
        {"to": "x", "other": 1, "Other": 2, "_to": 1, "to_": 1, "t_o_o": 1},
        {"headers": {"Accept": "a", "accept": "b", "ACCEPT": "c"}},
        {"options": {"PATH": "a", "Path": "b"}},
        {"other": {"To": 1, "to": 2}},
        {"by_name": {"X1": 1, "x1": {"path": 1}}},
        {"either": None},
        {"lines": "To"},
        {"pair": [{"b": 1}, {"a": 1}, {"A": 1}]},
        {"тo": 1},
    ],
)
def test_maps_and_other_keys_keep_their_case(arguments: dict[str, Any]) -> None:
    assert check_keys(arguments, PAYMENT) is None


def test_both_spellings_pass_where_both_are_declared() -> None:
    schema: dict[str, Any] = {"properties": {"id": {}, "ID": {}, "user_id": {}, "userId": {}}}
    assert check_keys({"id": 1, "ID": 2, "user_id": 3, "userId": 4}, schema) is None
    assert check_keys({"Id": 1}, schema) is not None


def test_inspected_is_named_by_both_guards() -> None:
    assert Guards().inspect_input(action({"to": "x"}), tool(PAYMENT)) == (INPUT_SCHEMA, ARGUMENT_NAMES)


@pytest.mark.parametrize(
    "form", ["#/$defs/a%20b~1c~0d", "#here", "https://example.com/s#/$defs/a b~1c~0d", "inner", "#"]
)
def test_references_within_the_schema_are_followed(form: str) -> None:
    schema: dict[str, Any] = {
        "$id": "https://example.com/s",
        "properties": {"value": {"$ref": form}},
        "$defs": {
            "a b/c~d": {"$anchor": "here", "properties": {"value": {}}},
            "other": {"$id": "https://example.com/inner", "properties": {"value": {}}},
        },
    }
    assert check_keys({"value": {"value": {}}}, schema) is None
    assert "`value.VALUE`" in (check_keys({"value": {"VALUE": 1}}, schema) or "")


@pytest.mark.parametrize(
    "form", ["https://example.com/other", "#/$defs/none", "#none", "other.json", "#/properties/a/0", 7]
)
def test_a_reference_that_leads_out_of_the_schema_is_a_fault_and_not_followed(form: Any) -> None:
    schema: dict[str, Any] = {"properties": {"a": {"$ref": form}, "b": {}}}
    assert check_keys({"b": {"x": 1}}, schema) is None
    assert "The input schema cannot be read: " in (check_keys({"a": {"x": 1}}, schema) or "")


def test_a_value_that_is_a_schema_itself_is_its_authors() -> None:
    schema = {"properties": {"schema": {"$ref": "http://json-schema.org/draft-07/schema#"}}}
    assert check_keys({"schema": {"properties": {"a": 1, "A": 1}}}, schema) is None


def test_a_schema_that_cannot_be_told_refuses_the_call_as_its_servers_fault() -> None:
    wide: dict[str, Any] = {"properties": {f"p{number}": True for number in range(MAX_LOOKED_AT + 1)}}
    with pytest.raises(Refusal) as refused:
        Guards().inspect_input(action({"p0": 1}), tool(wide))
    assert refused.value.code == "upstream_failed"
    assert "too large or too tangled" in refused.value.message
    assert refused.value.detail["dispatched"] == "no"


# ---------------------------------------------------------------- without


@pytest.mark.parametrize("schema", [None, {}, True, {"type": "object"}, {"type": "object", "properties": {}}, [], "x"])
@pytest.mark.parametrize(
    ("arguments", "first", "second"),
    [
        ({"path": 1, "Path": 2}, "path", "Path"),
        ({"a": [{"b": {"ﬁle": 1, "FILE": 2}}]}, r"a.0.b.\ufb01le", "a.0.b.FILE"),
        ({"k": 1, "\u212a": 2}, "k", r"\u212a"),
        ({"a\0x": 1, "a": 2}, r"a\x00x", "a"),
        ({"i": 1, "\u0131": 2}, "i", r"\u0131"),
    ],
)
def test_where_nothing_is_known_two_keys_that_look_alike_are_refused(
    schema: Any, arguments: dict[str, Any], first: str, second: str
) -> None:
    assert check_keys(arguments, schema) == (
        f"The arguments `{first}` and `{second}` differ only in spelling; send one of them."
    )


@pytest.mark.parametrize(
    "arguments",
    [{}, {"Path": 1}, {"a": {"Path": 1}, "A2": {"path": 1}}, {"x": [{"a": 1}, {"A": 1}]}, {"user_id": 1, "userId": 2}],
)
def test_where_nothing_is_known_one_spelling_passes(arguments: dict[str, Any]) -> None:
    assert check_keys(arguments, None) is None


def test_a_map_by_declaration_is_not_unknown() -> None:
    assert check_keys({"a": 1, "A": 2}, {"type": "object", "additionalProperties": True}) is None


# ---------------------------------------------------------------- what a manifest describes


@pytest.mark.parametrize("schema", [None, {"type": "object"}, {"properties": {"other": {}}}])
def test_another_spelling_of_what_the_manifest_describes_is_refused(schema: Any) -> None:
    assert check_keys({"to": 1}, schema, ("to",)) is None
    assert check_keys({"To": 1}, schema, ("to",)) == "The argument `To` is another spelling of `to`; send `to`."
    with pytest.raises(Refusal, match="another spelling of `to`"):
        Guards().inspect_input(action({"TO": 1}), tool(schema, "to"))


def test_a_name_that_the_server_declares_is_taken_as_it_is() -> None:
    assert check_keys({"To": 1}, {"properties": {"To": {}}}, ("to",)) is None


def test_a_proposal_fits_what_the_agent_declared_and_what_the_server_published() -> None:
    agents: dict[str, Any] = {"properties": {"Path": {}, "a": {}}}
    servers: dict[str, Any] = {"properties": {"path": {}, "a": {}}}
    assert check_proposal({"a": 1}, agents, tool(servers)) is None
    assert "`Path` is another spelling of `path`" in (check_proposal({"Path": 1}, agents, tool(servers)) or "")
    assert "`path` is another spelling of `Path`" in (check_proposal({"path": 1}, agents, tool(servers)) or "")
    assert check_proposal({"Path": 1}, agents, tool(None, kind="client")) is None
    # An agent's own words are no excuse for what people and policies go by.
    assert check_proposal({"Path": 1}, agents, tool(None, "path", kind="client")) is not None
    assert check_proposal({"x": {"b": 1, "B": 2}}, None, tool({"properties": {"x": {}}})) is None
    assert check_proposal({"x": {"b": 1, "B": 2}}, {}, tool(None)) is not None


# ---------------------------------------------------------------- in bounded time


def deep(levels: int) -> Any:
    value: Any = {"A": 1}
    for _ in range(levels):
        value = {"a": [value]}
    return value


def test_depth_is_no_matter() -> None:
    node: dict[str, Any] = {"properties": {"a": {"items": {"$ref": "#"}}}}
    said = check_keys(deep(50_000), node)
    assert said is not None
    assert said.startswith("The argument `....")
    assert len(said) < 200
    twice = deep(50_000)
    twice["A"] = 1
    assert "`a` and `A`" in (check_keys(twice, None) or "")


def exponential() -> dict[str, Any]:
    """Each level has twice the alternatives of the one before, by references."""
    defs = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]} for n in range(200)}
    return {"$ref": "#/$defs/d0", "$defs": defs | {"d200": {"properties": {"a": {"$ref": "#"}}}}}


def tangled() -> dict[str, Any]:
    """Every property leads to another set of alternatives."""
    names = [f"p{n}" for n in range(40)]
    defs = {
        name: {"anyOf": [{"$ref": f"#/$defs/{other}"} for other in names[: number + 1]], "properties": {
            other: {"$ref": f"#/$defs/{names[(number * 7 + place) % 40]}"} for place, other in enumerate(names)
        }}
        for number, name in enumerate(names)
    }  # fmt: skip
    return {"$defs": defs, "$ref": "#/$defs/p39"}


def nested_lists() -> dict[str, Any]:
    node: dict[str, Any] = {"properties": {"a": {}}}
    for _ in range(3_000):
        node = {"allOf": [node]}
    return node


HOSTILE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (exponential(), deep(1_000)),
    (tangled(), {f"p{n % 40}": {f"p{m % 40}": {"p1": {"P1": 1}} for m in range(40)} for n in range(40)}),
    (nested_lists(), {"A": 1}),
    ({"$ref": "#"}, {"A": 1}),
    ({"allOf": [{"$ref": "#"}] * 5_000}, {"A": 1}),
    ({"properties": {f"ä{n}": {} for n in range(10_000)}}, {f"Ä{n}": 1 for n in range(40_000)}),
    ({"anyOf": [{"properties": {f"p{n}": {}}} for n in range(9_000)]}, {f"P{n}": {} for n in range(9_000)}),
    ({"patternProperties": {"(a+)+$": {"properties": {"b": {}}}}}, {"a" * 40 + "!": {"B": 1}}),
    ({"properties": {"a": {}}}, {"\ufdfa" * 100_000: 1}),
    ({"properties": {"a": {}}}, {"\ufdfa" * 20 + str(n): 1 for n in range(40_000)}),
    ({}, {"\ufdfa" * 20 + str(n): 1 for n in range(40_000)}),
    ({}, {"a": [{"b": 1, "c": 2}] * 16_000}),
    ({"properties": {"a": {"items": {"properties": {"b": {}}}}}}, {"a": [{"b": 1, "c": 2}] * 16_000}),
    ({"properties": {"a": {"prefixItems": [{}] * 9_000}}}, {"a": [{}] * 40_000}),
]


@pytest.mark.parametrize(("schema", "arguments"), HOSTILE, ids=range(len(HOSTILE)))
def test_no_schema_and_no_arguments_hold_the_gateway(schema: dict[str, Any], arguments: dict[str, Any]) -> None:
    began_s = time.process_time()
    said = check_keys(arguments, schema)
    assert time.process_time() - began_s < 0.5
    assert said is None or len(said) < 400


def test_what_is_remembered_of_a_schema_is_bounded() -> None:
    schema: dict[str, Any] = {"properties": {"a": {"anyOf": [{"properties": {f"p{n}": {}}} for n in range(1_000)]}}}
    keys = SchemaKeys(schema)
    for number in range(300):
        place = keys.root()
        assert place is not None
        below = place.property("a")
        assert below is not None
        below.property(f"p{number}")
        below.property(f"other{number}")
    assert len(keys._places) < 1_000


# ---------------------------------------------------------------- folding


@pytest.mark.parametrize(
    ("key", "folded"),
    [
        ("Model", "model"),
        ("ＭＯＤＥＬ", "model"),
        ("\u017ftream", "stream"),
        ("\u212aey", "key"),
        ("m\u00adodel\ufeff", "model"),
        ("model\0x", "model"),
        ("t\u0131me", "time"),
        ("T\u0130ME", "time"),
        ("ﬁle", "file"),
        ("straße", "strasse"),
        ("e\u0301", "é"),
        ("Σίσυφος", "σίσυφοσ"),
        ("𝐦odel", "model"),
        ("①", "1"),
        ("", ""),
    ],
)
def test_a_key_folds_to_what_other_readers_take_it_for(key: str, folded: str) -> None:
    assert fold(key) == folded


def test_delimiters_within_a_name_are_skipped_and_those_at_its_ends_are_not() -> None:
    names = ("max_tokens", "maxTokens", "Max-Tokens", "max__tokens", "ma_x-to_kens")
    assert {fold_name(name) for name in names} == {"maxtokens"}
    assert [fold_name(name) for name in ("_id", "id_", "__", "-", "a_")] == ["_id", "id_", "__", "-", "a_"]


@given(st.text(max_size=20))
@settings(max_examples=300, derandomize=True)
def test_folding_twice_is_folding_once(key: str) -> None:
    assert fold(fold(key)) == fold(key)
