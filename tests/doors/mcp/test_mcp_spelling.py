"""Through the MCP door: keys have one spelling, numbers one value, and neither tells of a tool that policy hides."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.actions import Action, Decision, Effect
from gateway.guards import ARGUMENT_NAMES, Guards
from tests.doors.mcp.house import House, Response, tool

HIDDEN = Decision(effect=Effect.DENY, rules=("close.never",), reasons=("Never.",), hidden=True)
DENIED = Decision(effect=Effect.DENY, rules=("x",), reasons=("Not this.",))
SCHEMA = {"type": "object", "properties": {"to": {}, "lines": {"items": {"properties": {"sku": {}}}}}}


@pytest.fixture(name="guarded")
def _guarded(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """The house with the guards of the product."""
    monkeypatch.setattr(house.rooms, "inspect_input", Guards().inspect_input)
    house.rooms.add(tool("bank", "pay", inputSchema=SCHEMA))
    house.rooms.add(tool("bank", "close", inputSchema=SCHEMA), decision=HIDDEN)
    house.rooms.add(tool("bank", "audit", inputSchema=SCHEMA), decision=DENIED)
    return house


async def both(house: House, name: str, arguments: dict[str, Any]) -> list[Response]:
    params = {"name": name, "arguments": arguments}
    return [await house.modern("tools/call", params), await house.legacy("tools/call", params)]


@pytest.mark.parametrize(
    ("arguments", "path", "meant"),
    [
        ({"to": "ada", "To": "mallory"}, "To", "to"),
        ({"lines": [{"SKU": 1}]}, "lines.0.SKU", "sku"),
        ({"\uff54o": "mallory"}, r"\uff54o", "to"),
    ],
)
async def test_another_spelling_of_an_argument_is_told_to_the_model(
    guarded: House, arguments: dict[str, Any], path: str, meant: str
) -> None:
    for response in await both(guarded, "bank__pay", arguments):
        assert f"`{path}` is another spelling of `{meant}`; send `{meant}`." in response.text
        assert response.result["_meta"]["gateway/code"] == "malformed"
    assert guarded.rooms.performed == []
    assert [refusal.detail["guard"] for _, refusal in guarded.rooms.refusals] == [ARGUMENT_NAMES] * 2


async def test_a_tool_that_says_nothing_of_its_arguments_takes_each_key_once(guarded: House) -> None:
    for response in await both(guarded, "git__log", {"path": "a", "Path": "b"}):
        assert "`path` and `Path` differ only in spelling" in response.text
    assert (await both(guarded, "git__log", {"Path": "b"}))[0].result["structuredContent"] == {"Path": "b"}


async def test_spelling_tells_nothing_of_a_hidden_tool(guarded: House) -> None:
    hidden = await both(guarded, "bank__close", {"To": "x", "to": "y"})
    unknown = await both(guarded, "bank__cl0se", {"To": "x", "to": "y"})
    for one, other in zip(hidden, unknown, strict=True):
        assert one.status == other.status
        assert one.body.replace(b"close", b"cl0se") == other.body
        assert b"spelling" not in one.body


async def test_policy_speaks_only_of_what_is_spelt_right(guarded: House) -> None:
    """As with values: who sends arguments that cannot be read is told to correct them first."""
    assert "another spelling" in (await both(guarded, "bank__audit", {"To": "x"}))[0].text
    assert "Not this." in (await both(guarded, "bank__audit", {"to": "x"}))[0].text


# ---------------------------------------------------------------- numbers


def call(arguments: str) -> bytes:
    params = f'{{"name":"git__log","arguments":{arguments}}}'
    return f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}'.encode()


@pytest.mark.parametrize(
    "number",
    [
        "9007199254740993.0",
        "1e-400",
        "1E400",
        "0.1000000000000000055511151231257827021181583404541015625",
        "1." + "0" * 500,
    ],
)
async def test_a_number_that_no_double_is_exactly_is_refused(house: House, number: str) -> None:
    response = await house.send(call(f'{{"x":{number}}}'))
    assert "can't be passed on exactly" in response.text
    assert number[:20] in response.text
    assert house.rooms.performed == []


async def test_exact_numbers_and_integers_keep_their_value(house: House) -> None:
    sent = '{"a":1.50,"b":-0.0,"c":1e3,"d":9007199254740991,"e":0.1,"f":5e-324}'
    await house.send(call(sent))
    assert house.rooms.performed[0].arguments == json.loads(sent)


@pytest.mark.parametrize("digits", [4_000, 5_000, 100_000])
async def test_an_integer_of_very_many_digits_is_refused_cleanly(house: House, digits: int) -> None:
    response = await house.send(call(f'{{"x":{"9" * digits}}}'))
    assert response.status in (200, 400)
    assert "error" in response.json or response.result["isError"]
    assert house.rooms.performed == []


# ---------------------------------------------------------------- what a client attaches


async def test_what_each_leg_sets_for_itself_is_passed_on_in_no_spelling(house: House) -> None:
    meta = {
        "TraceParent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01",
        "\u017fame": 1,
        "tracestate": "a=b",
        "BAGGAGE": "x",
        "ProgressToken": 7,
        "IO.modelcontextprotocol/related-task": {"a": 1},
        "Gateway/code": "x",
        "vendor.example/Key": {"TraceParent": 1},
        "kept": 1.5,
    }
    await house.legacy("tools/call", {"name": "git__log", "_meta": meta})
    body = house.rooms.performed[0].body
    assert body is not None
    assert msgspec.json.decode(body) == {"_meta": {"vendor.example/Key": {"TraceParent": 1}, "kept": 1.5}}


# ---------------------------------------------------------------- results


async def test_a_result_says_what_it_is_in_one_spelling(house: House) -> None:
    async def odd(_: Action) -> bytes:
        return (
            b'{"content":[{"Type":1.50}],"isError":false,"IsError":true,"ResultType":"input_required","_Meta":{},'
            b'"input_requests":{"a":1},"request\\u017ftate":"x","vendor":{"isError":true}}'
        )

    house.rooms.add(tool("x", "odd"), odd)
    kept = b'"content":[{"Type":1.50}],"isError":false,"vendor":{"isError":true}}'
    assert (await house.legacy("tools/call", {"name": "x__odd"})).body.endswith(b'"result":{' + kept + b"}")
    assert (await house.modern("tools/call", {"name": "x__odd"})).body.endswith(
        b'"result":{"resultType":"complete",' + kept + b"}"
    )
