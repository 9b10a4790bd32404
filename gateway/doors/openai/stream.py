"""A streamed chat completion on its way to the agent: text flows, tool calls wait until they were decided.

Each server-sent event is parsed once. Events without a tool call pass as the bytes they were; a tool call's deltas
are held until its choice finishes, then its complete arguments are decided on, and the deltas follow (written
anew) or are left out. The usage chunk that the gateway asked for is taken out again.

Fails closed: an event that can't be read ends the stream with an error.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from gateway.actions import Usage
from gateway.doors.openai.answer import MAX_PROPOSALS, CustomCall, FunctionCall, proposal_of, unreadable_answer
from gateway.doors.openai.plain import cleaned, dumps, loads, splits_lines, suspicious
from gateway.errors import Refusal
from gateway.proposals import Proposal, Verdict
from gateway.usage import usage_of

Judge = Callable[[list[Proposal]], Awaitable[list[Verdict]]]

MAX_EVENT_BYTES = 4 * 1024 * 1024
MAX_HELD_BYTES = 16 * 1024 * 1024


class _FunctionDelta(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _CustomDelta(msgspec.Struct):
    name: str | None = None
    input: str | None = None


class _CallDelta(msgspec.Struct):
    index: int = 0
    id: str | None = None
    type: str | None = None
    function: _FunctionDelta | None = None
    custom: _CustomDelta | None = None


class _Delta(msgspec.Struct):
    tool_calls: list[_CallDelta] | None = None
    function_call: _FunctionDelta | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")
    error: Any = None


_NULL = msgspec.Raw(b"null")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode = msgspec.json.decode
_encode = msgspec.json.encode


class _Call:
    """One tool call being put together from its deltas."""

    __slots__ = ("arguments", "call_id", "custom", "function", "kind", "name")

    def __init__(self) -> None:
        self.call_id = ""
        self.kind: str | None = None
        self.name = ""
        self.arguments: list[str] = []
        self.function = False
        self.custom = False

    def proposal(self) -> Proposal:
        text = _joined(self.arguments)
        function = FunctionCall(name=self.name, arguments=text) if self.function else None
        custom = CustomCall(name=self.name, input=text) if self.custom else None
        return proposal_of(self.call_id, function, custom, self.kind)


class _HeldChoice:
    """The tool calls of one choice, and the events that carried them."""

    __slots__ = ("calls", "events")

    def __init__(self) -> None:
        self.calls: dict[tuple[str, int], _Call] = {}
        self.events: list[dict[str, Any]] = []

    def add(self, choice: _Choice) -> None:
        delta = choice.delta
        if delta is None:
            return
        for part in delta.tool_calls or ():
            call = self.calls.setdefault(("tool", part.index), _Call())
            call.call_id = call.call_id or part.id or ""
            call.kind = call.kind or part.type
            if part.function is not None:
                call.function = True
                call.name += part.function.name or ""
                call.arguments.append(part.function.arguments or "")
            if part.custom is not None:
                call.custom = True
                call.name += part.custom.name or ""
                call.arguments.append(part.custom.input or "")
        if delta.function_call is not None:
            call = self.calls.setdefault(("function", 0), _Call())
            call.function = True
            call.name += delta.function_call.name or ""
            call.arguments.append(delta.function_call.arguments or "")


class ChatStream:
    """Filters one stream. `usage` holds what the provider said of the whole answer, once it did.

    Some providers tell what was used so far in every event; of a stream that breaks off that is not the truth.
    """

    def __init__(self, judge: Judge, *, keep_usage: bool) -> None:
        self._judge = judge
        self._keep_usage = keep_usage
        self._held: dict[int, _HeldChoice] = {}
        self._held_bytes = 0
        self._buffer = b""
        self._preface: bytes | None = b""  # what opens a stream and says nothing yet; None once something was said
        self._first = True  # a byte order mark may stand before the first event, and nowhere else
        self._usage_so_far: Usage | None = None
        self.usage: Usage | None = None

    async def run(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield what may be sent, as soon as it may. Raises `upstream_failed`."""
        async for chunk in chunks:
            data = self._buffer + chunk if self._buffer else chunk
            if self._first:
                self._first, data = False, data.removeprefix(_BYTE_ORDER_MARK)
            if b"\r" in data:
                if data.endswith(b"\r"):  # the other half of a line end may follow
                    self._buffer = data
                    self._check_size()
                    continue
                data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            end = data.rfind(b"\n\n")
            if end < 0:
                self._buffer = data
                self._check_size()
                continue
            self._buffer = data[end + 2 :]
            self._check_size()
            out = b""
            for event in data[:end].split(b"\n\n"):
                if event:
                    out += await self._event(event)
            if out and (out := self._after_preface(out)):
                yield out
        rest = self._buffer.strip()
        self._buffer = b""
        out = await self._event(rest) if rest else b""
        if self._held:
            out += await self._finish_all()
        self.usage = self.usage or self._usage_so_far
        out = (self._preface or b"") + out
        if out:
            yield out

    def _after_preface(self, out: bytes) -> bytes:
        """Hold back the events that only name the role until something is said, or the stream is over.

        As long as nothing was sent, an answer whose tool calls wait for a person can be refused as a whole, and the
        client's own retry comes back for it.
        """
        if self._preface is None:
            return out
        if all(_says_nothing(event) for event in out.split(b"\n\n") if event):
            self._preface += out
            return b""
        out, self._preface = self._preface + out, None
        return out

    def _check_size(self) -> None:
        if len(self._buffer) > MAX_EVENT_BYTES:
            raise unreadable_answer()

    async def _event(self, event: bytes) -> bytes:
        data = event[6:] if event.startswith(b"data: ") and b"\n" not in event else _data_of(event)
        if data is None:  # a comment that keeps the connection open; what it says is not for the agent
            return b":\n\n"
        if data == b"[DONE]":
            self.usage = self.usage or self._usage_so_far
            held = await self._finish_all() if self._held else b""
            return held + b"data: [DONE]\n\n"
        event = b"data: " + data + b"\n\n"  # written anew: no framing of the upstream's reaches the agent
        try:
            if suspicious(data):
                data = dumps(cleaned(loads(data), "delta"))
                event = b"data: " + data + b"\n\n"
            elif splits_lines(data):
                event = b"data: " + dumps(loads(data)) + b"\n\n"
            chunk = _read(data)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise unreadable_answer() from error
        if chunk.error is not None:
            raise Refusal("upstream_failed", "The model provider broke off its answer with an error; try again.")
        if chunk.usage != _NULL:
            self._usage_so_far = usage_of(chunk.usage)
            if not chunk.choices:
                return event if self._keep_usage else b""
        carries_call = finishes = False
        for choice in chunk.choices or ():
            delta = choice.delta
            if delta is not None and (delta.tool_calls or delta.function_call is not None):
                carries_call = True
            if choice.finish_reason is not None and choice.index in self._held:
                finishes = True
        if not carries_call and not finishes:
            return event
        return await self._hold_or_finish(chunk, loads(data), len(data))

    async def _hold_or_finish(self, chunk: _Chunk, event: dict[str, Any], size: int) -> bytes:
        """Split an event: the text of it flows, its tool call deltas are held, a finish decides them."""
        out = b""
        for choice, raw in zip(chunk.choices or (), event["choices"], strict=True):
            delta = choice.delta
            single = {**event, "choices": [raw]}
            single.pop("usage", None)
            if delta is not None and (delta.tool_calls or delta.function_call is not None):
                held = self._held.setdefault(choice.index, _HeldChoice())
                held.add(choice)
                self._held_bytes += size
                if (
                    self._held_bytes > MAX_HELD_BYTES
                    or len(held.calls) > MAX_PROPOSALS
                    or len(self._held) > MAX_PROPOSALS
                ):
                    raise unreadable_answer()
                carried = raw["delta"]
                text = {k: v for k, v in carried.items() if k not in ("tool_calls", "function_call")}
                calls = {k: v for k, v in carried.items() if k in ("tool_calls", "function_call")}
                held.events.append({**single, "choices": [{**raw, "delta": calls, "finish_reason": None}]})
                if any(v not in (None, "") for k, v in text.items() if k != "role"):
                    out += _data({**single, "choices": [{**raw, "delta": text, "finish_reason": None}]})
                elif "role" in text:  # the first delta names the role; it goes with the first that is sent
                    held.events[-1]["choices"][0]["delta"] = {"role": text["role"], **calls}
                if choice.finish_reason is not None:
                    out += await self._finish(choice.index, {**single, "choices": [{**raw, "delta": {}}]})
            elif choice.finish_reason is not None and choice.index in self._held:
                out += await self._finish(choice.index, single)
            else:
                out += _data(single)
        return out

    async def _finish(self, index: int, last: dict[str, Any] | None) -> bytes:
        """Decide the held calls of a choice; give what may be sent of them, then the event `last`."""
        held = self._held.pop(index)
        calls = list(held.calls.items())
        verdicts = await self._judge([call.proposal() for _, call in calls])
        if all(verdict.release for verdict in verdicts):
            return b"".join(map(_data, held.events)) + (_data(last) if last else b"")
        released = {key for (key, _), verdict in zip(calls, verdicts, strict=True) if verdict.release}
        renumbered = {key: number for number, key in enumerate(sorted(released))}
        out = b""
        for event in held.events:
            raw = event["choices"][0]
            delta = dict(raw["delta"])
            if delta.get("tool_calls"):
                delta["tool_calls"] = [
                    {**part, "index": renumbered["tool", part.get("index", 0)]}
                    for part in delta["tool_calls"]
                    if ("tool", part.get("index", 0)) in released
                ]
                if not delta["tool_calls"]:
                    del delta["tool_calls"]
            if "function_call" in delta and ("function", 0) not in released:
                del delta["function_call"]
            if delta:
                out += _data({**event, "choices": [{**raw, "delta": delta}]})
        template = last or held.events[-1]
        choice = template["choices"][0]
        text = "\n".join(verdict.text for verdict in verdicts if not verdict.release)
        out += _data({**template, "choices": [{**choice, "delta": {"content": text}, "finish_reason": None}]})
        reason = choice.get("finish_reason") if released else "stop"
        if last is not None:
            out += _data({**last, "choices": [{**choice, "finish_reason": reason}]})
        return out

    async def _finish_all(self) -> bytes:
        """The stream ended without a finish reason: what is held is decided all the same."""
        out = b""
        for index in list(self._held):
            out += await self._finish(index, None)
        return out


