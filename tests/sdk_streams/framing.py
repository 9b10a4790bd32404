"""From the events of a stream to the pieces of bytes that a network delivers: every framing that the standard allows.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from typing import Any

from tests.sdk_streams.jsontext import Style, write
from tests.sdk_streams.maker import Maker
from tests.sdk_streams.upstream import Effect

_NO_UTF8 = (b"\xff", b"\xc3(", b"\xed\xa0\x80")
_NO_UTF8_LINES = (b": \xff\xfe\n\n", b"event: \xc3\x28\n", b"\xff: x\n")


def framed(maker: Maker, events: list[Any]) -> bytes:
    """The events as bytes."""
    rng = maker.rng
    style = Style(
        ascii=rng.random() < 0.5,
        spaces=rng.random() < 0.5,
        breaks=maker.chance(0.1),
        escaped_keys=maker.chance(0.08),
    )
    maker.oddities += [name for name in ("breaks", "escaped_keys") if getattr(style, name)]
    end = rng.choices(("\n", "\r\n", "\r"), (8, 2, 0.5))[0]
    space = rng.choice((" ", " ", ""))
    out: list[str] = []
    for event in events:
        if rng.random() < 0.05:
            out.append(f": keep-alive{end}{rng.choice(('', end))}")
        if maker.chance(0.03):
            out.append(rng.choice((f"event: message{end}", f"id: 7{end}", f"retry: 10{end}")))
        out += [f"data:{space}{line}{end}" for line in write(event, style, rng).split("\n")]
        out.append(end)
    if maker.chance(0.1):
        maker.odd("no end")
    else:
        out.append(f"data: [DONE]{end}{end}")
        if maker.chance(0.06):
            maker.odd("a call after the end")
            choice = {"index": 0, "delta": {"tool_calls": [maker.evil_call()]}, "finish_reason": "tool_calls"}
            late = {"object": "chat.completion.chunk", "choices": [choice]}
            out.append(f"data: {write(late, style, rng)}{end}{end}")
    data = "".join(out).encode()
    if maker.chance(0.03):
        maker.odd("byte order mark")
        data = b"\xef\xbb\xbf" + data
    return _spoilt(maker, data) if maker.chance(0.02) else data


def _spoilt(maker: Maker, data: bytes) -> bytes:
    """The bytes with some that are no UTF-8, in a place that readers skip."""
    rng = maker.rng
    maker.odd("no UTF-8", Effect.OPEN)
    if rng.random() < 0.5:
        return data.replace(b"chatcmpl-1", rng.choice(_NO_UTF8), 1)
    at = rng.choice([match.end() for match in re.finditer(rb"[\r\n]{2,4}", data)][:-1] or [0])
    return data[:at] + rng.choice(_NO_UTF8_LINES) + data[at:]


def cut(rng: Random, data: bytes) -> Iterator[bytes]:
    """The bytes in pieces of any size, as a network delivers them."""
    way = rng.random()
    if way < 0.3:
        yield data
        return
    if way < 0.5:
        yield from re.findall(rb".*?(?:\r\n\r\n|\n\n|\r\r|$)", data, re.DOTALL)
        return
    most = rng.choice((1, 3, 20, 200)) if len(data) < 1_500 else rng.choice((20, 200, 1_000))
    start = 0
    while start < len(data):
        end = start + rng.randint(1, most)
        yield data[start:end]
        start = end
