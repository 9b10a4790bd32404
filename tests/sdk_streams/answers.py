"""Chat completions that come whole, as providers, proxies and adversaries send them; seeded, like the streams."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from tests.sdk_streams import oddities
from tests.sdk_streams.jsontext import Members, Raw, Style, write
from tests.sdk_streams.oddities import Oddity, Site, compact
from tests.sdk_streams.upstream import (
    NAMES,
    Call,
    Effect,
    Upstream,
    arguments,
    request_of,
    tool_names,
    words,
)

_ODDITIES: tuple[Oddity, ...] = (
    *(oddities.no_id, oddities.blank_type, oddities.no_type, oddities.wrong_type, oddities.both_kinds),
    *(oddities.no_name, oddities.bad_name, oddities.signature, oddities.unknown_members, oddities.other_case_beside),
    *(oddities.other_case_inside, oddities.key_twice, oddities.name_twice, oddities.wrong_shape, oddities.same_id),
)


class _Answer:
    """One answer while it is being made."""

    def __init__(self, seed: str, number: int) -> None:
        self.name = f"{seed}/{number}"
        self.rng = Random(f"answer/{self.name}")
        self.well_formed = self.rng.random() < 0.4
        self.calls = 0
        self.markers: list[str] = []
        self.names: list[str] = []
        self.intended: list[Call] | None = []
        self.texts: dict[int, str] = {}
        self.cut_off: set[int] = set()
        self.oddities: list[str] = []

    def chance(self, probability: float) -> bool:
        return not self.well_formed and self.rng.random() < probability

    def marker(self) -> str:
        marker = f"mark-{self.name.replace('/', '-')}-{len(self.markers)}."
        self.markers.append(marker)
        return marker

    def tool(self, *, but: str | None = None) -> str:
        name = self.rng.choice([name for name in NAMES if name != but])
        self.names.append(name)
        return name

    def function(self, *, but: str | None = None) -> dict[str, Any]:
        return {"name": self.tool(but=but), "arguments": arguments(self.rng, self.marker())}

    def note(self, effect: Effect, call: Call) -> None:
        if effect is Effect.OPEN:
            self.intended = None
        elif effect is Effect.KEEPS and self.intended is not None:
            self.intended.append(call)

    def tool_call(self, *, lonely: bool) -> dict[str, Any]:
        """A member of `tool_calls`."""
        rng = self.rng
        self.calls += 1
        call_id = f"call_{rng.randrange(36**6)}{self.calls}"
        if not lonely and self.chance(0.12):
            self.oddities.append("custom")
            name, text = self.tool(), f"{self.marker()} {words(rng)}"
            self.note(Effect.KEEPS, Call("custom", name, text, call_id))
            return {"id": call_id, "type": "custom", "custom": {"name": name, "input": text}}
        readable = not self.chance(0.06)
        name, text = self.tool(), arguments(rng, self.marker(), readable=readable)
        call: dict[str, Any] = {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}
        if self.chance(0.08):
            self.oddities.append("no arguments")
            given = rng.choice(({}, {"arguments": None}, {"arguments": {"mark": self.markers[-1], "n": 1}}))
            call["function"] = {"name": name, **given}
            self.note(Effect.KEEPS, Call("function", name, compact(given.get("arguments") or {}), call_id))
            return call
        effect, members, parts = Effect.KEEPS if readable else Effect.DROPS, dict[str, Any](), [call]
        if lonely or self.chance(0.5):
            oddity = oddities.same_id if lonely else rng.choice(_ODDITIES[:-1])
            self.oddities.append(oddity.__name__)
            call["index"] = 0
            done = oddity(Site(rng, parts, self.function(but=name), members))
            call.pop("index")
            effect = done if effect is Effect.KEEPS or done is Effect.OPEN else effect
        if not readable:
            self.oddities.append("unreadable arguments")
        self.note(effect, Call("function", name, text, call_id, members))
        return parts[0]

    def legacy(self, message: dict[str, Any]) -> None:
        rng = self.rng
        self.oddities.append("legacy")
        function = self.function()
        text = function["arguments"]
        if rng.random() < 0.3:
            given = rng.choice(({}, {"arguments": None}, {"arguments": {"mark": self.markers[-1]}}))
            function, text = {"name": function["name"], **given}, compact(given.get("arguments") or {})
        self.note(Effect.KEEPS, Call("legacy", function["name"], text))
        message["function_call"] = function

    def choice(self, index: int) -> dict[str, Any]:
        rng = self.rng
        text = words(rng) if rng.random() < 0.5 else rng.choice((None, ""))
        message: dict[str, Any] = {"role": "assistant", "content": text}
        self.texts[index] = text or ""
        lonely = self.chance(0.05)
        calls = [self.tool_call(lonely=lonely) for _ in range(rng.choices(range(4), (2, 5, 3, 1))[0])]
        reason: Any = "tool_calls" if calls else "stop"
        if calls:
            message["tool_calls"] = calls
        elif self.chance(0.3):
            message["tool_calls"] = rng.choice((None, []))
        if self.chance(0.08):
            self.legacy(message)
            reason = "function_call"
        elif rng.random() < 0.2:
            message["function_call"] = None
        if rng.random() < 0.2:
            message |= {"refusal": None, "annotations": []}
        if self.chance(0.05) and text:
            self.oddities.append("content in parts")
            message["content"] = [{"type": "text", "text": text}]
        if self.chance(0.04):
            self.oddities.append("a call in another spelling")
            key = rng.choice(("Tool_Calls", "TOOL_CALLS", "tool_call\u017f", "\uff54ool_calls"))
            message[key] = [{"id": "evil", "type": "function", "function": self.function()}]
        if rng.random() < 0.15:
            reason = rng.choice(("stop", "length", "length", "content_filter"))
        if reason == "length":
            self.cut_off.add(index)
        elif self.chance(0.06):
            self.oddities.append("blank finish reason")
            reason = rng.choice(("", None))
        choice: dict[str, Any] = {"index": index, "message": message, "finish_reason": reason}
        if rng.random() < 0.3:
            choice["logprobs"] = None
        if self.chance(0.05):
            self.oddities.append("a delta beside the message")
            choice["delta"] = {
                "tool_calls": [{"index": 0, "id": "evil", "type": "function", "function": self.function()}]
            }
        if self.chance(0.02):
            self.oddities.append("message of another shape")
            self.intended = None
            value = rng.choice((7, "text", [], {}, True, [7], {"tool_calls": {}}))
            if rng.random() < 0.3:
                choice["message"] = value
            else:
                message[rng.choice(("tool_calls", "function_call", "content"))] = value
        if self.chance(0.03):
            self.oddities.append("calls twice")
            self.intended = None
            evil = [{"id": "evil", "type": "function", "function": self.function()}]
            choice["message"] = Members([("tool_calls", evil), *message.items()])
        return choice

    def made(self) -> Upstream:
        rng = self.rng
        choices = 1 if self.well_formed else rng.choices((1, 2), (6, 1))[0]
        answer: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
        answer["choices"] = [self.choice(index) for index in range(choices)]
        answer["usage"] = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        if self.chance(0.04):
            self.oddities.append("a call beside the choices")
            answer["tool_calls"] = [{"id": "evil", "type": "function", "function": self.function()}]
        if self.chance(0.03):
            self.oddities.append("choices in another spelling")
            evil = [{"id": "evil", "type": "function", "function": self.function()}]
            answer["Choices"] = [{"index": 0, "message": {"role": "assistant", "tool_calls": evil}}]
        style = Style(
            ascii=rng.random() < 0.5,
            spaces=rng.random() < 0.5,
            breaks=rng.random() < 0.2,
            escaped_keys=self.chance(0.08),
        )
        data = write(answer, style, rng).encode()
        if self.chance(0.02):
            self.oddities.append("no UTF-8")
            self.intended = None
            data = data.replace(b'"object"', b'"x\xff": 1, "object"')
        tools = tuple(dict.fromkeys(self.names)) if rng.random() < 0.97 else ()
        return Upstream(
            name=self.name,
            kind="plain",
            pieces=(data,),
            request=request_of(tools, stream=False, choices=choices),
            tools=tool_names(self.names),
            intended=None if self.intended is None else tuple(self.intended),
            texts=None if self.intended is None else self.texts,
            well_formed=self.well_formed,
            choices=choices,
            cut_off=frozenset(self.cut_off),
            markers=tuple(self.markers),
            oddities=tuple(self.oddities),
        )


def answer(seed: str, number: int) -> Upstream:
    """The answer of this number."""
    return _Answer(seed, number).made()


def _case(name: str, message: dict[str, Any], *calls: Call, finish: str = "tool_calls") -> Upstream:
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    tools = ("Write", "Read")
    return Upstream(
        name=name,
        kind="plain",
        pieces=(write(body, Style(), Random(0)).encode(),),
        request=request_of(tools, stream=False),
        tools=tools,
        intended=calls,
        markers=("mark-fixed-0.",),
    )


_MARK = '{"mark": "mark-fixed-0."}'


def _call(function: Any, **members: Any) -> dict[str, Any]:
    return {"tool_calls": [{"id": "call_1", "type": "function", "function": function, **members}]}


FIXED: tuple[Upstream, ...] = (
    _case(
        "plain: arguments null", _call({"name": "Read", "arguments": None}), Call("function", "Read", "{}", "call_1")
    ),
    _case("plain: arguments absent", _call({"name": "Read"}), Call("function", "Read", "{}", "call_1")),
    _case(
        "plain: arguments as an object",
        _call({"name": "Write", "arguments": {"mark": "mark-fixed-0.", "n": Raw("9007199254740993")}}),
        Call("function", "Write", '{"mark":"mark-fixed-0.","n":9007199254740993}', "call_1"),
    ),
    _case(
        "plain: type blank",
        _call({"name": "Write", "arguments": _MARK}, type=""),
        Call("function", "Write", _MARK, "call_1"),
    ),
    _case("plain: no name", _call({"name": "", "arguments": _MARK})),
    _case("plain: both kinds", _call({"name": "Write", "arguments": "{}"}, custom={"name": "Read", "input": _MARK})),
    _case("plain: a number that a double loses", _call({"name": "Write", "arguments": '{"n": 1e-400}'})),
    _case(
        "plain: a thought signature",
        _call({"name": "Write", "arguments": _MARK}, extra_content={"google": {"thought_signature": "s=="}}),
        Call("function", "Write", _MARK, "call_1", {"extra_content": {"google": {"thought_signature": "s=="}}}),
    ),
    _case(
        "plain: another spelling beside",
        {
            **_call({"name": "Read", "arguments": "{}"}),
            "Tool_Calls": json.loads(json.dumps([{"function": {"name": "Write", "arguments": _MARK}}])),
        },
        Call("function", "Read", "{}", "call_1"),
    ),
)
