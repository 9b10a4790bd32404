"""How cases change: one transaction with its record, in a task of its own; then whoever waits is woken.

Memory is told after the commit, and only spares the database questions whose answer is no.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from gateway.actions import Action, Decision, Kind, ToolTarget
from gateway.approvals.card import Sentence
from gateway.approvals.case import Case, Note, State
from gateway.approvals.deciders import Stands
from gateway.approvals.kept import KeptAnswers
from gateway.approvals.known import Known
from gateway.approvals.looking import Looking, Reads
from gateway.approvals.machine import Change, DeletedOnRecord, Machine, OnRecord
from gateway.approvals.rows import Rows, idempotency_of
from gateway.approvals.sealing import Sealing
from gateway.approvals.wakeups import Listener, Wakeups
from gateway.clock import Clock, Ids
from gateway.config import Approvals as Settings
from gateway.errors import Refusal
from gateway.store.interface import Connection
from gateway.store.macs import RowMacs

T = TypeVar("T")
NANOS = 1_000_000_000
_UNCERTAIN_S = 60.0  # by then the writer has written what it was slow with, or latched
_ENDS = frozenset({"case.denied", "case.expired", "case.cancelled", "case.invalidated"})
_GOES_ON = frozenset({"case.approved", "case.requeued"})


class Stores(Reads, Protocol):
    """store/: durable writes, and reads beside them."""

    async def write(self, fn: Callable[[Connection], T]) -> T: ...


class Records(Protocol):
    """audit/: the record of a change; both in one transaction, durable when it returns."""

    async def case(self, case: Case, change: Change, *, person: str | None = None) -> None: ...
    async def requested(
        self,
        action: Action,
        target: ToolTarget,
        decision: Decision,
        case: str,
        also: Callable[[Connection], None],
        labels: dict[str, str],
    ) -> None: ...
    async def decided(
        self,
        decisions: Sequence[tuple[Action, Any, Decision]],
        *,
        case: str | None = None,
        replayed: bool = False,
        also: Callable[[Connection], None] | None = None,
    ) -> None: ...


class Changing(Looking):
    """The changing half of `Approvals`: transitions, who is told of them, and who waits."""

    def __init__(
        self,
        *,
        store: Stores,
        records: Records,
        sealing: Sealing,
        macs: RowMacs,
        clock: Clock,
        ids: Ids,
        sentence: Sentence,
        standing: Callable[[str], Stands | None],
        standing_in: Callable[[Connection, str], Stands | None],
        owners: Callable[[str], Iterable[str]],
        active: Callable[[Connection, str], bool],
        on_record: OnRecord,
        deleted: DeletedOnRecord,
        settings: Settings,
        replica: str = "",
    ) -> None:
        """`replica`: who carries out here, '' where there is one gateway only. `standing_in` and `active` look inside
        a transaction: what a person may do, whether an agent may act. `on_record`: what the log says of an open case.
        `deleted`: cases that the log says are open and that have no row, in a transaction.
        """
        rows = Rows(sealing, macs)
        super().__init__(store, rows)
        self._store = store
        self._deleted = deleted
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
            on_record=on_record,
            replica=replica,
        )
        self._replica = replica
        self._kept = KeptAnswers(sealing, clock)
        self._wakeups = Wakeups()
        self._known = Known()
        # Cases that may change late: until when to look (monotonic seconds), and their identities.
        self._uncertain: dict[str, tuple[float, tuple[str | None, ...]]] = {}
        self._given_up: dict[str, int] = {}  # cases whose attempt of this fence was not begun after all
        self._changing: set[asyncio.Task[Case]] = set()
        self._stopping = False
        self.on_approved: Callable[[Case], None] = lambda case: None
        """Told of every case that was approved, after it is durable."""
        self.on_decided: Callable[[Case], None] = lambda case: None
        """Told of every case that waits for people no longer, however that came."""
        self.under_way: Callable[[str], bool] = lambda case_id: True
        """Whether an attempt runs in this process; one that does not is lost. Set by who carries out."""
        self.on_told: Callable[[str], None] = lambda case_id: None
        """Told of every case that this process changed, so that other replicas hear of it."""
        self.on_kept: Callable[[str, int], None] = lambda digest, until_ns: None
        """Told of every answer that this process keeps: the digest of its action, until when."""

    def reconfigure(self, settings: Settings) -> None:
        """Other settings hold from now on; cases keep what they were opened with."""
        self._settings = settings

    # ------------------------------------------------------------ transitions

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
        replay_ns = self._settings.replay_s * NANOS

        def with_answer(db: Connection) -> Note:
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
        self._heard(case)
        self.on_told(case.id)

    def _heard(self, case: Case) -> None:
        self._rows.saw(case)
        self._known.tell(case.id, keys_of(case), case.state, case.told_until_ns)
        self._wakeups.changed(case)

    def _doubt(self, case: Case) -> None:
        """Nobody knows whether a change becomes durable: look for a while."""
        self._uncertain[case.id] = (self._clock.monotonic_s() + _UNCERTAIN_S, keys_of(case))

    # ------------------------------------------------------------ waiting

    async def wait(self, case_id: str, timeout_s: float, *, until: frozenset[State]) -> Case:
        """The case as it is once its state is in `until`, or when time is up. Raises `not_found`, `stopping`."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + timeout_s
        place = self._wakeups.place(case_id)
        try:
            case = await self.case(case_id)
            self._wakeups.saw(case_id, place, case.version)
            while case.state not in until:
                if self._stopping:
                    raise Refusal(
                        "stopping",
                        f"The gateway is shutting down, and the case {case_id} stays; try again in a moment.",
                        retry_after_s=1,
                        detail={"case": case_id},
                    )
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
                        self._wakeups.saw(case_id, place, case.version)
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


def keys_of(case: Case) -> tuple[str | None, ...]:
    return case.action.digest, idempotency_of(case.action)
