"""Whatever people, agents, time and crashes do in whatever order, a case keeps to its edges."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from gateway.actions import Status
from gateway.approvals.case import OPEN, Case, Choice, Requirement, State
from gateway.errors import Refusal
from gateway.store.connections import DATABASE_NAME
from tests.approvals.house import ALLOW, TARGET, House, escalate
from tests.examples import examples

T = TypeVar("T")
EDGES = {
    State.PENDING: {State.APPROVED, State.DENIED, State.EXPIRED, State.CANCELLED, State.INVALIDATED},
    State.APPROVED: {State.PENDING, State.EXECUTING, State.EXPIRED, State.CANCELLED, State.INVALIDATED},
    State.EXECUTING: {State.SUCCEEDED, State.FAILED, State.UNKNOWN, State.APPROVED},  # approved: certainly not sent
    State.UNKNOWN: {State.SUCCEEDED, State.FAILED},
}
BLAMELESS = {"decided", "stale", "forbidden", "separation_of_duties", "conflict"}
PEOPLE = st.sampled_from(["ada", "ben", "cy", "dan", "eve", "olga", "uma"])
ARGUMENTS = st.sampled_from([1, 2])


class Cases(RuleBasedStateMachine):
    """Two identities, a handful of people; every step is checked against what the case was before."""

    migrated: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        shutil.copy(self.migrated, self.folder / DATABASE_NAME)
        self.loop = asyncio.new_event_loop()
        self.house = House(self.folder)
        self.run(self.house.start())
        self.seen: dict[str, Case] = {}
        self.begun: dict[str, int] = {}

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(what)

    def teardown(self) -> None:
        self.run(self.house.stop())
        self.loop.close()
        shutil.rmtree(self.folder)

    def tried(self, what: Coroutine[Any, Any, Any]) -> bool:
        try:
            self.run(what)
        except Refusal as refusal:
            assert refusal.code in BLAMELESS, refusal.code
            return False
        return True

    @rule(amount=ARGUMENTS, allowed=st.sampled_from([False, False, True]), two=st.sampled_from([False, False, True]))
    def meet(self, amount: int, *, allowed: bool, two: bool) -> None:
        decision = ALLOW if allowed else escalate({"quorum": [{"approve": 2 if two else 1}], "ttl_s": 100})
        action = self.house.action(arguments={"amount": amount})
        concerned = self.house.room.concerns(action)
        met = self.run(self.house.room.meet(action, TARGET, decision))
        if met is None:
            assert allowed
            return
        assert concerned or met.opened
        if met.opened:
            self.seen[met.case.id] = met.case

    @rule(data=st.data(), person=PEOPLE, choice=st.sampled_from([Choice.APPROVE, Choice.APPROVE, Choice.DENY]))
    def vote(self, data: st.DataObject, person: str, choice: Choice) -> None:
        if (case := self._any(data, State.PENDING)) is not None:
            before = self.run(self.house.room.votes(case.id))
            said = any(vote.person == person and vote.counts for vote in before)
            voted = self.tried(self.house.vote(case, person, choice))
            assert not voted or person in ("ada", "ben", "cy", "dan")
            # One who has voted can only have what was given counted again.
            assert len(self.run(self.house.room.votes(case.id))) == len(before) + (voted and not said)

    @rule(amount=ARGUMENTS, person=st.sampled_from(["ada", "ben"]))
    def meet_and_approve(self, amount: int, person: str) -> None:
        self.meet(amount, allowed=False, two=False)
        for case in list(self.seen.values())[-1:]:
            self.tried(self.house.vote(case, person))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if (case := self._any(data, State.PENDING, State.APPROVED)) is not None:
            self.tried(self.house.room.cancel(case.id, by="payer", why="", person=False))

    @rule(data=st.data())
    def invalidate(self, data: st.DataObject) -> None:
        if (case := self._any(data, State.APPROVED)) is not None:
            self.tried(self.house.room.invalidate(case, code="denied_by_policy", why="A new rule."))

    @rule(data=st.data(), other=st.booleans())
    def requeue(self, data: st.DataObject, *, other: bool) -> None:
        if (case := self._any(data, State.APPROVED)) is not None:
            decision = escalate({"ttl_s": 100}, rule="other" if other else "large")
            self.tried(self.house.room.requeue(case, TARGET, decision, why="Look again."))

    @rule(data=st.data())
    def begin_twice_at_once(self, data: st.DataObject) -> None:
        if (case := self._any(data, State.APPROVED)) is None:
            return

        async def both() -> list[Any]:
            return await asyncio.gather(*(self.house.begin(case) for _ in range(2)), return_exceptions=True)

        ends = self.run(both())
        won = [end for end in ends if isinstance(end, Case)]
        assert len(won) <= 1
        assert all(isinstance(end, Case) or (isinstance(end, Refusal) and end.code in BLAMELESS) for end in ends)
        assert not won or case.state is State.APPROVED
        if won:
            assert won[0].fence == self.begun.get(case.id, 0) + 1
            self.begun[case.id] = won[0].fence
            # The log refuses a second intent too; without it, the case alone must refuse.
            assert not self.tried(self.house.writer.write(self.house.room.begin(case, Requirement(quorum=()))))

    @rule(data=st.data(), status=st.sampled_from([Status.SUCCEEDED, Status.FAILED, Status.UNKNOWN]), sent=st.booleans())
    def end(self, data: st.DataObject, status: Status, *, sent: bool) -> None:
        case = self._any(data, State.EXECUTING)
        if case is None or case.state is not State.EXECUTING:
            return
        detail = {} if sent else {"dispatched": "no"}
        self.tried(self.house.end(case, status, code="upstream_failed", detail=detail))

    @rule(data=st.data(), outcome=st.sampled_from(["succeeded", "failed"]))
    def reconcile(self, data: st.DataObject, outcome: str) -> None:
        if (case := self._any(data, State.UNKNOWN)) is not None:
            self.tried(self.house.room.reconcile(case.id, "ada", outcome=outcome, note="I looked."))

    @rule(seconds=st.sampled_from([1, 20, 60, 101, 1000]))
    def time_passes(self, seconds: int) -> None:
        self.house.clock.advance(seconds)
        self.run(self.house.room.tick())

    @rule()
    def crash(self) -> None:
        self.run(self.house.restart())

    def _any(self, data: st.DataObject, *likely: State) -> Case | None:
        """A case in a state where the step makes sense; at times, and where there is none, any other."""
        newest = list(self.seen.values())[-6:]
        fitting = [case for case in newest if case.state in likely]
        usual: int = data.draw(st.integers(0, 4))
        chosen = fitting if fitting and usual else newest
        if not chosen:
            return None
        at: int = data.draw(st.integers(0, len(chosen) - 1))
        return chosen[at]

    @invariant()
    def every_case_kept_to_its_edges_and_every_step_has_its_record(self) -> None:
        open_digests = []
        for case_id, before in list(self.seen.items()):
            now = self.run(self.house.room.case(case_id))
            assert now.version >= before.version
            assert now.fence == self.begun.get(case_id, 0) == len(self.run(self.house.room.attempts(case_id)))
            if now.state is not before.state:
                assert now.state in EDGES.get(before.state, set()) or self._by_way_of(before.state, now.state)
            types = self.run(self.house.types(case_id))
            # Each record that is not the opening nor of the intent's own reaper moves the version by one.
            moves = [type_ for type_ in types[1:] if type_ not in ("action.result", "case.commented")]
            ended = self.ended_by_result(case_id)
            assert now.version == 1 + len(moves) + ended
            if now.state in OPEN:
                open_digests.append(now.action.digest)
                assert self.house.room.concerns(now.action)
            elif (now.told_until_ns or 0) > self.house.clock.now_ns():
                assert self.house.room.concerns(now.action)
            self.seen[case_id] = now
        assert len(open_digests) == len(set(open_digests))
        pending = [case for case in self.seen.values() if case.state is State.PENDING]
        assert self.house.room.pending_count == len(pending)

    @staticmethod
    def _by_way_of(before: State, now: State) -> bool:
        """A restart or a meeting may take two steps at once."""
        return any(now in EDGES.get(between, set()) for between in EDGES.get(before, set()))

    def ended_by_result(self, case_id: str) -> int:
        """Attempts that ended with a result of their own; a crash's results leave the move to `case.unknown`."""
        attempts = self.run(self.house.room.attempts(case_id))
        lost = self.run(self.house.types(case_id)).count("case.unknown")
        return sum(attempt.ended_ns is not None for attempt in attempts) - lost


@pytest.mark.timeout(240)
@examples(few=12, many=30)
def test_cases_keep_to_their_edges_whatever_happens(migrated: Path, examples: int) -> None:
    Cases.migrated = migrated
    run_state_machine_as_test(
        Cases,
        settings=settings(
            max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
