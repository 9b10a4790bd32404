"""A streamed chat completion on its way to the agent: text flows, tool calls wait until they were judged.

Events without a call pass as the data that they are. The parts of calls never pass: they are joined, and so is what
comes after a choice's finish reason, because clients join it too. At the end of the answer (`[DONE]`, the end of the
stream, or some silence after the last finish reason) all calls are judged, and each released one is written as one
delta. The finish chunk of a choice waits until then, and so does the usage.

However the provider cuts its answer, time and memory grow with its bytes, both are bounded, and the event loop serves
others after every STEP_BYTES.

Fails closed: an event that can't be read ends the stream with an error; a call that can't be read is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import msgspec

from gateway.actions import Usage
from gateway.doors.openai.calls import MAX_CALLS, TOO_LARGE, TOO_MANY, Call, CallIds, Calls
from gateway.doors.openai.events import EventReader, broke_off, data_of, too_long, unreadable_answer
from gateway.doors.openai.plain import (
    CALL_REASONS,
    as_deltas,
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
    without_inexact,
)
from gateway.doors.openai.secrets import DeltaTexts
from gateway.errors import Refusal
from gateway.known_secrets import KNOWN
from gateway.offload import LARGE_BYTES, run_sized
from gateway.proposals import Proposal, Verdict
from gateway.redaction import Redactor
from gateway.usage import StreamUsage

Judge = Callable[[list[Proposal]], Awaitable[list[Verdict]]]

MAX_HELD_BYTES = 16 * 1024 * 1024
MAX_PREFACE_BYTES = 64 * 1024
MAX_STREAM_BYTES = 256 * 1024 * 1024
MAX_EVENTS = 1_000_000
MAX_REST_BYTES = 64 * 1024
STEP_BYTES = 16 * 1024
"""How much of a stream is filtered before others run; this may be thousands of events."""
PIECE_BYTES = 48  # what a piece costs beside its bytes
MAX_AROUND_BYTES = 4096
"""What surrounds the choices of an event is repeated in each chunk made from it; if it is larger, only once."""
_SMALL_MEMBER_BYTES = 256
_SMALL_MEMBERS = 16
END_SILENCE_S = 5.0
"""After the last finish reason, this much silence is the end of an answer."""

_BROKEN = frozenset({"upstream_failed", "upstream_timeout"})
_DONE = b"[DONE]"
_END = b"data: [DONE]\n\n"
_NULL = msgspec.Raw(b"null")


class _Choice(msgspec.Struct):
    index: Annotated[int, msgspec.Meta(ge=0)]
    delta: dict[str, Any]
    finish_reason: str | None = None
    logprobs: Any = None


class _Chunk(msgspec.Struct):
    object: Any = None
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = _NULL
    error: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode = msgspec.json.decode


class _HeldChoice:
    """The calls of one choice, and what follows them."""

    __slots__ = ("calls", "finish", "finish_around", "finish_bytes", "last_around", "role", "template", "verbatim")

    def __init__(self) -> None:
        self.calls = Calls()
        self.template: dict[str, Any] = {}  # of the chunks that carried the calls: what is around their choices
        self.last_around: dict[str, Any] | None = None  # the last that went into the template
        self.role: str | None = None  # goes with the first delta that is sent
        self.finish: dict[str, Any] | None = None  # the choice with its finish reason
        self.finish_around: dict[str, Any] = {}  # of the chunk that it came in
        self.finish_bytes = 0  # of both
        self.verbatim = b""  # that chunk as it came, where it says nothing else

    def add_calls(self, around: dict[str, Any], delta: dict[str, Any]) -> None:
        if self.calls.has_given_up:
            return
        if self.last_around is not around:  # one event may have many entries for the same choice
            self.template |= around
            self.last_around = around
        self.calls.add(delta.get("tool_calls"), delta.get("function_call"))


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
        self._held_bytes = 0  # of events with calls
        self._finish_bytes = 0  # of the finish chunks
        self._last_around: dict[str, Any] | None = None  # of the event with the last finish reason
        self._last_brief: dict[str, Any] | None = None  # the small members of it
        self._call_count = 0
        self._held_usage = b""  # the usage chunk, where calls must come before it
        self._unfinished: set[int] = set()  # choices that said something, and gave no finish reason
        self._shown: set[int] = set()  # choices that the agent was sent something of
        self._finished: set[int] = set()  # choices that gave a finish reason
        self._redactor = KNOWN.redactor
        self._texts = DeltaTexts(self._redactor) if self._redactor.texts else None
        self._counted = StreamUsage()
        self._bytes = 0
        self._event_count = 0
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
        worked = 0  # bytes since others could run
        while (piece := await (self._next(source) if self._held else anext(source, None))) is not None:
            self._bytes += len(piece)
            if self._bytes > MAX_STREAM_BYTES:
                raise too_long(f"{MAX_STREAM_BYTES // 1024 // 1024} MiB")
            for step in (piece,) if len(piece) <= STEP_BYTES else _steps(piece):
                if events := feed(step):
                    # Only the first can be longer than the step. In a thread this stream waits for it, others do not.
                    large = len(events[0]) > LARGE_BYTES
                    out = await run_sized(len(events[0]), self._read, events) if large else self._read(events)
                    if self._over:
                        yield await self._end(out, _END)
                        await self._read_rest(source)
                        return
                    if out:
                        yield out
                worked += len(step) + PIECE_BYTES
                if worked >= STEP_BYTES:
                    worked = 0
                    await asyncio.sleep(0)
        rest = [] if self._silent else self._events.rest()
        out = await run_sized(sum(map(len, rest)), self._read, rest)
        if out := await self._end(out, _END if self._silent or self._over else b""):
            yield out

    async def _read_rest(self, source: AsyncIterator[bytes]) -> None:
        """Nothing counts after [DONE]; reading a little, for a short time, keeps the connection usable."""
        room = MAX_REST_BYTES
        with contextlib.suppress(TimeoutError, Refusal):
            async with asyncio.timeout(self._end_silence_s):
                while room > 0 and (piece := await anext(source, None)) is not None:
                    room -= len(piece) + PIECE_BYTES

    async def _next(self, source: AsyncIterator[bytes]) -> bytes | None:
        """The next piece; None at the end of the stream, or after silence where the answer is complete."""
        if self._is_complete:
            try:
                async with asyncio.timeout(self._end_silence_s):
                    return await anext(source, None)
            except TimeoutError:
                self._silent = True
                return None
            except Refusal as refusal:
                if refusal.code not in _BROKEN:
                    raise
                self._silent = True  # all of the answer is here, and the connection broke before its end
                return None
        return await anext(source, None)

    @property
    def _is_complete(self) -> bool:
        """Whether every choice has given its finish reason."""
        return bool(self._held) and len(self._finished) >= self._choices and not self._unfinished

    # ------------------------------------------------------------ what flows

    def _read(self, events: list[bytes]) -> bytes:
        self._event_count += len(events)
        if self._event_count > MAX_EVENTS:
            raise too_long(f"{MAX_EVENTS} events")
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
                answer = cleaned(as_deltas(loads(data), self._has_begun), "delta")
                return self._take_odd(without_inexact(answer, data, "delta"), data)
            if b"\n" in data or splits_lines(data):
                data = dumps(loads(data))
            try:
                chunk = _decode_chunk(data)
            except (msgspec.DecodeError, UnicodeDecodeError):
                # A choice of another shape, or half of a surrogate pair, torn apart by a delta's end.
                return self._take_odd(loads(data), data)
            if not all(_is_usual(choice.delta) for choice in chunk.choices or ()):
                return self._take_odd(loads(data), data)
            return self._pass(chunk, data)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise unreadable_answer() from error

    def _pass(self, chunk: _Chunk, data: bytes) -> bytes:
        """An event without a call: it is sent as it is, unless it finishes a choice."""
        if chunk.error is not None:
            raise broke_off()
        if self._texts is not None:
            data = self._texts.plain(chunk.choices or (), data)
        has_usage = chunk.usage != _NULL
        if has_usage or self._counted.is_waiting:
            self._counted.add(data, chunk.usage)
        if has_usage and not chunk.choices:
            return self._show_usage(b"data: " + data + b"\n\n")
        if chunk.object != _OBJECT and chunk.choices:
            return self._take(loads(data), len(data))
        choices = chunk.choices or ()
        if any(choice.finish_reason is not None for choice in choices):
            return self._finish(chunk, data)
        if len(choices) > 1 and len({choice.index for choice in choices}) < len(choices):
            return self._take(loads(data), len(data))
        opening = b""
        if any(choice.index not in self._shown for choice in choices):
            opening = self._open([choice.index for choice in choices], data)
        return opening + b"data: " + data + b"\n\n"

    def _open(self, places: list[int], data: bytes | dict[str, Any]) -> bytes:
        """What comes before an event: openai-python wants choices to begin in their order.

        places: of the choices in the event. data: the event, or what surrounds its choices.
        """
        begin = [place for place in dict.fromkeys(places) if place not in self._shown]
        for place in begin:
            self._note(place, None)
        missing = [below for below in range(min(max(places), self._choices)) if below not in self._shown]
        self._shown.update(missing, begin)
        if begin == sorted({*missing, *begin}):
            return b""
        event = loads(data) if isinstance(data, bytes) else data
        around = _brief(_around(event)) | {"object": _OBJECT}
        return b"".join(
            _data({**around, "choices": [{"index": below, "delta": {}, "finish_reason": None}]}) for below in missing
        )

    def _finish(self, chunk: _Chunk, data: bytes) -> bytes:
        """A finish chunk waits for the end of the answer, as calls may come after it; then it goes out as it came."""
        out = self._take(loads(data), len(data))
        choices = chunk.choices or []
        held = self._held.get(choices[0].index)
        plain = not out and len(choices) == 1 and chunk.usage == _NULL and b'"message"' not in data
        if held is not None and held.role is None and plain:
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
        if self._texts is not None:
            event = self._texts.event(event, data)
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
        around = _around(event)
        flowing = [rest for raw in choices if (rest := self._hold(around, raw, size)) is not None]
        if len(flowing) < len(choices) and event.get("usage") is not None:
            self._show_usage(_data({**event, "choices": []}))
            event = {key: value for key, value in event.items() if key != "usage"}
        if not choices:
            return _data(event)
        if not flowing:
            return b""
        opening = self._open([place_of(one) for one in flowing], around)
        *parts, last = _apart(flowing)
        before = b"".join(_data({**around, "object": _OBJECT, "choices": part}) for part in parts)
        return opening + before + _data({**event, "object": _OBJECT, "choices": last})

    def _note(self, index: int, finish: str | None) -> None:
        """Keep in mind which choices began, and which of them are finished."""
        if finish is not None:
            self._finished.add(index)
            self._unfinished.discard(index)
        elif index not in self._finished:
            self._unfinished.add(index)

    def _hold(self, around: dict[str, Any], raw: dict[str, Any], size: int) -> dict[str, Any] | None:
        """Keep the calls of a choice and the finish that follows them; give what of it may flow, or None."""
        index, finish = place_of(raw), finish_reason(raw)
        message = raw.get("message")  # beside a delta: openai-node takes it for all that came so far
        delta = raw.get("delta", None if self._has_begun(index) else message)
        delta = without_empty_calls(delta) if isinstance(delta, dict) else {}  # LangChain fails on other deltas
        if not _is_content(delta.get("content")):  # and on other contents
            delta = {key: value for key, value in delta.items() if key != "content"}
        raw = {**raw, "index": index, "delta": delta}
        if "finish_reason" in raw:
            raw = {**raw, "finish_reason": finish}
        raw.pop("message", None)
        if isinstance(message, dict) and isinstance(message.get("role"), str):
            raw["delta"] = delta = {"role": message["role"], **delta}
        self._note(index, finish)
        if carries_calls(delta):
            held = self._held_choice(index)
            self._hold_calls(held, around, delta, size)
            delta = {key: value for key, value in delta.items() if key not in ("tool_calls", "function_call")}
        elif finish is None:
            return raw
        else:
            held = self._held_choice(index)
        held.verbatim = b""
        said = any(value not in (None, "") for key, value in delta.items() if key != "role")
        if finish is not None:
            last = {"finish_reason": finish} if said else raw
            self._hold_finish(held, {**last, "index": index, "delta": {}}, around)
        if said or (finish is None and any(raw[key] is not None for key in raw if key not in _PLAIN_KEYS)):
            return {**raw, "delta": delta, "finish_reason": None}
        if isinstance(delta.get("role"), str):
            if finish is None:
                return {**raw, "delta": {"role": delta["role"]}}
            held.role = delta["role"]
        return None

    def _has_begun(self, index: int) -> bool:
        """Whether anything came of a choice before."""
        return index in self._shown or index in self._held or index in self._unfinished

    def _held_choice(self, index: int) -> _HeldChoice:
        held = self._held.get(index)
        if held is None:
            if len(self._held) >= max(MAX_CALLS, self._choices):
                raise unreadable_answer()
            held = self._held[index] = _HeldChoice()
        return held

    def _hold_calls(self, held: _HeldChoice, around: dict[str, Any], delta: dict[str, Any], size: int) -> None:
        self._call_count -= len(held.calls)
        held.add_calls(around, delta)
        self._call_count += len(held.calls)
        self._held_bytes += size
        if self._held_bytes > MAX_HELD_BYTES:
            self._give_up(TOO_LARGE)
        elif self._call_count > MAX_CALLS:
            self._give_up(TOO_MANY)

    def _hold_finish(self, held: _HeldChoice, choice: dict[str, Any], around: dict[str, Any]) -> None:
        if around is self._last_around:  # another choice of the same event
            around = self._last_brief = self._last_brief or _brief(around)
        else:
            self._last_around, self._last_brief = around, None
        before = held.finish
        if before is not None and choice["finish_reason"] in CALL_REASONS and before["finish_reason"] in _CUT_OFF:
            choice = {**choice, "finish_reason": before["finish_reason"]}
        held.finish, held.finish_around = choice, around
        size = len(dumps(choice)) + len(dumps(around))
        self._finish_bytes += size - held.finish_bytes
        held.finish_bytes = size
        if self._finish_bytes > MAX_HELD_BYTES:
            raise unreadable_answer()

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
            size = self._held_bytes + self._finish_bytes
            proposals = await run_sized(size, _proposals, held, self._redactor)
            verdicts = await self._judge(proposals) if proposals else []
            released = await run_sized(size, self._released, held, verdicts)
        preface, self._preface = self._preface or b"", None
        if self._texts is not None:
            out += b"".join(_data({**event, "object": _OBJECT}) for event in self._texts.rest())
        return preface + out + released + self._held_usage + ending

    def _released(self, held: list[_Held], verdicts: list[Verdict]) -> bytes:
        """What was held, as it is sent once it was judged."""
        rest = iter(verdicts)
        ids = CallIds(next((choice.template["id"] for _, choice, _ in held if "id" in choice.template), None))
        sent: list[bytes] = []
        for index, choice, calls in held:
            judged = [(call, next(rest)) for call in calls]
            verbatim = choice.verbatim if not judged else b""
            written = verbatim or b"".join(map(_data, _written(index, choice, judged, ids)))
            if written:
                sent += (self._open([index], choice.template or choice.finish_around), written)
        return b"".join(sent)


_Held = tuple[int, _HeldChoice, list[Call]]


def _proposals(held: list[_Held], redactor: Redactor) -> list[Proposal]:
    found = [call for _, _, calls in held for call in calls]
    for call in found:
        call.redact(redactor)
    return [call.proposal for call in found]


def _steps(piece: bytes) -> list[bytes]:
    return [piece[start : start + STEP_BYTES] for start in range(0, len(piece), STEP_BYTES)]


def _around(event: dict[str, Any]) -> dict[str, Any]:
    """What surrounds the choices of an event."""
    return {key: value for key, value in event.items() if key not in ("choices", "usage")}


def _apart(choices: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Choices by the event that they go into: LangChain and the AI SDK read one entry of each event."""
    if len({choice["index"] for choice in choices}) == len(choices):
        return [choices]
    return [[choice] for choice in choices]


