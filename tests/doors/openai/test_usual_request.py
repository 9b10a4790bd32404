"""The quick way of reading a request decides and sends what the careful way does."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest

from bench import payload
from gateway.doors.openai import request as careful
from gateway.doors.openai.fields import MESSAGE, NAMED, REQUEST, TOOL, Shape
from gateway.doors.openai.request import ChatRequest, parse_request
from gateway.doors.openai.usual_request import Function, Message, StreamOptions, Tool, UsualRequest, read_usual
from gateway.errors import Refusal

FUNCTION = {"name": "look", "description": "Looks.", "parameters": {"type": "object", "minimum": 1.5}, "strict": None}
USUAL: dict[str, Any] = {
    "model": "cheap",
    "messages": [
        {"role": "system", "content": 'é \u2028 " \\ \n \x7f'},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "custom": {"x": 1.0}}], "refusal": None},
        {"role": "tool", "tool_call_id": "c", "content": "", "name": "n"},
        {"role": "assistant"},
    ],
    "tools": [{"type": "function", "function": FUNCTION}, {"type": "function", "function": {"name": "a.b:c/d-e_f"}}],
    "stream": True,
    "stream_options": {"include_usage": True, "include_obfuscation": False},
    "max_tokens": 7,
    "max_completion_tokens": 8,
    "n": 2,
    "temperature": 0.25,
    "seed": 123456789012345678901234567890,
    "metadata": {"a": {"b": []}},
    "stop": ["x", None],
}
ODD: list[Any] = [None, True, 0, -1, 1.5, "", "x", [], {}, [{}], {"name": "a"}, 10**30]


def carefully(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> ChatRequest | None:
    with monkeypatch.context() as patched:
        patched.setattr(careful, "read_usual", lambda _: None)
        try:
            return parse_request(raw)
        except Refusal:
            return None


def same(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the quick way took it; both ways agree in any case."""
    if read_usual(raw) is None:
        return False
    quick, slow = parse_request(raw), carefully(raw, monkeypatch)
    assert slow is not None, raw
    assert (quick.model, quick.stream, quick.arguments) == (slow.model, slow.stream, slow.arguments)
    assert json.loads(quick.body) == json.loads(slow.body)
    assert quick.body.count(b"1.0") == slow.body.count(b"1.0")
    return True


def test_requests_of_most_clients_are_read_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (USUAL, {"model": "m", "messages": []}):
        for separators in ((",", ":"), (", ", ": ")):
            for ascii_only in (True, False):
                raw = json.dumps(value, separators=separators, ensure_ascii=ascii_only).encode()
                assert same(raw, monkeypatch)
    assert all(same(raw, monkeypatch) for raw in payload.BODIES.values())


def test_both_ways_agree_on_whatever_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(7)
    quick = 0
    for _ in range(3_000):
        value = json.loads(json.dumps(USUAL))
        for _ in range(dice.randrange(1, 3)):
            spot = value
            while True:
                key = dice.choice(list(spot) if isinstance(spot, dict) else range(len(spot))) if spot else None
                if key is None or dice.random() < 0.4 or not isinstance(spot[key], (dict, list)):
                    break
                spot = spot[key]
            if key is None:
                continue
            if dice.random() < 0.3:
                del spot[key]
            elif isinstance(spot, dict) and dice.random() < 0.2:
                spot[dice.choice(("vendor", "content", "type", "Name"))] = dice.choice(ODD)
            else:
                spot[key] = dice.choice(ODD)
        raw = json.dumps(value).encode()
        taken = same(raw, monkeypatch)
        quick += taken
        if not taken:
            slow = carefully(raw, monkeypatch)
            assert slow is None or json.loads(slow.body).keys() == value.keys()
    assert 300 < quick < 2_700


def test_what_it_reads_stands_in_the_table() -> None:
    options = REQUEST.nested["stream_options"]
    pairs: list[tuple[Any, Shape]] = [
        (UsualRequest, REQUEST),
        (Message, MESSAGE),
        (Tool, TOOL),
        (Function, NAMED),
        (StreamOptions, options),
    ]
    for struct, shape in pairs:
        assert {field.name for field in msgspec.structs.fields(struct)} <= shape.names


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"m","messages":[{"role":"user","content":[{"type":"image_url"}],"content":"x"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"x","\\u0063ontent":"y"}]}',
        b'{"model":"a","model":"m","messages":[{"role":"user","content":"z"}],"messages":[]}',
        b'{"model":"m","messages":[],"tools":[{"type":"function","function":{"name":"a","name":"b"}}]}',
        b'{"model":"m","messages":[],"stream_options":{"include_usage":false,"include_usage":true}}',
    ],
)
def test_what_is_there_twice_is_sent_once(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    request = parse_request(raw)
    assert request.body == msgspec.json.encode(msgspec.json.decode(request.body))
    assert json.loads(request.body) == json.loads(raw)
    slow = carefully(raw, monkeypatch)
    assert slow is not None
    assert json.loads(slow.body) == json.loads(raw)
    for word in (b'"content"', b'"model"', b'"messages"', b'"name"', b'"include_usage"'):
        assert slow.body.count(word) <= 1
