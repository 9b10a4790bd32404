"""What changes between a vote and the moment at which the answer leaves: policy is asked on what is so then, and nothing
that was approved leaves to an agent that may not act."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.approvals.case import Choice, State
from gateway.identity import Role
from tests.e2e.upstream import Exchange, Play, chunk, usage
from tests.refund_house import COST_NANOUSD, MANIFEST, REFUND, Call, Desk, deltas, refund

APPROVE, DENY = Choice.APPROVE, Choice.DENY
CLOSED = 'deny contains {"rule": "closed", "reason": "Refunds are closed."} if input.target.id == "desk__issue_refund"'
FOUR_EYES = (
    'escalate contains {"rule": "four_eyes", "reason": "Two must agree.",'
    ' "obligations": [{"approval": {"quorum": [{"approve": 2}]}}]} if input.target.id == "desk__issue_refund"'
)


@pytest.fixture(params=[False, True], ids=["plain", "stream"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def is_streamed(answer: Call) -> bool:
    return answer.headers["content-type"].startswith("text/event-stream")


def calls(answer: Call) -> list[str]:
    assert answer.status == 200, answer.body
    if is_streamed(answer):
        return [name for name, _ in answer.stream.calls]
    return [one["function"]["name"] for one in answer.message.get("tool_calls", ())]


def text(answer: Call) -> str:
    return answer.stream.text if is_streamed(answer) else answer.message["content"] or ""


async def approved(desk: Desk, play: Play, **more: Any) -> Any:
    """A case that was approved after the hold was over."""
    assert (await desk.told(play, **more)).status == 409
    (case,) = await desk.decide(APPROVE)
    return case


# ------------------------------------------------------------ policy


async def test_a_deny_rule_of_meanwhile_wins_over_the_vote_of_now(desk: Desk, stream: bool) -> None:
    await desk.configure(hold_s=10)
    play = desk.answers(refund())
    answer = desk.call(play, stream=stream)
    (case,) = await desk.waiting()
    await desk.rule(CLOSED)
    await desk.vote(case)
    assert calls(await answer.end()) == []
    assert "Refunds are closed." in text(answer)
    assert await desk.state(case) is State.INVALIDATED
    types = await desk.types(case=case.id)
    assert types == ["action.requested", "case.approved", "case.invalidated"]
    (refused,) = await desk.records(kind="tool.propose", type="action.refused")
    assert (refused["result"]["code"], refused["decision"]["rules"]) == ("denied_by_policy", ["closed"])


async def test_a_deny_rule_of_meanwhile_wins_over_the_vote_of_before(desk: Desk, stream: bool) -> None:
    play = desk.answers(refund())
    case = await approved(desk, play, stream=stream)
    await desk.rule(CLOSED)
    answer = await desk.told(play, stream=stream)
    assert calls(answer) == []
    assert "Refunds are closed." in text(answer)
    assert await desk.state(case) is State.INVALIDATED
    # The rule goes, and the approval does not come back with that.
    await desk.rule("")
    assert (await desk.told(play, stream=stream)).status == 409
    (new,) = await desk.waiting()
    assert new.id != case.id
    assert len(play.received) == 1


async def test_a_deny_rule_while_it_waits_leaves_the_case_to_people(desk: Desk) -> None:
    play = desk.answers(refund())
    await desk.told(play)
    (case,) = await desk.waiting()
    await desk.rule(CLOSED)
    assert calls(await desk.told(play)) == []
    await desk.rule("")
    assert (await desk.told(play)).error["case"] == case.id
    await desk.vote(case)
    assert calls(await desk.told(play)) == ["issue_refund"]


async def test_what_asks_for_more_people_now_waits_for_them(desk: Desk, stream: bool) -> None:
    play = desk.answers(refund())
    case = await approved(desk, play, stream=stream)
    await desk.rule(FOUR_EYES)
    told = await desk.told(play, stream=stream)
    assert (told.status, told.error["case"]) == (409, case.id)
    (shown,) = await desk.waiting()
    await desk.vote(shown, person="rita")
    assert (await desk.told(play, stream=stream)).status == 409
    await desk.vote(shown, person="rob")
    assert calls(await desk.told(play, stream=stream)) == ["issue_refund"]
    assert len(play.received) == 1


async def test_who_is_held_waits_on_where_more_people_are_asked_for(desk: Desk, stream: bool) -> None:
    await desk.configure(hold_s=10)
    answer = desk.call(desk.answers(refund()), stream=stream)
    (case,) = await desk.waiting()
    await desk.rule(FOUR_EYES)
    await desk.vote(case)
    await desk.until(lambda: desk.app.approvals.pending_count)
    (shown,) = await desk.waiting()
    assert (shown.id, shown.requirement.quorum[0].approve) == (case.id, 2)
    assert not answer.begun.is_set()
    for person in ("rita", "rob"):
        await desk.vote(shown, person=person)
    assert calls(await answer.end()) == ["issue_refund"]


async def test_a_reviewer_who_is_none_any_more_does_not_count(desk: Desk) -> None:
    play = desk.answers(refund())
    case = await approved(desk, play)
    await desk.app.registry.people.update("rita", by="operator", roles=[Role.AUDITOR])
    told = await desk.told(play)
    assert (told.status, told.error["case"]) == (409, case.id)
    (shown,) = await desk.waiting()
    await desk.vote(shown, person="rob")
    assert calls(await desk.told(play)) == ["issue_refund"]


async def test_a_manifest_that_says_other_things_is_shown_again(desk: Desk) -> None:
    play = desk.answers(refund())
    case = await approved(desk, play)
    manifest = MANIFEST.replace("issue_refund: {risk: high", "issue_refund: {risk: critical")
    (desk.folder / "tools_registry" / "desk.yaml").write_text(manifest)
    await desk.reload()
    assert (await desk.told(play)).status == 409
    (shown,) = await desk.waiting()
    assert (shown.id, shown.card.target["risk"]) == (case.id, "critical")
    await desk.vote(shown)
    assert calls(await desk.told(play)) == ["issue_refund"]


async def test_what_was_allowed_before_the_hold_and_asks_for_people_now_waits_for_them(
    desk: Desk, stream: bool
) -> None:
    """Also twice: then a person approves one."""
    await desk.configure(hold_s=10)
    looks = [refund(f"call_{number}", "look_up", order="A-1") for number in (2, 3)]
    answer = desk.call(desk.answers(refund(), *looks), stream=stream)
    (first,) = await desk.waiting()
    await desk.rule(FOUR_EYES.replace("issue_refund", "look_up").replace('"approve": 2', '"approve": 1'))
    await desk.vote(first)
    await desk.until(lambda: desk.app.approvals.pending_count)
    (second,) = await desk.waiting()
    assert second.tool == "look_up"
    await desk.vote(second)
    assert calls(await answer.end()) == ["issue_refund", "look_up"]
    assert "propose it once" in text(answer)


# ------------------------------------------------------------ the agent


async def test_suspended_while_it_is_held_it_hears_that_and_nothing_leaves(desk: Desk, stream: bool) -> None:
    await desk.configure(hold_s=10)
    play = desk.answers(refund())
    answer = desk.call(play, stream=stream)
    (case,) = await desk.waiting()
    await desk.held()
    await desk.app.registry.agents.suspend("reader", person="operator", reason="Odd.")
    await answer.end()
    assert (answer.status, answer.error["code"]) == (403, "agent_suspended")
    assert b"tool_calls" not in answer.body
    (result,) = await desk.records(type="action.result")
    assert result["result"]["code"] == "agent_suspended"
    await desk.app.registry.agents.resume("reader", person="operator", reason="Fine.")
    await desk.vote(case)
    assert calls(await desk.told(play, stream=stream)) == ["issue_refund"]
    assert len(play.received) == 1
    assert await desk.spent_nanousd() == COST_NANOUSD


async def test_suspended_while_a_stream_is_kept_open_it_ends_with_an_error(desk: Desk) -> None:
    def player(exchange: Exchange, play: Play) -> None:
        exchange.begin()
        exchange.event(chunk({"role": "assistant", "content": "Let me see."}))
        play.wait_go()
        for event in (*deltas(refund()), chunk(None, usage=usage(10, 5))):
            exchange.event(event)
        exchange.send(b"data: [DONE]\n\n")
        exchange.end()

    await desk.configure(hold_s=10)
    play = desk.upstream.plays(player)
    answer = desk.call(play, stream=True)
    await answer.until(b"Let me see.")
    play.go.set()
    await desk.waiting()
    await desk.held()
    await desk.app.registry.agents.suspend("reader", person="operator", reason="Odd.")
    await answer.end()
    error = answer.stream.error
    assert error is not None
    assert error["code"] == "agent_suspended"
    assert b"tool_calls" not in answer.body
    assert b"[DONE]" not in answer.body
    results = await desk.records(type="action.result")
    assert [one["result"]["code"] for one in results] == ["agent_suspended"]
    assert await desk.spent_nanousd() == COST_NANOUSD


async def test_suspended_after_the_vote_it_hears_that_and_the_approval_is_not_used(desk: Desk) -> None:
    play = desk.answers(refund())
    case = await approved(desk, play)
    await desk.app.registry.agents.suspend("reader", person="operator", reason="Odd.")
    answer = await desk.told(play)
    assert (answer.status, answer.error["code"]) == (403, "agent_suspended")
    await desk.app.registry.agents.resume("reader", person="operator", reason="Fine.")
    assert await desk.state(case) is State.APPROVED
    assert calls(await desk.told(play)) == ["issue_refund"]


async def test_a_held_retry_of_a_suspended_agent_is_on_record_as_refused(desk: Desk) -> None:
    play = desk.answers(refund())
    await desk.told(play)
    await desk.configure(hold_s=10)
    answer = desk.call(play)
    await desk.held()
    await desk.app.registry.agents.suspend("reader", person="operator", reason="Odd.")
    await answer.end()
    assert (answer.status, answer.error["code"]) == (403, "agent_suspended")
    assert "x-gateway-replayed" not in answer.headers
    types = await desk.types(action=answer.headers["x-gateway-action"])
    assert types == ["action.decided", "action.refused"]


# ------------------------------------------------------------ the gateway


async def test_stopped_while_it_is_held_the_client_comes_back_to_its_answer_after_the_restart(
    desk: Desk, stream: bool
) -> None:
    await desk.configure(hold_s=10)
    play = desk.answers(refund())
    answer = desk.call(play, stream=stream)
    (case,) = await desk.waiting()
    await desk.held()
    await desk.restart()
    await answer.end()
    assert (answer.status, answer.error["code"]) == (503, "stopping")
    assert answer.headers["x-should-retry"] == "true"
    await desk.vote(case)
    again = await desk.told(play, stream=stream)
    assert calls(again) == ["issue_refund"]
    assert again.headers["x-gateway-replayed"] == "true"
    assert len(play.received) == 1
    assert await desk.spent_nanousd() == COST_NANOUSD
    results = await desk.records(type="action.result")
    assert [(one["result"]["status"], one["result"]["code"]) for one in results] == [("failed", "stopping")]


async def test_stopped_while_a_stream_is_kept_open_it_ends_well_formed(desk: Desk) -> None:
    def player(exchange: Exchange, play: Play) -> None:
        exchange.begin()
        exchange.event(chunk({"role": "assistant", "content": "Let me see."}))
        play.wait_go()
        for event in (*deltas(refund()), chunk(None, usage=usage(10, 5))):
            exchange.event(event)
        exchange.send(b"data: [DONE]\n\n")
        exchange.end()

    await desk.configure(hold_s=10)
    play = desk.upstream.plays(player)
    answer = desk.call(play, stream=True)
    await answer.until(b"Let me see.")
    play.go.set()
    (case,) = await desk.waiting()
    await desk.held()
    await desk.restart()
    found = (await answer.end()).stream
    assert f"not executed, waiting for approval: case {case.id}" in found.text
    assert (found.finish, found.done, found.error) == (["stop"], True, None)
    await desk.vote(case)
    assert (await desk.told(play, stream=True)).stream.calls == [("issue_refund", json.dumps(REFUND))]
    assert await desk.spent_nanousd() == COST_NANOUSD
    assert len(play.received) == 1
