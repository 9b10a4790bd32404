"""W3C trace context in and out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.actions import Trace
from gateway.telemetry import format_traceparent, parse_traceparent, trace_parser

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{PARENT}-01".encode()


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (VALID, True),
        (VALID[:-2] + b"00", False),
        (VALID[:-2] + b"03", True),
        (b" " + VALID + b"\t", True),
        (b"cc" + VALID[2:] + b"-what-the-future-brings", True),
    ],
)
def test_a_valid_header_is_continued(header: bytes, sampled: bool) -> None:
    assert parse_traceparent(header) == (TRACE, PARENT, sampled)


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        VALID[:-1],
        VALID + b"-more",
        VALID + b"0",
        VALID.upper(),
        b"ff" + VALID[2:],
        b"cc" + VALID[2:] + b".x",
        f"00-{'0' * 32}-{PARENT}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        VALID.replace(b"-", b"_"),
        VALID[:-2] + b"0x",
        VALID + b"\n",
        b"\xff" * 55,
    ],
)
def test_an_invalid_header_is_as_none(header: bytes | None) -> None:
    assert parse_traceparent(header) is None


@given(st.binary(max_size=80))
def test_no_header_breaks_the_parser(header: bytes) -> None:
    parse_traceparent(header)


def test_a_trace_is_continued_with_a_span_of_ours_or_begun() -> None:
    parse = trace_parser(lambda size: b"\x07" * size)
    assert parse(VALID) == Trace(TRACE, "07" * 8, PARENT)
    assert parse(b"nonsense") == parse(None) == Trace("07" * 16, "07" * 8, None)


def test_an_id_of_zeros_is_drawn_again() -> None:
    drawn = itertools.chain([b"\0" * 16], (bytes([9] * size) for size in (16, 8)))
    assert trace_parser(lambda _size: next(drawn))(None) == Trace("09" * 16, "09" * 8)


def test_what_is_written_can_be_read() -> None:
    assert parse_traceparent(format_traceparent(TRACE, PARENT).encode()) == (TRACE, PARENT, True)
    assert parse_traceparent(format_traceparent(TRACE, PARENT, sampled=False).encode()) == (TRACE, PARENT, False)


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        (b"vendor=1", "vendor=1"),
        (b" vendor=1 , tenant@other=a b,", "vendor=1,tenant@other=a b"),
        (b"", ""),
        (b"vendor", ""),
        (b"Vendor=1", ""),
        (b"vendor=1,vendor=2", ""),
        (b"vendor=a=b", ""),
        (b"vendor=\x00", ""),
        (b"vendor=" + b"x" * 600, ""),
        (b",".join(b"k%d=1" % number for number in range(33)), ""),
        ("vendor=ü".encode(), ""),
    ],
)
def test_a_tracestate_is_taken_whole_or_not_at_all(state: bytes, kept: str) -> None:
    parse = trace_parser(lambda size: b"\x07" * size)
    assert parse(f"00-{TRACE}-{PARENT}-01".encode(), state).state == kept
    assert parse(b"no trace", state).state == "", "a state without its trace means nothing"


def test_a_second_context_is_kept_as_a_link() -> None:
    parse = trace_parser(lambda size: b"\x07" * size)
    assert parse(f"00-{TRACE}-{PARENT}-01".encode(), None, ("a" * 32, "b" * 16)).link == ("a" * 32, "b" * 16)
