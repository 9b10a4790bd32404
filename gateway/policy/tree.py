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
                if type(content) is dict:
                    if tag == "span":
                        continue
                    if tag[0].isupper():
                        yield tag, content
                    stack.append(content)
                elif type(content) is list:
                    stack.append(content)
        elif isinstance(here, list):
            stack.extend(here)


def line_of(content: dict[str, Any]) -> int:
    """The line (1-based) on which a node starts."""
    return int(content["span"]["line"])


def text_of(node: dict[str, Any]) -> str | None:
    """The value of a string literal; None for any other expression."""
    content = node.get("String") or node.get("RawString")
    return None if content is None else str(content["value"])


def line_at(node: dict[str, Any]) -> int:
    """The line (1-based) of a tagged node; 0 where it has none."""
    content = next(iter(node.values()), None)
    return line_of(content) if isinstance(content, dict) and "span" in content else 0


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
            steps.append(text_of(node["RefBrack"]["index"]))
            node = node["RefBrack"]["refr"]
        else:
            return None


def references(node: Any) -> Iterator[tuple[tuple[Step, ...], int]]:
    """Every outermost reference of more than a bare name, and its line."""
    return (found for found in names(node) if len(found[0]) > 1)


def names(node: Any) -> Iterator[tuple[tuple[Step, ...], int]]:
    """Every outermost reference, bare names too, and its line."""
    stack = [node]
    while stack:
        here = stack.pop()
        if isinstance(here, list):
            stack.extend(here)
            continue
        if not isinstance(here, dict):
            continue
        if "Var" in here:
            yield (str(here["Var"]["value"]),), line_of(here["Var"])
            continue
        found = reference(here) if "RefDot" in here or "RefBrack" in here else None
        if found is None:
            stack.extend(value for key, value in here.items() if key != "span" and type(value) in (dict, list))
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

    __slots__ = (
        "arguments",
        "entry",
        "function",
        "grows",
        "is_default",
        "is_whole",
        "line",
        "name",
        "path",
        "rule",
        "value",
    )

    def __init__(self, rule: dict[str, Any]) -> None:
        self.rule = rule
        self.value: dict[str, Any] | None = None  # what is assigned, of a default or a complete rule
        self.entry: dict[str, Any] | None = None  # what is added, of a set
        self.arguments: list[dict[str, Any]] = []
        if "Default" in rule:
            content = rule["Default"]
            self.is_default, self.grows, self.function = True, False, bool(content["args"])
            refr, self.value = content["refr"], content["value"]
            self.arguments = content["args"] or []
        else:
            content = rule["Spec"]
            (tag, head), *_ = content["head"].items()
            self.is_default, self.grows, self.function = False, tag == "Set", tag == "Func"
            refr = head["refr"]
            self.value = (head.get("assign") or {}).get("value")
            self.entry = head.get("key")
            self.arguments = head.get("args") or []
            path = reference(refr) or ()
            self.grows = self.grows or len(path) > 1
        steps = reference(refr) or ("",)
        self.is_whole = len(steps) == 1  # not a part of it, as a.b and a[x] are
        fixed = itertools.takewhile(lambda step: step is not None, steps)
        self.path = tuple(str(step) for step in fixed)  # of a.b[x]: a, b
        self.name = self.path[0]
        self.line = line_of(content)


def heads(tree: dict[str, Any]) -> list[Head]:
    """The heads of all rules of a module, in order."""
    return [Head(rule) for rule in tree["rules"]]
