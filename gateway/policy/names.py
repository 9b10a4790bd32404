"""Names that lead nowhere, across all modules of a folder: functions, paths of `input` and `data`, clashes.

The engine itself says nothing of these: what is not there is undefined, a function that is not there fails only when
it is reached, and data that stand where a rule stands silently replace the rule.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from gateway.documents import suggest
from gateway.policy import tree as trees
from gateway.policy.builtins import ALLOWED, instead_of
from gateway.policy.dialect import Fault, Module
from gateway.policy.document import InputV1
from gateway.policy.grants import ROOT, SECTIONS

Found = tuple[str, Fault]  # file, fault


class Names:
    """All that is defined in a folder."""

    def __init__(self, modules: Sequence[Module], data: dict[str, Any]) -> None:
        self._modules = modules
        self._data = data
        self.rules: dict[tuple[str, ...], dict[str, list[tuple[str, trees.Head]]]] = {}
        for module in modules:
            defined = self.rules.setdefault(module.package, {})
            for head in trees.heads(module.tree):
                defined.setdefault(head.name, []).append((module.file, head))

    def check(self) -> Iterator[Found]:
        """Every name that leads nowhere or is taken twice."""
        yield from self._clashes()
        for module in self._modules:
            for fault in self._module(module):
                yield module.file, fault

    # ------------------------------------------------------------ one module

    def _module(self, module: Module) -> Iterator[Fault]:
        source = module.text.encode()
        aliases = {name: path for name, path, _ in trees.imports(module.tree, source)}
        for _, path, line in trees.imports(module.tree, source):
            yield from self._path(path, line, module)
        called = set()
        for tag, content in trees.walk(module.tree["rules"]):
            if tag == "Call":
                called.add((trees.reference(content["fcn"]), trees.line_of(content)))
                yield from self._call(content, aliases, module)
        for steps, line in trees.references(module.tree["rules"]):
            if (steps, line) in called:
                continue  # told by what is said about the call
            meant = (*aliases[str(steps[0])], *steps[1:]) if steps[0] in aliases else steps
            yield from self._path(meant, line, module)

    def _call(self, content: dict[str, Any], aliases: dict[str, tuple[str, ...]], module: Module) -> Iterator[Fault]:
        path = trees.reference(content["fcn"])
        if path is None or None in path:
            yield Fault(trees.line_of(content), "The function is not named outright.", "Write its name.")
            return
        steps = tuple(str(step) for step in path)
        meant = (*aliases[steps[0]], *steps[1:]) if steps[0] in aliases else steps
        name, line = ".".join(meant), trees.line_of(content)
        if meant[0] == "data":
            defined = self.rules.get(meant[1:-1], {}).get(meant[-1], [])
            if not any(head.function for _, head in defined):
                yield Fault(line, f"There is no function {name}.", "Check its name and package.")
        elif len(meant) == 1 and any(head.function for _, head in self.rules[module.package].get(name, [])):
            return
        elif name not in ALLOWED and not (name == "print" and module.is_test):
            yield self._unknown(name, line)

    @staticmethod
    def _unknown(name: str, line: int) -> Fault:
        mend = instead_of(name)
        if mend is not None:
            return Fault(line, f"The function {name} is not in the dialect.", mend)
        close = suggest(name, ALLOWED)
        known = f"Did you mean {close}?" if close else "policies/README.md lists the functions there are."
        return Fault(line, f"The function {name} is not known.", known)

    def _path(self, path: tuple[trees.Step, ...], line: int, module: Module) -> Iterator[Fault]:
        if path[0] == "input" and not module.is_test:
            yield from _input_path(path[1:], line)
        elif path[0] == "data":
            yield from self._data_path(path[1:], line)

    def _data_path(self, path: tuple[trees.Step, ...], line: int) -> Iterator[Fault]:
        """A path into packages and rules is followed to the rule; one into data, for two steps (the rest is data)."""
        if path[:1] == (ROOT,) and path[1:2] in SECTIONS and ROOT in self._data:
            return  # what nobody was granted anything by may be left out
        package: tuple[str, ...] = ()
        data: Any = self._data
        for depth, step in enumerate(path):
            if step is None:
                return
            rules = self.rules.get(package, {})
            if step in rules:
                return
            inner = (*package, step)
            is_package = any(known[: len(inner)] == inner for known in self.rules)
            is_data = isinstance(data, dict) and (step in data or depth >= 2)
            if not is_package and not is_data:
                known = [*rules, *(data if isinstance(data, dict) else ())]
                known += [one[depth] for one in self.rules if one[:depth] == package and len(one) > depth]
                close = suggest(step, set(known))
                told = f"Did you mean {close!r}?" if close else "Add it to a data.yaml, or correct the path."
                yield Fault(line, f"Nothing stands under data.{'.'.join(inner)}.", told)
                return
            package = inner if is_package else ("",)
            data = data.get(step) if isinstance(data, dict) else None
            if depth >= 1 and not is_package:
                return

    # ------------------------------------------------------------ clashes

    def _clashes(self) -> Iterator[Found]:
        for package, defined in self.rules.items():
            for name, places in defined.items():
                yield from self._clash_of_rule(package, name, places)

    def _clash_of_rule(
        self, package: tuple[str, ...], name: str, places: list[tuple[str, trees.Head]]
    ) -> Iterator[Found]:
        file, head = places[0]
        full = ".".join(("data", *package, name))
        data: Any = self._data
        for step in (*package, name):
            if isinstance(data, dict) and step not in data:
                break
            data = data[step] if isinstance(data, dict) else data
        else:
            yield (
                file,
                Fault(head.line, f"Data stand at {full} too and would replace the rule.", "Rename one."),
            )
        if any(other[: len(package) + 1] == (*package, name) for other in self.rules):
            yield file, Fault(head.line, f"A package is named {full[5:]} too.", "Rename one of them.")
        lines: dict[str, int] = {}
        for one_file, one in places:
            if not one.grows:
                lines.setdefault(one_file, one.line)
        if len(lines) > 1:
            (first, _), (second, line), *_ = lines.items()
            message = f"{name} is defined in {first} too, in the same package; the two would be mixed."
            yield second, Fault(line, message, "Rename it: helpers bear the name of what their file is about.")
        defaults = defaultdict[str, list[int]](list)
        for one_file, one in places:
            if one.is_default:
                defaults[one_file].append(one.line)
        for one_file, all_lines in defaults.items():
            for line in all_lines[1:]:
                yield one_file, Fault(line, f"{name} has a second default.", "Keep one of them.")


# ---------------------------------------------------------------- input


def _input_path(path: Sequence[trees.Step], line: int) -> Iterator[Fault]:
    """Follow a path through the types of the input document, as far as they are fixed."""
    level = _FIELDS
    for depth, step in enumerate(path):
        if step is None or not level:
            return
        if step not in level:
            known = ".".join(("input", *(str(one) for one in path[:depth])))
            close = suggest(step, level)
            told = f"Did you mean {close!r}?" if close else f"{known} has: {', '.join(sorted(level))}."
            yield Fault(line, f"The input document has no {known}.{step}.", told)
            return
        level = level[step]


def _fields(kind: Any) -> dict[str, Any]:
    """The fields below a type, as nested dicts; empty where anything goes."""
    if isinstance(kind, msgspec.inspect.UnionType):
        merged: dict[str, Any] = {}
        for member in kind.types:
            merged |= _fields(member)
        return merged
    if not isinstance(kind, msgspec.inspect.StructType):
        return {}
    fields = {field.encode_name: _fields(field.type) for field in kind.fields}
    return {**fields, kind.tag_field: {}} if kind.tag_field else fields


_FIELDS = _fields(msgspec.inspect.type_info(InputV1))
