"""Proposed calls: what is released is exactly what was judged, however the provider cut it up.

The SDKs that a case names read the provider's own parts differently; tests/streams runs the real ones.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.doors.openai.answer import proposals, release
from gateway.doors.openai.stream import ChatStream
from gateway.errors import Refusal
from tests.doors.openai.streams import (
    Judge,
    call,
    chunk,
    events_of,
    fn,
    message,
    read,
    sse,
    streamed,
    whole,
)

DONE = "[DONE]"
END = chunk({}, "tool_calls")


async def _read(*deltas: dict[str, Any], judge: Judge | None = None) -> Any:
    return read(await streamed(sse(*map(chunk, deltas), END, DONE), judge))


# ------------------------------------------------------------ one reading


async def test_two_names_for_one_call_are_never_released() -> None:
    """openai-python reads TodoWrite, openai-node Write, the Vercel AI SDK Todo."""
    judge = Judge("Todo", "Write")
    found = await _read(
        call(fn("Todo", "", index=0, id="c", type="function")), call(fn("Write", "{}", index=0)), judge=judge
    )
    assert (found.calls, found.finish) == ([], "stop")
    assert "two different names" in found.text
    assert [one.arguments for one in judge.asked] == [None]


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([fn("a", "", index=0, id="x"), fn(None, "{}", index=0, id="y")], "two different ids"),
        ([fn("a", "", index=0, id="x", type="function"), fn(None, "{}", index=0, type="custom")], "two different type"),
        ([fn("a", "", index=0), fn("b", "{}", index=0)], "two different names"),
        ([fn("a", "", index=0, id=7)], "not a text"),
        ([fn(7, "{}", index=0, id="x")], "not a text"),
        ([fn("a", 7, index=0, id="x")], "one text"),
        ([fn("a", ["{}"], index=0, id="x")], "one text"),
        ([fn("a", {"b": 1}, index=0, id="x"), fn(None, "{}", index=0)], "one text"),
        ([{"index": 0, "id": "x", "function": "a"}], "not an object"),
        ([{"index": 0, "id": "x", "type": "mcp", "function": {"name": "a"}}], "two kinds"),
        ([{"index": 0, "id": "x", "function": {"name": "a"}, "custom": {"name": "a"}}], "two kinds"),
        ([fn("", "{}", index=0, id="x")], "no name"),
        ([fn("a b", "{}", index=0, id="x")], "Its name"),
        ([fn("a" * 129, "{}", index=0, id="x")], "Its name"),
        ([fn("Wr\u0456te", "{}", index=0, id="x")], "Its name"),  # a Cyrillic letter
        ([fn("a", "{", index=0, id="x")], "JSON object"),
        ([fn("a", "{}", index="0", id="x")], "index"),
        (["call"], "not an object"),
    ],
)
async def test_what_can_be_read_in_two_ways_is_left_out_with_a_sentence(parts: list[Any], why: str) -> None:
    found = await _read(*(call(part) for part in parts))
    assert (found.calls, found.finish) == ([], "stop")
    assert why in found.text
    if len(parts) == 1 and why != "index":  # of a complete answer, every entry is a call of its own
        plain = whole(message(*parts))
        assert (plain.calls, plain.finish) == ([], "stop")
        assert why in plain.text


@pytest.mark.parametrize(
    "deltas",
    [
        [call(fn("a", "{}", id="1")), call(fn("b", "{}", id="2"))],
        [call(fn("a", "", index=None, id="1")), call(fn(None, "{}", index=None)), call(fn("b", "{}", id="2"))],
        [call(fn("a", "{}", index=0, id="1")), call(fn("b", "{", index=0, id="2")), call(fn(None, "}", index=0))],
        [call(fn("a", "{}", id="1"), fn("b", "{}", id="2"))],
        [call(fn("b", "{", index=1, id="2")), call(fn("a", "{}", index=0, id="1")), call(fn(None, "}", index=1))],
        [call(fn("a", "", id="1")), call(fn("b", "", id="2")), call(fn(None, "{}", id="1"), fn(None, "{}", id="2"))],
        [call(fn("a", "{}", index=7, id="1")), call(fn("b", "{}", index=2**40, id="2"))],
        [
            call(fn("a", "{}", index=0, id="1", type="")),
            call(fn("a", "", index=0, id="1")),
            call(fn("b", "{}", id="2")),
        ],
    ],
)
async def test_a_new_id_with_a_name_begins_a_call_and_indices_are_written(deltas: list[dict[str, Any]]) -> None:
    found = await _read(*deltas)
    assert found.calls == [("a", "{}"), ("b", "{}")]
    assert [one["index"] for one in found.raw] == [0, 1]
    assert [one["id"] for one in found.raw] == ["1", "2"]
    assert [one["type"] for one in found.raw] == ["function", "function"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(None, "{}"), ("", "{}"), (" \n", "{}"), ({"a": {"B": 1}}, '{"a":{"B":1}}'), ('{"a": 1}', '{"a": 1}'), ({}, "{}")],
)
async def test_arguments_are_whole_whatever_they_came_as(arguments: Any, text: str) -> None:
    part = fn("a", arguments, index=0, id="1", type="function")
    part["function"]["arguments"] = arguments
    assert (await _read(call(part))).calls == [("a", text)]
    assert whole(message(part)).calls == [("a", text)]


async def test_integers_keep_their_digits() -> None:
    text = '{"a": 123456789012345678901234567890}'
    assert (await _read(call(fn("a", text, index=0, id="1")))).calls == [("a", text)]
    found = whole(message(fn("a", json.loads(text), id="1")))
    assert found.calls == [("a", '{"a":123456789012345678901234567890}')]


async def test_unknown_members_of_a_call_survive_and_no_other_spelling_of_a_known_one() -> None:
    signature = {"google": {"thought_signature": "c2ln"}}
    parts = [
        fn("a", "{", index=0, id="1", extra_content=signature, Name="b", ARGUMENTS="x"),
        {"index": 0, "function": {"arguments": "}", "Name": "b", "x": 1}, "extra_content": {"more": 1}, "v": None},
    ]
    found = await _read(*(call(part) for part in parts))
    assert found.raw == [
        {
            "index": 0,
            "id": "1",
            "type": "function",
            "function": {"name": "a", "arguments": "{}"},
            "extra_content": {**signature, "more": 1},
            "v": None,
        }
    ]
    plain = whole(message({**parts[0], "function": {"name": "a", "arguments": "{}", "\u212aey": 1}}))
    assert (
        plain.raw == [{**found.raw[0], "extra_content": signature} | {}] or plain.raw[0]["extra_content"] == signature
    )
    assert "Name" not in plain.raw[0]


async def test_custom_input_and_function_call_are_written_the_same_way() -> None:
    custom = [
        {"index": 0, "id": "1", "type": "custom", "custom": {"name": "py", "input": "a"}},
        {"index": 0, "custom": {"input": "\n{"}},
    ]
    found = await _read(*(call(part) for part in custom))
    assert found.raw == [{"index": 0, "id": "1", "type": "custom", "custom": {"name": "py", "input": "a\n{"}}]
    legacy = await _read({"function_call": {"name": "a", "arguments": "{"}}, {"function_call": {"arguments": "}"}})
    assert legacy.calls == [("a", "{}")]
    torn = await _read({"function_call": {"name": "a"}}, {"function_call": {"name": "b", "arguments": "{}"}})
    assert torn.calls == []


async def test_a_call_without_an_id_is_given_one_that_stays_the_same() -> None:
    first, second = [await _read(call(fn("a", "{}", index=0)), call(fn("b", "{}", index=1))) for _ in range(2)]
    assert first.raw == second.raw
    assert len({one["id"] for one in first.raw}) == 2


async def test_no_two_calls_of_an_answer_have_one_id() -> None:
    """LangChain joins calls of one id and index, across choices too; the Vercel AI SDK shows the first one twice."""
    events = [chunk(call(fn("a", "{}", index=0, id="1")), index=n) for n in range(2)] + [
        chunk({}, "stop", n) for n in (0, 1)
    ]
    out = await streamed(sse(*events, DONE), choices=2)
    assert len({read(out, n).raw[0]["id"] for n in range(2)}) == 2
    plain = whole(message(fn("a", "{}", id="1"), fn("b", "{}", id="1")))
    assert len({one["id"] for one in plain.raw}) == 2


async def test_the_empty_calls_that_some_providers_send_are_no_calls() -> None:
    found = await _read(
        call({"index": 0}, {}, {"index": 1, "function": {"name": "", "arguments": ""}}), {"content": "x"}
    )
    assert (found.text, found.calls) == ("x", [])


# ------------------------------------------------------------ where an answer ends


LATE = [
    chunk(call(fn("Agent", "", index=0, id="call_1", type="function")), "stop"),
    chunk(call(fn(None, '{"prompt":"x"}', index=0))),
]


@pytest.mark.parametrize("ending", [[DONE], []])
async def test_deltas_after_the_finish_reason_belong_to_the_call(ending: list[str]) -> None:
    """Four SDKs join them, so the call that was judged without them is not the one that they execute."""
    judge = Judge()
    found = read(await streamed(sse(*LATE, *ending), judge))
    assert [one.arguments for one in judge.asked] == [{"prompt": "x"}]
    assert (found.calls, found.finish) == ([("Agent", '{"prompt":"x"}')], "stop")
    denied = read(await streamed(sse(*LATE, *ending), Judge("Agent")))
    assert (denied.calls, denied.finish) == ([], "stop")


async def test_calls_that_come_after_the_finish_chunk_was_sent_are_judged_too() -> None:
    late = [chunk({"content": "x"}), chunk({}, "stop"), chunk(call(fn("Agent", "{}", index=0, id="1")))]
    assert read(await streamed(sse(*late, DONE))).calls == [("Agent", "{}")]
    assert read(await streamed(sse(*late, DONE), Judge("Agent"))).calls == []
    announced = [chunk({}, "tool_calls"), *late[2:]]
    found = read(await streamed(sse(*announced, DONE), Judge("Agent")))
    assert (found.calls, found.finish) == ([], "stop")


async def test_nothing_counts_after_the_end() -> None:
    """The Vercel AI SDK reads on after [DONE]."""
    data = sse(chunk({"content": "x"}), chunk({}, "stop"), DONE, chunk(call(fn("Agent", "{}", index=0, id="1"))), DONE)
    out = await streamed(data, size=1)
    assert out.count(b"[DONE]") == 1
    assert b"Agent" not in out


class Source:
    """A provider that goes on when it is asked to, and never ends by itself."""

    def __init__(self, *events: dict[str, Any] | str) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.say(*events)

    def say(self, *events: dict[str, Any] | str) -> None:
        self._pieces.put_nowait(sse(*events))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            yield piece


async def test_silence_after_the_last_finish_reason_is_the_end() -> None:
    source = Source(chunk(call(fn("Agent", "{}", index=0, id="1"))), END)
    out = await streamed(aiter(source), end_silence_s=0.01)
    assert read(out).calls == [("Agent", "{}")]
    assert out.endswith(b"data: [DONE]\n\n")


async def test_silence_is_no_end_while_a_choice_has_not_finished() -> None:
    source = Source(
        chunk(call(fn("a", "{}", index=0, id="1"))), END, chunk({"content": "x"}, index=1)
    )  # the second choice thinks
    running = asyncio.ensure_future(streamed(aiter(source), end_silence_s=0.0, choices=2))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not running.done()
    source.say(chunk(call(fn("b", "{}", index=0, id="2")), "tool_calls", index=1))
    out = await running
    assert (read(out, 0).calls, read(out, 1).calls) == ([("a", "{}")], [("b", "{}")])


async def test_text_flows_while_calls_are_held() -> None:
    source = Source(chunk(call(fn("a", "{", index=0, id="1"))), chunk({"content": "meanwhile"}))
    seen: list[bytes] = []

    async def client() -> None:
        stream = ChatStream(Judge(), keep_usage=False)
        async for out in stream.run(aiter(source)):
            seen.append(out)
            if len(seen) == 1:
                assert stream.holding
                source.say(chunk(call(fn(None, "}", index=0))), END, DONE)
            else:
                assert not stream.holding
                return

    await asyncio.wait_for(client(), 5)
    assert b"meanwhile" in seen[0]
    assert b"tool_calls" not in seen[0]


# openai-python fails where a choice begins before the one below it, and passes over chunks without `object`.
BEGINNINGS = {
    "the second choice comes first": [chunk({"content": "b"}, index=1), chunk({"content": "a"})],
    "the first finishes with its role": [chunk({"role": "assistant"}, "length"), chunk({"content": "b"}, index=1)],
    "the second is a call": [chunk(call(fn("b", "{}", index=0, id="2")), "tool_calls", index=1)],
    "no object": [{"choices": [{"index": 1, "delta": {"content": "b"}}]}, {"object": "", **END}],
    "a delta that is none": [chunk(call(fn("a", "{}", index=0, id="1"))), {"choices": [{"index": 1, "delta": True}]}],
}


@pytest.mark.parametrize("events", BEGINNINGS.values(), ids=BEGINNINGS)
async def test_choices_begin_in_their_order_and_every_chunk_is_one(events: list[dict[str, Any]]) -> None:
    shown = events_of(await streamed(sse(*events, DONE), choices=2))
    assert {event["object"] for event in shown} == {"chat.completion.chunk"}
    indices = [choice["index"] for event in shown for choice in event["choices"]]
    assert indices.index(0) < indices.index(1)
    assert all(isinstance(choice["delta"], dict) for event in shown for choice in event["choices"])


async def test_usage_comes_after_the_calls_and_their_finish() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    inside = {**END, "usage": usage}
    for events in (
        [chunk(call(fn("a", "{}", index=0, id="1"))), END, {"choices": [], "usage": usage}],
        [chunk(call(fn("a", "{}", index=0, id="1"))), inside],
    ):
        stream = ChatStream(Judge(), keep_usage=True)

        async def provider(events: list[dict[str, Any]] = events) -> AsyncIterator[bytes]:
            yield sse(*events, DONE)

        shown = events_of(b"".join([out async for out in stream.run(provider())]))
        assert [bool(event.get("usage")) for event in shown] == [False, False, True]
        assert stream.usage is not None
        assert stream.usage.output_tokens == 3


def _entry(index: int | None, delta: Any, finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish}


def _event(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [*entries]}


@pytest.mark.parametrize(
    "entries",
    [
        (_entry(1, {"content": "a"}), _entry(0, {}, "length")),
        (_entry(0, {"content": "a"}), _entry(2, {"content": "b"})),
        (_entry(2, {"content": "a"}), _entry(0, {"content": "b"}), _entry(1, {"content": "c"})),
    ],
)
async def test_choices_of_one_event_begin_in_their_order(entries: tuple[dict[str, Any], ...]) -> None:
    more = (_event(_entry(one, {}, "stop")) for one in (0, 1, 2))
    shown = events_of(await streamed(sse(_event(*entries), *more, DONE), choices=3))
    indices = [choice["index"] for event in shown for choice in event["choices"]]
    assert list(dict.fromkeys(indices)) == [0, 1, 2]


@pytest.mark.parametrize("index", [0, None])
async def test_no_event_has_two_entries_of_one_choice(index: int | None) -> None:
    """LangChain and the AI SDK read one entry of each event."""
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    two = _event(_entry(0, {"content": "one "}), _entry(index, {"content": "two"})) | {"usage": usage}
    shown = events_of(await streamed(sse(two, chunk({}, "stop"), DONE)))
    assert [[one["delta"] for one in event["choices"]] for event in shown[:2]] == [
        [{"content": "one "}],
        [{"content": "two"}],
    ]
    assert [event.get("usage") for event in shown[:2]] == [None, usage]


@pytest.mark.parametrize("delta", [[7], [], "a", None, {"content": []}, {"content": [7]}, {"content": 7}])
async def test_a_delta_of_another_shape_is_sent_as_an_empty_one(delta: Any) -> None:
    shown = events_of(await streamed(sse(chunk({"content": "a"}), _event(_entry(0, delta)), chunk({}, "stop"), DONE)))
    assert [one["delta"] for event in shown for one in event["choices"]] == [{"content": "a"}, {}, {}]


async def test_parts_of_content_are_sent_as_they_came() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]
    shown = events_of(await streamed(sse(chunk({"content": parts}), chunk({}, "stop"), DONE)))
    assert shown[0]["choices"][0]["delta"]["content"] == parts


async def test_every_choice_has_its_index() -> None:
    shown = events_of(await streamed(sse(_event({"delta": {"content": "a"}}), chunk({}, "stop"), DONE)))
    assert [one["index"] for event in shown for one in event["choices"]] == [0, 0]


async def test_a_role_that_comes_with_the_first_of_two_finish_reasons_is_sent() -> None:
    begun = chunk({"role": "assistant", "content": None}, "stop")
    shown = events_of(await streamed(sse(begun, chunk({}, "stop"), DONE)))
    assert shown[0]["choices"][0]["delta"] == {"role": "assistant"}


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_a_choice_that_was_cut_off_is_not_made_whole_by_a_later_finish_reason(reason: str) -> None:
    part = call(fn("a", "{}", index=0, id="1"))
    answer = await streamed(sse(chunk(part), chunk({}, reason), chunk({}, "tool_calls"), DONE))
    assert read(answer).finish == reason


# ------------------------------------------------------------ finish reasons, text, framing


@pytest.mark.parametrize(
    ("given", "released", "shown"),
    [
        ("tool_calls", False, "stop"),
        ("function_call", False, "stop"),
        ("length", False, "length"),
        ("content_filter", False, "content_filter"),
        ("stop", False, "stop"),
        ("tool_calls", True, "tool_calls"),
        ("length", True, "length"),
        ("stop", True, "stop"),
    ],
)
async def test_only_a_reason_that_announces_calls_changes_with_them(given: str, released: bool, shown: str) -> None:
    judge = Judge() if released else Judge("a")
    part = fn("a", "{}", index=0, id="1")
    assert read(await streamed(sse(chunk(call(part)), chunk({}, given), DONE), judge)).finish == shown
    assert whole(message(part, finish=given), judge).finish == shown
    assert whole(message(part, finish=given, function_call=None), judge).finish == shown


async def test_an_empty_finish_reason_is_none() -> None:
    events = [chunk(call(fn("a", "{", index=0, id="1")), ""), chunk(call(fn(None, "}", index=0)), ""), END]
    judge = Judge()
    out = await streamed(sse(chunk({"content": "x"}, ""), *events, DONE), judge)
    assert [one.arguments for one in judge.asked] == [{}]
    reasons = [choice["finish_reason"] for event in events_of(out) for choice in event["choices"]]
    assert reasons == [None, None, "tool_calls"]


def test_list_content_keeps_its_parts() -> None:
    content = [{"type": "text", "text": "So:"}, {"type": "x"}]
    shown = whole(message(fn("a", "{}", id="1"), content=content), Judge("a"))
    assert shown.text[:2] == content
    assert shown.text[2]["type"] == "text"
    assert "Not this one." in shown.text[2]["text"]


def test_no_choice_announces_calls_that_it_does_not_have() -> None:
    misplaced = {"choices": [{"finish_reason": "tool_calls", "message": {}, "tool_calls": [fn("a", "{}")]}]}
    assert whole(misplaced).finish == "stop"


async def test_every_line_of_an_event_is_data() -> None:
    value = json.dumps(chunk({"content": "hello"}), indent=1)
    data = "".join(f"data: {line}\n" for line in value.split("\n")) + "\n"
    assert read(await streamed(data.encode())).text == "hello"


@pytest.mark.parametrize("event", [b'{"choices":[{"delta":{"content":"x"}}],"x":"\xff"}', b'{"x\xc3":1,"choices":[]}'])
async def test_what_is_not_utf8_anywhere_does_not_pass(event: bytes) -> None:
    with pytest.raises(Refusal):
        await streamed(b"data: " + event + b"\n\n")
    with pytest.raises(Refusal):
        whole(event)


@pytest.mark.parametrize("size", [1, 3, 64])
async def test_a_stream_in_tiny_pieces_takes_time_that_grows_with_it(size: int) -> None:
    """1.5 MB in pieces of one byte took 21 s."""
    text = "x" * (300_000 if size == 1 else 1_500_000)
    out = await asyncio.wait_for(streamed(sse(chunk({"content": text}), chunk({}, "stop"), DONE), size=size), 10)
    assert read(out).text == text


async def test_what_is_around_a_call_survives() -> None:
    logprobs = {"content": [{"token": "x"}]}
    event = {**chunk(call(fn("a", "{}", index=0, id="1")), logprobs=logprobs), "x_vendor": {"y": 1}}
    out = await streamed(sse(event, END, DONE))
    assert [event["choices"][0].get("logprobs") for event in events_of(out)] == [logprobs, None, None]
    assert [event.get("x_vendor") for event in events_of(out)] == [{"y": 1}, {"y": 1}, None]


# ------------------------------------------------------------ what only some readers take for a call

SPELLINGS = [
    *("toolCalls", "ToolCalls", "tool-calls", "tool__calls", "toolcalls", "TOOL-CALLS", "Tool_Calls", "t-o-o-l_calls"),
    *("functionCall", "function-call", "FunctionCall", "tool_\uff43alls", "tool_call\u017f", "tool\u200b_calls"),
    *("tool_calls\x00x", "\uff54\uff4f\uff4f\uff4c_calls"),
]


@pytest.mark.parametrize("escaped", [True, False])
@pytest.mark.parametrize("key", SPELLINGS)
async def test_a_call_under_another_spelling_is_left_out_with_a_sentence(key: str, escaped: bool) -> None:
    """Go's encoding/json/v2 takes all of them for `tool_calls` or `function_call`."""
    calls: Any = {"name": "wipe", "arguments": "{}"}
    if "unction" not in key:
        calls = [{"index": 0, "id": "1", "type": "function", "function": calls}]
    judge = Judge()
    data = json.dumps(chunk({"role": "assistant", key: calls}), ensure_ascii=escaped)
    found = read(await streamed(sse(data, END, DONE), judge))
    assert (found.calls, found.finish) == ([], "stop")
    assert "another spelling" in found.text
    assert [one.arguments for one in judge.asked] == [None]
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", key: calls}, "finish_reason": "tool_calls"}]}
    told = whole(json.dumps(answer, ensure_ascii=escaped).encode())
    assert (told.calls, told.finish) == ([], "stop")
    assert "another spelling" in told.text


