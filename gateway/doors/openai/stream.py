"""A streamed chat completion on its way to the agent: text flows, tool calls wait until they were judged.

Events without a call pass as the data that they are. The parts of calls never pass: they are joined, and so is what
comes after a choice's finish reason, because clients join it too. At the end of the answer (`[DONE]`, the end of the
stream, or some silence after the last finish reason) all calls are judged, and each released one is written as one
delta. The finish chunk of a choice waits until then, and so does the usage.

Fails closed: an event that can't be read ends the stream with an error; a call that can't be read is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from gateway.actions import Usage
from gateway.doors.openai.calls import MAX_CALLS, TOO_LARGE, TOO_MANY, Call, CallIds, Calls
from gateway.doors.openai.events import EventReader, broke_off, data_of, unreadable_answer
from gateway.doors.openai.plain import (
    carries_calls,
    cleaned,
    dumps,
    finish_after,
    finish_reason,
    loads,
    place_of,
    splits_lines,
    suspicious,
    without_empty_calls,
)
from gateway.proposals import Proposal, Verdict
from gateway.usage import StreamUsage

Judge = Callable[[list[Proposal]], Awaitable[list[Verdict]]]

MAX_HELD_BYTES = 16 * 1024 * 1024
MAX_PREFACE_BYTES = 64 * 1024
END_SILENCE_S = 5.0
"""After the last finish reason, this much silence is the end of an answer."""

_DONE = b"[DONE]"
_END = b"data: [DONE]\n\n"
_NULL = msgspec.Raw(b"null")


class _Choice(msgspec.Struct, gc=False):
    index: int | None = 0
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    object: Any = None
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = _NULL
    error: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode = msgspec.json.decode


class _HeldChoice:
    """The calls of one choice, and what follows them."""

    __slots__ = ("calls", "finish", "role", "template", "verbatim")

    def __init__(self) -> None:
        self.calls = Calls()
        self.template: dict[str, Any] = {}  # of the chunks that carried the calls: what is around their choices
        self.role: str | None = None  # goes with the first delta that is sent
        self.finish: dict[str, Any] | None = None  # the finish chunk, for this choice alone
        self.verbatim = b""  # the same as it came, where it says nothing else


class ChatStream:
    """Filters one stream. `usage` is what the provider counted for the whole answer, once it is over.

    Some providers count in every event what was used so far; of a stream that breaks off that is not the truth.

    judge: decides the calls of the whole answer. keep_usage: whether the client asked for the usage chunk.
    choices: how many the client asked for (`n`).
    """

    def __init__(
        self,
        judge: Judge,
        *,
        keep_usage: bool,
        choices: int = 1,
        end_silence_s: float = END_SILENCE_S,
    ) -> None:
        self._judge = judge
        self._keep_usage = keep_usage
        self._choices = choices
        self._end_silence_s = end_silence_s
        self._events = EventReader()
        self._preface: bytes | None = b""  # opens the stream, says nothing; None: sent
        self._held: dict[int, _HeldChoice] = {}
        self._held_bytes = 0
        self._held_usage = b""  # the usage chunk, where calls must come before it
        self._begun: set[int] = set()  # choices that said something
        self._shown: set[int] = set()  # choices that the agent was sent something of
        self._finished: set[int] = set()  # choices that gave a finish reason
        self._counted = StreamUsage()
        self._over = False
        self._silent = False  # the answer is complete, but the provider did not end its stream
        self.usage: Usage | None = None

    @property
    def holding(self) -> bool:
        """Whether the answer still arrives, and nothing of it can be sent now."""
        return not self._over and (bool(self._held) or self._preface is not None)

    async def run(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield what may be sent, as soon as it may. Raises `upstream_failed`."""
        source = aiter(chunks)
        feed = self._events.feed
        while (piece := await (self._next(source) if self._held else anext(source, None))) is not None:
            out = self._read(feed(piece))
            if self._over:
                yield await self._end(out, _END)
                while await self._next(source) is not None:
                    pass  # nothing counts after [DONE]; reading on keeps the connection usable
                return
            if out:
                yield out
        out = b"" if self._silent else self._read(self._events.rest())
        if out := await self._end(out, _END if self._silent or self._over else b""):
            yield out

    async def _next(self, source: AsyncIterator[bytes]) -> bytes | None:
        """The next piece; None at the end of the stream, or after silence where the answer is complete."""
        if self._over or self._is_complete:
            try:
                async with asyncio.timeout(self._end_silence_s):
                    return await anext(source, None)
            except TimeoutError:
                self._silent = True
                return None
        return await anext(source, None)

    @property
    def _is_complete(self) -> bool:
        """Whether every choice has given its finish reason."""
        return bool(self._held) and len(self._finished) >= self._choices and self._begun <= self._finished

    # ------------------------------------------------------------ what flows

    def _read(self, events: list[bytes]) -> bytes:
        out = b""
        for event in events:
            shown = self._event(event)
            if self._over:
                break
            if self._preface is not None:
                shown = self._after_preface(shown)
            out += shown
        return out

    def _after_preface(self, shown: bytes) -> bytes:
        """Hold back the events that only name the role until something is said, or the stream is over.

        As long as nothing was sent, an answer whose calls wait for a person can be refused as a whole, and the client's
        own retry comes back for it.
        """
        assert self._preface is not None
        if shown == _COMMENT and self._preface.endswith(_COMMENT):
            return b""
        if (not shown or shown == _COMMENT or _says_nothing(shown)) and len(self._preface) < MAX_PREFACE_BYTES:
            self._preface += shown
            return b""
        shown, self._preface = self._preface + shown, None
        return shown

    def _event(self, event: bytes) -> bytes:
        """What of an event may be sent at once, written again: no framing of the provider reaches the agent."""
        data = data_of(event)
        if data is None:  # a comment that keeps the connection open; its text is not for the agent
            return _COMMENT
        if data == _DONE:
            self._over = True
            return b""
        try:
            if not data.isascii():
                data.decode()  # also in places that nobody here reads
            if suspicious(data):
                return self._take_odd(cleaned(loads(data), "delta"), data)
            if b"\n" in data or splits_lines(data):
                data = dumps(loads(data))
            try:
                chunk = _decode_chunk(data)
            except msgspec.ValidationError:
                raise
            except (msgspec.DecodeError, UnicodeDecodeError):  # half of a surrogate pair, torn apart by a delta's end
                return self._take_odd(loads(data), data)
            return self._pass(chunk, data)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise unreadable_answer() from error

    def _pass(self, chunk: _Chunk, data: bytes) -> bytes:
        """An event without a call: it is sent as it is, unless it finishes a choice."""
        if chunk.error is not None:
            raise broke_off()
        has_usage = chunk.usage != _NULL
        if has_usage or self._counted.is_waiting:
            self._counted.add(data, chunk.usage)
        if has_usage and not chunk.choices:
            return self._show_usage(b"data: " + data + b"\n\n")
        if chunk.object != _OBJECT and chunk.choices:
            return self._take(loads(data), 0)
        opening = b""
        for choice in chunk.choices or ():
            if choice.finish_reason is not None:
                return self._finish(chunk, data)
            if choice.index not in self._shown:
                self._begun.add(choice.index or 0)
                opening += self._open(choice.index or 0, data)
        return opening + b"data: " + data + b"\n\n"

    def _open(self, index: int, data: bytes | dict[str, Any]) -> bytes:
        """What comes before the first event of a choice: openai-python wants choices to begin in their order."""
        missing = [below for below in range(min(index, self._choices)) if below not in self._shown]
        self._shown.update(missing, (index,))
        if not missing:
            return b""
        event = loads(data) if isinstance(data, bytes) else data
        around = {key: value for key, value in event.items() if key not in ("choices", "usage")} | {"object": _OBJECT}
        return b"".join(
            _data({**around, "choices": [{"index": below, "delta": {}, "finish_reason": None}]}) for below in missing
        )

    def _finish(self, chunk: _Chunk, data: bytes) -> bytes:
        """A finish chunk waits for the end of the answer, as calls may come after it; then it goes out as it came."""
        out = self._take(loads(data), 0)
        choices = chunk.choices or []
        held = self._held.get(choices[0].index or 0)
        plain = not out and len(choices) == 1 and chunk.usage == _NULL and b'"message"' not in data
        if held is not None and plain:
            held.verbatim = b"data: " + data + b"\n\n"
        return out

    def _show_usage(self, event: bytes) -> bytes:
        if not self._keep_usage:
            return b""
        if self._held:
            self._held_usage = event
            return b""
        return event

    # ------------------------------------------------------------ what is held

    def _take_odd(self, event: dict[str, Any], data: bytes) -> bytes:
        """An event that must be written again; `data` is what it was."""
        usage = event.get("usage")
        self._counted.add(data, _NULL if usage is None else msgspec.Raw(dumps(usage)))
        return self._take(event, len(data))

    def _take(self, event: dict[str, Any], size: int) -> bytes:
        """Split an event: calls and finishes are held, the rest of it flows."""
        if event.get("error") is not None:
            raise broke_off()
        choices = event.get("choices") or []
        if event.get("usage") is not None and not choices:
            return self._show_usage(_data(event))
        flowing = [rest for raw in choices if (rest := self._hold(event, raw, size)) is not None]
        if len(flowing) < len(choices) and event.get("usage") is not None:
            self._show_usage(_data({**event, "choices": []}))
            event = {key: value for key, value in event.items() if key != "usage"}
        if not choices:
            return _data(event)
        opening = b"".join(self._open(place_of(one), event) for one in flowing)
        return opening + _data({**event, "object": _OBJECT, "choices": flowing}) if flowing else b""

    def _hold(self, event: dict[str, Any], raw: dict[str, Any], size: int) -> dict[str, Any] | None:
        """Keep the calls of a choice and the finish that follows them; give what of it may flow, or None."""
        index, finish = place_of(raw), finish_reason(raw)
        delta = raw.get("delta")
        delta = without_empty_calls(delta) if isinstance(delta, dict) else {}  # LangChain fails on other deltas
        raw = {**raw, "delta": delta}
        if "finish_reason" in raw:
            raw = {**raw, "finish_reason": finish}
        message = raw.pop("message", None)  # of a complete answer; openai-node takes it for all that came so far
        if isinstance(message, dict) and isinstance(message.get("role"), str):
            raw["delta"] = delta = {"role": message["role"], **delta}
        self._begun.add(index)
        if finish is not None:
            self._finished.add(index)
        held = self._held.get(index)
        if carries_calls(delta):
            held = self._held.setdefault(index, held or _HeldChoice())
            self._hold_calls(held, event, delta, size)
            delta = {key: value for key, value in delta.items() if key not in ("tool_calls", "function_call")}
        elif finish is None:
            return raw
        else:
            held = self._held.setdefault(index, held or _HeldChoice())
        held.verbatim = b""
        said = any(value not in (None, "") for key, value in delta.items() if key != "role")
        if finish is not None:
            last = {"finish_reason": finish} if said else raw
            held.finish = {**event, "object": _OBJECT, "choices": [{**last, "index": index, "delta": {}}]}
            held.finish.pop("usage", None)
        if said or (finish is None and any(raw[key] is not None for key in raw if key not in _PLAIN_KEYS)):
            return {**raw, "delta": delta, "finish_reason": None}
        if isinstance(delta.get("role"), str):
            if finish is None:
                return {**raw, "delta": {"role": delta["role"]}}
            held.role = delta["role"]
        return None

    def _hold_calls(self, held: _HeldChoice, event: dict[str, Any], delta: dict[str, Any], size: int) -> None:
        held.template |= {key: value for key, value in event.items() if key not in ("choices", "usage")}
        held.calls.add(delta.get("tool_calls"), delta.get("function_call"))
        self._held_bytes += size
        if len(self._held) > MAX_CALLS:
            raise unreadable_answer()
        if self._held_bytes > MAX_HELD_BYTES:
            self._give_up(TOO_LARGE)
        elif sum(len(one.calls) for one in self._held.values()) > MAX_CALLS:
            self._give_up(TOO_MANY)

    def _give_up(self, why: str) -> None:
        for one in self._held.values():
            one.calls.give_up(why)

    # ------------------------------------------------------------ the end

    async def _end(self, out: bytes, ending: bytes) -> bytes:
        """The answer is over: judge what is held, and give what may be sent of it."""
        self._over = True
        self.usage = self._counted.total()
        held = [(index, choice, choice.calls.calls) for index, choice in sorted(self._held.items())]
        released = b""
        if held:
            proposals = [call.proposal for _, _, calls in held for call in calls]
            verdicts = iter(await self._judge(proposals) if proposals else ())
            ids = CallIds(next((choice.template["id"] for _, choice, _ in held if "id" in choice.template), None))
            for index, choice, calls in held:
                judged = [(call, next(verdicts)) for call in calls]
                verbatim = choice.verbatim if not judged else b""
                written = verbatim or b"".join(map(_data, _written(index, choice, judged, ids)))
                if written:
                    released += self._open(index, choice.template or choice.finish or {}) + written
        preface, self._preface = self._preface or b"", None
        return preface + out + released + self._held_usage + ending


