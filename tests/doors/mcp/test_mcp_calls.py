"""`tools/list` and `tools/call` through the door, in both eras."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import orjson
import pytest

from gateway.actions import Action, AgentStatus, Decision, Effect
from gateway.errors import Refusal
from tests.doors.mcp.house import House, tool

DENIED = Decision(effect=Effect.DENY, rules=("transfer.payee",), reasons=("Pay a listed payee instead.",))
HIDDEN = Decision(effect=Effect.DENY, rules=("close.never",), reasons=("Never.",), hidden=True)


def names(result: Any) -> list[str]:
    return [each["name"] for each in result["tools"]]


async def test_the_common_endpoint_lists_every_server_with_prefixed_names(house: House) -> None:
    for response in (await house.modern("tools/list"), await house.legacy("tools/list")):
        assert names(response.result) == [
            "gateway__approval_status",
            "git__log",
            "ledger__get_balance",
            "ledger__transfer",
        ]


async def test_a_servers_own_endpoint_lists_its_own_names_and_the_gateways(house: House) -> None:
    own = "gateway__approval_status"
    assert names((await house.modern("tools/list", path="/mcp/ledger")).result) == [own, "get_balance", "transfer"]
    assert names((await house.legacy("tools/list", path="/mcp/git/")).result) == [own, "log"]


async def test_an_agent_without_tools_has_nothing_to_ask_about(house: House) -> None:
    house.rooms.known.clear()
    assert names((await house.modern("tools/list")).result) == []


async def test_a_definition_keeps_fields_that_nobody_knows(house: House) -> None:
    house.rooms.add(tool("x", "odd", annotations={"vendor": {"a": 1}}, _meta={"k": [2]}, futureField=10**20))
    for path, name in (("/mcp", "x__odd"), ("/mcp/x", "odd")):
        listed = (await house.modern("tools/list", path=path)).body
        odd = next(each for each in json.loads(listed)["result"]["tools"] if each["name"] == name)
        assert odd["annotations"] == {"vendor": {"a": 1}}
        assert odd["_meta"] == {"k": [2]}
        assert odd["futureField"] == 10**20


async def test_a_modern_list_is_private_and_stale_at_once(house: House) -> None:
    result = (await house.modern("tools/list")).result
    assert (result["resultType"], result["ttlMs"], result["cacheScope"]) == ("complete", 0, "private")
    assert "ttlMs" not in (await house.legacy("tools/list")).result


async def test_a_hidden_tool_is_not_listed(house: House) -> None:
    house.rooms.add(tool("ledger", "close"), decision=HIDDEN)
    assert "ledger__close" not in names((await house.modern("tools/list")).result)


async def test_a_cursor_that_was_never_issued_is_refused(house: House) -> None:
    response = await house.modern("tools/list", {"cursor": "x"})
    assert (response.status, response.error["code"]) == (400, -32602)


async def test_a_call_reaches_the_tool_under_both_names(house: House) -> None:
    arguments = {"to": "ada", "amount_cents": 5, "ratio": 0.25, "nested": {"a": [None, True, "ü"]}}
    for response in (
        await house.modern("tools/call", {"name": "ledger__transfer", "arguments": arguments}),
        await house.legacy("tools/call", {"name": "transfer", "arguments": arguments}, path="/mcp/ledger"),
    ):
        assert response.status == 200
        assert response.result["structuredContent"] == arguments
        assert response.headers["x-gateway-decision"] == "allow"
    assert [action.target for action in house.rooms.performed] == ["ledger__transfer"] * 2
    assert response.headers["x-gateway-action"] == house.rooms.performed[-1].id
    assert response.headers["x-request-id"] == house.rooms.performed[-1].request_id == response.headers["request-id"]


async def test_absent_and_null_arguments_are_no_arguments(house: House) -> None:
    for params in ({"name": "git__log"}, {"name": "git__log", "arguments": None}):
        assert (await house.modern("tools/call", params)).result["structuredContent"] == {}


async def test_the_session_in_the_path_reaches_the_action(house: House) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "git__log"}}
    await house.send(body, session="run-7")
    assert house.rooms.performed[0].session.id.startswith("run-7~")
    assert house.rooms.performed[0].session.source == "path"


@pytest.mark.parametrize("rpc_id", [0, -1, 2**63, 10**30, "", "a", "ü\n\"'", "1"])
async def test_the_id_comes_back_as_it_was_sent(house: House, rpc_id: int | str) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": rpc_id, "method": "ping"}).encode()
    answer = json.loads((await house.send(body)).body)
    assert answer["id"] == rpc_id
    assert type(answer["id"]) is type(rpc_id)


@pytest.mark.parametrize("rpc_id", ["null", "1.5", "1.0", "1e3", "true", "[]", "{}"])
async def test_an_id_that_is_no_string_or_integer_is_refused(house: House, rpc_id: str) -> None:
    response = await house.send(f'{{"jsonrpc":"2.0","id":{rpc_id},"method":"ping"}}'.encode())
    assert (response.status, response.error["code"], response.json["id"]) == (400, -32600, None)


# ------------------------------------------------------------ results


async def test_a_result_passes_through_with_unknown_fields(house: House) -> None:
    async def odd(_: Action) -> bytes:
        return b' {"content":[{"type":"hologram","x":1e2}],"isError":true,"vendor":{"big":18446744073709551616}}'

    house.rooms.add(tool("x", "odd"), odd)
    modern = await house.modern("tools/call", {"name": "x__odd"})
    assert modern.body.endswith(
        b'"result":{"resultType":"complete","content":[{"type":"hologram","x":1e2}],"isError":true,'
        b'"vendor":{"big":18446744073709551616}}}'
    )
    legacy = await house.legacy("tools/call", {"name": "x__odd"})
    assert b"resultType" not in legacy.body
    assert b'"vendor":{"big":18446744073709551616}}' in legacy.body


async def test_a_modern_result_keeps_its_own_result_type(house: House) -> None:
    async def complete(_: Action) -> bytes:
        return b'{"content":[],"result\\u0054ype":"complete"}'

    house.rooms.add(tool("x", "odd"), complete)
    body = (await house.modern("tools/call", {"name": "x__odd"})).body
    assert body.endswith(b'"result":{"content":[],"result\\u0054ype":"complete"}}')


@pytest.mark.parametrize("body", [b"{}", b" {\n } "])
async def test_an_empty_result_becomes_a_complete_one(house: House, body: bytes) -> None:
    async def empty(_: Action) -> bytes:
        return body

    house.rooms.add(tool("x", "odd"), empty)
    assert (await house.modern("tools/call", {"name": "x__odd"})).result == {"resultType": "complete"}


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[1]", b'{"content":', b"\xff", b'{"resultType":"input_required","requestState":"s"}']
)
async def test_what_is_not_a_complete_result_is_told_to_the_model(house: House, body: bytes) -> None:
    async def odd(_: Action) -> bytes:
        return body

    house.rooms.add(tool("x", "odd"), odd)
    for response in (
        await house.modern("tools/call", {"name": "x__odd"}),
        await house.legacy("tools/call", {"name": "x__odd"}),
    ):
        assert response.status == 200
        assert response.result["_meta"]["gateway/code"] == "upstream_failed"
        assert "It is not known whether the tool did it" in response.text


# ------------------------------------------------------------ refusals


async def test_a_deny_on_arguments_tells_the_model_what_would_pass(house: House) -> None:
    house.rooms.decisions["ledger__transfer"] = DENIED
    for response in (
        await house.modern("tools/call", {"name": "ledger__transfer"}),
        await house.legacy("tools/call", {"name": "ledger__transfer"}),
    ):
        assert response.status == 200
        assert "Pay a listed payee instead." in response.text
        assert "transfer.payee" in response.text
        meta = response.result["_meta"]
        assert meta["gateway/code"] == "denied_by_policy"
        assert meta["gateway/rules"] == ["transfer.payee"]
        assert meta["gateway/action"] == response.headers["x-gateway-action"]
        assert response.headers["x-gateway-decision"] == "deny"
    assert house.rooms.performed == []
    assert house.codes == ["denied_by_policy"] * 2


@pytest.mark.parametrize("path", ["/mcp", "/mcp/ledger"])
async def test_a_hidden_tool_and_one_that_does_not_exist_look_the_same(house: House, path: str) -> None:
    house.rooms.add(tool("ledger", "close"), decision=HIDDEN)
    prefix = "ledger__" if path == "/mcp" else ""
    for ask in (house.modern, house.legacy):
        seen = []
        for name in ("close", "other"):
            response = await ask("tools/call", {"name": f"{prefix}{name}"}, path=path)
            headers = dict.fromkeys(response.headers)
            body = response.body.replace(name.encode(), b"NAME")
            seen.append((response.status, list(headers), body))
            assert response.error == {"code": -32602, "message": f"Unknown tool: {prefix}{name}"}
        # the two names have the same length, so that content-length does not tell them apart either
        assert seen[0][0] == seen[1][0]
        assert seen[0][1] == seen[1][1]
        assert seen[0][2] == seen[1][2]
    assert house.codes == ["unknown_tool"] * 4


@pytest.mark.parametrize(
    ("step", "refusal", "told"),
    [
        ("admit", Refusal("rate_limited", "Too many calls.", retry_after_s=7), "Try again in 7 s."),
        ("inspect", Refusal("malformed", "amount_cents must be an integer."), "correct the arguments"),
        ("reserve", Refusal("budget_exhausted", "The day's budget is spent."), "budget"),
    ],
)
async def test_refusals_before_the_act_are_told_to_the_model(
    house: House, step: str, refusal: Refusal, told: str
) -> None:
    house.rooms.faults[step] = refusal
    response = await house.modern("tools/call", {"name": "ledger__transfer"})
    assert refusal.message in response.text
    assert told in response.text
    assert "Nothing was executed" in response.text
    assert response.headers.get("retry-after") == (None if refusal.retry_after_s is None else "7")
    assert house.codes == [refusal.code]


@pytest.mark.parametrize(
    ("detail", "told"),
    [
        ({"dispatched": "no"}, "nothing was done"),
        ({"dispatched": "unknown"}, "not known whether"),
        ({}, "not known whether"),
        ({"answered": "yes"}, None),
    ],
)
async def test_an_upstream_failure_says_what_is_known_of_the_effect(
    house: House, detail: dict[str, str], told: str | None
) -> None:
    async def fail(_: Action) -> bytes:
        raise Refusal("upstream_failed", "The ledger closed the connection.", detail=detail)

    house.rooms.add(tool("x", "dies"), fail)
    response = await house.modern("tools/call", {"name": "x__dies"})
    assert response.status == 200
    if told is None:
        assert response.text == "The ledger closed the connection."
    else:
        assert told in response.text


@pytest.mark.parametrize(
    ("code", "status"),
    [("audit_unavailable", 503), ("store_unavailable", 503), ("policy_unavailable", 503)],
)
async def test_a_gateway_that_cannot_work_answers_503(house: House, code: str, status: int) -> None:
    house.rooms.faults["intent"] = Refusal(code, "It can't.")
    for ask in (house.modern, house.legacy):
        response = await ask("tools/call", {"name": "git__log"})
        assert (response.status, response.error["code"]) == (status, status)
        assert response.error["data"]["gateway/code"] == code
    assert house.rooms.performed == []


async def test_a_suspended_agent_is_told_so_under_403(house: House) -> None:
    house.rooms.agent_status = AgentStatus.SUSPENDED
    for response in (
        await house.modern("tools/call", {"name": "git__log"}),
        await house.modern("tools/list"),
        await house.legacy("tools/list"),
    ):
        assert (response.status, response.error["data"]["gateway/code"]) == (403, "agent_suspended")
    assert house.codes == ["agent_suspended"] * 3


async def test_a_latched_log_turns_every_refusal_into_503(house: House) -> None:
    house.rooms.latched = True
    response = await house.send(b"{")
    assert (response.status, response.error["data"]["gateway/code"]) == (503, "audit_unavailable")


async def test_a_fault_of_the_gateway_is_500_with_the_request_id(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(_: Action) -> bytes:
        raise ZeroDivisionError("secret detail")

    house.rooms.add(tool("x", "odd"), broken)
    response = await house.modern("tools/call", {"name": "x__odd"})
    assert (response.status, response.error["code"]) == (500, -32603)
    assert response.headers["x-request-id"] in response.error["message"]
    assert b"secret detail" not in response.body
    capsys.readouterr()


async def test_an_action_survives_the_caller_who_leaves(house: House) -> None:
    begun, finish = asyncio.Event(), asyncio.Event()

    async def slow(_: Action) -> bytes:
        begun.set()
        await finish.wait()
        return b'{"content":[]}'

    house.rooms.add(tool("x", "slow"), slow)
    caller = asyncio.create_task(house.modern("tools/call", {"name": "x__slow"}))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    finish.set()
    await house.governor.stop(5)
    assert [result.status.value for _, result in house.rooms.results] == ["succeeded"]


# ------------------------------------------------------------ what is decided is what is forwarded


async def test_keys_sent_twice_are_decided_as_they_are_forwarded(house: House) -> None:
    body = (
        b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"git__log",'
        b'"name":"ledger__transfer","arguments":{"to":"ada","t\\u006f":"eve"}}}'
    )
    response = await house.send(body)
    (action,) = house.rooms.performed
    assert (action.target, action.arguments) == ("ledger__transfer", {"to": "eve"})
    assert response.result["structuredContent"] == {"to": "eve"}


@pytest.mark.parametrize(
    "number",
    ["0.1000000000000000055511151231257827", "1e400", "9007199254740993.5", "1e-400", "1e99999999999999999999"],
)
async def test_a_number_that_would_be_rounded_is_refused(house: House, number: str) -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"git__log","arguments":{"n":%b}}}'
    response = await house.send(body % number.encode())
    assert number[:20] in response.text
    assert response.result["_meta"]["gateway/code"] == "malformed"
    assert house.rooms.performed == []
    assert house.codes == ["malformed"]


@pytest.mark.parametrize("number", ["0.1", "1.10", "1E2", "-0.0", "2.5e-3", "123456.789", "9007199254740991"])
async def test_a_number_that_a_double_holds_passes(house: House, number: str) -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"git__log","arguments":{"n":%b}}}'
    assert (await house.send(body % number.encode())).result["structuredContent"] == {"n": orjson.loads(number)}


async def test_an_integer_beyond_2_to_the_53_is_refused_clearly(house: House) -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"git__log","arguments":{"n":9007199254740993}}}'
    response = await house.send(body)
    assert response.result["_meta"]["gateway/code"] == "malformed"
    assert house.codes == ["malformed"]
    assert response.headers["x-gateway-action"] == house.rooms.refusals[0][0].id


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"name": None},
        {"name": 1},
        {"name": ""},
        {"name": "x" * 300},
        {"name": "git__log", "arguments": []},
        {"name": "git__log", "arguments": "{}"},
        {"name": "git__log", "arguments": 0},
        {"name": "git__log", "requestState": "s"},
        {"name": "git__log", "inputResponses": None},
    ],
)
async def test_wrong_parameters_are_invalid_params(house: House, params: dict[str, Any]) -> None:
    response = await house.legacy("tools/call", params)
    assert (response.status, response.error["code"]) == (200, -32602)
    assert house.codes == ["malformed"]
    assert house.rooms.performed == []


async def test_answers_to_questions_that_were_never_asked_are_ignored(house: House) -> None:
    response = await house.modern("tools/call", {"name": "git__log", "inputResponses": {"x": {}}})
    assert response.result["structuredContent"] == {}


async def test_trace_context_in_meta_passes_on_when_it_is_well_formed(house: House) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    good = f"00-{trace_id}-00f067aa0ba902b7-01"
    await house.modern("tools/call", {"name": "git__log", "_meta": {"traceparent": good}})
    for bad in ("00-" + "0" * 32 + "-00f067aa0ba902b7-01", 7, "x", good + "\n"):
        await house.modern("tools/call", {"name": "git__log", "_meta": {"traceparent": bad}})
    first, *others = house.rooms.performed
    assert (first.trace.trace_id, first.trace.parent_id) == (trace_id, "00f067aa0ba902b7")
    assert all(each.trace.trace_id != trace_id for each in others)


async def test_vendor_meta_travels_in_the_body_of_the_action_and_reserved_meta_does_not(house: House) -> None:
    meta = {"com.example/tenant": "t", "progressToken": 1, "gateway/x": 1, "tracestate": "a=b"}
    await house.modern("tools/call", {"name": "git__log", "_meta": meta})
    await house.modern("tools/call", {"name": "git__log"})
    with_meta, without = house.rooms.performed
    assert with_meta.body is not None
    assert orjson.loads(with_meta.body) == {"_meta": {"com.example/tenant": "t"}}
    assert without.body is None


# ------------------------------------------------------------ what is not governed


@pytest.mark.parametrize(
    "method",
    [
        "prompts/list",
        "prompts/get",
        "resources/list",
        "resources/read",
        "resources/templates/list",
        "completion/complete",
        "logging/setLevel",
        "subscriptions/listen",
        "tasks/get",
        "tools/unknown",
        "x" * 5000,
    ],
)
async def test_what_is_not_governed_is_refused_and_recorded(house: House, method: str) -> None:
    modern = await house.modern(method)
    assert (modern.status, modern.error["code"]) == (404, -32601)
    legacy = await house.legacy(method)
    assert (legacy.status, legacy.error["code"]) == (200, -32601)
    assert house.codes == ["not_governed"] * 2
    assert all(len(action.target) < 200 for action, _ in house.rooms.refusals)
    assert modern.headers["x-gateway-action"] == house.rooms.refusals[0][0].id


async def test_an_answer_to_a_request_that_was_never_sent_is_refused(house: House) -> None:
    response = await house.send({"jsonrpc": "2.0", "id": 1, "result": {"role": "assistant"}})
    assert response.status == 400
    assert house.codes == ["not_governed"]


async def test_capabilities_announce_only_what_is_served(house: House) -> None:
    assert (await house.modern("server/discover")).result["capabilities"] == {"tools": {}}
    result = (await house.legacy("initialize", {"protocolVersion": "2025-11-25"})).result
    assert result["capabilities"] == {"tools": {}}


async def test_the_arguments_for_a_hidden_tool_are_not_inspected_so_that_the_time_does_not_tell(house: House) -> None:
    house.rooms.add(tool("ledger", "close"), decision=HIDDEN)
    house.rooms.faults["inspect"] = AssertionError("a guard looked")
    await house.modern("tools/call", {"name": "ledger__close"})
    assert house.codes == ["unknown_tool"]
