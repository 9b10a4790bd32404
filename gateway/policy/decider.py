"""What the governed path asks: makes the input document of an action and puts it to the engine in force."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.actions import Action, Decision, Target
from gateway.clock import Clock
from gateway.policy.document import document
from gateway.policy.engine import PolicyEngine


class Decider:
    """Holds the engine in force; a reload swaps it between two decisions."""

    def __init__(
        self,
        engine: PolicyEngine,
        *,
        environment: str,
        undeclared: str,
        clock: Clock,
        limits: Callable[[Action, Target], dict[str, Any]],
        facts: Callable[[str], Mapping[str, Any]],
        took_s: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`limits(action, target)` says what is left at every level that it meets, `facts(session_id)` what is known of
        a session.

        `took_s` is told how long each decision took, in seconds.
        """
        self.engine = engine
        self.undeclared = undeclared
        self._environment = environment
        self._clock = clock
        self._limits = limits
        self._facts = facts
        self._took_s = took_s

    @property
    def revision(self) -> str:
        """Of the engine in force."""
        return self.engine.revision

    def swap(self, engine: PolicyEngine, *, undeclared: str) -> None:
        """Put another engine in force; decisions that are being made end on the one they began with."""
        self.engine, self.undeclared = engine, undeclared

    async def decide(self, action: Action, target: Target, *, approval: dict[str, Any] | None = None) -> Decision:
        """The decision on an action. Raises Refusal `malformed` where the arguments cannot be put as JSON.

        `approval` is what people have agreed to: {case, votes: [{person, groups}], presented_digest}.
        """
        began_s = self._clock.monotonic_s()
        asked = document(
            action,
            target,
            environment=self._environment,
            undeclared=self.undeclared,
            limits=self._limits(action, target),
            facts=dict(self._facts(action.session.id)),
            now_ns=self._clock.now_ns(),
            approval=approval,
        )
        decision = await self.engine.decide(asked)
        self._took_s(self._clock.monotonic_s() - began_s)
        return decision
