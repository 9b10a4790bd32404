"""Streams of chat completions as providers, proxies and adversaries send them: seeded, so that each can be made again.

Four in ten are what OpenAI itself would send, cut and framed in any way that the standards allow; the others have one
or more oddities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

from tests.sdk_streams.framing import cut, framed
from tests.sdk_streams.maker import Maker
from tests.sdk_streams.oddities import LONELY, ODDITIES, Oddity, Part, Site, compact
from tests.sdk_streams.upstream import Call, Effect, Upstream, arguments, words

_ABSENT = object()
_OTHER_SPELLINGS = ("Tool_Calls", "TOOL_CALLS", "tool_call\u017f", "\uff54ool_calls")
Delta = dict[str, Any]


def stream(seed: str, number: int) -> Upstream:
    """The stream of this number."""
    maker = _Stream("stream", seed, number)
    rng = maker.rng
    choices = 1 if maker.well_formed else rng.choices((1, 2, 3), (8, 2, 1))[0]
    data = framed(maker, maker.events(choices))
    asked = 1 if maker.chance(0.1) else choices
    return maker.upstream(tuple(cut(rng, data)), choices, n=asked, usage=rng.random() < 0.5)


class _Step(NamedTuple):
    """One delta of one choice, and the finish reason that comes with it."""

    delta: Delta | None
    finish: Any = None


class _Stream(Maker):
    """One stream while it is being made."""

    # ------------------------------------------------------------ calls

    def function_parts(self, index: int, oddity: Oddity | None) -> list[Part]:
        """The deltas of one call of a function."""
        rng = self.rng
        name, call_id = self.tool(), self.call_id()
        readable = not self.chance(0.06)
        text = arguments(rng, self.marker(), readable=readable)
        first: Part = {"index": index, "id": call_id, "type": "function", "function": {"name": name}}
        if self.chance(0.06):
            self.odd("no arguments")
            given = rng.choice(({}, {"arguments": None}, {"arguments": {"mark": self.markers[-1], "n": 1}}))
            self.note(Effect.KEEPS, Call("function", name, compact(given.get("arguments") or {}), call_id))
            return [{**first, "function": {"name": name, **given}}]
        if not readable:
            self.odd("unreadable arguments")
        parts = [first, *({"index": index, "function": {"arguments": piece}} for piece in _pieces(rng, text))]
        if rng.random() < 0.2:
            parts = [{**first, "function": {"name": name, "arguments": text}}]
        elif rng.random() < 0.8:
            first["function"]["arguments"] = ""
        effect, members = Effect.KEEPS if readable else Effect.DROPS, dict[str, Any]()
        if oddity is not None:
            self.odd(oddity.__name__)
            done = oddity(Site(rng, parts, self.function(but=name), members))
            effect = done if effect is Effect.KEEPS or done is Effect.OPEN else effect
        self.note(effect, Call("function", name, text, call_id, members))
        return parts

    def custom_parts(self, index: int) -> list[Part]:
        """The deltas of one call of a custom tool."""
        rng = self.rng
        self.odd("custom")
        name, call_id, text = self.tool(), self.call_id(), f"{self.marker()} {words(rng)}"
        first: Part = {"index": index, "id": call_id, "type": "custom", "custom": {"name": name, "input": ""}}
        parts = [first, *({"index": index, "custom": {"input": piece}} for piece in _pieces(rng, text))]
        effect = Effect.KEEPS
        kind = rng.randrange(8)
        if kind == 0:  # two names
            parts.append({"index": index, "custom": {"name": self.tool(but=name)}})
            effect = Effect.DROPS
        elif kind == 1:  # the same name in each delta
            for part in parts:
                part["custom"]["name"] = name
        elif kind == 2:  # both kinds
            parts.append({"index": index, "function": {"name": name, "arguments": "{}"}})
            effect = Effect.DROPS
        elif kind < 5:
            parts = [{**first, "custom": {"name": name, "input": text}}]
        self.note(effect, Call("custom", name, text, call_id))
        return parts

    def legacy_deltas(self) -> list[Delta]:
        """The deltas of a `function_call`, which `tool_calls` took the place of in 2023."""
        rng = self.rng
        self.odd("legacy")
        name, text = self.tool(), arguments(rng, self.marker())
        parts: list[dict[str, Any]] = [{"name": name, "arguments": ""}]
        parts += [{"arguments": piece} for piece in _pieces(rng, text)]
        effect = Effect.KEEPS
        kind = rng.randrange(8)
        if kind == 0:
            parts, text = [{"name": name, "arguments": rng.choice((None, {}))}], "{}"
        elif kind == 1:  # two names
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
        """The deltas of the tool calls of one choice, those of several calls in turn or interleaved."""
        rng = self.rng
        lonely = rng.choice(LONELY) if count and self.chance(0.15) else None
        scripts = []
        for index in range(count):
            if lonely is None and self.chance(0.12):
                scripts.append(self.custom_parts(index))
            else:
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
        deltas = self.call_deltas(rng.choices(range(5), (2, 5, 3, 1, 1))[0])
        reason = "tool_calls" if deltas else "stop"
        if self.chance(0.08):
            deltas += self.legacy_deltas()
            reason = "function_call"
        if self.chance(0.04):
            self.odd("a call in another spelling")
            spelt: Delta = {rng.choice(_OTHER_SPELLINGS): [self.evil_call()]}
            deltas.insert(rng.randrange(len(deltas) + 1), rng.choice((spelt, {"Function_Call": self.function()})))
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
        return self._finished(deltas, reason)

    def _with_text(self, deltas: list[Delta]) -> list[Delta]:
        """The deltas with text between them, before them and in them."""
        rng = self.rng
        for _ in range(rng.choice((0, 0, 1, 3))):
            at = rng.randrange(len(deltas) + 1)
            if at < len(deltas) and rng.random() < 0.2:
                deltas[at] = {"content": words(rng)} | deltas[at]
            else:
                deltas.insert(at, {"content": words(rng)})
        if self.chance(0.1):
            extra = ({"reasoning_content": "hm"}, {"refusal": None}, {"x_new": [1]}, {"function_call": None})
            deltas.insert(rng.randrange(len(deltas) + 1), dict(rng.choice(extra)))
        if self.chance(0.05):
            deltas.insert(0, {"tool_calls": rng.choice((None, []))})
        return deltas

    def _finished(self, deltas: list[Delta], reason: str) -> list[_Step]:
        """The deltas with the finish reason where providers put it."""
        rng = self.rng
        steps = [_Step(delta) for delta in deltas]
        way = rng.random()
        if way < 0.2:
            steps[-1] = _Step(steps[-1].delta, reason)
        elif way < 0.3:  # and more deltas after it
            at = rng.randrange(len(steps))
            steps[at] = _Step(steps[at].delta, reason)
        elif self.chance(0.05):
            self.odd("no finish reason")
        elif self.chance(0.05):
            self.odd("no delta at the end")
            steps.append(_Step(None, reason))
        else:
            steps.append(_Step({}, reason))
            if self.chance(0.05):
                self.odd("two finish reasons")
                steps.append(_Step({}, reason))
        if self.chance(0.1):
            self.odd("blank finish reason")
            blank = ("", _ABSENT)
            steps = [step if step.finish is not None else _Step(step.delta, rng.choice(blank)) for step in steps]
        return steps

    # ------------------------------------------------------------ events

    def events(self, choices: int) -> list[Any]:
        """The chunks, in order."""
        rng = self.rng
        head: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        if rng.random() < 0.3:
            head |= {"system_fingerprint": "fp", "service_tier": "default"}
        if self.chance(0.04):
            self.odd("no object")
            del head["object"]
        events: list[Any] = []
        tracks = [[self._choice_json(index, step) for step in self.choice(index)] for index in range(choices)]
        for one in _interleaved(rng, tracks):
            last = events[-1]["choices"] if events else []
            if len(last) == 1 and last[0]["index"] != one["index"] and rng.random() < 0.2:
                last.append(one)
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
        rng = self.rng
        choice: dict[str, Any] = {"index": index, "delta": step.delta}
        if step.delta is None:
            del choice["delta"]
        if step.finish is not _ABSENT:
            choice["finish_reason"] = step.finish
        if rng.random() < 0.2:
            choice["logprobs"] = None
        if self.chance(0.02):
            self.odd("a message beside the delta")
            choice["message"] = {"role": "assistant", "tool_calls": [self.evil_call()]}
        if self.chance(0.01):
            self.odd("choice of another shape", Effect.OPEN)
            value = self.strange_value()
            if rng.random() < 0.5:
                value = {rng.choice(("tool_calls", "function_call", "content", "role")): value}
            choice[rng.choice(("delta", "finish_reason"))] = value
        if self.chance(0.01):
            self.odd("choice without an index", Effect.OPEN)
            choice["index"] = rng.choice((None, "0", -1))
        return choice


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
