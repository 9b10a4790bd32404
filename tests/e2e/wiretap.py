"""A TCP relay between the gateway and a tool server: keeps what went through, and can hold either direction back.

That is how a test stops the world at a named point without a hook in the product: a call that was sent and never
arrived, an answer that was given and never arrived.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

from tests.e2e.upstream import PATIENCE_S


class Hold:
    """The first bytes with `needle` in them stop here, and what follows them on that connection, until `release`."""

    def __init__(self, needle: bytes) -> None:
        self.needle = needle
        self.reached = threading.Event()
        self._released = threading.Event()
        self.dropped = False

    def wait_reached(self) -> None:
        assert self.reached.wait(PATIENCE_S), f"nothing with {self.needle!r} came by"

    def release(self) -> None:
        self._released.set()

    def drop(self) -> None:
        """What was held is never passed on, and the connection ends."""
        self.dropped = True
        self._released.set()

    def passes(self) -> bool:
        self.reached.set()
        self._released.wait(PATIENCE_S)
        return not self.dropped and self._released.is_set()


class Wiretap:
    """`with Wiretap(port) as tap`: `tap.port` leads to 127.0.0.1:`port`."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.sent = bytearray()  # what the gateway sent
        self.answered = bytearray()  # what the tool server answered
        self._holds: dict[str, list[Hold]] = {"sent": [], "answered": []}
        self._made: list[Hold] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()

    def stall(self) -> None:
        """From now on nothing arrives in either direction, and connections stay open."""
        self._flows.clear()

    def resume(self) -> None:
        """What stalled goes on where it stood."""
        self._flows.set()

    def cut(self) -> None:
        """All connections end, and there will be no more."""
        self._flows.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for hold in self._made:
            hold.drop()
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def hold_sent(self, needle: bytes) -> Hold:
        """Hold what the gateway sends."""
        hold = Hold(needle)
        self._holds["sent"].append(hold)
        self._made.append(hold)
        return hold

    def hold_answered(self, needle: bytes) -> Hold:
        """Hold what the tool server answers."""
        hold = Hold(needle)
        self._holds["answered"].append(hold)
        self._made.append(hold)
        return hold

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target), PATIENCE_S)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._open |= {near, far}
            for name, source, sink in (("sent", near, far), ("answered", far, near)):
                threading.Thread(target=self._relay, args=(name, source, sink), daemon=True).start()

    def _relay(self, name: str, source: socket.socket, sink: socket.socket) -> None:
        kept = self.sent if name == "sent" else self.answered
        try:
            while data := source.recv(65536):
                kept += data
                held = [hold for hold in self._holds[name] if hold.needle in data]
                self._holds[name] = [hold for hold in self._holds[name] if hold not in held]
                if not all(hold.passes() for hold in held):
                    break
                self._flows.wait()
                sink.sendall(data)
        except OSError:
            pass
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            with self._lock:
                self._open.discard(one)
            one.close()
