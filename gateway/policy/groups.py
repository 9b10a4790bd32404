"""Groups of reviewers that rules name: the text beside `group` in what stands under `quorum`.

Read off the syntax trees, so a name that is made while a rule runs, or that stands in data, is not seen: the escalate
that bears an undeclared one is a deny when it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gateway.policy.folder import read_folder
from gateway.policy.tree import line_of, walk


class Named(NamedTuple):
    """A group that a rule names, and where."""

    group: str
    file: str
    line: int


def groups_named(path: str | Path) -> list[Named]:
    """Every group that the policies of a folder name, tests left out. `load` tells of what can't be read."""
    bundle = read_folder(path)
    return [
        Named(group, str(bundle.root / module.file), line)
        for module in bundle.modules
        for group, line in sorted(set(_named(module.tree["rules"])), key=lambda one: (one[1], one[0]))
    ]


def _named(rules: Any) -> Iterator[tuple[str, int]]:
    for quorum in _fields(rules, "quorum"):
        for group in _fields(quorum, "group"):
            text = group.get("String") or group.get("RawString")
            if text is not None:
                yield str(text["value"]), line_of(text)


def _fields(node: Any, name: str) -> Iterator[dict[str, Any]]:
    """The values of all fields `name` of the objects below `node`."""
    for tag, content in walk(node):
        for _, key, value in content["fields"] if tag == "Object" else ():
            text = key.get("String") or key.get("RawString")
            if text is not None and text["value"] == name:
                yield value
