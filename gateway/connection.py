"""One client connection: uvicorn's, with an end to what it may buffer and to how long it may dawdle.

uvicorn with httptools keeps a head of any size and waits for its rest for ever; nobody needs a key for that. Here
bytes by which a request comes no further are counted, and a connection has one timer at a time, none of them armed
by a request that arrives whole. A client that is late or too wordy is answered in one sentence and closed.
"""

from __future__ import annotations

import asyncio
import resource
from http import HTTPStatus
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

MAX_HEAD_BYTES = 64 * 1024
# For the first byte of a connection; for a whole head after its first byte; for a whole request after its head
# (the doors are stricter and say more, this holds for every path); for the rest of one that was answered early.
FIRST_BYTE_S = 75.0
HEAD_S = 20.0
REQUEST_S = 150.0
REST_S = 20.0


def most_connections() -> int:
    """How many clients may be connected: half of the files that the process may open, for upstreams need some too."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 16_384 if soft == resource.RLIM_INFINITY else max(16, min(soft // 2, 16_384))


class Connection(HttpToolsProtocol):
    """The protocol of one connection. The class attributes are its limits, in bytes, seconds and connections."""

    max_head_bytes = MAX_HEAD_BYTES
    first_byte_s = FIRST_BYTE_S
    head_s = HEAD_S
    request_s = REQUEST_S
    rest_s = REST_S
    max_connections = most_connections()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._timer: asyncio.TimerHandle | None = None
        self._timed_s = 0.0  # what the timer was armed for; 0: not armed
        self._in_head = False
        self._in_request = False
        self._further = False  # whether the last bytes brought the parser to its next step
        self._idle_bytes = 0  # since it last came further
        self._head_bytes = 0  # of names and values, trailers included
        self._status = HTTPStatus.BAD_REQUEST

    # ------------------------------------------------------------ the transport's side

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections are open; try again in a moment.")
            return
        self._arm(self.first_byte_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._further = False
        super().data_received(data)
        if self.transport.is_closing():
            self._disarm()
            return
        self._idle_bytes = 0 if self._further else self._idle_bytes + len(data)
        if self._idle_bytes > self.max_head_bytes:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, self._too_large())
        elif not self._in_request:
            self._disarm()
        else:
            self._await_rest()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_request and not self.transport.is_closing():
            self._await_rest()

    # ------------------------------------------------------------ the parser's side

    def on_message_begin(self) -> None:
        self._in_head = self._in_request = self._further = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        if self._in_head:  # a trailer is no header: nobody decides by what comes after the body (RFC 9110, 6.5.1)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._further = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._further = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_request = False
        self._further = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn answers where the parser stopped; it stops for us too, in `_count`."""
        if self._status is HTTPStatus.BAD_REQUEST:
            self._refuse(self._status, "What was sent is not HTTP/1.1.")
        else:
            self._refuse(self._status, self._too_large())

    # ------------------------------------------------------------ limits

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self.max_head_bytes:
            self._status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise ValueError(self._too_large())  # ends the parsing, which ends in `send_400_response`

    def _too_large(self) -> str:
        return f"A request's head may have {self.max_head_bytes} bytes."

    def _await_rest(self) -> None:
        if self._in_head:
            wanted_s = self.head_s
        elif self.cycle is not None and self.cycle.response_complete:
            wanted_s = self.rest_s
        else:
            wanted_s = self.request_s
        if wanted_s != self._timed_s:
            self._arm(wanted_s)

    def _arm(self, after_s: float) -> None:
        self._disarm()
        self._timed_s = after_s
        self._timer = self.loop.call_later(after_s, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timed_s = None, 0.0

    def _late(self) -> None:
        after_s, self._timer, self._timed_s = self._timed_s, None, 0.0
        if self.transport.is_closing():
            return
        answering = self.cycle is not None and not self.cycle.response_complete
        if self.pipeline or (answering and self._in_head):
            self._arm(after_s)  # an answer to an earlier request is on its way, and reading waits for that
        elif self._in_request and not answering and self._in_head:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"The request's head was not complete within {after_s:g} s.")
        else:
            self.transport.close()

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        self._disarm()
        body = sentence.encode()
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: text/plain; charset=utf-8\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n" % (status, status.phrase.encode(), len(body)) + body
        )
        self.transport.close()
