"""The differential check: what each SDK would execute of a released answer is what was judged and released.

`faults` finds everything that is wrong with one answer. `alike` says what the SDKs agree on in the upstream's own
bytes, which the gateway must not lose.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tests.sdk_streams import released, values
from tests.sdk_streams.filtering import Filtered
from tests.sdk_streams.readers import CallRead, Reading
from tests.sdk_streams.released import FormError, Released
from tests.sdk_streams.upstream import Call, Upstream

_READABLE_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
_UNFINISHED = frozenset({"length", "content_filter"})
_RUN_AT = frozenset({"stop", "tool_calls", "function_call"})  # the finish reasons at which the AI SDK runs tools

# What these three read alike of an upstream's bytes is readable by decision, and must reach the agent.
CANON = ("openai-python", "openai-node", "ai-sdk openai")


class Reader(NamedTuple):
    """What an SDK can read at all; all of it is documented, or in its source."""

    kinds: frozenset[str]
    first_choice: bool = False  # it runs the calls of choice 0 only
    mixes_choices: bool = False  # it takes all choices for one
    fails_on_custom: bool = False
    refuses_unfinished: bool = False  # it raises where the answer was cut off
    fragments: bool = False  # it is told of each call that ends, which may be none
    rounds: bool = False  # it parses with JavaScript's numbers
    known_tools: bool = False  # it shows only calls of tools that it was given
    one_kind: bool = False  # it shows no tool_calls of a message that has a function_call


_FUNCTION, _LEGACY, _CUSTOM = frozenset({"function"}), frozenset({"legacy"}), frozenset({"custom"})
_ALL = _FUNCTION | _LEGACY | _CUSTOM
READERS: dict[str, Reader] = {
    "openai-python": Reader(_FUNCTION | _LEGACY, fails_on_custom=True, refuses_unfinished=True),
    "openai-python snapshot": Reader(_ALL),
    "openai-python events": Reader(_FUNCTION, fragments=True),
    "openai-python by hand": Reader(_ALL),
    "langchain": Reader(_FUNCTION | _LEGACY, mixes_choices=True, fails_on_custom=True),
    "openai-node": Reader(_ALL, one_kind=True),
    "openai-node events": Reader(_FUNCTION, fragments=True),
    "openai-node runTools": Reader(
        _FUNCTION, first_choice=True, refuses_unfinished=True, known_tools=True, one_kind=True
    ),
    "ai-sdk openai": Reader(_FUNCTION, mixes_choices=True, fails_on_custom=True, rounds=True),
    "ai-sdk compatible": Reader(_FUNCTION, mixes_choices=True, fails_on_custom=True, rounds=True),
}
PLAIN_READERS: dict[str, Reader] = {
    **{name: reader for name, reader in READERS.items() if "events" not in name and name.count(" ") < 2},
    "openai-python": Reader(_ALL),
    "langchain": Reader(_FUNCTION | _LEGACY, first_choice=True),
    "openai-node": Reader(_ALL),
    "openai-node runTools": Reader(_FUNCTION, first_choice=True, known_tools=True),
    "ai-sdk openai": Reader(_FUNCTION, first_choice=True, fails_on_custom=True, rounds=True),
    "ai-sdk compatible": Reader(_FUNCTION, first_choice=True, fails_on_custom=True, rounds=True),
}


class Fault(NamedTuple):
    """Something that is wrong. `who` is a reader, or `gateway`."""

    who: str
    what: str


def faults(
    upstream: Upstream,
    filtered: Filtered,
    readings: Mapping[str, Reading],
    upstream_readings: Callable[[], Mapping[str, Reading]],
) -> list[Fault]:
    """What is wrong. `upstream_readings` is asked for only where a reader failed."""
    if upstream.kind == "plain" and filtered.refused is not None:
        return [Fault("gateway", f"refused: {filtered.refused}")] if upstream.intended is not None else []
    try:
        sent = read_released(upstream, filtered)
    except FormError as error:
        return [Fault("gateway", f"form: {error}"), *_executed_unjudged(filtered, readings)]
    found = [Fault("gateway", what) for what in _gateway_faults(upstream, filtered, sent)]
    known = READERS if upstream.kind == "stream" else PLAIN_READERS
    for name, reading in readings.items():
        checked = _Check(upstream, filtered, sent, known[name], reading)
        found += [Fault(name, what) for what in checked.faults(lambda: upstream_readings()[name])]  # noqa: B023
    return found


def alike(readings: Mapping[str, Reading]) -> list[Hashable] | None:
    """The calls that the SDKs agree on, as values, if they do and none fails. None: they do not."""
    if any(readings[name].error is not None for name in CANON):
        return None
    rounded = [
        [(call.call_id, _read_key(call, rounded=True)) for call in _by_choice(readings[name].calls)] for name in CANON
    ]
    if not rounded[0] == rounded[1] == rounded[2]:
        return None
    return [_read_key(call) for call in _by_choice(readings[CANON[0]].calls)]


def readable(calls: Sequence[CallRead]) -> bool:
    """Whether the decisions allow to release these: names of the permitted letters, arguments without ambiguity."""
    return all(
        _READABLE_NAME.fullmatch(call.name or "") is not None and values.unambiguous(call.text or "") for call in calls
    )


def released_keys(upstream: Upstream, filtered: Filtered) -> list[Hashable]:
    """The calls in what the gateway sends, as `alike` gives them. Raises `FormError`."""
    return [(call.kind, call.name, _value(call)) for call in read_released(upstream, filtered).all_calls]


def read_released(upstream: Upstream, filtered: Filtered) -> Released:
    """What the gateway sends. Raises `FormError`."""
    if upstream.kind == "plain":
        return released.read_plain(filtered.data)
    return released.read_stream(filtered.data)


# ------------------------------------------------------------ the gateway


def _gateway_faults(upstream: Upstream, filtered: Filtered, sent: Released) -> Iterator[str]:
    calls = sent.all_calls
    judged = [_proposal_key(proposal.name, proposal.arguments) for proposal in filtered.released]
    told = [_proposal_key(call.name, _as_arguments(call)) for call in calls]
    if Counter(judged) != Counter(told) or (upstream.choices == 1 and judged != told):
        yield f"judged and released {_names(p.name for p in filtered.released)}, sent {_names(c.name for c in calls)}"
    allowed_text = " ".join(call.text for call in calls)
    for marker in upstream.markers:
        if marker.encode() in filtered.data and marker not in allowed_text:
            yield f"{marker} is sent, and stands in no released call"
    for choice, reason in sent.finish.items():
        if reason in ("tool_calls", "function_call") and not sent.calls.get(choice):
            yield f"choice {choice} ends with {reason} and has no call"
        if choice in upstream.cut_off and reason != "length":
            yield f"choice {choice} was cut off, and ends with {reason}"
    for verdict in filtered.left_out:
        if filtered.refused is None and verdict.text not in "".join(sent.text.values()):
            yield f"no sentence says that {verdict.proposal.name!r} was left out"
    if upstream.texts is not None and filtered.refused is None and not filtered.left_out:
        for choice, text in upstream.texts.items():
            if values.joined(sent.text.get(choice, "")) != values.joined(text):
                yield f"choice {choice} said {text!r}, and {sent.text.get(choice, '')!r} is sent"
    if upstream.intended is None:
        return
    if filtered.refused is not None:
        yield f"refused: {filtered.refused}"
        return
    keys = [
        Counter(_call_key(call, ids=upstream.well_formed) for call in found) for found in (calls, upstream.intended)
    ]
    if filtered.all_allowed and keys[0] != keys[1]:
        yield f"intended {_names(c.name for c in upstream.intended)}, released {_names(c.name for c in calls)}"


def _executed_unjudged(filtered: Filtered, readings: Mapping[str, Reading]) -> Iterator[Fault]:
    """Where the form is wrong already: calls that an SDK reads by a name that no released one has."""
    names = {proposal.name for proposal in filtered.released}
    for name, reading in readings.items():
        for call in reading.calls:
            if call.name not in names:
                yield Fault(name, f"would execute {call.name!r}, which was not released")


def _as_arguments(call: Call) -> Hashable:
    return values.canonical({"input": call.text}) if call.kind == "custom" else values.of_text(call.text)


def _proposal_key(name: str, arguments: object) -> Hashable:
    return (name, arguments if isinstance(arguments, tuple) else values.canonical(arguments))


def _value(call: Call) -> Hashable:
    return values.canonical(call.text) if call.kind == "custom" else values.of_text(call.text)


def _call_key(call: Call, *, ids: bool) -> Hashable:
    return (call.kind, call.name, _value(call), ids and call.call_id, values.canonical(dict(call.members)))


def _read_key(call: CallRead, *, rounded: bool = False) -> Hashable:
    text = (call.text if call.text is not None else call.value) or ""
    value = values.canonical(text) if call.kind == "custom" else values.of_text(text, rounded=rounded)
    return (call.kind, call.name, value)


def _by_choice(calls: Iterable[CallRead]) -> list[CallRead]:
    return sorted(calls, key=lambda call: call.choice or 0)


def _names(names: Iterable[str | None]) -> str:
    return "[" + ", ".join(map(str, names)) + "]"


# ------------------------------------------------------------ one reader


class _Check:
    """One reader's reading of what was sent."""

    def __init__(
        self, upstream: Upstream, filtered: Filtered, sent: Released, reader: Reader, reading: Reading
    ) -> None:
        self._upstream = upstream
        self._filtered = filtered
        self._sent = sent
        self._reader = reader
        self._reading = reading
        self._expected = [
            call
            for choice, calls in sorted(sent.calls.items())
            for call in (_shown(calls) if reader.one_kind else calls)
            if call.kind in reader.kinds
            and (choice == 0 or not reader.first_choice)
            and (call.name in upstream.tools or not reader.known_tools)
        ]

    def faults(self, upstream_reading: Callable[[], Reading]) -> Iterator[str]:
        reading = self._reading
        yield from self._too_many()
        if self._ran - self._read:
            yield f"ran {_names(call.name for call in reading.executed or ())}, which it did not read"
        if self._filtered.refused is not None and reading.error is not None:
            if reading.calls and not self._reader.fragments:
                yield f"the answer ended with an error, after {_names(call.name for call in reading.calls)}"
            return
        if reading.error is not None:
            if not self._may_fail() and upstream_reading().error is None:
                yield f"fails: {reading.error}"
            return
        yield from self._too_few()
        yield from self._unlike_read()
        yield from self._other_text()

    def _may_fail(self) -> bool:
        kinds = {call.kind for call in self._sent.all_calls}
        unfinished = _UNFINISHED & set(self._sent.finish.values())
        return (
            (self._reader.fails_on_custom and "custom" in kinds)
            or (self._reader.refuses_unfinished and bool(unfinished))
            or not self._sent.finish  # some SDKs take an answer without a finish reason for one that broke off
        )

    def _too_many(self) -> Iterator[str]:
        """Calls that it reads, and that were not released like this."""
        left = list(self._expected)
        for call in self._reading.calls:
            if call.kind == "legacy" and self._reader.mixes_choices and self._upstream.choices > 1:
                continue  # LangChain joins the function_calls of all choices
            same = next((one for one in left if self._is(call, one)), None)
            if same is None:
                yield f"would execute {call.name!r} with {call.text or call.value!r}, which was not released"
            else:
                left.remove(same)

    def _too_few(self) -> Iterator[str]:
        if self._reader.fragments or (self._reader.mixes_choices and self._upstream.choices > 1):
            return
        read, expected = len(self._reading.calls), len(self._expected)
        if read < expected:
            yield f"reads {read} of {expected} released calls"
        elif self._upstream.choices == 1 and read == expected:
            pairs = zip(self._reading.calls, self._expected, strict=True)
            if not all(self._is(call, one) for call, one in pairs):
                yield "reads the calls in another order"

    @property
    def _ran(self) -> Counter[Hashable]:
        return Counter((call.name, values.of_text(call.value or "null")) for call in self._reading.executed or ())

    @property
    def _read(self) -> Counter[Hashable]:
        return Counter((call.name, values.of_text(call.value or "null")) for call in self._reading.calls)

    def _other_text(self) -> Iterator[str]:
        """The text that it shows is the one that was sent."""
        if (
            self._upstream.choices == 1
            and not self._sent.misplaced
            and not self._reader.first_choice
            and not self._reader.fragments
        ):
            shown, sent = values.joined(self._reading.text), values.joined(self._sent.text.get(0, ""))
            if shown != sent:
                yield f"shows {shown!r}, and {sent!r} was sent"

    def _unlike_read(self) -> Iterator[str]:
        """The AI SDK runs the calls that it reads, at the finish reasons at which it runs any."""
        if self._reading.executed is None:
            return
        if self._ran != (self._read if self._reading.finish.get("0") in _RUN_AT else Counter()):
            yield f"reads {_names(call.name for call in self._reading.calls)}, and ran {_names(call.name for call in self._reading.executed)}"

    def _is(self, read: CallRead, sent: Call) -> bool:
        """Whether a call as it was read is the one that was sent: text first, then values."""
        if (read.kind, read.name) != (sent.kind, sent.name):
            return False
        if read.text is not None and values.joined(read.text) != values.joined(sent.text):
            return False
        if read.value is not None and sent.kind != "custom":
            rounds = self._reader.rounds
            if values.of_text(read.value, rounded=rounds) != values.of_text(sent.text, rounded=rounds):
                return False
        ids = [call.call_id for call in self._sent.all_calls]
        if read.call_id is not None and sent.call_id and ids.count(sent.call_id) == 1 and read.call_id != sent.call_id:
            return False
        return read.signature is None or read.signature == _signature(sent)


def _shown(calls: Sequence[Call]) -> Sequence[Call]:
    return [call for call in calls if call.kind == "legacy"] or calls


def _signature(call: Call) -> object:
    extra = call.members.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    return google.get("thought_signature") if isinstance(google, dict) else None