def _is_usual(delta: dict[str, Any]) -> bool:
    """Whether every SDK reads a delta without a call."""
    content, role = delta.get("content"), delta.get("role")
    return (content is None or type(content) is str) and (role is None or type(role) is str)


def _is_content(value: Any) -> bool:
    """Whether SDKs read this as a delta's text, or as its parts."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(part, dict) for part in value)
    return value is None or isinstance(value, str)


def _brief(around: dict[str, Any]) -> dict[str, Any]:
    """What surrounds the choices when it is repeated: all of it, or its small members where it is large."""
    if len(dumps(around)) <= MAX_AROUND_BYTES:
        return around
    small = [(key, value) for key, value in around.items() if len(key) + len(dumps(value)) <= _SMALL_MEMBER_BYTES]
    return dict(small[:_SMALL_MEMBERS])


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
    chunks = []
    around = choice.template
    for delta in deltas:
        entry = {"index": index, "delta": delta, "finish_reason": None}
        chunks.append({**around, "object": _OBJECT, "choices": [entry]})
        if len(chunks) == 1 < len(deltas):
            around = _brief(around)
    if choice.finish is not None:
        last = choice.finish
        reason = finish_after(last["finish_reason"], tools, functions, bool(left_out))
        entry = {**last, "delta": role, "finish_reason": reason}
        chunks.append({**choice.finish_around, "object": _OBJECT, "choices": [entry]})
    return chunks


_COMMENT = b":\n\n"
_CUT_OFF = frozenset({"length", "content_filter"})  # what came later does not make such a choice whole
_OBJECT = "chat.completion.chunk"  # openai-python passes over chunks that are another object
_PLAIN_KEYS = frozenset({"index", "delta", "finish_reason"})


def _says_nothing(events: bytes) -> bool:
    """Whether events, as they are sent, hold only roles, or empty text."""
    if len(events) > MAX_PREFACE_BYTES:
        return False
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
