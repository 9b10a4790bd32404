"""When a read began: what it finds is not held to what became known only later."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_last = 0
_snapshot = threading.local()


def next_moment() -> int:
    """The moment of something that becomes known now; later ones are larger."""
    global _last
    with _lock:
        _last += 1
        return _last


def read_began() -> int:
    """The moment at which a statement that is sent now begins to see: this one, or that of this thread's snapshot."""
    began: int | None = getattr(_snapshot, "began", None)
    return _last if began is None else began


@contextmanager
def one_snapshot() -> Iterator[None]:
    """A block whose statements, in this thread, all see what was committed when it began."""
    _snapshot.began = _last
    try:
        yield
    finally:
        _snapshot.began = None
