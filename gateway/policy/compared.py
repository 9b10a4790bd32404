"""What rules compare fields of the input with: literal names of tools, models and agents, and words of fixed lists.

Read off the syntax trees. A comparison with a word that a field never has is told at once; names are returned, since
whether they exist depends on the registry and the configuration. Neither is an error: such a rule is only never true.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from gateway.actions import AgentStatus
from gateway.actions import Kind as ActionKind
from gateway.documents import suggest
from gateway.policy import tree as trees
from gateway.policy.dialect import Fault
from gateway.policy.known import Kind, Match, Mention
from gateway.policy.meaning import Bound, Folder, Scope, Text

Field = tuple[str, ...]

NAMES: dict[Field, Kind] = {
    ("agent", "id"): "agent",
    ("agent", "team"): "team",
    ("agent", "tier"): "tier",
    ("agent", "use_case"): "use case",
    ("target", "id"): "target",
    ("target", "server"): "server",
    ("target", "tool"): "tool",
    ("target", "alias"): "model",
    ("target", "provider"): "provider",
}
_ENVIRONMENTS = ("dev", "stage", "prod")
WORDS: dict[Field, tuple[str, ...]] = {
    ("action", "kind"): tuple(one.value for one in ActionKind),
    ("agent", "env"): _ENVIRONMENTS,
    ("agent", "status"): tuple(one.value for one in AgentStatus),
    ("environment",): _ENVIRONMENTS,
    ("settings", "undeclared_client_tools"): ("deny", "escalate", "observe"),
    ("target", "effect"): ("read", "write", "egress", "destructive"),
    ("target", "kind"): ("mcp", "client"),
    ("target", "risk"): ("low", "medium", "high", "critical"),
    ("target", "type"): ("tool", "model"),
}
_A_CALL = 20  # steps that following a function takes
_DEEP = 3  # functions that call functions
_TESTS: dict[str, tuple[int, int, Match]] = {  # of the parameters: the field, the text
    "startswith": (0, 1, "starts"),
    "endswith": (0, 1, "ends"),
    "contains": (0, 1, "holds"),
    "glob.match": (2, 0, "glob"),
    "regex.match": (1, 0, "regex"),
}
_SEVERAL: dict[str, Match] = {"strings.any_prefix_match": "starts", "strings.any_suffix_match": "ends"}


class Comparison(NamedTuple):
    """A field, the text that it is compared with, and how."""

    field: Field
    text: Text
    match: Match = "is"
    server: str | None = None


def comparisons(folder: Folder) -> list[Comparison]:
    """Every comparison of a field of `NAMES` or `WORDS` with a literal, in the modules of a folder."""
    found: dict[Comparison, None] = {}
    for module in folder.modules:
        for head in trees.heads(module.tree):
            scope = Scope(folder, module, head.rule, {})
            found |= dict.fromkeys(_with_server(_rule(head.rule, scope, _DEEP)))
    return list(found)


def impossible(folder: Folder, compared: Iterable[Comparison]) -> Iterator[tuple[str, Fault]]:
    """Comparisons with a word that the field never has: file and fault."""
    for one in compared:
        words = WORDS.get(one.field)
        if words is None or one.match != "is" or one.text.value in words:
            continue
        close = suggest(one.text.value, words)
        mend = f"Did you mean {close!r}?" if close else f"It is one of: {', '.join(words)}."
        message = f"input.{'.'.join(one.field)} is never {one.text.value!r}."
        file, line = folder.place(one.text)
        yield file, Fault(line, message, mend)


def mentions(folder: Folder, compared: Iterable[Comparison]) -> Iterator[Mention]:
    """The names that rules compare with."""
    for one in compared:
        kind = NAMES.get(one.field)
        if kind is not None and one.text.value:
            place = functools.partial(folder.place, one.text)
            yield Mention(kind, one.text.value, place, one.match, one.server)


def _with_server(found: Iterable[Comparison]) -> Iterator[Comparison]:
    """Where a rule names one server and a tool's bare name, the tool is that server's."""
    every = list(found)
    servers = {one.text.value for one in every if one.field == ("target", "server") and one.match == "is"}
    for one in every:
        own = one.field == ("target", "tool") and len(servers) == 1
        yield one._replace(server=next(iter(servers))) if own else one


def _rule(node: Any, scope: Scope, deep: int) -> Iterator[Comparison]:
    folder = scope.folder
    for tag, content in trees.walk(node):
        if (tag == "BoolExpr" and content["op"] in ("Eq", "Ne")) or (tag == "AssignExpr" and content["op"] == "Eq"):
            yield from _pair(content, scope)
        elif tag == "Membership":
            for field in _fields(content["value"], scope):
                yield from (Comparison(field, text) for text in folder.members(content["collection"], scope))
        elif tag == "RefBrack":
            for field in _fields(content["index"], scope):
                yield from (Comparison(field, text) for text in folder.keys(content["refr"], scope))
        elif tag == "Call":
            yield from _call(content, scope, deep)


def _fields(node: dict[str, Any], scope: Scope) -> list[Field]:
    return [field for field in scope.folder.fields(node, scope) if field in NAMES or field in WORDS]


def _pair(content: dict[str, Any], scope: Scope) -> Iterator[Comparison]:
    for one, other in ((content["lhs"], content["rhs"]), (content["rhs"], content["lhs"])):
        for field in _fields(one, scope):
            yield from (Comparison(field, text) for text in scope.folder.texts(other, scope))


def _call(content: dict[str, Any], scope: Scope, deep: int) -> Iterator[Comparison]:
    folder, parameters = scope.folder, content["params"]
    steps = trees.reference(content["fcn"])
    if steps is None or None in steps:
        return
    name = ".".join(str(step) for step in steps)
    if name in _TESTS and len(parameters) > max(_TESTS[name][:2]):
        field_at, text_at, match = _TESTS[name]
        for field in _fields(parameters[field_at], scope):
            yield from (Comparison(field, text, match) for text in folder.texts(parameters[text_at], scope))
    elif name in _SEVERAL and len(parameters) == 2:
        for field in _fields(parameters[0], scope):
            several = [*folder.texts(parameters[1], scope), *folder.members(parameters[1], scope)]
            yield from (Comparison(field, text, _SEVERAL[name]) for text in several)
    elif deep:
        yield from _own_function(folder.meant(scope.module, steps), parameters, scope, deep)


def _own_function(
    meant: tuple[trees.Step, ...], parameters: list[dict[str, Any]], scope: Scope, deep: int
) -> Iterator[Comparison]:
    """What a function of the folder compares its parameters with, as it is called here."""
    folder = scope.folder
    rules, _ = folder.find(meant[1:]) if meant[0] == "data" else ([], ())
    for module, head in rules:
        if not head.function or len(head.arguments) != len(parameters) or not folder.step(_A_CALL):
            continue
        bound: dict[str, Bound] = {}
        for argument, given in zip(head.arguments, parameters, strict=True):
            value = trees.text_of(argument)
            if value is not None:  # f("crm__send") := ...
                text = Text(value, module.file, trees.line_at(argument))
                yield from (Comparison(field, text) for field in _fields(given, scope))
            elif "Var" in argument:
                bound[str(argument["Var"]["value"])] = Bound(given, scope)
        yield from _rule(head.rule, Scope(folder, module, head.rule, bound), deep - 1)
