"""Streamed chat completions: text flows, tool calls wait for their decision, whatever the bytes look like."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.actions import Decision, Effect
from gateway.doors.openai.stream import ChatStream
from gateway.errors import Refusal
from gateway.proposals import Proposal, Verdict

DENY = Decision(effect=Effect.DENY, rules=("no",), reasons=("Not this one.",))
ALLOW = Decision(effect=Effect.ALLOW)


class Judge:
    """Denies the named tools and remembers what it was asked."""

    def __init__(self, *denied: str) -> None:
        self.denied = denied
        self.asked: list[Proposal] = []

    async def __call__(self, proposals: list[Proposal]) -> list[Verdict]:
        self.asked += proposals
        return [
            Verdict(p, DENY if p.name in self.denied else ALLOW, p.name not in self.denied and p.arguments is not None)
            for p in proposals
        ]


async def _pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def _filter(
    data: bytes, judge: Judge, *, size: int = 1 << 20, keep_usage: bool = False
) -> tuple[bytes, ChatStream]:
    stream = ChatStream(judge, keep_usage=keep_usage)
    out = b"".join([piece async for piece in stream.run(_pieces(data, size))])
    return out, stream


def _sse(*events: dict[str, Any] | str, end: str = "\n\n") -> bytes:
    return "".join(f"data: {e if isinstance(e, str) else json.dumps(e)}{end}" for e in events).encode()


def _chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0) -> dict[str, Any]:
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "choices": [{"index": index, "delta": delta, "finish_reason": finish}],
    }


def _call(index: int, **parts: Any) -> dict[str, Any]:
    call: dict[str, Any] = {"index": index}
    if "id" in parts:
        call |= {"id": parts.pop("id"), "type": "function"}
    return {"tool_calls": [call | {"function": parts}]}


USAGE = {
    "choices": [],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}},
}
TWO_CALLS = _sse(
    _chunk({"role": "assistant", "content": "Let me see. "}),
    _chunk(_call(0, id="a", name="read", arguments="")),
    _chunk(_call(0, arguments='{"pa')),
    _chunk(_call(0, arguments='th": "x"}')),
    _chunk(_call(1, id="b", name="wipe", arguments='{"all": true}')),
    _chunk({}, "tool_calls"),
    USAGE,
    "[DONE]",
)


def _assembled(out: bytes) -> tuple[str, dict[int, dict[str, str]], list[str | None]]:
    """Put the stream together as a client does: text, tool calls by index, finish reasons."""
    text, calls, finishes = "", dict[int, dict[str, str]](), list[str | None]()
    for event in out.decode().split("\n\n"):
        if not event or event == "data: [DONE]":
            continue
        for choice in json.loads(event.removeprefix("data: "))["choices"]:
            delta = choice.get("delta") or {}
            text += delta.get("content") or ""
            for part in delta.get("tool_calls") or []:
                call = calls.setdefault(part["index"], {"name": "", "arguments": ""})
                call["name"] += part["function"].get("name") or ""
                call["arguments"] += part["function"].get("arguments") or ""
            if choice.get("finish_reason"):
                finishes.append(choice["finish_reason"])
    return text, calls, finishes


async def test_text_passes_as_the_bytes_it_was() -> None:
    data = _sse(_chunk({"content": "hé"}), _chunk({"content": "llo", "vendor": 1}), _chunk({}, "stop"), "[DONE]")
    out, stream = await _filter(data, Judge())
    assert out == data
    assert stream.usage is None


async def test_injected_usage_is_taken_out_and_known() -> None:
    out, stream = await _filter(_sse(_chunk({"content": "a"}), USAGE, "[DONE]"), Judge())
    assert b"prompt_tokens" not in out
    assert stream.usage is not None
    assert (stream.usage.input_tokens, stream.usage.output_tokens, stream.usage.cached_input_tokens) == (7, 3, 2)


async def test_usage_stays_where_the_client_asked_for_it() -> None:
    out, _ = await _filter(_sse(USAGE, "[DONE]"), Judge(), keep_usage=True)
    assert b"prompt_tokens" in out


async def test_allowed_calls_reach_the_client_complete() -> None:
    judge = Judge()
    out, _ = await _filter(TWO_CALLS, judge)
    text, calls, finishes = _assembled(out)
    assert text == "Let me see. "
    assert calls == {
        0: {"name": "read", "arguments": '{"path": "x"}'},
        1: {"name": "wipe", "arguments": '{"all": true}'},
    }
    assert finishes == ["tool_calls"]
    assert [(p.call_id, p.name, p.arguments) for p in judge.asked] == [
        ("a", "read", {"path": "x"}),
        ("b", "wipe", {"all": True}),
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
async def test_a_denied_call_is_left_out_at_any_chunking(size: int) -> None:
    out, _ = await _filter(TWO_CALLS, Judge("read"), size=size)
    text, calls, finishes = _assembled(out)
    assert calls == {0: {"name": "wipe", "arguments": '{"all": true}'}}  # renumbered: clients need 0, 1, ...
    assert "read was not executed: Not this one." in text
    assert finishes == ["tool_calls"]


async def test_when_every_call_is_denied_the_answer_stops() -> None:
    out, _ = await _filter(TWO_CALLS, Judge("read", "wipe"))
    text, calls, finishes = _assembled(out)
    assert calls == {}
    assert text.count("was not executed") == 2
    assert finishes == ["stop"]
    assert out.endswith(b"data: [DONE]\n\n")


async def test_no_byte_of_a_call_leaves_before_its_decision() -> None:
    seen: list[bytes] = []

    class Late(Judge):
        async def __call__(self, proposals: list[Proposal]) -> list[Verdict]:
            assert b"tool_calls" not in b"".join(seen)
            assert b"wipe" not in b"".join(seen)
            return await super().__call__(proposals)

    stream = ChatStream(Late(), keep_usage=False)
    async for piece in stream.run(_pieces(TWO_CALLS, 50)):
        seen.append(piece)  # noqa: PERF401 - the judge looks at it while it grows
    assert b"wipe" in b"".join(seen)


ESCAPED = (
    'data: {"choices":[{"index":0,"delta":{"tool\\u005fcalls":[{"index":0,"id":"x","function":'
    '{"name":"wi\\u0070e","arguments":"{}"}}]}}]}\n\n'
)
TWICE = 'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"x","function":{"name":"wipe","arguments":"{}"}}]},"delta":{}}]}\n\n'
AT_FINISH = 'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"wipe","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}\n\n'
LEGACY = 'data: {"choices":[{"index":0,"delta":{"function_call":{"name":"wipe","arguments":"{}"}},"finish_reason":"function_call"}]}\n\n'
NO_FINISH = 'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"wipe","arguments":"{}"}}]}}]}\n\n'
CUSTOM = 'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"type":"custom","custom":{"name":"wipe","input":"rm"}}]},"finish_reason":"tool_calls"}]}\n\n'
MULTILINE = 'data: {"choices":[{"index":0,\ndata: "delta":{"tool_calls":[{"index":0,"function":{"name":"wipe","arguments":"{}"}}]}}]}\n\n'


def _pairs(text: str) -> list[tuple[str, Any]]:
    """Every key and value at any depth, those included that a dictionary would lose."""
    pairs: list[tuple[str, Any]] = []

    def keep(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs.extend(found)
        return dict(found)

    json.loads(text, object_pairs_hook=keep)
    return pairs


MARKED = "data: {}\n\n\ufeff" + TWICE.replace(',"delta":{}', "")
IN_MESSAGE = TWICE.replace('"delta":{"tool', '"message":{"tool')
ON_TOP = 'data: {"tool_calls":[{"function":{"name":"wipe","arguments":"{}"}}],"choices":[]}\n\n'
OTHER_CASE = TWICE.replace("tool_calls", "Tool_Calls").replace(',"delta":{}', "")
LONG_S = TWICE.replace("tool_calls", "tool_call\u017f").replace(',"delta":{}', "")
MISSPELT_NAME = TWICE.replace('"name":"wipe"', '"name":"wipe","Name":"wipe"').replace(',"delta":{}', "")
BOTH = TWICE.replace('"function":{', '"type":"custom","custom":{"name":"wipe","input":"x"},"function":{').replace(
    ',"delta":{}', ""
)
WRONG_TYPE = TWICE.replace('"id":"x"', '"id":"x","type":"custom"').replace(',"delta":{}', "")


@pytest.mark.parametrize("event", [MARKED, BOTH, WRONG_TYPE])
async def test_what_can_be_read_in_two_ways_is_not_released(event: str) -> None:
    try:
        out, _ = await _filter(event.encode(), Judge())
    except Refusal:
        return
    assert b"tool_calls" not in out


@pytest.mark.parametrize("event", [IN_MESSAGE, ON_TOP, OTHER_CASE, LONG_S, MISSPELT_NAME])
async def test_calls_in_other_places_or_spellings_are_taken_out(event: str) -> None:
    out, _ = await _filter(event.encode(), Judge("wipe"))
    assert b"arguments" not in out
    assert b"Name" not in out


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c"])
async def test_what_some_readers_take_for_a_line_end_does_not_smuggle_an_event(mark: str) -> None:
    hidden = json.dumps({"choices": [{"delta": {"tool_calls": [{"function": {"name": "wipe"}}]}}]})
    for event in (f": x{mark}data: {hidden}\n\n", f"event: x{mark}data: {hidden}\n\n"):
        out, _ = await _filter(event.encode(), Judge())
        assert b"wipe" not in out
    text = json.dumps({"choices": [{"delta": {"content": f"a{mark}data: b"}}]}, ensure_ascii=False)
    if mark.isprintable() or mark in "\u2028\u2029\u0085":
        out, _ = await _filter(f"data: {text}\n\n".encode(), Judge())
        assert len(out.decode().splitlines()) == 2  # the event, and the empty line after it


async def test_an_error_event_ends_the_stream_without_its_text() -> None:
    with pytest.raises(Refusal) as caught:
        await _filter(b'event: error\ndata: {"message": "key sk-secret"}\n\n', Judge())
    assert "secret" not in caught.value.message


async def test_usage_of_a_stream_that_breaks_off_is_not_believed() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield _sse({"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}})
        raise Refusal("upstream_failed", "It broke off.")

    stream = ChatStream(Judge(), keep_usage=False)
    with pytest.raises(Refusal):
        async for _ in stream.run(broken()):
            pass
    assert stream.usage is None


async def test_more_calls_than_anybody_could_act_on_are_all_left_out_with_a_sentence() -> None:
    events = [_chunk(_call(index, id=str(index), name="read", arguments="{}")) for index in range(300)]
    judge = Judge()
    out, _ = await _filter(_sse(*events, _chunk({}, "tool_calls"), "[DONE]"), judge)
    text, calls, finishes = _assembled(out)
    assert (calls, finishes) == ({}, ["stop"])
    assert "more than 256 calls" in (judge.asked[0].fault or "")
    assert "A call without a name was not executed" in text
    assert len(judge.asked) == 1


@pytest.mark.parametrize("event", [ESCAPED, TWICE, AT_FINISH, LEGACY, NO_FINISH, CUSTOM, MULTILINE])
@pytest.mark.parametrize("done", ["data: [DONE]\n\n", ""])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
async def test_a_call_cannot_hide(event: str, done: str, line_end: str) -> None:
    data = (event + done).replace("\n", line_end).encode()
    out, _ = await _filter(data, Judge("wipe"), size=5)
    for shown in out.decode().split("\n\n"):
        if shown.startswith("data: {"):
            pairs = _pairs(shown[6:])
            keys = [key for key, value in pairs if value]
            assert "tool_calls" not in keys
            assert "function_call" not in keys


async def test_arguments_with_duplicate_keys_are_not_released() -> None:
    event = _chunk(_call(0, id="a", name="pay", arguments='{"cents": 1, "cents": 999999}'), "tool_calls")
    judge = Judge()
    out, _ = await _filter(_sse(event, "[DONE]"), judge)
    assert judge.asked[0].arguments is None
    assert b"999999" not in out


async def test_half_a_character_in_each_event_survives() -> None:
    data = b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}\n\ndata: {"choices":[{"index":0,"delta":{"content":"\\ude00"}}]}\n\n'
    out, _ = await _filter(data, Judge())
    assert b"\\ud83d" in out
    assert b"\\ude00" in out


@pytest.mark.parametrize("bad", [b"data: {not json}\n\n", b"data: [1]\n\n", b'data: {"choices": 3}\n\n'])
async def test_an_unreadable_event_ends_the_stream(bad: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        await _filter(bad, Judge())
    assert caught.value.code == "upstream_failed"


async def test_the_providers_error_event_ends_the_stream() -> None:
    with pytest.raises(Refusal):
        await _filter(b'data: {"error": {"message": "secret sk-123"}}\n\n', Judge())


async def test_choices_are_decided_one_by_one() -> None:
    data = _sse(
        _chunk(_call(0, id="a", name="wipe", arguments="{}"), index=0),
        _chunk({"content": "other"}, index=1),
        _chunk(_call(0, id="b", name="read", arguments="{}"), index=1),
        _chunk({}, "tool_calls", index=1),
        _chunk({}, "tool_calls", index=0),
        "[DONE]",
    )
    out, _ = await _filter(data, Judge("wipe"))
    assert b'"name":"read"' in out
    assert b'"name":"wipe"' not in out


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 50))
async def test_any_bytes_end_in_a_stream_or_a_refusal(data: bytes, size: int) -> None:
    try:
        await _filter(b"data: " + data + b"\n\n", Judge(), size=size)
    except Refusal as refusal:
        assert refusal.code == "upstream_failed"
