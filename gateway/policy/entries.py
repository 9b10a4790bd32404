"""What rules add to `deny`, `escalate` and `allow`, as far as it is written out: fields, types, obligations.

A misspelt field (`"obligation"`, `"hiden"`) is merely not read, so a quorum or a secret is lost without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from gateway.documents import suggest
from gateway.policy import tree as trees
from gateway.policy.demands import demanded
from gateway.policy.dialect import Fault, Module
from gateway.policy.meaning import Folder, Scope
from gateway.policy.reach import PACKAGE, reachable

FIELDS = ("rule", "reason", "note", "obligations", "hidden")
_NEEDED = ("rule", "reason")
_SET = 'Write `{name} contains {{"rule": "its_name", "reason": "What is wrong, and what would pass."}} if {{ ... }}`.'
_SETS = {f"{prefix}{verdict}": verdict for verdict in ("allow", "deny", "escalate") for prefix in ("", "otherwise_")}
_TYPES: dict[str, tuple[frozenset[str], str]] = {
    "rule": (frozenset({"String", "RawString"}), "a text"),
    "reason": (frozenset({"String", "RawString"}), "a text"),
    "note": (frozenset({"String", "RawString"}), "a text"),
    "hidden": (frozenset({"Bool"}), "true or false"),
    "obligations": (frozenset({"Array"}), 'a list: [{"approval": {...}}]'),
}
_LITERALS = frozenset({"String", "RawString", "Bool", "Number", "Null", "Array", "Set", "Object"})


class Found(NamedTuple):
    """A fault in a file; `is_warning`: it loses nothing that protects."""

    file: str
    fault: Fault
    is_warning: bool = False


def check(folder: Folder, read: set[str]) -> Iterator[Found]:
    """Everything that is wrong with entries of the sets that the decision reads. `read` are the `fields_read`.

    Nothing is said where an entry point of another kind reads other fields than `rule` and `reason`.
    """
    if not read.issuperset(_NEEDED):
        return
    reached = reachable(folder)
    for name, verdict in _SETS.items():
        for module, head in folder.rules.get(PACKAGE, {}).get(name, []):
            if (PACKAGE, name) not in reached:
                continue
            if head.entry is None:
                yield Found(module.file, Fault(head.line, _not_a_set(head), _SET.format(name=name)))
                continue
            scope = Scope(folder, module, head.rule, {})
            yield from _entry(head.entry, scope, name, verdict, read)


def _not_a_set(head: trees.Head) -> str:
    kind = "a default" if head.is_default else "a function" if head.function else "one value"
    return f"{head.name!r} is a set of entries, and here it is {kind}, so the decision fails."


def fields_read(folder: Folder) -> set[str]:
    """Every field that rules read of something else than the input, by `thing.field` or `object.get`."""
    found: set[str] = set()
    for module in folder.modules:
        for steps, _ in trees.references(module.tree["rules"]):
            meant = folder.meant(module, steps)
            if meant[0] != "input":
                found.update(step for step in steps[1:] if step is not None)
        for tag, content in trees.walk(module.tree["rules"]):
            if tag == "Call" and trees.reference(content["fcn"]) == ("object", "get") and len(content["params"]) > 1:
                name = trees.text_of(content["params"][1])
                if name is not None:
                    found.add(name)
    return found


def _entry(node: dict[str, Any], scope: Scope, name: str, verdict: str, read: set[str]) -> Iterator[Found]:
    for literal, inner in scope.folder.literals(node, scope):
        module = inner.module
        if "Object" not in literal:
            message = f"An entry of {name} must be an object."
            mend = 'Write {"rule": "its_name", "reason": "What is wrong, and what would pass."}.'
            yield Found(module.file, Fault(trees.line_at(literal), message, mend))
            continue
        fields = {trees.text_of(key): (key, value) for _, key, value in literal["Object"]["fields"]}
        missing = [needed for needed in _NEEDED if needed not in fields]
        for key, value in fields.values():
            yield from _field(module, trees.text_of(key), value, trees.line_at(key), name, verdict, read, missing)
        unknown = [field for field in fields if field is not None and field not in FIELDS]
        for needed in missing:
            if not any(suggest(field, missing) == needed for field in unknown) and None not in fields:
                message = f"This entry of {name} has no {needed!r}, so the decision fails when the rule applies."
                yield Found(module.file, Fault(trees.line_at(literal), message, "Add it."))
        if "obligations" in fields:
            yield from _obligations(fields["obligations"][1], inner, name, verdict)


def _field(
    module: Module,
    field: str | None,
    value: dict[str, Any],
    line: int,
    name: str,
    verdict: str,
    read: set[str],
    missing: list[str],
) -> Iterator[Found]:
    if field is None:
        return
    if field not in FIELDS:
        if field in read:
            return
        close = suggest(field, missing) or suggest(field, FIELDS)
        mend = f"Did you mean {close!r}?" if close else f"Nothing reads it; fields are: {', '.join(FIELDS)}."
        fault = Fault(line, f"An entry of {name} has no field {field!r}.", mend)
        yield Found(module.file, fault, is_warning=close is None)
        return
    tags, wanted = _TYPES[field]
    tag = next(iter(value.keys() & _LITERALS), None)
    if (tag is not None and tag not in tags) or (tag in ("String", "RawString") and not trees.text_of(value)):
        yield Found(module.file, Fault(line, f"{field!r} must be {wanted}.", "Correct the value."))
    elif field == "hidden" and verdict != "deny":
        mend = "Remove it, or put the entry into deny."
        yield Found(module.file, Fault(line, "'hidden' has a meaning in deny only.", mend), is_warning=True)


def _obligations(value: dict[str, Any], scope: Scope, name: str, verdict: str) -> Iterator[Found]:
    if verdict == "deny":
        message = "'obligations' of a deny have no effect."
        yield Found(
            scope.module.file, Fault(trees.line_at(value), message, "Remove them, or escalate."), is_warning=True
        )
        return
    for literal, inner in scope.folder.literals(value, scope):
        for item in (literal.get("Array") or literal.get("Set") or {}).get("items", []):
            for file, fault in demanded(item, inner):
                yield Found(file, fault)
            if verdict == "allow":
                message = f"An entry of {name} demands approval, so the action would be denied."
                fault = Fault(trees.line_at(item), message, "Put the entry into escalate.")
                yield Found(inner.module.file, fault)
