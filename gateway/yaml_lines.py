"""YAML text to plain data that remembers its line numbers. Never builds objects, never trusts the text.

Works on libyaml's event stream, not on its composer: the composer recurses in C and can be crashed by deep
nesting. Scalars follow the YAML 1.2 core schema (https://yaml.org/spec/1.2.2/#103-core-schema), so `no`,
`on` and `12:30` are words, not booleans or numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_DEPTH = 64
MAX_NODES = 100_000  # aliases count as often as they are used

_NULL = re.compile(r"(?:null|Null|NULL|~|)\Z")
_TRUE = re.compile(r"(?:true|True|TRUE)\Z")
_FALSE = re.compile(r"(?:false|False|FALSE)\Z")
_INT = re.compile(r"[-+]?[0-9]+\Z")
_INT_BASED = re.compile(r"0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_FLOAT_NAMED = re.compile(r"[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z")
_MAX_DIGITS = 400  # Python refuses longer integers; nothing of ours is that long

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Node:
    """A value with the line (1-based) it starts on; `keys` are the lines of a mapping's keys."""

    value: Any
    line: int
    size: int = 1
    children: dict[str | int, Node] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something in the text that cannot stand: where, what, and what to do."""

    line: int
    message: str
    mend: str


class _Stop(Exception):  # noqa: N818 - ends the reading, carries no more than its fault
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def parse(text: str) -> tuple[Node | None, list[Fault]]:
    """The tree of the one document in `text`, and everything that is wrong with it.

    An empty document gives `(None, [])`. Faults do not always stop the reading: duplicate keys are all told.
    """
    faults: list[Fault] = []
    try:
        return _Builder(faults).build(yaml.parse(text, Loader=_LOADER)), faults
    except _Stop as stop:
        faults.append(stop.fault)
    except yaml.MarkedYAMLError as error:
        faults.append(_syntax(error))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        faults.append(Fault(line, "A control character stands here.", "Remove it."))
    return None, faults


def _syntax(error: yaml.MarkedYAMLError) -> Fault:
    mark: Any = error.problem_mark or error.context_mark
    line = 1 if mark is None else mark.line + 1
    problem = error.problem or "it cannot be read"
    if "tab" in problem or "'\\t'" in problem:
        return Fault(line, "A tab stands where YAML wants spaces.", "Indent with spaces.")
    return Fault(line, f"Not YAML: {problem}.", "Check the indentation, colons and quotes around this line.")


class _Builder:
    def __init__(self, faults: list[Fault]) -> None:
        self._faults = faults
        self._anchors: dict[str, Node] = {}
        self._nodes = 0

    def build(self, events: Iterator[Any]) -> Node | None:
        root: Node | None = None
        stack: list[_Open] = []
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _stop(event, "A second document starts here.", "Keep one document in a file.")
                continue
            if isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
                done = stack.pop()
                node = done.node
                self._keep(done.anchor, node)
            elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
                self._check(event)
                if len(stack) >= MAX_DEPTH:
                    raise _stop(event, f"Nested deeper than {MAX_DEPTH} levels.", "Make it flatter.")
                stack.append(_Open(event, self._faults))
                continue
            elif isinstance(event, yaml.ScalarEvent):
                self._check(event)
                node = Node(_scalar(event), _line(event))
                self._keep(event.anchor, node)
            elif isinstance(event, yaml.AliasEvent):
                node = self._alias(event)
            else:
                continue
            if stack:
                stack[-1].add(node)
            else:
                root = node
        return root

    def _keep(self, anchor: str | None, node: Node) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _Stop(Fault(node.line, f"More than {MAX_NODES} values.", "Split the file."))
        if anchor is not None:
            self._anchors[anchor] = node

    def _alias(self, event: Any) -> Node:
        known = self._anchors.get(event.anchor)
        if known is None:
            message = f"The alias *{event.anchor} names no anchor that is complete before it."
            raise _stop(event, message, "Write the value out.")
        self._nodes += known.size
        if self._nodes > MAX_NODES:
            raise _stop(event, f"Aliases expand to more than {MAX_NODES} values.", "Write the values out.")
        return known

    def _check(self, event: Any) -> None:
        if event.tag is not None and event.tag not in ("!", "tag:yaml.org,2002:str"):
            raise _stop(event, "An explicit tag stands here.", "Remove it; only plain YAML is read.")


class _Open:
    """A mapping or sequence whose end was not seen yet."""

    def __init__(self, event: Any, faults: list[Fault]) -> None:
        self._mapping = isinstance(event, yaml.MappingStartEvent)
        self.node = Node({} if self._mapping else [], _line(event))
        self.anchor: str | None = event.anchor
        self._key: Node | None = None
        self._faults = faults

    def add(self, node: Node) -> None:
        self.node.size += node.size
        if not self._mapping:
            self.node.children[len(self.node.value)] = node
            self.node.value.append(node.value)
        elif self._key is None:
            self._key = node
        else:
            self._pair(self._key, node)
            self._key = None

    def _pair(self, key: Node, node: Node) -> None:
        if isinstance(key.value, dict | list) or key.value is None:
            self._faults.append(Fault(key.line, "A key is not a word.", "Use a plain word as the key."))
            return
        name = key.value if isinstance(key.value, str) else _plain(key.value)
        if name == "<<":
            self._faults.append(Fault(key.line, "Merge keys (<<) are not read.", "Write the values out."))
            return
        if name in self.node.keys:
            first = self.node.keys[name]
            message = f"The key {name!r} stands twice; first on line {first}."
            self._faults.append(Fault(key.line, message, "Keep one of them."))
            return
        self.node.keys[name] = key.line
        self.node.children[name] = node
        self.node.value[name] = node.value


def _plain(value: object) -> str:
    """A key that YAML reads as number or boolean, as the word that stands in the file."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _scalar(event: Any) -> Any:
    text: str = event.value
    if not event.implicit[0] or event.style not in (None, ""):
        return text
    for pattern, make in _RESOLVERS:
        if pattern.match(text):
            return make(text)
    return text


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _stop(event: Any, message: str, mend: str) -> _Stop:
    return _Stop(Fault(_line(event), message, mend))


def _int(text: str) -> int | str:
    return int(text) if len(text) <= _MAX_DIGITS else text


_RESOLVERS: tuple[tuple[re.Pattern[str], Callable[[str], Any]], ...] = (
    (_NULL, lambda text: None),
    (_TRUE, lambda text: True),
    (_FALSE, lambda text: False),
    (_INT, _int),
    (_INT_BASED, lambda text: int(text, 0) if len(text) <= _MAX_DIGITS else text),
    (_FLOAT, float),
    (_FLOAT_NAMED, lambda text: float(text.replace(".", ""))),
)
