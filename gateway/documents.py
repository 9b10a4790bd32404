"""Files that people write (configuration, manifests): read, checked, and every problem told with its line.

Owns: size and encoding limits, duplicate keys, validation against a pydantic model, suggestions.
Never does: decide what a value means; show a value that could be a secret. Fails closed: a document with one
error has no model.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway import yaml_lines
from gateway.yaml_lines import Node

MAX_BYTES = 1024 * 1024
_ABBREVIATED = 4  # characters from which on the beginning of a word stands for the word

M = TypeVar("M", bound=BaseModel)
Step = str | int


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing a person must mend: where it stands, what it is, what to do. Warnings do not stop a start."""

    file: str
    line: int  # 1-based; 0 where there are no lines, such as the environment
    message: str
    mend: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        kind = "warning: " if self.severity == "warning" else ""
        return f"{where}: {kind}{self.message} {self.mend}".rstrip()


def errors(problems: Iterable[Problem]) -> list[Problem]:
    """Those that stop a start."""
    return [problem for problem in problems if problem.severity == "error"]


@dataclass(frozen=True, slots=True)
class Document:
    """The data of one file and the line of everything in it."""

    file: str
    root: Node

    @property
    def data(self) -> Any:
        return self.root.value

    def over(self, below: Document) -> Document:
        """This document with the top-level keys of another where it has none; problems there are told at its start."""
        root, under = self.root, below.root
        missing = under.keys.keys() - root.keys.keys()
        value = {**{key: under.value[key] for key in missing}, **root.value}
        return Document(self.file, replace(root, value=value))

    def line(self, *path: Step) -> int:
        """The line of the key or item at `path`, or of what holds it as far as it exists."""
        node, line = self.root, self.root.line
        for step in path:
            child = node.children.get(step)
            if child is None:
                break
            line = node.keys.get(step, child.line) if isinstance(step, str) else child.line
            node = child
        return line

    def problem(self, path: Iterable[Step], message: str, mend: str, *, warning: bool = False) -> Problem:
        """A problem at `path` of this document."""
        line = self.line(*path)
        return Problem(self.file, line, message, mend, "warning" if warning else "error")


def read(path: str | Path, model: type[M]) -> tuple[M | None, list[Problem]]:
    """The file at `path` as a `model`, or None and all that is wrong with it. Raises nothing."""
    document, problems = load(path)
    if document is None:
        return None, problems
    value, more = validate(document, model)
    return value, problems + more


def load(path: str | Path) -> tuple[Document | None, list[Problem]]:
    """The file at `path` as data with line numbers; None if its text cannot stand."""
    file = str(path)
    try:
        with Path(path).open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        return None, [Problem(file, 0, f"Cannot be read: {reason}.", "Check the path and its permissions.")]
    return parse(raw, file)


def parse(raw: bytes, file: str, *, is_versioned: bool = True) -> tuple[Document | None, list[Problem]]:
    """As `load`, for bytes in hand; `file` is the name that problems bear. Documents of ours have a `version`."""
    if len(raw) > MAX_BYTES:
        return None, [Problem(file, 0, f"Larger than {MAX_BYTES} bytes.", "Split it.")]
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return None, [Problem(file, line, "Not UTF-8.", "Save the file as UTF-8.")]
    root, faults = yaml_lines.parse(text)
    problems = [Problem(file, fault.line, fault.message, fault.mend) for fault in faults]
    if root is None and not problems:
        mend = "Write at least `version: 1`." if is_versioned else "Write `{}`, or remove the file."
        problems.append(Problem(file, 1, "The file is empty.", mend))
    if root is not None and not isinstance(root.value, dict):
        mend = "Start with `version: 1`." if is_versioned else "Write names with values, such as `limit_cents: 100`."
        problems.append(Problem(file, root.line, "The file is not a mapping.", mend))
        root = None
    return (None if root is None or problems else Document(file, root)), problems


def validate(document: Document, model: type[M]) -> tuple[M | None, list[Problem]]:
    """The document as a `model`, or None and every violation at its line."""
    try:
        return model.model_validate(document.data), []
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    told = [_Told(document, model, detail) for detail in details]
    wanted = {(one.path[:-1], one.suggestion) for one in told if one.suggestion and one.unknown}
    # A misspelt key shows up twice: as unknown and as missing. The first says it all.
    kept = [one for one in told if not (one.missing and (one.path[:-1], one.path[-1]) in wanted)]
    return None, sorted({one.problem() for one in kept}, key=lambda problem: (problem.line, problem.message))


