"""What a model provider sends, and what is known of it: the material of the differential test."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.sdk_streams.jsontext import Raw, Style, write

NAMES = ("Todo", "Write", "Read", "Agent", "fs.read_file", "crm__search", "get-weather", "a:b/c", "constructor")
_WORDS = (
    "ok",
    "",
    "two words",
    'a "quoted" \\ one',
    "line\nend",
    "ünïcode",
    "\u2028 and \u2029",
    "😀🏳️‍🌈",
    "\u0085",
    "{}[],:",
)
_NUMBERS = (
    "0",
    "-1",
    "17",
    "9007199254740993",
    "123456789012345678901234567890",
    "0.1",
    "1.50",
    "-0.0",
    "1e3",
    "2.5E-7",
)
_INEXACT = ("9007199254740993.0", "1e-400", "0.1000000000000000055511151231257827", "1e400")


@dataclass(frozen=True)
class Call:
    """A tool call. `kind` is function, custom or legacy; `text` its arguments, or a custom tool's input."""

    kind: str
    name: str
    text: str
    call_id: str | None = None
    members: Mapping[str, Any] = field(default_factory=dict)  # unknown ones, which the agent must get back


class Effect(enum.Enum):
    """What an oddity does to what the decisions of issue 9 (A.1) make of a call, and so to what must be released."""

    KEEPS = "the call is read as without it"
    DROPS = "the call is unreadable: it is left out, whatever the verdict"
    OPEN = "the decisions say nothing of the stream: only what is judged and what is executed must agree"


@dataclass(frozen=True)
class Upstream:
    """One answer of a provider. `intended` holds the calls that must be released if all are allowed; None if open."""

    name: str  # of a fixed case, or "seed/number"
    kind: str  # stream or plain
    pieces: tuple[bytes, ...]
    request: Mapping[str, Any]
    tools: tuple[str, ...]  # names that the agent has tools for
    intended: tuple[Call, ...] | None
    texts: Mapping[int, str] | None = None  # what each choice says beside its calls
    well_formed: bool = False  # what OpenAI itself would send
    choices: int = 1
    cut_off: frozenset[int] = frozenset()  # choices that ended with `length`
    markers: tuple[str, ...] = ()  # each stands in the arguments of one call, or where no call may be read from
    oddities: tuple[str, ...] = ()

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)


def tool_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of the agent's tools: those that are called, and what they become where they are joined."""
    single = list(dict.fromkeys(names))
    return tuple(dict.fromkeys([*single, *(one + two for one in single[:3] for two in single[:3])]))


def request_of(tools: Sequence[str], *, stream: bool, usage: bool = False, choices: int = 1) -> dict[str, Any]:
    """The agent's request."""
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Go on."}]}
    if tools:
        free = {"type": "object", "properties": {}, "additionalProperties": True}
        body["tools"] = [{"type": "function", "function": {"name": name, "parameters": free}} for name in tools]
    if choices > 1:
        body["n"] = choices
    if stream:
        body["stream"] = True
    if usage:
        body["stream_options"] = {"include_usage": True}
    return body


def arguments(rng: Random, marker: str, *, readable: bool = True) -> str:
    """The text of a call's arguments: an object in which `marker` stands."""
    value: dict[str, Any] = {"mark": marker}
    for number in range(rng.choice((0, 1, 1, 2, 4))):
        value[rng.choice(("path", "n", "é", "a b", "options")) + str(number)] = _value(rng, 2)
    if not readable:
        flaw = rng.randrange(4)
        if flaw == 0:
            value["inexact"] = Raw(rng.choice(_INEXACT))
        text = write(value, Style(), rng)
        if flaw == 1:
            return text[: -rng.randrange(1, len(text) - 1)]
        if flaw == 2:
            return f"[{text}]"
        return text if flaw == 0 else text[:-1] + f', "mark": {json.dumps(marker)}}}'
    return write(value, Style(ascii=rng.random() < 0.5, spaces=rng.random() < 0.5), rng)


def _value(rng: Random, depth: int) -> Any:
    kind = rng.randrange(7 if depth else 5)
    if kind == 0:
        return Raw(rng.choice(_NUMBERS))
    if kind == 1:
        return rng.choice((True, False, None))
    if kind < 5:
        return rng.choice(_WORDS)
    if kind == 5:
        return [_value(rng, depth - 1) for _ in range(rng.randrange(3))]
    return {f"k{number}": _value(rng, depth - 1) for number in range(rng.randrange(3))}


def words(rng: Random) -> str:
    """A piece of the model's text."""
    return rng.choice(("Let me see. ", "Well, ", "ünï ", "😀 ", "line\nend ", "", "\u2028", "data: [DONE]\n\n", "{} "))
