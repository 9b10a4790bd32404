"""Syntax trees back to Rego text, so that parts of a rule can be evaluated by themselves.

Broken over many lines: the engine refuses a line of more than 1024 characters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

NEXT = ";\n"  # between statements; a line that begins with a parenthesis would else be a call
_COMMA = ",\n"
_BOOL = {"Eq": "==", "Ne": "!=", "Lt": "<", "Le": "<=", "Gt": ">", "Ge": ">="}
_ARITH = {"Add": "+", "Sub": "-", "Mul": "*", "Div": "/", "Mod": "%"}
_SETS = {"Union": "|", "Or": "|", "Intersection": "&", "And": "&"}


class UnknownSyntax(Exception):  # noqa: N818 - said of a tree
    """A kind of node that this module does not write."""


class Writer:
    """Writes expressions and statements of one module. `names` are variables that get another name."""

    def __init__(self, source: bytes, names: Mapping[str, str] | None = None) -> None:
        self._source = source
        self._names = names or {}

    def statement(self, statement: dict[str, Any]) -> str:
        """One line of a rule's body, its `with` included. Raises UnknownSyntax."""
        return self._literal(statement["literal"]) + self.modifiers(statement)

    def modifiers(self, statement: dict[str, Any]) -> str:
        """The `with ... as ...` of a statement, with a space before; raises UnknownSyntax."""
        mods = statement.get("with_mods") or []
        return "".join(f"\n with {self.expression(one['refr'])} as {self.expression(one['as'])}" for one in mods)

    def body(self, statements: Iterable[dict[str, Any]]) -> str:
        return NEXT.join(self.statement(one) for one in statements)

    def name(self, span: Mapping[str, Any]) -> str:
        """A variable that the tree gives by its place only."""
        name = self._source[span["start"] : span["end"]].decode()
        return self._names.get(name, name)

    def _literal(self, literal: dict[str, Any]) -> str:
        (tag, content), *_ = literal.items()
        if tag == "Expr":
            return self._top(content["expr"])
        if tag == "NotExpr":
            return f"not {self._top(content['expr'])}"
        if tag == "SomeVars":
            return "some " + ", ".join(self.name(span) for span in content["vars"])
        if tag == "SomeIn":
            key = f"{self.expression(content['key'])}, " if content["key"] else ""
            return f"some {key}{self.expression(content['value'])} in {self.expression(content['collection'])}"
        if tag == "Every":
            body = self.body(content["query"]["stmts"])
            return f"every {self.each(content)} in {self.expression(content['domain'])} {{\n{body}\n}}"
        raise UnknownSyntax(tag)

    def each(self, every: dict[str, Any]) -> str:
        """The variables of an `every`."""
        key = f"{self.name(every['key'])}, " if every.get("key") else ""
        return key + self.name(every["value"])

    def _top(self, node: dict[str, Any]) -> str:
        """An expression that is a whole statement: there an assignment may stand."""
        if "AssignExpr" in node:
            content = node["AssignExpr"]
            sign = ":=" if content["op"] == "ColEq" else "="
            return f"{self.expression(content['lhs'])} {sign} {self.expression(content['rhs'])}"
        return self.expression(node)

    def expression(self, node: dict[str, Any]) -> str:
        """Raises UnknownSyntax."""
        tag = next(key for key in node if key[:1].isupper())
        content = node[tag]
        match tag:
            case "Var":
                return self._names.get(content["value"], str(content["value"]))
            case "String" | "RawString" | "Number" | "Bool" | "Null":
                return json.dumps(content["value"], ensure_ascii=False)
            case "Array":
                return f"[{self._several(content['items'])}]"
            case "Set":
                return f"{{{self._several(content['items'])}}}"
            case "Object":
                pairs = (f"{self.expression(key)}: {self.expression(value)}" for _, key, value in content["fields"])
                return f"{{{_COMMA.join(pairs)}}}"
            case "ArrayCompr":
                return f"[{self.expression(content['term'])} | {self.body(content['query']['stmts'])}]"
            case "SetCompr":
                return f"{{{self.expression(content['term'])} | {self.body(content['query']['stmts'])}}}"
            case "ObjectCompr":
                pair = f"{self.expression(content['key'])}: {self.expression(content['value'])}"
                return f"{{{pair} | {self.body(content['query']['stmts'])}}}"
            case "Call":
                return f"{self.expression(content['fcn'])}({self._several(content['params'])})"
            case "RefDot":
                return f"{self.expression(content['refr'])}.{content['field'][1]}"
            case "RefBrack":
                return f"{self.expression(content['refr'])}[{self.expression(content['index'])}]"
            case "UnaryExpr":
                return f"-({self.expression(content['expr'])})"
            case "Membership":
                key = f"{self.expression(content['key'])}, " if content["key"] else ""
                return f"({key}{self.expression(content['value'])} in {self.expression(content['collection'])})"
            case "BoolExpr" | "ArithExpr" | "BinExpr":
                sign = {"BoolExpr": _BOOL, "ArithExpr": _ARITH, "BinExpr": _SETS}[tag][content["op"]]
                return f"({self.expression(content['lhs'])} {sign} {self.expression(content['rhs'])})"
            case _:
                raise UnknownSyntax(tag)

    def _several(self, nodes: Iterable[dict[str, Any]]) -> str:
        return _COMMA.join(self.expression(node) for node in nodes)
