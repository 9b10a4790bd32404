"""A real HTTP server of our own for tests: each connection is played by a coroutine that says exactly what bytes
go out when. Nothing of HTTP is done for the player, so that every mistake of a server can be played."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import NamedTuple, Self

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Request(NamedTuple):
    head: bytes
    body: bytes

    def header(self, name: str) -> str | None:
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None


class Exchange:
    """The server's side of one connection; `number` counts connections from 0."""

    def __init__(self, origin: Origin, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self._origin = origin
        self._reader = reader
        self._writer = writer

    async def request(self) -> Request:
        """The next request; IncompleteReadError when the client hangs up."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await self._reader.readexactly(int(length[1])) if length else b""
        request = Request(head, body)
        self._origin.requests.append(request)
        return request

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def hung_up(self) -> None:
        """Until the client has closed the connection."""
        try:
            while await self._reader.read(65536):
                pass
        except ConnectionError:
            pass

    def reset(self) -> None:
        """Drop the connection with a TCP reset, if the kernel still holds unread or unsent bytes."""
        self._writer.transport.abort()


Player = Callable[[Exchange], Awaitable[None]]


class Origin:
    """`async with Origin(player) as origin`: `origin.url` answers until the block ends."""

    def __init__(self, player: Player, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.url = ""
        self._player = player
        self._tls = tls
        self._host = host
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.fault: BaseException | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, 0, ssl=self._tls, limit=1 << 24)
        host, port = self._server.sockets[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if self._tls else 'http'}://{shown}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        if fault is None and self.fault is not None:
            raise self.fault

    @property
    def open_connections(self) -> int:
        return len(self._open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        number = self.connections
        self.connections += 1
        try:
            await self._player(Exchange(self, number, reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as fault:  # noqa: BLE001 - told by the test that plays
            self.fault = fault
        finally:
            writer.close()
            self._open.discard(writer)
            self._tasks.discard(task)


def ok(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """A complete answer with content-length."""
    lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def always(answer: bytes) -> Player:
    """Answers every request on every connection with the same bytes."""

    async def play(exchange: Exchange) -> None:
        while True:
            await exchange.request()
            await exchange.send(answer)

    return play
