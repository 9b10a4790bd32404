"""Streamed answers whose calls wait for a person: refused as a whole as long as nothing was said, ended well-formed once
something was; the retry is given the stream as it came, with what was approved."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway import answering, escalating
from gateway.approvals.case import Choice, State
from gateway.taping import MAX_KEPT_BYTES
from tests.e2e.upstream import Exchange, Play, chunk, completion, usage
from tests.refund_house import COST_NANOUSD, REFUND, Assembled, Call, Desk, deltas, refund, stream_of

APPROVE, DENY = Choice.APPROVE, Choice.DENY
TEXT = "Let me see. "
CALLS = [("issue_refund", json.dumps(REFUND))]


@pytest.fixture(autouse=True)
def _quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(escalating, "BEAT_S", 0.02)


def says_first(desk: Desk, *events: dict[str, Any], text: str = TEXT) -> Play:
    """A provider that says something, and goes on once the client has heard it."""

    def player(exchange: Exchange, play: Play) -> None:
        exchange.begin()
        exchange.event(chunk({"role": "assistant", "content": ""}))
        exchange.event(chunk({"content": text}))
        play.wait_go()
        for event in (*events, chunk(None, usage=usage(10, 5))):
            exchange.event(event)
        exchange.send(b"data: [DONE]\n\n")
        exchange.end()

    return desk.upstream.plays(player)


async def heard(desk: Desk, play: Play, **more: Any) -> Call:
    """A call whose client has heard the text; then the provider goes on."""
    answer = desk.call(play, stream=True, **more)
    await answer.until(TEXT.encode())
    play.go.set()
    return answer


def whole(answer: Call) -> Assembled:
    """A stream that ended as a client expects it."""
    assert answer.status == 200, answer.body
    assert answer.over
    found = answer.stream
    assert found.done
    assert found.error is None
    return found


async def paid_once(desk: Desk, play: Play) -> None:
    assert len(play.received) == 1
    assert await desk.spent_nanousd() == COST_NANOUSD


# ------------------------------------------------------------ nothing was said yet


async def test_as_long_as_nothing_was_said_the_answer_is_refused_as_a_whole(desk: Desk) -> None:
    play = desk.answers(refund())
    answer = await desk.told(play, stream=True)
    (case,) = await desk.waiting()
    assert (answer.status, answer.headers["content-type"]) == (409, "application/json")
    assert (answer.headers["x-should-retry"], answer.headers["retry-after"]) == ("true", "2")
    assert (answer.error["code"], answer.error["case"]) == ("approval_required", case.id)
    await paid_once(desk, play)
    await desk.vote(case)
    again = await desk.told(play, stream=True)
    assert (whole(again).calls, whole(again).finish, whole(again).text) == (CALLS, ["tool_calls"], "")
    assert again.headers["x-gateway-replayed"] == "true"
    await paid_once(desk, play)


async def test_not_a_byte_is_sent_while_it_is_held_and_all_of_it_after_the_approval(desk: Desk) -> None:
    await desk.configure(hold_s=10)
    play = desk.answers(refund())
    answer = desk.call(play, stream=True)
    (case,) = await desk.waiting()
    await desk.held()
    assert not answer.begun.is_set()
    await desk.vote(case)
    assert whole(await answer.end()).calls == CALLS
    assert whole(answer).comments == 0
    assert "x-gateway-replayed" not in answer.headers
    await paid_once(desk, play)


async def test_the_replay_is_the_stream_as_it_would_have_been(desk: Desk) -> None:
    """Event by event, with the fields that nobody here knows."""
    await desk.configure(hold_s=10)
    events = stream_of({**refund(), "vendor": {"deep": [1, None]}})
    events[0]["choices"][0]["vendor_choice"] = "é"
    play = desk.upstream.streams(*({**event, "service_tier": "flex", "vendor": 2**60} for event in events))
    first = desk.call(play, stream=True)
    await desk.decide(APPROVE)
    await first.end()
    assert (await desk.told(play, stream=True)).body == first.body
    assert first.body.replace(b" ", b"").count(b'"service_tier":"flex"') == first.body.count(b"data: {") == 3
    assert b'"vendor":{"deep":[1,null]}' in first.body


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("text", ["", TEXT])
async def test_usage_is_told_on_a_replay_as_it_is_the_first_time(desk: Desk, wanted: bool, text: str) -> None:
    await desk.configure(hold_s=10)
    options = {"stream_options": {"include_usage": wanted}}
    play = desk.answers(refund(), text=text or None)
    first = desk.call(play, stream=True, **options)
    await desk.decide(APPROVE)
    told = whole(await first.end()).usage
    assert told == (usage(10, 5) if wanted else None)
    assert whole(await desk.told(play, stream=True, **options)).usage == told
    assert json.loads(play.received[0].raw)["stream_options"] == {"include_usage": True}  # the gateway must know
    await paid_once(desk, play)


async def test_a_plain_request_is_not_given_a_kept_stream(desk: Desk) -> None:
    play = desk.answers(refund())
    await desk.told(play, stream=True)
    await desk.decide(APPROVE)
    plain = await desk.told(play)  # another request: it is paid for, and uses the approval
    assert plain.message["tool_calls"] == [refund()]
    assert len(play.received) == 2


# ------------------------------------------------------------ something was said


async def test_comments_keep_it_open_and_then_it_ends_well_formed(desk: Desk) -> None:
    await desk.configure(hold_s=10)
    play = says_first(desk, *deltas(refund()))
    answer = await heard(desk, play)
    (case,) = await desk.waiting()
    await answer.until(b": waiting for approval\n\n" * 3)
    desk.end_holds()
    found = whole(await answer.end())
    assert found.comments >= 3
    assert found.text.startswith(TEXT)
    assert f"not executed, waiting for approval: case {case.id}" in found.text
    assert (found.calls, found.finish) == ([], ["stop"])
    assert await desk.state(case) is State.PENDING
    await paid_once(desk, play)


async def test_what_is_approved_while_it_is_kept_open_follows(desk: Desk) -> None:
    await desk.configure(hold_s=10)
    play = says_first(desk, *deltas(refund()))
    answer = await heard(desk, play)
    await answer.until(b": waiting for approval\n\n")
    await desk.decide(APPROVE)
    found = whole(await answer.end())
    assert (found.text, found.calls, found.finish) == (TEXT, CALLS, ["tool_calls"])
    await paid_once(desk, play)


async def test_after_a_well_formed_end_the_retry_is_told_to_wait_and_then_has_the_whole_stream(desk: Desk) -> None:
    play = says_first(desk, *deltas(refund()))
    await (await heard(desk, play)).end()
    (case,) = await desk.waiting()
    told = await desk.told(play, stream=True)  # its answer is whole, so nothing need be said before the decision
    assert (told.status, told.error["case"]) == (409, case.id)
    await desk.vote(case)
    again = await desk.told(play, stream=True)
    assert (whole(again).text, whole(again).calls, whole(again).finish) == (TEXT, CALLS, ["tool_calls"])
    assert again.headers["x-gateway-replayed"] == "true"
    assert [one.id for one in await desk.cases()] == [case.id]
    await paid_once(desk, play)


async def test_text_after_the_calls_is_not_lost(desk: Desk) -> None:
    """Some models speak on after the finish of a choice, or in another one."""
    more = [chunk({"content": " And more."})]
    more[0]["choices"][0]["index"] = 1
    more.append(chunk({}, finish="stop"))
    more[1]["choices"][0]["index"] = 1
    play = says_first(desk, *deltas(refund()), *more)
    found = whole(await (await heard(desk, play)).end())
    assert " And more." in found.text
    assert found.finish == ["stop", "stop"]


# ------------------------------------------------------------ not approved


@pytest.mark.parametrize("text", ["", TEXT])
@pytest.mark.parametrize("in_hold", [True, False])
async def test_what_is_denied_is_left_out_with_the_guidance_in_its_place(desk: Desk, text: str, in_hold: bool) -> None:
    await desk.configure(hold_s=10 if in_hold else 0.05)
    play = says_first(desk, *deltas(refund())) if text else desk.answers(refund())
    answer = await heard(desk, play) if text else desk.call(play, stream=True)
    if not in_hold:
        await answer.end()
    (case,) = await desk.decide(DENY, guidance="Ask for the receipt first.")
    if not in_hold:
        answer = desk.call(play, stream=True)
    found = whole(await answer.end())
    assert found.text.startswith(text)
    assert "Ask for the receipt first." in found.text
    assert case.id in found.text
    assert (found.calls, found.finish) == ([], ["stop"])
    await paid_once(desk, play)


@pytest.mark.parametrize("text", ["", TEXT])
async def test_what_nobody_decided_in_time_is_left_out(desk: Desk, text: str) -> None:
    await desk.configure(hold_s=10)
    play = says_first(desk, *deltas(refund())) if text else desk.answers(refund())
    answer = await heard(desk, play) if text else desk.call(play, stream=True)
    await desk.waiting()
    await desk.held()
    await desk.pass_time(4 * 3600 + 1)
    found = whole(await answer.end())
    assert "Nobody approved it in time" in found.text
    assert (found.calls, found.finish) == ([], ["stop"])
    await paid_once(desk, play)


# ------------------------------------------------------------ answers that take their time


async def test_an_answer_that_arrives_slowly_is_kept_alive_and_its_case_ends_it_well_formed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Balancers cut a line that is silent for a minute, and a model may write arguments for longer."""
    monkeypatch.setattr(answering, "FIRST_SILENCE_S", 0.05)
    monkeypatch.setattr(answering, "BEAT_S", 0.02)

    def player(exchange: Exchange, play: Play) -> None:
        exchange.begin()
        first, *others = stream_of(refund())[:-1]
        exchange.event(first)
        exchange.event(others[0])
        play.wait_go()
        for event in (*others[1:], chunk(None, usage=usage(10, 5))):
            exchange.event(event)
        exchange.send(b"data: [DONE]\n\n")
        exchange.end()

    play = desk.upstream.plays(player)
    answer = desk.call(play, stream=True)
    await answer.until(b": the answer is arriving\n\n: the answer is arriving\n\n")
    play.go.set()
    found = whole(await answer.end())
    (case,) = await desk.waiting()
    assert (found.calls, found.finish) == ([], ["stop"])
    assert case.id in found.text
    await paid_once(desk, play)
    await desk.vote(case)
    assert whole(await desk.told(play, stream=True)).calls == CALLS


