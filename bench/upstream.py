"""A mock model provider on a raw protocol, cheap enough never to be the bottleneck.

usage: python -m bench.upstream [PORT]   (0, the default, picks a port; the chosen one is printed)
The model's name chooses the behaviour: `mock` answers at once, `mock-d20` after 20 ms, `mock-i10` streams its chunks
10 ms apart, `mock-tools` streams tool-call deltas instead of text.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
from typing import Any, cast

import uvloop

CHUNKS = 100
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_DELAY_MS = re.compile(rb'"mock[^"]*-d(\d+)')
_INTERVAL_MS = re.compile(rb'"mock[^"]*-i(\d+)')
_STREAM = re.compile(rb'"stream": ?true')


def _response(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    return head + body


def _event(payload: dict[str, Any]) -> bytes:
    data = b"data: " + json.dumps(payload).encode() + b"\n\n"
    return b"%x\r\n" % len(data) + data + b"\r\n"


def _delta(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "mock", "choices": [choice]})


_USAGE = {"prompt_tokens": 300, "completion_tokens": CHUNKS, "total_tokens": 300 + CHUNKS}
ANSWER = _response(
    json.dumps(
        {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "mock",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "word " * CHUNKS}, "finish_reason": "stop"}
            ],
            "usage": _USAGE,
        }
    ).encode()
)
SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_END = _event({"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": _USAGE})
_DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
TEXT = [
    _delta({"role": "assistant", "content": ""}),
    *[_delta({"content": "word "})] * (CHUNKS - 2),
    _delta({}, "stop"),
]
_ARGUMENTS = [
    _delta({"tool_calls": [{"index": 0, "function": {"arguments": part}}]}) for part in ('{"id": "', "x", '"}')
]
TOOLS = [
    _delta(
        {
            "role": "assistant",
            "tool_calls": [
                {"index": 0, "id": "t", "type": "function", "function": {"name": "crm_lookup", "arguments": ""}}
            ],
        }
    ),
    _ARGUMENTS[0],
    *[_ARGUMENTS[1]] * (CHUNKS - 4),
    _ARGUMENTS[2],
    _delta({}, "tool_calls"),
]


class Upstream(asyncio.Protocol):
    """One connection; pipelining is not spoken."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._buffer = b""
        self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, head_end)
        end = head_end + 4 + (int(length[1]) if length else 0)
        if len(self._buffer) < end:
            return
        body, self._buffer = self._buffer[head_end + 4 : end], self._buffer[end:]
        self._answer(body)

    def _answer(self, body: bytes) -> None:
        loop = asyncio.get_running_loop()
        delay = _DELAY_MS.search(body)
        if not _STREAM.search(body):
            loop.call_later(int(delay[1]) / 1000 if delay else 0, self._transport.write, ANSWER)
            return
        interval = _INTERVAL_MS.search(body)
        events = TOOLS if b'"mock-tools' in body else TEXT
        self._transport.write(SSE_HEAD + events[0])
        interval_s = int(interval[1]) / 1000 if interval else 0
        loop.call_later(interval_s, self._tick, events, 1, interval_s)

    def _tick(self, events: list[bytes], index: int, interval_s: float) -> None:
        if self._transport.is_closing():
            return
        if index == len(events):
            self._transport.write(_END + _DONE)
            return
        self._transport.write(events[index])
        asyncio.get_running_loop().call_later(interval_s, self._tick, events, index + 1, interval_s)


async def main(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
