"""What expressions of a rule mean, as far as their syntax tells: fields of the input, and literal texts.

`input.target.id`, the same through an import, a local variable or a function's parameter, is a field. A text is a
literal, alone or in a set, an array, an object, another rule or the data files. What is only known when a policy runs
has no meaning here, so nothing is said about it.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from gateway.policy import tree as trees
from gateway.policy.dialect import Module
from gateway.policy.places import DataFiles, Path

_DEEP = 8  # steps from a name to what it means; more is a recursion
_MOST = 50_000  # steps in all, some 5 for a rule; a folder that needs more is built to need them
_MANY = 2000  # values of the data that are looked at in one place
_LITERALS = frozenset({"String", "RawString", "Number", "Bool", "Null", "Set", "Array", "Object"})
_GRANTS = ("grants",)  # have a check of their own


class Text(NamedTuple):
    """A literal text and where it stands: file as named in the folder and line, or `path` below the data."""

    value: str
    file: str = ""
    line: int = 0
    path: Path | None = None


class Scope:
    """The names that one rule sees. `bound` are a function's parameters, with the scope of who calls it."""

    def __init__(self, folder: Folder, module: Module, rule: dict[str, Any], bound: dict[str, Bound]) -> None:
        self.folder = folder
        self.module = module
        self.locals: dict[str, list[Bound]] = defaultdict(list)
        for argument in trees.Head(rule).arguments:
            for _, variable in trees.walk(argument):
                if "value" in variable:
                    self.locals[str(variable["value"])] = []  # unless it is bound: it means anything
        for name, one in bound.items():
            self.locals[name].append(one)
        source = module.text.encode()
        for tag, content in trees.walk(rule):
            if tag == "AssignExpr":
                self._assigned(content["lhs"], content["rhs"])
                if content["op"] == "Eq":
                    self._assigned(content["rhs"], content["lhs"])
            elif tag == "SomeIn":
                self._each(_variable(content["value"]), content["collection"])
            elif tag == "Every":
                span = content["value"]
                self._each(source[span["start"] : span["end"]].decode(errors="replace"), content["domain"])

    def _assigned(self, left: dict[str, Any], right: dict[str, Any]) -> None:
        name = _variable(left)
        if name is not None:
            self.locals[name].append(Bound(right, self))

    def _each(self, name: str | None, collection: dict[str, Any]) -> None:
        if name is not None:
            self.locals[name].append(Bound(collection, self, is_member=True))


class Bound(NamedTuple):
    """What a name stands for: an expression in a scope, or (`is_member`) any member of it."""

    node: dict[str, Any]
    scope: Scope
    is_member: bool = False


class _Data(NamedTuple):
    """A value of the data files."""

    value: Any
    path: Path


_Found = Bound | _Data  # of a Bound, the node is a literal


