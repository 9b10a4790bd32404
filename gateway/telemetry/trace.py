"""W3C trace context, level 1: reading and writing `traceparent` (https://www.w3.org/TR/trace-context/).

Always on, with or without an exporter: the trace id stands in every record and every log line. `tracestate` and
`baggage` of callers are not taken over: a caller is not trusted to put data into upstream requests.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway.actions import Trace

# Version 00 has exactly these fields; a later version may append more, and ff is forbidden. Hex is lower case.
_TRACEPARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-[\x20-\x7e]*)?"
)


def parse_traceparent(header: bytes | None) -> tuple[str, str, bool] | None:
    """(trace id, parent span id, sampled); None if there is none or it is invalid, as the standard asks."""
    if header is None:
        return None
    match = _TRACEPARENT.fullmatch(header.strip(b" \t"))
    if match is None:
        return None
    version, trace_id, parent_id, flags = match.groups()
    if version == b"00" and match.end(4) != match.end():
        return None
    return trace_id.decode(), parent_id.decode(), bool(int(flags, 16) & 1)


def trace_parser(random_bytes: Callable[[int], bytes]) -> Callable[[bytes | None], Trace]:
    """A function that continues the trace of a `traceparent` header, or begins one where it is no good."""

    def parse(header: bytes | None) -> Trace:
        parent = parse_traceparent(header)
        if parent is not None:
            return Trace(trace_id=parent[0], span_id=_identifier(8), parent_id=parent[1])
        return Trace(trace_id=_identifier(16), span_id=_identifier(8))

    def _identifier(size: int) -> str:
        identifier = random_bytes(size)
        while not any(identifier):  # all zeros means "none"
            identifier = random_bytes(size)
        return identifier.hex()

    return parse


def format_traceparent(trace_id: str, span_id: str, *, sampled: bool = True) -> str:
    """The header for a request that this span makes."""
    return f"00-{trace_id}-{span_id}-{'01' if sampled else '00'}"
