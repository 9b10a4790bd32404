"""Everything that can be said about a folder of policies without running them: errors, warnings, and names.

Errors keep a folder from being loaded. Names (of agents, tools, models, groups) are only gathered here: whether they
exist depends on the configuration and the registry, which can change while the policies stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from gateway.documents import Problem, errors, suggest
from gateway.policy import compared, demands, entries, grants, reach
from gateway.policy import tree as trees
from gateway.policy.dialect import Fault, Module, check
from gateway.policy.engine import ENTRY_POINT
from gateway.policy.folder import Bundle
from gateway.policy.known import Known, Mention, unknown
from gateway.policy.meaning import Folder
from gateway.policy.names import Names

_PACKAGE = ("gateway",)
_RULE = "decision"
_DEFAULT = 'Write `default decision := {"effect": "deny", "rules": [..], "reasons": [..]}` in the package gateway.'
_MANY = 50  # problems of the grants that are told; a file with more has one cause

UnknownNames = Callable[[Known], list[Problem]]


def examine(bundle: Bundle, modules: Sequence[Module]) -> list[Problem]:
    """What is wrong with `modules` of a folder, its tests among them if they are to be run, and with its data."""
    problems = [bundle.problem(module.file, *fault) for module in modules for fault in check(module)]
    for module in modules:
        seen: set[str] = set()
        for head in test_rules(module) if module.is_test else ():
            if head.name in seen:
                problems.append(bundle.problem(module.file, head.line, f"{head.name} is defined twice.", "Rename one."))
            seen.add(head.name)
    if errors(bundle.problems):  # a file is missing from the picture, so names that lead there would be false alarms
        return problems
    problems += [bundle.problem(file, *fault) for file, fault in Names(modules, bundle.data).check()]
    problems += [bundle.problem(file, *fault) for file, fault in _entry_point(modules)]
    return [*problems, *_meaning(bundle, modules)]


def names(bundle: Bundle) -> UnknownNames:
    """A function that tells which names of a folder's rules and grants do not exist."""
    folder = Folder(bundle.modules, bundle.data, bundle.files)
    in_rules = [*compared.mentions(folder, compared.comparisons(folder)), *demands.groups(folder)]
    reads_grants = _reads(bundle.modules, grants.ROOT)

    def mentioned() -> Iterator[Mention]:
        yield from in_rules
        if reads_grants:
            yield from grants.mentions(bundle.data.get(grants.ROOT), bundle.files.place)

    return lambda known: [replace(one, file=str(bundle.root / one.file)) for one in unknown(mentioned(), known)]


def test_rules(module: Module) -> Iterator[trees.Head]:
    return (head for head in trees.heads(module.tree) if head.name.startswith("test_"))


def _meaning(bundle: Bundle, modules: Sequence[Module]) -> Iterator[Problem]:
    folder = Folder(bundle.modules, bundle.data, bundle.files)
    for file, fault, is_warning in reach.unread(folder):
        yield bundle.problem(file, *fault, warning=is_warning)
    for file, fault, is_warning in entries.check(folder):
        yield bundle.problem(file, *fault, warning=is_warning)
    for file, fault in demands.approvals(folder):
        yield bundle.problem(file, *fault)
    for file, fault in compared.impossible(folder, compared.comparisons(folder)):
        yield bundle.problem(file, *fault, warning=True)
    yield from _grants(bundle, folder)
    yield from _unread_data(bundle, [*modules, *bundle.tests])


def _grants(bundle: Bundle, folder: Folder) -> Iterator[Problem]:
    if grants.ROOT not in bundle.data or not _reads(bundle.modules, grants.ROOT):
        return
    own = entries.fields_read(folder)
    for count, fault in enumerate(grants.check(bundle.data[grants.ROOT], own)):
        file, line = bundle.files.place(fault.path)
        if count == _MANY:
            yield bundle.problem(file, 0, "The grants have more errors.", "Fix those above first.")
            return
        yield bundle.problem(file, line, fault.message, fault.mend)


def _reads(modules: Sequence[Module], root: str) -> bool:
    return any(
        steps[1:2] in ((root,), (None,)) for module in modules for steps in _data_paths(module) if len(steps) > 1
    )


def _data_paths(module: Module) -> Iterator[tuple[trees.Step, ...]]:
    """Every path below `data` that a module names, by import or outright."""
    source = module.text.encode()
    yield from (path for _, path, _ in trees.imports(module.tree, source) if path[:1] == ("data",))
    yield from (steps for steps, _ in trees.names(module.tree["rules"]) if steps[0] == "data")


def _unread_data(bundle: Bundle, modules: Sequence[Module]) -> Iterator[Problem]:
    """Data that no rule reads, such as in a folder with a misspelt name."""
    paths = [steps[1:] for module in modules for steps in _data_paths(module)]
    packages = [module.package for module in modules]
    yield from _unread_below(bundle, bundle.data, (), paths, packages)


def _unread_below(
    bundle: Bundle,
    value: dict[str, Any],
    at: tuple[str, ...],
    paths: list[tuple[trees.Step, ...]],
    packages: list[tuple[str, ...]],
) -> Iterator[Problem]:
    for key, inner in value.items():
        path = (*at, key)
        if any(package[: len(path)] == path for package in packages):  # shared by a package and data
            if isinstance(inner, dict):
                yield from _unread_below(bundle, inner, path, paths, packages)
            continue
        if inner in ({}, [], None) or any(_covers(one, path) for one in paths):
            continue
        file, line = bundle.files.place(path)
        read = sorted({str(one[len(at)]) for one in paths if one[: len(at)] == at and len(one) > len(at)})
        close = suggest(key, [one for one in read if (*at, one) not in packages])
        mend = f"Did you mean data.{'.'.join((*at, close))}?" if close else "Correct the path, or remove the data."
        yield bundle.problem(file, line, f"No rule reads data.{'.'.join(path)}.", mend, warning=True)


def _covers(read: tuple[trees.Step, ...], path: tuple[str, ...]) -> bool:
    """Whether a path that is read goes through `path`, or stops above it and so reads all below."""
    return all(step is None or step == own for step, own in zip(read, path, strict=False))


def _entry_point(modules: Sequence[Module]) -> Iterator[tuple[str, Fault]]:
    found = [
        (module.file, head)
        for module in modules
        if module.package == _PACKAGE
        for head in trees.heads(module.tree)
        if head.name == _RULE
    ]
    if not found:
        first = modules[0].file if modules else "decision.rego"
        yield first, Fault(0, f"No policy in the folder defines {ENTRY_POINT}.", _DEFAULT)
        return
    default = next(((file, head) for file, head in found if head.is_default), None)
    if default is None:
        file, head = found[0]
        yield file, Fault(head.line, f"{ENTRY_POINT} has no default.", _DEFAULT)
    elif not _is_deny(default[1]):
        yield default[0], Fault(default[1].line, f"The default of {ENTRY_POINT} is not a deny.", _DEFAULT)


def _is_deny(head: trees.Head) -> bool:
    fields = ((head.value or {}).get("Object") or {}).get("fields", [])
    return any(trees.text_of(key) == "effect" and trees.text_of(value) == "deny" for _, key, value in fields)
