"""Chat completions that come whole, as providers, proxies and adversaries send them; seeded, like the streams."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.sdk_streams import oddities
from tests.sdk_streams.jsontext import Members, Raw, Style, write
from tests.sdk_streams.maker import Maker
from tests.sdk_streams.oddities import Oddity, Site, compact
from tests.sdk_streams.upstream import Call, Effect, Upstream, arguments, request_of, words

_ODDITIES: tuple[Oddity, ...] = (
    *(oddities.no_id, oddities.blank_type, oddities.no_type, oddities.wrong_type, oddities.both_kinds),
    *(oddities.no_name, oddities.bad_name, oddities.signature, oddities.unknown_members, oddities.other_case_beside),
    *(oddities.other_case_inside, oddities.key_twice, oddities.name_twice, oddities.wrong_shape),
)
_OTHER_SPELLINGS = ("Tool_Calls", "TOOL_CALLS", "tool_call\u017f", "\uff54ool_calls")


def answer(seed: str, number: int) -> Upstream:
    """The answer of this number."""
    maker = _Answer("plain", seed, number)
    choices = 1 if maker.well_formed else maker.rng.choices((1, 2), (6, 1))[0]
    return maker.upstream((maker.body(choices),), choices, n=choices)


class _Answer(Maker):
    """One answer while it is being made."""

    def tool_call(self, *, same_id: bool) -> dict[str, Any]:
        """A member of `tool_calls`."""
        rng = self.rng
        name, call_id = self.tool(), self.call_id()
        if not same_id and self.chance(0.12):
            self.odd("custom")
            text = f"{self.marker()} {words(rng)}"
            self.note(Effect.KEEPS, Call("custom", name, text, call_id))
            return {"id": call_id, "type": "custom", "custom": {"name": name, "input": text}}
        readable = not self.chance(0.06)
        text = arguments(rng, self.marker(), readable=readable)
        call: dict[str, Any] = {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}
        if self.chance(0.08):
            self.odd("no arguments")
            call["function"], text = self._without_text(name)
            self.note(Effect.KEEPS, Call("function", name, text, call_id))
            return call
        if not readable:
            self.odd("unreadable arguments")
        effect, members, parts = Effect.KEEPS if readable else Effect.DROPS, dict[str, Any](), [call]
        if same_id or self.chance(0.5):
            oddity = oddities.same_id if same_id else rng.choice(_ODDITIES)
            self.odd(oddity.__name__)
            done = oddity(Site(rng, parts, self.function(but=name), members))
            effect = done if effect is Effect.KEEPS or done is Effect.OPEN else effect
        self.note(effect, Call("function", name, text, call_id, members))
        return parts[0]

    def _without_text(self, name: str) -> tuple[dict[str, Any], str]:
        """A function whose arguments are no text, and the text that they are read as."""
        given = self.rng.choice(({}, {"arguments": None}, {"arguments": {"mark": self.markers[-1], "n": 1}}))
        return {"name": name, **given}, compact(given.get("arguments") or {})

    def legacy(self) -> dict[str, Any]:
        """A `function_call`."""
        self.odd("legacy")
        function = self.function()
        text = function["arguments"]
        if self.rng.random() < 0.3:
            function, text = self._without_text(function["name"])
        self.note(Effect.KEEPS, Call("legacy", function["name"], text))
        return function

    def choice(self, index: int) -> dict[str, Any]:
        rng = self.rng
        text = words(rng) if rng.random() < 0.5 else rng.choice((None, ""))
        message: dict[str, Any] = {"role": "assistant", "content": text}
        self.texts[index] = text or ""
        same_id = self.chance(0.05)
        calls = [self.tool_call(same_id=same_id) for _ in range(rng.choices(range(4), (2, 5, 3, 1))[0])]
        reason: Any = "tool_calls" if calls else "stop"
        if calls:
            message["tool_calls"] = calls
        elif self.chance(0.3):
            message["tool_calls"] = rng.choice((None, []))
        if self.chance(0.08):
            message["function_call"] = self.legacy()
            reason = "function_call"
        elif rng.random() < 0.2:
            message["function_call"] = None
        if rng.random() < 0.2:
            message |= {"refusal": None, "annotations": []}
        if self.chance(0.05) and text:
            self.odd("content in parts")
            message["content"] = [{"type": "text", "text": text}]
        if rng.random() < 0.15:
            reason = rng.choice(("stop", "length", "length", "content_filter"))
        if reason == "length":
            self.cut_off.add(index)
        elif self.chance(0.06):
            self.odd("blank finish reason")
            reason = rng.choice(("", None))
        choice: dict[str, Any] = {"index": index, "message": message, "finish_reason": reason}
        if rng.random() < 0.3:
            choice["logprobs"] = None
        self._disguise(choice, message)
        return choice

    def _disguise(self, choice: dict[str, Any], message: dict[str, Any]) -> None:
        """Hide calls where none may be read from, or give known keys values of another type."""
        rng = self.rng
        if self.chance(0.04):
            self.odd("a call in another spelling")
            message[rng.choice(_OTHER_SPELLINGS)] = [self.evil_call()]
        if self.chance(0.05):
            self.odd("a delta beside the message")
            choice["delta"] = {"tool_calls": [self.evil_call()]}
        if self.chance(0.02):
            self.odd("message of another shape", Effect.OPEN)
            if rng.random() < 0.3:
                choice["message"] = self.strange_value()
                return
            message[rng.choice(("tool_calls", "function_call", "content"))] = self.strange_value()
        if self.chance(0.03):
            self.odd("calls twice", Effect.OPEN)
            choice["message"] = Members([("tool_calls", [self.evil_call()]), *message.items()])

    def body(self, choices: int) -> bytes:
        """The whole answer."""
        rng = self.rng
        answer: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
        answer["choices"] = [self.choice(index) for index in range(choices)]
        answer["usage"] = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        if self.chance(0.04):
            self.odd("a call beside the choices")
            answer["tool_calls"] = [self.evil_call()]
        if self.chance(0.03):
            self.odd("choices in another spelling")
            answer["Choices"] = [{"index": 0, "message": {"role": "assistant", "tool_calls": [self.evil_call()]}}]
        style = Style(
            ascii=rng.random() < 0.5,
            spaces=rng.random() < 0.5,
            breaks=rng.random() < 0.2,
            escaped_keys=self.chance(0.08),
        )
        data = write(answer, style, rng).encode()
        if self.chance(0.02):
            self.odd("no UTF-8", Effect.OPEN)
            data = data.replace(b'"object"', b'"x\xff": 1, "object"')
        return data


def _case(name: str, message: dict[str, Any], *calls: Call) -> Upstream:
    message = {"role": "assistant", "content": None, **message}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    tools = ("Write", "Read")
    return Upstream(
        name=f"plain: {name}",
        kind="plain",
        pieces=(write(body, Style(), Random(0)).encode(),),
        request=request_of(tools, stream=False),
        tools=tools,
        intended=calls,
        markers=("mark-fixed-0.",),
    )


_MARK = '{"mark": "mark-fixed-0."}'
_SIGNED = {"extra_content": {"google": {"thought_signature": "s=="}}}


def _call(function: Any, **members: Any) -> dict[str, Any]:
    return {"tool_calls": [{"id": "call_1", "type": "function", "function": function, **members}]}


FIXED: tuple[Upstream, ...] = (
    _case("arguments null", _call({"name": "Read", "arguments": None}), Call("function", "Read", "{}", "call_1")),
    _case("arguments absent", _call({"name": "Read"}), Call("function", "Read", "{}", "call_1")),
    _case(
        "arguments as an object",
        _call({"name": "Write", "arguments": {"mark": "mark-fixed-0.", "n": Raw("9007199254740993")}}),
        Call("function", "Write", '{"mark":"mark-fixed-0.","n":9007199254740993}', "call_1"),
    ),
    _case(
        "type blank",
        _call({"name": "Write", "arguments": _MARK}, type=""),
        Call("function", "Write", _MARK, "call_1"),
    ),
    _case("no name", _call({"name": "", "arguments": _MARK})),
    _case("both kinds", _call({"name": "Write", "arguments": "{}"}, custom={"name": "Read", "input": _MARK})),
    _case("a number that a double loses", _call({"name": "Write", "arguments": '{"n": 1e-400}'})),
    _case(
        "a thought signature",
        _call({"name": "Write", "arguments": _MARK}, **_SIGNED),
        Call("function", "Write", _MARK, "call_1", _SIGNED),
    ),
    _case(
        "another spelling beside",
        {
            **_call({"name": "Read", "arguments": "{}"}),
            "Tool_Calls": [{"function": {"name": "Write", "arguments": _MARK}}],
        },
        Call("function", "Read", "{}", "call_1"),
    ),
)
