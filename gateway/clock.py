"""Time and identifiers, injected everywhere so that tests decide them. Owns no state but the last id."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where the product reads the time."""

    def now_ns(self) -> int:
        """Wall clock, nanoseconds since the Unix epoch (UTC)."""
        ...

    def monotonic_s(self) -> float:
        """A clock that never goes back, in seconds; for durations and windows of rates."""
        ...


class SystemClock:
    """The machine's clocks."""

    now_ns = staticmethod(time.time_ns)
    monotonic_s = staticmethod(time.monotonic)


class ManualClock:
    """A clock that stands still until told; for tests and replays."""

    def __init__(self, now_ns: int = 1_800_000_000_000_000_000) -> None:
        self._now_ns = now_ns
        self._monotonic_s = 0.0

    def now_ns(self) -> int:
        return self._now_ns

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self._now_ns += int(seconds * 1_000_000_000)
        self._monotonic_s += seconds


class PooledRandom:
    """Random bytes of the operating system, fetched 4 KiB at a time. One thread uses it.

    Each small fetch is a system call that gives up the interpreter's lock, and the way back to it can cost more
    than everything else a request does. No byte is handed out twice; not for keys, which are rare.
    """

    def __init__(self, source: Callable[[int], bytes] = os.urandom) -> None:
        self._source = source
        self._pool = b""
        self._at = 0

    def __call__(self, size: int) -> bytes:
        at = self._at
        if at + size > len(self._pool):
            self._pool, at = self._source(max(4096, size)), 0
        self._at = at + size
        return self._pool[at : at + size]


class Ids:
    """UUIDv7 as text (RFC 9562, section 5.7): 48 bits of milliseconds, then random bits."""

    def __init__(self, clock: Clock, random_bytes: Callable[[int], bytes] | None = None) -> None:
        self._clock = clock
        self._random_bytes = random_bytes or PooledRandom()

    def new(self) -> str:
        """A new id; ids made in different milliseconds sort by time."""
        ms = self._clock.now_ns() // 1_000_000
        rand = int.from_bytes(self._random_bytes(10), "big")
        value = (ms << 80) | (0x7 << 76) | ((rand >> 62 & 0xFFF) << 64) | (0b10 << 62) | (rand & (1 << 62) - 1)
        h = f"{value:032x}"
        return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def rfc3339(ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 UTC with microseconds, e.g. 2026-11-22T10:00:00.000000Z."""
    seconds, rest = divmod(ns, 1_000_000_000)
    # Not strftime: its %Y writes years before 1000 without their zeros, and these texts are compared as texts.
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{rest // 1000:06d}Z"
