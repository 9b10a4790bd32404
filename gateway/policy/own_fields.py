"""Fields of the grants that rules of the folder read themselves, beside those that the shipped rules know.

Only rules count that see the grants: those that name `data.grants`, what they call, and what reads their results. A
word that rules read of something else is no field of a grant.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from gateway.policy import tree as trees
from gateway.policy.dialect import Module
from gateway.policy.meaning import Folder
from gateway.policy.reach import PACKAGE, VERDICTS, Rule, read_by

_GRANTS = ("data", "grants")
_ENDS = frozenset({(PACKAGE, f"{prefix}{verdict}") for verdict in VERDICTS for prefix in ("", "otherwise_")})


class OwnFields(NamedTuple):
    """Names of fields: those directly below `data.grants`, and those anywhere further down."""

    root: frozenset[str]
    inner: frozenset[str]


def own_fields(folder: Folder) -> OwnFields:
    """The names that rules read of the grants, as far as they are written out."""
    root: set[str] = set()
    inner: set[str] = set()
    seeing = _rules_that_see(folder)
    for package, name in seeing:
        for module, head in folder.rules[package][name]:
            for path in _paths(folder, module, head, seeing):
                found = [step for step in path if step is not None]
                if path[:1] == (None,) or not path:
                    inner.update(found)
                else:
                    root.update(found[:1])
                    inner.update(found[1:])
    for package, name in seeing:
        for module, head in folder.rules[package][name]:
            inner.update(_of_locals(folder, module, head))
    return OwnFields(frozenset(root), frozenset(inner))


def _rules_that_see(folder: Folder) -> set[Rule]:
    """Rules that name the grants, the functions these call, and the rules that read any of them, short of verdicts."""
    reads = {
        (package, name): {rule for module, head in places for rule in read_by(folder, module, head.rule)}
        for package, rules in folder.rules.items()
        for name, places in rules.items()
    }
    found = {
        (package, name)
        for package, rules in folder.rules.items()
        for name, places in rules.items()
        if any(_names_grants(folder, module, head) for module, head in places)
    }
    todo = list(found)
    while todo:
        rule = todo.pop()
        below = {one for one in reads[rule] if one in reads and one not in _ENDS}
        above = {one for one, read in reads.items() if rule in read} if rule not in _ENDS else set()
        todo += (below | above) - found
        found |= below | above
    return found


def _names_grants(folder: Folder, module: Module, head: trees.Head) -> bool:
    return any(folder.meant(module, steps)[:2] == _GRANTS for steps, _ in trees.names(head.rule))


def _paths(folder: Folder, module: Module, head: trees.Head, seeing: set[Rule]) -> Iterator[tuple[trees.Step, ...]]:
    """Paths below `data.grants`; those below a rule that sees the grants begin with None: their place is not known."""
    for steps, _ in trees.names(head.rule):
        meant = folder.meant(module, steps)
        if meant[:2] == _GRANTS:
            yield meant[2:]
        elif meant[0] == "data":
            for end in range(2, len(meant)):
                package, name = tuple(str(one) for one in meant[1:end]), meant[end]
                if (package, name) in seeing:
                    yield (None, *meant[end + 1 :])


def _of_locals(folder: Folder, module: Module, head: trees.Head) -> Iterator[str]:
    """Fields that are read of a variable or a parameter, by `thing.field` or `object.get`."""
    calls = [content for tag, content in trees.walk(head.rule) if tag == "Call"]
    functions = {trees.reference(call["fcn"]) for call in calls}
    for steps, _ in trees.references(head.rule):
        if steps not in functions and folder.meant(module, steps)[0] not in ("data", "input"):
            yield from (step for step in steps[1:] if step is not None)
    for call in calls:
        if trees.reference(call["fcn"]) == ("object", "get") and len(call["params"]) > 1:
            name = trees.text_of(call["params"][1])
            if name is not None:
                yield name
