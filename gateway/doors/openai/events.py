"""Server-sent events of a streamed answer, from pieces of bytes to the data of one event.

Time and memory grow with the bytes, not with their square, however small the pieces are. An event's data is the
only part that counts: its name, id and comments are dropped, and what is sent on is written again.
Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

from gateway.errors import Refusal

MAX_EVENT_BYTES = 4 * 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_FIELDS = (b"", b"event", b"id", b"retry")


class EventReader:
    """Joins the pieces of a stream and splits it into events."""

    __slots__ = ("_after_cr", "_at_start", "_pending")

    def __init__(self) -> None:
        self._pending = bytearray()
        self._after_cr = False  # the line feed of a CRLF may come with the next piece
        self._at_start = True  # a byte order mark may stand before the first event, and nowhere else

    def feed(self, piece: bytes) -> list[bytes]:
        """The events that `piece` completes, as their lines. Raises `upstream_failed` for one that is too large."""
        if self._after_cr and piece:
            piece, self._after_cr = piece.removeprefix(b"\n"), False
        if b"\r" in piece:
            self._after_cr = piece.endswith(b"\r")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        pending, complete = self._pending, b""
        if pending:
            searched = len(pending) - 1
            pending += piece
            end = pending.rfind(b"\n\n", searched)
            if end >= 0:
                complete, self._pending = bytes(pending[:end]), pending[end + 2 :]
        else:
            end = piece.rfind(b"\n\n")
            if end < 0:
                pending += piece
            else:
                complete = piece[:end]
                if end + 2 != len(piece):
                    pending += piece[end + 2 :]
        if len(self._pending) > MAX_EVENT_BYTES:
            raise unreadable_answer()
        return self._events(complete) if complete else []

    def rest(self) -> list[bytes]:
        """What stands after the last complete event, once the stream is over: at most one event."""
        rest, self._pending = bytes(self._pending).strip(), bytearray()
        return self._events(rest)

    def _events(self, complete: bytes) -> list[bytes]:
        if self._at_start:
            complete, self._at_start = complete.removeprefix(_BYTE_ORDER_MARK), False
        return [event for event in complete.split(b"\n\n") if event]


def data_of(event: bytes) -> bytes | None:
    """The data of an event, its lines joined; None for an event that is only comments.

    Fields that nobody knows are dropped, as the specification says. Raises `upstream_failed` for an error event, and
    for `Data` and the like: some reader may take it for data.
    """
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    parts = []
    for line in event.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            parts.append(value.removeprefix(b" "))
        elif name == b"event" and value.strip() == b"error":
            raise broke_off()
        elif name not in _FIELDS and name.strip().lower() in (b"data", b"event"):
            raise unreadable_answer()
    return b"\n".join(parts) if parts else None


def unreadable_answer() -> Refusal:
    """The answer as a whole can't be read; a single call that can't be read is left out instead."""
    return Refusal(
        "upstream_failed",
        "The model provider's answer is not a chat completion, so it can't be inspected and is withheld; "
        "check the provider's base URL and model.",
    )


def too_long(limit: str) -> Refusal:
    """The answer goes on without end."""
    return Refusal(
        "upstream_failed",
        f"The model provider's answer is longer than {limit}, so it was ended; ask for less, or for fewer tokens.",
    )


def broke_off() -> Refusal:
    """The provider ended its stream with an error, whose text may hold secrets."""
    return Refusal("upstream_failed", "The model provider broke off its answer with an error; try again.")
