"""A case as its page shows it: one line for each argument, and in words what its state means for whoever looks."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import msgspec

from gateway.actions import ArgumentKind
from gateway.catalog.sentences import is_exact, show
from gateway.catalog.unusual import notes
from gateway.doors.admin.case_json import argument_kind

FOLDED_FROM = 400  # characters; a longer value, or one of many lines, is folded
_FOLDED_LINES = 8
_SUMMARY = 120
MAX_SHOWN = 200_000  # characters of all arguments together: a page, not a file

_JSON_KINDS: dict[type, str] = {str: "text", bool: "yes or no", int: "number", float: "number", list: "list"}


class Argument(msgspec.Struct, frozen=True, kw_only=True):
    """One argument. `read`: the value as the sentence has it, where that is easier to read (money)."""

    name: str
    kind: str
    text: str
    exact: bool
    folded: bool
    summary: str
    read: str | None
    declared: bool
    left_out: int  # characters that the page has no room for
    unusual: tuple[str, ...]  # characters that can't be seen or could be taken for others, by number and name


def arguments(case: dict[str, Any]) -> tuple[list[Argument], int]:
    """The arguments, as the agent gave them, and how many of them the page has no room for."""
    target, room = case["card"]["target"], MAX_SHOWN
    shown: list[Argument] = []
    for name, value in case["arguments"].items():
        if room <= 0:
            break
        one = _argument(name, value, argument_kind(target, name), room)
        room -= len(one.text) + len(name)
        shown.append(one)
    return shown, len(case["arguments"]) - len(shown)


def _argument(name: str, value: Any, kind: ArgumentKind | None, room: int) -> Argument:
    whole = value if isinstance(value, str) else _json(value)
    text = whole[:room]
    exact = is_exact(kind, value)
    return Argument(
        name=name,
        kind=_kind(value, kind),
        text=text,
        exact=exact,
        folded=len(text) > FOLDED_FROM or text.count("\n") >= _FOLDED_LINES,
        summary=" ".join(text[:_SUMMARY].split()),
        read=show(value, kind) if kind is not None and kind.kind == "money" else None,
        declared=kind is not None,
        left_out=len(whole) - len(text),
        unusual=notes(name) + notes(text, exact=exact),
    )


def _json(value: Any) -> str:
    try:
        return json.dumps(value, indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return "(a value that can't be shown)"


def _kind(value: Any, kind: ArgumentKind | None) -> str:
    """What it means by the manifest, and its JSON type where that is not text."""
    of_json = "nothing" if value is None else _JSON_KINDS.get(type(value), "object")
    if kind is None:
        return of_json
    told = f"money in {kind.currency} {kind.unit}" if kind.kind == "money" else kind.kind.replace("_", " ")
    return told if told == of_json or (of_json == "text" and kind.kind != "money") else f"{told}, {of_json}"


def meaning(case: dict[str, Any]) -> str:
    """What the state of a case means, in a sentence."""
    client = case["kind"] == "tool.propose"
    if case["state"] == "approved":
        if client:
            return "Approved. The model's stored answer is released when the agent asks for it again."
        if case["execute_on"] == "claim":
            return "Approved. It runs when the agent asks for it again."
        return "Approved. It runs now."
    if case["state"] == "succeeded" and client:
        return "Approved, and the model's stored answer was released to the agent, which executes the tool itself."
    return _MEANINGS[case["state"]]


_MEANINGS = {
    "pending": "It waits for people. Undecided in time, it counts as denied.",
    "executing": "Approved, and sent to the tool just now.",
    "succeeded": "Approved and carried out.",
    "failed": "Approved; the tool said that it failed, or a person found that it was not done.",
    "unknown": "It was sent, but nobody knows whether it was done. It is not repeated: look where it would show.",
    "denied": "Denied. Nothing was carried out.",
    "expired": "Nobody decided in time, so it counts as denied. Nothing was carried out.",
    "cancelled": "Ended without a decision. Nothing was carried out.",
    "invalidated": "Something stands against it that no vote can lift. Nothing was carried out.",
}


def afterwards(case: dict[str, Any]) -> str:
    """What an approval sets off."""
    if case["kind"] == "tool.propose":
        return (
            "The agent executes this tool itself: approval releases the model's stored answer, which proposes the"
            " call. The gateway does not see what the tool then does."
        )
    if case["execute_on"] == "claim":
        return "The gateway executes it once, when the agent asks for it again."
    return "The gateway executes it once, as soon as it is approved."


def span(start: str, end: str) -> str:
    """The time between two RFC 3339 times, to be read at a glance: `3 h 59 min`."""
    seconds = max(0, int((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()))
    for size, unit, smaller, small in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = seconds % size // smaller
            return f"{seconds // size} {unit} {rest} {small}" if rest else f"{seconds // size} {unit}"
    return f"{seconds} s"