async def _read_raw(*events: str) -> Any:
    return read(await streamed(sse(*events, END, DONE)))


async def test_escapes_hide_no_call_and_text_in_any_script_passes_as_it_came() -> None:
    escaped = json.dumps(chunk(call(fn("a", "{}", index=0, id="1")))).replace("tool_calls", "tool\\u005fcalls")
    assert (await _read_raw(escaped)).calls == [("a", "{}")]
    for text in ("\u4f60\u597d", "I recall calls on call", "\\u4f60"):
        data = json.dumps(chunk({"content": text}), ensure_ascii=False)
        assert data.encode() in await streamed(sse(data, END, DONE))


@pytest.mark.parametrize("key", ["func_tion", "functionCall", "Function", "arg_uments", "toolCalls", "cus-tom"])
async def test_no_other_spelling_stands_beside_a_released_call(key: str) -> None:
    other = {key: {"name": "wipe", "arguments": "{}"}, "x_vendor": 1}
    found = await _read(call({**fn("a", "{}", index=0, id="1", type="function"), **other}))
    assert found.calls == [("a", "{}")]
    assert (key in found.raw[0], found.raw[0]["x_vendor"]) == (False, 1)


# ------------------------------------------------------------ what a text loses when it is read


INEXACT = ['{"a":9007199254740993.0}', '{"a":1e-400}', '{"a":0.1000000000000000055511151231257827}', '{"a":1,"a":2}']


