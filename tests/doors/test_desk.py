from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from gateway.actions import Agent, Caller, Session
from gateway.clock import Ids, SystemClock
from gateway.doors.desk import Desk, Message
from gateway.errors import Refusal
from gateway.telemetry import trace_parser

CALLER = Caller(Agent(id="reader"), None, "credential", "key")


class OneCaller:
    def identify(self, _: Iterable[tuple[bytes, bytes]]) -> Caller:
        return CALLER


def find_session(
    headers: dict[bytes, bytes], path_session: str | None, trace_id: str | None, caller: Caller
) -> Session:
    if b" " in headers.get(b"x-gateway-session", b""):
        raise Refusal("malformed", "No spaces.")
    return Session("given", "header")


def desk(**options: Any) -> Desk:
    clock = SystemClock()
    return Desk(
        identity=OneCaller(),
        find_session=find_session,
        parse_trace=trace_parser(lambda size: bytes(range(size))),
        digest=lambda *_: "",
        clock=clock,
        ids=Ids(clock),
        max_body_bytes=100,
        **options,
    )


def sends(*messages: Message) -> Any:
    left = iter(messages)

    async def receive() -> Message:
        found = next(left, None)
        if found is None:
            await asyncio.Event().wait()
        assert found is not None
        return found

    return receive


def part(data: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": data, "more_body": more}


async def test_a_body_in_parts_is_put_together() -> None:
    got = await desk().body({"headers": []}, sends(part(b"a", more=True), part(b"", more=True), part(b"b")))
    assert got == b"ab"


async def test_a_client_that_stops_in_the_middle_is_told_and_not_waited_for() -> None:
    with pytest.raises(Refusal) as refused:
        await desk(body_idle_s=0.01).body({"headers": []}, sends(part(b"a", more=True)))
    assert (refused.value.code, refused.value.http_status) == ("malformed", 408)


async def test_too_much_is_read_on_for_a_while_so_that_the_answer_is_heard() -> None:
    with pytest.raises(Refusal) as refused:
        await desk().body({"headers": []}, sends(*[part(b"a" * 60, more=True)] * 3, part(b"")))
    assert refused.value.code == "too_large"
    with pytest.raises(Refusal) as refused:  # but not for ever
        await desk().body({"headers": []}, sends(*[part(b"a" * 60, more=True)] * 7))
    assert refused.value.code == "too_large"


async def test_a_client_that_leaves_in_the_middle_is_malformed() -> None:
    with pytest.raises(Refusal) as refused:
        await desk().body({"headers": []}, sends(part(b"a", more=True), {"type": "http.disconnect"}))
    assert refused.value.code == "malformed"


@pytest.mark.parametrize(
    "header",
    [
        (b"x-gateway-session", b"with spaces in it"),
        (b"x-gateway-purpose", b"p" * 300),
        (b"x-gateway-purpose", "é".encode()),
        (b"idempotency-key", b"k" * 256),
    ],
)
async def test_a_header_that_can_not_be_taken_is_told_with_who_sent_it(header: tuple[bytes, bytes]) -> None:
    intake = await desk().admit({"headers": [header]}, "request")
    assert intake.caller is CALLER
    assert intake.fault is not None
    assert intake.fault.code == "malformed"
    assert (await desk().admit({"headers": []}, "request")).fault is None


async def test_a_client_that_trickles_its_body_is_not_waited_for_for_ever() -> None:
    async def trickles() -> Message:
        await asyncio.sleep(0)
        return part(b"", more=True)

    with pytest.raises(Refusal) as refused:
        await desk(body_s=0.02).body({"headers": []}, trickles)
    assert refused.value.http_status == 408


async def test_what_is_held_of_unfinished_bodies_is_bounded_for_an_agent_and_for_all() -> None:
    one = desk(unfinished_bytes=100, unfinished_bytes_per_agent=60)
    waiting = [
        asyncio.create_task(one.body({"headers": []}, sends(part(b"a" * 50, more=True)), agent_id=agent))
        for agent in ("a", "b")
    ]
    await asyncio.sleep(0)
    for agent, status in (("a", 429), ("c", 503)):
        with pytest.raises(Refusal) as refused:
            await one.body({"headers": []}, sends(part(b"a" * 20, more=True), part(b"")), agent_id=agent)
        assert (refused.value.code, refused.value.http_status) == ("rate_limited", status)
    assert await one.body({"headers": []}, sends(part(b"a" * 50)), agent_id="c")  # whole at once: never unfinished
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await one.body({"headers": []}, sends(part(b"a" * 50, more=True), part(b"")), agent_id="a")
