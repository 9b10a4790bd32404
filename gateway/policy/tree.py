"""Reading a module's syntax tree: references, calls, rule heads. The shapes are the Rego library's own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

Step = str | None  # None: only known when it runs


def walk(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every tagged node below (and at) `node`: its tag, such as `Call` or `Number`, and its content."""
    stack = [node]
    while stack:
        here = stack.pop()
        if isinstance(here, dict):
            for tag, content in here.items():
                if tag[:1].isupper() and isinstance(content, dict):
                    yield tag, content
                stack.append(content)
        elif isinstance(here, list):
            stack.extend(here)


def line_of(content: dict[str, Any]) -> int:
    """The line (1-based) on which a node starts."""
    return int(content["span"]["line"])


def reference(node: dict[str, Any]) -> tuple[Step, ...] | None:
    """`input.a["b"][i]` as ("input", "a", "b", None); None if it does not start with a name."""
    steps: list[Step] = []
    while True:
        if "Var" in node:
            return (str(node["Var"]["value"]), *reversed(steps))
        if "RefDot" in node:
            steps.append(str(node["RefDot"]["field"][1]))
            node = node["RefDot"]["refr"]
        elif "RefBrack" in node:
            index = node["RefBrack"]["index"]
            text = index.get("String") or index.get("RawString")
            steps.append(str(text["value"]) if text else None)
            node = node["RefBrack"]["refr"]
        else:
            return None


def references(node: Any) -> Iterator[tuple[tuple[Step, ...], int]]:
    """Every outermost reference of more than a bare name, and its line."""
    stack = [node]
    while stack:
        here = stack.pop()
        if isinstance(here, list):
            stack.extend(here)
            continue
        if not isinstance(here, dict):
            continue
        found = reference(here) if "RefDot" in here or "RefBrack" in here else None
        if found is None:
            stack.extend(here.values())
            continue
        yield found, line_of(here.get("RefDot") or here["RefBrack"])
        while "Var" not in here:  # what stands in brackets may hold references of its own
            content = here.get("RefDot") or here["RefBrack"]
            stack.append(content.get("index"))
            here = content["refr"]


def package(tree: dict[str, Any]) -> tuple[str, ...]:
    """The package of a module: ("gateway", "rules")."""
    return tuple(step for step in reference(tree["package"]["refr"]) or () if step is not None)


def imports(tree: dict[str, Any], source: bytes) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """Each import: the name it has in the module, what it means, its line."""
    for one in tree["imports"]:
        path = tuple(step for step in reference(one["refr"]) or () if step is not None)
        alias = one.get("as")
        name = path[-1] if path else ""
        if isinstance(alias, dict):
            name = source[alias["start"] : alias["end"]].decode(errors="replace")
        yield name, path, int(one["span"]["line"])


class Head:
    """A rule's head: its name, line, and whether it is a default, a function, or may be added to piece by piece."""

    __slots__ = ("function", "grows", "is_default", "line", "name", "path", "value")

    def __init__(self, rule: dict[str, Any]) -> None:
        self.value: dict[str, Any] | None = None
        if "Default" in rule:
            content = rule["Default"]
            self.is_default, self.grows, self.function = True, False, bool(content["args"])
            refr, self.value = content["refr"], content["value"]
        else:
            content = rule["Spec"]
            (tag, head), *_ = content["head"].items()
            self.is_default, self.grows, self.function = False, tag == "Set", tag == "Func"
            refr = head["refr"]
            path = reference(refr) or ()
            self.grows = self.grows or len(path) > 1
        steps = reference(refr) or ("",)
        fixed = itertools.takewhile(lambda step: step is not None, steps)
        self.path = tuple(str(step) for step in fixed)  # of a.b[x]: a, b
        self.name = self.path[0]
        self.line = line_of(content)


def heads(tree: dict[str, Any]) -> list[Head]:
    """The heads of all rules of a module, in order."""
    return [Head(rule) for rule in tree["rules"]]