@pytest.mark.parametrize("arguments", [*INEXACT, '{"a":NaN}', '{"a":"\\ud83d"}'])
async def test_arguments_that_came_as_an_object_are_as_exact_as_a_text(arguments: str) -> None:
    part = f'{{"index":0,"id":"1","type":"function","function":{{"name":"a","arguments":{arguments}}}}}'
    event = f'{{"object":"chat.completion.chunk","choices":[{{"index":0,"delta":{{"tool_calls":[{part}]}}}}]}}'
    found = await _read_raw(event)
    assert (found.calls, "not executed" in found.text) == ([], True)
    message = f'{{"choices":[{{"index":0,"message":{{"tool_calls":[{part}]}},"finish_reason":"tool_calls"}}]}}'
    told = whole(message.encode())
    assert (told.calls, told.finish, "not executed" in told.text) == ([], "stop", True)


async def test_half_of_a_character_makes_a_text_unreadable_unless_the_next_delta_has_the_other() -> None:
    half = chunk(call(fn("a", '{"p":"\ud83d', index=0, id="1")))
    assert (await _read_raw(json.dumps(half), json.dumps(chunk(call(fn(None, '"}', index=0)))))).calls == []
    rest = chunk(call(fn(None, '\ude00"}', index=0)))
    assert (await _read_raw(json.dumps(half), json.dumps(rest))).calls == [("a", '{"p":"\U0001f600"}')]


