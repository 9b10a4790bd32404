"""Which engine decides: Rego in this process, or an OPA server that reads the same policies.

Owns: the one server engine of the process, if there is one, and its watch. Never does: decide. Fails closed: where a
server is configured and does not answer, nothing is decided.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import structlog

from gateway.clock import Clock
from gateway.configuration import Prepared
from gateway.policy import PolicyEngine

if TYPE_CHECKING:
    from gateway.policy.server import ServerEngine

log = structlog.get_logger("gateway.engines")


class Engines:
    """Hands out the engine of each state that comes into force."""

    def __init__(self, opa_url: str | None, clock: Clock, was_in_force: Callable[[str], Awaitable[bool]]) -> None:
        """`was_in_force`: whether a gateway here once activated a revision; a roll-out may still decide by it."""
        self._opa_url = opa_url
        self._clock = clock
        self._was_in_force = was_in_force
        self._server: ServerEngine | None = None
        self._watching: asyncio.Task[None] | None = None

    def of(self, prepared: Prepared) -> PolicyEngine:
        """The engine for a state. Raises Refusal(invalid_configuration) for an address that is none."""
        if self._opa_url is None:
            return prepared.engine
        settings = prepared.config.policy.opa
        if self._server is not None:
            self._server.follow(prepared.engine, settings)
            return self._server
        from gateway.policy.server import ServerEngine  # late: it brings a client that others don't need

        self._server = ServerEngine(
            self._opa_url,
            prepared.engine,
            settings,
            clock=self._clock,
            was_in_force=self._was_in_force,
            on_fault=lambda fault: log.error("policy_fault", fault=fault),
            on_change=lambda fault: log.warning("policy_server", fault=fault),
        )
        return self._server

    async def start(self) -> None:
        """Look at the server once, and from then on."""
        if self._server is not None:
            await self._server.look()
            self._watching = asyncio.create_task(self._server.watch(), name="policy-server")

    async def stop(self) -> None:
        """Close what was opened."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._server is not None:
            await self._server.aclose()

    def faults(self) -> dict[str, tuple[Callable[[], str | None], bool]]:
        """What can be wrong with a server, by name: a sentence or None, and whether nothing goes on without it."""
        if self._server is None:
            return {}
        return {"policy": (self._server.fault, True), "policy_rollout": (self._server.difference, False)}

    @property
    def server_revision(self) -> str | None:
        """What the server decided by when it last answered."""
        return None if self._server is None else self._server.server_revision
