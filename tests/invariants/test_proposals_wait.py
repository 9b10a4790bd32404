"""Invariant 4 for what a model proposes: a risky call of the agent's own tools waits inside the answer, which is paid for
once, kept, and released once a person has approved it, to this answer and to no other."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.actions import Effect
from gateway.approvals.case import Choice, State
from tests.e2e.upstream import completion
from tests.refund_house import COST_NANOUSD, REFUND, REVIEWERS, Call, Desk, refund

APPROVE, DENY = Choice.APPROVE, Choice.DENY


def released(answer: Call) -> list[str]:
    """Names of the calls that an answer brings."""
    assert answer.status == 200, answer.body
    return [one["function"]["name"] for one in answer.message.get("tool_calls", ())]


def told_to_come_back(answer: Call, case_id: str) -> None:
    assert answer.status == 409, answer.body
    assert answer.headers["x-should-retry"] == "true"
    assert 0 < int(answer.headers["retry-after"]) <= 120  # more than that and the SDKs take their own
    assert (answer.error["code"], answer.error["case"]) == ("approval_required", case_id)
    assert answer.error["message"].startswith("NOT executed. Waiting for approval")
    assert "x-gateway-replayed" not in answer.headers  # nothing was given


async def paid_once(desk: Desk, play: Any) -> None:
    assert len(play.received) == 1
    assert await desk.spent_nanousd() == COST_NANOUSD


# ------------------------------------------------------------ approved


async def test_what_is_approved_within_the_hold_leaves_with_the_answer(desk: Desk) -> None:
    await desk.configure(hold_s=10)
    play = desk.answers(refund(), text="At once.")
    answer = desk.call(play)
    (case,) = await desk.decide(APPROVE)
    assert released(await answer.end()) == ["issue_refund"]
    assert (answer.finish, answer.message["content"]) == ("tool_calls", "At once.")
    assert "x-gateway-replayed" not in answer.headers
    assert await desk.state(case) is State.SUCCEEDED
    await paid_once(desk, play)


async def test_when_the_hold_is_over_the_client_is_told_to_come_back(desk: Desk) -> None:
    play = desk.answers(refund())
    answer = await desk.told(play)
    (case,) = await desk.waiting()
    told_to_come_back(answer, case.id)
    assert b"tool_calls" not in answer.body
    await paid_once(desk, play)


async def test_the_retry_attaches_and_after_the_approval_has_the_stored_answer(desk: Desk) -> None:
    play = desk.answers(refund())
    await desk.told(play)
    (case,) = await desk.waiting()
    told_to_come_back(await desk.told(play), case.id)
    await desk.decide(APPROVE)
    for _ in range(2):  # the answer to the first may have been lost
        answer = await desk.told(play)
        assert released(answer) == ["issue_refund"]
        assert answer.headers["x-gateway-replayed"] == "true"
    assert [one.id for one in await desk.cases()] == [case.id]
    await paid_once(desk, play)


@pytest.mark.parametrize("stream", [False, True])
async def test_all_who_wait_for_one_answer_get_it(desk: Desk, stream: bool) -> None:
    """A client that timed out and came back is held beside its own former self."""
    await desk.configure(hold_s=10)
    play = desk.answers(refund())
    first = desk.call(play, stream=stream)
    await desk.held()
    retries = [desk.call(play, stream=stream) for _ in range(9)]
    await desk.held(10)
    (case,) = await desk.decide(APPROVE)
    for answer in (first, *retries):
        await answer.end()
        assert answer.status == 200, answer.body
        calls = [name for name, _ in answer.stream.calls] if stream else released(answer)
        assert calls == ["issue_refund"], answer.body
    assert ["x-gateway-replayed" in answer.headers for answer in (first, *retries)] == [False] + [True] * 9
    assert [one.id for one in await desk.cases()] == [case.id]
    await paid_once(desk, play)


async def test_an_undeclared_tool_waits_where_the_setting_says_so(desk: Desk) -> None:
    await desk.configure(undeclared="escalate")
    play = desk.answers(refund(name="run_bash", command="rm -r /"))
    await desk.told(play)
    (case,) = await desk.decide(APPROVE)
    assert (case.target_id, case.risk, case.card.target["declared"]) == ("client__run_bash", "critical", False)
    assert released(await desk.told(play)) == ["run_bash"]
    await paid_once(desk, play)


# ------------------------------------------------------------ not approved


@pytest.mark.parametrize("in_hold", [True, False])
async def test_what_is_denied_is_left_out_with_the_guidance_in_its_place(desk: Desk, in_hold: bool) -> None:
    await desk.configure(hold_s=10 if in_hold else 0.05)
    play = desk.answers(refund(), text="I will refund it.")
    answer = desk.call(play)
    if not in_hold:
        await answer.end()
    (case,) = await desk.decide(DENY, guidance="Ask for the receipt first.")
    if not in_hold:
        answer = desk.call(play)
    assert released(await answer.end()) == []
    text = answer.message["content"]
    assert text.startswith("I will refund it.\n[The call of issue_refund was not executed")
    assert "Ask for the receipt first." in text
    assert case.id in text
    assert answer.finish == "stop"
    assert "Ask for the receipt first." in (await desk.told(play)).message["content"]
    assert [one.id for one in await desk.cases()] == [case.id]
    await paid_once(desk, play)


@pytest.mark.parametrize("in_hold", [True, False])
async def test_what_nobody_decided_in_time_is_left_out(desk: Desk, in_hold: bool) -> None:
    await desk.configure(hold_s=10 if in_hold else 0.05)
    play = desk.answers(refund())
    answer = desk.call(play)
    (case,) = await desk.waiting()
    if not in_hold:
        await answer.end()
    await desk.pass_time(4 * 3600 + 1)
    if not in_hold:
        answer = desk.call(play)
    assert released(await answer.end()) == []
    assert "Nobody approved it in time" in answer.message["content"]
    assert answer.finish == "stop"
    assert await desk.state(case) is State.EXPIRED
    await paid_once(desk, play)


@pytest.mark.parametrize("in_hold", [True, False])
async def test_what_is_cancelled_is_left_out_and_people_are_not_asked_again_at_once(desk: Desk, in_hold: bool) -> None:
    await desk.configure(hold_s=10)
    play = desk.answers(refund())
    answer = desk.call(play)
    (case,) = await desk.waiting()
    if in_hold:
        await desk.held()
    await desk.app.approvals.cancel(case.id, by="rita", why="Done by hand.", person=True)
    assert released(await answer.end()) == []
    assert "Done by hand." in answer.message["content"]
    assert [one.id for one in await desk.cases()] == [case.id]
    assert await desk.types(case=case.id) == ["action.requested", "case.cancelled"]


async def test_what_was_cancelled_is_asked_for_anew_and_not_paid_for_anew(desk: Desk) -> None:
    """And the answer is kept for as long as the new case may take."""
    play = desk.answers(refund())
    await desk.told(play)
    (case,) = await desk.waiting()
    await desk.app.approvals.cancel(case.id, by="rita", why="Another person looks at it.", person=True)
    told = await desk.told(play)
    (new,) = await desk.waiting()
    told_to_come_back(told, new.id)
    await desk.pass_time(3 * 3600)
    await desk.vote(new)
    assert released(await desk.told(play)) == ["issue_refund"]
    await paid_once(desk, play)


# ------------------------------------------------------------ to one answer only


async def test_a_later_answer_that_proposes_the_same_waits_for_an_approval_of_its_own(desk: Desk) -> None:
    first, later = desk.answers(refund()), desk.answers(refund())
    await desk.told(first)
    (used,) = await desk.decide(APPROVE)
    assert released(await desk.told(first)) == ["issue_refund"]
    told = await desk.told(later)
    (new,) = await desk.waiting()
    assert new.id != used.id
    told_to_come_back(told, new.id)
    # The first answer's own retry is given what it was given, whatever becomes of the second case.
    again = await desk.told(first)
    assert released(again) == ["issue_refund"]
    assert again.headers["x-gateway-replayed"] == "true"
    await desk.vote(new, DENY)
    assert released(await desk.told(first)) == ["issue_refund"]
    assert released(await desk.told(later)) == []
    assert len(await desk.cases()) == 2


async def test_an_approval_that_no_answer_has_used_is_for_the_next_that_proposes_the_same(desk: Desk) -> None:
    """The model is told to propose it again later, in another request."""
    first, later = desk.answers(refund()), desk.answers(refund())
    await desk.told(first)
    await desk.decide(APPROVE)
    assert released(await desk.told(later)) == ["issue_refund"]
    assert (await desk.told(first)).status == 409
    assert len(await desk.waiting()) == 1


async def test_two_answers_that_wait_for_one_approval_have_one_winner(desk: Desk) -> None:
    await desk.configure(hold_s=10)
    answers = [desk.call(desk.answers(refund())) for _ in range(2)]
    await desk.held(2)
    (case,) = await desk.decide(APPROVE)
    (other,) = await desk.waiting()  # the loser asks anew
    assert other.id != case.id
    winners = [answer for answer in answers if answer.over]
    assert len(winners) == 1
    await desk.decide(APPROVE)
    for answer in answers:
        assert released(await answer.end()) == ["issue_refund"]


async def test_another_agent_has_no_part_in_the_answer_or_its_approval(desk: Desk) -> None:
    play = desk.answers(refund())
    await desk.told(play)
    await desk.decide(APPROVE)
    _, desk.key = await desk.app.registry.keys.create("writer", person="operator")
    answer = await desk.told(play)
    (case,) = await desk.waiting()
    assert case.agent_id == "writer"
    told_to_come_back(answer, case.id)
    assert len(play.received) == 2


# ------------------------------------------------------------ the kept answer


async def test_unknown_fields_of_the_answer_survive_keeping_and_releasing(desk: Desk) -> None:
    call = {**refund(), "vendor_call": {"deep": [1, 2.5, None]}}
    body = completion("So.", calls=[call], service_tier="flex", vendor={"x": "é\u2028", "big": 2**60})
    body["choices"][0]["vendor_choice"] = True
    body["choices"][0]["message"]["refusal"] = None
    body["usage"]["completion_tokens_details"] = {"reasoning_tokens": 3}
    play = desk.upstream.answers(body)
    await desk.told(play)
    await desk.decide(APPROVE)
    assert (await desk.told(play)).json == body
    assert (await desk.told(play)).json == body


async def test_a_budget_that_is_used_up_does_not_stand_between_a_client_and_what_it_paid_for(desk: Desk) -> None:
    play = desk.answers(refund())
    await desk.told(play)
    await desk.decide(APPROVE)
    await desk.configure(usd="0.00002")
    assert (await desk.told(desk.answers())).error["code"] == "budget_exhausted"
    assert released(await desk.told(play)) == ["issue_refund"]
    await paid_once(desk, play)


async def test_a_request_that_differs_in_one_byte_is_another_request(desk: Desk) -> None:
    play = desk.answers(refund())
    await desk.told(play)
    (case,) = await desk.waiting()
    told_to_come_back(await desk.told(play, temperature=0), case.id)  # asked anew, and the same call: the same case
    assert len(play.received) == 2


async def test_an_answer_is_not_kept_for_longer_than_it_may_be_released(desk: Desk) -> None:
    play = desk.answers(refund())
    await desk.told(play)
    await desk.decide(APPROVE)
    await desk.pass_time(4 * 3600 + 1)
    assert released(await desk.told(play)) == []  # what was approved was not fetched in time
    await desk.pass_time(901)
    assert (await desk.told(play)).status == 409  # a new answer, a new case
    assert len(play.received) == 2
    assert [one.state for one in await desk.cases()] == [State.PENDING, State.EXPIRED]
    kept = await desk.app.writer.read(lambda db: db.execute("SELECT count(*) FROM kept_answer").fetchone())
    assert kept == (1,)


async def test_an_answer_is_kept_for_the_replay_window_after_its_release(desk: Desk) -> None:
    play = desk.answers(refund())
    await desk.told(play)
    await desk.decide(APPROVE)
    assert released(await desk.told(play)) == ["issue_refund"]
    await desk.pass_time(890)
    assert released(await desk.told(play)) == ["issue_refund"]
    await desk.pass_time(20)
    assert (await desk.told(play)).status == 409
    assert len(play.received) == 2


# ------------------------------------------------------------ limits, records


async def test_the_hold_takes_none_of_the_places_of_the_agent(desk: Desk) -> None:
    await desk.configure(hold_s=10, concurrency=1)
    play, slow = desk.answers(refund()), desk.upstream.holds(completion("Slow."))
    held = desk.call(play)
    await desk.held()
    busy = desk.call(slow)
    await asyncio.to_thread(slow.wait_arrived)
    assert (await desk.told(desk.answers())).error["code"] == "rate_limited"  # the place is taken, but not by the hold
    slow.go.set()
    assert released(await busy.end()) == []
    retry = desk.call(play)
    await desk.held(2)
    await desk.decide(APPROVE)
    assert released(await held.end()) == released(await retry.end()) == ["issue_refund"]
    assert released(await desk.told(desk.answers())) == []


async def test_every_step_of_a_proposal_is_on_record_once(desk: Desk) -> None:
    play = desk.answers(refund(), refund("call_2", "look_up"), refund("call_3", "shred"))
    asked = await desk.told(play)
    (case,) = await desk.waiting()
    await desk.vote(case, reason="Seen the receipt.")
    given = await desk.told(play)
    assert released(given) == ["issue_refund", "look_up"]

    model = asked.headers["x-gateway-action"]
    assert await desk.types(action=model) == ["action.intent", "action.result"]
    (result,) = await desk.records(action=model, type="action.result")
    assert (result["result"]["status"], result["result"]["code"]) == ("succeeded", "approval_required")
    assert (result["cost"]["usd"], result["cost"]["estimated"]) == ("0.00002", False)
    again = given.headers["x-gateway-action"]
    (replay,) = await desk.records(action=again)
    assert (replay["type"], replay["labels"]["replayed"], replay["cost"]) == ("action.decided", "yes", None)

    proposals = [record for record in await desk.records(kind="tool.propose") if record["type"].startswith("action.")]
    by_tool = {
        tool: [record["type"] for record in proposals if record["action"]["tool"] == tool]
        for tool in ("issue_refund", "look_up", "shred")
    }
    assert by_tool == {
        "issue_refund": ["action.requested", "action.decided"],
        "look_up": ["action.decided", "action.decided"],
        "shred": ["action.refused", "action.refused"],
    }
    assert {record["refs"]["parent"] for record in proposals} <= {model, again}
    assert len({record["action"]["id"] for record in proposals}) == len(proposals)
    of_case = await desk.records(case=case.id)
    assert [record["type"] for record in of_case] == ["action.requested", "case.approved", "action.decided"]
    assert of_case[1]["actor"]["user"] == "rita"
    assert of_case[1]["labels"]["presented_digest"] == case.presented_digest


async def test_a_retry_that_waited_and_was_then_given_the_answer_was_not_refused(desk: Desk) -> None:
    await desk.configure(hold_s=10)
    play = desk.answers(refund())
    first = desk.call(play)
    await desk.held()
    retry = desk.call(play)
    await desk.held(2)
    await desk.decide(APPROVE)
    await first.end()
    assert released(await retry.end()) == ["issue_refund"]
    assert await desk.types(kind="tool.propose", type="action.refused") == []


# ------------------------------------------------------------ the same answer, other arguments


async def test_an_id_of_64_bits_is_shown_and_released_with_all_its_digits(desk: Desk) -> None:
    """RFC 8785 has no form for it, so digests and cards have their own."""
    play = desk.answers(refund("call_1", order=2**60 + 1), refund("call_2", "look_up", order=2**63), text="Both.")
    waiting = desk.call(play)
    await desk.held()
    (case,) = await desk.cases()
    assert case.card.arguments["order"] == 2**60 + 1
    await desk.decide(APPROVE)
    answer = await waiting.end()
    assert released(answer) == ["issue_refund", "look_up"]
    orders = [json.loads(call["function"]["arguments"])["order"] for call in answer.message["tool_calls"]]
    assert orders == [2**60 + 1, 2**63]
    await paid_once(desk, play)


async def test_what_policy_allows_meanwhile_needs_no_person_and_its_case_ends(desk: Desk) -> None:
    play = desk.answers(refund())
    await desk.told(play)
    (case,) = await desk.waiting()
    await desk.rule(
        'allow contains {"rule": "spring", "reason": "Refunds are free now."} if input.target.id == "desk__issue_refund"'
    )
    answer = await desk.told(play)
    assert released(answer) == ["issue_refund"]
    assert await desk.state(case) is State.SUCCEEDED
    await paid_once(desk, play)
    (decided,) = await desk.records(kind="tool.propose", type="action.decided")
    assert decided["decision"]["effect"] == Effect.ALLOW


async def test_a_quorum_counts_persons_before_the_answer_leaves(desk: Desk) -> None:
    await desk.rule(
        'escalate contains {"rule": "four_eyes", "reason": "Two.", "obligations": [{"approval": {"quorum": [{"approve": 2}]}}]}'
        ' if input.target.id == "desk__issue_refund"'
    )
    play = desk.answers(refund())
    await desk.told(play)
    (case,) = await desk.waiting()
    await desk.vote(case, person=REVIEWERS[0])
    assert (await desk.told(play)).status == 409
    await desk.vote(case, person=REVIEWERS[1])
    assert released(await desk.told(play)) == ["issue_refund"]
    assert case.action.arguments == REFUND


async def test_under_the_name_of_the_gateways_own_tool_nothing_else_passes(desk: Desk) -> None:
    answer = await desk.told(desk.answers(refund(name="gateway__approval_status", cmd="rm -rf /")))
    assert released(answer) == []


async def test_a_proposed_call_of_the_gateways_own_tool_reaches_the_agent(desk: Desk) -> None:
    name = "gateway__approval_status"
    answer = await desk.told(desk.answers(refund(name=name, case_id="c")))
    assert released(answer) == [name]
    (decided,) = await desk.records(type="action.decided", kind="tool.propose")
    assert (decided["decision"]["effect"], decided["decision"]["rules"]) == ("allow", ["own_case"])
