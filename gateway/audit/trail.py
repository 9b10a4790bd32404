"""What the path calls: each step's record, appended in the way that step needs.

An intent and a released proposal are awaited until they are durable. Results, refusals and listings ride the next
commit: nobody waits for them, and a crash in between shows as `unknown`, never as silence.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from gateway.actions import Action, Decision, Effect, Kind, Reservation, Result, Target, ToolTarget
from gateway.audit import records
from gateway.audit.appending import Appending
from gateway.audit.elsewhere import Ended, ended_elsewhere
from gateway.errors import Refusal
from gateway.store.interface import Connection

Persist = Callable[[Connection], None]

_log = logging.getLogger("gateway.audit")

_MAX_LISTED_CHARS = 1000


class Trail:
    """The records of the path, in one log."""

    def __init__(self, log: Appending) -> None:
        self._log = log

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
    ) -> None:
        """Durable when this returns. Raises `audit_unavailable`, and what `also` raises; then nothing may happen.

        `also` is part of its transaction: the attempt of an approved case.
        """
        entry = records.intent(action, target, decision, held, inspected)
        entry.also, entry.leaf.case = also, case
        if case is None and isinstance(target, ToolTarget) and target.effect != "read":
            entry.claim = action.digest or None  # of identical calls one is carried out at a time, wherever
        await self._log.append(entry)

    async def elsewhere(self, action_id: str, patience_s: float) -> Ended | None:
        """How an action ended that another replica carries out; None where that can't be told (see `elsewhere`)."""
        return await ended_elsewhere(self._log, action_id, patience_s)

    def result(
        self,
        action: Action,
        target: Target,
        decision: Decision,
        result: Result,
        persist: Persist,
    ) -> None:
        """The one result of an intent. A log that has latched since can't take it: the next start ends it."""
        entry = records.result(action, target, decision, result, None, persist)
        entry.beside = True  # what was spent are this replica's own rows
        try:
            self._log.append_soon(entry)
        except Refusal as refusal:
            _log.error("result_not_recorded: action=%s %s", action.id, refusal.message)

    async def ended(
        self,
        action: Action,
        target: Target,
        decision: Decision,
        result: Result,
        persist: Persist,
        case: str,
    ) -> None:
        """The result of an approved action, and in the same transaction its end sealed for replay. Durable then."""
        entry = records.result(action, target, decision, result, None, persist)
        entry.leaf.case = case
        await self._log.append(entry)

    async def lost(
        self,
        action: Action,
        target: Target,
        decision: Decision,
        result: Result,
        also: Callable[[Connection], str | None],
    ) -> None:
        """The result of a call of which nobody knows whether it was done; `also` says in which case people find out."""
        entry = records.result(action, target, decision, result)

        def with_case(connection: Connection) -> None:
            entry.leaf.case = also(connection)

        entry.also = with_case
        await self._log.append(entry)

    async def requested(
        self, action: Action, target: Target, decision: Decision, case: str, also: Persist, labels: dict[str, str]
    ) -> None:
        """An action that waits for people from here on, and its case, in one transaction."""
        entry = records.requested(action, target, decision, case)
        entry.leaf.labels.update(labels)
        entry.also = also
        await self._log.append(entry)

    async def case(
        self,
        case: records.CaseFacts,
        change: Callable[[Connection], records.Named],
        *,
        person: str | None = None,
    ) -> None:
        """A transition of a case and its record in one transaction; the transition says what it was.

        Raises what `change` raises; then there is neither.
        """
        entry = records.case(case, person)

        def also(connection: Connection) -> None:
            records.name(entry, change(connection))

        entry.also = also
        await self._log.append(entry)

    def refused(self, action: Action, target: Target | None, decision: Decision | None, refusal: Refusal) -> None:
        """One refusal. Raises `audit_unavailable` where even that can't be recorded."""
        self._log.append_soon(records.refused(action, target, decision, refusal))

    async def decided(
        self,
        decisions: Sequence[tuple[Action, Target | None, Decision]],
        *,
        case: str | None = None,
        replayed: bool = False,
        joined: str | None = None,
        also: Persist | None = None,
    ) -> None:
        """Decisions on what the gateway does not perform, or gives from store; durable before it is released.

        `joined`: the action in flight whose answer an identical one is given.
        """
        entries = [records.decided(*one) for one in decisions]
        for entry in entries:
            entry.leaf.case = case
            if replayed:
                entry.leaf.labels["replayed"] = "yes"
            if joined is not None:
                entry.leaf.labels["joined"] = joined
        if also is not None:
            entries[0].also = also
        await self._log.append(*entries)

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
