"""The table of fields has every field that is read by name, wherever that is, so that none can be spelt otherwise."""

from __future__ import annotations

import ast
import inspect
from types import ModuleType

import pytest

from gateway.doors.openai import request, tools
from gateway.doors.openai.fields import REQUEST, Shape
from gateway.limits import bounds
from gateway.upstreams import demo, longtail

# What demo.py reads of earlier calls in the conversation, and of its own answers.
_OF_PAST_CALLS = {"arguments", "id", "tool_calls", "usage"}


def names_in(shape: Shape) -> set[str]:
    return set(shape.names).union(*map(names_in, shape.nested.values()))


def read_by(module: ModuleType) -> set[str]:
    """Names that a module looks up in a mapping, or decodes as a field of a struct."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Subscript):
            found |= _texts(node.slice)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("get", "pop"):
            found |= _texts(*node.args[:1])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("_field", "_array"):
            found |= _texts(node.args[1])
        elif isinstance(node, ast.Compare) and any(isinstance(one, ast.In | ast.NotIn) for one in node.ops):
            found |= _texts(node.left)
        elif isinstance(node, ast.ClassDef) and any("Struct" in ast.unparse(base) for base in node.bases):
            found |= {ast.unparse(one.target) for one in node.body if isinstance(one, ast.AnnAssign)}
    return found


def _texts(*nodes: ast.expr) -> set[str]:
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.mark.parametrize("module", [request, tools, bounds, demo], ids=lambda module: module.__name__)
def test_every_field_that_is_read_stands_in_the_table(module: ModuleType) -> None:
    found = read_by(module)
    assert found & names_in(REQUEST)
    assert found - names_in(REQUEST) - _OF_PAST_CALLS == set()


def test_every_field_that_is_passed_on_by_its_name_stands_in_the_table() -> None:
    assert REQUEST.names >= longtail._FIELDS


def test_no_two_fields_of_one_object_are_spellings_of_each_other() -> None:
    todo = [REQUEST]
    while todo:
        shape = todo.pop()
        assert set(shape.spellings.values()) == shape.names
        todo.extend(shape.nested.values())