@pytest.mark.parametrize("is_refused", [False, True])
async def test_a_provider_that_takes_long_to_begin_does_not_leave_the_line_silent(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, is_refused: bool
) -> None:
    monkeypatch.setattr(answering, "FIRST_SILENCE_S", 0.05)
    monkeypatch.setattr(answering, "BEAT_S", 0.02)

    def player(exchange: Exchange, play: Play) -> None:
        play.wait_go()
        if is_refused:
            exchange.answer({"error": {"message": "no such model"}}, 404)
            return
        exchange.begin()
        for event in (chunk({"content": "late"}), chunk({}, finish="stop"), chunk(None, usage=usage(10, 5))):
            exchange.event(event)
        exchange.send(b"data: [DONE]\n\n")
        exchange.end()

    play = desk.upstream.plays(player)
    answer = desk.call(play, stream=True)
    await answer.until(b": the answer is arriving\n\n: the answer is arriving\n\n")
    play.go.set()
    await answer.end()
    assert answer.status == 200
    if is_refused:
        assert b"no such model" in answer.body
        assert b'"error"' in answer.body
    else:
        assert whole(answer).text == "late"
    assert len(play.received) == 1


# ------------------------------------------------------------ clients that leave


@pytest.mark.parametrize("on_hang_up", ["drain", "cancel"])
@pytest.mark.parametrize("text", ["", TEXT])
async def test_who_hangs_up_while_held_finds_the_case_and_the_answer_when_it_comes_back(
    desk: Desk, text: str, on_hang_up: str
) -> None:
    """The answer was there, so there was nothing to stop paying for."""
    await desk.configure(hold_s=10, on_hang_up=on_hang_up)
    play = says_first(desk, *deltas(refund())) if text else desk.answers(refund())
    answer = await heard(desk, play) if text else desk.call(play, stream=True)
    (case,) = await desk.waiting()
    await desk.held()
    sent = len(answer.body)
    answer.hang_up()
    retry = desk.call(play, stream=True)
    await desk.held(2)
    await desk.vote(case)
    assert whole(await retry.end()).calls == CALLS
    await answer.end()
    assert b"tool_calls" not in answer.body[sent:]
    assert [one.id for one in await desk.cases()] == [case.id]
    await paid_once(desk, play)
    results = await desk.records(type="action.result")
    assert [(one["result"]["status"], one["result"]["code"]) for one in results] == [("succeeded", "client_left")]


