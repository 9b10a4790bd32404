"""Why a test failed: the line that did not hold, and the values there.

The engine only says that a rule is not true. So its lines are evaluated again, one more each time, until one does not
hold; then the two sides of that line. `every` and the test's own helpers are followed inside.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from gateway.policy import tree as trees
from gateway.policy.dialect import Module
from gateway.policy.rego import Machine, RegoFault
from gateway.policy.unparse import NEXT, UnknownSyntax, Writer

_DEEP = 4
_MAX_SHOWN = 400  # characters of one value
_PROBE = "why_probe"
_UNDEFINED = "undefined"
_LITERALS = frozenset({"String", "RawString", "Number", "Bool", "Null", "Array", "Set", "Object"})

Statement = dict[str, Any]


class Failure(NamedTuple):
    """`expected` and `got` are JSON, where the line compares two values."""

    line: int
    message: str
    expected: str | None = None
    got: str | None = None


def why(modules: Mapping[str, str], data: dict[str, Any], module: Module, head: trees.Head) -> Failure | None:
    """The failure of a test rule; None where it cannot be told."""
    bodies = head.rule["Spec"]["bodies"] if "Spec" in head.rule else []
    if not bodies:
        return None
    writer = Writer(module.text.encode())
    try:
        return _Search(modules, data, module).find(bodies[0]["query"]["stmts"], writer, [], _DEEP)
    except (UnknownSyntax, RegoFault, KeyError, TypeError, ValueError, RecursionError):
        return None


class _Search:
    def __init__(self, modules: Mapping[str, str], data: dict[str, Any], module: Module) -> None:
        self._modules = modules
        self._data = json.dumps(data)
        self._module = module
        self._lines = module.text.splitlines()

    def find(self, statements: list[Statement], writer: Writer, before: list[str], deep: int) -> Failure | None:
        """The first of `statements` that does not hold after those of `before`."""
        written = [writer.statement(one) for one in statements]
        queries = [_each("1", [*before, *written[: end + 1]]) for end in range(len(written))]
        for index, answer in enumerate(self._ask(queries)):
            if answer == "[]" or isinstance(answer, RegoFault):
                held = [*before, *written[:index]]
                return self._explain(statements[index], writer, held, deep, answer)
        return None

    def _explain(
        self, statement: Statement, writer: Writer, held: list[str], deep: int, answer: str | RegoFault
    ) -> Failure | None:
        line = trees.line_of(statement)
        (tag, content), *_ = statement["literal"].items()
        if deep and tag == "Every":
            inside = self._every(content, writer, held, deep)
            if inside is not None:
                return inside
        if deep and tag == "Expr":
            inside = self._helper(content["expr"], statement, writer, held, deep)
            if inside is not None:
                return inside
        shown = self._lines[line - 1].strip() if 0 < line <= len(self._lines) else writer.statement(statement)
        if isinstance(answer, RegoFault):
            return Failure(line, f"{shown}: {answer.message}.")
        said, expected, got = self._values(tag, content, writer.modifiers(statement), writer, held)
        return Failure(line, f"{shown}: {said}.", expected, got)

    # ------------------------------------------------------------ inside

    def _every(self, every: dict[str, Any], writer: Writer, held: list[str], deep: int) -> Failure | None:
        """The line inside an `every` that does not hold for the members that come furthest."""
        body = every["query"]["stmts"]
        variable = writer.name(every["value"])
        picked = [
            *held,
            f"some {writer.each(every)} in {writer.expression(every['domain'])}",
            f"count([1 | {writer.body(body)}]) == 0",
        ]
        member = self._first(_each(variable, picked))
        found = None if member is None else self.find(body, writer, picked, deep - 1)
        return None if found is None else found._replace(message=f"{found.message} ({variable} is {_shown(member)})")

    def _helper(
        self, node: dict[str, Any], statement: Statement, writer: Writer, held: list[str], deep: int
    ) -> Failure | None:
        """The line inside a helper of the test's own that does not hold: a rule, or a function as it is called."""
        target = node["AssignExpr"]["rhs"] if "AssignExpr" in node else node
        name = (target.get("Var") or (target.get("Call") or {}).get("fcn", {}).get("Var") or {}).get("value")
        heads = [one for one in trees.heads(self._module.tree) if one.name == name and "Spec" in one.rule]
        if len(heads) != 1 or len(heads[0].rule["Spec"]["bodies"]) != 1 or statement.get("with_mods"):
            return None
        head, given = heads[0], (target.get("Call") or {}).get("params") or []
        if len(head.arguments) != len(given) or not all("Var" in one for one in head.arguments):
            return None
        inner = Writer(self._module.text.encode(), _renamed(head, self._module, deep))
        bound = [
            f"{inner.expression(argument)} := {writer.expression(value)}"
            for argument, value in zip(head.arguments, given, strict=True)
        ]
        return self.find(head.rule["Spec"]["bodies"][0]["query"]["stmts"], inner, [*held, *bound], deep - 1)

    # ------------------------------------------------------------ values

    def _values(
        self, tag: str, content: dict[str, Any], mods: str, writer: Writer, held: list[str]
    ) -> tuple[str, str | None, str | None]:
        """What there is to say of a statement that does not hold, and if it compares, what was expected and what is."""

        def value(node: dict[str, Any]) -> str | None:
            query = [*held, f"{_PROBE}_value := {writer.expression(node)}{mods}"]
            return self._first(_each(f"{_PROBE}_value", query))

        def named(node: dict[str, Any]) -> str:
            return f"{writer.expression(node)} is {_shown(value(node))}"

        if tag == "SomeIn":
            return named(content["collection"]), None, None
        if tag == "Every":
            return named(content["domain"]), None, None
        if tag not in ("Expr", "NotExpr"):
            return "it does not hold", None, None
        node = content["expr"]
        negated = "expected this not to hold, but " if tag == "NotExpr" else ""
        pair = node.get("BoolExpr") or node.get("AssignExpr")
        if pair is not None and pair["op"] == "ColEq":
            return named(pair["rhs"]), None, None
        if pair is not None:
            left, right = value(pair["lhs"]), value(pair["rhs"])
            about = self._about(pair["lhs"], value, writer)
            if pair["op"] == "Eq" and not negated:
                swapped = bool(pair["lhs"].keys() & _LITERALS) and not pair["rhs"].keys() & _LITERALS
                expected, got = (left, right) if swapped else (right, left)
                said = f"expected {_shown(expected)}, got {_shown(got)}{about}"
                return said, expected or _UNDEFINED, got or _UNDEFINED
            return f"{negated}left is {_shown(left)}, right is {_shown(right)}{about}", None, None
        if "Membership" in node:
            member = node["Membership"]
            return f"{negated}{named(member['value'])}, {named(member['collection'])}", None, None
        if "Call" in node:
            parameters = [one for one in node["Call"]["params"] if not one.keys() & _LITERALS]
            said = f"it is {_shown(value(node))}"
            return f"{negated}{', '.join([said, *(named(one) for one in parameters)])}", None, None
        shown = f"it is {_shown(value(node))}" if negated else f"expected true, got {_shown(value(node))}"
        return f"{negated}{shown}{self._about(node, value, writer)}", None, None

    def _about(self, node: dict[str, Any], value: Any, writer: Writer) -> str:
        """Of `answer.effect`, what `answer` is."""
        steps = trees.reference(node)
        if steps is None or len(steps) < 2 or steps[0] in ("input", "data"):
            return ""
        root = {"Var": {"value": str(steps[0])}}
        whole = value(root)
        return "" if whole is None else f"; {writer.expression(root)} is {_shown(whole)}"

    def _first(self, query: str) -> str | None:
        """The first member of an array as JSON; None where there is none, or it can't be evaluated."""
        answer = next(self._ask([query]))
        if isinstance(answer, RegoFault):
            return None
        values = json.loads(answer)
        return _json(values[0]) if values else None

    def _ask(self, queries: list[str]) -> Iterator[str | RegoFault]:
        """Each query's value as JSON, or why there is none."""
        rules = "".join(f"\n{_PROBE}_{index} := {query}\n" for index, query in enumerate(queries))
        modules = {**self._modules, self._module.file: f"{self._module.text}\n{rules}"}
        machine = Machine(modules, self._data)
        package = ".".join(("data", *self._module.package))
        for index in range(len(queries)):
            try:
                yield _json(json.loads(machine.ask_json(f"{package}.{_PROBE}_{index}", "{}")))
            except RegoFault as fault:
                yield fault


def _each(value: str, query: list[str]) -> str:
    """An array of `value` for each way in which all lines hold."""
    return f"[{value} |\n{NEXT.join(query)}\n]"


def _renamed(head: trees.Head, module: Module, deep: int) -> dict[str, str]:
    """Names for a helper's variables that its caller does not use."""
    source = module.text.encode()
    found = {str(one["Var"]["value"]) for one in head.arguments}
    for tag, content in trees.walk(head.rule):
        if tag == "AssignExpr" and "Var" in content["lhs"]:
            found.add(str(content["lhs"]["Var"]["value"]))
        elif tag == "SomeIn":
            found |= {str(one["Var"]["value"]) for one in (content["key"], content["value"]) if one and "Var" in one}
        elif tag in ("Every", "SomeVars"):
            spans = content["vars"] if tag == "SomeVars" else [content["value"], content.get("key")]
            found |= {source[span["start"] : span["end"]].decode() for span in spans if span}
    return {name: f"{name}_{deep}" for name in found if name != "_"}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def _shown(value: str | None) -> str:
    if value is None:
        return _UNDEFINED
    return value if len(value) <= _MAX_SHOWN else f"{value[:_MAX_SHOWN]} ..."
