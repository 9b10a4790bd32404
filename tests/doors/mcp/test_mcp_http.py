"""What the door makes of HTTP: hosts, credentials, methods, sessions, sizes, media types."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.doors.mcp import Origins, Sessions
from tests.doors.mcp.house import OTHER_KEY, House, tool

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


# ------------------------------------------------------------ browsers


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost.evil.example", "file://", "", "x" * 999]
)
async def test_a_foreign_page_may_not_call(house: House, origin: str) -> None:
    response = await house.send(PING, headers={"origin": origin})
    assert (response.status, response.error["data"]["gateway/code"]) == (403, "forbidden")
    assert house.rooms.strangers == 1


@pytest.mark.parametrize(
    "origin", ["http://localhost:6274", "http://127.0.0.1", "https://[::1]:1", "HTTP://LOCALHOST:80"]
)
async def test_a_page_of_this_machine_may_call_a_gateway_of_this_machine(house: House, origin: str) -> None:
    assert (await house.send(PING, headers={"origin": origin})).status == 200


async def test_a_public_gateway_knows_its_own_origin_and_no_other() -> None:
    house = House(
        Origins(bound_host="0.0.0.0", public_url="https://Gate.example/base", allowed_origins=["http://ui.example:81"])
    )
    for origin, status in (
        ("https://gate.example", 200),
        ("https://gate.example:443", 200),
        ("http://ui.example:81", 200),
        ("http://gate.example", 403),
        ("https://gate.example:444", 403),
        ("http://ui.example", 403),
        ("http://localhost:3000", 403),
    ):
        response = await house.send(PING, headers={"origin": origin, "host": "anything.example"})
        assert response.status == status, origin


# ------------------------------------------------------------ who


@pytest.mark.parametrize("authorization", [None, "Bearer nobody", "Basic abc", "Bearer "])
async def test_a_stranger_is_answered_401_and_only_counted(house: House, authorization: str | None) -> None:
    response = await house.send(PING, headers={"authorization": authorization})
    assert (response.status, response.headers["www-authenticate"]) == (401, "Bearer")
    assert response.error["data"] == {"gateway/code": "unauthenticated"}
    assert (house.rooms.strangers, house.codes) == (1, [])


async def test_a_server_that_the_agent_does_not_know_is_not_found(house: House) -> None:
    for path in ("/mcp/nix", "/mcp/ledger/more", "/mcp/" + "x" * 500, "/mcp/%2e%2e"):
        response = await house.send(PING, path=path)
        assert (response.status, response.error["data"]["gateway/code"]) == (404, "not_found")
        assert len(response.body) < 600
    assert house.codes == ["not_found"] * 4


# ------------------------------------------------------------ methods and media types


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS", "HEAD", "PATCH"])
async def test_other_methods_are_answered_405_with_what_is_allowed(house: House, method: str) -> None:
    response = await house.send(b"", method=method)
    assert (response.status, response.headers["allow"]) == (405, "POST, DELETE")
    assert house.codes == []


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
async def test_a_body_that_is_not_said_to_be_json_is_refused(house: House, content_type: str | None) -> None:
    assert (await house.send(PING, headers={"content-type": content_type})).status == 415


async def test_parameters_of_the_media_type_do_not_matter(house: House) -> None:
    assert (await house.send(PING, headers={"content-type": "Application/JSON; charset=utf-8"})).status == 200


@pytest.mark.parametrize(
    "accept", ["application/json", "*/*", None, "", "application/*;q=0.5", "text/event-stream, application/json"]
)
async def test_json_is_the_answer_wherever_it_is_accepted(house: House, accept: str | None) -> None:
    response = await house.send(PING, headers={"accept": accept})
    assert response.headers["content-type"] == "application/json"


async def test_accept_lines_add_up(house: House) -> None:
    response = await house.send(PING, headers={"accept": "text/event-stream"}, more=[("accept", "application/json")])
    assert response.headers["content-type"] == "application/json"


async def test_a_client_that_takes_only_events_gets_one_event(house: House) -> None:
    async def broken_lines(_: object) -> bytes:
        return b'{\n "content":\r\n [],\r"x": "\xe2\x80\xa8"}'

    house.rooms.add(tool("x", "odd"), broken_lines)
    response = await house.modern("tools/call", {"name": "x__odd"}, headers={"accept": "text/event-stream"})
    assert response.headers["content-type"] == "text/event-stream"
    event = response.body.decode()
    assert event.startswith("event: message\ndata: ")
    assert event.endswith("\n\n")
    lines = event[:-2].split("\n")[1:]
    assert all(line.startswith("data: ") for line in lines)
    message = orjson.loads("\n".join(line.removeprefix("data: ") for line in lines))
    assert message["result"] == {"resultType": "complete", "content": [], "x": "\u2028"}


async def test_errors_are_json_whatever_is_accepted(house: House) -> None:
    response = await house.send(b"{", headers={"accept": "text/event-stream"})
    assert (response.status, response.headers["content-type"]) == (400, "application/json")


async def test_a_client_that_takes_neither_is_told(house: House) -> None:
    assert (await house.send(PING, headers={"accept": "text/html"})).status == 406


async def test_a_body_that_is_too_large_is_413(house: House) -> None:
    response = await house.send(b"[" * 1_000_001)
    assert (response.status, response.error["data"]["gateway/code"]) == (413, "too_large")
    assert house.codes == ["too_large"]


# ------------------------------------------------------------ JSON-RPC


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nope",
        b"\xff\xfe",
        b'{"a":NaN}',
        b'\xef\xbb\xbf{"jsonrpc":"2.0"}',
        b'{"a":"\\ud800"}',
        b"[" * 40_000,
        b"1" * 6000,
    ],
)
async def test_what_is_not_json_is_a_parse_error(house: House, body: bytes) -> None:
    response = await house.send(body)
    assert (response.status, response.error["code"], response.json["id"]) == (400, -32700, None)
    assert house.codes == ["malformed"]


@pytest.mark.parametrize(
    "body",
    [
        1,
        "x",
        None,
        {},
        [],
        [PING],
        {"jsonrpc": "1.0", "id": 1, "method": "ping"},
        {"id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "id": 1},
        {"jsonrpc": "2.0", "id": 1, "method": 5},
        {"jsonrpc": "2.0", "id": 1, "method": ""},
        {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "git__log"}},
    ],
)
async def test_what_is_not_one_request_is_an_invalid_request(house: House, body: Any) -> None:
    response = await house.send(orjson.dumps(body))
    assert (response.status, response.error["code"]) == (400, -32600)
    assert house.codes == ["malformed"]
    assert house.rooms.performed == []


async def test_a_batch_is_refused_in_words(house: House) -> None:
    assert "one message per POST" in (await house.send([PING])).error["message"]


@pytest.mark.parametrize("params", [[], "x", 1, None])
async def test_params_must_be_an_object(house: House, params: Any) -> None:
    response = await house.send({**PING, "params": params})
    assert (response.error["code"], response.json["id"]) == (-32602, 1)


async def test_meta_must_be_an_object(house: House) -> None:
    assert (await house.send({**PING, "params": {"_meta": 1}})).error["code"] == -32602


# ------------------------------------------------------------ sessions of the handshake


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("2025-11-25", "2025-11-25"),
        ("2025-06-18", "2025-06-18"),
        ("2025-03-26", "2025-03-26"),
        ("2024-11-05", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("nonsense", "2025-11-25"),
    ],
)
async def test_initialize_negotiates_a_revision_with_a_handshake(house: House, asked: str, given: str) -> None:
    response = await house.send({**PING, "method": "initialize", "params": {"protocolVersion": asked}})
    assert response.result["protocolVersion"] == given
    assert response.result["serverInfo"]["name"] == "agent-governance-gateway"
    assert response.headers["mcp-session-id"]


@pytest.mark.parametrize("asked", [None, 1, {}])
async def test_initialize_without_a_version_is_invalid(house: House, asked: Any) -> None:
    response = await house.send({**PING, "method": "initialize", "params": {"protocolVersion": asked}})
    assert response.error["code"] == -32602


async def issued(house: House) -> str:
    response = await house.send({**PING, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}})
    return response.headers["mcp-session-id"]


async def test_a_session_is_the_callers_until_it_ends(house: House) -> None:
    session = await issued(house)
    assert (await house.legacy("ping", headers={"mcp-session-id": session})).status == 200
    await house.legacy("tools/call", {"name": "git__log"}, headers={"mcp-session-id": session})
    assert house.rooms.performed[0].session.source == "client"
    ended = await house.send(b"", method="DELETE", headers={"mcp-session-id": session})
    assert (ended.status, ended.body) == (204, b"")
    for method in ("POST", "DELETE"):
        assert (await house.send(PING, method=method, headers={"mcp-session-id": session})).status == 404


async def test_a_session_of_another_credential_is_not_found(house: House) -> None:
    session = await issued(house)
    for wrong in (
        session[:-1] + ("0" if session[-1] != "0" else "1"),
        session.replace(".", ""),
        "x",
        "",
        ".",
        session.upper(),
    ):
        for method in ("POST", "DELETE"):
            response = await house.send(PING, method=method, headers={"mcp-session-id": wrong})
            assert (response.status, response.error["code"]) == (404, -32600), wrong
    foreign = {"mcp-session-id": session, "authorization": f"Bearer {OTHER_KEY}"}
    assert (await house.send(PING, headers=foreign)).status == 404
    twice = await house.send(PING, headers={"mcp-session-id": session}, more=[("mcp-session-id", session)])
    assert twice.status == 404


async def test_a_session_survives_a_restart_and_no_change_of_the_key() -> None:
    key = b"s" * 32
    session = Sessions(key).issue("c1")
    assert Sessions(key).belongs(session, "c1")
    assert not Sessions(b"t" * 32).belongs(session, "c1")
    with pytest.raises(ValueError, match="32 bytes"):
        Sessions(b"short")


async def test_ended_sessions_are_remembered_within_bounds() -> None:
    sessions = Sessions(b"s" * 32)
    issued = [sessions.issue("c1") for _ in range(5000)]
    for session in issued:
        sessions.end(session)
    assert not sessions.belongs(issued[-1], "c1")
    assert sessions.belongs(issued[0], "c1")


async def test_ending_no_session_is_a_bad_request(house: House) -> None:
    assert (await house.send(b"", method="DELETE")).status == 400
    modern = await house.send(b"", method="DELETE", headers={"mcp-protocol-version": "2026-07-28"})
    assert modern.status == 405


async def test_a_request_without_a_version_is_served_as_one_of_the_older_revisions(house: House) -> None:
    assert (await house.send(PING)).result == {}