def _written(index: int, choice: _HeldChoice, judged: list[tuple[Call, Verdict]], ids: CallIds) -> list[dict[str, Any]]:
    """The chunks of one choice: each released call in one delta, why others were left out, the finish."""
    deltas: list[dict[str, Any]] = []
    tools = functions = 0
    for number, (call, verdict) in enumerate(judged):
        if not verdict.release:
            continue
        if choice.calls.is_legacy(call):
            deltas.append({"function_call": call.function})
            functions += 1
        else:
            deltas.append({"tool_calls": [call.written(ids.of(call, index, number), index=tools)]})
            tools += 1
    left_out = [verdict.text for _, verdict in judged if not verdict.release]
    if left_out:
        deltas.append({"content": "\n".join(left_out)})
    role = {} if choice.role is None else {"role": choice.role}
    if deltas:
        deltas[0], role = role | deltas[0], {}
    around = {**choice.template, "object": _OBJECT}
    chunks = [{**around, "choices": [{"index": index, "delta": delta, "finish_reason": None}]} for delta in deltas]
    if choice.finish is not None:
        last = choice.finish["choices"][0]
        last["delta"] = role
        last["finish_reason"] = finish_after(last["finish_reason"], tools, functions, bool(left_out))
        chunks.append(choice.finish)
    return chunks


_COMMENT = b":\n\n"
_OBJECT = "chat.completion.chunk"  # openai-python passes over chunks that are another object
_PLAIN_KEYS = frozenset({"index", "delta", "finish_reason"})


def _says_nothing(events: bytes) -> bool:
    """Whether events, as they are sent, hold only roles, or empty text."""
    try:
        return all(
            choice.get("finish_reason") is None
            and all(key == "role" or not value for key, value in choice["delta"].items())
            for event in events.split(b"\n\n")[:-1]
            for choice in _decode(event.removeprefix(b"data: "))["choices"]
        )
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
        return False  # only the client understands it


def _data(event: dict[str, Any]) -> bytes:
    return b"data: " + dumps(event) + b"\n\n"
