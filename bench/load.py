"""Load on one endpoint: closed loop, keep-alive, raw sockets.

usage: python -m bench.load URL BODY_FILE CONNECTIONS SECONDS [TOKEN]    prints one JSON line
Streams are counted by their chunks and the time to the first of them; an answer that is not 200 is an error.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import uvloop


class Client(asyncio.Protocol):
    """One connection that sends its request again as soon as the answer is complete."""

    def __init__(self, request: bytes, deadline: float) -> None:
        self._request = request
        self._deadline = deadline
        self._buffer = bytearray()
        self.latencies_us: list[float] = []
        self.first_us: list[float] = []
        self.chunks = 0
        self.errors = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._send()

    def _send(self) -> None:
        self._buffer.clear()
        self._first = 0.0
        self._length = -2
        self._status = b""
        self._started = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        if self._length == -2:
            head_end = buffer.find(b"\r\n\r\n")
            if head_end < 0:
                return
            head = bytes(buffer[:head_end]).lower()
            self._status = head[9:12]
            at = head.find(b"content-length:")
            self._length = int(head[at + 15 :].split(b"\r\n", 1)[0]) + head_end + 4 if at >= 0 else -1
        if self._length >= 0:
            if len(buffer) < self._length:
                return
        else:
            if self._first == 0.0 and b"data:" in buffer:
                self._first = time.perf_counter()
            self.chunks += 1
            if not buffer.endswith(b"0\r\n\r\n"):
                del buffer[:-16]
                return
        now = time.perf_counter()
        if self._status == b"200":
            self.latencies_us.append((now - self._started) * 1e6)
            if self._first:
                self.first_us.append((self._first - self._started) * 1e6)
        else:
            self.errors += 1
        if now < self._deadline:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.errors += 1
        if not self.done.done():
            self.done.set_result(None)


def _quantile(values: list[float], share: float) -> float:
    return round(sorted(values)[min(len(values) - 1, int(len(values) * share))]) if values else 0


async def main(url: str, body: bytes, connections: int, seconds: float, token: str | None) -> None:
    """Run the load and print what came of it."""
    at = urlsplit(url)
    head = f"POST {at.path} HTTP/1.1\r\nhost: {at.netloc}\r\ncontent-type: application/json\r\n"
    head += "accept: application/json, text/event-stream\r\n"
    if token:
        head += f"authorization: Bearer {token}\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    started = time.perf_counter()
    clients = []
    for _ in range(connections):
        _, client = await asyncio.get_running_loop().create_connection(
            lambda: Client(request, started + seconds), at.hostname or "127.0.0.1", at.port or 80
        )
        clients.append(client)
    await asyncio.wait_for(asyncio.gather(*(client.done for client in clients)), seconds + 120)
    took_s = time.perf_counter() - started
    latencies = [value for client in clients for value in client.latencies_us]
    firsts = [value for client in clients for value in client.first_us]
    print(
        json.dumps(
            {
                "ok": len(latencies),
                "errors": sum(client.errors for client in clients),
                "per_s": len(latencies) / took_s,
                "p50_us": _quantile(latencies, 0.5),
                "p99_us": _quantile(latencies, 0.99),
                "first_p50_us": _quantile(firsts, 0.5),
                "chunks": sum(client.chunks for client in clients),
            }
        )
    )


if __name__ == "__main__":
    uvloop.run(
        main(
            sys.argv[1],
            Path(sys.argv[2]).read_bytes(),
            int(sys.argv[3]),
            float(sys.argv[4]),
            sys.argv[5] if len(sys.argv) > 5 else None,
        )
    )
