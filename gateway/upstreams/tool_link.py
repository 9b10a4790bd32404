"""Keeps one tool server connected: a task that connects, lists its tools, waits for news, and starts again.

Nobody can drive it: whatever a server or an agent does, tools are listed and connections attempted at most once
every `Patience.least_s`, after failures ever less often, and a list that took long to read is not read again at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from gateway.actions import Reply
from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.upstreams import mcp_faults as faults

_log = logging.getLogger(__name__)

REST = 9.0  # times as long as reading a list took, so that no server takes more than a tenth of a core by its lists
NOT_REACHED_YET = "it was not reached yet"
OPEN_TIMEOUT_S = 20.0
LIST_TIMEOUT_S = 20.0

C = TypeVar("C")


class ToolServer(Protocol):
    """One connection to a tool server. Every method may raise Refusal, but for `aclose`."""

    async def open(self, timeout_s: float) -> None: ...
    async def list_tools(self, timeout_s: float) -> list[dict[str, Any]]: ...
    async def call(
        self, tool: str, arguments: dict[str, Any], *, meta: dict[str, Any] | None, timeout_s: float, once: bool
    ) -> Reply: ...
    async def aclose(self) -> None: ...


class Patience(NamedTuple):
    """How long things are waited for, in seconds."""

    first_delay_s: float = 0.2  # after the first failure; doubled after each further one
    max_delay_s: float = 30.0
    refresh_s: float = 300.0  # lists are read again this often, for servers that don't tell of changes
    least_s: float = 1.0  # between two lists, or two attempts that somebody's call asks for
    probe_after_s: float = 10.0  # a session that was silent for longer is asked for by `ping` before a write
    steady_s: float = 10.0  # a connection that held this long was a good one: failures before it are forgotten


class Timing(NamedTuple):
    """Patience with a clock; `jitter` gives random numbers from 0 to 1."""

    patience: Patience
    clock: Clock
    jitter: Callable[[], float]

    def delay_s(self, failures: int) -> float:
        """How long to wait after that many failures in a row, with up to a half taken off at random."""
        full = min(self.patience.max_delay_s, self.patience.first_delay_s * 2.0 ** min(failures, 30))
        return full * (1.0 - self.jitter() / 2)


class ToolLink(Generic[C]):
    """The link to one server; `config` is what it was made from."""

    def __init__(
        self,
        server: str,
        config: C,
        *,
        make: Callable[[Callable[[], None], Callable[[str], None]], ToolServer],
        learn: Callable[[list[dict[str, Any]]], Awaitable[object]],
        report: Callable[[str, str], None],
        timing: Timing,
    ) -> None:
        """`make` gives a connection that is not open yet, and is told whom to tell of changes and of its loss."""
        self.config = config
        self._name = server
        self._make = make
        self._learn = learn
        self._report = report
        self._timing = timing
        self._server: ToolServer | None = None  # None while not connected
        self._why = NOT_REACHED_YET
        self._attempt = 0
        self._loss = asyncio.Event()
        self._news = asyncio.Event()  # lost, changed, or somebody wants it now
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect, in the background."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"tool server {self._name}")

    async def call(
        self, tool: str, arguments: dict[str, Any], *, meta: dict[str, Any] | None, timeout_s: float, once: bool
    ) -> Reply:
        """Call a tool, if there is a connection. Raises Refusal."""
        server = self._server
        if server is None:
            self._news.set()  # somebody wants it: do not wait out the delay
            raise faults.not_connected(self._name, self._why)
        self._in_flight += 1
        self._idle.clear()
        try:
            return await server.call(tool, arguments, meta=meta, timeout_s=timeout_s, once=once)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    def changed(self) -> None:
        """List the tools again soon."""
        self._news.set()

    async def retire(self, grace_s: float) -> None:
        """Close once the calls in flight have ended, at the latest after `grace_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        await self.aclose()

    async def aclose(self) -> None:
        """Close now."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # ------------------------------------------------------------ the task

    async def _run(self) -> None:
        failures = 0
        while True:
            began_s = self._timing.clock.monotonic_s()
            if not self._attempt:  # later it stays `unreachable`, with the reason, until it is connected again
                self._report("connecting", self._why)
            try:
                await self._connect_and_keep()
            except Refusal as refusal:
                self._why = faults.clause(self._name, refusal.message)
            except (OSError, ValueError) as fault:  # an address that can't be used, a pipe that broke
                self._why = "its connection can't be used"
                _log.warning("tool server %s: %s: %s", self._name, type(fault).__name__, fault)
            if self._timing.clock.monotonic_s() - began_s >= self._timing.patience.steady_s:
                failures = 0
            self._report("unreachable", self._why)
            _log.warning("tool server %s is not connected: %s", self._name, self._why)
            await self._pause(self._timing.delay_s(failures))
            failures += 1

    async def _connect_and_keep(self) -> None:
        self._attempt += 1
        self._loss.clear()
        server = self._make(self.changed, functools.partial(self._lost, self._attempt))
        try:
            await server.open(OPEN_TIMEOUT_S)
            while not self._loss.is_set():
                self._news.clear()
                tools = await server.list_tools(LIST_TIMEOUT_S)
                began_s = self._timing.clock.monotonic_s()
                await self._learn(tools)
                took_s = self._timing.clock.monotonic_s() - began_s
                self._connected(server)
                await self._pause(self._timing.patience.refresh_s, REST * took_s)
        finally:
            self._server = None
            await server.aclose()

    def _connected(self, server: ToolServer) -> None:
        if self._server is None and not self._loss.is_set():
            self._server = server
            self._report("connected", "")
            _log.info("tool server %s is connected", self._name)

    def _lost(self, attempt: int, reason: str) -> None:
        if attempt == self._attempt:  # an older connection may end late
            self._why = reason
            self._server = None
            self._loss.set()
            self._news.set()

    async def _pause(self, delay_s: float, rest_s: float = 0.0) -> None:
        """Wait for `delay_s`: cut short by a loss at once, by other news after `least_s` or `rest_s`."""
        least_s = min(delay_s, max(self._timing.patience.least_s, rest_s))
        if self._server is None:
            self._news.clear()
            await asyncio.sleep(least_s)
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(least_s):
                    await self._loss.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s - least_s):
                await self._news.wait()
