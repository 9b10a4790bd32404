"""Calls that wait for a person, with a governor that does what the test says."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from gateway.doors.mcp.protocol import Fault
from gateway.doors.mcp.states import State, States
from gateway.errors import Refusal
from tests.doors.mcp.house import KEY, OTHER_KEY, House, Response
from tests.doors.mcp.person import ARGUMENTS, CASE, DONE, EXPIRES, QUICK, Person, waits


@pytest.fixture
def person() -> Person:
    return Person()


@pytest.fixture
def waiting(person: Person) -> House:
    return House(governor=person, ladder=QUICK)


async def modern(
    house: House, state: object = None, arguments: dict[str, Any] | None = None, *, key: str = KEY, **more: Any
) -> Response:
    params: dict[str, Any] = {"name": "ledger__transfer", "arguments": ARGUMENTS if arguments is None else arguments}
    if state is not None:
        params["requestState"] = state
    return await house.modern("tools/call", params, headers={"authorization": f"Bearer {key}"}, **more)


async def legacy(house: House, token: object = None, accept: str | None = None, **more: Any) -> Response:
    params: dict[str, Any] = {"name": "ledger__transfer", "arguments": ARGUMENTS}
    if token is not None:
        params["_meta"] = {"progressToken": token}
    headers = {} if accept is None else {"accept": accept}
    return await house.legacy("tools/call", params, headers=headers, **more)


# ------------------------------------------------------------ 4: told to come back


async def test_a_call_that_nobody_decided_says_what_to_do(waiting: House, person: Person) -> None:
    response = await legacy(waiting)
    assert response.text.startswith(
        f"NOT executed. Waiting for approval: case {CASE}. Ask `gateway__approval_status` or repeat the identical call."
    )
    meta = response.result["_meta"]
    assert (meta["gateway/code"], meta["gateway/case"], meta["gateway/expires"]) == ("approval_required", CASE, EXPIRES)
    assert response.headers["x-gateway-decision"] == "escalate"
    assert person.running[0].hold_s is None  # as configured


async def test_what_was_approved_and_still_runs_is_told_so(waiting: House, person: Person) -> None:
    person.say(waits("executing"))
    assert (await legacy(waiting)).text.startswith("NOT executed yet. It was approved and is being carried out")


@pytest.mark.parametrize("code", ["approval_denied", "approval_expired", "outcome_unknown", "decided"])
async def test_the_end_of_a_case_is_a_result_that_a_model_can_use(waiting: House, person: Person, code: str) -> None:
    person.say(Refusal(code, "NOT executed. Pay in two parts.", detail={"case": CASE}))
    for response in (await legacy(waiting), await modern(waiting)):
        assert "Pay in two parts." in response.text
        assert response.result["_meta"]["gateway/code"] == code
        assert response.result["_meta"]["gateway/case"] == CASE


async def test_a_stored_result_is_marked(waiting: House, person: Person) -> None:
    person.say()
    assert "x-gateway-replayed" not in (await modern(waiting)).headers
    person.replayed = True
    for response in (await modern(waiting), await legacy(waiting)):
        assert response.headers["x-gateway-replayed"] == "true"
        assert response.result["content"][0]["text"] == "paid"


# ------------------------------------------------------------ 3: older revisions


@pytest.mark.parametrize("token", ["t-1", 0])
async def test_a_progress_token_is_told_of_the_waiting_and_then_of_the_end(
    waiting: House, person: Person, token: object
) -> None:
    call = asyncio.create_task(legacy(waiting, token))
    async with asyncio.timeout(5):
        while not person.running or not person.running[0].waits.is_set():
            await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        loop.call_later(0.1, person.say)
        response = await call
    *beats, end = response.events
    assert len(beats) >= 2
    assert [beat["params"]["progress"] for beat in beats] == list(range(1, len(beats) + 1))
    assert {beat["method"] for beat in beats} == {"notifications/progress"}
    assert all(beat["params"]["progressToken"] == token for beat in beats)
    assert CASE in beats[0]["params"]["message"]
    assert end["id"] == 1
    assert end["result"]["content"][0]["text"] == "paid"
    assert response.headers["x-gateway-decision"] == "escalate"
    assert person.running[0].hold_s == QUICK.progress_s


@pytest.mark.parametrize(("code", "field"), [("approval_denied", "result"), ("stopping", "error")])
async def test_a_refusal_at_the_end_of_a_stream_is_its_last_event(
    waiting: House, person: Person, code: str, field: str
) -> None:
    asyncio.get_running_loop().call_later(0.1, person.say, Refusal(code, "Not this time."))
    end = (await legacy(waiting, "t")).events[-1]
    assert end["id"] == 1
    assert "Not this time." in str(end[field])


async def test_a_call_that_need_not_wait_is_answered_with_plain_json(waiting: House, person: Person) -> None:
    person.say()
    assert (await legacy(waiting, "t")).headers["content-type"] == "application/json"
    person.begins.clear()  # slow, but it waits for nobody
    asyncio.get_running_loop().call_later(0.05, person.begins.set)
    assert (await legacy(waiting, "t")).headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("token", "accept"), [("t", "application/json"), (None, None), (1.5, None), (True, None), ({}, None)]
)
async def test_who_can_not_be_told_is_held_in_silence(
    waiting: House, person: Person, token: object, accept: str | None
) -> None:
    response = await legacy(waiting, token, accept)
    assert response.headers["content-type"] == "application/json"
    assert person.running[0].hold_s is None


# ------------------------------------------------------------ 2: revision 2026-07-28


async def test_a_leg_ends_with_a_state_and_the_last_one_with_words(waiting: House, person: Person) -> None:
    state = None
    for _ in range(QUICK.legs - 1):
        response = await modern(waiting, state)
        assert response.status == 200
        assert response.result.keys() == {"resultType", "requestState", "_meta"}
        assert response.result["resultType"] == "input_required"
        state = response.result["requestState"]
    last = await modern(waiting, state)
    assert last.text.startswith(f"NOT executed. Waiting for approval: case {CASE}.")
    assert last.result["resultType"] == "complete"
    assert [running.hold_s for running in person.running] == [QUICK.leg_s] * QUICK.legs
    assert len({running.action.digest for running in person.running}) == 1
    assert len({running.action.id for running in person.running}) == QUICK.legs


async def test_a_decision_ends_the_leg_it_falls_in(waiting: House, person: Person) -> None:
    state = (await modern(waiting)).result["requestState"]
    person.say()
    response = await modern(waiting, state, more=[])
    assert (response.result["resultType"], response.result["content"][0]["text"]) == ("complete", "paid")


async def test_a_modern_progress_token_changes_nothing(waiting: House) -> None:
    params = {"name": "ledger__transfer", "arguments": ARGUMENTS, "_meta": {"progressToken": "t"}}
    assert (await waiting.modern("tools/call", params)).result["resultType"] == "input_required"


async def test_a_state_is_good_for_its_own_call_and_credential_only(waiting: House, person: Person) -> None:
    state = (await modern(waiting)).result["requestState"]
    started = len(person.running)
    other = {**ARGUMENTS, "amount_cents": 1}
    for refused in (
        await modern(waiting, state, other),
        await modern(waiting, state, key=OTHER_KEY),
        await modern(waiting, state[:-4] + ("AAAA" if state[-4:] != "AAAA" else "BBBB")),
        await modern(waiting, "forged"),
        await modern(waiting, ""),
        await modern(waiting, "ü"),
        await modern(waiting, 7),
        await modern(waiting, {"case": CASE}),
        await modern(waiting, "A" * 5000),
        await waiting.legacy("tools/call", {"name": "ledger__transfer", "arguments": ARGUMENTS, "requestState": state}),
    ):
        assert refused.error["code"] == -32602
        assert "repeat the call without it" in refused.error["message"]
    assert len(person.running) == started
    assert [refusal.code for refusal in person.refusals] == ["malformed"] * 10
    assert (await modern(waiting, state)).result["resultType"] == "input_required"


def test_a_state_expires_and_no_bit_of_it_can_be_changed() -> None:
    states = States(b"k" * 32)
    mine = State(CASE, 2, 1_000)
    text = states.issue(mine, "credential", "digest")
    assert states.read(text, "credential", "digest", 1_000) == mine
    with pytest.raises(Fault, match="expired"):
        states.read(text, "credential", "digest", 1_001)
    for index, char in enumerate(text):
        changed = text[:index] + ("A" if char != "A" else "B") + text[index + 1 :]
        with pytest.raises(Fault):
            states.read(changed, "credential", "digest", 0)
    for who, what in (("credentia", "ldigest"), ("credential1", "digest"), ("credential", "")):
        with pytest.raises(Fault):
            states.read(text, who, what, 0)
    with pytest.raises(Fault):
        States(b"l" * 32).read(text, "credential", "digest", 0)


# ------------------------------------------------------------ hanging up


@pytest.mark.parametrize("ask", [modern, legacy])
async def test_hanging_up_ends_the_waiting_of_the_request_and_nothing_else(person: Person, ask: Any) -> None:
    house = House(governor=person, ladder=QUICK._replace(leg_s=60))
    gone = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, gone.set)
    before = asyncio.all_tasks()
    async with asyncio.timeout(5):
        response = await (ask(house, gone=gone) if ask is modern else ask(house, "t", "application/json", gone=gone))
        if ask is modern:
            assert response.status == 0
            assert person.running[0].left
        await asyncio.wait([each.task for each in person.running if each.task is not None])
    assert asyncio.all_tasks() == before


async def test_hanging_up_on_a_stream_of_progress_ends_it(person: Person) -> None:
    house = House(governor=person, ladder=QUICK)
    gone = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, gone.set)
    async with asyncio.timeout(4):
        with pytest.raises(AssertionError):  # of the house: the stream has no end
            await legacy(house, "t", gone=gone)
    assert person.running[0].left


async def test_a_slow_call_goes_on_without_its_client(waiting: House, person: Person) -> None:
    person.begins.clear()
    gone = asyncio.Event()
    gone.set()
    asyncio.get_running_loop().call_later(0.05, person.begins.set)
    person.say()
    assert (await modern(waiting, gone=gone)).status == 200
    assert not person.running[0].left


async def test_a_cancelled_notification_cancels_no_case(waiting: House, person: Person) -> None:
    call = asyncio.create_task(legacy(waiting, "t"))
    while not person.running:
        await asyncio.sleep(0)
    note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    assert (await waiting.send(note)).status == 202
    person.say()
    assert b"paid" in (await call).body


# ------------------------------------------------------------ gateway__approval_status


async def status(house: House, arguments: Any, *, path: str = "/mcp", era: str = "modern", **more: Any) -> Response:
    params = {"name": "gateway__approval_status", "arguments": arguments}
    response: Response = await getattr(house, era)("tools/call", params, path=path, **more)
    return response


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("path", ["/mcp", "/mcp/ledger"])
async def test_the_status_of_a_case_is_text_and_structure(waiting: House, person: Person, era: str, path: str) -> None:
    told = {"case_id": CASE, "state": "pending", "guidance": "Wait.", "expires_at": EXPIRES}
    person.status = told
    response = await status(waiting, {"case_id": CASE}, path=path, era=era)
    assert response.result["isError"] is False
    assert response.result["structuredContent"] == told
    assert orjson.loads(response.result["content"][0]["text"]) == told
    assert ("resultType" in response.result) == (era == "modern")
    action, case_id, wait_s = person.asked[0]
    assert (action.target, case_id, wait_s) == ("gateway__approval_status", CASE, 0)
    assert response.headers["x-gateway-action"] == action.id


async def test_the_stored_result_stands_in_the_status(waiting: House, person: Person) -> None:
    person.status = {"case_id": CASE, "state": "succeeded", "guidance": "", "expires_at": EXPIRES, "result": DONE.body}
    told = (await status(waiting, {"case_id": CASE})).result
    assert told["structuredContent"]["result"] == orjson.loads(DONE.body)
    assert "paid" in told["content"][0]["text"]


async def test_a_stored_answer_that_is_no_result_is_told_in_the_guidance(waiting: House, person: Person) -> None:
    person.status = {"case_id": CASE, "state": "succeeded", "guidance": "", "expires_at": EXPIRES, "result": b"[]"}
    told = (await status(waiting, {"case_id": CASE})).result["structuredContent"]
    assert "result" not in told
    assert "not a tool result" in told["guidance"]


async def test_asking_can_wait_for_the_end(waiting: House, person: Person) -> None:
    asyncio.get_running_loop().call_later(0.02, person.say)
    await status(waiting, {"case_id": CASE, "wait_s": 50})
    assert person.asked[0][2] == 50


async def test_hanging_up_ends_the_asking(waiting: House) -> None:
    gone = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, gone.set)
    before = asyncio.all_tasks()
    async with asyncio.timeout(5):
        assert (await status(waiting, {"case_id": CASE, "wait_s": 50}, gone=gone)).status == 0
    assert asyncio.all_tasks() == before


async def test_a_case_of_somebody_else_is_not_found(waiting: House) -> None:
    response = await status(waiting, {"case_id": "x"})
    assert "You have no case" in response.text
    assert response.result["_meta"]["gateway/code"] == "not_found"


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"case_id": 7},
        {"case_id": ""},
        {"case_id": "x" * 129},
        {"case_id": "\x00"},
        {"case_id": CASE, "wait_s": 51},
        {"case_id": CASE, "wait_s": -1},
        {"case_id": CASE, "wait_s": True},
        {"case_id": CASE, "wait_s": "5"},
        {"case_id": CASE, "more": 1},
    ],
)
async def test_arguments_that_ask_for_nothing_are_told_to_the_model(
    waiting: House, person: Person, arguments: dict[str, Any]
) -> None:
    response = await status(waiting, arguments)
    assert response.result["_meta"]["gateway/code"] == "malformed"
    assert [refusal.code for refusal in person.refusals] == ["malformed"]
    assert person.asked == []


async def test_the_definition_describes_itself_and_its_name_is_the_gateways(waiting: House) -> None:
    listed = (await waiting.modern("tools/list", path="/mcp/ledger")).result["tools"]
    (own,) = [each for each in listed if each["name"] == "gateway__approval_status"]
    assert own["annotations"]["readOnlyHint"] is True
    assert own["inputSchema"]["required"] == ["case_id"]
    assert set(own["outputSchema"]["properties"]) == {"case_id", "state", "guidance", "expires_at", "result"}
    assert "NOT executed" in own["description"]
