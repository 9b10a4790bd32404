"""A bounded queue and the thread that empties it in batches: how telemetry leaves without anybody waiting for it.

Fails open: what does not fit, or what its receiver does not take, is dropped and counted.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

import structlog

from gateway.telemetry import names

log = structlog.get_logger("gateway.telemetry.outbox")

CLOSE_TIMEOUT_S = 5.0

T = TypeVar("T")


class Counts(Protocol):
    """Where exports are counted (`Metrics`); safe from any thread."""

    def exported(self, signal: str, count: int) -> None: ...
    def export_lost(self, signal: str, reason: str, count: int) -> None: ...


class Bounds(NamedTuple):
    """How much is held, how much is sent at once, and how long it may rest, in seconds."""

    queue: int = 2048
    batch: int = 512
    delay_s: float = 5.0


class Receiver:
    """Sends to one place and says once when that begins to fail and once when it works again."""

    def __init__(self, signal: str, counts: Counts) -> None:
        self._signal = signal
        self._counts = counts
        self._fails = False

    def send(self, send: Callable[[], bool], count: int) -> None:
        """`send` says whether it was taken; what it raises means that it was not."""
        try:
            taken, why = send(), "it refused, or did not answer in time"
        except Exception as fault:  # noqa: BLE001 - whatever an exporter raises, the thread goes on
            taken, why = False, type(fault).__name__
        if taken:
            self._counts.exported(self._signal, count)
        else:
            self._counts.export_lost(self._signal, names.EXPORT_FAILED, count)
        if taken == self._fails:
            self._fails = not taken
            if taken:
                log.info("telemetry_export_recovered", signal=self._signal)
            else:
                log.warning("telemetry_export_fails", signal=self._signal, why=why)


class Outbox(Generic[T]):
    """`put` from any thread; `send` is called in the outbox's own, with at most `bounds.batch` items."""

    def __init__(
        self,
        signal: str,
        send: Callable[[Sequence[T]], bool],
        counts: Counts,
        bounds: Bounds = Bounds(),  # noqa: B008 - a constant
    ) -> None:
        self._signal = signal
        self._send = send
        self._counts = counts
        self._bounds = bounds
        self._receiver = Receiver(signal, counts)
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._wanted = False  # somebody waits for it to be empty
        self._sending = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"export-{signal}", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hand over; never waits for the receiver."""
        if self._closed or len(self._items) >= self._bounds.queue:
            self._counts.export_lost(self._signal, names.EXPORT_QUEUE_FULL, 1)
            return
        self._items.append(item)
        if len(self._items) == self._bounds.batch:
            with self._changed:
                self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Send what is held now; whether that was done within `timeout_s`."""
        with self._changed:
            self._wanted = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: not self._items and not self._sending, timeout_s)
            self._wanted = False
            return done

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Send what is left, for at most `timeout_s`; what then remains is counted as lost."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            left = len(self._items)
            self._items.clear()
        if left:
            self._counts.export_lost(self._signal, names.EXPORT_FAILED, left)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._is_due():
                    self._changed.wait(self._bounds.delay_s)
                batch = [self._items.popleft() for _ in range(min(len(self._items), self._bounds.batch))]
                self._sending = bool(batch)
                if not batch:
                    self._changed.notify_all()
                    if self._closed:
                        return
                    continue
            self._receiver.send(functools.partial(self._send, batch), len(batch))
            with self._changed:
                self._sending = False
                self._changed.notify_all()

    def _is_due(self) -> bool:
        if self._closed:
            return True
        return len(self._items) >= self._bounds.batch or (self._wanted and bool(self._items))
