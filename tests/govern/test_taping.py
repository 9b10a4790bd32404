"""A stream on tape: its reader misses nothing, whenever somebody asks for all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway import taping
from gateway.errors import Refusal
from gateway.taping import KeptStream, Tape, check_size

CHUNKS = [b"one ", b"", b"two ", b"three"]


class Source:
    """A model's stream; it breaks off where `broken` says so."""

    def __init__(self, *chunks: bytes, broken: bool = False) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.given = 0
        self._chunks = chunks
        self._broken = broken

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            self.given += 1
            yield chunk
        if self._broken:
            raise Refusal("upstream_failed", "It broke off.")

    async def aclose(self) -> None:
        return


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taping, "MAX_KEPT_BYTES", 10)


@pytest.mark.parametrize("asked_at", range(len(CHUNKS) + 1))
async def test_whoever_reads_gets_every_piece_once_also_after_all_of_it_was_asked_for(asked_at: int) -> None:
    source = Source(*CHUNKS)
    tape = Tape(source)
    read = [await anext(tape) for _ in range(asked_at)]
    assert source.given == asked_at  # nothing is read ahead until somebody asks
    assert await tape.whole() == b"one two three"
    assert source.given == len(CHUNKS)
    read += [chunk async for chunk in tape]
    assert read == CHUNKS
    assert await tape.whole() == b"one two three"
    with pytest.raises(StopAsyncIteration):
        await anext(tape)


async def test_an_empty_stream_is_whole_at_once() -> None:
    tape = Tape(Source())
    assert await tape.whole() == b""
    assert [chunk async for chunk in tape] == []


@pytest.mark.usefixtures("_short")
async def test_a_stream_of_just_the_size_is_kept() -> None:
    assert await Tape(Source(b"12345", b"67890")).whole() == b"1234567890"


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("asked_at", range(4))
async def test_a_longer_one_is_passed_on_but_not_kept(asked_at: int) -> None:
    chunks = [b"12345", b"67890", b"1", b"2"]
    source = Source(*chunks)
    tape = Tape(source)
    for number in range(asked_at):
        assert await anext(tape) == chunks[number]
    with pytest.raises(Refusal) as refused:
        await tape.whole()
    assert (refused.value.code, refused.value.http_status, refused.value.retry) == ("too_large", 502, False)
    assert source.given == max(asked_at, 3)  # no more of it is read than it takes to know


@pytest.mark.usefixtures("_short")
async def test_what_is_too_long_is_still_read_to_its_end() -> None:
    assert [chunk async for chunk in Tape(Source(b"1234567890", b"1", b"2"))] == [b"1234567890", b"1", b"2"]


async def test_a_stream_that_breaks_off_is_not_whole() -> None:
    with pytest.raises(Refusal) as refused:
        await Tape(Source(b"one", broken=True)).whole()
    assert refused.value.code == "upstream_failed"


@pytest.mark.usefixtures("_short")
def test_a_complete_answer_has_the_same_limit() -> None:
    check_size(10)
    with pytest.raises(Refusal):
        check_size(11)


async def test_a_kept_stream_comes_as_it_was() -> None:
    kept = KeptStream(b"data: 1\n\ndata: 2\n\n")
    assert await Tape(kept).whole() == b"data: 1\n\ndata: 2\n\n"
    assert (kept.status, kept.headers) == (200, {})
    await kept.aclose()
