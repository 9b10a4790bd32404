"""`Approvals`: what the rest of the gateway knows of this room.

Every change goes through one transaction that holds the record of it; memory is told after the commit, and only
spares the database questions whose answer is no.
"""

from __future__ import annotations

import asyncio
import sqlite3
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from gateway.actions import Action, Decision, Effect, Kind, Status, ToolTarget
from gateway.approvals import requirement as requirements
from gateway.approvals.card import Sentence, card_of, presented_digest
from gateway.approvals.case import (
    OPEN,
    TOLD_AGAIN,
    Case,
    Choice,
    Comment,
    Ending,
    KeptAnswer,
    Met,
    Note,
    Requirement,
    State,
    Vote,
)
from gateway.approvals.kept import KeptAnswers
from gateway.approvals.known import Known
from gateway.approvals.looking import Looking, Reads
from gateway.approvals.machine import Change, Machine, Stands
from gateway.approvals.rows import Rows, idempotency_of
from gateway.approvals.sealing import Sealing
from gateway.approvals.wakeups import Listener, Wakeups
from gateway.clock import Clock, Ids
from gateway.config import Approvals as Settings
from gateway.errors import Refusal

T = TypeVar("T")
_NANOS = 1_000_000_000
_BATCH = 100  # cases that a tick ends at a time
_UNCERTAIN_S = 60.0  # by then the writer has written what it was slow with, or latched
_MAX_TEXT = 2000  # characters of a reason, guidance, a comment or a note


class Stores(Reads, Protocol):
    """store/: durable writes, and reads beside them."""

    async def write(self, fn: Callable[[sqlite3.Connection], T]) -> T: ...


