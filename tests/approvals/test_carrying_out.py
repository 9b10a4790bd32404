"""An approved action is carried out at most once: begin, end, races, crashes, requeue, reconcile, release."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from gateway.actions import Kind, Result, Status
from gateway.approvals.case import Choice, Ending, Requirement, State
from tests.approvals.house import ALLOW, TARGET, House, code_of, escalate

INTENT, RESULT = "action.intent", "action.result"


async def test_an_attempt_stands_before_anything_is_sent_and_its_end_is_replayed(house: House) -> None:
    case = await house.begin(await house.passed())
    assert (case.state, case.fence) == (State.EXECUTING, 1)
    (attempt,) = await house.room.attempts(case.id)
    assert attempt.ended_ns is None
    case = await house.end(case, body=b'{"ok":1}', headers={"x": "y"})
    assert case.state is State.SUCCEEDED
    (attempt,) = await house.room.attempts(case.id)
    assert attempt.outcome == "succeeded"
    again = await house.meet()
    assert (again.case.id, again.ended_before) == (case.id, True)
    ending = await house.room.ending(again.case)
    assert ending is not None
    assert (ending.body, ending.headers) == (b'{"ok":1}', {"x": "y"})
    assert await house.types(case.id) == ["action.requested", "case.approved", INTENT, RESULT]


async def test_of_two_begins_one_wins_and_the_other_leaves_no_intent(house: House) -> None:
    case = await house.passed()
    ends = await asyncio.gather(code_of(house.begin(case)), code_of(house.begin(case)))
    assert sorted(ends) == ["decided", "not refused"]
    assert (await house.types(case.id)).count(INTENT) == 1
    assert len(await house.room.attempts(case.id)) == 1


async def test_of_begin_and_cancel_one_wins(house: House) -> None:
    case = await house.passed()
    ends = await asyncio.gather(
        code_of(house.begin(case)), code_of(house.room.cancel(case.id, by="payer", why="", person=False))
    )
    assert sorted(ends) == ["decided", "not refused"]
    now = await house.room.case(case.id)
    assert now.state is (State.EXECUTING if ends[0] == "not refused" else State.CANCELLED)


async def test_a_reviewer_whose_role_was_taken_carries_nothing(house: House) -> None:
    case = await house.passed()
    await house.role_taken("ada")
    assert not house.room.satisfied(case, await house.room.votes(case.id), case.requirement)
    assert await code_of(house.begin(case)) == "decided"
    requeued = await house.room.requeue(case, TARGET, escalate(), why="A reviewer no longer counts.")
    assert requeued.state is State.PENDING
    assert (await house.vote(requeued, "ben")).state is State.APPROVED
    await house.begin(await house.room.case(case.id))


async def test_taking_the_role_against_the_execution_has_one_winner(house: House) -> None:
    case = await house.passed()
    taken, begun = await asyncio.gather(house.role_taken("ada"), code_of(house.begin(case)))
    assert taken is None
    assert begun == "decided"  # the role was taken first in the one line of transactions


async def test_an_agent_that_was_suspended_begins_nothing(house: House) -> None:
    case = await house.passed()
    await house.writer.write(lambda db: house.log.macs.change(db, "agent", "", (), status="suspended"))
    assert await code_of(house.begin(case)) == "agent_suspended"
    assert (await house.room.case(case.id)).state is State.APPROVED


async def test_more_than_was_given_begins_nothing(house: House) -> None:
    case = await house.passed()
    two = house.room.requirement(escalate({"quorum": [{"approve": 2}]}))
    assert await code_of(house.begin(case, two)) == "decided"
    await house.begin(case, Requirement(quorum=()))


async def test_a_changed_definition_voids_the_votes(house: House) -> None:
    case = await house.passed()
    target = msgspec.structs.replace(TARGET, definition_digest="sha256:two")
    requeued = await house.room.requeue(case, target, escalate(), why="Another definition.")
    assert requeued.state is State.PENDING
    assert requeued.presented_digest != case.presented_digest
    (vote,) = await house.room.votes(case.id)
    assert not vote.counts
    assert await code_of(house.vote(case, "ben")) == "stale"
    assert (await house.vote(requeued, "ada")).state is State.APPROVED
    assert await house.types(case.id) == ["action.requested", "case.approved", "case.requeued", "case.approved"]


async def test_an_attempt_that_did_nothing_leaves_it_approved_and_another_may_follow(house: House) -> None:
    case = await house.begin(await house.passed())
    case = await house.end(case, Status.FAILED, code="upstream_failed", message="no", detail={"dispatched": "no"})
    assert (case.state, case.fence) == (State.APPROVED, 1)
    case = await house.begin(case)
    assert case.fence == 2
    await house.end(case, body=b"{}")
    outcomes = [attempt.outcome for attempt in await house.room.attempts(case.id)]
    assert outcomes == ["not_sent", "succeeded"]


async def test_the_end_of_an_earlier_attempt_changes_nothing(house: House) -> None:
    first = await house.begin(await house.passed())
    again = await house.end(first, Status.FAILED, code="upstream_failed", detail={"dispatched": "no"})
    second = await house.begin(again)
    await house.writer.write(house.room.end(first, Status.SUCCEEDED, Ending(body=b"late")))
    assert await house.room.case(first.id) == second
    assert second.fence == 2


async def test_what_a_crash_cut_off_is_unknown_and_a_person_finds_out(house: House) -> None:
    case = await house.begin(await house.passed())
    await house.restart()
    unknown = await house.room.case(case.id)
    assert (unknown.state, unknown.code) == (State.UNKNOWN, "outcome_unknown")
    assert house.room.unknown_count == 1
    assert (await house.types(case.id)).count("case.unknown") == 1
    assert not (await house.meet()).opened
    assert await code_of(house.begin(unknown)) == "decided"
    assert await code_of(house.room.reconcile(case.id, "ada", outcome="maybe", note="?")) == "malformed"
    assert await code_of(house.room.reconcile(case.id, "ada", outcome="failed", note=" ")) == "malformed"
    known = await house.room.reconcile(case.id, "ada", outcome="succeeded", note="It stands in the ledger.")
    assert (known.state, known.why) == (State.SUCCEEDED, "It stands in the ledger.")
    assert house.room.unknown_count == 0
    assert await code_of(house.room.reconcile(case.id, "ada", outcome="failed", note="no")) == "decided"


async def test_a_reconciled_case_does_not_tell_that_nobody_knows(house: House) -> None:
    case = await house.begin(await house.passed())
    case = await house.end(case, Status.UNKNOWN, code="upstream_timeout", message="no answer")
    assert case.state is State.UNKNOWN
    known = await house.room.reconcile(case.id, "ada", outcome="failed", note="Not in the ledger.")
    assert await house.room.ending(known) is None


async def test_what_was_found_of_an_earlier_attempt_says_nothing_of_a_later_one(house: House) -> None:
    case = await house.opened({"quorum": [{"approve": 2}]})
    for person in ("ada", "ben"):
        case = await house.vote(case, person)
    case = await house.end(await house.begin(case), Status.UNKNOWN, code="upstream_timeout", message="no answer")
    case = await house.room.reconcile(case.id, "ada", outcome="failed", note="Not in the ledger.")
    assert case.state is State.UNKNOWN
    not_sent = Ending(code="upstream_failed", detail={"dispatched": "no"})
    await house.writer.write(house.room.end(case, Status.FAILED, not_sent))  # the attempt's own end comes late
    again = await house.room.case(case.id)
    assert again.state is State.APPROVED
    case = await house.end(await house.begin(again), Status.UNKNOWN, code="upstream_timeout", message="no answer")
    case = await house.room.reconcile(case.id, "ben", outcome="failed", note="Not in the ledger.")
    assert (case.state, len(case.findings)) == (State.UNKNOWN, 2)
    case = await house.room.reconcile(case.id, "ada", outcome="failed", note="Still not there.")
    assert (case.state, case.why) == (State.FAILED, "Not in the ledger. Still not there.")


async def test_an_attempt_that_nobody_carries_on_is_lost(house: House) -> None:
    case = await house.begin(await house.passed())
    await house.room.tick()
    assert (await house.room.case(case.id)).state is State.EXECUTING
    house.room.under_way = lambda case_id: False
    await house.room.tick()
    assert (await house.room.case(case.id)).state is State.UNKNOWN
    late = await house.end(case, body=b"{}")  # its own end comes all the same
    assert late.state is State.SUCCEEDED


async def test_what_stands_against_it_now_ends_it(house: House) -> None:
    case = await house.passed()
    gone = await house.room.invalidate(case, code="denied_by_policy", why="A new rule denies it.", rules=("frozen",))
    assert (gone.state, gone.code) == (State.INVALIDATED, "denied_by_policy")
    assert gone.why == "A new rule denies it. (Rule: frozen.)"  # waiting agents are told which
    assert (await house.records(case.id))[-1]["labels"]["rules"] == "frozen"
    assert (await house.meet()).opened
    assert await code_of(house.room.invalidate(case, code="denied_by_policy", why="")) == "decided"


async def test_a_proposal_is_released_once_and_to_one_answer(house: House) -> None:
    proposal = house.action(kind=Kind.TOOL_PROPOSE, parent="answer-1")
    met = await house.room.meet(proposal, TARGET, escalate(), answer_id="answer-1")
    assert met is not None
    case = await house.vote(met.case, "ada")
    ends = await asyncio.gather(
        *(
            code_of(house.room.release(case, proposal, TARGET, escalate(), case.requirement, answer))
            for answer in ("answer-1", "answer-2")
        )
    )
    assert sorted(ends) == ["decided", "not refused"]
    released = await house.room.case(case.id)
    assert (released.state, released.released_to) == (State.SUCCEEDED, "answer-1")
    assert await house.types(case.id) == ["action.requested", "case.approved", "action.decided"]
    same = await house.room.meet(proposal, TARGET, escalate(), answer_id="answer-1")
    assert same is not None
    assert same.case.id == case.id
    other = await house.room.meet(house.action(kind=Kind.TOOL_PROPOSE), TARGET, escalate(), answer_id="answer-2")
    assert other is not None
    assert other.opened
    assert await house.room.meet(house.action(kind=Kind.TOOL_CALL, arguments={"n": 1}), TARGET, ALLOW) is None


@pytest.mark.parametrize("choice", [Choice.APPROVE, Choice.DENY])
async def test_what_runs_or_has_ended_takes_no_vote_and_no_cancel(house: House, choice: Choice) -> None:
    case = await house.done()
    assert await code_of(house.vote(case, "ben", choice)) == "decided"
    assert await code_of(house.room.cancel(case.id, by="ben", why="", person=True)) == "decided"


async def test_only_calls_that_run_on_the_decision_are_resumed(house: House) -> None:
    now = await house.passed(arguments={"n": 1})
    await house.passed({"execute_on": "claim"}, arguments={"n": 2})
    assert await house.room.to_run() == [now.id]


async def test_an_attempt_that_was_given_up_and_began_on_disk_all_the_same_is_made_again(house: House) -> None:
    case = await house.passed()
    house.room.under_way = lambda case_id: False
    house.room.given_up(case)
    await house.begin(case)  # the slow disk has it now, and nobody carries it on
    await house.room.tick()
    again = await house.room.case(case.id)
    assert (again.state, again.fence) == (State.APPROVED, 1)
    assert house.approved == [case.id, case.id]  # whoever carries out is told again
    assert [one.outcome for one in await house.room.attempts(case.id)] == ["not_sent"]
    house.trail.result(case.action, TARGET, escalate(), Result(status=Status.CANCELLED), lambda _: None)
    await house.begin(again)  # but an attempt that is lost later is lost
    await house.room.tick()
    assert (await house.room.case(case.id)).state is State.UNKNOWN
    assert (await house.types(case.id))[-3:] == ["case.reopened", INTENT, "case.unknown"]
