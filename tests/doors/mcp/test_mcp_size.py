"""What a huge call costs everybody else: little, since it is refused before it is looked into."""

from __future__ import annotations

import time

import pytest

from gateway.doors.mcp.door import MAX_MESSAGE_BYTES
from gateway.doors.mcp.message import Reader
from gateway.errors import Refusal
from gateway.protocols.json_limits import MAX_FLOATS, MAX_VALUES
from tests.doors.mcp.house import House, tool
from tests.heartbeat import heartbeat


def call(values: bytes) -> bytes:
    params = b'{"name":"ledger__transfer","arguments":{"x":[' + values + b"]}}"
    return b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":' + params + b"}"


async def test_a_call_larger_than_policy_reads_is_refused_before_it_is_parsed(house: House) -> None:
    response = await house.legacy("tools/call", {"name": "ledger__transfer", "arguments": {"x": "a" * (1 << 20)}})
    assert response.status == 413
    assert house.codes == ["too_large"]
    assert house.rooms.performed == []


@pytest.mark.parametrize("value", [b"1.1", b"1e1", b"1", b"{}", b'""', b"[[[[]]]]", b'{"a":1}', b"0.12345678901234567"])
def test_a_call_full_of_small_values_is_refused_quickly(value: bytes) -> None:
    body = call(b",".join([value] * ((MAX_MESSAGE_BYTES - 200) // (len(value) + 1))))
    began_s = time.process_time()
    with pytest.raises(Refusal) as refused:
        Reader().read(body)
    assert refused.value.code == "too_large"
    assert time.process_time() - began_s < 0.06


def test_a_vector_of_long_numbers_and_a_long_text_of_commas_pass() -> None:
    reader = Reader()
    assert reader.read(call(b",".join([b"0.123456789012345"] * MAX_FLOATS))).inexact is None
    assert reader.read(call(b'"' + b'a,[\\"{' * MAX_VALUES + b'"')).inexact is None
    with pytest.raises(Refusal):
        reader.read(call(b",".join([b"0.5"] * (MAX_FLOATS + 1))))
    assert reader.read(call(b"0.5")).inexact is None  # each message is counted for itself


async def test_a_result_of_line_breaks_becomes_one_event_without_holding_up_others(house: House) -> None:
    """Each break made a line of its own: 1.5 s and 600 MB."""
    body = b'{"content":[' + b"\n" * (8 * 1024 * 1024) + b"]}"

    async def broken_lines(_: object) -> bytes:
        return body

    house.rooms.add(tool("x", "odd"), broken_lines)
    async with heartbeat() as beating:
        response = await house.modern("tools/call", {"name": "x__odd"}, headers={"accept": "text/event-stream"})
    assert response.body.count(b"\n") == 3
    assert len(response.body) > len(body)
    assert beating.longest_s < 0.15
