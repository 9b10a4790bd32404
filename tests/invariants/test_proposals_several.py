"""Several calls in one answer: only the risky one waits for people, but the answer leaves as one."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from gateway import escalating
from gateway.approvals.case import Choice, State
from tests.bank_house import Bank
from tests.e2e.upstream import Exchange, Play, Upstream, chunk, completion, usage
from tests.refund_house import GRANTS, MANIFEST, REFUND, Call, Desk, deltas, refund

APPROVE, DENY = Choice.APPROVE, Choice.DENY
GIFT = refund("call_2", "send_gift", to="ada")
SAFE = refund("call_3", "look_up", order="A-1")


@pytest.fixture(params=[False, True], ids=["plain", "stream"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def names(answer: Call) -> list[str]:
    assert answer.status == 200, answer.body
    if answer.headers["content-type"].startswith("text/event-stream"):
        return [name for name, _ in answer.stream.calls]
    return [one["function"]["name"] for one in answer.message.get("tool_calls", ())]


def text(answer: Call) -> str:
    streamed = answer.headers["content-type"].startswith("text/event-stream")
    return answer.stream.text if streamed else answer.message["content"] or ""


async def test_nothing_of_the_answer_leaves_before_both_are_decided(desk: Desk, stream: bool) -> None:
    play = desk.answers(refund(), GIFT, SAFE)
    await desk.told(play, stream=stream)
    first, second = await desk.waiting(2)
    assert [first.tool, second.tool] == ["issue_refund", "send_gift"]
    await desk.vote(first)
    told = await desk.told(play, stream=stream)
    assert (told.status, told.error["case"]) == (409, second.id)
    assert await desk.state(first) is State.APPROVED  # not used up by an answer that did not leave
    await desk.vote(second)
    assert names(await desk.told(play, stream=stream)) == ["issue_refund", "send_gift", "look_up"]
    assert [await desk.state(case) for case in (first, second)] == [State.SUCCEEDED] * 2
    assert len(play.received) == 1


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
async def test_both_decided_within_one_hold(desk: Desk, stream: bool, order: list[int]) -> None:
    await desk.configure(hold_s=10)
    answer = desk.call(desk.answers(refund(), GIFT), stream=stream)
    cases = await desk.waiting(2)
    for index in order:
        assert not answer.begun.is_set()
        await desk.vote(cases[index])
    assert names(await answer.end()) == ["issue_refund", "send_gift"]


async def test_one_approved_and_one_denied(desk: Desk, stream: bool) -> None:
    play = desk.answers(refund(), GIFT)
    await desk.told(play, stream=stream)
    await desk.decide(APPROVE, DENY, guidance="No gifts.")
    answer = await desk.told(play, stream=stream)
    assert names(answer) == ["issue_refund"]
    assert "No gifts." in text(answer)


async def test_the_identical_call_twice_in_one_answer_is_one_case_and_passes_once(desk: Desk, stream: bool) -> None:
    play = desk.answers(refund("call_1"), refund("call_2"))
    await desk.told(play, stream=stream)
    assert len(await desk.waiting()) == 1
    await desk.decide(APPROVE)
    for _ in range(2):
        answer = await desk.told(play, stream=stream)
        assert names(answer) == ["issue_refund"]
        assert "propose it once" in text(answer)
    assert len(await desk.cases()) == 1


async def test_decisions_far_apart_belong_to_one_answer(desk: Desk, stream: bool) -> None:
    """The first is denied long before the second is approved: it stays denied, and nobody is asked twice."""
    play = desk.answers(refund(), GIFT)
    await desk.told(play, stream=stream)
    first, second = await desk.waiting(2)
    await desk.vote(first, DENY, guidance="Ask for the receipt.")
    await desk.pass_time(3600)
    told = await desk.told(play, stream=stream)
    assert (told.status, told.error["case"]) == (409, second.id)
    await desk.vote(second)
    answer = await desk.told(play, stream=stream)
    assert names(answer) == ["send_gift"]
    assert "Ask for the receipt." in text(answer)
    assert len(await desk.cases()) == 2
    assert len(play.received) == 1


async def test_a_rule_that_denies_meanwhile_holds_for_what_was_allowed_before_the_hold(
    desk: Desk, stream: bool
) -> None:
    await desk.configure(hold_s=10)
    answer = desk.call(desk.answers(refund(), SAFE), stream=stream)
    (case,) = await desk.waiting()
    await desk.rule('deny contains {"rule": "closed", "reason": "Closed."} if input.target.id == "desk__look_up"')
    await desk.vote(case)
    assert names(await answer.end()) == ["issue_refund"]
    assert "Closed." in text(answer)


async def test_of_an_open_stream_only_the_risky_call_is_left_out_and_the_rest_is_not_asked_for_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(escalating, "BEAT_S", 0.02)

    def player(exchange: Exchange, play: Play) -> None:
        exchange.begin()
        exchange.event(chunk({"role": "assistant", "content": "Three things. "}))
        play.wait_go()
        for event in (*deltas(refund(), GIFT, SAFE), chunk(None, usage=usage(10, 5))):
            exchange.event(event)
        exchange.send(b"data: [DONE]\n\n")
        exchange.end()

    await desk.configure(hold_s=10)
    play = desk.upstream.plays(player)
    answer = desk.call(play, stream=True)
    await answer.until(b"Three things. ")
    play.go.set()
    first, second = await desk.waiting(2)
    await desk.vote(first)
    await desk.held()
    desk.end_holds()
    found = (await answer.end()).stream
    assert [name for name, _ in found.calls] == ["issue_refund", "look_up"]
    assert f"waiting for approval: case {second.id}" in found.text
    assert (found.finish, found.done) == (["tool_calls"], True)
    assert await desk.state(first) is State.SUCCEEDED
    # Much later the rest is approved: what was given with the first answer is given with the second.
    await desk.pass_time(3600)
    await desk.vote(second)
    again = await desk.told(play, stream=True)
    assert names(again) == ["issue_refund", "send_gift", "look_up"]
    assert len(await desk.cases()) == 2


async def test_a_tool_of_ours_passes_here_and_waits_at_its_own_door(
    bank: Bank, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proposing a transfer is not making one; with the agent's own risky call it waits, as part of the answer."""
    running = bank.running
    with Upstream() as upstream:
        desk = Desk(running.folder, upstream, monkeypatch, running.app)
        (running.folder / "tools_registry" / "desk.yaml").write_text(MANIFEST)
        (running.folder / "policies" / "grants" / "data.yaml").write_text(GRANTS)
        await desk.configure()
        await desk.people()
        ours = refund("call_2", "ledger__transfer", to="acme-gmbh", amount_cents=90_000, reference="INV-9")
        denied = refund("call_3", "ledger__transfer", to="nobody", amount_cents=1, reference="INV-9")
        hidden = refund("call_4", "ledger__close_account")
        play = desk.answers(ours)
        assert names(await desk.told(play, stream=stream)) == ["ledger__transfer"]
        assert await desk.cases() == []

        play = desk.answers(ours, refund(), denied, hidden, SAFE)
        told = await desk.told(play, stream=stream)
        (case,) = await desk.waiting()
        assert (told.status, told.error["case"], case.tool) == (409, case.id, "issue_refund")
        await desk.vote(case)
        answer = await desk.told(play, stream=stream)
        assert names(answer) == ["ledger__transfer", "issue_refund", "look_up"]
        assert "`to` is not the id of a listed payee" in text(answer)
        assert "ledger__close_account was not executed" in text(answer)
        assert bank.transfers() == 0
        await running.app.wire.aclose()


