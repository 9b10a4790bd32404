"""Event streams, wherever the pieces are torn."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstreams.sse import SseData, SseTooLarge

EVENTS = b": hello\n\nid: 0\ndata:\n\nevent: message\ndata: one\n\ndata:two\ndata: more\r\n\r\nid: 7\r\rdata: {}\r\r\n\ndata: cut off"
FOUND = [b"one", b"two\nmore", b"{}"]


def collect(pieces: list[bytes]) -> list[bytes]:
    events = SseData(1000)
    return [data for piece in pieces for data in events.feed(piece)]


@given(st.lists(st.integers(0, len(EVENTS)), max_size=12))
def test_events_are_the_same_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(EVENTS)]
    assert collect([EVENTS[start:end] for start, end in itertools.pairwise(edges)]) == FOUND


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 200, b"data: x\n" * 60, b"x" * 200])
def test_an_event_that_is_too_large_is_refused(piece: bytes) -> None:
    events = SseData(100)
    with pytest.raises(SseTooLarge):
        events.feed(piece)


def test_many_small_events_are_never_too_large() -> None:
    events = SseData(100)
    assert sum(len(events.feed(b"data: x\n\n" * 50)) for _ in range(50)) == 2500
