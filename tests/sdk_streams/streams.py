"""Streams of chat completions as providers, proxies and adversaries send them: seeded, so that each can be made again.

Four in ten are what OpenAI itself would send, cut and framed in any way that the standards allow; the others have one
or more oddities.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

from tests.sdk_streams.jsontext import Style, write
from tests.sdk_streams.oddities import LONELY, ODDITIES, Oddity, Part, Site, compact
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

DONE = "[DONE]"
Delta = dict[str, Any]


class _Step(NamedTuple):
    """One delta of one choice, and the finish reason that comes with it (`...`: the key is absent)."""

    delta: Delta | None
    finish: Any = None


class _Stream:
    """One stream while it is being made."""

    def __init__(self, seed: str, number: int) -> None:
        self.name = f"{seed}/{number}"
        self.rng = Random(f"stream/{self.name}")
        self.well_formed = self.rng.random() < 0.4
        self.calls = 0
        self.markers: list[str] = []
        self.names: list[str] = []
        self.intended: list[Call] | None = []
        self.texts: dict[int, str] = {}
        self.cut_off: set[int] = set()
        self.late: set[int] = set()
        self.oddities: list[str] = []

    # ------------------------------------------------------------ calls

    def chance(self, probability: float) -> bool:
        """Whether something odd is done here; never in a well-formed stream."""
        return not self.well_formed and self.rng.random() < probability

    def marker(self) -> str:
        """A word that is nowhere else."""
        marker = f"mark-{self.name.replace('/', '-')}-{len(self.markers)}."
        self.markers.append(marker)
        return marker

    def tool(self, *, but: str | None = None) -> str:
        name = self.rng.choice([name for name in NAMES if name != but])
        self.names.append(name)
        return name

    def note(self, effect: Effect, call: Call) -> None:
        """Note what must be released of a call."""
        if effect is Effect.OPEN:
            self.intended = None
        elif effect is Effect.KEEPS and self.intended is not None:
            self.intended.append(call)

    def odd(self, what: str) -> None:
        self.oddities.append(what)

    def function_parts(self, index: int, oddity: Oddity | None) -> list[Part]:
        """The deltas of one call of a function."""
        rng = self.rng
        self.calls += 1
        name, call_id = self.tool(), f"call_{rng.randrange(36**6)}{self.calls}"
        readable = not self.chance(0.06)
        text = arguments(rng, self.marker(), readable=readable)
        first: Part = {"index": index, "id": call_id, "type": "function", "function": {"name": name}}
        parts = [first, *({"index": index, "function": {"arguments": piece}} for piece in _pieces(rng, text))]
        if rng.random() < 0.2:
            parts = [{**first, "function": {"name": name, "arguments": text}}]
        elif rng.random() < 0.8:
            first["function"]["arguments"] = ""
        if self.chance(0.06):
            self.odd("no arguments")
            value = rng.choice(({}, {"arguments": None}, {"arguments": {"mark": self.markers[-1], "n": 1}}))
            parts, text = [{**first, "function": {"name": name, **value}}], compact(value.get("arguments") or {})
            readable, oddity = True, None
        effect, members = Effect.KEEPS if readable else Effect.DROPS, dict[str, Any]()
        if not readable:
            self.odd("unreadable arguments")
        if oddity is not None:
            self.odd(oddity.__name__)
            evil = {"name": self.tool(but=name), "arguments": arguments(rng, self.marker())}
            done = oddity(Site(rng, parts, evil, members))
            effect = done if effect is Effect.KEEPS or done is Effect.OPEN else effect
        self.note(effect, Call("function", name, text, call_id, members))
        return parts

    def custom_parts(self, index: int) -> list[Part]:
        """The deltas of one call of a custom tool."""
        rng = self.rng
        self.calls += 1
        self.odd("custom")
        name, call_id, text = self.tool(), f"call_c{self.calls}", f"{self.marker()} {words(rng)}"
        first: Part = {"index": index, "id": call_id, "type": "custom", "custom": {"name": name, "input": ""}}
        parts = [first, *({"index": index, "custom": {"input": piece}} for piece in _pieces(rng, text))]
        if rng.random() < 0.3:
            parts = [{**first, "custom": {"name": name, "input": text}}]
        effect = Effect.KEEPS
        kind = rng.randrange(8)
        if kind == 0:
            parts.append({"index": index, "custom": {"name": self.tool(but=name)}})
            effect = Effect.DROPS
        elif kind == 1:
            for part in parts:
                part["custom"]["name"] = name
        elif kind == 2:
            parts.append({"index": index, "function": {"name": name, "arguments": "{}"}})
            effect = Effect.DROPS
        self.note(effect, Call("custom", name, text, call_id))
        return parts

    def legacy_deltas(self) -> list[Delta]:
        """The deltas of a `function_call`, as before 2023-11."""
        rng = self.rng
        self.calls += 1
        self.odd("legacy")
        name, text = self.tool(), arguments(rng, self.marker())
        parts: list[dict[str, Any]] = [{"name": name, "arguments": ""}]
        parts += [{"arguments": piece} for piece in _pieces(rng, text)]
        effect = Effect.KEEPS
        kind = rng.randrange(8)
        if kind == 0:
            parts = [{"name": name, "arguments": rng.choice((None, {}))}]
            text = "{}"
        elif kind == 1:
            parts.insert(1, {"name": self.tool(but=name)})
            effect = Effect.DROPS
        elif kind == 2:
            for part in parts[1:]:
                part["name"] = rng.choice((name, "", None))
        elif kind == 3:
            parts = [{"name": name, "arguments": text}]
        self.note(effect, Call("legacy", name, text))
        return [{"function_call": part} for part in parts]

    def call_deltas(self, count: int) -> list[Delta]:
        """The deltas of the tool calls of one choice, those of several calls one after the other or interleaved."""
        rng = self.rng
        lonely = rng.choice(LONELY) if count and self.chance(0.15) else None
        scripts = []
        for index in range(count):
            if lonely is None and self.chance(0.12):
                scripts.append(self.custom_parts(index))
                continue
            oddity = lonely or (rng.choice(ODDITIES) if self.chance(0.5) else None)
            scripts.append(self.function_parts(index, oddity))
        placed = all(type(dict(part).get("index")) is int for script in scripts for part in script)
        if lonely is None and placed and rng.random() < 0.4:
            parts = list(_interleaved(rng, scripts))
        else:
            if lonely is None and self.chance(0.1):
                rng.shuffle(scripts)
            parts = [part for script in scripts for part in script]
        deltas: list[Delta] = []
        for part in parts:
            if deltas and rng.random() < 0.15:  # several in one delta
                deltas[-1]["tool_calls"].append(part)
            else:
                deltas.append({"tool_calls": [part]})
        return deltas

    # ------------------------------------------------------------ choices

    def choice(self, index: int) -> list[_Step]:
        """Everything that one choice says."""
        rng = self.rng
        count = rng.choices(range(5), (2, 5, 3, 1, 1))[0]
        deltas: list[Delta] = self.call_deltas(count)
        reason = "tool_calls" if deltas else "stop"
        if self.chance(0.08):
            deltas += self.legacy_deltas()
            reason = "function_call"
        if self.chance(0.04):
            self.odd("a call in another spelling")
            evil = {"name": self.tool(), "arguments": arguments(rng, self.marker())}
            key = rng.choice(("Tool_Calls", "TOOL_CALLS", "tool_call\u017f", "\uff54ool_calls"))
            value = [{"index": 0, "id": "evil", "type": "function", "function": evil}]
            deltas.insert(
                rng.randrange(len(deltas) + 1), {key: value} if rng.random() < 0.5 else {"Function_Call": evil}
            )
        deltas = self._with_text(deltas)
        opening: Delta = {"role": "assistant", "content": rng.choice(("", None))}
        if self.chance(0.05):
            opening = {}
        elif rng.random() < 0.3 and deltas:  # the role comes with the first delta
            opening = {"role": "assistant"} | deltas.pop(0)
        deltas = [opening, *deltas]
        if rng.random() < 0.15:
            reason = rng.choice(("stop", "length", "length", "content_filter"))
        if reason == "length":
            self.cut_off.add(index)
        self.texts[index] = "".join(delta.get("content") or "" for delta in deltas)
        steps = self._finished(deltas, reason)
        finish = next((at for at, step in enumerate(steps) if step.finish not in (None, "", ...)), len(steps))
        before = [step.delta or {} for step in steps[: finish + 1]]
        if not any(delta.get("tool_calls") or delta.get("function_call") for delta in before):
            self.late.add(index)
        return steps

    def _with_text(self, deltas: list[Delta]) -> list[Delta]:
        rng = self.rng
        for _ in range(rng.choice((0, 0, 1, 3))):
            at = rng.randrange(len(deltas) + 1)
            if at < len(deltas) and rng.random() < 0.2:
                deltas[at] = {"content": words(rng)} | deltas[at]
            else:
                deltas.insert(at, {"content": words(rng)})
        if self.chance(0.1):
            extra = rng.choice(
                ({"reasoning_content": "hm"}, {"refusal": None}, {"x_new": [1]}, {"function_call": None})
            )
            deltas.insert(rng.randrange(len(deltas) + 1), dict(extra))
        if self.chance(0.05):
            deltas.insert(0, {"tool_calls": rng.choice((None, []))})
        return deltas

    def _finished(self, deltas: list[Delta], reason: str) -> list[_Step]:
        """The deltas with the finish reason where providers put it."""
        rng = self.rng
        steps = [_Step(delta) for delta in deltas]
        way = rng.random()
        if way < 0.6:
            steps.append(_Step({}, reason))
        elif way < 0.8:
            steps[-1] = _Step(steps[-1].delta, reason)
        elif way < 0.9:  # and more deltas after it
            at = rng.randrange(len(steps))
            steps[at] = _Step(steps[at].delta, reason)
        elif not self.chance(0.5):
            steps.append(_Step({}, reason))
        else:
            self._oddly_finished(steps, reason)
        if self.chance(0.1):
            self.odd("blank finish reason")
            steps = [step if step.finish is not None else step._replace(finish=rng.choice(("", ...))) for step in steps]
        return steps

    def _oddly_finished(self, steps: list[_Step], reason: str) -> None:
        kind = self.rng.randrange(3)
        self.odd(("no finish reason", "two finish reasons", "no delta at the end")[kind])
        if kind == 1:
            steps += [_Step({}, reason), _Step({}, reason)]
        elif kind == 2:
            steps.append(_Step(None, reason))

    # ------------------------------------------------------------ events

    def events(self, choices: int) -> list[Any]:
        """The chunks, in order; a string stands for itself."""
        rng = self.rng
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        if rng.random() < 0.3:
            head |= {"system_fingerprint": "fp", "service_tier": "default"}
        if self.chance(0.04):
            self.odd("no object")
            del head["object"]
        tracks = [[self._choice_json(index, step) for step in self.choice(index)] for index in range(choices)]
        events: list[Any] = []
        for one in _interleaved(rng, tracks):
            last = events[-1] if events else None
            if (
                choices > 1
                and last
                and len(last["choices"]) == 1
                and last["choices"][0]["index"] != one["index"]
                and rng.random() < 0.2
            ):
                last["choices"].append(one)
            else:
                events.append({**head, "choices": [one]})
        used = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        if rng.random() < 0.4:
            events.append({**head, "choices": [], "usage": used})
        elif self.chance(0.1):
            events = [{**event, "usage": used} for event in events]
        if self.chance(0.03):
            events.insert(0, {**head, "choices": [], "prompt_filter_results": []})
        return events

    def _choice_json(self, index: int, step: _Step) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "delta": step.delta}
        if step.delta is None:
            del choice["delta"]
        if step.finish is not ...:
            choice["finish_reason"] = step.finish
        if self.rng.random() < 0.2:
            choice["logprobs"] = None
        if self.chance(0.02):
            self.odd("a message beside the delta")
            evil = {"name": self.tool(), "arguments": arguments(self.rng, self.marker())}
            choice["message"] = {
                "role": "assistant",
                "tool_calls": [{"id": "evil", "type": "function", "function": evil}],
            }
        if self.chance(0.01):
            self.odd("choice of another shape")
            self.intended = None
            value = self.rng.choice((7, "text", [], {}, True, [7], {"tool_calls": {}}))
            choice[self.rng.choice(("delta", "finish_reason"))] = value
            if self.rng.random() < 0.5:
                choice["delta"] = {self.rng.choice(("tool_calls", "function_call", "content", "role")): value}
        if self.chance(0.01):
            self.odd("choice without an index")
            self.intended = None
            choice["index"] = self.rng.choice((None, "0", -1))
        return choice

    def framed(self, events: list[Any]) -> bytes:
        """The events as bytes."""
        rng = self.rng
        style = Style(
            ascii=rng.random() < 0.5,
            spaces=rng.random() < 0.5,
            breaks=self.chance(0.1),
            escaped_keys=self.chance(0.08),
        )
        self.oddities += [name for name in ("breaks", "escaped_keys") if getattr(style, name)]
        end = rng.choices(("\n", "\r\n", "\r"), (8, 2, 0.5))[0]
        space = rng.choice((" ", " ", ""))
        out: list[str] = []
        for event in events:
            if rng.random() < 0.05:
                out.append(f": keep-alive{end}{rng.choice(('', end))}")
            if self.chance(0.03):
                out.append(rng.choice((f"event: message{end}", f"id: 7{end}", f"retry: 10{end}")))
            lines = write(event, style, rng).split("\n")
            out += [f"data:{space}{line}{end}" for line in lines]
            out.append(end)
        if self.chance(0.08):
            self.odd("no end")
        elif rng.random() < 0.9 or self.well_formed:
            out.append(f"data: {DONE}{end}{end}")
        if self.chance(0.05):
            self.odd("a call after the end")
            evil = {
                "index": 0,
                "id": "z",
                "function": {"name": self.tool(), "arguments": arguments(rng, self.marker())},
            }
            late = {"choices": [{"index": 0, "delta": {"tool_calls": [evil]}, "finish_reason": "tool_calls"}]}
            if DONE not in out[-1]:
                self.intended = None  # it is not after the end
            out.append(f"data: {write(late, style, rng)}{end}{end}")
        data = "".join(out).encode("utf-8")
        if self.chance(0.03):
            self.odd("byte order mark")
            data = b"\xef\xbb\xbf" + data
        if self.chance(0.02):
            self.odd("no UTF-8")
            self.intended = None
            if rng.random() < 0.5:
                return data.replace(b"chatcmpl-1", rng.choice((b"\xff", b"\xc3(", b"\xed\xa0\x80")), 1)
            at = rng.choice([match.end() for match in re.finditer(rb"[\r\n]{2,4}", data)][:-1] or [0])
            data = data[:at] + rng.choice((b": \xff\xfe\n\n", b"event: \xc3\x28\n", b"\xff: x\n")) + data[at:]
        return data

    def made(self) -> Upstream:
        rng = self.rng
        choices = 1 if self.well_formed else rng.choices((1, 2, 3), (8, 2, 1))[0]
        data = self.framed(self.events(choices))
        tools = tuple(dict.fromkeys(self.names)) if rng.random() < 0.97 or self.well_formed else ()
        return Upstream(
            name=self.name,
            kind="stream",
            pieces=tuple(cut(rng, data)),
            request=request_of(
                tools, stream=True, usage=rng.random() < 0.5, choices=1 if self.chance(0.1) else choices
            ),
            tools=tool_names(self.names),
            intended=None if self.intended is None else tuple(self.intended),
            texts=None if self.intended is None else self.texts,
            well_formed=self.well_formed,
            choices=choices,
            cut_off=frozenset(self.cut_off),
            late=frozenset(self.late),
            markers=tuple(self.markers),
            oddities=tuple(self.oddities),
        )


def stream(seed: str, number: int) -> Upstream:
    """The stream of this number."""
    return _Stream(seed, number).made()


def cut(rng: Random, data: bytes) -> Iterator[bytes]:
    """The bytes in pieces of any size, as a network delivers them."""
    way = rng.random()
    if way < 0.3:
        yield data
        return
    if way < 0.5:
        yield from re.findall(rb".*?(?:\r\n\r\n|\n\n|\r\r|$)", data, re.DOTALL)
        return
    most = rng.choice((1, 3, 20, 200)) if len(data) < 1_500 else rng.choice((20, 200, 1_000))
    start = 0
    while start < len(data):
        end = start + rng.randint(1, most)
        yield data[start:end]
        start = end


def _pieces(rng: Random, text: str) -> list[str]:
    """A text in one to six pieces."""
    cuts = sorted(rng.randrange(len(text) + 1) for _ in range(rng.randrange(6)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def _interleaved(rng: Random, tracks: Sequence[Sequence[Any]]) -> Iterator[Any]:
    """Items of all tracks, those of each in their order."""
    left = [list(track) for track in tracks if track]
    while left:
        track = rng.choice(left)
        yield track.pop(0)
        if not track:
            left.remove(track)