def _says_nothing(event: bytes) -> bool:
    """Whether an event, as it is sent, holds only the role, or empty text."""
    try:
        choices = _decode(event.removeprefix(b"data: "))["choices"]
        return all(
            choice.get("finish_reason") is None
            and all(key == "role" or not value for key, value in choice["delta"].items())
            for choice in choices
        )
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
        return False  # a comment, the end, or what only the client understands


def _data(event: dict[str, Any]) -> bytes:
    return b"data: " + dumps(event) + b"\n\n"


def _data_of(event: bytes) -> bytes | None:
    """The data of an event in any framing that the standard knows; None for one that is only comments.

    Raises `upstream_failed` for an error event, and for a line that is no field: some reader may take it for one.
    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    """
    parts = []
    for line in event.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            parts.append(value.removeprefix(b" "))
        elif name == b"event" and value.strip() == b"error":
            raise Refusal("upstream_failed", "The model provider broke off its answer with an error; try again.")
        elif name not in (b"", b"event", b"id", b"retry"):
            raise unreadable_answer()
    return b"\n".join(parts) if parts else None


def _read(data: bytes) -> _Chunk:
    try:
        return _decode_chunk(data)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError):  # half of a surrogate pair, as when a character is split in two
        value = loads(data)
        raw = {"usage": msgspec.Raw(json.dumps(value["usage"]).encode())} if "usage" in value else {}
        return msgspec.convert({**value, **raw}, _Chunk)


def _joined(parts: list[str]) -> str:
    """Join text parts; surrogate halves that meet become the character they are."""
    text = "".join(parts)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
