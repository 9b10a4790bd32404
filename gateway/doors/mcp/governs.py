"""What this door asks of the governor, and what it needs to know of an action on its way."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from gateway.actions import Action, Caller, Decision, Reply, ToolTarget
from gateway.errors import Refusal


class InFlight(Protocol):
    """An action on its way."""

    decision: Decision | None
    case: str | None  # the case that it waits for
    waits: asyncio.Event  # set once it waits for a person
    replayed: bool  # its answer is a stored one
    task: asyncio.Task[Reply | None] | None

    def leave(self) -> None: ...


class Governs(Protocol):
    """The governor, as far as this door knows it."""

    def start(self, action: Action, *, hold_s: float | None = None) -> InFlight: ...
    async def approval_status(self, action: Action, case_id: str, wait_s: float) -> dict[str, Any]: ...
    async def list_tools(self, action: Action) -> tuple[ToolTarget, ...]: ...
    async def admit(self, action: Action) -> None: ...
    async def refuse(self, action: Action, refusal: Refusal) -> None: ...
    def unauthenticated(self) -> None: ...
    def server_known(self, name: str, caller: Caller) -> bool: ...
