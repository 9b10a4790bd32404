"""Chat completion requests and answers: what is read, what is rewritten, what survives untouched."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.actions import Action, Agent, Caller, Decision, Effect, Kind, ModelTarget, Session, Trace
from gateway.doors.openai.answer import proposals, release
from gateway.doors.openai.request import outbound, parse_request, wants_usage
from gateway.errors import Refusal
from gateway.proposals import Verdict

TARGET = ModelTarget(alias="demo", provider="p", model="real-model")
MESSAGES = '[{"role": "user", "content": "hi", "vendor_field": {"a": 1.0}}]'


def _action(body: bytes, *, stream: bool = False) -> Action:
    return Action(
        id="1",
        kind=Kind.MODEL_INVOKE,
        door="openai.chat",
        caller=Caller(Agent(id="a"), None, "k", "key"),
        session=Session("s", "minted"),
        trace=Trace("0" * 32, "0" * 16),
        target="demo",
        request_id="r",
        received_ns=0,
        body=body,
        stream=stream,
    )


def test_unknown_fields_and_number_spellings_survive_to_the_provider() -> None:
    request = parse_request(f'{{"model": "demo", "x_vendor": 1.0e2, "messages": {MESSAGES}}}'.encode())
    sent = outbound(_action(request.body), TARGET)
    assert b'"vendor_field": {"a": 1.0}' in sent
    assert b"1.0e2" in sent
    assert json.loads(sent)["model"] == "real-model"


def test_a_request_without_a_maximum_is_held_to_what_was_reserved() -> None:
    request = parse_request(f'{{"model": "demo", "messages": {MESSAGES}}}'.encode())
    assert json.loads(outbound(_action(request.body), TARGET))["max_tokens"] == 4096


def test_a_stream_asks_for_usage_even_if_the_client_said_no() -> None:
    raw = f'{{"model":"demo","stream":true,"stream_options":{{"include_usage":false,"keep":1}},"messages":{MESSAGES}}}'
    request = parse_request(raw.encode())
    assert not wants_usage(request.body)
    sent = json.loads(outbound(_action(request.body, stream=True), TARGET))
    assert sent["stream_options"] == {"include_usage": True, "keep": 1}


def test_the_same_key_twice_becomes_one_value_for_policy_and_provider() -> None:
    raw = f'{{"model":"cheap","model":"demo","max_tokens":5,"max_tokens":9,"messages":{MESSAGES}}}'
    request = parse_request(raw.encode())
    assert (request.model, request.arguments["max_tokens"]) == ("demo", 9)
    assert request.body.count(b'"max_tokens"') == 1


def test_tools_are_forwarded_as_they_were_read() -> None:
    tools = '[{"type":"function","function":{"name":"safe","name":"wipe","parameters":{"type":"object"}}}]'
    request = parse_request(f'{{"model":"demo","messages":{MESSAGES},"tools":{tools}}}'.encode())
    assert request.arguments["tools"] == ["wipe"]
    assert b"safe" not in request.body


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        ("", "JSON object"),
        ("[]", "JSON object"),
        ("{", "JSON object"),
        ('{"model": NaN}', "JSON object"),
        ("[" * 100_000, "JSON object"),
        ('{"messages": []}', "model"),
        ('{"model": 3, "messages": []}', "model"),
        ('{"model": "demo"}', "messages"),
        ('{"model": "demo", "messages": {}}', "messages"),
        ('{"model": "demo", "messages": [], "stream": "yes"}', "stream"),
        ('{"model": "demo", "messages": [], "max_tokens": -1}', "max_tokens"),
        ('{"model": "demo", "messages": [], "max_tokens": true}', "max_tokens"),
        ('{"model": "demo", "messages": [], "max_tokens": 1.5}', "max_tokens"),
        ('{"model": "demo", "messages": [], "n": 0}', "n"),
        ('{"model": "demo", "messages": [], "models": ["dear"]}', "models"),
        ('{"model": "demo", "messages": [], "Fallbacks": ["dear"]}', "Fallbacks"),
        ('{"model": "demo", "messages": [], "tools": {}}', "tools"),
        ('{"model": "demo", "messages": [], "tools": [1]}', "tools[0]"),
        ('{"model": "demo", "messages": [], "tools": [{"type": "function"}]}', "tools[0]"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_name_of_the_field(raw: str, word: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_request(raw.encode())
    assert caught.value.code == "malformed"
    assert word in caught.value.message


def test_a_body_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(Refusal):
        parse_request(b'{"model": "\xff", "messages": []}')


def _answer(*names: str, **more: Any) -> bytes:
    calls = [
        {"id": f"c{i}", "type": "function", "function": {"name": n, "arguments": "{}"}} for i, n in enumerate(names)
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls} | more
    return json.dumps(
        {"id": "x", "vendor": [1], "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    ).encode()


def _verdicts(body: bytes, *denied: str) -> list[Verdict]:
    deny = Decision(effect=Effect.DENY, reasons=("Never.",))
    allow = Decision(effect=Effect.ALLOW)
    return [
        Verdict(p, deny if p.name in denied else allow, p.name not in denied)
        for p in proposals(body, b'{"tools":[]}')[1]
    ]


def test_a_denied_call_is_removed_and_its_reason_told() -> None:
    body = _answer("read", "wipe")
    answer = json.loads(release(body, _verdicts(body, "wipe")))
    message = answer["choices"][0]["message"]
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["read"]
    assert "wipe was not executed: Never." in message["content"]
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert answer["vendor"] == [1]


def test_an_answer_without_calls_left_stops() -> None:
    body = _answer("wipe", function_call={"name": "wipe", "arguments": "{}"})
    answer = json.loads(release(body, _verdicts(body, "wipe")))
    choice = answer["choices"][0]
    assert "tool_calls" not in choice["message"]
    assert "function_call" not in choice["message"]
    assert choice["finish_reason"] == "stop"


def test_a_call_written_with_escapes_is_found() -> None:
    body = (
        b'{"choices":[{"message":{"tool\\u005fcalls":[{"id":"1","function":{"name":"w\\u0069pe","arguments":"{}"}}]}}]}'
    )
    assert [p.name for p in proposals(body, None)[1]] == ["wipe"]


CALLS = '[{"id":"1","type":"function","function":{"name":"wipe","arguments":"{}"}}]'


@pytest.mark.parametrize(
    "body",
    [
        f'{{"choices":[{{"message":{{"tool_calls":{CALLS},"tool_calls":null}}}}]}}',
        f'{{"choices":[{{"message":{{"tool_calls":{CALLS}}},"message":{{}}}}]}}',
        f'{{"choices":[{{"message":{{"tool_calls":{CALLS}}}}}],"choices":[]}}',
        f'{{"choices":[{{"message":{{}},"delta":{{"tool_calls":{CALLS}}}}}]}}',
        f'{{"tool_calls":{CALLS},"choices":[]}}',
        f'{{"choices":[{{"message":{{"content":null,"x":{{"function_call":{CALLS}}}}}}}]}}',
    ],
)
def test_a_call_that_only_some_parsers_see_does_not_go_out(body: str) -> None:
    out, found = proposals(body.encode(), None)
    assert found == []
    assert b"wipe" not in out


def test_a_call_that_is_two_kinds_at_once_is_unreadable() -> None:
    both = '{"id":"1","type":"custom","function":{"name":"read","arguments":"{}"},"custom":{"name":"wipe","input":"x"}}'
    _, found = proposals(f'{{"choices":[{{"message":{{"tool_calls":[{both}]}}}}]}}'.encode(), None)
    assert [one.arguments for one in found] == [None]


def test_an_answer_without_calls_goes_out_as_the_bytes_it_was() -> None:
    body = '{"choices": [{"message": {"content": "h\\u00e9 \u2028"}}], "vendor": 1.0}'.encode()
    assert proposals(body, None) == (body, [])


def test_the_cap_that_was_reserved_is_the_cap_that_is_sent() -> None:
    raw = f'{{"model":"demo","max_completion_tokens":7,"messages":{MESSAGES}}}'
    request = parse_request(raw.encode())
    action = msgspec.structs.replace(_action(request.body), arguments=request.arguments)
    sent = json.loads(outbound(action, TARGET))
    assert sent["max_tokens"] == 7
    assert "max_completion_tokens" not in sent


def test_declared_parameters_come_with_the_proposal() -> None:
    request = b'{"tools":[{"type":"function","function":{"name":"wipe","parameters":{"type":"object"}}}]}'
    assert proposals(_answer("wipe"), request)[1][0].parameters == {"type": "object"}


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"choices": 1}'])
def test_an_answer_that_cannot_be_inspected_is_withheld(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        proposals(body, None)
    assert caught.value.code == "upstream_failed"


def test_an_action_survives_serialisation() -> None:
    action = _action(b'{"model":"demo"}', stream=True)
    assert msgspec.json.decode(msgspec.json.encode(action), type=Action) == action
