"""A stream on tape: its reader misses nothing, and what is not too long can be kept."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator

import pytest

from gateway import taping
from gateway.errors import Refusal
from gateway.taping import KeptStream, Tape, check_size

CHUNKS = [b"one ", b"", b"two ", b"three"]


class Source:
    """A model's stream."""

    def __init__(self, *chunks: bytes) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.given = 0
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            self.given += 1
            yield chunk

    async def aclose(self) -> None:
        return


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taping, "MAX_KEPT_BYTES", 10)


async def read(tape: Tape) -> list[bytes]:
    return [chunk async for chunk in tape]


async def test_whoever_reads_gets_every_piece_and_the_tape_has_them_all() -> None:
    source = Source(*CHUNKS)
    tape = Tape(source)
    assert tape.whole() == b""
    assert await read(tape) == CHUNKS
    assert source.given == len(CHUNKS)
    assert tape.whole() == b"one two three"


@pytest.mark.usefixtures("_short")
async def test_a_stream_of_just_the_size_is_kept() -> None:
    tape = Tape(Source(b"12345", b"67890"))
    await read(tape)
    assert tape.whole() == b"1234567890"


@pytest.mark.usefixtures("_short")
async def test_a_longer_one_is_passed_on_but_not_kept() -> None:
    chunks = [b"12345", b"67890", b"1", b"2"]
    tape = Tape(Source(*chunks))
    assert await read(tape) == chunks
    with pytest.raises(Refusal) as refused:
        tape.whole()
    assert (refused.value.code, refused.value.http_status, refused.value.retry) == ("too_large", 502, False)


@pytest.mark.usefixtures("_short")
def test_a_complete_answer_has_the_same_limit() -> None:
    check_size(10)
    with pytest.raises(Refusal):
        check_size(11)


async def test_a_kept_stream_comes_as_it_was() -> None:
    kept = KeptStream(b"data: 1\n\ndata: 2\n\n")
    assert await read(Tape(kept)) == [b"data: 1\n\ndata: 2\n\n"]
    assert (kept.status, kept.headers) == (200, {})
    await kept.aclose()


async def test_a_stream_of_single_bytes_takes_no_more_memory_than_its_bytes() -> None:
    size = 100_000
    tape = Tape(Source(*[b"%c" % (number % 256) for number in range(size)]))
    tracemalloc.start()
    async for _ in tape:
        pass
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(tape.whole()) == size
    assert taken < 2 * size
