"""A streamed chat completion on its way to the agent: text flows, tool calls wait until they were judged.

Events without a call pass as the data that they are. The parts of calls never pass: they are joined, and so is what
comes after a choice's finish reason, because clients join it too. At the end of the answer (`[DONE]`, the end of the
stream, or some silence after the last finish reason) all calls are judged, and each released one is written as one
delta. The finish chunk of a choice, and the usage, follow its calls.

Fails closed: an event that can't be read ends the stream with an error; a call that can't be read is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from gateway.actions import Usage
from gateway.aside import worked
from gateway.doors.openai.calls import MAX_CALLS, TOO_LARGE, TOO_MANY, Call, Calls, fallback_id
from gateway.doors.openai.events import EventReader, broke_off, data_of, too_long, unreadable_answer
from gateway.doors.openai.plain import (
    CALL_REASONS,
    carries_calls,
    cleaned,
    dumps,
    finish_after,
    finish_reason,
    loads,
    place_of,
    splits_lines,
    suspicious,
)
from gateway.proposals import Proposal, Verdict
from gateway.usage import usage_of

Judge = Callable[[list[Proposal]], Awaitable[list[Verdict]]]

MAX_HELD_BYTES = 4 * 1024 * 1024
MAX_PREFACE_BYTES = 64 * 1024
MAX_STREAM_BYTES = 256 * 1024 * 1024
MAX_EVENTS = 1_000_000
MAX_REST_BYTES = 64 * 1024
STEP_BYTES = 16 * 1024
"""How much of a stream is worked on before others run; it may hold thousands of events."""
PIECE_BYTES = 48  # what a piece costs beside its bytes
MAX_TEMPLATE_BYTES = 4096
"""What is around a call is repeated for each call of the choice; more than this only once."""
_SMALL_MEMBER_BYTES = 256
_SMALL_MEMBERS = 16
END_SILENCE_S = 5.0
"""After the last finish reason, this much silence is the end of an answer whose calls are held."""

_DONE = b"[DONE]"
_END = b"data: [DONE]\n\n"
_NULL = msgspec.Raw(b"null")


class _Choice(msgspec.Struct, gc=False):
    index: int | None = 0
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = _NULL
    error: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode = msgspec.json.decode


class _HeldChoice:
    """The calls of one choice, and what follows them."""

    __slots__ = ("calls", "finish", "role", "template")

    def __init__(self) -> None:
        self.calls = Calls()
        self.template: dict[str, Any] = {}  # of the chunks that carried the calls: what is around their choices
        self.role: str | None = None  # goes with the first delta that is sent
        self.finish: dict[str, Any] | None = None  # the finish chunk, for this choice alone


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
        self._unfinished: set[int] = set()  # choices that said something, and gave no finish reason
        self._finished: set[int] = set()  # choices that gave a finish reason
        self._usage_so_far: Usage | None = None
        self._over = False
        self._bytes = self._event_count = 0
        self._exhausted = False  # the provider's stream came to its end
        self.usage: Usage | None = None

    @property
    def holding(self) -> bool:
        """Whether the answer still arrives, and nothing of it can be sent now."""
        return not self._over and (bool(self._held) or self._preface is not None)

    async def run(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield what may be sent, as soon as it may. Others run in between, however much comes at once.

        Raises `upstream_failed`.
        """
        source = aiter(chunks)
        worked = 0  # on this many bytes since others could run
        while (piece := await self._next(source)) is not None:
            self._bytes += len(piece)
            if self._bytes > MAX_STREAM_BYTES:
                raise too_long(f"{MAX_STREAM_BYTES // 1024 // 1024} MiB")
            for step in (piece,) if len(piece) <= STEP_BYTES else _steps(piece):
                if events := self._events.feed(step):
                    out = await self._read(events)
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
        out = await self._read(self._events.rest()) if self._exhausted else b""
        if out := await self._end(out, self._ending):
            yield out

    async def _read_rest(self, source: AsyncIterator[bytes]) -> None:
        """Nothing counts after [DONE]; reading a little of it keeps the connection usable."""
        room = MAX_REST_BYTES
        while room > 0 and (piece := await self._next(source)) is not None:
            room -= len(piece) + 1

    async def _next(self, source: AsyncIterator[bytes]) -> bytes | None:
        """The next piece; None at the end of the stream, or after silence where the answer is complete."""
        if self._over or self._is_complete:
            try:
                async with asyncio.timeout(self._end_silence_s):
                    piece = await anext(source, None)
            except TimeoutError:
                return None
        else:
            piece = await anext(source, None)
        self._exhausted = piece is None
        return piece

    @property
    def _ending(self) -> bytes:
        """Whoever stopped listening for silence ends the stream; else it ends as the provider's did."""
        return b"" if self._exhausted and not self._over else _END

    @property
    def _is_complete(self) -> bool:
        """Whether calls are held, and every choice has given its finish reason."""
        return bool(self._held) and len(self._finished) >= self._choices and not self._unfinished

    # ------------------------------------------------------------ what flows

    async def _read(self, events: list[bytes]) -> bytes:
        self._event_count += len(events)
        if self._event_count > MAX_EVENTS:
            raise too_long(f"{MAX_EVENTS} events")
        out = b""
        for event in events:
            shown = await worked(len(event), self._event, event)
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
        if not shown or shown == _COMMENT:
            return b""
        if _says_nothing(shown) and len(self._preface) < MAX_PREFACE_BYTES:
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
                return self._take(cleaned(loads(data), "delta"), len(data))
            if b"\n" in data or splits_lines(data):
                data = dumps(loads(data))
            try:
                chunk = _decode_chunk(data)
            except msgspec.ValidationError:
                raise
            except (msgspec.DecodeError, UnicodeDecodeError):  # half of a surrogate pair, torn apart by a delta's end
                return self._take(loads(data), len(data))
            return self._pass(chunk, data)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise unreadable_answer() from error

    def _pass(self, chunk: _Chunk, data: bytes) -> bytes:
        """An event without a call: it is sent as it is, unless it finishes a choice whose calls are held."""
        if chunk.error is not None:
            raise broke_off()
        if chunk.usage != _NULL:
            self._usage_so_far = usage_of(chunk.usage)
            if not chunk.choices:
                return self._show_usage(b"data: " + data + b"\n\n")
        for choice in chunk.choices or ():
            if choice.finish_reason is not None and (self._held or not choice.finish_reason):
                return self._take(loads(data), 0)
            self._note(choice.index or 0, choice.finish_reason)
        return b"data: " + data + b"\n\n"

    def _show_usage(self, event: bytes) -> bytes:
        if not self._keep_usage:
            return b""
        if self._held:
            self._held_usage = event
            return b""
        return event

    def _note(self, index: int, finish: str | None) -> None:
        if finish is not None:
            self._finished.add(index)
            self._unfinished.discard(index)
        elif index not in self._finished:
            self._unfinished.add(index)

    # ------------------------------------------------------------ what is held

    def _take(self, event: dict[str, Any], size: int) -> bytes:
        """Split an event: its calls and the finish of a choice with calls are held, the rest of it flows."""
        if event.get("error") is not None:
            raise broke_off()
        choices = event.get("choices") or []
        if event.get("usage") is not None:
            self._usage_so_far = usage_of(msgspec.Raw(dumps(event["usage"])))
            if not choices:
                return self._show_usage(_data(event))
        flowing = [rest for raw in choices if (rest := self._hold(event, raw, size)) is not None]
        if len(flowing) < len(choices) and event.get("usage") is not None:
            self._show_usage(_data({**event, "choices": []}))
            event = {key: value for key, value in event.items() if key != "usage"}
        return _data({**event, "choices": flowing}) if flowing or not choices else b""

    def _hold(self, event: dict[str, Any], raw: dict[str, Any], size: int) -> dict[str, Any] | None:
        """Keep the calls of a choice and the finish that follows them; give what of it may flow, or None."""
        index, finish = place_of(raw), finish_reason(raw)
        delta = raw.get("delta")
        if "finish_reason" in raw:
            raw = {**raw, "finish_reason": finish}
        self._note(index, finish)
        held = self._held.get(index)
        if isinstance(delta, dict) and carries_calls(delta):
            held = self._held.setdefault(index, held or _HeldChoice())
            self._hold_calls(held, event, delta, size)
            delta = {key: value for key, value in delta.items() if key not in ("tool_calls", "function_call")}
        elif finish in CALL_REASONS:  # its calls may come after it
            held = self._held.setdefault(index, held or _HeldChoice())
        elif held is None or finish is None:
            return raw
        said = isinstance(delta, dict) and any(value not in (None, "") for key, value in delta.items() if key != "role")
        if finish is not None:
            last = {"finish_reason": finish} if said else raw
            held.finish = {**event, "choices": [{**last, "index": index, "delta": {}}]}
            held.finish.pop("usage", None)
        if said or (finish is None and any(raw[key] is not None for key in raw if key not in _PLAIN_KEYS)):
            return {**raw, "delta": delta, "finish_reason": None}
        if isinstance(delta, dict) and isinstance(delta.get("role"), str):
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
        self.usage = self._usage_so_far
        held = [(index, choice, choice.calls.calls) for index, choice in sorted(self._held.items())]
        released = b""
        if held:
            proposals = await worked(self._held_bytes, _proposals, held)
            verdicts = iter(await self._judge(proposals) if proposals else ())
            for index, choice, calls in held:
                judged = [(call, next(verdicts)) for call in calls]
                released += await worked(self._held_bytes, _released, index, choice, judged)
        preface, self._preface = self._preface or b"", None
        return preface + out + released + self._held_usage + ending


