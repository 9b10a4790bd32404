"""Whatever is sent, the door answers: no traceback, no hang, nothing executed that was not decided."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.doors.mcp.house import House, tool

METHODS = ["tools/call", "tools/list", "server/discover", "initialize", "ping", "notifications/x", "prompts/get", ""]
VERSIONS = ["2026-07-28", "2025-11-25", "2025-06-18", "1.0", "", "2026-07-28 ", "\x7f"]
NAMES = ["git__log", "log", "git__", "__log", "ledger__transfer", "", "git__log\n", "ü", "=?base64?Z2l0X19sb2c=?="]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def usually(values: list[str]) -> st.SearchStrategy[Any]:
    return st.sampled_from(values) | json_values


metas = st.fixed_dictionaries(
    {},
    optional={
        "io.modelcontextprotocol/protocolVersion": usually(VERSIONS),
        "io.modelcontextprotocol/clientCapabilities": st.just({}) | json_values,
        "traceparent": json_values,
        "progressToken": json_values,
    },
)
params = st.fixed_dictionaries(
    {},
    optional={
        "name": usually(NAMES),
        "arguments": st.just({}) | json_values,
        "_meta": metas | json_values,
        "cursor": json_values,
        "protocolVersion": usually(VERSIONS),
        "uri": json_values,
    },
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | json_values,
        "id": st.integers() | json_values,
        "method": usually(METHODS),
        "params": params | json_values,
        "result": json_values,
    },
)
header_values = st.text(st.characters(max_codepoint=255), max_size=20)
headers = st.fixed_dictionaries(
    {},
    optional={
        "mcp-protocol-version": st.sampled_from(VERSIONS) | header_values,
        "mcp-method": st.sampled_from(METHODS) | header_values,
        "mcp-name": st.sampled_from([name for name in NAMES if name.isascii()]) | header_values,
        "mcp-param-region": header_values,
        "mcp-session-id": header_values,
        "accept": st.sampled_from(["*/*", "text/event-stream", "application/json"]) | header_values,
        "content-type": st.just("application/json") | header_values,
        "origin": st.just("http://localhost") | header_values,
        "traceparent": header_values,
    },
)
bodies = messages.map(lambda each: _dumps(each)) | json_values.map(lambda each: _dumps(each)) | st.binary(max_size=200)


def _dumps(value: object) -> bytes:
    return json.dumps(value).encode()


def fuzzed_house() -> House:
    house = House()
    properties = {"region": {"type": "string", "x-mcp-header": "Region"}}
    house.rooms.add(tool("git", "log", inputSchema={"type": "object", "properties": properties}))
    return house


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=bodies, extra=headers, path=st.sampled_from(["/mcp", "/mcp/git", "/mcp/nix", "/mcp//", "/mcp/a/b"]))
def test_every_request_is_answered_and_none_with_500(body: bytes, extra: dict[str, str], path: str) -> None:
    async def play() -> None:
        house = fuzzed_house()
        async with asyncio.timeout(5):
            response = await house.send(body, path=path, headers=extra)
        assert response.status in (200, 202, 400, 403, 404, 406, 413, 415), response
        assert response.headers["x-request-id"]
        if response.status == 200 and response.headers["content-type"] == "application/json":
            answer = response.json
            assert answer["jsonrpc"] == "2.0"
            assert ("result" in answer) != ("error" in answer)
        elif response.status not in (200, 202):
            assert isinstance(response.error["code"], int)
            assert isinstance(response.error["message"], str)
        for action in house.rooms.performed:
            sent = orjson.loads(body)["params"]
            assert action.target in (sent["name"], f"git__{sent['name']}")
            assert action.arguments == (sent.get("arguments") or {})

    asyncio.run(play())


@settings(max_examples=200, deadline=None)
@given(arguments=st.dictionaries(st.text(), json_values, max_size=4))
def test_arguments_arrive_as_they_were_sent_or_not_at_all(arguments: dict[str, Any]) -> None:
    async def play() -> None:
        house = House()
        house.rooms.add(tool("git", "log"))
        call = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "git__log", "arguments": arguments},
        }
        response = await house.send(_dumps(call))
        if house.rooms.performed:
            assert house.rooms.performed[0].arguments == arguments
        else:
            assert response.result["_meta"]["gateway/code"] == "malformed"

    asyncio.run(play())


def test_the_door_loads_no_sdk_and_no_model_library() -> None:
    code = "import sys, gateway.doors.mcp; print([m for m in ('mcp', 'mcp_types', 'pydantic', 'httpx', 'starlette') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
