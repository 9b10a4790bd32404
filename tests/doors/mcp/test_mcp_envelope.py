"""The stateless revision: envelope, versions, and headers that must say what the body says."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from gateway.actions import Decision, Effect
from tests.doors.mcp.house import House, tool

VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
CALL: dict[str, Any] = {"name": "git__log", "arguments": {}}


def encoded(text: str) -> str:
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


@pytest.mark.parametrize(
    "headers",
    [
        {"mcp-protocol-version": None},
        {"mcp-protocol-version": "2025-11-25"},
        {"mcp-protocol-version": "2027-01-01"},
        {"mcp-method": None},
        {"mcp-method": ""},
        {"mcp-method": "tools/list"},
        {"mcp-method": "Tools/Call"},
        {"mcp-name": None},
        {"mcp-name": ""},
        {"mcp-name": "ledger__transfer"},
        {"mcp-name": "GIT__LOG"},
        {"mcp-name": "git__log\x01"},
        {"mcp-name": "git__l\xf6g"},
        {"mcp-name": encoded("ledger__transfer")},
        {"mcp-name": "=?base64?!!!?="},
        {"mcp-name": "=?base64?Z2l0X19sb2c?="},  # no padding
        {"mcp-name": "=?base64?Z2l0X19sb2d=?="},  # bits where there should be none
        {"mcp-name": "=?base64?/w==?="},  # not UTF-8
        {"mcp-name": "=?BASE64?Z2l0X19sb2c=?="},
    ],
)
async def test_a_header_that_differs_from_the_body_is_refused_before_anything_else(
    house: House, headers: dict[str, str | None]
) -> None:
    response = await house.modern("tools/call", CALL, headers=headers)
    assert (response.status, response.error["code"]) == (400, -32020)
    assert house.rooms.performed == []
    assert house.codes == ["malformed"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"mcp-name": "  git__log\t"},
        {"mcp-name": encoded("git__log")},
        {"mcp-method": " tools/call "},
        {"mcp-param-unknown": "anything"},
        {"mcp-session-id": "ignored"},
        {"last-event-id": "7"},
    ],
)
async def test_a_header_that_says_what_the_body_says_passes(house: House, headers: dict[str, str | None]) -> None:
    assert (await house.modern("tools/call", CALL, headers=headers)).status == 200


@pytest.mark.parametrize(
    "line",
    [
        ("Mcp-Name", "git__log"),
        ("Mcp-Name", "other"),
        ("Mcp-Method", "tools/call"),
        ("MCP-Protocol-Version", "2026-07-28"),
    ],
)
async def test_a_routing_header_sent_twice_is_refused(house: House, line: tuple[str, str]) -> None:
    response = await house.modern("tools/call", CALL, more=[line])
    assert (response.status, response.error["code"]) == (400, -32020)


async def test_a_name_that_no_header_can_carry_is_compared_decoded(house: House) -> None:
    house.rooms.add(tool("x", "größe"))
    name = "x__größe"
    good = await house.modern("tools/call", {"name": name}, headers={"mcp-name": encoded(name)})
    assert good.status == 200
    odd = "=?base64?x?="
    house.rooms.add(tool("x", odd))
    plain = await house.modern("tools/call", {"name": odd}, path="/mcp/x", headers={"mcp-name": odd})
    assert plain.error["code"] == -32020
    twice = await house.modern("tools/call", {"name": odd}, path="/mcp/x", headers={"mcp-name": encoded(odd)})
    assert twice.status == 200


async def test_a_missing_name_with_a_name_in_the_header_is_refused(house: House) -> None:
    response = await house.modern("tools/call", {"arguments": {}}, headers={"mcp-name": "git__log"})
    assert response.error["code"] == -32020


@pytest.mark.parametrize("missing", [VERSION, CAPABILITIES])
async def test_an_incomplete_envelope_is_invalid_params(house: House, missing: str) -> None:
    meta = {VERSION: "2026-07-28", CAPABILITIES: {}}
    del meta[missing]
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
    headers: dict[str, str | None] = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}
    response = await house.send(body, headers=headers)
    assert (response.status, response.error["code"]) == (400, -32602)
    assert missing in response.error["message"]


@pytest.mark.parametrize("value", [None, 1, [], {}])
async def test_a_version_that_is_no_string_never_matches(house: House, value: Any) -> None:
    response = await house.modern("tools/list", {"_meta": {VERSION: value}})
    assert (response.status, response.error["code"]) == (400, -32020)


async def test_capabilities_must_be_an_object(house: House) -> None:
    response = await house.modern("tools/list", {"_meta": {CAPABILITIES: []}})
    assert (response.status, response.error["code"]) == (400, -32602)


async def test_a_version_that_is_not_served_is_answered_with_those_that_are(house: House) -> None:
    response = await house.modern(
        "server/discover", {"_meta": {VERSION: "2031-01-01"}}, headers={"mcp-protocol-version": "2031-01-01"}
    )
    assert (response.status, response.error["code"]) == (400, -32022)
    supported = ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"]
    assert response.error["data"] == {"supported": supported, "requested": "2031-01-01"}


async def test_an_unknown_version_without_an_envelope_is_answered_the_same(house: House) -> None:
    response = await house.legacy("tools/list", headers={"mcp-protocol-version": "1999-01-01"})
    assert (response.status, response.error["code"]) == (400, -32022)


async def test_discovery_names_versions_and_server(house: House) -> None:
    result = (await house.modern("server/discover")).result
    assert result["supportedVersions"][0] == "2026-07-28"
    assert result["resultType"] == "complete"
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["version"] == "0"


@pytest.mark.parametrize("method", ["initialize", "ping"])
async def test_methods_that_the_revision_removed_are_not_found(house: House, method: str) -> None:
    response = await house.modern(method)
    assert (response.status, response.error["code"]) == (404, -32601)


async def test_a_notification_is_taken_and_answered_with_nothing(house: House) -> None:
    body = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    for version in ("2026-07-28", "2025-11-25"):
        response = await house.send(body, headers={"mcp-protocol-version": version})
        assert (response.status, response.body) == (202, b"")
    assert (await house.send(body, headers={"mcp-protocol-version": "2031-01-01"})).status == 400


# ------------------------------------------------------------ Mcp-Param-*

SCHEMA = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "count": {"type": "integer", "x-mcp-header": "Count"},
        "dry": {"type": "boolean", "x-mcp-header": "Dry"},
        "where": {"type": "object", "properties": {"zone": {"type": "string", "x-mcp-header": "Zone"}}},
    },
}


@pytest.fixture
def mirrored(house: House) -> House:
    house.rooms.add(tool("sql", "run", inputSchema=SCHEMA))
    return house


@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        ({}, {}),
        ({"region": None}, {}),
        ({"other": 1}, {}),
        ({"region": "eu"}, {"mcp-param-region": "eu"}),
        ({"region": "eu"}, {"mcp-param-region": encoded("eu")}),
        ({"region": " ü "}, {"mcp-param-region": encoded(" ü ")}),
        ({"count": 42}, {"mcp-param-count": "42"}),
        ({"count": 42}, {"mcp-param-count": "42.0"}),
        ({"count": -7}, {"mcp-param-count": "-7"}),
        ({"dry": False}, {"mcp-param-dry": "false"}),
        ({"where": {"zone": "a"}}, {"mcp-param-zone": "a"}),
        ({"where": "not an object"}, {}),
        ({"region": ["eu"]}, {}),
    ],
)
async def test_headers_that_repeat_the_arguments_pass(
    mirrored: House, arguments: dict[str, Any], headers: dict[str, str | None]
) -> None:
    response = await mirrored.modern("tools/call", {"name": "sql__run", "arguments": arguments}, headers=headers)
    assert response.status == 200, response.json


@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        ({"region": "eu"}, {}),
        ({"region": "eu"}, {"mcp-param-region": "us"}),
        ({"region": "eu"}, {"mcp-param-region": "EU"}),
        ({"region": "eu"}, {"mcp-param-region": "=?base64?%%?="}),
        ({"region": "eu"}, {"mcp-param-region": "e\x7fu"}),
        ({}, {"mcp-param-region": "eu"}),
        ({"region": None}, {"mcp-param-region": "null"}),
        ({"region": ["eu"]}, {"mcp-param-region": "eu"}),
        ({"count": 42}, {"mcp-param-count": "43"}),
        ({"count": 42}, {"mcp-param-count": "42.5"}),
        ({"count": 42}, {"mcp-param-count": "4.2e1"}),
        ({"count": True}, {"mcp-param-count": "1"}),
        ({"dry": False}, {"mcp-param-dry": "False"}),
        ({"where": {"zone": "a"}}, {"mcp-param-zone": "b"}),
    ],
)
async def test_headers_that_do_not_repeat_the_arguments_are_refused(
    mirrored: House, arguments: dict[str, Any], headers: dict[str, str | None]
) -> None:
    response = await mirrored.modern("tools/call", {"name": "sql__run", "arguments": arguments}, headers=headers)
    assert (response.status, response.error["code"]) == (400, -32020)
    assert mirrored.rooms.performed == []
    assert mirrored.codes == ["malformed"]


async def test_a_repeated_parameter_header_is_refused(mirrored: House) -> None:
    response = await mirrored.modern(
        "tools/call",
        {"name": "sql__run", "arguments": {"region": "eu"}},
        headers={"mcp-param-region": "eu"},
        more=[("Mcp-Param-Region", "eu")],
    )
    assert response.error["code"] == -32020


async def test_older_revisions_have_no_parameter_headers(mirrored: House) -> None:
    response = await mirrored.legacy(
        "tools/call", {"name": "sql__run", "arguments": {"region": "eu"}}, headers={"mcp-param-region": "us"}
    )
    assert response.status == 200


async def test_a_mismatch_does_not_tell_that_a_hidden_tool_exists(mirrored: House) -> None:
    mirrored.rooms.decisions["sql__run"] = Decision(effect=Effect.DENY, hidden=True)
    response = await mirrored.modern("tools/call", {"name": "sql__run"}, headers={"mcp-param-region": "eu"})
    unknown = await mirrored.modern("tools/call", {"name": "sql__nix"}, headers={"mcp-param-region": "eu"})
    assert response.error == {"code": -32602, "message": "Unknown tool: sql__run"}
    assert response.status == unknown.status
    assert list(response.headers) == list(unknown.headers)
    assert mirrored.codes == ["unknown_tool"] * 2


async def test_a_definition_that_changes_changes_its_headers(mirrored: House) -> None:
    call: dict[str, Any] = {"name": "sql__run", "arguments": {"region": "eu"}}
    assert (await mirrored.modern("tools/call", call)).status == 400
    mirrored.rooms.add(tool("sql", "run"))
    assert (await mirrored.modern("tools/call", call)).status == 200


@pytest.mark.parametrize(
    "properties",
    [
        {"a": {"type": "number", "x-mcp-header": "A"}},
        {"a": {"type": "string", "x-mcp-header": ""}},
        {"a": {"type": "string", "x-mcp-header": "A\r\nX: y"}},
        {"a": {"type": "string", "x-mcp-header": 7}},
        {"a": {"type": "string", "x-mcp-header": "A"}, "b": {"type": "string", "x-mcp-header": "a"}},
        {"a": {"type": ["string"], "x-mcp-header": "A"}},
        {"a": "not a schema"},
        "not an object",
    ],
)
async def test_an_annotation_that_is_not_valid_asks_for_nothing(house: House, properties: Any) -> None:
    house.rooms.add(tool("sql", "run", inputSchema={"type": "object", "properties": properties}))
    response = await house.modern("tools/call", {"name": "sql__run", "arguments": {"a": "1", "b": "2"}})
    assert response.status == 200
