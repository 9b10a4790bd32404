"""An action in flight: who listens, who may end it, and when it is too late for that."""

from __future__ import annotations

import asyncio

import pytest

from gateway.actions import Action, Agent, Caller, Kind, Reply, Session, Trace
from gateway.errors import Refusal
from gateway.running import TELL_S, Running

SUSPENDED = Refusal("agent_suspended", "Suspended.")


class Listener:
    """A connection; `stuck` takes nothing any more."""

    def __init__(self, *, stuck: bool = False) -> None:
        self.heard: list[bytes] = []
        self.told: list[str] = []
        self.stuck = stuck

    async def head(self, status: int, headers: dict[str, str]) -> None:
        self.heard.append(b"head")

    async def chunk(self, data: bytes) -> None:
        if self.stuck:
            await asyncio.Event().wait()
        self.heard.append(data)

    async def error(self, refusal: Refusal) -> None:
        if self.stuck:
            await asyncio.Event().wait()
        self.told.append(refusal.code)


def running(listener: Listener | None = None) -> Running:
    caller = Caller(Agent(id="reader"), None, "credential", "key")
    action = Action(
        id="a",
        kind=Kind.MODEL_INVOKE,
        door="openai.chat",
        caller=caller,
        session=Session("s", "minted"),
        trace=Trace("0" * 32, "0" * 16),
        target="demo",
        request_id="r",
        received_ns=0,
        stream=True,
    )
    return Running(action, listener)


async def relay(one: Running, *, drain_s: float, more: asyncio.Event) -> Reply | None:
    one.perform(drain_s)
    one.begin(200, {})
    await one.send(b"first")
    await more.wait()
    await one.send(b"last")
    one.close()
    return None


def begin(one: Running, *, drain_s: float = 0.0) -> asyncio.Event:
    more = asyncio.Event()
    one.task = asyncio.create_task(relay(one, drain_s=drain_s, more=more))
    return more


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_cancelling_who_waits_does_not_cancel_the_action() -> None:
    one = running(listener := Listener())
    more = begin(one)
    waiter = asyncio.create_task(one.reply())
    await turns()
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    more.set()
    await one.reply()
    assert listener.heard == [b"head", b"first", b"last"]


async def test_who_left_is_sent_nothing_more_and_the_stream_is_read_to_its_end() -> None:
    one = running(listener := Listener())
    more = begin(one, drain_s=60)
    await turns()
    one.leave()
    more.set()
    await one.reply()
    assert listener.heard == [b"head", b"first"]
    assert one.interrupted is None


async def test_who_left_ends_a_stream_that_is_not_read_on() -> None:
    one = running(Listener())
    begin(one, drain_s=0)
    await turns()
    one.leave()
    assert one.task is not None
    await asyncio.wait({one.task})
    assert one.task.cancelled()
    assert one.interrupted is not None
    assert one.interrupted.code == "client_left"


async def test_reading_on_has_its_time() -> None:
    one = running(Listener())
    begin(one, drain_s=0.01)
    await turns()
    one.leave()
    assert one.task is not None
    await asyncio.wait({one.task})
    assert one.task.cancelled()


async def test_who_is_stuck_is_not_read_on_for() -> None:
    one = running(Listener(stuck=True))
    begin(one, drain_s=60)
    await turns()
    one.leave(at_once=True)
    assert one.task is not None
    await asyncio.wait({one.task})
    assert one.task.cancelled()


async def test_what_was_ended_before_it_was_begun_certainly_never_got_there() -> None:
    one = running()
    one.abort(SUSPENDED)
    begin(one)
    with pytest.raises(Refusal) as refused:
        await one.reply()
    assert refused.value.code == "agent_suspended"
    assert refused.value.detail == {"dispatched": "no"}


async def test_an_answer_that_is_complete_can_not_be_interrupted_any_more() -> None:
    one = running(Listener())
    begin(one).set()
    await one.reply()
    one.abort(SUSPENDED)
    assert one.task is not None
    assert not one.task.cancelled()


async def test_the_first_reason_stands() -> None:
    one = running()
    one.abort(SUSPENDED)
    one.abort(Refusal("stopping", "Later."))
    assert one.interrupted is SUSPENDED


async def test_telling_somebody_who_takes_nothing_ends_in_time() -> None:
    one = running(listener := Listener(stuck=True))
    async with asyncio.timeout(TELL_S * 10):
        await one.fail(SUSPENDED)
    listener.stuck = False
    await one.fail(SUSPENDED)
    assert listener.told == ["agent_suspended"]