def suggest(word: str, known: Iterable[str]) -> str | None:
    """The word of `known` that was most likely meant: one that `word` begins, else one that is spelled like it."""
    folded = {one.casefold(): one for one in known}
    short = word.casefold()
    if len(short) >= _ABBREVIATED:
        longer = [one for one in folded if one.startswith(short)]
        if len(longer) == 1:
            return folded[longer[0]]
    close = difflib.get_close_matches(short, list(folded), n=1, cutoff=0.6)
    return folded[close[0]] if close else None


class _Told:
    """One error of pydantic in words for people, at its place in the file."""

    def __init__(self, document: Document, model: type[BaseModel], detail: ErrorDetails) -> None:
        self._document = document
        self._detail = detail
        self.unknown = detail["type"] == "extra_forbidden"
        self.missing = detail["type"] == "missing"
        self.path, holder = _place(document.root, detail["loc"])
        self._known = _keys_at(model, detail["loc"][:-1]) if self.unknown else []
        present = set(holder.keys)
        unused = [key for key in self._known if key not in present] or self._known
        self.suggestion = suggest(str(self.path[-1]), unused) if self.unknown else None

    def problem(self) -> Problem:
        message, mend = self._words()
        return self._document.problem(self.path, message, mend)

    def _words(self) -> tuple[str, str]:
        name = ".".join(str(step) for step in self.path) or "the file"
        if self.unknown:
            if self.suggestion:
                return f"Unknown key {name!r}.", f"Did you mean {self.suggestion!r}?"
            allowed = ", ".join(self._known) or "none"
            return f"Unknown key {name!r}.", f"Allowed here: {allowed}."
        if self.missing:
            return f"{name!r} is missing.", "Add it."
        kind, context = self._detail["type"], self._detail.get("ctx", {})
        if kind in ("literal_error", "enum", "union_tag_invalid"):
            expected = str(context.get("expected") or context.get("expected_tags") or "")
            return f"{name!r} has a value that is not allowed.", f"Use one of: {expected.replace(' or ', ', ')}."
        if kind == "union_tag_not_found":
            return f"{name!r} has no 'type'.", "Add a `type:` key."
        if kind == "string_type":
            return f"{name!r} must be text.", "Put the value in quotes."
        if kind == "value_error":
            return f"{name!r}: {_sentence(context.get('error') or self._detail['msg'])}", ""
        return f"{name!r}: {_sentence(self._detail['msg'])}", "Correct the value."


def _sentence(text: object) -> str:
    words = str(text).strip()
    return words if words.endswith((".", "!", "?")) else words + "."


def _place(root: Node, location: tuple[Step, ...]) -> tuple[tuple[Step, ...], Node]:
    """pydantic's location without the tags of unions and types it inserts, and the node that holds it."""
    node, holder = root, root
    path: list[Step] = []
    for position, step in enumerate(location):
        child = node.children.get(step)
        last = position == len(location) - 1
        if child is None:
            if last and isinstance(step, str) and step.isidentifier() and isinstance(node.value, dict):
                path.append(step)  # a missing key
                holder = node
            continue
        path.append(step)
        holder, node = node, child
    return tuple(path), holder


def _keys_at(model: type[BaseModel], location: tuple[Step, ...]) -> list[str]:
    """The keys that a mapping at `location` may have."""
    found: list[Any] = [model]
    for step in location:
        found = [inner for annotation in found for inner in _descend(annotation, step)]
    keys: dict[str, None] = {}
    for annotation in found:
        for member in _members(annotation):
            if isinstance(member, type) and issubclass(member, BaseModel):
                keys |= {field.alias or name: None for name, field in member.model_fields.items()}
    return list(keys)


def _members(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [member for inner in get_args(annotation) for member in _members(inner)]
    return [annotation]


def _descend(annotation: Any, step: Step) -> list[Any]:
    inner: list[Any] = []
    members = _members(annotation)
    for member in members:
        origin = get_origin(member)
        if isinstance(member, type) and issubclass(member, BaseModel):
            if isinstance(step, str) and step in member.model_fields:
                inner.append(member.model_fields[step].annotation)
            elif len(members) > 1 and step in _tags(member):
                inner.append(member)  # the tag of a discriminated union
        elif origin is dict:
            inner.append(get_args(member)[1])
        elif origin in (list, tuple):
            inner.append(get_args(member)[0])
    return inner


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    field = model.model_fields.get("type") or model.model_fields.get("kind")
    return get_args(field.annotation) if field is not None else ()