def legacy(desk: Desk) -> Play:
    """A model of before there were tool calls: one function call, plain or streamed."""
    body = completion(None)
    call = {"name": "issue_refund", "arguments": json.dumps(REFUND)}
    body["choices"][0] |= {"message": {"role": "assistant", "content": None, "function_call": call}}
    body["choices"][0]["finish_reason"] = "function_call"
    parts = [{"name": "issue_refund", "arguments": ""}, {"arguments": call["arguments"]}]
    return desk.plays(body, *(chunk({"function_call": part}) for part in parts), chunk({}, finish="function_call"))


def custom(desk: Desk) -> Play:
    """A call whose one argument is free text."""
    call = {"id": "call_1", "type": "custom", "custom": {"name": "issue_refund", "input": "A-1"}}
    body = completion(None, calls=[call])
    return desk.plays(body, chunk({"tool_calls": [{"index": 0, **call}]}), chunk({}, finish="tool_calls"))


@pytest.mark.parametrize("kind", [legacy, custom])
async def test_other_kinds_of_calls_wait_and_pass_as_they_are(
    desk: Desk, stream: bool, kind: Callable[[Desk], Play]
) -> None:
    play = kind(desk)
    assert (await desk.told(play, stream=stream)).status == 409
    await desk.decide(APPROVE)
    given = await desk.told(play, stream=stream)
    assert given.status == 200
    assert b"issue_refund" in given.body
    assert b"was not executed" not in given.body
    await desk.told(other := kind(desk), stream=stream)
    await desk.decide(DENY)
    left_out = await desk.told(other, stream=stream)
    assert "issue_refund was not executed" in text(left_out)
    assert left_out.body.count(b"issue_refund") == 1
    assert b"stop" in left_out.body


async def test_more_calls_than_may_wait_are_left_out_in_words(desk: Desk, stream: bool) -> None:
    config = desk.folder / "gateway.yaml"
    config.write_text(config.read_text().replace("approvals: {", "approvals: {pending_per_agent: 2, "))
    await desk.reload()
    play = desk.answers(*(refund(f"call_{number}", order=f"A-{number}") for number in range(3)))
    await desk.told(play, stream=stream)
    await desk.decide(APPROVE, APPROVE)
    answer = await desk.told(play, stream=stream)
    assert answer.status == 409  # the third has room now
    await desk.decide(APPROVE)
    assert names(await desk.told(play, stream=stream)) == ["issue_refund"] * 3


async def test_a_call_without_a_name_is_never_released_whatever_the_setting(desk: Desk, stream: bool) -> None:
    """Once it was released under `observe`: no rule and no person had seen what it is."""
    await desk.configure(undeclared="observe")
    answer = await desk.told(desk.answers(refund("call_9", ""), refund("call_8", "a b"), SAFE), stream=stream)
    assert names(answer) == ["look_up"]
    assert "A call without a name was not executed: It has no name." in text(answer)
    refused = await desk.records(type="action.refused")
    assert [(one["action"]["kind"], one["decision"]["rules"]) for one in refused] == [
        ("tool.propose", ["proposal_unreadable"])
    ] * 2
