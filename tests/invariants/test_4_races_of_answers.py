"""Invariant 4 under races for what a model proposes: an approval lets one answer pass, whoever comes when. Each race is
walked through every order of its steps (`tests/interleaving.py`)."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from gateway.approvals.case import Case, Choice, State
from gateway.errors import Refusal
from tests.e2e.upstream import Play
from tests.interleaving import Orders, Turns
from tests.refund_house import Call, Desk, refund

DENY = Choice.DENY
TTL_S = 4 * 3600


@pytest.fixture
async def turns(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Turns:
    await desk.configure(hold_s=20)
    turns = Turns(monkeypatch)
    turns.count(desk.app.writer, "submit")
    turns.count(desk.app.writer, "read")
    return turns


async def told(desk: Desk, play: Play) -> Call:
    return await desk.told(play)


async def waits(desk: Desk, order: Orders) -> tuple[Play, Case, Call]:
    """A new answer that proposes a call of its own, with its case and the caller who is held."""
    play = desk.answers(refund(order=f"R-{order.rounds}"))
    held = desk.call(play)
    (case,) = await desk.waiting()
    await desk.held()
    return play, case, held


def brings(answer: Call) -> bool:
    """Whether the call leaves with the answer."""
    assert answer.status == 200, answer.body
    return "tool_calls" in answer.message


@pytest.mark.parametrize("choice", list(Choice))
async def test_a_retry_around_the_vote_brings_what_the_first_answer_brings(
    desk: Desk, turns: Turns, choice: Choice
) -> None:
    turns.watch(desk.app.approvals, "_find")
    for name in ("case", "decided"):
        turns.watch(desk.app.trail, name)
    for order in Orders():
        play, case, held = await waits(desk, order)
        came = await turns.race(order, retry=partial(told, desk, play), vote=partial(desk.vote, case, choice))
        assert brings(await held.end()) == brings(came["retry"]) == (choice is not DENY)
        assert await desk.state(case) is (State.DENIED if choice is DENY else State.SUCCEEDED)
        assert len(play.received) == 1
        assert await desk.cases("open") == []


async def test_one_approval_is_for_one_of_two_answers_and_the_other_asks_anew(desk: Desk, turns: Turns) -> None:
    turns.watch(desk.app.approvals, "_find")
    for name in ("requested", "decided"):
        turns.watch(desk.app.trail, name)
    for order in Orders():
        name = f"R-{order.rounds}"
        plays = [desk.answers(refund(order=name)) for _ in range(2)]
        decider = asyncio.create_task(decide_twice(desk))
        came = await turns.race(order, one=partial(told, desk, plays[0]), two=partial(told, desk, plays[1]))
        approved, denied = await decider
        assert sorted([brings(came["one"]), brings(came["two"])]) == [False, True]
        used = await desk.app.approvals.case(approved.id)
        winner = came["one"] if brings(came["one"]) else came["two"]
        assert (used.state, used.released_to) == (State.SUCCEEDED, winner.headers["x-gateway-action"])
        assert await desk.state(denied) is State.DENIED


async def decide_twice(desk: Desk) -> tuple[Case, Case]:
    """Approve the first case that comes, and deny the next."""
    (first,) = await desk.waiting()
    await desk.vote(first)
    while not (found := [case for case in await desk.cases("pending") if case.id != first.id]):
        await asyncio.sleep(0.001)
    await desk.vote(found[0], DENY)
    return first, found[0]


async def test_an_answer_around_the_end_of_the_time_leaves_with_the_call_or_without(desk: Desk, turns: Turns) -> None:
    turns.watch(desk.app.approvals, "_find")
    for name in ("case", "decided"):
        turns.watch(desk.app.trail, name)
    ends = set()
    for order in Orders():
        _, case, held = await waits(desk, order)
        came = await turns.race(order, clock=partial(desk.pass_time, TTL_S + 1), vote=partial(desk.vote, case))
        brought = brings(await held.end())
        state = await desk.state(case)
        ends.add(state)
        assert state is (State.SUCCEEDED if brought else State.EXPIRED)
        if isinstance(came["vote"], Refusal):
            assert came["vote"].code == "decided"
            assert not brought
    assert ends == {State.SUCCEEDED, State.EXPIRED}


async def test_a_suspension_around_the_release_lets_all_of_it_pass_or_nothing(
    desk: Desk, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns.watch(desk.app.log, "append")
    agents = desk.app.registry.agents
    ends = set()
    for order in Orders():
        with monkeypatch.context() as hasty:  # so that only the retry waits
            hasty.setattr(desk.app.governor.escalating, "_hold_s", lambda: 0.001)
            play = desk.answers(refund(order=f"R-{order.rounds}"))
            assert (await desk.told(play)).status == 409
        (case,) = await desk.decide(Choice.APPROVE)
        came = await turns.race(
            order,
            operator=partial(agents.suspend, "reader", person="operator", reason="Odd."),
            retry=partial(told, desk, play),
        )
        ends.add(came["retry"].status)
        if came["retry"].status == 200:
            assert brings(came["retry"])
        else:
            assert came["retry"].error["code"] == "agent_suspended"
        await agents.resume("reader", person="operator", reason="Fine.")
        assert brings(await desk.told(play))
        assert await desk.state(case) is State.SUCCEEDED
        assert len(play.received) == 1
    assert ends == {200, 403}


async def test_an_operator_who_ends_the_case_around_the_release_is_in_time_or_too_late(
    desk: Desk, turns: Turns
) -> None:
    turns.watch(desk.app.approvals, "_find")
    for name in ("case", "decided"):
        turns.watch(desk.app.trail, name)
    cancel = desk.app.approvals.cancel
    ends = set()
    for order in Orders():
        _, case, held = await waits(desk, order)
        came = await turns.race(
            order,
            operator=partial(cancel, case.id, by="rob", why="Not now.", person=True),
            vote=partial(desk.vote, case),
        )
        brought = brings(await held.end())
        state = await desk.state(case)
        ends.add(state)
        assert brought == isinstance(came["operator"], Refusal)
        assert state is (State.SUCCEEDED if brought else State.CANCELLED)
        assert brought or "Not now." in held.message["content"]
    assert ends == {State.SUCCEEDED, State.CANCELLED}