class Records(Protocol):
    """audit/: the record of a change; both in one transaction, durable when it returns."""

    async def case(self, case: Case, change: Change, *, person: str | None = None) -> None: ...
    async def requested(
        self,
        action: Action,
        target: ToolTarget,
        decision: Decision,
        case: str,
        also: Callable[[sqlite3.Connection], None],
    ) -> None: ...
    async def decided(
        self,
        decisions: Sequence[tuple[Action, Any, Decision]],
        *,
        case: str | None = None,
        replayed: bool = False,
        also: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None: ...


class Approvals(Looking):
    """The cases of one gateway."""

    def __init__(
        self,
        *,
        store: Stores,
        records: Records,
        sealing: Sealing,
        clock: Clock,
        ids: Ids,
        sentence: Sentence,
        standing: Callable[[str], Stands | None],
        standing_in: Callable[[sqlite3.Connection, str], Stands | None],
        owners: Callable[[str], Iterable[str]],
        active: Callable[[sqlite3.Connection, str], bool],
        settings: Settings,
    ) -> None:
        """`standing_in` and `active` look inside a transaction: what a person may do, whether an agent may act."""
        rows = Rows(sealing)
        super().__init__(store, rows)
        self._store = store
        self._records = records
        self._clock = clock
        self._ids = ids
        self._sentence = sentence
        self._settings = settings
        self._standing = standing
        self._machine = Machine(
            rows,
            clock=clock,
            new_id=ids.new,
            standing=standing_in,
            owners=owners,
            active=active,
            replay_s=lambda: self._settings.replay_s,
        )
        self._kept = KeptAnswers(sealing, clock)
        self._wakeups = Wakeups()
        self._known = Known()
        # Cases that may change late: until when to look (monotonic seconds), and their identities.
        self._uncertain: dict[str, tuple[float, tuple[str | None, ...]]] = {}
        self._changing: set[asyncio.Task[Case]] = set()
        self._stopping = False
        self.on_approved: Callable[[Case], None] = lambda case: None
        """Told of every case that was approved, after it is durable."""
        self.on_decided: Callable[[Case], None] = lambda case: None
        """Told of every case that waits for people no longer, however that came."""
        self.under_way: Callable[[str], bool] = lambda case_id: True
        """Whether an attempt runs in this process; one that does not is lost. Set by who carries out."""

    async def load(self) -> None:
        """Fill the indexes, and end what a crash cut off: what such an attempt did is not known."""

        def read(db: sqlite3.Connection) -> list[Any]:
            self._kept.load(db)
            self._rows.select(db, "ORDER BY id DESC LIMIT 1", ())  # another key file would be told now, not later
            return db.execute(
                "SELECT id, digest, idempotency, state, told_until_ns FROM approval_case"
                " WHERE open = 1 OR told_until_ns > ?",
                (self._clock.now_ns(),),
            ).fetchall()

        for case_id, digest, idempotency, state, told_until_ns in await self._store.read(read):
            self._known.tell(case_id, (digest, idempotency), State(state), told_until_ns)
        await self._end_lost("The gateway was stopped or died while it ran.", lambda case_id: False)

    def reconfigure(self, settings: Settings) -> None:
        """Other settings hold from now on; cases keep what they were opened with."""
        self._settings = settings

    # ------------------------------------------------------------ an action meets its case

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

        `answer_id`: the model's answer that a proposal stands in. Raises `rate_limited` where too many wait already,
        `conflict` for an idempotency key that was used for something else, `denied_by_policy`.
        """
        escalated = decision.effect is Effect.ESCALATE
        if not escalated and not self.concerns(action):
            return None
        asked = self.requirement(decision) if escalated else None
        for _ in range(3):
            found = await self._find(action, answer_id)
            if found is not None:
                return await self._attach(found, escalated=escalated)
            if asked is None:
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

    def _look(self, db: sqlite3.Connection, action: Action, answer_id: str | None) -> Case | None:
        """The case that an action meets. Raises `conflict` where its idempotency key stands for another."""
        idempotency = idempotency_of(action)
        keyed = None if idempotency is None else self._rows.last_by_key(db, idempotency)
        if keyed is not None and keyed.action.digest != action.digest and self._is_told(keyed):
            raise Refusal(
                "conflict",
                "This idempotency-key was used for another call; use a new one, or repeat that call.",
                detail={"case": keyed.id},
            )
        same = self._rows.open_by_digest(db, action.digest) or self._rows.last_by_digest(db, action.digest)
        if same is None or not self._is_told(same):
            return None
        if same.kind is Kind.TOOL_PROPOSE and same.state is State.SUCCEEDED and same.released_to != answer_id:
            return None  # what was released once is not released to another answer
        return same

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
        now_ns = self._clock.now_ns()
        case_id = self._ids.new()
        card = card_of(case_id, action, target, decision, asked, self._sentence)
        case = Case(
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
            expires_ns=now_ns + asked.ttl_s * _NANOS,
        )
        cap = self._settings.pending_per_agent

        def insert(db: sqlite3.Connection) -> None:
            if self._look(db, action, answer_id) is not None:
                raise _TakenError
            waiting = db.execute(
                "SELECT count(*) FROM approval_case WHERE agent = ? AND state = 'pending'", (case.agent_id,)
            ).fetchone()[0]
            if waiting >= cap:
                raise Refusal(
                    "rate_limited",
                    f"{waiting} calls of this agent wait for people already; wait until some are decided.",
                    retry_after_s=60,
                )
            try:
                self._rows.insert(db, case)
            except sqlite3.IntegrityError as error:
                raise _TakenError from error

        keys = _keys(case)
        self._known.expect(case.id, keys)
        try:
            await self._records.requested(action, target, decision, case.id, insert)
        except (_TakenError, Refusal) as error:
            if isinstance(error, Refusal) and error.code == "audit_unavailable":
                self._doubt(case)
            else:
                self._known.forget(case.id, keys)
            raise
        except asyncio.CancelledError:
            self._doubt(case)
            raise
        self._told(case)
        return case

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
    ) -> Case:
        """One person's decision on what they were shown; the case as it stands then.

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
        )
        return await self._change(before, change, person=person)

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

    async def reconcile(self, case_id: str, person: str, *, outcome: str, note: str) -> Case:
        """A person says what became of an unknown outcome. Raises `decided`, `malformed`."""
        _check_text(note)
        if outcome not in (State.SUCCEEDED, State.FAILED) or not note.strip():
            raise Refusal("malformed", "Say what became of it, succeeded or failed, and in a note how you know.")
        before = await self.case(case_id)
        return await self._change(before, self._machine.reconcile(case_id, State(outcome), note), person=person)

    # ------------------------------------------------------------ the path

    async def invalidate(self, case: Case, *, code: str, why: str, rules: tuple[str, ...] = ()) -> Case:
        """Something stands against it now. Raises `decided` where it ended otherwise."""
        return await self._change(case, self._machine.invalidate(case.id, code=code, why=why, rules=rules))

    async def requeue(self, case: Case, target: ToolTarget, decision: Decision, *, why: str) -> Case:
        """People must look again, at the card of today. Where that is the same card, the votes on it still count."""
        asked = self.requirement(decision) if decision.effect is Effect.ESCALATE else case.requirement
        card = card_of(case.id, case.action, target, decision, asked, self._sentence)
        same = msgspec.structs.replace(card, agent=case.card.agent) == case.card
        presented = case.presented_digest if same else presented_digest(card)
        change = self._machine.requeue(case.id, case.card if same else card, asked, presented, why=why)
        return await self._change(case, change)

    def satisfied(self, case: Case, votes: Sequence[Vote], requirement: Requirement) -> bool:
        """Whether the votes carry a requirement today."""
        return self._machine.satisfied(case, votes, requirement, self._standing)

    def in_force(self, case: Case, votes: Sequence[Vote]) -> dict[str, Any]:
        """The approval as policy reads it: who approved what is shown, each with their groups as of now."""
        approving = [vote.person for vote in votes if vote.counts and vote.choice is Choice.APPROVE]
        groups = {person: standing.groups if (standing := self._standing(person)) else () for person in approving}
        return {
            "case": case.id,
            "votes": [{"person": person, "groups": list(groups[person])} for person in approving],
            "presented_digest": case.presented_digest,
        }

    def begin(self, case: Case, requirement: Requirement) -> Callable[[sqlite3.Connection], None]:
        """The one right to carry it out, for the intent's transaction; then `changed`. See `Machine.begin`."""
        return self._machine.begin(case.id, requirement)

    def end(self, case: Case, status: Status, ending: Ending) -> Callable[[sqlite3.Connection], None]:
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
        answer_id: str,
    ) -> None:
        """Let an approved proposal pass, in one answer and no other. Raises `decided`, `agent_suspended`."""
        asked = self.requirement(decision) if decision.effect is Effect.ESCALATE else Requirement(quorum=())
        change = self._machine.release(case.id, asked, answer_id)

        def also(db: sqlite3.Connection) -> None:
            change(db)
            self._kept.shorten(db, answer_id, self._clock.now_ns() + self._settings.replay_s * _NANOS)

        await self._records.decided([(action, target, decision)], case=case.id, also=also)
        self._told(await self.case(case.id))

    # ------------------------------------------------------------ waiting

    async def wait(self, case_id: str, timeout_s: float, *, until: frozenset[State]) -> Case:
        """The case as it is once its state is in `until`, or when time is up. Raises `not_found`, `stopping`."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + timeout_s
        place = self._wakeups.place(case_id)
        try:
            case = await self.case(case_id)
            while case.state not in until:
                if self._stopping:
                    raise Refusal("stopping", "The gateway is shutting down; try again in a moment.", retry_after_s=1)
                left_s = end_s - loop.time()
                if left_s <= 0:
                    break
                done, _ = await asyncio.wait((place,), timeout=left_s)
                if not done:
                    return await self.case(case_id)
                changed = place.result()
                if changed is None and not self._stopping:  # something else is other: whoever waits looks around
                    return await self.case(case_id)
                if changed is not None:
                    case = changed
                    if case.state not in until:  # and what came right after it was told to nobody here
                        place = self._wakeups.place(case_id)
                        case = await self.case(case_id)
            return case
        finally:
            self._wakeups.leave(case_id, place)

    def subscribe(self) -> Listener:
        """Ids of cases as they change, from now on; an async iterator, ended by `aclose` or when the gateway stops."""
        return self._wakeups.listen()

    def stop_waiting(self) -> None:
        """The gateway stops: whoever waits is refused, and comes back."""
        self._stopping = True
        self._wakeups.stop()

    def wake_agent(self, agent_id: str) -> None:
        """Something is other with an agent: whoever waits looks again."""
        self._wakeups.wake_all()

    # ------------------------------------------------------------ counts

    @property
    def pending_count(self) -> int:
        """Cases that wait for people."""
        return self._known.pending

    @property
    def unknown_count(self) -> int:
        """Cases whose outcome a person must find out."""
        return self._known.unknown

    @property
    def waiting_callers(self) -> int:
        """Callers that are held."""
        return self._wakeups.waiting

    # ------------------------------------------------------------ kept answers

    async def keep_answer(self, action: Action, answer_id: str, body: bytes, *, stream: bool) -> None:
        """Keep a model's answer for identical requests; durable when it returns."""
        replay_ns = self._settings.replay_s * _NANOS
        until_ns = self._clock.now_ns() + self._settings.ttl_s * _NANOS + replay_ns
        answer = KeptAnswer(answer_id, body, stream)

        def keep(db: sqlite3.Connection) -> int:
            # A policy may give one of its proposals more time than the settings do.
            longest_ns = db.execute(
                "SELECT max(expires_ns) FROM approval_case WHERE parent = ? AND open = 1", (answer_id,)
            ).fetchone()[0]
            kept_ns = max(until_ns, (longest_ns or 0) + replay_ns)
            self._kept.keep(db, action, answer, kept_ns)
            return kept_ns

        self._kept.expect(action.digest, until_ns)
        self._kept.expect(action.digest, await self._store.write(keep))

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
            lambda db: self._rows.select(
                db, "WHERE state IN ('pending', 'approved') AND expires_ns <= ? LIMIT ?", (now_ns, _BATCH)
            )
        ):
            for case in due:
                await self._try(case, self._machine.expire(case.id))
        await self._end_lost("Nothing carries it on any more.", self.under_way)
        self._known.forget_old(now_ns)
        self._kept.forget_old()
        if await self._store.read(lambda db: self._has_old(db, now_ns)):
            await self._store.write(self._drop_old)

    def _doubt(self, case: Case) -> None:
        """Nobody knows whether a change becomes durable: look for a while."""
        self._uncertain[case.id] = (self._clock.monotonic_s() + _UNCERTAIN_S, _keys(case))

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
    def _has_old(db: sqlite3.Connection, now_ns: int) -> bool:
        found = db.execute(
            "SELECT EXISTS (SELECT 1 FROM kept_answer WHERE until_ns <= ?)"  # noqa: S608 - our own words
            f" OR EXISTS (SELECT 1 FROM approval_case WHERE {_OLD_ENDING})",
            (now_ns, now_ns),
        ).fetchone()
        return bool(found[0])

    def _drop_old(self, db: sqlite3.Connection) -> None:
        db.execute(
            f"UPDATE approval_case SET ending = NULL WHERE {_OLD_ENDING}",  # noqa: S608 - our own words
            (self._clock.now_ns(),),
        )
        self._kept.drop_old(db)

    async def _end_lost(self, why: str, under_way: Callable[[str], bool]) -> None:
        running = await self._store.read(lambda db: self._rows.select(db, "WHERE state = 'executing'", ()))
        for case in running:
            if not under_way(case.id):
                await self._try(case, self._machine.lost(case.id, why))

    # ------------------------------------------------------------ parts

    async def _try(self, case: Case, change: Change) -> None:
        try:
            await self._change(case, change)
        except Refusal as refusal:
            if refusal.code != "decided":  # else it ended otherwise in between
                raise

    async def _change(self, before: Case, change: Change, *, person: str | None = None) -> Case:
        """Make a transition with its record; then wake who waits and run what was approved.

        In a task of its own: whoever asked for it may hang up, and what became durable is told all the same.
        """
        task = asyncio.get_running_loop().create_task(self._make(before, change, person))
        self._changing.add(task)
        task.add_done_callback(self._over)
        return await asyncio.shield(task)

    def _over(self, task: asyncio.Task[Case]) -> None:
        self._changing.discard(task)
        if not task.cancelled():
            task.exception()  # told to whoever asked, if they are still there

    async def _make(self, before: Case, change: Change, person: str | None) -> Case:
        lengthened: list[str] = []
        replay_ns = self._settings.replay_s * _NANOS

        def with_answer(db: sqlite3.Connection) -> Note:
            note = change(db)
            parent = before.action.parent
            if before.kind is Kind.TOOL_PROPOSE and parent is not None:
                if note.type in _ENDS:
                    self._kept.shorten(db, parent, self._clock.now_ns() + replay_ns)
                elif note.type in _GOES_ON:
                    now = self._rows.case(db, before.id)
                    lengthened.extend(self._kept.lengthen(db, parent, (now or before).expires_ns + replay_ns))
            return note

        try:
            await self._records.case(before, with_answer, person=person)
        except Refusal as refusal:
            if refusal.code == "audit_unavailable":  # it may have become durable all the same
                self._doubt(before)
            raise
        case = await self.case(before.id)
        for digest in lengthened:
            self._kept.expect(digest, case.expires_ns + replay_ns)
        self._told(case)
        if before.state is State.PENDING and case.state is not State.PENDING:
            self.on_decided(case)
        if case.state is State.APPROVED and before.state is not State.APPROVED:
            self.on_approved(case)
        return case

    def _told(self, case: Case) -> None:
        self._known.tell(case.id, _keys(case), case.state, case.told_until_ns)
        self._wakeups.changed(case)


_ENDS = frozenset({"case.denied", "case.expired", "case.cancelled", "case.invalidated"})
_GOES_ON = frozenset({"case.approved", "case.requeued"})
_OLD_ENDING = "ending IS NOT NULL AND open = 0 AND coalesce(told_until_ns, 0) <= ?"


class _TakenError(Exception):
    """The identity has an open case already."""


def _keys(case: Case) -> tuple[str | None, ...]:
    return case.action.digest, idempotency_of(case.action)


def _check_text(*texts: str) -> None:
    for text in texts:
        if len(text) > _MAX_TEXT or any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in text):
            raise Refusal("malformed", f"Write at most {_MAX_TEXT} characters, without control characters.")
