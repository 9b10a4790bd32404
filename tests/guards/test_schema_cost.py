"""Schemas that are out to stall the gateway are refused before anything is checked by them; honest ones are not."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gateway.catalog.definitions import read_definitions
from gateway.errors import Refusal
from gateway.guards import Guards
from gateway.protocols.schema_cost import MAX_UNITS, Costs, fault_of

from .test_arguments import BOTH, inspect, refused


def chain(keyword: str, levels: int = 29) -> dict[str, Any]:
    """Each level applies the one below it twice, at the same value."""

    def level(below: int) -> dict[str, Any]:
        both = [{"$ref": f"#/$defs/{below}"}, {"$ref": f"#/$defs/{below}"}]
        if keyword in ("allOf", "anyOf", "oneOf"):
            return {keyword: both}
        if keyword == "if":
            return {"if": both[0], "then": both[1]}
        if keyword == "not":
            return {"not": both[0], "$ref": both[1]["$ref"]}
        return {"$ref": both[0]["$ref"], "dependentSchemas": {"a": both[1]}}

    levels_by_name = {str(number): level(number - 1) for number in range(1, levels)}
    return {"$defs": {"0": {"type": "object"}, **levels_by_name}, "$ref": f"#/$defs/{levels - 1}"}


def unevaluated(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"unevaluatedProperties": False, "properties": {"a": {}}}
    for _ in range(levels):
        schema = {"allOf": [schema], "unevaluatedProperties": False}
    return schema


def dynamic(levels: int) -> dict[str, Any]:
    """The chain by names instead of pointers."""
    names = {
        f"l{number}": {"$dynamicAnchor": f"l{number}", "allOf": [{"$dynamicRef": f"#l{number - 1}"}] * 2}
        for number in range(1, levels)
    }
    bottom = {"$dynamicAnchor": "l0", "type": "object"}
    return {"$defs": {"l0": bottom, **names}, "$dynamicRef": f"#l{levels - 1}"}


def within_a_resource(levels: int) -> dict[str, Any]:
    inner = chain("allOf", levels)
    return {"$ref": "https://example.com/inner", "$defs": {"x": {"$id": "https://example.com/inner", **inner}}}


@pytest.mark.parametrize(
    "schema",
    [
        *(chain(keyword) for keyword in ("allOf", "anyOf", "oneOf", "if", "not", "dependentSchemas")),
        unevaluated(16),
        dynamic(29),
        within_a_resource(29),
        {"properties": {f"p{number}": {"anyOf": [{}, {}]} for number in range(5000)}},
        {"properties": {f"p{number}": {"pattern": r"^\p{L}{1,40}$"} for number in range(100)}},
    ],
    ids=lambda schema: str(schema)[-40:],
)
def test_a_schema_that_multiplies_is_refused_at_once(schema: dict[str, Any]) -> None:
    began_s = time.process_time()
    assert fault_of(schema)
    refusal = refused(schema, {"a": 1})
    assert time.process_time() - began_s < 0.5
    assert (refusal.code, refusal.detail["dispatched"]) == ("upstream_failed", "no")


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
        {"$id": "https://example.com/a", "if": {"$ref": "https://example.com/a"}},
        {"$anchor": "me", "then": {"$ref": "#me"}},
        {"$recursiveRef": "#"},
        {"$dynamicAnchor": "me", "oneOf": [{"$dynamicRef": "#me"}]},
        {"dependentSchemas": {"a": {"$ref": "#"}}},
    ],
    ids=str,
)
def test_a_circle_at_the_same_value_is_refused(schema: dict[str, Any]) -> None:
    assert "refers to itself" in str(fault_of(schema))
    assert "refers to itself" in refused(schema, {"a": 1}).message


def test_a_tool_with_such_a_schema_is_told_to_operators_and_the_others_stay() -> None:
    read = read_definitions([{"name": "bad", "inputSchema": chain("allOf")}, {"name": "ok", "inputSchema": {}}])
    assert list(read.good) == ["ok"]
    assert read.bad["bad"].startswith(
        "Its inputSchema can't be used: checking arguments by it would take too many steps"
    )


def nested(key: str, levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {key: value}
    return value


def test_honest_recursion_is_bounded_by_the_arguments_alone() -> None:
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}
    wide: dict[str, Any] = {"children": [{"children": [{"children": []}] * 50}] * 50}
    assert inspect(tree, wide) == BOTH
    linked = {
        "$defs": {
            "node": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}]}
        },
        "$ref": "#/$defs/node",
    }
    assert inspect(linked, nested("next", 90)) == BOTH
    both = [{"properties": {"op": {"const": name}, "a": {"$ref": "#"}}} for name in ("and", "or")]
    expression = {"type": "object", "oneOf": [*both, {"properties": {"op": {"const": "not"}}}]}
    assert fault_of(expression) is None


def test_recursion_that_branches_is_refused_for_deep_arguments_only() -> None:
    schema = {"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}
    assert inspect(schema, nested("a", 8)) == BOTH
    began_s = time.process_time()
    refusal = refused(schema, nested("a", 60))
    assert time.process_time() - began_s < 0.1
    assert refusal.code == "malformed"
    assert "nested deeper" in refusal.message


@pytest.mark.parametrize(
    ("schema", "taken"),
    [
        ({"properties": {"a": {"$ref": "#"}, **{f"p{n}": {"type": "string"} for n in range(3900)}}}, True),
        ({"properties": {"a": {"$ref": "#"}, **{f"p{n}": {"$ref": "#"} for n in range(3900)}}}, False),
    ],
    ids=["one part refers to the whole", "each part refers to the whole"],
)
def test_working_out_the_bound_of_a_large_recursive_schema_is_bounded_too(schema: dict[str, Any], taken: bool) -> None:
    """It took 5 s for arguments of 95 levels."""
    costs = Costs(schema)
    began_s = time.process_time()
    assert (costs.units(nested("a", 95)) <= MAX_UNITS) is taken
    assert time.process_time() - began_s < 0.3


def test_large_schemas_are_compiled_ahead_so_that_their_first_call_is_checked_at_once() -> None:
    large = {"properties": {f"p{n}": {"type": "string", "maxLength": n} for n in range(3900)}}
    guards, raw = Guards(), {"name": "t", "inputSchema": large}
    guards.keep(guards.prepare({"d": raw, "small": {"name": "u", "inputSchema": {"type": "object"}}}))
    assert guards.prepare({"d": raw}) == {}
    began_s = time.process_time()
    assert inspect(large, {"p1": "x"}, guards, "d") == BOTH
    assert time.process_time() - began_s < 0.05


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        ({"properties": {"x": {"items": {"enum": [{"v": n} for n in range(3000)]}}}}, {"x": [{"v": 2999}] * 5000}),
        ({"patternProperties": {f"x{n}$": {} for n in range(800)}}, {f"k{n}": 1 for n in range(5000)}),
        ({"properties": {"a": {"items": {"anyOf": [{"required": ["a"]}] * 800}}}}, {"a": [{}] * 20_000}),
        ({"properties": {"x": {"pattern": "(?=(a+))b"}}}, {"x": "a" * 200_000}),
        ({"patternProperties": {"(?=(a+))b": {}}}, {"a" * 200_000: 1}),
        ({"propertyNames": {"pattern": "(?=(a+))b"}}, {"a" * 200_000: 1}),
        ({"properties": {"x": {"items": {"pattern": r"(?=(?:(?=a*)a)*)b"}}}}, {"x": ["a" * 900] * 500}),
    ],
    ids=["objects in an enum", "patterns by keys", "alternatives", "pattern", "of keys", "names", "many texts"],
)
def test_what_a_check_may_cost_is_bounded_whatever_the_keyword(
    schema: dict[str, Any], arguments: dict[str, Any]
) -> None:
    began_s = time.process_time()
    try:
        inspect(schema, arguments)
    except Refusal as refusal:
        assert refusal.code == "malformed"
    assert time.process_time() - began_s < 1


def test_a_pattern_that_looks_around_holds_for_texts_of_a_sane_length() -> None:
    email = (
        r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"  # of zod
    )
    schema = {"properties": {"to": {"type": "string", "pattern": email}, "body": {"type": "string"}}}
    assert inspect(schema, {"to": "ada@example.com", "body": "x" * 100_000}) == BOTH
    assert "`to`" in refused(schema, {"to": "ada@example..com"}).message
    assert "1000 characters" in refused(schema, {"to": "a" * 1001}).message


def test_many_plain_values_are_checked() -> None:
    schema = {"properties": {"x": {"items": {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]}}}}
    assert inspect(schema, {"x": list(range(50_000))}) == BOTH


def test_the_bound_is_never_below_the_ways_there_are_to_a_value() -> None:
    for levels in range(1, 12):
        assert Costs(chain("allOf", levels)).units({"a": 1}) >= 2 ** (levels - 1)
    branching = {"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}
    for depth in range(1, 12):
        assert Costs(branching).units(nested("a", depth)) >= min(2**depth, MAX_UNITS)