class Folder:
    """All modules and data of a folder, to follow names through."""

    def __init__(self, modules: Sequence[Module], data: dict[str, Any], files: DataFiles) -> None:
        self.modules = modules
        self._data = data
        self._files = files
        self._left = _MOST
        self.rules: dict[tuple[str, ...], dict[str, list[tuple[Module, trees.Head]]]] = {}
        self._aliases: dict[str, dict[str, tuple[str, ...]]] = {}
        for module in modules:
            defined = self.rules.setdefault(module.package, {})
            for head in trees.heads(module.tree):
                defined.setdefault(head.name, []).append((module, head))
            source = module.text.encode()
            self._aliases[module.file] = {name: path for name, path, _ in trees.imports(module.tree, source)}

    def meant(self, module: Module, steps: tuple[trees.Step, ...]) -> tuple[trees.Step, ...]:
        """A reference with the module's imports written out; a rule of its own package as `data.package.rule`."""
        root = str(steps[0])
        alias = self._aliases[module.file].get(root)
        if alias is not None:
            return (*alias, *steps[1:])
        if root in self.rules.get(module.package, {}):
            return ("data", *module.package, *steps)
        return steps

    def find(self, path: tuple[trees.Step, ...]) -> tuple[list[tuple[Module, trees.Head]], tuple[trees.Step, ...]]:
        """The rule that a path below `data` leads to, and the steps that go on from there; none if it is no rule."""
        for end in range(len(path)):
            package = tuple(step for step in path[:end] if step is not None)
            step = path[end]
            if len(package) == end and step is not None and step in self.rules.get(package, {}):
                return self.rules[package][step], path[end + 1 :]
        return [], ()

    @property
    def is_exhausted(self) -> bool:
        """Whether names were no longer followed, since the folder has too many ways to follow."""
        return self._left < 0

    def step(self, cost: int = 1) -> bool:
        """Take a step to follow a name; False where no more are to be taken."""
        self._left -= cost
        return self._left >= 0

    def place(self, text: Text) -> tuple[str, int]:
        """File, as named in the folder, and line of a text."""
        return (text.file, text.line) if text.path is None else self._files.place(text.path)

    # ------------------------------------------------------------ fields of the input

    def fields(self, node: dict[str, Any], scope: Scope, deep: int = _DEEP) -> set[tuple[str, ...]]:
        """The paths below `input` that an expression may be; none if it is something else."""
        steps = trees.reference(node)
        if deep == 0 or not self.step():
            return set()
        if steps is None:
            return self._got(node, scope, deep)
        known = scope.locals.get(str(steps[0]))
        if known is not None:
            return {
                (*path, *(str(step) for step in steps[1:]))
                for one in known
                if not one.is_member and None not in steps
                for path in self.fields(one.node, one.scope, deep - 1)
            }
        meant = self.meant(scope.module, steps)
        if meant[0] == "input":
            return set() if None in meant else {tuple(str(step) for step in meant[1:])}
        if meant[0] != "data" or None in meant:
            return set()
        rules, rest = self.find(meant[1:])
        return {
            (*path, *(str(step) for step in rest))
            for module, head in rules
            if head.value is not None and not head.function
            for path in self.fields(head.value, Scope(self, module, head.rule, {}), deep - 1)
        }

    def _got(self, node: dict[str, Any], scope: Scope, deep: int) -> set[tuple[str, ...]]:
        """Of `object.get(input.target, "id", "")`, the field."""
        call = node.get("Call") or {}
        parameters = call.get("params") or []
        if len(parameters) != 3 or trees.reference(call["fcn"]) != ("object", "get"):
            return set()
        keys = (parameters[1].get("Array") or {"items": [parameters[1]]})["items"]
        steps = [trees.text_of(key) for key in keys]
        if None in steps:
            return set()
        whole = self.fields(parameters[0], scope, deep - 1)
        return {(*path, *(str(step) for step in steps)) for path in whole}

    # ------------------------------------------------------------ literal texts

    def texts(self, node: dict[str, Any], scope: Scope) -> Iterator[Text]:
        """The literal texts that an expression may be."""
        for found in self._found(node, scope, _DEEP):
            yield from self._text(found)

    def members(self, node: dict[str, Any], scope: Scope) -> Iterator[Text]:
        """The literal texts that may be members of an expression: of a set, an array, an object's values."""
        for found in self._found(node, scope, _DEEP):
            for member in self._members(found, _DEEP):
                yield from self._text(member)

    def literals(self, node: dict[str, Any], scope: Scope) -> Iterator[tuple[dict[str, Any], Scope]]:
        """What an expression may be, where that is written out in a rule; scalars too."""
        for found in self._found(node, scope, _DEEP):
            if isinstance(found, Bound):
                yield found.node, found.scope

    def keys(self, node: dict[str, Any], scope: Scope) -> Iterator[Text]:
        """The literal texts by which an expression may be looked up: an object's keys, a set's members."""
        steps = trees.reference(node)
        if steps is not None and str(steps[0]) not in scope.locals and None not in steps:
            meant = self.meant(scope.module, steps)
            rules, rest = self.find(meant[1:]) if meant[0] == "data" else ([], ())
            if not rest:
                for module, head in rules:
                    yield from _key_of(module, head)
        for found in self._found(node, scope, _DEEP):
            if isinstance(found, _Data):
                if isinstance(found.value, dict) and found.path[:1] != _GRANTS:
                    yield from (Text(key, path=(*found.path, key)) for key in itertools.islice(found.value, _MANY))
            elif "Set" in found.node:
                for member in self._members(found, _DEEP):
                    yield from self._text(member)
            elif "Object" in found.node:
                for _, key, _ in found.node["Object"]["fields"]:
                    yield from self._text(Bound(key, found.scope))

    def _text(self, found: _Found) -> Iterator[Text]:
        if isinstance(found, _Data):
            if isinstance(found.value, str) and found.path[:1] != _GRANTS:
                yield Text(found.value, path=found.path)
            return
        value = trees.text_of(found.node)
        if value is not None:
            yield Text(value, found.scope.module.file, trees.line_at(found.node))

    def _found(self, node: dict[str, Any], scope: Scope, deep: int) -> Iterator[_Found]:
        """The literals that an expression may be."""
        if deep == 0 or not self.step():
            return
        if node.keys() & _LITERALS:
            yield Bound(node, scope)
            return
        steps = trees.reference(node)
        if steps is None:
            return
        known = scope.locals.get(str(steps[0]))
        if known is not None:
            for one in known:
                for found in self._found(one.node, one.scope, deep - 1):
                    inner = self._members(found, deep - 1) if one.is_member else iter((found,))
                    for member in inner:
                        yield from self._below(member, steps[1:], deep - 1)
            return
        meant = self.meant(scope.module, steps)
        if meant[0] == "data":
            yield from self._below_data(meant[1:], deep)

    def _below_data(self, path: tuple[trees.Step, ...], deep: int) -> Iterator[_Found]:
        rules, rest = self.find(path)
        for module, head in rules:
            inner = Scope(self, module, head.rule, {})
            if head.entry is not None:  # of a set rule, each entry is a member
                if rest[:1] == (None,):
                    for found in self._found(head.entry, inner, deep - 1):
                        yield from self._below(found, rest[1:], deep - 1)
                elif not rest:
                    yield Bound({"Set": {"items": [head.entry]}}, inner)
            elif head.value is not None and not head.function:
                for found in self._found(head.value, inner, deep - 1):
                    yield from self._below(found, rest, deep - 1)
        if not rules:
            yield from self._below(_Data(self._data, ()), path, deep)

    def _below(self, found: _Found, steps: tuple[trees.Step, ...], deep: int) -> Iterator[_Found]:
        """What stands at `steps` below a literal or a value of the data; a step that is not known: any."""
        if deep == 0:
            return
        if not steps:
            yield found
            return
        step = steps[0]
        for member in self._members(found, deep) if step is None else self._at(found, step, deep):
            yield from self._below(member, steps[1:], deep - 1)

    def _at(self, found: _Found, step: str, deep: int) -> Iterator[_Found]:
        if isinstance(found, _Data):
            if isinstance(found.value, dict) and step in found.value:
                yield _Data(found.value[step], (*found.path, step))
        elif "Object" in found.node:
            for _, key, value in found.node["Object"]["fields"]:
                if trees.text_of(key) == step:
                    yield from self._found(value, found.scope, deep - 1)

    def _members(self, found: _Found, deep: int) -> Iterator[_Found]:
        if isinstance(found, _Data):
            value = found.value
            pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
            for key, member in itertools.islice(pairs, _MANY):
                yield _Data(member, (*found.path, key))
            return
        if "Object" in found.node:
            nodes = [value for _, _, value in found.node["Object"]["fields"]]
        else:
            nodes = (found.node.get("Set") or found.node.get("Array") or {}).get("items", [])
        for node in nodes:
            yield from self._found(node, found.scope, deep - 1)


def _variable(node: dict[str, Any] | None) -> str | None:
    return None if node is None or "Var" not in node else str(node["Var"]["value"])


def _key_of(module: Module, head: trees.Head) -> Iterator[Text]:
    """Of a rule such as `limits["crm__send"] := 5`: its key."""
    if len(head.path) > 1:
        yield Text(head.path[-1], module.file, head.line)