async def test_a_negative_zero_is_judged_and_released_as_that() -> None:
    judge = Judge()
    found = await _read(call(fn("a", '{"n":-0}', index=0, id="1")), judge=judge)
    assert found.calls == [("a", '{"n":-0}')]
    assert judge.asked[0].arguments is not None
    assert str(judge.asked[0].arguments["n"]) == "-0.0"


def test_a_plain_answer_with_half_of_a_character_passes() -> None:
    message = '{"role":"assistant","content":"a\\ud83d"}'
    told = whole(b'{"choices":[{"index":0,"message":%s,"finish_reason":"stop"}]}' % message.encode())
    assert told.text == "a\ud83d"


# ------------------------------------------------------------ the end


class Breaks:
    """A provider's stream whose connection breaks after these events."""

    def __init__(self, *events: dict[str, Any] | str, code: str = "upstream_failed") -> None:
        self._pieces = iter([sse(*events)])
        self._code = code

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise Refusal(self._code, "It broke off.")


@pytest.mark.parametrize("ending", [[END], [END, DONE]])
async def test_a_connection_that_breaks_after_the_last_finish_reason_is_the_end(ending: list[Any]) -> None:
    for code in ("upstream_failed", "upstream_timeout"):
        broken = Breaks(chunk(call(fn("a", "{}", index=0, id="1"))), *ending, code=code)
        out = await streamed(broken)
        assert read(out).calls == [("a", "{}")]
        assert out.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("events", "choices", "code"),
    [
        ([chunk({"content": "a"})], 1, "upstream_failed"),
        ([END], 2, "upstream_failed"),
        ([END], 1, "agent_suspended"),
    ],
)
async def test_what_breaks_off_before_it_is_complete_is_no_answer(events: list[Any], choices: int, code: str) -> None:
    with pytest.raises(Refusal):
        await streamed(Breaks(*events, code=code), choices=choices)


