"""What the administration needs of the gateway. The composition root is one such object."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from fastapi import Request

from gateway.actions import Action, Decision, ModelTarget, Target, ToolTarget
from gateway.approvals import Approvals
from gateway.audit.log import AuditLog
from gateway.clock import Clock, Ids
from gateway.documents import Problem
from gateway.doors.desk import Desk
from gateway.doors.health import Health
from gateway.identity.registry import Registry
from gateway.policy import Explanation
from gateway.process import Process
from gateway.settings import Config


class ToolState(Protocol):
    """One tool of a server, as operators see it."""

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def digest(self) -> str | None: ...
    @property
    def pin(self) -> str | None: ...
    @property
    def risk(self) -> str | None: ...
    @property
    def effect(self) -> str | None: ...


class ServerState(Protocol):
    """One tool server, as operators see it."""

    @property
    def server(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def review(self) -> str | None: ...
    @property
    def state(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def tools(self) -> Iterable[ToolState]: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...


class Catalog(Protocol):
    """catalog/: models, tools and the servers behind them."""

    def models(self) -> tuple[ModelTarget, ...]: ...
    def tools(self, server: str | None = None) -> tuple[ToolTarget, ...]: ...
    def servers(self) -> Iterable[ServerState]: ...
    def target(self, action: Action) -> Target: ...
    def client_tool(self, name: str) -> ToolTarget | None: ...


class Limits(Protocol):
    """limits/: what is left of an agent's and its user's allowances."""

    def remaining(self, agent_id: str, user: str | None = None) -> dict[str, Any]: ...


class Policy(Protocol):
    """policy/: the engine in force."""

    @property
    def revision(self) -> str: ...

    async def decide(self, action: Action, target: Target) -> Decision: ...


class Engine(Protocol):
    """policy/: the engine itself, for those who want to know why."""

    def explain(self, document: bytes) -> Explanation: ...


class Configured(Protocol):
    """The state in force, and what it was read from."""

    @property
    def engine(self) -> Engine: ...
    @property
    def config(self) -> Config: ...


class Governor(Protocol):
    """govern.py: the recorded, limited way to a list and to an agent's own cases, and the count of strangers."""

    async def list_tools(self, action: Action) -> tuple[ToolTarget, ...]: ...
    async def list_models(self, action: Action) -> tuple[ModelTarget, ...]: ...
    async def approval_status(self, action: Action, case_id: str, wait_s: float) -> dict[str, Any]: ...
    async def cancel_case(self, action: Action, case_id: str) -> dict[str, Any]: ...
    def unauthenticated(self) -> None: ...


class Metrics(Protocol):
    """telemetry/: the Prometheus text."""

    def render(self, accept: str = "") -> tuple[bytes, str]: ...


class Parts(Protocol):
    """The gateway as this door knows it."""

    @property
    def process(self) -> Process: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def ids(self) -> Ids: ...
    @property
    def registry(self) -> Registry: ...
    @property
    def log(self) -> AuditLog: ...
    @property
    def approvals(self) -> Approvals: ...
    @property
    def catalog(self) -> Catalog: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def policy(self) -> Policy: ...
    @property
    def governor(self) -> Governor: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def desk(self) -> Desk: ...
    @property
    def health(self) -> Health: ...

    @property
    def configured(self) -> Configured: ...

    async def reload(self, why: str) -> list[Problem]: ...


def parts_of(request: Request) -> Parts:
    """The parts that `admin_app` was made with."""
    parts: Parts = request.app.state.parts
    return parts
