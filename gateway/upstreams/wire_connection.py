"""One HTTP/1.1 connection: parsing, time-outs, back-pressure.

A connection carries one request at a time (no pipelining). Its pool is told when it may be used again, when
it is out of service and when its socket is closed. All of it runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import math
import select
from typing import Any, Protocol, cast

import httptools

from gateway.upstreams.wire_head import Headers, WireError, WireFailed, WireTimeout, WireTooLarge
from gateway.upstreams.wire_response import WireResponse

HEAD_CAP_BYTES = 64 * 1024  # head of an answer, all 1xx included; counted by reads of the socket
_JOIN_BYTES = 64 * 1024  # head and body up to here are sent in one write


class Owner(Protocol):
    """The pool that a connection belongs to."""

    def opened(self, connection: Connection) -> None:
        """Its socket is connected."""

    def release(self, connection: Connection) -> None:
        """Its answer is complete and it can carry another request."""

    def gone(self, connection: Connection) -> None:
        """It will carry no further request; called once."""

    def closed(self, connection: Connection) -> None:
        """Its socket is closed."""


class Connection(asyncio.Protocol):
    """A socket, its parser and one lazy timer.

    The timer is not re-armed per request: it fires at the earliest deadline it was ever set to, looks at the
    deadline that holds by then, and sleeps on. That makes a time-out cost two comparisons per read.
    """

    __slots__ = (
        "_complete",
        "_deadline",
        "_first_byte_s",
        "_head_bytes",
        "_headers",
        "_idle_s",
        "_in_body",
        "_loop",
        "_lost",
        "_owner",
        "_parser",
        "_poll",
        "_response",
        "_reusable",
        "_timer",
        "_timer_at",
        "_transport",
        "_until_close",
        "answered",
        "keep_alive_s",
        "paused",
        "used",
    )

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._parser: Any = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._response: WireResponse | None = None
        self._headers: Headers = []
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._first_byte_s = self._idle_s = 0.0
        self._head_bytes = 0
        self._in_body = self._until_close = self._complete = self._lost = False
        self._reusable = True
        self.keep_alive_s = math.inf  # how long the server said it keeps a resting connection
        self.answered = False  # a byte of the current answer has come
        self.paused = False
        self.used = 0  # requests sent so far

    # ------------------------------------------------ for the pool and the client

    def usable(self, now_s: float) -> bool:
        """Whether a resting connection can take a request: not expired, and nothing waits in its socket.

        The kernel is asked, because the loop may not have told us yet that the server hung up.
        """
        if self._lost or self._deadline <= now_s:
            return False
        return self._poll is None or not self._poll.poll(0)

    def rest(self, until_s: float) -> None:
        """Stay open without a request until the loop's time `until_s`."""
        self._arm(until_s)

    def send(self, head: bytes, body: bytes, first_byte_s: float, idle_s: float) -> WireResponse:
        """Write a request; wait for `begun` of what is returned."""
        response = self._response = WireResponse(self, self._loop)
        self._headers = response.headers
        self._first_byte_s, self._idle_s = first_byte_s, idle_s
        self._in_body = self._until_close = self.answered = False
        self._head_bytes = 0
        self.used += 1
        self._arm(self._loop.time() + first_byte_s)
        transport = self._transport
        if transport is None:
            self._broken("the connection was lost before anything was sent", dispatched=False)
        elif len(body) <= _JOIN_BYTES:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        return response

    def discard(self) -> None:
        """Close at once, whatever is under way, and leave the pool."""
        if not self._lost:
            self._lost = True
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._transport is not None:
                self._transport.abort()
            self._owner.gone(self)

    # ------------------------------------------------ for the answer

    def read_on(self) -> None:
        """Undo back-pressure, if there is any."""
        if self.paused and self._transport is not None and not self._lost:
            self.paused = False
            self._transport.resume_reading()
            self._arm(self._loop.time() + self._idle_s)

    def fail(self, fault: WireError) -> None:
        """End the current answer with `fault` and close."""
        response, self._response = self._response, None
        self.discard()
        if response is not None:
            response.end(fault)

    # ------------------------------------------------ from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._owner.opened(self)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        if self._response is None:  # nobody asked: a 408 before closing, or worse
            self.discard()
            return
        self.answered = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._reusable = False
            if not self._complete:
                self._broken("the server's answer is not proper HTTP/1.1")
                return
        if self._complete:
            self._finish()
        elif self._in_body:
            if not self.paused:
                self._arm(self._loop.time() + self._idle_s)
        else:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_CAP_BYTES:
                self.fail(WireTooLarge("the answer's head is too large", dispatched=True, answered=True))

    def connection_lost(self, exc: Exception | None) -> None:
        complete = self._in_body and self._until_close and exc is None and not self._lost
        self._transport = None
        self.discard()
        if complete:
            self._finish()
        else:
            where = "in the middle of its answer" if self.answered else "without an answer"
            self._broken(f"the server closed the connection {where}")
        self._parser = None  # it and this object hold each other
        self._owner.closed(self)

    # ------------------------------------------------ from the parser

    def on_message_begin(self) -> None:
        if self._complete:  # a second answer to one request
            self._reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # else it is a trailer: what was decided on the head must not change
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        response = self._response
        if response is None or self._complete:
            return
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue, 103 Early Hints; 101 ends in HttpParserUpgrade
            self._headers.clear()
            return
        self._in_body = self._until_close = True
        for name, value in self._headers:
            if name == b"content-length":
                self._until_close = False
            elif name == b"transfer-encoding":
                self._until_close = False
                if value.lower() != b"chunked":
                    raise ValueError("a transfer coding that was not asked for")
            elif name == b"keep-alive":
                self._hear_keep_alive(value)
        response.begin(status)

    def on_body(self, piece: bytes) -> None:
        response = self._response
        if response is None or self._complete or not piece or response.arrive(piece):
            return
        if not self.paused and self._transport is not None:
            self.paused = True
            self._transport.pause_reading()
            self._deadline = math.inf  # it is the consumer who is late

    def on_message_complete(self) -> None:
        if self._in_body and not self._complete:
            self._complete = True
            if not self._parser.should_keep_alive():
                self._reusable = False

    # ------------------------------------------------ inside

    def _hear_keep_alive(self, value: bytes) -> None:
        """`Keep-Alive: timeout=5`: rest a second less than that, so that the server never wins the race."""
        for part in value.lower().split(b","):
            key, _, number = part.strip().partition(b"=")
            if key == b"timeout" and number.isdigit():
                self.keep_alive_s = max(0.0, int(number[:9]) - 1.0)

    def _broken(self, message: str, *, dispatched: bool = True) -> None:
        self.fail(WireFailed(message, dispatched=dispatched, answered=self.answered))

    def _finish(self) -> None:
        response, self._response = self._response, None
        self._complete = False
        if response is not None:
            response.end()
        transport = self._transport
        # An answer that overtook its request leaves bytes of ours unsent: not a clean connection.
        if not self._reusable or self._lost or transport is None or transport.get_write_buffer_size():
            self.discard()
            return
        if self.paused:
            self.paused = False
            transport.resume_reading()
        self._owner.release(self)

    def _arm(self, deadline: float) -> None:
        self._deadline = deadline
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._tick)
            self._timer_at = deadline

    def _tick(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        if self._lost or self._deadline == math.inf:
            return
        if self._deadline > self._loop.time() + 0.001:  # a loop's clock may tick in milliseconds
            self._arm(self._deadline)
        elif self._response is None:
            self.discard()
        elif self._in_body:
            message = f"the server fell silent for {self._idle_s:g} s in the middle of its answer"
            self.fail(WireTimeout("idle", message, dispatched=True, answered=True))
        else:
            message = f"the server did not begin to answer within {self._first_byte_s:g} s"
            self.fail(WireTimeout("first_byte", message, dispatched=True, answered=self.answered))
