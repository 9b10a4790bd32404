"""What the path calls: each step's record, appended in the way that step needs.

An intent and a released proposal are awaited until they are durable. Results, refusals and listings ride the next
commit: nobody waits for them, and a crash in between shows as `unknown`, never as silence.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from gateway.actions import Action, Decision, Effect, Kind, Reservation, Result, Target
from gateway.audit import records
from gateway.audit.log import AuditLog
from gateway.errors import Refusal

_log = logging.getLogger("gateway.audit")

_MAX_LISTED_CHARS = 1000


class Trail:
    """The records of the path, in one log."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    async def intent(
        self, action: Action, target: Target, decision: Decision, held: Reservation, inspected: tuple[str, ...]
    ) -> None:
        """Durable when this returns. Raises `audit_unavailable`; then nothing may happen."""
        await self._log.append(records.intent(action, target, decision, held, inspected))

    def result(
        self,
        action: Action,
        target: Target,
        decision: Decision,
        result: Result,
        persist: Callable[[sqlite3.Connection], None],
    ) -> None:
        """The one result of an intent. A log that has latched since can't take it: the next start ends it."""
        try:
            self._log.append_soon(records.result(action, target, decision, result, None, persist))
        except Refusal as refusal:
            _log.error("result_not_recorded: action=%s %s", action.id, refusal.message)

    def refused(self, action: Action, target: Target | None, decision: Decision | None, refusal: Refusal) -> None:
        """One refusal. Raises `audit_unavailable` where even that can't be recorded."""
        self._log.append_soon(records.refused(action, target, decision, refusal))

    async def decided(self, decisions: Sequence[tuple[Action, Target, Decision]]) -> None:
        """Decisions on proposals, durable before any of them is released."""
        await self._log.append(*(records.decided(*one) for one in decisions))

    def listed(self, action: Action, decided: Sequence[tuple[Target, Decision]]) -> None:
        """Which tools or models an agent was shown: one record for the whole list."""
        shown = [target.id for target, decision in decided if decision.effect is not Effect.DENY]
        revision = decided[0][1].revision if decided else ""
        what = "models_listed" if action.kind is Kind.MODEL_INVOKE else "tools_listed"
        listing = Decision(effect=Effect.ALLOW, rules=(what,), revision=revision)
        entry = records.decided(action, None, listing)
        entry.leaf.labels["listed"] = ",".join(shown)[:_MAX_LISTED_CHARS]
        entry.leaf.labels["listed_count"] = str(len(shown))
        entry.leaf.labels["hidden_count"] = str(len(decided) - len(shown))
        self._log.append_soon(entry)

    def unauthenticated(self) -> None:
        """Counted, and told in the heartbeat."""
        self._log.note_unauthenticated()

    def digest_of(self, action: Action) -> str:
        """The keyed digest of what an action is, whoever's session it is in. Raises `malformed`."""
        caller = action.caller
        arguments: dict[str, Any] = action.arguments
        return self._log.digest(caller.agent.tenant, caller.agent.id, caller.user, action.target, arguments)
