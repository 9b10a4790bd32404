"""Server-sent events as they arrive in pieces (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Only `data` matters here: each event is one JSON-RPC message.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable

from gateway.upstreams.budget import Holding
from gateway.upstreams.pacing import Turns
from gateway.upstreams.wire_head import WireFull

_STEP_BYTES = 16 * 1024  # of a piece at a time: it may hold thousands of events
_LINE_BYTES = 8  # what a line of data costs beside its bytes, so that empty ones count too


class SseTooLarge(Exception):  # noqa: N818 - says what the event is
    """An event larger than the cap."""


class SseData:
    """Feed it pieces of the body; it gives the data of each complete event. `cap` bounds one event, in bytes."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._held = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False

    @property
    def size(self) -> int:
        """Bytes that wait for the end of their event."""
        return self._size + len(self._held)

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that `piece` completes, blank ones left out. Raises SseTooLarge."""
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]  # a CRLF that was torn apart
        if piece:
            self._after_cr = piece.endswith(b"\r")
        if b"\r" in piece:
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        found: list[bytes] = []
        *lines, rest = piece.split(b"\n")
        for line in lines:
            if self._held:
                line = bytes(self._held) + line
                self._held.clear()
            self._take(line, found)
        self._held += rest
        self._check(len(self._held))
        return found

    def _take(self, line: bytes, found: list[bytes]) -> None:
        if not line:
            if self._data:
                data = b"\n".join(self._data)
                if data.strip():  # servers open resumable streams with an event that has an id and nothing else
                    found.append(data)
                self._data.clear()
                self._size = 0
            return
        if line.startswith(b"data:"):
            value = line[6:] if line.startswith(b"data: ") else line[5:]
            self._check(len(value))
            self._data.append(value)
            self._size += len(value) + _LINE_BYTES

    def _check(self, more: int) -> None:
        if self._size + more > self._cap:
            raise SseTooLarge


async def data_of(pieces: AsyncIterable[bytes], cap: int, holding: Holding | None = None) -> AsyncGenerator[bytes]:
    """The data of each event of a body, while others run in between; `holding` covers the largest so far.

    Raises SseTooLarge, WireFull, and what reading raises.
    """
    events, turns = SseData(cap), Turns()
    async for piece in pieces:
        for start in range(0, len(piece), _STEP_BYTES):
            step = piece[start : start + _STEP_BYTES]
            for data in events.feed(step):
                yield data
            if holding is not None and not holding.at_least(events.size):
                raise WireFull("the gateway has no room for its answer", dispatched=True, answered=True)
            await turns.after(len(step))
