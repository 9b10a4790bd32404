"""One spelling and one place for what carries a tool call, so that no client reads a call that was not decided on.

Parsers differ: some take the first of two equal keys, some take `Tool_Calls` for `tool_calls`, some split lines where
others don't. An answer that could be read in two ways is written anew from what was decided on: every key once, none
of the known ones in another spelling, calls only where calls belong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from gateway.doors.openai.calls import Unreadable
from gateway.proposals import reads_exactly
from gateway.protocols.json_size import MAX_CONTAINERS, has_too_many_containers
from gateway.protocols.key_folding import fold_name

CALL_KEYS: Final = ("tool_calls", "function_call")
_TEXTS: Final = ("arguments", "input")
CALL_REASONS: Final = ("tool_calls", "function_call")
"""Finish reasons that announce calls."""
_KNOWN = frozenset(
    {
        *("choices", "message", "delta", "finish_reason", "index", "id", "type"),
        *("tool_calls", "function_call", "function", "custom", "name", "arguments", "input"),
    }
)
_BY_FOLD = {fold_name(name): name for name in _KNOWN}
_HARMLESS = (_KNOWN - set(CALL_KEYS)) | {"object", "created", "model", "delta", "content", "role", "system_fingerprint"}
# Line ends for some readers of event streams (httpx: str.splitlines), plain text in JSON for others.
_LINE_ENDS = (b"\xe2\x80\xa8", b"\xe2\x80\xa9", b"\xc2\x85")

# Lower case, for a look at bytes without the delimiters that some readers skip inside of a key.
_LOWER = bytes.maketrans(bytes(range(65, 91)), bytes(range(97, 123)))
_OTHER_SPELLING: Final = "It stands under another spelling of `tool_calls` or `function_call`."
_INEXACT: Final = (
    "Its arguments hold a number that not every reader takes for the same, a key twice, or half of a character."
)
_decode = msgspec.json.decode
_encode = msgspec.json.encode


def suspicious(data: bytes) -> bool:
    """Whether `data` may hold a tool call, for whatever reader, and so must be looked at closely.

    Raises ValueError or RecursionError for what is no JSON.
    """
    plain = data.translate(_LOWER, b"-_")
    if b"call" in plain and (b"lcalls" in plain or b"ncall" in plain):
        return True
    if data.isascii() and (b"\\" not in data or b"\\u" not in data):
        return False
    return _names_calls(loads(data))  # a key may be written in escapes, or in characters that fold to its letters


def _names_calls(value: Any) -> bool:
    queue: list[Any] = [value]
    while queue:
        here = queue.pop()
        if isinstance(here, dict):
            for key, inner in here.items():
                if key not in _HARMLESS and _BY_FOLD.get(fold_name(key)) in CALL_KEYS:
                    return True
                if isinstance(inner, dict | list):
                    queue.append(inner)
        elif isinstance(here, list):
            queue += here
    return False


def splits_lines(data: bytes) -> bool:
    """Whether some reader of an event stream would see more than one line in `data`."""
    return not data.isascii() and any(mark in data for mark in _LINE_ENDS)


def loads(data: bytes) -> Any:
    """Parse as clients do: the last of equal keys counts, halves of surrogate pairs are let pass.

    Raises ValueError or RecursionError, and ValueError as well for what would take too long.
    """
    if has_too_many_containers(data):
        raise ValueError(f"more than {MAX_CONTAINERS} objects and arrays")
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return json.loads(data)


def dumps(value: Any) -> bytes:
    """Write JSON that every reader takes for one line."""
    try:
        data = _encode(value)
    except UnicodeEncodeError:  # half of a surrogate pair: it goes out as the escape it came in as
        data = b""
    if not data or splits_lines(data):
        return json.dumps(value, separators=(",", ":")).encode("ascii")
    return data


def cleaned(answer: dict[str, Any], holder: str) -> dict[str, Any]:
    """`answer` with calls only in `choices[].message` or `choices[].delta` (`holder`), every known key spelt right."""
    if _is_clean(answer, holder):
        return answer
    result: dict[str, Any] = _without_calls(answer)
    choices, originals = result.get("choices"), answer.get("choices")
    if isinstance(choices, list) and isinstance(originals, list):
        for choice, original in zip(choices, originals, strict=True):
            held = original.get(holder) if isinstance(original, dict) else None
            if isinstance(held, dict):
                choice[holder] |= {key: held[key] for key in CALL_KEYS if key in held}
                _keep_misspelt(choice[holder], held)
    return result


def _keep_misspelt(holder: dict[str, Any], original: dict[str, Any]) -> None:
    """A call under another spelling is none, and is said to be left out."""
    given = [key for key, value in original.items() if value and key not in CALL_KEYS]
    if any(_BY_FOLD.get(fold_name(key)) in CALL_KEYS for key in given):
        calls = holder.get("tool_calls")
        holder["tool_calls"] = [*(calls if isinstance(calls, list) else ()), Unreadable(_OTHER_SPELLING)]


def without_inexact(answer: dict[str, Any], data: bytes, holder: str) -> dict[str, Any]:
    """`answer`, read from `data`; arguments that came as an object can't be read where readers differ on `data`."""
    inner = [one for one in _members(answer, holder) if any(isinstance(one.get(text), dict) for text in _TEXTS)]
    if inner and not reads_exactly(data):
        for one in inner:
            one.update({text: Unreadable(_INEXACT) for text in _TEXTS if isinstance(one.get(text), dict)})
    return answer