async def test_a_message_in_place_of_a_delta_is_one() -> None:
    message = {"role": "assistant", "content": "hi", **call(fn("a", "{}", id="1", type="function"))}
    found = read(await streamed(sse({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}, DONE)))
    assert (found.text, found.calls) == ("hi", [("a", "{}")])
    again = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}  # the whole answer once more
    for first in (chunk({"content": "hi"}), chunk(call(fn("a", "{}", index=0, id="1")))):
        once = read(await streamed(sse(first, again, DONE)))
        assert len(once.calls) == ("tool_calls" in first["choices"][0]["delta"])


async def test_a_choice_is_written_with_its_index_and_with_content_that_clients_read() -> None:
    events = ({"choices": [{"delta": {"content": "a"}}]}, {"choices": [{"index": None, "delta": {"content": 7}}]}, END)
    shown = events_of(await streamed(sse(*events, DONE)))
    assert [choice["index"] for event in shown for choice in event["choices"]] == [0, 0, 0]
    assert read(await streamed(sse(*events, DONE))).text == "a"


async def test_fields_of_events_that_nobody_knows_are_dropped() -> None:
    event = b'foo: bar\nid: 7\ndata: {"choices":[{"index":0,"delta":{"content":"a"}}]}\nretry: 5\nx\n\nfoo: bar\n\n'
    assert read(await streamed(event + sse(END, DONE))).text == "a"
    with pytest.raises(Refusal):
        await streamed(event.replace(b"data", b"Data") + sse(END, DONE))


@pytest.mark.parametrize("empty", [[], {}, "", 0, False])
def test_verdicts_are_on_the_calls_that_they_were_given_for_whatever_is_empty_beside_them(empty: Any) -> None:
    choices = [
        {"index": 0, "message": {"tool_calls": [fn("a", "{}", id="1", type="function")], "function_call": empty}},
        {"index": 1, "message": {"tool_calls": [fn("wipe", "{}", id="2", type="function")], "function_call": empty}},
        {"index": 2, "message": {"tool_calls": [fn("b", "{}", id="3", type="function")]}},
    ]
    body, found = proposals(json.dumps({"choices": choices}).encode(), None)
    assert [one.name for one in found] == ["a", "wipe", "b"]
    shown = json.loads(release(body, Judge("wipe").judge(found)))["choices"]
    assert [len(choice["message"].get("tool_calls", ())) for choice in shown] == [1, 0, 1]
