"""`Approvals`: what the rest of the gateway knows of this room."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from gateway.actions import Action, Decision, Effect, Status, ToolTarget
from gateway.approvals.card import card_of, presented_digest
from gateway.approvals.case import Case, Choice, Comment, Ending, KeptAnswer, Requirement, State, Vote
from gateway.approvals.changing import NANOS
from gateway.approvals.machine import Change
from gateway.approvals.meeting import Meeting
from gateway.errors import Refusal
from gateway.store.interface import Connection

_BATCH = 100  # cases that a tick ends at a time
_MAX_TEXT = 2000  # characters of a reason, guidance, a comment or a note
# What is being carried out here (which may be lost) or by a replica that was ended (which is).
_ORPHANED = (
    "WHERE state = 'executing' AND EXISTS (SELECT 1 FROM case_attempt AS attempt WHERE case_id = approval_case.id"
    " AND attempt.fence = approval_case.fence AND (attempt.replica = ? OR NOT EXISTS"
    " (SELECT 1 FROM replica WHERE replica.id = attempt.replica AND replica.ended_ns IS NULL)))"
)
_OLD_ENDING = "ending IS NOT NULL AND open = 0 AND coalesce(told_until_ns, 0) <= ?"


class Approvals(Meeting):
    """The cases of one gateway."""

    async def load(self) -> None:
        """Fill the indexes, and end what a crash cut off: what such an attempt did is not known."""
        await self.look_around()
        for case_id, digest in (await self._store.write(lambda db: self._deleted(db, None))).items():
            self._known.expect(case_id, (digest,))  # so that an identical action is refused
        await self._end_lost("The gateway was stopped or died while it ran.", lambda case_id: False)

    async def look_around(self) -> None:
        """Take up which cases and answers there are, as where another replica may have made some unheard."""

        def read(db: Connection) -> list[Any]:
            self._kept.load(db)
            self._rows.select(db, "ORDER BY id DESC LIMIT 1", ())  # another key file would be told now, not later
            return db.execute(
                "SELECT id, digest, idempotency, state, told_until_ns FROM approval_case"
                " WHERE open = 1 OR told_until_ns > ?",
                (self._clock.now_ns(),),
            ).fetchall()

        for case_id, digest, idempotency, state, told_until_ns in await self._store.read(read):
            self._known.tell(case_id, (digest, idempotency), State(state), told_until_ns)

    async def noticed(self, case_id: str) -> None:
        """Another replica changed a case: whoever waits for it here is told."""
        try:
            self._heard(await self.case(case_id))
        except Refusal as refusal:
            if refusal.code != "not_found":
                raise

    async def look_after_waiting(self) -> None:
        """Look at every case that somebody waits for here: news of it may have been lost.

        What counts is what each of them has seen, not what an earlier look found: that one may have come late.
        """
        waited = self._wakeups.waited
        for at in range(0, len(waited), _BATCH):
            some = waited[at : at + _BATCH]
            where = f"WHERE id IN ({', '.join('?' * len(some))})"
            for case in await self._store.read(lambda db, w=where, v=some: self._rows.readable(db, w, v)):  # type: ignore[misc]
                if self._wakeups.is_behind(case):
                    self._heard(case)

    def expect_answer(self, digest: str, until_ns: int) -> None:
        """Another replica keeps a model's answer for an action of this digest."""
        self._kept.expect(digest, until_ns)

    # ------------------------------------------------------------ people

    async def vote(
        self,
        case_id: str,
        person: str,
        choice: Choice,
        *,
        presented_digest: str,
        reason: str = "",
        guidance: str = "",
        version: int | None = None,
        makers: tuple[str, ...] = (),
    ) -> Case:
        """One person's decision on what they were shown; the case as it stands then. `makers`: who else could have
        said it, since they made the session.

        Raises `not_found`, `decided`, `stale`, `forbidden`, `separation_of_duties`, `malformed`.
        """
        _check_text(reason, guidance)
        before = await self.case(case_id)
        change = self._machine.vote(
            case_id,
            person,
            choice,
            presented_digest=presented_digest,
            reason=reason,
            guidance=guidance,
            version=version,
            makers=makers,
        )
        try:
            return await self._change(before, change, person=person)
        except Refusal as refusal:
            if refusal.code != "audit_unavailable":
                raise
            raise Refusal(
                refusal.code,
                "It is not known whether your vote was recorded, since the disk was too slow; look at the case again.",
                retry_after_s=refusal.retry_after_s,
                detail={"case": case_id},
            ) from refusal

    async def comment(self, case_id: str, person: str, text: str) -> Comment:
        """A remark that people see. Raises `not_found`, `malformed`."""
        _check_text(text)
        if not text.strip():
            raise Refusal("malformed", "A comment needs words.")
        comment = Comment(id=self._ids.new(), person=person, text=text, ts_ns=self._clock.now_ns())
        await self._change(await self.case(case_id), self._machine.comment(case_id, comment), person=person)
        return comment

    async def cancel(self, case_id: str, *, by: str, why: str, person: bool) -> Case:
        """An agent takes its case back, or an operator ends it. Raises `decided` where it is too late."""
        _check_text(why)
        before = await self.case(case_id)
        return await self._change(before, self._machine.cancel(case_id, by=by, why=why), person=by if person else None)

    async def reconcile(
        self, case_id: str, person: str, *, outcome: str, note: str, makers: tuple[str, ...] = ()
    ) -> Case:
        """A reviewer says what became of an unknown outcome; the case as it stands then, unknown until enough agree.
        `makers` as for a vote.

        Raises `decided`, `malformed`, `forbidden`, `separation_of_duties`, `not_found`.
        """
        _check_text(note)
        if outcome not in (State.SUCCEEDED, State.FAILED) or not note.strip():
            raise Refusal("malformed", "Say what became of it, succeeded or failed, and in a note how you know.")
        before = await self.case(case_id)
        change = self._machine.reconcile(case_id, person, State(outcome), note, makers)
        return await self._change(before, change, person=person)

    # ------------------------------------------------------------ the path

    async def invalidate(self, case: Case, *, code: str, why: str, rules: tuple[str, ...] = ()) -> Case:
        """Something stands against it now. Raises `decided` where it ended otherwise."""
        return await self._change(case, self._machine.invalidate(case.id, code=code, why=why, rules=rules))

    async def requeue(self, case: Case, target: ToolTarget, decision: Decision, *, why: str) -> Case:
        """People must look again, at the card of today. Where that is the same card, the votes on it still count."""
        asked = self.requirement(decision) if decision.effect is Effect.ESCALATE else case.requirement
        card = card_of(case.id, case.action, target, decision, asked, self._sentence, self._ids.new())
        same = msgspec.structs.replace(card, agent=case.card.agent, nonce=case.card.nonce) == case.card
        presented = case.presented_digest if same else presented_digest(card)
        change = self._machine.requeue(case.id, case.card if same else card, asked, presented, why=why)
        return await self._change(case, change)

    def satisfied(self, case: Case, votes: Sequence[Vote], requirement: Requirement) -> bool:
        """Whether the votes carry a requirement today."""
        return self._machine.satisfied(case, votes, requirement, self._standing)

    def falls_short(
        self, case: Case, votes: Sequence[Vote], target: ToolTarget, requirement: Requirement
    ) -> str | None:
        """Why people must look again at what they approved, with the tool and the requirement of today; None: they need
        not. A vote is for the tool as it was shown: its definition, and what its manifest says of it."""
        decision = Decision(effect=Effect.ESCALATE)
        card = card_of(case.id, case.action, target, decision, requirement, self._sentence, "")
        if card.definition_digest != case.definition_digest:
            return "The tool's definition is another than the one that was approved."
        if (card.target, card.sentence) != (case.card.target, case.card.sentence):
            return "The tool's manifest says other things of it than people were shown."
        if not self.satisfied(case, votes, requirement):
            return "What was approved is not enough any more: more is asked now, or a reviewer no longer counts."
        return None

    def in_force(self, case: Case, votes: Sequence[Vote]) -> dict[str, Any] | None:
        """The approval as policy reads it: whose approval of what is shown counts today, with their groups.

        None where nobody's does: what policy itself let pass is no approval.
        """
        approving = [
            {"person": person, "groups": list(standing.groups)}
            for person in self._machine.approving(case, votes, self._standing)
            if (standing := self._standing(person)) is not None
        ]
        if not approving:
            return None
        return {
            "case": case.id,
            "votes": approving,
            "presented_digest": case.presented_digest,
        }

    def begin(self, case: Case, requirement: Requirement) -> Callable[[Connection], None]:
        """The one right to carry it out, for the intent's transaction; then `changed`. See `Machine.begin`."""
        return self._machine.begin(case.id, requirement)

    def given_up(self, case: Case) -> None:
        """What `begin` does to this case may become durable late, and nothing was or will be sent for it."""
        self._given_up[case.id] = case.fence + 1

    def end(self, case: Case, status: Status, ending: Ending) -> Callable[[Connection], None]:
        """The end of the attempt `case.fence`, for the result's transaction; then `changed`."""
        return self._machine.end(case, status, ending)

    async def changed(self, case_id: str) -> None:
        """A transaction with `begin` or `end` is durable: tell who waits."""
        self._told(await self.case(case_id))

    async def release(
        self,
        case: Case,
        action: Action,
        target: ToolTarget,
        decision: Decision,
        requirement: Requirement,
        answer_id: str,
    ) -> None:
        """Let an approved proposal pass, in one answer and no other. Raises `decided`, `agent_suspended`."""
        change = self._machine.release(case.id, requirement, answer_id)

        def also(db: Connection) -> None:
            change(db)
            self._kept.shorten(db, answer_id, self._clock.now_ns() + self._settings.replay_s * NANOS)

        await self._records.decided([(action, target, decision)], case=case.id, also=also)
        self._told(await self.case(case.id))

    # ------------------------------------------------------------ kept answers

    async def keep_answer(self, action: Action, answer_id: str, body: bytes, *, stream: bool) -> None:
        """Keep a model's answer for identical requests; durable when it returns."""
        replay_ns = self._settings.replay_s * NANOS
        until_ns = self._clock.now_ns() + self._settings.ttl_s * NANOS + replay_ns
        answer = KeptAnswer(answer_id, body, stream)

        def keep(db: Connection) -> int:
            # A policy may give one of its proposals more time than the settings do.
            longest_ns = db.execute(
                "SELECT max(expires_ns) FROM approval_case WHERE parent = ? AND open = 1", (answer_id,)
            ).fetchone()[0]
            kept_ns = max(until_ns, (longest_ns or 0) + replay_ns)
            self._kept.keep(db, action, answer, kept_ns)
            return kept_ns

        self._kept.expect(action.digest, until_ns)
        kept_ns = await self._store.write(keep)
        self._kept.expect(action.digest, kept_ns)
        self.on_kept(action.digest, kept_ns)

    async def kept_answer(self, action: Action) -> KeptAnswer | None:
        """The answer that was kept for an identical request, to the last byte of its body."""
        return await self._store.read(lambda db: self._kept.find(db, action))

    def has_answer(self, digest: str) -> bool:
        """Whether one may be kept; memory only."""
        return self._kept.has(digest)

    # ------------------------------------------------------------ time

    async def tick(self) -> None:
        """What time does: cases expire, lost attempts become unknown, what was kept is dropped."""
        await self._look_again()
        now_ns = self._clock.now_ns()
        while due := await self._store.read(
            lambda db: self._rows.readable(
                db, "WHERE state IN ('pending', 'approved') AND expires_ns <= ? LIMIT ?", (now_ns, _BATCH)
            )
        ):
            moved = [await self._try(case, self._machine.expire(case.id)) for case in due]
            if not any(moved):  # as where the clock stepped back in between
                break
        await self._end_lost("Nothing carries it on any more.", self.under_way)
        self._known.forget_old(now_ns)
        self._rows.forget_old(now_ns)
        self._kept.forget_old()
        if await self._store.read(lambda db: self._has_old(db, now_ns)):
            await self._store.write(self._drop_old)

    async def _look_again(self) -> None:
        """Changes that were refused as too slow may have become durable after all."""
        for case_id, (until_s, keys) in tuple(self._uncertain.items()):
            over = self._clock.monotonic_s() >= until_s
            if over:
                del self._uncertain[case_id]
            try:
                case = await self.case(case_id)
            except Refusal as refusal:
                if refusal.code != "not_found":
                    raise
                if over:
                    self._known.forget(case_id, keys)
                continue
            self._told(case)
            if case.state is State.APPROVED:
                self.on_approved(case)

    @staticmethod
    def _has_old(db: Connection, now_ns: int) -> bool:
        found = db.execute(
            "SELECT EXISTS (SELECT 1 FROM kept_answer WHERE until_ns <= ?)"  # noqa: S608 - our own words
            f" OR EXISTS (SELECT 1 FROM approval_case WHERE {_OLD_ENDING})",
            (now_ns, now_ns),
        ).fetchone()
        return bool(found[0])

    def _drop_old(self, db: Connection) -> None:
        db.execute(
            f"UPDATE approval_case SET ending = NULL WHERE {_OLD_ENDING}",  # noqa: S608 - our own words
            (self._clock.now_ns(),),
        )
        db.execute(
            "DELETE FROM case_key WHERE case_id IN (SELECT id FROM approval_case WHERE open = 0"
            " AND coalesce(told_until_ns, 0) <= ?)",
            (self._clock.now_ns(),),
        )
        self._kept.drop_old(db)

    async def _end_lost(self, why: str, under_way: Callable[[str], bool]) -> None:
        def lost(db: Connection) -> list[Case]:
            # Who carries a case out is believed only of a row that a gateway wrote.
            found = self._rows.readable(db, _ORPHANED, (self._replica,))
            return [case for case in found if self._rows.has_attempt(db, case)]

        for case in await self._store.read(lost):
            if under_way(case.id):
                continue
            if self._given_up.pop(case.id, None) == case.fence:
                await self._try(case, self._machine.not_begun(case.id, case.fence))
            else:
                await self._try(case, self._machine.lost(case.id, why))

    async def _try(self, case: Case, change: Change) -> bool:
        try:
            await self._change(case, change)
        except Refusal as refusal:
            if refusal.code != "decided":  # else it ended otherwise in between
                raise
            return False
        return True


def _check_text(*texts: str) -> None:
    for text in texts:
        if len(text) > _MAX_TEXT or any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in text):
            raise Refusal("malformed", f"Write at most {_MAX_TEXT} characters, without control characters.")
