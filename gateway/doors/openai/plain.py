"""One spelling and one place for what carries a tool call, so that no client reads a call that was not decided on.

Parsers differ: some take the first of two equal keys, some take `Tool_Calls` for `tool_calls`, some split lines where
others don't. An answer that could be read in two ways is written anew from what was decided on: every key once, none
of the known ones in another spelling, calls only where calls belong.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

CALL_KEYS = ("tool_calls", "function_call")
_KNOWN = frozenset(
    {
        *("choices", "message", "delta", "finish_reason", "index", "id", "type"),
        *("tool_calls", "function_call", "function", "custom", "name", "arguments", "input"),
    }
)
# Line ends for some readers of event streams (httpx: str.splitlines), plain text in JSON for others.
_LINE_ENDS = (b"\xe2\x80\xa8", b"\xe2\x80\xa9", b"\xc2\x85")

# Escapes of ASCII letters and the underscore: nobody needs them, and a key may hide in them.
_ESCAPED_LETTERS = (b"\\u004", b"\\u005", b"\\u006", b"\\u007")

_decode = msgspec.json.decode
_encode = msgspec.json.encode


def suspicious(data: bytes) -> bool:
    """Whether `data` may hold a tool call that its plain parse does not show."""
    if b"\\u" in data and any(mark in data for mark in _ESCAPED_LETTERS):
        return True
    return b"_call" in data.lower()


def splits_lines(data: bytes) -> bool:
    """Whether some reader of an event stream would see more than one line in `data`."""
    return not data.isascii() and any(mark in data for mark in _LINE_ENDS)


def loads(data: bytes) -> Any:
    """Parse as clients do: the last of equal keys counts, halves of surrogate pairs are let pass.

    Raises ValueError or RecursionError.
    """
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
    result: dict[str, Any] = _without_calls(answer)
    choices, originals = result.get("choices"), answer.get("choices")
    if isinstance(choices, list) and isinstance(originals, list):
        for choice, original in zip(choices, originals, strict=True):
            held = original.get(holder) if isinstance(original, dict) else None
            if isinstance(held, dict):
                choice[holder] |= {key: _without_calls(held[key]) for key in CALL_KEYS if key in held}
    return result


def _without_calls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_calls(inner) for key, inner in value.items() if not _is_call_or_misspelt(key)}
    if isinstance(value, list):
        return [_without_calls(inner) for inner in value]
    return value


def _is_call_or_misspelt(key: str) -> bool:
    folded = key.casefold()
    return folded in CALL_KEYS or (folded in _KNOWN and key != folded)
