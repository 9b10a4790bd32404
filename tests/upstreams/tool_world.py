"""What the tests of tool servers are made of: a registry that records what it tells, and ways to wait for it."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import pytest

from gateway.actions import Reply
from gateway.clock import SystemClock
from gateway.errors import Refusal
from gateway.references import resolve, resolve_text
from gateway.upstreams.confinement.support import Support, support
from gateway.upstreams.tool_link import Patience
from gateway.upstreams.tool_servers import HttpServerConfig, ServerConfig, StdioServerConfig, ToolServers
from gateway.upstreams.wire import Wire

CHILD = Path(__file__).with_name("stdio_child.py")
QUICK = Patience(first_delay_s=0.02, max_delay_s=0.1, refresh_s=60.0, least_s=0.01, steady_s=10.0)
WAIT_S = 15.0


class World:
    """`async with World() as world`: connect servers, call tools, see what the catalog would be told."""

    def __init__(self, patience: Patience = QUICK, *, homes: Path | None = None, lacks: Support | None = None) -> None:
        """`homes`: where tool servers have their homes; `lacks`: what the system can confine with, if not what it can."""
        self.reports: list[tuple[str, str, str]] = []
        self.learned: list[tuple[str, list[dict[str, Any]]]] = []
        self._news = asyncio.Condition()
        self._patience = patience
        self._tasks: set[asyncio.Task[None]] = set()
        self.wire = Wire()
        self._folder = tempfile.TemporaryDirectory()
        self.servers = ToolServers(
            transport=self.wire,
            resolve=resolve,
            resolve_text=resolve_text,
            child_environment={"PATH": "/usr/bin:/bin", "HOME": "/nowhere"},
            homes=homes or Path(self._folder.name),
            support=lacks or support(),
            learn=self._learn,
            report=self._report,
            clock=SystemClock(),
            patience=patience,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.servers.aclose()
        await self.wire.aclose()
        self._folder.cleanup()

    async def connect(self, config: ServerConfig) -> None:
        """Configure one server and wait until it is connected."""
        self.servers.configure([config])
        await self.until(lambda: (config.server, "connected", "") in self.reports)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until what was reported makes `holds` true."""
        async with asyncio.timeout(WAIT_S), self._news:
            await self._news.wait_for(holds)

    async def call(self, tool: str, timeout_s: float = 10.0, **arguments: Any) -> Any:
        """The decoded result of a call to the server `s`."""
        return msgspec.json.decode((await self.reply(tool, timeout_s, **arguments)).body)

    async def reply(self, tool: str, timeout_s: float = 10.0, **arguments: Any) -> Reply:
        return await self.servers.call("s", tool, arguments, timeout_s=timeout_s)

    async def refused(self, tool: str, timeout_s: float = 10.0, **arguments: Any) -> Refusal:
        with pytest.raises(Refusal) as caught:
            await self.reply(tool, timeout_s, **arguments)
        return caught.value

    def states(self) -> list[str]:
        return [state for _, state, _ in self.reports]

    def names(self) -> list[str]:
        """The tools of the last list."""
        return [tool["name"] for tool in self.learned[-1][1]]

    def _learn(self, server: str, tools: list[dict[str, Any]]) -> None:
        self.learned.append((server, tools))
        self._tell()

    def _report(self, server: str, state: str, reason: str) -> None:
        self.reports.append((server, state, reason))
        self._tell()

    def _tell(self) -> None:
        task = asyncio.get_running_loop().create_task(self._notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notify(self) -> None:
        async with self._news:
            self._news.notify_all()


def child(how: str = "good", **env: str) -> StdioServerConfig:
    return StdioServerConfig("s", (sys.executable, "-S", str(CHILD), how), tuple(env.items()), None, 10.0)


def http(url: str, credential: str | None = None) -> HttpServerConfig:
    return HttpServerConfig("s", url, credential, 2.0, 10.0)
