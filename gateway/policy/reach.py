"""Which rules the decision depends on, so that a verdict that nothing reads is told.

Rego forgives a rule in the wrong package: `deny` in `package crm` is simply not `data.gateway.deny`, nothing reads it,
and what it forbids is allowed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from gateway.documents import suggest
from gateway.policy import tree as trees
from gateway.policy.dialect import Fault, Module
from gateway.policy.meaning import Folder

VERDICTS = ("allow", "deny", "escalate")
PACKAGE = ("gateway",)
_ENTRY = (PACKAGE, "decision")

Rule = tuple[tuple[str, ...], str]  # package, name


def unread(folder: Folder) -> Iterator[tuple[str, Fault, bool]]:
    """Verdicts that the decision does not depend on: file, fault, and whether it is only a warning.

    An error in a package that the decision does not read at all. Where it reads other rules of the package, it is a
    warning, and in its own package only where it reads another of these sets: an entry point may be written that does
    without all of them.
    """
    reached = reachable(folder)
    reads_any = any((PACKAGE, verdict) in reached for verdict in VERDICTS)
    packages = _packages_read(folder, reached)
    for package, rules in folder.rules.items():
        for name, places in rules.items():
            if (package, name) in reached or not any(_is_verdict(head) for _, head in places):
                continue
            if package == PACKAGE and not reads_any:
                continue
            files = dict.fromkeys(module.file for module, _ in places)
            for file in files:
                line = next(head.line for module, head in places if module.file == file)
                yield file, _fault(package, name, line), package in packages


def in_tests(tests: Sequence[Module]) -> Iterator[tuple[str, Fault]]:
    """Verdicts of the decision's own package in files that are only read to be run as tests."""
    for module in tests:
        for head in trees.heads(module.tree) if module.package == PACKAGE else ():
            if _is_verdict(head):
                message = f"{head.name!r} has no effect: a file named *_test.rego is not part of the policy."
                yield module.file, Fault(head.line, message, "Rename the file, or move the rule.")


def _packages_read(folder: Folder, reached: set[Rule]) -> set[tuple[str, ...]]:
    """The packages that the decision reads something of, or that a module imports of which it does."""
    read = {package for package, _ in reached}
    imported = {
        path[1:]
        for module in folder.modules
        if module.package in read
        for _, path, _ in trees.imports(module.tree, module.text.encode())
        if path[:1] == ("data",)
    }
    return read | {package for package in folder.rules if any(package == one[: len(package)] for one in imported)}


def _fault(package: tuple[str, ...], name: str, line: int) -> Fault:
    shown = ".".join(package)
    if package == PACKAGE:
        close = None if name in VERDICTS else suggest(name, VERDICTS)
        mend = f"Did you mean {close!r}?" if close else "Let `decision` read it, or remove it."
        return Fault(line, f"{name!r} has no effect: the decision does not read it.", mend)
    mend = f"Write `package {'.'.join(PACKAGE)}`."
    return Fault(line, f"{name!r} has no effect: the decision does not read data.{shown}.{name}.", mend)


def _is_verdict(head: trees.Head) -> bool:
    """`allow`, `deny` or `escalate`, or a set whose entries look like theirs."""
    if head.name in VERDICTS:
        return True
    fields = ((head.entry or {}).get("Object") or {}).get("fields", [])
    return {"rule", "reason"} <= {trees.text_of(key) for _, key, _ in fields}


def reachable(folder: Folder) -> set[Rule]:
    """Every rule that `data.gateway.decision` may read, itself included."""
    found: set[Rule] = set()
    todo: list[Rule] = [_ENTRY]
    while todo:
        rule = todo.pop()
        places = folder.rules.get(rule[0], {}).get(rule[1], [])
        if rule in found or not places:
            continue
        found.add(rule)
        for module, head in places:
            todo += read_by(folder, module, head.rule)
    return found


def read_by(folder: Folder, module: Module, rule: dict[str, Any]) -> Iterator[Rule]:
    """The rules that one piece of a rule reads or calls."""
    for steps, _ in trees.names(rule):
        meant = folder.meant(module, steps)
        if meant[0] == "data":
            yield from _read_at(folder, tuple(itertools.takewhile(lambda step: step is not None, meant[1:])))


def _read_at(folder: Folder, path: tuple[trees.Step, ...]) -> Iterator[Rule]:
    """The rule on the way along a path below `data`; where there is none, every rule of every package below it."""
    for end, step in enumerate(path):
        package = tuple(str(one) for one in path[:end])
        if step in folder.rules.get(package, {}):
            yield package, str(step)
            return
    for package, rules in folder.rules.items():
        if package[: len(path)] == path:
            yield from ((package, name) for name in rules)
