"""Everything that can be said about a folder of policies without running them: errors, warnings, and names.

Errors keep a folder from being loaded. Names (of agents, tools, models, groups) are only gathered here: whether they
exist depends on the configuration and the registry, which can change while the policies stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.documents import Problem, errors, suggest
from gateway.policy import compared, demands, entries, grants, reach, shapes
from gateway.policy import tree as trees
from gateway.policy.dialect import Fault, Module, check
from gateway.policy.engine import ENTRY_POINT
from gateway.policy.folder import Bundle, read_folder
from gateway.policy.known import Known, Mention, unknown
from gateway.policy.meaning import Folder
from gateway.policy.names import Names
from gateway.policy.own_fields import own_fields

_PACKAGE = ("gateway",)
_RULE = "decision"
_DEFAULT = 'Write `default decision := {"effect": "deny", "rules": [..], "reasons": [..]}` in the package gateway.'
_MANY = 50  # problems of the grants that are told; a file with more has one cause

UnknownNames = Callable[[Known], list[Problem]]


class Examined:
    """A folder with what is wrong with its policies and data. Belongs to no thread."""

    def __init__(self, path: str | Path) -> None:
        """Reads the folder. Raises nothing: what cannot be read is a problem."""
        self.bundle = bundle = read_folder(path)
        self._folder = Folder(bundle.modules, bundle.data, bundle.files)
        self._compared = compared.comparisons(self._folder)
        self.problems = [*bundle.problems, *self._of(bundle.modules)]
        if not errors(bundle.problems):  # else a file is missing from the picture, and its names would be false alarms
            self.problems += _faults(bundle, Names(bundle.modules, bundle.data).check())
            self.problems += _faults(bundle, _entry_point(bundle.modules))
            self.problems += self._meaning()

    def of_tests(self) -> list[Problem]:
        """What is wrong with the tests."""
        bundle = self.bundle
        problems = [*self._of(bundle.tests), *(one for module in bundle.tests for one in _twice(bundle, module))]
        if not errors(bundle.problems):
            everything = [*bundle.modules, *bundle.tests]
            of_all = _faults(bundle, Names(everything, bundle.data).check())
            problems += [one for one in of_all if one not in self.problems]
        return problems

    def unknown_names(self, known: Known) -> list[Problem]:
        """Names in rules and grants that do not exist, and grants that reach nothing, as far as they can be read."""
        bundle = self.bundle
        found = [replace(one, file=str(bundle.root / one.file)) for one in unknown(self._mentions(), known)]
        if _reads(bundle.modules, grants.ROOT):
            for fault in grants.out_of_reach(bundle.data.get(grants.ROOT), known.risks):
                file, line = bundle.files.place(fault.path)
                found.append(bundle.problem(file, line, fault.message, fault.mend, warning=True))
        return found

    def approvals_asked(self) -> list[tuple[int, str, int]]:
        """How many persons rules ask to approve, each with its file and line."""
        bundle = self.bundle
        return [(asked, str(bundle.root / file), line) for asked, file, line in demands.approvals_asked(self._folder)]

    def _mentions(self) -> Iterator[Mention]:
        yield from compared.mentions(self._folder, self._compared)
        yield from demands.groups(self._folder)
        if _reads(self.bundle.modules, grants.ROOT):
            yield from grants.mentions(self.bundle.data.get(grants.ROOT), self.bundle.files.place)

    def _of(self, modules: Sequence[Module]) -> list[Problem]:
        return [self.bundle.problem(module.file, *fault) for module in modules for fault in check(module)]

    def _meaning(self) -> Iterator[Problem]:
        bundle, folder = self.bundle, self._folder
        read = entries.fields_read(folder)
        yield from _faults(bundle, shapes.conflicts(folder))
        for file, fault, is_warning in reach.unread(folder):
            yield bundle.problem(file, *fault, warning=is_warning)
        for file, fault in reach.in_tests(bundle.tests):
            yield bundle.problem(file, *fault, warning=True)
        for file, fault, is_warning in entries.check(folder, read):
            yield bundle.problem(file, *fault, warning=is_warning)
        yield from _faults(bundle, demands.approvals(folder))
        for file, fault in compared.impossible(folder, self._compared):
            yield bundle.problem(file, *fault, warning=True)
        if folder.is_exhausted:
            message = "The rules refer to each other in too many ways, so not every name in them was checked."
            yield Problem(str(bundle.root), 0, message, "Use fewer helpers that call helpers.", "warning")
        yield from _grants(bundle, folder)
        yield from _unread_data(bundle)


def _faults(bundle: Bundle, found: Iterable[tuple[str, Fault]]) -> list[Problem]:
    return [bundle.problem(file, *fault) for file, fault in found]


def _twice(bundle: Bundle, module: Module) -> Iterator[Problem]:
    seen: set[str] = set()
    for head in test_rules(module):
        if head.name in seen:
            yield bundle.problem(module.file, head.line, f"{head.name} is defined twice.", "Rename one.")
        seen.add(head.name)


def test_rules(module: Module) -> Iterator[trees.Head]:
    return (head for head in trees.heads(module.tree) if head.name.startswith("test_"))


def _grants(bundle: Bundle, folder: Folder) -> Iterator[Problem]:
    if grants.ROOT not in bundle.data or not _reads(bundle.modules, grants.ROOT):
        return
    for count, fault in enumerate(grants.check(bundle.data[grants.ROOT], own_fields(folder))):
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


def _unread_data(bundle: Bundle) -> Iterator[Problem]:
    """Data that no rule reads, such as in a folder with a misspelt name."""
    modules = [*bundle.modules, *bundle.tests]
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