def _members(answer: dict[str, Any], holder: str) -> Iterator[dict[str, Any]]:
    """What holds the name and the arguments of each call."""
    choices = answer.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        held = choice.get(holder) if isinstance(choice, dict) else None
        if not isinstance(held, dict):
            continue
        calls = held.get("tool_calls")
        for call in (*(calls if isinstance(calls, list) else ()), {"function": held.get("function_call")}):
            if isinstance(call, dict):
                yield from (call[member] for member in ("function", "custom") if isinstance(call.get(member), dict))


def as_deltas(event: dict[str, Any], begun: Callable[[int], bool]) -> dict[str, Any]:
    """A chunk whose choices have a `message` in place of a `delta`, with deltas, where the choice has not `begun`.

    Of one that has, the message is the whole answer once more, as some providers end a stream.
    """
    choices = event.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        is_whole = isinstance(choice, dict) and "delta" not in choice and isinstance(choice.get("message"), dict)
        if is_whole and not begun(place_of(choice)):
            choice["delta"] = choice.pop("message")
    return event


def _is_clean(answer: dict[str, Any], holder: str) -> bool:
    """Whether there is nothing to remove, as in almost every answer: looking costs a third of writing it again."""
    choices = answer.get("choices")
    holders = {id(one.get(holder)) for one in choices if isinstance(one, dict)} if isinstance(choices, list) else set()
    queue: list[Any] = [answer]
    while queue:
        value = queue.pop()
        if isinstance(value, dict):
            carries = id(value) in holders
            for key, inner in value.items():
                if carries and key in CALL_KEYS:
                    continue
                if key not in _HARMLESS and _is_call_or_misspelt(key):
                    return False
                if isinstance(inner, dict | list):
                    queue.append(inner)
        elif isinstance(value, list):
            queue += value
    return True


def _without_calls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_calls(inner) for key, inner in value.items() if not _is_call_or_misspelt(key)}
    if isinstance(value, list):
        return [_without_calls(inner) for inner in value]
    return value


def _is_call_or_misspelt(key: str) -> bool:
    known = _BY_FOLD.get(fold_name(key))
    return known is not None and (known in CALL_KEYS or key != known)


# ---------------------------------------------------------------- choices, in the two shapes that they come in


def carries_calls(holder: dict[str, Any]) -> bool:
    """Whether a message or delta has a call; some providers send the empty fields in every one."""
    return bool(holder.get("tool_calls")) or bool(holder.get("function_call"))


def without_empty_calls(holder: dict[str, Any]) -> dict[str, Any]:
    """A message or delta without empty fields of calls (not null): some SDKs make a call without a name of them."""
    if any(key in holder and not holder[key] and holder[key] is not None for key in CALL_KEYS):
        return {key: value for key, value in holder.items() if key not in CALL_KEYS or value or value is None}
    return holder


def place_of(choice: dict[str, Any]) -> int:
    """A choice's index; absent and null are 0. Raises ValueError for one that is no place."""
    index = choice.get("index")
    if index is None:
        return 0
    if type(index) is not int or index < 0:
        raise ValueError("index")
    return index


def finish_reason(choice: dict[str, Any]) -> str | None:
    """Why a choice ended; empty is null. Raises ValueError for what is no text."""
    reason = choice.get("finish_reason")
    if reason is None or isinstance(reason, str):
        return reason or None
    raise ValueError("finish_reason")


def finish_after(reason: str | None, tools: int, functions: int, left_out: bool) -> str | None:
    """The finish reason of a choice of which so many `tool_calls` and `functions` were released.

    Only a reason that announces calls changes with them: a truncated answer stays `length`.
    """
    if not tools and not functions:
        return "stop" if reason in CALL_REASONS or (left_out and reason is None) else reason
    if not left_out or reason not in CALL_REASONS:
        return reason
    return "tool_calls" if tools else "function_call"
