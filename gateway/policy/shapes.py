"""Rules of one name that do not go together: the embedded engine says so when one is asked, OPA when it loads them.

OPA refuses the whole bundle then, and decides by the old one until the gateway refuses everything, so such rules must
not become active at all. Source: https://www.openpolicyagent.org/docs/policy-language (complete definitions,
incremental definitions, functions).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from gateway.policy import tree as trees
from gateway.policy.dialect import Fault, Module
from gateway.policy.meaning import Folder

Shape = Literal["a set", "a function", "an object", "one value"]


def conflicts(folder: Folder) -> Iterator[tuple[str, Fault]]:
    """Rules whose shape is not that of the first rule of their name, with the file."""
    for rules in folder.rules.values():
        for name, places in rules.items():
            whole = [(module, head) for module, head in places if head.is_whole]
            parts = [(module, head) for module, head in places if not head.is_whole]
            rest = [*whole[1:], *parts] if whole else []
            for module, head in rest:
                message = _conflict(name, head, whole[0][1], f"{whole[0][0].file}:{whole[0][1].line}")
                if message is not None:
                    yield module.file, Fault(head.line, message, "Write both in one way, or rename one.")
            yield from _two_defaults(name, whole)


def _two_defaults(name: str, whole: Sequence[tuple[Module, trees.Head]]) -> Iterator[tuple[str, Fault]]:
    defaults = [(module, head) for module, head in whole if head.is_default]
    for module, head in defaults[1:]:
        first = f"{defaults[0][0].file}:{defaults[0][1].line}"
        yield module.file, Fault(head.line, f"{name!r} has another default in {first}.", "Keep one of them.")


def _conflict(name: str, head: trees.Head, first: trees.Head, where: str) -> str | None:
    here, there = _shape(head), _shape(first)
    if here != there:
        return f"{name!r} is {here} here, and {there} in {where}."
    if here == "a function" and len(head.arguments) != len(first.arguments):
        return (
            f"The function {name!r} takes {len(head.arguments)} arguments here, and {len(first.arguments)} in {where}."
        )
    return None


def _shape(head: trees.Head) -> Shape:
    if not head.is_whole:
        return "an object"
    if head.function:
        return "a function"
    return "a set" if head.entry is not None else "one value"
