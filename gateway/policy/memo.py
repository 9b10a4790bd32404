"""Answers already given: a policy is a pure function of the parts of the input that it reads.

Which parts those are is read off the syntax trees: every `input.a.b` up to the first step that is only known when it
runs. Two documents that agree in all of them get the same decision, so the second need not be evaluated. Where the
policies take the whole input, or call something that is not a pure function, nothing is remembered.

The remembered decisions live and die with one engine: new policies or data are a new engine.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.actions import Decision
from gateway.policy.rego import parse
from gateway.policy.tree import reference, walk

Path = tuple[str, ...]

MAX_REMEMBERED = 4096
MAX_KEY_BYTES = 4096
_IMPURE = frozenset({"http.send", "net.lookup_ip_addr", "opa.runtime", "rand.intn", "time.now_ns", "uuid.rfc4122"})
_INPUT = "input"

_encode = msgspec.msgpack.encode
_replace = msgspec.structs.replace


def paths_read(modules: Iterable[tuple[str, str]]) -> tuple[Path, ...] | None:
    """The parts of the input that modules (file, text) read; None where a decision may depend on more than that.

    Raises RegoFault if one does not parse.
    """
    found: set[Path] = set()
    for file, text in modules:
        paths = _paths_of(file, text)
        if paths is None:
            return None
        found |= paths
    return tuple(sorted(path for path in found if not any(path[:end] in found for end in range(1, len(path)))))


@functools.lru_cache(maxsize=128)  # a reload changes few modules, and walking all takes longer than compiling them
def _paths_of(file: str, text: str) -> frozenset[Path] | None:
    tree, found = parse(file, text), set[Path]()
    for tag, content in walk(tree):
        called = reference(content["fcn"]) if tag == "Call" else None
        if called is not None and ".".join(step or "?" for step in called) in _IMPURE:
            return None
    return frozenset(found) if _collect(tree, found) else None


def _collect(node: Any, found: set[Path]) -> bool:
    """Gather the paths below `node`; False if the input is used as a whole."""
    stack = [node]
    while stack:
        here = stack.pop()
        if isinstance(here, list):
            stack.extend(here)
        elif isinstance(here, dict):
            steps = reference(here) if "RefDot" in here or "RefBrack" in here else None
            if steps is not None and steps[0] == _INPUT:
                path: list[str] = []
                for step in steps[1:]:
                    if step is None:
                        break
                    path.append(step)
                if not path:
                    return False
                found.add(tuple(path))
                stack.extend(_indexes(here))
            elif "Var" in here and here["Var"]["value"] == _INPUT:
                return False
            else:
                stack.extend(here.values())
    return True


def _indexes(node: dict[str, Any]) -> Iterable[Any]:
    """What stands in the brackets of a reference: it may read the input too."""
    while "Var" not in node:
        inner = node.get("RefBrack") or node.get("RefDot")
        if inner is None:
            yield node
            return
        if "index" in inner:
            yield inner["index"]
        node = inner["refr"]


class Memo:
    """The decisions of one engine, by what they depended on."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self._paths = paths
        self._known: dict[bytes, Decision] = {}

    def key(self, whole: Any) -> bytes | None:
        """What the decision on a document depends on; None if it is too large to remember it by."""
        values: list[list[Any]] = []
        try:
            for path in self._paths:
                here = whole
                for step in path:
                    if type(here) is not dict or step not in here:
                        values.append([])  # undefined, which is not the same as null
                        break
                    here = here[step]
                else:
                    values.append([here])
            key = _encode(values)
        except (OverflowError, RecursionError):
            return None
        return key if len(key) <= MAX_KEY_BYTES else None

    def recall(self, key: bytes, document: bytes) -> Decision | None:
        """The decision given before, on this document."""
        known = self._known.get(key)
        return None if known is None else _replace(known, input=document)

    def remember(self, key: bytes, decision: Decision) -> None:
        """Keep a decision. When there is no more room, all make room: what is asked often is soon back."""
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[key] = _replace(decision, input=b"")
