"""What a chat completion says of itself, for those who look on: its id, the model that answered, why it ended.

Read from what the agent was given, after that was given; nothing depends on it, so what can't be read is just not told.
"""

from __future__ import annotations

import msgspec

from gateway.actions import Answered

_TAIL_EVENTS = 8  # the finish reason stands in one of the last events

_DATA = b"data: "


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Head(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None


_decode = msgspec.json.Decoder(_Head).decode


def answered(body: bytes, *, stream: bool) -> Answered:
    """The parts of a complete answer, or of a stream's events."""
    if not stream:
        return _answered([body])
    events = body.split(b"\n\n")
    first = next((event for event in events if event.startswith(_DATA)), b"")
    tail = [event for event in events[-_TAIL_EVENTS:] if event.startswith(_DATA) and event != b"data: [DONE]"]
    return _answered([event.removeprefix(_DATA) for event in (first, *tail)])


def _answered(parts: list[bytes]) -> Answered:
    heads: list[_Head] = []
    for part in parts:
        try:
            heads.append(_decode(part))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    reasons = [choice.finish_reason for head in heads for choice in head.choices or () if choice.finish_reason]
    return Answered(
        id=next((head.id for head in heads if head.id), None),
        model=next((head.model for head in heads if head.model), None),
        finish_reasons=tuple(dict.fromkeys(reasons)) if len(parts) > 1 else tuple(reasons),
    )
