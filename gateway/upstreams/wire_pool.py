"""The connections to one origin (scheme, host, port): a cap, a queue beyond it, resting ones reused."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable

from gateway.upstreams.wire_connection import Connection
from gateway.upstreams.wire_head import Aim, WireFailed, WireTimeout, unreachable

Tls = Callable[[], Awaitable[ssl.SSLContext]]


class Pool:
    """Hands out connections, the most recently used first, so that the rest can expire.

    `tls` gives the context for https. Slots are counted from before connecting until a connection is gone.
    """

    def __init__(self, where: Aim, cap: int, idle_expiry_s: float, tls: Tls) -> None:
        self._where = where
        self._cap = cap
        self._idle_expiry_s = idle_expiry_s
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._resting: list[Connection] = []
        self._queue: deque[asyncio.Future[Connection | None]] = deque()
        self._sockets: set[Connection] = set()
        self._emptied: asyncio.Future[None] | None = None
        self._closed = False
        self.slots = 0  # connections in use, resting or being made

    def take_resting(self) -> Connection | None:
        """A connection that is connected and idle, or None."""
        resting = self._resting
        if resting:
            now_s = self._loop.time()
            while resting:
                connection = resting.pop()
                if connection.usable(now_s):
                    return connection
                connection.discard()
        return None

    async def take(self, timeout_s: float, *, fresh: bool) -> Connection:
        """A connection that is resting, else a new one, else the first that becomes free.

        fresh: only a new one will do. Raises WireTimeout (phase connect) or WireFailed, neither dispatched.
        """
        deadline_s = self._loop.time() + timeout_s
        while True:
            if not fresh and (connection := self.take_resting()) is not None:
                return connection
            if self.slots < self._cap:
                self.slots += 1
                return await self._connect(deadline_s, timeout_s)
            if fresh and self._resting:
                self._resting[0].discard()
                continue
            handed = await self._queue_up(deadline_s, timeout_s)
            if handed is None:  # a slot, already counted as ours
                return await self._connect(deadline_s, timeout_s)
            if not fresh and handed.usable(self._loop.time()):
                return handed
            handed.discard()

    def close(self) -> None:
        """Close every connection; answers under way end in a fault, and so do requests in the queue."""
        self._closed = True
        for waiter in self._queue:
            if not waiter.done():
                waiter.set_exception(WireFailed("the client is closed", dispatched=False))
        self._queue.clear()
        for connection in list(self._sockets):
            connection.fail(WireFailed("the client is closed", dispatched=True))

    async def emptied(self) -> None:
        """Until every socket is closed."""
        if self._sockets:
            self._emptied = self._loop.create_future()
            await self._emptied

    # ------------------------------------------------ from the connections

    def opened(self, connection: Connection) -> None:
        self._sockets.add(connection)

    def release(self, connection: Connection) -> None:
        now_s = self._loop.time()
        connection.rest(now_s + min(self._idle_expiry_s, connection.keep_alive_s))
        waiter = self._next()
        if waiter is None:
            self._resting.append(connection)
        else:
            waiter.set_result(connection)

    def gone(self, connection: Connection) -> None:
        if connection in self._resting:
            self._resting.remove(connection)
        self._free_slot()

    def closed(self, connection: Connection) -> None:
        self._sockets.discard(connection)
        if not self._sockets and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    # ------------------------------------------------ inside

    def _free_slot(self) -> None:
        waiter = self._next()
        if waiter is None:
            self.slots -= 1
        else:
            waiter.set_result(None)

    def _next(self) -> asyncio.Future[Connection | None] | None:
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                return waiter
        return None

    async def _queue_up(self, deadline_s: float, timeout_s: float) -> Connection | None:
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._queue.append(waiter)
        timer = self._loop.call_at(deadline_s, self._too_late, waiter, timeout_s)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._hand_back(waiter.result())
            raise
        finally:
            timer.cancel()

    def _hand_back(self, handed: Connection | None) -> None:
        """What was handed to a request that was cancelled in the same moment."""
        if handed is None:
            self._free_slot()
        elif handed.usable(self._loop.time()):
            self.release(handed)
        else:
            handed.discard()

    @staticmethod
    def _too_late(waiter: asyncio.Future[Connection | None], timeout_s: float) -> None:
        if not waiter.done():
            message = f"all connections to the server were in use for {timeout_s:g} s"
            waiter.set_exception(WireTimeout("connect", message, dispatched=False))

    async def _connect(self, deadline_s: float, timeout_s: float) -> Connection:
        """A new connection in a slot that is already counted."""
        connection = Connection(self, self._loop)
        made = False
        try:
            async with asyncio.timeout_at(deadline_s):
                tls = await self._tls() if self._where.scheme == "https" else None
                await self._loop.create_connection(lambda: connection, self._where.host, self._where.port, ssl=tls)
            if self._closed:
                raise WireFailed("the client is closed", dispatched=False)
            made = True
        except TimeoutError:
            message = f"no connection to the server within {timeout_s:g} s"
            raise WireTimeout("connect", message, dispatched=False) from None
        except ssl.SSLCertVerificationError as fault:
            reason = fault.verify_message
            raise WireFailed(f"the server's certificate is not trusted: {reason}", dispatched=False) from fault
        except ssl.SSLError as fault:
            raise WireFailed("the TLS handshake with the server failed", dispatched=False) from fault
        except OSError as fault:
            raise unreachable(fault) from fault
        finally:
            if not made:
                connection.discard()  # gives the slot back, once, whatever was reached
        return connection
