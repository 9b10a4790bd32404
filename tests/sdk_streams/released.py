"""Reads what the gateway sends, with none of its code and less tolerance than any SDK.

A call that is released stands in one delta, whole, with all its known keys and no key that another reader takes for
one of them; before the finish reason of its choice; at the next index.
"""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass, field
from typing import Any

from tests.sdk_streams.upstream import Call

_KNOWN = frozenset(
    {
        *("choices", "delta", "message", "finish_reason", "index", "id", "type"),
        *("tool_calls", "function_call", "function", "custom", "name", "arguments", "input"),
    }
)


class FormError(Exception):
    """What is sent has not the form that every reader reads alike."""


@dataclass
class Released:
    """Calls by choice, text by choice, and the last finish reason of each choice."""

    calls: dict[int, list[Call]] = field(default_factory=dict)
    text: dict[int, str] = field(default_factory=dict)
    finish: dict[int, str] = field(default_factory=dict)
    ended: bool = False
    misplaced: bool = False  # some text is of no choice or no type that can be told

    @property
    def all_calls(self) -> list[Call]:
        return [call for _, calls in sorted(self.calls.items()) for call in calls]


def read_stream(data: bytes) -> Released:
    """Raises `FormError`."""
    found = Released()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormError(f"no UTF-8: {error}") from error
    if text and not text.endswith("\n\n"):
        raise FormError("the last event has no end")
    for event in text.split("\n\n")[:-1]:
        if event.startswith(":"):
            continue
        if not event.startswith("data: ") or len(event.splitlines()) != 1:
            raise FormError(f"an event of more than one line of data: {event[:200]!r}")
        if found.ended:
            raise FormError(f"an event after the end: {event[:200]!r}")
        if event == "data: [DONE]":
            found.ended = True
            continue
        chunk = _loads(event.removeprefix("data: "))
        _refuse_strays(chunk, "delta")
        for choice in chunk.get("choices") or ():
            _note_delta(found, choice)
    return found


def read_plain(data: bytes) -> Released:
    """Raises `FormError`."""
    found = Released()
    try:
        answer = _loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise FormError(f"no UTF-8: {error}") from error
    _refuse_strays(answer, "message")
    for at, choice in enumerate(answer.get("choices") or ()):
        index = choice.get("index", at)
        message = choice.get("message")
        if not isinstance(message, dict):
            message = {}
        found.calls[index] = [_tool_call(call) for call in message.get("tool_calls") or ()]
        if message.get("function_call") is not None:
            found.calls[index].append(_legacy(message["function_call"]))
        content = message.get("content")
        found.text[index] = _text(content)
        if choice.get("finish_reason"):
            found.finish[index] = choice["finish_reason"]
    return found


def _note_delta(found: Released, choice: dict[str, Any]) -> None:
    index, delta = choice.get("index", 0), choice.get("delta")
    if not isinstance(delta, dict):
        delta = {}
    parts = delta.get("tool_calls") or ()
    if type(index) is not int or index < 0:  # not a choice that any SDK can place
        if parts or delta.get("function_call") is not None:
            raise FormError(f"a call of choice {index!r}")
        found.misplaced = True
        return
    calls = found.calls.setdefault(index, [])
    if (parts or delta.get("function_call") is not None) and index in found.finish:
        raise FormError(f"a call of choice {index} after its finish reason")
    for part in parts:
        at = sum(call.kind != "legacy" for call in calls)
        if type(part.get("index")) is not int or part["index"] != at:
            raise FormError(f"a call at index {part.get('index')!r}, not {at}")
        calls.append(_tool_call(part))
    if delta.get("function_call") is not None:
        if any(call.kind == "legacy" for call in calls):
            raise FormError("a second function_call")
        calls.append(_legacy(delta["function_call"]))
    content = delta.get("content")
    found.misplaced |= not isinstance(content, str | None)
    found.text[index] = found.text.get(index, "") + (content if isinstance(content, str) else "")
    if choice.get("finish_reason"):
        found.finish[index] = choice["finish_reason"]


def _text(content: Any) -> str:
    """Text, or the texts of a list of parts."""
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _tool_call(part: dict[str, Any]) -> Call:
    kind = part.get("type")
    keys = {"function": ("name", "arguments"), "custom": ("name", "input")}.get(str(kind))
    if keys is None or ("function" in part) + ("custom" in part) != 1:
        raise FormError(f"a call of no kind: {part!r}")
    name, text = _values(part.get(str(kind)), keys)
    call_id = part.get("id")
    if not isinstance(call_id, str) or not call_id:
        raise FormError(f"no id: {part!r}")
    members = {key: value for key, value in part.items() if key not in ("index", "id", "type", "function", "custom")}
    return Call(str(kind), name, text, call_id, members)


def _legacy(held: Any) -> Call:
    name, text = _values(held, ("name", "arguments"))
    return Call("legacy", name, text)


def _values(held: Any, keys: tuple[str, str]) -> tuple[str, str]:
    if not isinstance(held, dict) or set(held) != set(keys):
        raise FormError(f"not exactly {keys}: {held!r}")
    name, text = (held[key] for key in keys)
    if not isinstance(name, str) or not isinstance(text, str) or not name:
        raise FormError(f"no text, or no name: {held!r}")
    return name, text


def _loads(text: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise FormError(f"a key twice: {[key for key, _ in pairs]}")
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except ValueError as error:
        raise FormError(f"no JSON: {text[:200]!r}") from error
    if not isinstance(value, dict):
        raise FormError(f"no object: {text[:200]!r}")
    return value


def _refuse_strays(chunk: dict[str, Any], holder: str) -> None:
    """Refuse calls where no call belongs, and known keys in another spelling."""
    _walk({key: value for key, value in chunk.items() if key != "choices"}, "")
    for choice in chunk.get("choices") or ():
        _walk({key: value for key, value in choice.items() if key != holder}, "choices[]")
        held = choice.get(holder)
        if not isinstance(held, dict):  # nobody reads a call from it
            _walk(held, holder)
            continue
        _walk({key: value for key, value in held.items() if key not in ("tool_calls", "function_call")}, holder)
        for part in held.get("tool_calls") or ():
            _walk(part, "tool_calls[]")


def _walk(value: Any, where: str) -> None:
    if isinstance(value, list):
        for one in value:
            _walk(one, where)
    if not isinstance(value, dict):
        return
    for key, one in value.items():
        folded = unicodedata.normalize("NFKC", key).casefold()
        if (folded in _KNOWN and key != folded) or folded in ("tool_calls", "function_call"):
            raise FormError(f"the key {key!r} in {where or 'the event'}")
        _walk(one, f"{where}.{key}")