def _steps(piece: bytes) -> list[bytes]:
    return [piece[start : start + STEP_BYTES] for start in range(0, len(piece), STEP_BYTES)]


def _proposals(held: list[tuple[int, _HeldChoice, list[Call]]]) -> list[Proposal]:
    return [call.proposal for _, _, calls in held for call in calls]


def _released(index: int, choice: _HeldChoice, judged: list[tuple[Call, Verdict]]) -> bytes:
    return b"".join(map(_data, _written(index, choice, judged)))


def _brief(template: dict[str, Any]) -> dict[str, Any]:
    """What is around the second and each further call of a choice: all, or its small members where all is much."""
    if len(dumps(template)) <= MAX_TEMPLATE_BYTES:
        return template
    small = [(key, value) for key, value in template.items() if len(key) + len(dumps(value)) <= _SMALL_MEMBER_BYTES]
    return dict(small[:_SMALL_MEMBERS])


def _written(index: int, choice: _HeldChoice, judged: list[tuple[Call, Verdict]]) -> list[dict[str, Any]]:
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
            spare_id = fallback_id(choice.template.get("id"), index, number)
            deltas.append({"tool_calls": [call.written(index=tools, fallback_id=spare_id)]})
            tools += 1
    left_out = [verdict.text for _, verdict in judged if not verdict.release]
    if left_out:
        deltas.append({"content": "\n".join(left_out)})
    if deltas and choice.role is not None:
        deltas[0] = {"role": choice.role, **deltas[0]}
    around = [choice.template, *[_brief(choice.template)] * len(deltas)]
    chunks = [
        {**template, "choices": [{"index": index, "delta": delta, "finish_reason": None}]}
        for template, delta in zip(around, deltas, strict=False)
    ]
    if choice.finish is not None:
        last = choice.finish["choices"][0]
        last["finish_reason"] = finish_after(last["finish_reason"], tools, functions, bool(left_out))
        chunks.append(choice.finish)
    return chunks


_COMMENT = b":\n\n"
_PLAIN_KEYS = frozenset({"index", "delta", "finish_reason"})


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
        return False  # only the client understands it


def _data(event: dict[str, Any]) -> bytes:
    return b"data: " + dumps(event) + b"\n\n"
