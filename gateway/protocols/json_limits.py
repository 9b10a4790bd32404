"""How much one JSON text may hold before it is parsed: computation per call is bounded.

Each value costs its sender a few bytes and the event loop some hundred nanoseconds; each number with a fraction
(checked and digested as text) costs about two microseconds.
"""

from __future__ import annotations

import re

MAX_VALUES = 50_000
MAX_FLOATS = 10_000

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


def count_values(body: bytes) -> int:
    """An upper bound of how many values `body` holds, from its commas and brackets outside strings."""
    found = body.count(b",") + body.count(b"[") + body.count(b"{")
    if found <= MAX_VALUES:
        return found
    strings = (body.count(b'"') - body.count(b'\\"')) // 2
    if strings > 2 * MAX_VALUES:  # keys and values
        return strings
    plain = _STRING.sub(b"", body)
    return plain.count(b",") + plain.count(b"[") + plain.count(b"{")
