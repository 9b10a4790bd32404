"""Takes the gateway's secrets out of a streamed answer, whose texts arrive in pieces.

A client joins the pieces of each text of a delta (content, reasoning, refusal and others), so a provider could repeat
its key a few characters at a time. The end of a piece that may begin a secret is held until the next piece of the same
text, or the end of the answer. Calls are no concern of this module: the door holds them until they are complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from gateway.doors.openai.events import EventReader, data_of
from gateway.doors.openai.plain import CALL_KEYS, dumps, loads
from gateway.redaction import HeldText, Redactor

_NO_TEXT: Final = frozenset(
    {
        *("role", "type", "id", "name", "index", "format", "object", "status", "mime_type"),
        *("data", "signature", "encrypted_content"),  # no text, and each piece may be decoded by itself
        *CALL_KEYS,
    }
)
"""Members of a delta whose text goes on in no further piece, or not as text; calls are joined by the door."""
_DEEPEST: Final = 8
_INNER: Final = (("function", "arguments"), ("custom", "input"))
_DONE = b"[DONE]"

Place = tuple[int, tuple[str | int, ...]]
"""A text of an answer: its choice, and the members that lead to it."""


class Choice(Protocol):
    """What is read of each choice of an event."""

    @property
    def index(self) -> int | None: ...
    @property
    def delta(self) -> Any: ...
    @property
    def logprobs(self) -> Any: ...


_encode = msgspec.json.encode


class _Frame(NamedTuple):
    """What is around the text `key` of an event, of which is known that it holds no secret."""

    key: str
    before: bytes
    after: bytes
    least: int  # bytes of an event with no text in it
    most: int  # from here on, the text may hold a secret


class DeltaTexts:
    """The texts of one streamed answer."""

    __slots__ = ("_around", "_frame", "_logprobs", "_redactor", "_texts", "_tries", "changed")

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._texts: dict[Place, HeldText] = {}  # those that hold something
        self._around: dict[Place, tuple[bytes | dict[str, Any], dict[str, Any]]] = {}
        """The event that each came in, and what says of which kind the text is."""
        self._logprobs: dict[int, list[dict[str, Any]]] = {}  # of pieces that are held: they repeat the text
        self._frame: _Frame | None = None
        self._tries = 8  # so often is another frame taken; some providers have something new in each event
        self.changed = False  # whether any event was other than it came

    def plain(self, choices: Sequence[Choice], data: bytes) -> bytes:
        """An event as it may be sent now; `choices` were read from `data`, which in most cases is what is given."""
        redactor = self._redactor
        text = self._framed(choices, data)
        if text is not None:
            may_hold = False
            if not self._texts and not redactor.may_begin(text):
                return data
            frame, choice = self._frame, choices[0]
            if frame is not None and not self._logprobs:
                quick = self._continued((choice.index or 0, (frame.key,)), text, data, frame.before, frame.after)
                return self._rewritten(data) if quick is None else quick
        else:
            may_hold = redactor.may_hold(data)
            if not self._texts and not may_hold and not any(_ends_in(redactor, one.delta) for one in choices):
                self._take_frame(choices, data)
                return data
        quick = self._quick(choices[0], data) if len(choices) == 1 and not may_hold else None
        return self._rewritten(data) if quick is None else quick

    def _framed(self, choices: Sequence[Choice], data: bytes) -> str | None:
        """The text of an event that differs from an earlier one in nothing else and is too short to hold a secret.

        Almost all are such, so this decides what redaction costs.
        """
        frame = self._frame
        if frame is None or not frame.least <= len(data) < frame.most:
            return None
        if not data.startswith(frame.before) or not data.endswith(frame.after):
            return None
        text = choices[0].delta.get(frame.key)
        return text if type(text) is str else None

    def _take_frame(self, choices: Sequence[Choice], data: bytes) -> None:
        """Take what is around the only text of an event without a secret for the frame of the next."""
        if (
            self._tries == 0
            or len(choices) != 1
            or type(choices[0].delta) is not dict
            or choices[0].logprobs is not None
        ):
            return
        texts = [key for key, text in choices[0].delta.items() if text and key not in _NO_TEXT]
        if len(texts) == 1:
            self._tries -= 1
            start = _start_of(texts[0], data)
            text = _encode(choices[0].delta[texts[0]])
            end = start + len(text)
            if data.startswith(text, start):
                least = len(data) - (end - start)
                self._frame = _Frame(texts[0], data[:start], data[end:], least, least + self._redactor.least_bytes)

    def event(self, event: dict[str, Any], data: bytes) -> dict[str, Any]:
        """As `plain`, for an event that was read from `data`."""
        self.changed |= self._cleaned(event)
        if not self._redactor.may_hold(data):
            return event
        clean: dict[str, Any] = self._redactor.redact_value(event)
        self.changed = self.changed or clean != event
        return clean

    def _rewritten(self, data: bytes) -> bytes:
        event = loads(data)
        if isinstance(event, dict) and self._cleaned(event):
            self.changed = True
            data = dumps(event)
        clean = self._redactor.redact_json(data)
        self.changed = self.changed or clean is not data
        return clean

    def _quick(self, choice: Choice, data: bytes) -> bytes | None:
        """An event of which one text ends otherwise, without reading and writing all of it; None where it takes that.

        Its text is found by its name, which therefore may be there only once, and in no other spelling.
        """
        index, delta = choice.index or 0, choice.delta
        if type(delta) is not dict or choice.logprobs is not None or index in self._logprobs or b"\\u" in data:
            return None
        texts = [(key, text) for key, text in delta.items() if text and key not in _NO_TEXT]
        if len(texts) != 1:
            return None
        ((key, piece),) = texts
        if type(piece) is not str:
            return None
        start, old = _start_of(key, data), _encode(piece)
        if not data.startswith(old, start):
            return None
        return self._continued((index, (key,)), piece, data, data[:start], data[start + len(old) :])

    def _continued(self, place: Place, piece: str, data: bytes, before: bytes, after: bytes) -> bytes | None:
        """The event `data`, which has `piece` between `before` and `after`; None where that completes a secret."""
        text = self._texts.get(place)
        joined = piece if text is None else text.held + piece
        shown, held = self._redactor.split(joined)
        if shown + held != joined:
            return None
        text = text or HeldText(self._redactor)
        text.held = held
        self._keep(place, text, data, {})
        if shown == piece:
            return data
        self.changed = True
        return before + _encode(shown) + after

    def _keep(self, place: Place, text: HeldText, event: bytes | dict[str, Any], kind: dict[str, Any]) -> None:
        if text.held:
            self._texts[place] = text
            self._around[place] = event, kind
        else:
            self._texts.pop(place, None)

    def rest(self) -> Iterator[dict[str, Any]]:
        """Events with what is still held, once the answer is over."""
        for place, text in self._texts.items():
            index, path = place
            rest = text.end()
            event, kind = self._around[place]
            event = loads(event) if isinstance(event, bytes) else event
            around = {key: value for key, value in event.items() if key not in ("choices", "usage")}
            choice: dict[str, Any] = {"index": index, "delta": _at(path, rest, kind), "finish_reason": None}
            logprobs = self._logprobs.pop(index, None)
            if logprobs and rest == self._redactor.redact(rest):
                choice["logprobs"] = _merged(logprobs)
            yield self._redactor.redact_value({**around, "choices": [choice]})
        self._texts.clear()

    def _cleaned(self, event: dict[str, Any]) -> bool:
        """Feed all texts of an event, which is changed in place; whether it was."""
        choices = event.get("choices")
        changed = False
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and isinstance(choice.get("delta"), dict):
                index = choice.get("index")
                index = index if type(index) is int else 0
                changed |= self._feed(event, choice, index)
        return changed

    def _feed(self, event: dict[str, Any], choice: dict[str, Any], index: int) -> bool:
        changed = found = False
        for holder, key, path in _texts(choice["delta"], ()):
            place = (index, path)
            text = self._texts.get(place) or HeldText(self._redactor)
            joined = text.held + holder[key]
            shown = text.feed(holder[key])
            found |= shown + text.held != joined
            changed |= shown != holder[key]
            holder[key] = shown
            kind = {key: holder[key] for key in holder if key in _NO_TEXT} if len(path) > 1 else {}
            self._keep(place, text, event, kind)
        return self._hold_logprobs(choice, index, found) or changed

    def _hold_logprobs(self, choice: dict[str, Any], index: int, found: bool) -> bool:
        """Tokens go with their text: held with it, and left out with a secret."""
        given = choice.get("logprobs")
        given = given if isinstance(given, dict) else None
        if found:
            self._logprobs.pop(index, None)
        elif any(place[0] == index for place in self._texts):
            if given is not None:
                self._logprobs.setdefault(index, []).append(given)
        elif index in self._logprobs:
            choice["logprobs"] = _merged([*self._logprobs.pop(index), *([given] if given else ())])
            return True
        else:
            return False
        if given is None:
            return False
        choice["logprobs"] = None
        return True


def without_secrets(redactor: Redactor, stream: bytes) -> bytes:
    """A whole stream as it may be kept: `stream` itself where it holds no secret, else its data without them."""
    if not redactor.texts:
        return stream
    reader, texts = EventReader(), DeltaTexts(redactor)
    found = [data for event in [*reader.feed(stream), *reader.rest()] if (data := data_of(event)) is not None]
    events = [dumps(texts.event(loads(data), data)) for data in found if data != _DONE]
    events += map(dumps, texts.rest())
    if not _join_arguments(redactor, events) and not texts.changed:
        return stream
    ending = [_DONE] if _DONE in found else []
    return b"".join(b"data: " + data + b"\n\n" for data in (*events, *ending))


def _start_of(key: str, data: bytes) -> int:
    """Where the value of the member `key` begins that is only once in an event; the length of `data` if it is not."""
    name = _encode(key)
    start = data.find(name) + len(name)
    if data.count(name) != 1 or not data.startswith(b":", start):
        return len(data)
    return start + (2 if data.startswith(b": ", start) else 1)


def _ends_in(redactor: Redactor, delta: Any) -> bool:
    """Whether a text of a delta ends in what may be the beginning of a secret, or may for all that is seen here."""
    if type(delta) is not dict:
        return False
    for key, value in delta.items():
        if value and key not in _NO_TEXT:
            if type(value) is not str:
                return True
            if redactor.may_begin(value) and redactor.tail(value) < len(value):
                return True
    return False


def _join_arguments(redactor: Redactor, events: list[bytes]) -> bool:
    """Redact the arguments of each call as one text, which then is in its first piece; whether any changed."""
    pieces: dict[tuple[int, Any, str], list[tuple[int, dict[str, Any]]]] = {}
    read: dict[int, dict[str, Any]] = {}
    last: dict[int, Any] = {}
    for number, data in enumerate(events):
        if b"arguments" not in data and b"input" not in data:
            continue
        read[number] = event = loads(data)
        for choice, delta in _deltas(event):
            calls = delta.get("tool_calls")
            for call in calls if isinstance(calls, list) else ():
                if isinstance(call, dict):
                    own = call.get("index", call.get("id"))
                    last[choice] = own if isinstance(own, int | str) else last.get(choice)
                    _add_pieces(pieces, (choice, last[choice]), number, call)
            _add_pieces(pieces, (choice, "function_call"), number, {"function": delta.get("function_call")})
    changed: set[int] = set()
    for (_, _, text), parts in pieces.items():
        joined = "".join(inner[text] for _, inner in parts)
        clean = redactor.redact(joined)
        if clean != joined:
            for number, inner in parts:
                inner[text], clean = clean, ""
                changed.add(number)
    for number in changed:
        events[number] = dumps(read[number])
    return bool(changed)


def _add_pieces(
    pieces: dict[tuple[int, Any, str], list[tuple[int, dict[str, Any]]]],
    key: tuple[int, Any],
    number: int,
    call: dict[str, Any],
) -> None:
    for member, text in _INNER:
        inner = call.get(member)
        if isinstance(inner, dict) and isinstance(inner.get(text), str):
            pieces.setdefault((*key, text), []).append((number, inner))


def _deltas(event: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    choices = event.get("choices") if isinstance(event, dict) else None
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            index = choice.get("index")
            for member in ("delta", "message"):
                if isinstance(choice.get(member), dict):
                    yield index if type(index) is int else 0, choice[member]


def _texts(
    value: dict[str, Any] | list[Any], path: tuple[str | int, ...]
) -> Iterator[tuple[Any, Any, tuple[str | int, ...]]]:
    """The texts in a delta: what holds each, under which key, and the members that lead to it."""
    for key, inner in list(value.items()) if isinstance(value, dict) else list(enumerate(value)):
        if key in _NO_TEXT:
            continue
        step = key
        if isinstance(inner, dict) and isinstance(value, list) and type(inner.get("index")) is int:
            step = inner["index"]
        if isinstance(inner, str):
            if isinstance(value, dict) or inner:
                yield value, key, (*path, step)
        elif isinstance(inner, dict | list) and len(path) < _DEEPEST:
            yield from _texts(inner, (*path, step))


def _at(path: tuple[str | int, ...], text: str, kind: dict[str, Any]) -> Any:
    """A delta that has `text` where `path` leads, with what says of which kind it is beside it."""
    value: Any = text
    for step in reversed(path):
        value = {**kind, step: value} if isinstance(step, str) else [value]
        kind = {}
    return value


def _merged(logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for one in logprobs:
        for key, tokens in one.items():
            before = merged.get(key)
            merged[key] = [*before, *tokens] if isinstance(before, list) and isinstance(tokens, list) else tokens
    return merged
