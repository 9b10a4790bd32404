"""The consumer's half of an answer: what has arrived waits here until it is read."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol, Self

from gateway.offload import run_sized
from gateway.upstreams.budget import Holding
from gateway.upstreams.wire_head import Headers, WireError, WireFailed, WireFull, WireTooLarge

HIGH_WATER_BYTES = 256 * 1024  # stop reading the socket when the consumer lags by more
LOW_WATER_BYTES = 64 * 1024  # read on once it has caught up to here
_PIECE_BYTES = 48  # what a queued piece costs beside its bytes, so that tiny chunks count too


class Source(Protocol):
    """The connection, as its answer sees it."""

    paused: bool

    def read_on(self) -> None:
        """Undo back-pressure, if there is any."""

    def fail(self, fault: WireError) -> None:
        """End the answer with `fault` and close."""


class WireResponse:
    """An answer whose head has arrived. Read it with `read` or by iterating, then `aclose` it.

    Iterating gives each piece as it arrived, and raises `WireError` after the last one that came. Once the
    answer is complete its connection is already back in the pool; `aclose` before that closes it.
    """

    __slots__ = (
        "_fault",
        "_finished",
        "_held",
        "_holding",
        "_loop",
        "_pieces",
        "_room",
        "_source",
        "_waiter",
        "_whole",
        "headers",
        "status",
    )

    def __init__(self, source: Source, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.headers: Headers = []  # names in lower case
        self._source: Source | None = source  # None once the answer is complete or broken
        self._loop = loop
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._whole: bytearray | None = None  # collects the rest of the body once `read` waits for it
        self._room = 0
        self._holding: Holding | None = None
        self._finished = False
        self._fault: WireError | None = None
        self._waiter: asyncio.Future[None] | None = None

    # ------------------------------------------------ for the consumer

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header; `name` in lower case."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    async def read(self, cap: int, holding: Holding | None = None) -> bytes:
        """The whole body, whose bytes are added to `holding` as they arrive.

        Raises `WireTooLarge` once it exceeds `cap` bytes, `WireFull` once there is no room; then it is closed.
        """
        length = self.header(b"content-length")
        known = min(int(length), cap + 1) if length is not None and length.isdigit() and len(length) < 20 else None
        self._holding = holding if known is None else None
        if known is not None and known > cap:
            self._abandon()
            raise _too_large(cap)
        if holding is not None and not holding.add(known or sum(map(len, self._pieces))):
            self._abandon()
            raise _full()
        if not self._finished and self._fault is None:
            self._whole = bytearray().join(self._pieces)
            self._pieces.clear()
            self._room = cap
            if len(self._whole) <= cap and self._source is not None:
                self._source.read_on()
                while not self._finished and self._fault is None:
                    await self._wait()
            # A copy of 16 MiB takes 10 ms, and many answers may end in one turn of the loop.
            body = await run_sized(len(self._whole), bytes, self._whole)
            self._whole = bytearray()
        else:
            body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
        if len(body) > cap:
            self._abandon()
            raise _too_large(cap)
        if self._fault is not None:
            raise self._fault
        return body

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._fault is not None:
                raise self._fault
            if self._finished:
                raise StopAsyncIteration
            await self._wait()
        piece = self._pieces.popleft()
        self._held -= len(piece) + _PIECE_BYTES
        if self._held < LOW_WATER_BYTES and self._source is not None and self._source.paused:
            self._source.read_on()
        return piece

    async def aclose(self) -> None:
        """Give the connection back. One whose answer is not complete is closed: that stops the server."""
        self._abandon()
        self._pieces.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _wait(self) -> None:
        """Until something happens: head, a piece, the end, a fault. Cancelling closes the connection."""
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        except asyncio.CancelledError:
            self._abandon()
            raise
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _abandon(self) -> None:
        if self._source is not None:
            fault = WireFailed("the answer was abandoned", dispatched=True, answered=self.status > 0)
            self._source.fail(fault)

    # ------------------------------------------------ for the client and the connection

    async def begun(self) -> None:
        """Until the head is complete. Raises the `WireError` that came instead."""
        while self.status == 0:
            if self._fault is not None:
                raise self._fault
            await self._wait()

    def begin(self, status: int) -> None:
        """The head is complete."""
        self.status = status
        self._wake()

    def arrive(self, piece: bytes) -> bool:
        """A piece of the body. False: the consumer lags (`HIGH_WATER_BYTES`), or has no room for it."""
        if self._whole is not None:
            if self._holding is not None and not self._holding.add(len(piece)):
                self._fault = self._fault or _full()
                self._whole.clear()
                self._holding.give_back()  # at once, so that not all who ask in this moment are given up
                self._wake()
                return False
            self._whole += piece
            if len(self._whole) > self._room:
                self._finished = True  # `read` finds it too large
                self._wake()
                return False
            return True
        self._pieces.append(piece)
        self._held += len(piece) + _PIECE_BYTES
        self._wake()
        return self._held <= HIGH_WATER_BYTES

    def end(self, fault: WireError | None = None) -> None:
        """Nothing more will come: the answer is complete, or broke with `fault`."""
        self._source = None
        if fault is None:
            self._finished = True
        else:
            self._fault = fault
        self._wake()


def _too_large(cap: int) -> WireTooLarge:
    return WireTooLarge(f"the answer is larger than {cap} bytes", dispatched=True, answered=True)


def _full() -> WireFull:
    return WireFull("the gateway has no room for its answer", dispatched=True, answered=True)
