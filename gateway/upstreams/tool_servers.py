"""The tool servers: connected in the background, kept connected, listed again when they change.

A server that can't be reached never stops the gateway: its tools refuse with `upstream_failed` until it is back.
Each has one task that connects, lists, tells the catalog, and waits for the connection to be lost or the tools to
change; between attempts it waits longer and longer.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gateway import known_secrets
from gateway.actions import Reply
from gateway.clock import Clock
from gateway.upstreams import mcp_faults as faults
from gateway.upstreams.budget import AnswerBudget
from gateway.upstreams.confinement.plan import Guarded, Wanted
from gateway.upstreams.confinement.starting import How
from gateway.upstreams.confinement.support import Mode, Support
from gateway.upstreams.credential import Credential, Resolve
from gateway.upstreams.mcp_http import HttpServer, HttpSpec
from gateway.upstreams.mcp_stdio import StdioServer
from gateway.upstreams.tool_link import Patience, Timing, ToolLink, ToolServer
from gateway.upstreams.wire import Transport

_log = logging.getLogger(__name__)


class HttpServerConfig(NamedTuple):
    """A server that somebody runs. `url` may be a reference, `credential` is one."""

    server: str
    url: str
    credential: str | None
    connect_timeout_s: float
    call_timeout_s: float


class StdioServerConfig(NamedTuple):
    """A server that the gateway runs. Words of `command`, values of `env` and paths may be references.

    `guarded` are paths that it gets in no case, whatever its manifest says.
    """

    server: str
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: Path | None
    call_timeout_s: float
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    mode: Mode = "best_effort"
    user: str | None = None
    guarded: Guarded = Guarded()


ServerConfig = HttpServerConfig | StdioServerConfig


class ToolServers:
    """All tool servers of the configuration. Belongs to one event loop."""

    def __init__(
        self,
        *,
        transport: Transport,
        resolve: Resolve,
        resolve_text: Resolve,
        child_environment: Mapping[str, str],
        homes: Path,
        support: Support,
        learn: Callable[[str, list[dict[str, Any]]], Awaitable[object]],
        report: Callable[[str, str, str], None],
        clock: Clock,
        budget: AnswerBudget | None = None,
        patience: Patience = Patience(),  # noqa: B008 - a constant
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`resolve` reads a reference, `resolve_text` a text that may be one; both raise ValueError or OSError.

        `learn` takes a server's list of tools, `report` (server, state, reason) each change of its connection.
        `child_environment` is all that children get beside what their manifests list; `homes` is the folder of their
        homes, and `support` what this system can confine them with.
        """
        self._transport = transport
        self._resolve = resolve
        self._resolve_text = resolve_text
        self._child_environment = dict(child_environment)
        self._homes = homes
        self.support = support
        self._learn = learn
        self._report = report
        self._budget = budget or AnswerBudget()
        self._timing = Timing(patience, clock, jitter)
        self._links: dict[str, ToolLink[ServerConfig]] = {}
        self._retiring: dict[asyncio.Task[None], ToolLink[ServerConfig]] = {}

    def configure(self, servers: Iterable[ServerConfig]) -> None:
        """Start what is new, stop what is gone, restart what is different; what is unchanged stays connected."""
        wanted = {server.server: server for server in servers}
        for name, link in list(self._links.items()):
            if wanted.get(name) != link.config:
                del self._links[name]
                task = asyncio.get_running_loop().create_task(link.retire(link.config.call_timeout_s))
                self._retiring[task] = link
                task.add_done_callback(lambda task: self._retiring.pop(task, None))
        for name, config in wanted.items():
            if name not in self._links:
                self._links[name] = self._link(config)

    async def call(
        self,
        server: str,
        tool: str,
        arguments: dict[str, Any],
        *,
        meta: dict[str, Any] | None = None,
        timeout_s: float | None = None,
        once: bool = True,
    ) -> Reply:
        """Call a tool; by default with the time-out of its manifest. `Reply.body` is the raw result.

        once: the call is sent at most once, whatever comes back; else again where a session was lost.

        Raises Refusal upstream_failed or upstream_timeout, with what is known in `detail["dispatched"]`.
        """
        link = self._links.get(server)
        if link is None:
            raise faults.not_connected(server, "no such server is configured")
        return await link.call(tool, arguments, meta=meta, timeout_s=timeout_s or link.config.call_timeout_s, once=once)

    async def refresh(self, server: str) -> None:
        """Have the tools of a server listed again soon."""
        link = self._links.get(server)
        if link is not None:
            link.changed()

    def unconfined(self) -> list[str]:
        """Servers that the gateway runs and can't confine fully, although nobody said that it need not."""
        if self.support.shortfall is None:
            return []
        return sorted(name for name, link in self._links.items() if _mode_of(link.config) == "best_effort")

    async def aclose(self) -> None:
        """Stop everything: connections closed, children ended and waited for."""
        links = [*self._links.values(), *self._retiring.values()]
        for task in self._retiring:
            task.cancel()
        self._links = {}
        await asyncio.gather(*(link.aclose() for link in links))

    def _link(self, config: ServerConfig) -> ToolLink[ServerConfig]:
        link = ToolLink(
            config.server,
            config,
            make=functools.partial(self._make, config),
            learn=functools.partial(self._learn, config.server),
            report=functools.partial(self._report, config.server),
            timing=self._timing,
        )
        link.start()
        return link

    def _make(self, config: ServerConfig, changed: Callable[[], None], lost: Callable[[str], None]) -> ToolServer:
        """A connection that is not open yet. Raises Refusal where a reference leads nowhere."""
        try:
            if isinstance(config, HttpServerConfig):
                url = self._resolve_text(config.url)
                spec = HttpSpec(config.server, url, config.connect_timeout_s, self._timing.patience.probe_after_s)
                credential = Credential(config.credential, self._resolve, of=f"tool server {config.server}")
                return HttpServer(
                    spec,
                    transport=self._transport,
                    credential=credential,
                    changed=changed,
                    lost=lost,
                    budget=self._budget,
                )
            wanted = self._wanted(config)
        except (ValueError, OSError) as fault:
            _log.warning("a reference of tool server %s leads nowhere: %s", config.server, fault)
            raise faults.failed(config.server, "a reference of its manifest leads nowhere", dispatched=False) from None
        how = How(config.mode, config.user, self._homes, config.guarded, self.support)
        return StdioServer(wanted, self._child_environment, how, changed=changed, lost=lost, budget=self._budget)

    def _wanted(self, config: StdioServerConfig) -> Wanted:
        """What a manifest asks for, without references. Raises ValueError, OSError."""
        return Wanted(
            server=config.server,
            command=tuple(map(self._word, config.command)),
            env={name: self._word(value) for name, value in config.env},
            cwd=config.cwd,
            read=tuple(_absolute(self._resolve_text(path)) for path in config.read),
            write=tuple(_absolute(self._resolve_text(path)) for path in config.write),
        )

    def _word(self, text: str) -> str:
        """A word of the command or the environment; what a reference leads to is a secret, unless it is a path."""
        word = self._resolve_text(text)
        if word != text and not known_secrets.is_path(word):
            known_secrets.remember(text, word)
        return word


def _mode_of(config: ServerConfig) -> Mode | None:
    return config.mode if isinstance(config, StdioServerConfig) else None


def _absolute(path: str) -> Path:
    if not path.startswith("/"):
        raise ValueError("a path is not absolute")
    return Path(path)
