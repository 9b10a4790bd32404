"""W3C trace context, level 1: reading and writing it (https://www.w3.org/TR/trace-context/).

Always on, with or without an exporter: the trace id stands in every record and every log line. A caller's
`tracestate` goes onto our spans and no further, and its `baggage` nowhere: a caller is not trusted to put data into
upstream requests that no policy looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway.actions import ParsesTrace, Trace

MAX_STATE_LENGTH = 512
_MAX_STATE_MEMBERS = 32

# Version 00 has exactly these fields; a later version may append more, and ff is forbidden. Hex is lower case.
_TRACEPARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-[\x20-\x7e]*)?"
)
_STATE_MEMBER = re.compile(
    rb"[a-z0-9][a-z0-9_*/@-]{0,255}="  # its key, with or without a tenant
    rb"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"  # its value: no comma, no equals sign
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


def parse_tracestate(header: bytes | None) -> str:
    """A `tracestate` that is valid as a whole; else none, as the standard asks."""
    if not header or len(header) > MAX_STATE_LENGTH:
        return ""
    members = [member for part in header.split(b",") if (member := part.strip(b" \t"))]
    if len(members) > _MAX_STATE_MEMBERS or not all(map(_STATE_MEMBER.fullmatch, members)):
        return ""
    keys = {member.partition(b"=")[0] for member in members}
    return b",".join(members).decode("ascii") if len(keys) == len(members) else ""


def trace_parser(random_bytes: Callable[[int], bytes]) -> ParsesTrace:
    """A function that continues the trace of a `traceparent`, or begins one where it is no good."""

    def parse(header: bytes | None, state: bytes | None = None, link: tuple[str, str] | None = None) -> Trace:
        parent = parse_traceparent(header)
        if parent is None:
            return Trace(trace_id=_identifier(16), span_id=_identifier(8), link=link)
        told = parse_tracestate(state) if state is not None else ""
        return Trace(trace_id=parent[0], span_id=_identifier(8), parent_id=parent[1], state=told, link=link)

    def _identifier(size: int) -> str:
        identifier = random_bytes(size)
        while not any(identifier):  # all zeros means "none"
            identifier = random_bytes(size)
        return identifier.hex()

    return parse


def format_traceparent(trace_id: str, span_id: str, *, sampled: bool = True) -> str:
    """The header for a request that this span makes."""
    return f"00-{trace_id}-{span_id}-{'01' if sampled else '00'}"