# ------------------------------------------------------------ answers that can't be kept


async def test_an_answer_that_is_too_long_to_keep_says_so_and_costs_what_it_cost(desk: Desk) -> None:
    long = "x" * (MAX_KEPT_BYTES // 4)
    play = desk.upstream.streams(
        *({**event, "vendor": long} for event in stream_of(refund())[1:-1]),
        *({**event, "vendor": long} for event in stream_of(refund("c2"))[1:-1]),
        chunk(None, usage=usage(10, 5)),
    )
    answer = await desk.told(play, stream=True)
    assert (answer.status, answer.error["code"]) == (502, "too_large")
    assert "ask for a shorter one" in answer.error["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert await desk.spent_nanousd() >= COST_NANOUSD
    (result,) = await desk.records(type="action.result")
    assert result["result"]["code"] == "too_large"


async def test_a_plain_answer_that_is_too_long_to_keep_says_so_and_costs_what_it_cost(desk: Desk) -> None:
    play = desk.upstream.answers(completion("x" * MAX_KEPT_BYTES, calls=[refund()]))
    answer = await desk.told(play)
    assert (answer.status, answer.error["code"]) == (502, "too_large")
    assert answer.headers["x-should-retry"] == "false"
    assert await desk.spent_nanousd() == COST_NANOUSD
    (result,) = await desk.records(type="action.result")
    assert result["result"]["code"] == "too_large"


async def test_a_long_answer_that_need_not_wait_passes(desk: Desk) -> None:
    long = "x" * (MAX_KEPT_BYTES // 4)
    calls = deltas(refund(name="look_up"))
    play = desk.upstream.streams(*(chunk({"content": long}) for _ in range(5)), *calls, chunk(None, usage=usage(10, 5)))
    found = whole(await desk.told(play, stream=True))
    assert len(found.text) == 5 * len(long)
    assert [name for name, _ in found.calls] == ["look_up"]


async def test_an_answer_that_breaks_off_asks_nobody_and_the_next_one_does(desk: Desk) -> None:
    cut = [True]

    def player(exchange: Exchange, _: Play) -> None:
        exchange.begin()
        *events, finish = stream_of(refund())[:-1]
        for event in events:
            exchange.event(event)
        if cut.pop() if cut else False:
            exchange.hang_up()
            return
        exchange.event(finish)
        exchange.event(chunk(None, usage=usage(10, 5)))
        exchange.send(b"data: [DONE]\n\n")
        exchange.end()

    play = desk.upstream.plays(player)
    broken = await desk.told(play, stream=True)
    assert (broken.status, broken.error["code"]) == (502, "upstream_failed")
    assert await desk.cases() == []  # nobody knows what else it would have proposed
    told = await desk.told(play, stream=True)
    (case,) = await desk.waiting()
    assert (told.status, told.error["case"]) == (409, case.id)
    await desk.vote(case)
    assert whole(await desk.told(play, stream=True)).calls == CALLS
    assert len(play.received) == 2


# ------------------------------------------------------------ several choices


async def test_one_approval_lets_one_call_pass_however_the_answer_is_cut_up(desk: Desk) -> None:
    """The identical call in two choices, and once more after the finish of the first."""
    play = desk.upstream.streams(
        chunk({"role": "assistant", "content": ""}),
        *deltas(refund("a"), index=0),
        *deltas(refund("b"), index=1),
        *deltas(refund("c"), index=0),
        chunk(None, usage=usage(10, 5)),
    )
    await desk.told(play, stream=True)
    await desk.decide(APPROVE)
    for _ in range(2):
        answer = await desk.told(play, stream=True)
        assert answer.body.count(b'"id":"a"') == 1
        assert b'"id":"b"' not in answer.body
        assert b'"id":"c"' not in answer.body
        assert whole(answer).text.count("propose it once") == 2


async def test_choices_are_held_together_not_one_after_the_other(desk: Desk) -> None:
    await desk.configure(hold_s=10)
    choices = [event for index in range(5) for event in deltas(refund(order=f"A-{index}"), index=index)]
    play = desk.upstream.streams(chunk({"role": "assistant"}), *choices, chunk(None, usage=usage(10, 5)))
    answer = desk.call(play, stream=True)
    await desk.held()
    desk.end_holds()
    assert (await answer.end()).status == 409  # the other four are not held anew, each for as long
    assert len(await desk.waiting(5)) == 5  # people see all of them at once
