"""However much a provider sends at once, and however it is cut: time grows with the bytes, and others run in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.doors.openai import stream as stream_module
from gateway.doors.openai.calls import MAX_CALLS, Call
from gateway.doors.openai.stream import ChatStream
from gateway.errors import Refusal
from tests.heartbeat import heartbeat

from .streams import Judge, call, chunk, fn, read, sse, streamed

DONE = "[DONE]"
END = chunk({}, "tool_calls")
STALL_S = 0.1


async def relayed(*pieces: bytes) -> bytes:
    async def source() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return b"".join([out async for out in ChatStream(Judge(), keep_usage=True).run(source())])


async def test_a_stream_of_single_bytes_costs_no_more_than_its_bytes() -> None:
    """1.5 MB took 21.6 s, and four times that for twice as much."""
    body = sse(chunk({"content": "x" * 300_000}), chunk({}, "stop"), DONE)
    began_s = time.process_time()
    out = await streamed(body, size=1)
    assert time.process_time() - began_s < 2
    assert len(read(out).text) == 300_000


@pytest.mark.parametrize(
    "piece",
    [
        sse(*[chunk({"content": "x"})] * 40_000, DONE),
        b"data:{}\n\n" * 100_000,
        b":\n\n" * 200_000,
        sse({**chunk({"content": "x"}), "x_call": [[1]] * 45_000}, DONE),
        sse({**chunk({"content": "x"}, index=100), "x_call": "y" * 3_000_000}, DONE),
        sse({**chunk(call(fn("a", "{}", index=0, id="1"))), "x": "y" * 3_000_000}, END, DONE),
        sse(chunk(call(fn("a", '{"x":[' + "1," * 400_000 + "1]}", index=0, id="1"))), END, DONE),
    ],
    ids=[
        "a kept answer",
        "tiny events",
        "comments",
        "a large event",
        "a large event of a late choice",
        "a large event with a call",
        "large arguments",
    ],
)
async def test_what_comes_in_one_piece_is_worked_on_in_turns(piece: bytes) -> None:
    async with heartbeat() as beating:
        await relayed(piece)
    assert beating.beats > 5
    assert beating.longest_s < STALL_S


def test_members_that_nobody_knows_are_joined_in_time_that_grows_with_them() -> None:
    made = Call()
    began_s = time.process_time()
    for number in range(40_000):
        made.take({"index": 0, f"x{number}": number})
    assert time.process_time() - began_s < 1.5
    assert len(made.extra) == 40_000


def test_choices_without_number_are_counted_in_time_that_grows_with_them() -> None:
    stream = ChatStream(Judge(), keep_usage=False)
    stream._held[0] = stream_module._HeldChoice()
    began_s = time.process_time()
    for number in range(30_000):
        stream._note(number, "stop")
        assert stream._is_complete
    assert time.process_time() - began_s < 1


async def test_what_is_around_calls_is_not_multiplied_by_them() -> None:
    calls = [fn(f"t{number}", "{}", index=number, id=f"c{number}") for number in range(MAX_CALLS)]
    out = await relayed(sse({**chunk(call(*calls)), "x_vendor": "y" * 100_000}, END, DONE))
    found = read(out)
    assert len(found.calls) == MAX_CALLS
    assert b"x_vendor" in out
    assert len(out) < 1_000_000


async def test_what_is_around_finish_reasons_is_not_multiplied_by_the_choices() -> None:
    choices = [{"index": number, "delta": {}, "finish_reason": "stop"} for number in range(MAX_CALLS)]
    out = await streamed(sse({"id": "c1", "choices": choices, "x_vendor": "y" * 100_000}, DONE), choices=MAX_CALLS)
    assert b"x_vendor" in out
    assert len(out) < 1_000_000
    assert {read(out, number).finish for number in range(MAX_CALLS)} == {"stop"}


async def test_what_is_around_a_late_choice_is_not_multiplied_by_those_before_it() -> None:
    late = sse({**chunk({"content": "x"}, index=127), "x_vendor": "y" * 100_000}, DONE)
    out = await streamed(late, choices=128)
    assert read(out, 127).text == "x"
    assert len(out) < 1_000_000


async def test_choices_that_nobody_asked_for_are_not_held_without_end() -> None:
    finishes = [sse(chunk({}, "stop", index=number)) for number in range(MAX_CALLS + 1)]
    with pytest.raises(Refusal) as caught:
        await relayed(*finishes)
    assert caught.value.code == "upstream_failed"


async def test_an_event_of_very_many_parts_is_refused_before_it_is_read() -> None:
    with pytest.raises(Refusal) as caught:
        await relayed(sse({**chunk(call(fn("a", "{}", index=0, id="1"))), "x": [[1]] * 300_000}, DONE))
    assert caught.value.code == "upstream_failed"


async def test_one_call_has_no_larger_arguments_than_at_the_other_doors() -> None:
    judge = Judge()
    parts = [chunk(call(fn("", "x" * 60_000, index=0))) for _ in range(20)]
    await streamed(sse(chunk(call(fn("a", "", index=0, id="1"))), *parts, END, DONE), judge)
    assert [(one.arguments, one.fault) for one in judge.asked] == [
        (None, "Its arguments are too large. Propose it again with smaller ones.")
    ]


@pytest.mark.parametrize(("limit", "value"), [("MAX_EVENTS", 100), ("MAX_STREAM_BYTES", 10_000)])
async def test_an_answer_without_end_is_ended(monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(stream_module, limit, value)
    with pytest.raises(Refusal) as caught:
        await relayed(*[sse(chunk({"content": "x"}))] * 1000)
    assert caught.value.code == "upstream_failed"
    assert "longer than" in caught.value.message


async def test_after_the_end_only_a_little_is_read() -> None:
    taken = 0

    async def source() -> AsyncIterator[bytes]:
        nonlocal taken
        yield sse(chunk({"content": "x"}), DONE)
        while True:
            taken += 1
            yield b"x" * 1000

    out: list[Any] = [piece async for piece in ChatStream(Judge(), keep_usage=True).run(source())]
    assert out
    assert taken < 100


async def test_after_the_end_a_provider_that_drips_is_not_waited_for() -> None:
    async def source() -> AsyncIterator[bytes]:
        yield sse(chunk({"content": "x"}), DONE)
        while True:
            await asyncio.sleep(0)
            yield b""

    stream = ChatStream(Judge(), keep_usage=True, end_silence_s=0.0)
    async with asyncio.timeout(5):
        assert [piece async for piece in stream.run(source())]
