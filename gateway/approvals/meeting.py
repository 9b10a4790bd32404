"""An action meets its case: the one there is for its identity, or one that is opened for it."""

from __future__ import annotations

import asyncio

import msgspec

from gateway.actions import Action, Decision, Effect, Kind, ToolTarget
from gateway.approvals import requirement as requirements
from gateway.approvals.card import card_of, presented_digest
from gateway.approvals.case import OPEN, TOLD_AGAIN, Case, LostSight, Met, Requirement, State
from gateway.approvals.changing import NANOS, Changing, keys_of
from gateway.approvals.rows import idempotency_of
from gateway.errors import Refusal
from gateway.store.interface import Connection


class Meeting(Changing):
    """Which case an action belongs to. Identity is tenant, agent, user, target and arguments, never the session."""

    def concerns(self, action: Action) -> bool:
        """Whether an identical action may have a case; memory only, and never wrong in saying no."""
        now_ns = self._clock.now_ns()
        if self._known.met(action.digest, now_ns):
            return True
        return action.idempotency_key is not None and self._known.met(idempotency_of(action), now_ns)

    def requirement(self, decision: Decision) -> Requirement:
        """What a decision asks of people. Raises `denied_by_policy` where that can't be read."""
        return requirements.requirement(decision, self._settings)

    async def meet(
        self, action: Action, target: ToolTarget, decision: Decision, *, answer_id: str | None = None
    ) -> Met | None:
        """Attach to the case that there is for an identical action, or open one. None: no case, and none is needed.

        A tool call with an idempotency key has a case also where policy allows it: nobody is asked, but it is carried
        out once and its end is kept. `answer_id`: the model's answer that a proposal stands in. Raises `rate_limited`
        where too many wait already, `conflict` for an idempotency key that was used for something else,
        `denied_by_policy`.
        """
        escalated = decision.effect is Effect.ESCALATE
        keyed = action.kind is Kind.TOOL_CALL and action.idempotency_key is not None
        if not escalated and not keyed and not self.concerns(action):
            return None
        asked: Requirement | None = None
        if escalated:
            asked = self.requirement(decision)
        elif keyed:
            # It runs for whoever asks, never by itself: a caller who was told that nothing happened must be right.
            asked = Requirement(quorum=(), ttl_s=self._settings.ttl_s, execute_on="claim")
        for _ in range(3):
            found = await self._find(action, answer_id)
            if found is not None:
                await self._bind_key(action, found)
                return await self._attach(found, escalated=escalated)
            if asked is None:
                await self._store.write(lambda db: self._refuse_deleted(db, action))
                return None
            try:
                return Met(
                    await self._open(action, target, decision, asked, answer_id), opened=True, ended_before=False
                )
            except _TakenError:
                continue  # an identical action opened it in between
        raise Refusal("conflict", "Identical calls came faster than they could be told apart; try again.")

    async def _find(self, action: Action, answer_id: str | None) -> Case | None:
        return await self._store.read(lambda db: self._look(db, action, answer_id))

    def _look(self, db: Connection, action: Action, answer_id: str | None) -> Case | None:
        """The case that an action meets. Raises `conflict` where its idempotency key stands for another."""
        idempotency = idempotency_of(action)
        keyed = None if idempotency is None else self._rows.last_by_key(db, idempotency)
        if keyed is not None and self._is_told(keyed):
            if keyed.action.digest != action.digest:
                raise Refusal(
                    "conflict",
                    "This idempotency-key was used for another call; use a new one, or repeat that call.",
                    detail={"case": keyed.id},
                )
            return keyed
        if answer_id is not None and (own := self._rows.of_answer(db, action.digest, answer_id)) is not None:
            return own  # what was decided in an answer holds for as long as that is kept
        same = self._rows.open_by_digest(db, action.digest) or self._rows.last_by_digest(db, action.digest)
        if same is None or not self._is_told(same):
            return None
        if same.kind is Kind.TOOL_PROPOSE and same.state is State.SUCCEEDED and same.released_to != answer_id:
            return None  # what was released once is not released to another answer
        if not same.requirement.quorum and same.state not in OPEN:
            return None  # nobody was asked: its end is kept for its key alone
        return same

    def _refuse_deleted(self, db: Connection, action: Action) -> None:
        """No case of an identity was found: not because somebody deleted it, or the action would run once more."""
        for case_id in self._deleted(db, action.digest):
            self._rows.gone(case_id)

    async def _bind_key(self, action: Action, case: Case) -> None:
        """An idempotency key that meets a case which is not its own stands for it from here on."""
        key = idempotency_of(action)
        if key is not None and key != idempotency_of(case.action):
            await self._store.write(lambda db: self._rows.bind_key(db, key, case.id))

    def _is_told(self, case: Case) -> bool:
        if case.state in OPEN:
            return True
        return case.state in TOLD_AGAIN and (case.told_until_ns or 0) > self._clock.now_ns()

    async def _attach(self, case: Case, *, escalated: bool) -> Met:
        ended_before = case.state not in OPEN
        try:
            if case.state in (State.PENDING, State.APPROVED) and case.expires_ns <= self._clock.now_ns():
                case = await self._change(case, self._machine.expire(case.id))
            elif case.state is State.PENDING and not escalated:
                case = await self._change(case, self._machine.approve_by_policy(case.id))
        except Refusal as refusal:
            if refusal.code != "decided":
                raise
            case = await self.case(case.id)
        return Met(case, opened=False, ended_before=ended_before)

    async def _open(
        self, action: Action, target: ToolTarget, decision: Decision, asked: Requirement, answer_id: str | None
    ) -> Case:
        case = self._case(action, target, decision, asked)
        if not asked.quorum:
            case = msgspec.structs.replace(case, state=State.APPROVED, decided_ns=case.opened_ns)
        cap = self._settings.pending_per_agent
        kept_until_ns = case.expires_ns + self._settings.replay_s * NANOS
        written: list[Case] = []
        kept: list[str] = []  # requests whose answer is kept already, and proposes this

        def insert(db: Connection) -> None:
            if self._look(db, action, answer_id) is not None:
                raise _TakenError
            self._refuse_deleted(db, action)
            waiting = "SELECT count(*) FROM approval_case WHERE agent = ? AND state = 'pending'"
            if asked.quorum and db.execute(waiting, (case.agent_id,)).fetchone()[0] >= cap:
                raise Refusal(
                    "rate_limited",
                    f"{cap} calls of this agent wait for people already; wait until some are decided.",
                    retry_after_s=60,
                )
            inserted = self._rows.insert(db, case)
            if inserted is None:
                raise _TakenError
            written[:] = [inserted]
            if answer_id is not None:
                kept.extend(self._kept.lengthen(db, answer_id, kept_until_ns))

        keys = keys_of(case)
        self._known.expect(case.id, keys)
        try:
            await self._records.requested(action, target, decision, case.id, insert, case.bound)
        except (_TakenError, Refusal) as error:
            if isinstance(error, Refusal) and error.code == "audit_unavailable":
                self._doubt(case)
            else:
                self._known.forget(case.id, keys)
            raise
        except asyncio.CancelledError:
            self._doubt(case)
            raise
        for digest in kept:
            self._kept.expect(digest, kept_until_ns)
        self._told(written[0])
        return written[0]

    def lost_sight(self, action: Action, target: ToolTarget, decision: Decision, why: str) -> LostSight:
        """A case for a call that went ahead without one, and of which nobody knows now whether it was done.

        A person reconciles it; until then identical calls attach to it and are not performed. It is written in the
        transaction of the call's result; then `changed`.
        """
        told = msgspec.structs.replace(decision, reasons=(why,), notes=())
        case = self._case(action, target, told, Requirement(quorum=()))
        case = msgspec.structs.replace(
            case,
            state=State.UNKNOWN,
            fence=1,
            decided_ns=case.opened_ns,
            ended_ns=case.opened_ns,
            code="outcome_unknown",
            why=why,
        )

        def insert(db: Connection) -> str | None:
            if self._rows.open_by_digest(db, action.digest) is not None:
                return None  # people look at an identical one already
            self._rows.insert(db, case)
            self._machine.note_lost(db, case)
            return case.id

        return LostSight(case, insert)

    def _case(self, action: Action, target: ToolTarget, decision: Decision, asked: Requirement) -> Case:
        """A new case as it is before anybody has decided."""
        now_ns = self._clock.now_ns()
        case_id = self._ids.new()
        card = card_of(case_id, action, target, decision, asked, self._sentence, self._ids.new())
        return Case(
            id=case_id,
            tenant=action.caller.agent.tenant,
            kind=action.kind,
            action=action,
            definition_digest=target.definition_digest,
            risk=target.risk,
            effect=target.effect,
            server=target.server,
            tool=target.tool,
            state=State.PENDING,
            version=1,
            fence=0,
            requirement=asked,
            card=card,
            presented_digest=presented_digest(card),
            opened_ns=now_ns,
            expires_ns=now_ns + asked.ttl_s * NANOS,
        )


class _TakenError(Exception):
    """The identity has an open case already."""
