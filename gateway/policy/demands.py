"""Obligations that rules write out: fields, types and bounds, at the line where they stand.

What is only known when a policy runs is checked then (`answer`): there an obligation that can't be read is a deny.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from gateway.documents import suggest
from gateway.obligations import APPROVAL, Approval, QuorumAsked
from gateway.policy import tree as trees
from gateway.policy.dialect import Fault
from gateway.policy.known import Mention
from gateway.policy.meaning import Folder, Scope, Text

_UNKNOWN: Final = object()
At = tuple[str, Fault]  # file, fault


def demanded(node: dict[str, Any], scope: Scope) -> Iterator[At]:
    """What is wrong with one obligation: an item of the list `obligations`."""
    for literal, inner in scope.folder.literals(node, scope):
        if "Object" not in literal:
            yield _at(inner, literal, "An obligation must be an object.", 'Write {"approval": {...}}.')
            continue
        for key, value in _fields(literal):
            name = trees.text_of(key)
            if name is not None and name != APPROVAL:
                yield _at(inner, key, f"The gateway knows no obligation {name!r}.", _meant(name))
            elif name == APPROVAL:
                yield from _approval(value, inner)


def _meant(name: str) -> str:
    """What was meant by an obligation that there is not."""
    if suggest(name, [APPROVAL]):
        return f"Did you mean {APPROVAL!r}?"
    inside = suggest(name, _names(Approval))
    if inside:
        return f'Did you mean {inside!r} inside `approval`: {{"{APPROVAL}": {{"{inside}": ...}}}}?'
    return f"The only one is {APPROVAL!r}."


def approvals(folder: Folder) -> Iterator[At]:
    """What is wrong with every object written out under a field `approval`, wherever it stands."""
    for value, scope in _everywhere(folder, APPROVAL):
        if "Object" in value:
            yield from _approval(value, scope)


def groups(folder: Folder) -> Iterator[Mention]:
    """The groups of reviewers that quorums name."""
    found: dict[Text, None] = {}
    for quorum, scope in _everywhere(folder, "quorum"):
        for tag, content in trees.walk(quorum):
            for key, value in _fields({tag: content}) if tag == "Object" else ():
                if trees.text_of(key) == "group":
                    found |= dict.fromkeys(folder.texts(value, scope))
    for text in found:
        yield Mention("group", text.value, functools.partial(folder.place, text))


def approvals_asked(folder: Folder) -> Iterator[tuple[int, str, int]]:
    """How many persons each list of quorums that is written out needs to approve, with its file and line."""
    for value, scope in _everywhere(folder, "quorum"):
        for literal, inner in folder.literals(value, scope):
            if "Array" not in literal:
                continue
            asked = 0
            for item in literal["Array"]["items"]:
                for quorum, inmost in folder.literals(item, inner):
                    given = [one for key, one in _fields(quorum) if trees.text_of(key) == "approve"]
                    numbers = [_value(one) for at in given for one, _ in folder.literals(at, inmost)]
                    asked += next((one for one in numbers if isinstance(one, int)), 1)
            file, fault = _at(inner, literal, "", "")
            yield asked, file, fault.line


def _everywhere(folder: Folder, name: str) -> Iterator[tuple[dict[str, Any], Scope]]:
    """The values of all fields `name` of objects that are written out in rules."""
    for module in folder.modules:
        for head in trees.heads(module.tree):
            values = [
                value
                for tag, content in trees.walk(head.rule)
                if tag == "Object"
                for key, value in _fields({tag: content})
                if trees.text_of(key) == name
            ]
            if values:  # a scope is dear, and most rules have no such field
                scope = Scope(folder, module, head.rule, {})
                yield from ((value, scope) for value in values)


def _approval(node: dict[str, Any], scope: Scope) -> Iterator[At]:
    for literal, inner in scope.folder.literals(node, scope):
        yield from _struct(literal, inner, Approval, f"obligation {APPROVAL!r}")
        for key, value in _fields(literal):
            if trees.text_of(key) == "quorum":
                yield from _quorums(value, inner)


def _quorums(node: dict[str, Any], scope: Scope) -> Iterator[At]:
    for literal, inner in scope.folder.literals(node, scope):
        if "Array" not in literal:
            yield _at(inner, literal, "'quorum' must be a list.", 'Write [{"approve": 2}].')
            continue
        if not literal["Array"]["items"]:
            yield _at(inner, literal, "'quorum' is empty, so nobody could approve.", 'Write [{"approve": 1}].')
        for item in literal["Array"]["items"]:
            for quorum, inmost in scope.folder.literals(item, inner):
                yield from _struct(quorum, inmost, QuorumAsked, "quorum")


def _struct(node: dict[str, Any], scope: Scope, model: type[msgspec.Struct], what: str) -> Iterator[At]:
    """An object that is written out, against the fields that it may have."""
    if "Object" not in node:
        yield _at(scope, node, f"The {what} must be an object.", f"Its fields are: {', '.join(_names(model))}.")
        return
    types = {field.name: field.type for field in msgspec.structs.fields(model)}
    for key, value in _fields(node):
        name = trees.text_of(key)
        if name is None:
            continue
        if name not in types:
            close = suggest(name, types)
            mend = f"Did you mean {close!r}?" if close else f"Its fields are: {', '.join(types)}."
            yield _at(scope, key, f"The {what} has no field {name!r}.", mend)
            continue
        for literal, inner in scope.folder.literals(value, scope) if name != "quorum" else ():
            given = _value(literal)
            try:
                if given is not _UNKNOWN:
                    msgspec.convert(given, types[name])
            except msgspec.ValidationError as error:
                told = str(error).replace("`", "")
                message = f"{name!r} of the {what} has a value that is not allowed: {told}."
                yield _at(inner, literal, message, _allowed(types[name]))


def _allowed(kind: Any) -> str:
    words = [word for one in (kind, *get_args(kind)) if get_origin(one) is Literal for word in get_args(one)]
    return f"Use one of: {', '.join(words)}." if words else "Correct it."


def _names(model: type[msgspec.Struct]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(model)]


def _fields(node: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(key, value) for _, key, value in node["Object"]["fields"]] if "Object" in node else []


def _value(node: dict[str, Any]) -> Any:
    """A scalar that is written out; `_UNKNOWN` for everything else (lists and objects are looked at one by one)."""
    text = trees.text_of(node)
    if text is not None:
        return text
    for tag in ("Number", "Bool"):
        if tag in node:
            return node[tag]["value"]
    return None if "Null" in node else _UNKNOWN


def _at(scope: Scope, node: dict[str, Any], message: str, mend: str) -> At:
    return scope.module.file, Fault(trees.line_at(node), message, mend)
