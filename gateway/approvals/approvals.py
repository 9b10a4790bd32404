"""`Approvals`: what the rest of the gateway knows of this room.

Every change goes through one transaction that holds the record of it; memory is told after the commit, and only
spares the database questions whose answer is no.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from gateway.actions import Action, Decision, Effect, Kind, Status, ToolTarget
from gateway.approvals import requirement as requirements
from gateway.approvals.card import Sentence, card_of, presented_digest
from gateway.approvals.case import (
    OPEN,
    TOLD_AGAIN,
    Attempt,
    Case,
    Choice,
    Comment,
    Ending,
    KeptAnswer,
    Met,
    Note,
    Requirement,
    Standing,
    State,
    Vote,
)
from gateway.approvals.kept import KeptAnswers
from gateway.approvals.machine import Change, Machine
from gateway.approvals.rows import Rows, idempotency_of
from gateway.approvals.sealing import Sealing
from gateway.approvals.wakeups import Wakeups
from gateway.clock import Clock, Ids
from gateway.config import Approvals as Settings
from gateway.errors import Refusal

T = TypeVar("T")
_NANOS = 1_000_000_000
_FOREVER = 2**63
_BATCH = 100  # cases that one tick ends
_MAX_TEXT = 2000  # characters of a reason, guidance, a comment or a note


class Stores(Protocol):
    """store/: durable writes, and reads beside them."""

    async def write(self, fn: Callable[[sqlite3.Connection], T]) -> T: ...
    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T: ...


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


class Page(msgspec.Struct, frozen=True):
    """Cases, newest first, and where the next page begins."""

    cases: list[Case]
    cursor: str | None


class Approvals:
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
        standing: Callable[[str], Standing | None],
        owners: Callable[[str], Iterable[str]],
        active: Callable[[sqlite3.Connection, str], bool],
        settings: Settings,
    ) -> None:
        """`active(connection, agent_id)` says, inside a transaction, whether the agent may act."""
        self._store = store
        self._records = records
        self._clock = clock
        self._ids = ids
        self._sentence = sentence
        self._settings = settings
        self._rows = Rows(sealing)
        self._machine = Machine(
            self._rows,
            clock=clock,
            new_id=ids.new,
            standing=standing,
            owners=owners,
            active=active,
            replay_s=lambda: self._settings.replay_s,
        )
        self._kept = KeptAnswers(sealing, clock)
        self._wakeups = Wakeups()
        self._known: dict[str, int] = {}  # digest or idempotency -> until when an identical action meets a case
        self._counts: dict[str, int] = {}
        self._stopping = False
        self.on_approved: Callable[[Case], None] = lambda case: None
        self.under_way: Callable[[str], bool] = lambda case_id: False

    async def load(self) -> None:
        """Fill the indexes, and end what a crash cut off: what such an attempt did is not known."""

        def read(db: sqlite3.Connection) -> list[tuple[str, str | None, int, int | None]]:
            self._kept.load(db)
            return db.execute(
                "SELECT digest, idempotency, open, told_until_ns FROM approval_case"
                " WHERE open = 1 OR told_until_ns > ?",
                (self._clock.now_ns(),),
            ).fetchall()

        for digest, idempotency, is_open, told_until_ns in await self._store.read(read):
            until_ns = _FOREVER if is_open else told_until_ns or 0
            for key in (digest, idempotency):
                if key is not None:
                    self._known[key] = max(until_ns, self._known.get(key, 0))
        await self._end_lost("The gateway was stopped or died while it ran.")
        await self._count()

    def reconfigure(self, settings: Settings) -> None:
        """Other settings hold from now on; cases keep what they were opened with."""
        self._settings = settings

    # ------------------------------------------------------------ an action meets its case

    def concerns(self, action: Action) -> bool:
        """Whether an identical action may have a case; memory only, and never wrong in saying no."""
        until_ns = self._known.get(action.digest)
        if until_ns is None and action.idempotency_key is not None:
            until_ns = self._known.get(idempotency_of(action) or "")
        return until_ns is not None and until_ns > self._clock.now_ns()

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
                return Met(await self._open(action, target, decision, asked), opened=True, ended_before=False)
            except _TakenError:
                continue  # an identical action opened it in between
        raise Refusal("conflict", "Identical calls came faster than they could be told apart; try again.")

    async def _find(self, action: Action, answer_id: str | None) -> Case | None:
        idempotency = idempotency_of(action)

        def read(db: sqlite3.Connection) -> tuple[Case | None, Case | None]:
            same = self._rows.open_by_digest(db, action.digest) or self._rows.last_by_digest(db, action.digest)
            keyed = None if idempotency is None else self._rows.last_by_key(db, idempotency)
            return same, keyed

        same, keyed = await self._store.read(read)
        if keyed is not None and keyed.action.digest != action.digest and self._is_told(keyed):
            raise Refusal(
                "conflict",
                "This idempotency-key was used for another call; use a new one, or repeat that call.",
                detail={"case": keyed.id},
            )
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

    async def _open(self, action: Action, target: ToolTarget, decision: Decision, asked: Requirement) -> Case:
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

        await self._records.requested(action, target, decision, case.id, insert)
        self._told(case)
        await self._count()
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
        return self._machine.satisfied(case, votes, requirement)

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
        await self._count()

    # ------------------------------------------------------------ waiting

    async def wait(self, case_id: str, timeout_s: float, *, until: frozenset[State]) -> Case:
        """The case as it is once its state is in `until`, or when time is up. Raises `not_found`, `stopping`."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + timeout_s
        while True:
            if self._stopping:
                raise Refusal("stopping", "The gateway is shutting down; try again in a moment.", retry_after_s=1)
            place = self._wakeups.place(case_id)
            try:
                case = await self.case(case_id)
                left_s = end_s - loop.time()
                if case.state in until or left_s <= 0:
                    return case
                async with asyncio.timeout(left_s):
                    await place
            except TimeoutError:
                return await self.case(case_id)
            finally:
                self._wakeups.leave(case_id, place)
            if place.done() and self._looked_at(place):
                return await self.case(case_id)

    @staticmethod
    def _looked_at(place: asyncio.Future[bool]) -> bool:
        """Whether whoever waits shall look around, though the case is as it was."""
        return place.result()

    def subscribe(self) -> AsyncIterator[str]:
        """Ids of cases as they change."""
        return self._wakeups.listen()

    def stop_waiting(self) -> None:
        """The gateway stops: whoever waits is refused, and comes back."""
        self._stopping = True
        self._wakeups.wake_all()

    def wake_agent(self, agent_id: str) -> None:
        """Something is other with an agent: whoever waits looks again."""
        self._wakeups.wake_all(look=True)

    # ------------------------------------------------------------ looking

    async def case(self, case_id: str) -> Case:
        """Raises Refusal(not_found)."""
        found = await self._store.read(lambda db: self._rows.case(db, case_id))
        if found is None:
            raise Refusal("not_found", "There is no case of this id; `gateway approvals list` shows those there are.")
        return found

    async def find(
        self,
        *,
        status: str | None = None,
        agent: str | None = None,
        tool: str | None = None,
        rule: str | None = None,
        risk: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Cases, newest first. `status`: a state, or `open`. `tool`: a name or `server__tool`. Raises `malformed`."""
        where: list[str] = []
        values: list[Any] = []

        def must(condition: str, *given: Any) -> None:
            where.append(condition)
            values.extend(given)

        if status == "open":
            must("open = 1")
        elif status is not None:
            if status not in set(State):
                known = ", ".join(state.value for state in State)
                raise Refusal("malformed", f"There is no state {status!r}; there are open, {known}.")
            must("state = ?", status)
        if agent is not None:
            must("agent = ?", agent)
        if tool is not None:
            server, has_server, name = tool.partition("__")
            if has_server:
                must("server = ? AND tool = ?", server, name)
            else:
                must("tool = ?", tool)
        if rule is not None:
            must("instr(rules, ?) > 0", f"|{rule}|")
        if risk is not None:
            must("risk = ?", risk)
        if cursor is not None:
            must("id < ?", cursor)
        condition = f"WHERE {' AND '.join(where)} " if where else ""
        found = await self._store.read(
            lambda db: self._rows.select(db, f"{condition}ORDER BY id DESC LIMIT ?", (*values, limit + 1))
        )
        return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)

    async def like(self, case: Case) -> list[Case]:
        """Other cases of the same agent and tool that wait, such as one with a regenerated field."""
        return await self._store.read(
            lambda db: self._rows.select(
                db,
                "WHERE agent = ? AND server = ? AND tool = ? AND state = 'pending' AND id <> ?"
                " ORDER BY id DESC LIMIT 5",
                (case.agent_id, case.server, case.tool, case.id),
            )
        )

    async def to_run(self) -> list[str]:
        """Approved calls that run without being claimed."""
        found = await self._store.read(
            lambda db: self._rows.select(db, "WHERE state = 'approved' AND kind = 'tool.call' AND fence = 0", ())
        )
        return [case.id for case in found if case.requirement.execute_on == "decision"]

    async def votes(self, case_id: str) -> list[Vote]:
        """All votes, oldest first. Raises `not_found`."""
        case = await self.case(case_id)
        return await self._store.read(lambda db: self._rows.votes(db, case))

    async def comments(self, case_id: str) -> list[Comment]:
        """Oldest first."""
        return await self._store.read(lambda db: self._rows.comments(db, case_id))

    async def attempts(self, case_id: str) -> list[Attempt]:
        """Oldest first."""
        return await self._store.read(lambda db: self._rows.attempts(db, case_id))

    async def ending(self, case: Case) -> Ending | None:
        """How the last attempt ended, while that is kept."""
        return await self._store.read(lambda db: self._rows.ending(db, case.id))

    @property
    def pending_count(self) -> int:
        """Cases that wait for people."""
        return self._counts.get(State.PENDING.value, 0)

    @property
    def unknown_count(self) -> int:
        """Cases whose outcome a person must find out."""
        return self._counts.get(State.UNKNOWN.value, 0)

    @property
    def waiting_callers(self) -> int:
        """Callers that are held."""
        return self._wakeups.waiting

    # ------------------------------------------------------------ kept answers

    async def keep_answer(self, action: Action, answer_id: str, body: bytes, *, stream: bool) -> None:
        """Keep a model's answer for identical requests; durable when it returns."""
        until_ns = self._clock.now_ns() + (self._settings.ttl_s + self._settings.replay_s) * _NANOS
        answer = KeptAnswer(answer_id, body, stream)
        await self._store.write(lambda db: self._kept.keep(db, action, answer, until_ns))
        self._kept.kept(action.digest, until_ns)

    async def kept_answer(self, action: Action) -> KeptAnswer | None:
        """The answer that was kept for an identical request."""
        return await self._store.read(lambda db: self._kept.find(db, action.digest))

    def has_answer(self, digest: str) -> bool:
        """Whether one may be kept; memory only."""
        return self._kept.has(digest)

    # ------------------------------------------------------------ time

    async def tick(self) -> None:
        """What time does: cases expire, lost attempts become unknown, what was kept is dropped."""
        now_ns = self._clock.now_ns()
        due = await self._store.read(
            lambda db: self._rows.select(
                db, "WHERE state IN ('pending', 'approved') AND expires_ns <= ? LIMIT ?", (now_ns, _BATCH)
            )
        )
        for case in due:
            await self._try(case, self._machine.expire(case.id))
        await self._end_lost("Nothing carries it on any more.")
        old = [key for key, until_ns in self._known.items() if until_ns <= now_ns]
        for key in old:
            del self._known[key]
        if await self._store.read(lambda db: self._has_old(db, now_ns)):
            self._kept.dropped(await self._store.write(self._drop_old))

    @staticmethod
    def _has_old(db: sqlite3.Connection, now_ns: int) -> bool:
        found = db.execute(
            "SELECT EXISTS (SELECT 1 FROM kept_answer WHERE until_ns <= ?)"
            " OR EXISTS (SELECT 1 FROM approval_case WHERE ending IS NOT NULL AND open = 0 AND told_until_ns <= ?)",
            (now_ns, now_ns),
        ).fetchone()
        return bool(found[0])

    def _drop_old(self, db: sqlite3.Connection) -> list[str]:
        db.execute(
            "UPDATE approval_case SET ending = NULL WHERE ending IS NOT NULL AND open = 0 AND told_until_ns <= ?",
            (self._clock.now_ns(),),
        )
        return self._kept.drop_old(db)

    async def _end_lost(self, why: str) -> None:
        running = await self._store.read(lambda db: self._rows.select(db, "WHERE state = 'executing'", ()))
        for case in running:
            if not self.under_way(case.id):
                await self._try(case, self._machine.lost(case.id, why))

    # ------------------------------------------------------------ parts

    async def _try(self, case: Case, change: Change) -> None:
        try:
            await self._change(case, change)
        except Refusal as refusal:
            if refusal.code != "decided":  # else it ended otherwise in between
                raise

    async def _change(self, before: Case, change: Change, *, person: str | None = None) -> Case:
        """Make a transition with its record; then wake who waits and run what was approved."""

        def with_answer(db: sqlite3.Connection) -> Note:
            note = change(db)
            if before.kind is Kind.TOOL_PROPOSE and before.action.parent is not None and note.type in _ENDS:
                until_ns = self._clock.now_ns() + self._settings.replay_s * _NANOS
                self._kept.shorten(db, before.action.parent, until_ns)
            return note

        await self._records.case(before, with_answer, person=person)
        case = await self.case(before.id)
        self._told(case)
        await self._count()
        if case.state is State.APPROVED and before.state is not State.APPROVED:
            self.on_approved(case)
        return case

    def _told(self, case: Case) -> None:
        until_ns = _FOREVER if case.state in OPEN else case.told_until_ns or 0
        for key in (case.action.digest, idempotency_of(case.action)):
            if key is not None:
                self._known[key] = until_ns
        self._wakeups.changed(case.id)

    async def _count(self) -> None:
        self._counts = dict(
            await self._store.read(
                lambda db: db.execute(
                    "SELECT state, count(*) FROM approval_case WHERE state IN ('pending', 'unknown') GROUP BY state"
                ).fetchall()
            )
        )


_ENDS = frozenset({"case.denied", "case.expired", "case.cancelled", "case.invalidated"})


class _TakenError(Exception):
    """The identity has an open case already."""


def _check_text(*texts: str) -> None:
    for text in texts:
        if len(text) > _MAX_TEXT or (not text.isprintable() and any(ord(c) < 0x20 and c not in "\n\t" for c in text)):
            raise Refusal("malformed", f"Write at most {_MAX_TEXT} characters, without control characters.")
