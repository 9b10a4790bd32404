"""What the path asks of each room, as Protocols: the governor knows rooms only through these.

Most have one implementation today; the design's table of embedded and scaled footings asks for the second.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol

from gateway.actions import (
    Action,
    Cost,
    Decision,
    ModelTarget,
    Reply,
    ReplyStream,
    Reservation,
    Result,
    Status,
    Target,
    ToolTarget,
    Usage,
)
from gateway.approvals.case import Attempt, Case, Comment, Ending, KeptAnswer, LostSight, Met, Requirement, State, Vote
from gateway.errors import Refusal
from gateway.proposals import Proposal, Verdict
from gateway.running import Rates
from gateway.store.interface import Connection

# What rides in a record's transaction; it runs in the writer's thread, and what it raises undoes both.
Persist = Callable[[Connection], None]


class LooksUp(Protocol):
    """catalog/: what an action is aimed at."""

    def target(self, action: Action) -> Target: ...
    def executable(self, proposal: Proposal) -> ToolTarget | None: ...
    def client_tool(self, name: str) -> ToolTarget | None: ...
    def tools(self, server: str | None = None) -> tuple[ToolTarget, ...]: ...
    def server_known(self, name: str) -> bool: ...
    def models(self) -> tuple[ModelTarget, ...]: ...


class Admission(Protocol):
    """limits/: a place held until the block ends."""

    def rates(self) -> Rates: ...
    def release(self) -> None: ...
    def __enter__(self) -> Admission: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Limits(Protocol):
    """limits/: rates, concurrency and budgets."""

    def admit(self, action: Action) -> Admission: ...
    def reserve(self, action: Action, target: Target) -> Reservation: ...
    def settle(self, reservation: Reservation, cost: Cost) -> Persist: ...


class Guards(Protocol):
    """guards/: inspectors of arguments; each names what it did inspect."""

    def inspect_input(self, action: Action, target: Target) -> tuple[str, ...]: ...


class Policy(Protocol):
    """policy/: Rego over a typed input document; a fault in it is a deny."""

    async def decide(self, action: Action, target: Target, *, approval: dict[str, Any] | None = None) -> Decision: ...


class Approvals(Protocol):
    """approvals/: cases, votes, stored endings and held answers; every transition is one transaction."""

    def concerns(self, action: Action) -> bool: ...
    def requirement(self, decision: Decision) -> Requirement: ...
    async def meet(
        self, action: Action, target: ToolTarget, decision: Decision, *, answer_id: str | None = None
    ) -> Met | None: ...
    async def wait(self, case_id: str, timeout_s: float, *, until: frozenset[State]) -> Case: ...
    async def case(self, case_id: str) -> Case: ...
    async def open_case(self, action: Action) -> Case | None: ...
    async def to_run(self) -> list[str]: ...
    async def votes(self, case_id: str) -> list[Vote]: ...
    async def comments(self, case_id: str) -> list[Comment]: ...
    async def attempts(self, case_id: str) -> list[Attempt]: ...
    async def cancel(self, case_id: str, *, by: str, why: str, person: bool) -> Case: ...
    async def invalidate(self, case: Case, *, code: str, why: str, rules: tuple[str, ...] = ()) -> Case: ...
    async def requeue(self, case: Case, target: ToolTarget, decision: Decision, *, why: str) -> Case: ...
    def falls_short(
        self, case: Case, votes: Sequence[Vote], target: ToolTarget, requirement: Requirement
    ) -> str | None: ...
    def in_force(self, case: Case, votes: Sequence[Vote]) -> dict[str, Any] | None: ...
    def lost_sight(self, action: Action, target: ToolTarget, decision: Decision, why: str) -> LostSight: ...
    def begin(self, case: Case, requirement: Requirement) -> Persist: ...
    def given_up(self, case: Case) -> None: ...
    def end(self, case: Case, status: Status, ending: Ending) -> Persist: ...
    async def changed(self, case_id: str) -> None: ...
    async def ending(self, case: Case) -> Ending | None: ...
    async def release(
        self,
        case: Case,
        action: Action,
        target: ToolTarget,
        decision: Decision,
        requirement: Requirement,
        answer_id: str,
    ) -> None: ...
    async def keep_answer(self, action: Action, answer_id: str, body: bytes, *, stream: bool) -> None: ...
    async def kept_answer(self, action: Action) -> KeptAnswer | None: ...
    def has_answer(self, digest: str) -> bool: ...
    def stop_waiting(self) -> None: ...
    def wake_agent(self, agent_id: str) -> None: ...


class Audit(Protocol):
    """audit/: an intent is durable before anything happens; each has exactly one result."""

    async def intent(
        self,
        action: Action,
        target: Target,
        decision: Decision,
        held: Reservation,
        inspected: tuple[str, ...],
        *,
        also: Persist | None = None,
        case: str | None = None,
    ) -> None: ...
    def result(
        self,
        action: Action,
        target: Target,
        decision: Decision,
        result: Result,
        persist: Persist,
    ) -> None: ...
    async def ended(
        self,
        action: Action,
        target: Target,
        decision: Decision,
        result: Result,
        persist: Persist,
        case: str,
    ) -> None: ...
    async def lost(
        self,
        action: Action,
        target: Target,
        decision: Decision,
        result: Result,
        also: Callable[[Connection], str | None],
    ) -> None: ...
    def refused(self, action: Action, target: Target | None, decision: Decision | None, refusal: Refusal) -> None: ...
    async def decided(
        self,
        decisions: Sequence[tuple[Action, Target | None, Decision]],
        *,
        case: str | None = None,
        replayed: bool = False,
        joined: str | None = None,
    ) -> None: ...
    def unauthenticated(self) -> None: ...
    def listed(self, action: Action, decided: Sequence[tuple[Target, Decision]]) -> None: ...


class Upstreams(Protocol):
    """upstreams/: model providers and tool servers, each with its own credential."""

    async def perform(self, action: Action, target: Target, body: bytes | None) -> Reply | ReplyStream: ...
    def drain_s(self, target: Target) -> float: ...


Judge = Callable[[list[Proposal]], Awaitable[list[Verdict]]]


class ProposalStream(Protocol):
    """A model's streamed answer being inspected; `usage` is known once the provider said it."""

    usage: Usage | None

    def run(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]: ...


class Dialect(Protocol):
    """How a model door's requests and answers are read and rewritten."""

    def outbound(self, action: Action, target: ModelTarget) -> bytes: ...
    def proposals(self, body: bytes, request: bytes | None) -> tuple[bytes, list[Proposal]]: ...
    def release(self, body: bytes, verdicts: Sequence[Verdict]) -> bytes: ...
    def stream(self, action: Action, judge: Judge) -> ProposalStream: ...


class Observes(Protocol):
    """telemetry/: spans and metrics around the path; it fails open."""

    def span(self, name: str, action: Action) -> AbstractContextManager[object]: ...
    def ended(self, action: Action, status: Status, decision: Decision | None, result: Result | None) -> None: ...
    def refused(self, action: Action, refusal: Refusal) -> None: ...
    def unauthenticated(self) -> None: ...
