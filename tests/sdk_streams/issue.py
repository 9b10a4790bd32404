"""The streams that issue 9 (A) names, as they are, and a few of their kind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tests.sdk_streams.upstream import Call, Upstream, request_of, tool_names

_HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
_TOOLS = ("Todo", "Write", "Agent", "Read")


def _chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0) -> dict[str, Any]:
    return {**_HEAD, "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def _call(name: str | None = None, arguments: Any = None, **members: Any) -> dict[str, Any]:
    """A delta of one call."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {"tool_calls": [{**members, "function": function}]}


def _named(name: str, arguments: str = "", **members: Any) -> dict[str, Any]:
    return _call(name, arguments, type="function", **members)


_ROLE = _chunk({"role": "assistant", "content": None})
_END = _chunk({}, "tool_calls")
_MARK = '{"mark": "mark-fixed-0."}'
_LATE: dict[str, Any] = json.loads(
    '{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function",'
    '"function":{"name":"Agent","arguments":""}}]},"finish_reason":"stop"}]}'
)


def _case(name: str, events: Sequence[Any], *calls: Call, done: bool = True) -> Upstream:
    lines = [f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events]
    data = "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()
    return Upstream(
        name=name,
        kind="stream",
        pieces=(data,),
        request=request_of(_TOOLS, stream=True),
        tools=tool_names(_TOOLS),
        intended=calls,
        markers=("mark-fixed-0.",),
    )


def _function(name: str, text: str = _MARK, call_id: str | None = None) -> Call:
    return Call("function", name, text, call_id)


FIXED: tuple[Upstream, ...] = (
    _case(
        "two names at one index",
        [_ROLE, _chunk(_named("Todo", index=0, id="call_1")), _chunk(_call("Write", _MARK, index=0)), _END],
    ),
    _case(
        "two names and two ids at one index",
        [
            _ROLE,
            _chunk(_named("Todo", "{}", index=0, id="call_1")),
            _chunk(_named("Write", index=0, id="call_2")),
            _chunk(_call(None, _MARK, index=0)),
            _END,
        ],
        _function("Todo", "{}", "call_1"),
        _function("Write", _MARK, "call_2"),
    ),
    _case(
        "no index",
        [
            _ROLE,
            _chunk(_named("Todo", "{}", id="call_1")),
            _chunk(_named("Write", id="call_2")),
            _chunk(_call(None, _MARK)),
            _END,
        ],
        _function("Todo", "{}", "call_1"),
        _function("Write", _MARK, "call_2"),
    ),
    _case(
        "index null",
        [
            _ROLE,
            _chunk(_named("Todo", "{}", id="call_1", index=None)),
            _chunk(_named("Write", _MARK, id="call_2", index=None)),
            _END,
        ],
        _function("Todo", "{}", "call_1"),
        _function("Write", _MARK, "call_2"),
    ),
    _case(
        "two calls at index 0",
        [
            _ROLE,
            _chunk(_named("Write", _MARK, id="call_1", index=0)),
            _chunk(_named("Write", '{"n": 2}', id="call_2", index=0)),
            _END,
        ],
        _function("Write", _MARK, "call_1"),
        _function("Write", '{"n": 2}', "call_2"),
    ),
    _case(
        "arguments after the finish reason",
        [_ROLE, _LATE, _chunk(_call(None, '{"mark": "mark', index=0)), _chunk(_call(None, '-fixed-0."}', index=0))],
        _function("Agent", _MARK, "call_1"),
    ),
    _case(
        "arguments after the finish reason, without an end",
        [_ROLE, _LATE, _chunk(_call(None, _MARK, index=0))],
        _function("Agent", _MARK, "call_1"),
        done=False,
    ),
    _case(
        "a call after the finish reason",
        [
            _ROLE,
            _chunk({"content": "Well. "}),
            _chunk({}, "stop"),
            _chunk(_named("Write", _MARK, index=0, id="call_1")),
        ],
        _function("Write", _MARK, "call_1"),
    ),
    _case(
        "two ids for one call",
        [
            _ROLE,
            _chunk(_named("Write", index=0, id="call_1")),
            _chunk(_call(None, _MARK, index=0, id="call_2")),
            _END,
        ],
    ),
    _case(
        "two types for one call",
        [
            _ROLE,
            _chunk(_named("Write", index=0, id="call_1")),
            _chunk(_call(None, _MARK, index=0, type="custom")),
            _END,
        ],
    ),
    _case("no name", [_ROLE, _chunk(_call(None, _MARK, index=0, id="call_1", type="function")), _END]),
    _case(
        "arguments null",
        [
            _ROLE,
            _chunk({"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "Read", "arguments": None}}]}),
            _END,
        ],
        _function("Read", "{}", "call_1"),
    ),
    _case(
        "arguments absent",
        [_ROLE, _chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "", "function": {"name": "Read"}}]}), _END],
        _function("Read", "{}", "call_1"),
    ),
    _case(
        "arguments as an object",
        [_ROLE, _chunk(_call("Write", {"mark": "mark-fixed-0.", "n": [1]}, index=0, id="call_1")), _END],
        _function("Write", '{"mark":"mark-fixed-0.","n":[1]}', "call_1"),
    ),
    _case(
        "finish reason blank",
        [_chunk({"role": "assistant"}, ""), _chunk(_named("Write", _MARK, index=0, id="call_1"), ""), _END],
        _function("Write", _MARK, "call_1"),
    ),
    _case(
        "a thought signature",
        [
            _ROLE,
            _chunk(
                _named("Write", _MARK, index=0, id="call_1", extra_content={"google": {"thought_signature": "s=="}})
            ),
            _END,
        ],
        Call("function", "Write", _MARK, "call_1", {"extra_content": {"google": {"thought_signature": "s=="}}}),
    ),
    _case(
        "a number that a double rounds",
        [_ROLE, _chunk(_named("Write", '{"mark": "mark-fixed-0.", "n": 9007199254740993.0}', index=0, id="c")), _END],
    ),
    _case(
        "a number that a double loses",
        [_ROLE, _chunk(_named("Write", '{"mark": "mark-fixed-0.", "n": 1e-400}', index=0, id="c")), _END],
    ),
    _case(
        "an integer that a double rounds",
        [_ROLE, _chunk(_named("Write", '{"mark": "mark-fixed-0.", "n": 9007199254740993}', index=0, id="c")), _END],
        _function("Write", '{"mark": "mark-fixed-0.", "n": 9007199254740993}', "c"),
    ),
    _case(
        "data on two lines",
        [_ROLE, json.dumps(_chunk(_named("Write", _MARK, index=0, id="call_1"))).replace(', "', ',\ndata: "', 3), _END],
        _function("Write", _MARK, "call_1"),
    ),
)
