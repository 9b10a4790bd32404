"""A TCP proxy before a server: counts connections and questions, and holds, cuts or answers them as a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Wire:
    """`reply`: answered instead of what the server says. `is_open` cleared: nothing passes until it is set again."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self.url = ""
        self.connections = 0
        self.questions = 0
        self.reply: bytes | None = None
        self.cuts = 0  # so many next questions are cut off unanswered
        self.is_open = asyncio.Event()
        self.is_open.set()
        self._writers: set[asyncio.StreamWriter] = set()

    def drop(self) -> None:
        """Close every connection that is kept."""
        for writer in self._writers:
            writer.close()

    def answer(self, status: int, body: bytes) -> None:
        """Answer every question with this from now on."""
        self.reply = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client."""
        self.connections += 1
        self._writers.add(writer)
        try:
            onward, back = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.close()
            return
        reading = asyncio.create_task(self._back(onward, writer))
        try:
            while (data := await reader.read(65536)) and not self._cut(data):
                await self.is_open.wait()
                if self.reply is not None:
                    writer.write(self.reply)
                else:
                    back.write(data)
        except OSError:
            pass
        finally:
            reading.cancel()
            self._writers.discard(writer)
            for one in (writer, back):
                one.close()

    def _cut(self, data: bytes) -> bool:
        self.questions += data.startswith(b"POST")
        if data.startswith(b"POST") and self.cuts:
            self.cuts -= 1
            return True
        return False

    async def _back(self, onward: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await onward.read(65536):
                writer.write(data)
        writer.close()


@contextlib.asynccontextmanager
async def wire_to(port: int) -> AsyncIterator[Wire]:
    """A proxy before `port` of this machine."""
    wire = Wire(port)
    server = await asyncio.start_server(wire.carry, "127.0.0.1", 0)
    wire.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        wire.is_open.set()
        wire.drop()
        server.close()
        await server.wait_closed()
