"""The `usage` object of OpenAI-compatible answers, believed only where it can be true.

OpenAI counts cached tokens inside `prompt_tokens` and reasoning tokens inside `completion_tokens`, as `Usage` does. An
object that says just that is read here; one that says more, or does not add up, is read closely by `usage_details`.
A count that is missing, negative or absurd makes the whole object none: then the upper bound that was reserved counts.
Source: https://platform.openai.com/docs/api-reference/chat/object (usage).
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from gateway.actions import Usage
from gateway.pricing import PLAIN_TIERS, UsageDetails
from gateway.protocols.json_size import has_too_many_containers
from gateway.usage_details import MAX_COUNT, read_closely

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
_NULL = msgspec.Raw(b"null")
_OPENING_EVENTS = 3  # kept of a stream, in case its usage says less than they do


class _InputDetails(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    cached_tokens: Count | None = None
    audio_tokens: Count | None = None


class _OutputDetails(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    reasoning_tokens: Count | None = None
    audio_tokens: Count | None = None
    accepted_prediction_tokens: Count | None = None
    rejected_prediction_tokens: Count | None = None


class _PlainUsage(msgspec.Struct, forbid_unknown_fields=True):
    """What most answers say."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None

    def usage(self) -> Usage | None:
        """None where there is more in it than plain tokens, or where it does not add up."""
        given, made, total = self.prompt_tokens, self.completion_tokens, self.total_tokens
        if not given or (total is not None and total != given + made):
            return None
        cached = reasoning = 0
        if (inputs := self.prompt_tokens_details) is not None:
            cached = inputs.cached_tokens or 0
            if cached > given or inputs.audio_tokens:
                return None
        if (outputs := self.completion_tokens_details) is not None:
            reasoning = outputs.reasoning_tokens or 0
            predicted = (outputs.accepted_prediction_tokens or 0) + (outputs.rejected_prediction_tokens or 0)
            if outputs.audio_tokens or reasoning + predicted > made or (reasoning and total is None):
                return None
        return Usage(input_tokens=given, output_tokens=made, cached_input_tokens=cached, reasoning_tokens=reasoning)


class _Answer(msgspec.Struct, gc=False):
    usage: msgspec.Raw = _NULL
    service_tier: msgspec.Raw = _NULL
    cost: msgspec.Raw = _NULL  # some gateways put what they charge beside the usage
    choices: msgspec.Raw = _NULL


class _Told(msgspec.Struct, gc=False):
    delta: dict[str, Any] | None = None
    message: dict[str, Any] | None = None


_decode_plain = msgspec.json.Decoder(_PlainUsage).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_choices = msgspec.json.Decoder(list[_Told]).decode
_decode = msgspec.json.decode


def usage_of_answer(data: bytes) -> Usage | None:
    """What a complete answer, or one event of a stream, says of its usage; None if nothing that can be believed.

    Raises msgspec.DecodeError for what is not a JSON object, RecursionError for one nested too deeply.
    """
    answer = _decode_answer(data)
    usage = usage_of(answer.usage, _tier(answer.service_tier), answer.cost)
    if usage is not None and not usage.output_tokens and _says_something(answer.choices):
        return msgspec.structs.replace(usage, details=_doubted(usage))
    return usage


def usage_of(raw: msgspec.Raw, tier: str = "", cost: msgspec.Raw = _NULL) -> Usage | None:
    """A `usage` object as it came; None if it is null or can't be believed. `tier` is the service tier and `cost` the
    price that the answer names beside it."""
    usage = None
    if cost == _NULL and not tier:
        try:
            usage = _decode_plain(raw).usage()
        except msgspec.ValidationError:
            pass
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
    return usage if usage is not None or raw == _NULL else read_closely(bytes(raw), tier, bytes(cost))


class StreamUsage:
    """What a stream says of its usage, event by event; an event without usage is needed only while it `is_waiting`.

    The last word counts if nothing was said after it and nothing before it was higher; else the numbers are doubtful,
    and no less than what was reserved is booked.
    """

    def __init__(self) -> None:
        self._opening: list[bytes] = []
        self._last: Usage | None = None
        self._has_usage = False
        self._is_doubtful = False
        self._is_stale = False  # the answer went on after the last word
        self.is_waiting = True
        """Whether an event without usage may matter: at the beginning, and after a usage."""

    def add(self, data: bytes, usage: msgspec.Raw) -> None:
        """Take in the data of one event; `usage` is its member of that name, null where it has none."""
        if usage == _NULL:
            if self._has_usage:
                self._is_stale = self._is_stale or _goes_on(data)
            elif len(self._opening) < _OPENING_EVENTS:
                self._opening.append(data)
                self.is_waiting = len(self._opening) < _OPENING_EVENTS
            return
        self.is_waiting = True
        try:
            told = usage_of_answer(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            told = usage_of(usage)
        before, self._last = self._last, told
        self._has_usage, self._is_stale = True, False
        if before is not None:
            self._compare(before, told)

    def _compare(self, before: Usage, told: Usage | None) -> None:
        """What goes down between two events contradicts itself: keep the higher."""
        if told is None:
            self._last, self._is_doubtful = before, True
        elif _goes_down(before, told):
            self._is_doubtful = True
            self._last = msgspec.structs.replace(
                told,
                input_tokens=max(before.input_tokens, told.input_tokens),
                output_tokens=max(before.output_tokens, told.output_tokens),
                cached_input_tokens=min(before.cached_input_tokens, told.cached_input_tokens),
                details=_dearer(before.details, told.details),
            )

    def total(self) -> Usage | None:
        """The usage of the whole stream, asked for once it is over; None if it said nothing that can be believed."""
        usage = self._last
        if usage is None:
            return None
        details = usage.details
        if details is None or not details.tier:
            tier = next((tier for tier in map(_tier_of, self._opening) if tier), "")
            if tier:
                details = msgspec.structs.replace(details or UsageDetails(), tier=tier)
        says_nothing = not usage.output_tokens and any(map(_goes_on, self._opening))
        if self._is_doubtful or self._is_stale or says_nothing:
            details = msgspec.structs.replace(details or UsageDetails(), is_doubtful=True)
        return usage if details is usage.details else msgspec.structs.replace(usage, details=details)


def _doubted(usage: Usage) -> UsageDetails:
    return msgspec.structs.replace(usage.details or UsageDetails(), is_doubtful=True)


def _goes_down(before: Usage, told: Usage) -> bool:
    if told.input_tokens < before.input_tokens or told.output_tokens < before.output_tokens:
        return True
    if before.details is None:
        return False
    after = told.details or UsageDetails()
    return any(getattr(after, name) < getattr(before.details, name) for name in _COUNTED)


def _dearer(before: UsageDetails | None, told: UsageDetails | None) -> UsageDetails | None:
    if before is None or told is None:
        return told or before
    return msgspec.structs.replace(told, **{name: max(getattr(before, name), getattr(told, name)) for name in _COUNTED})


_COUNTED = tuple(name for name in UsageDetails.__struct_fields__ if name not in ("tier", "is_doubtful"))


def _tier(raw: msgspec.Raw) -> str:
    """The service tier that an answer names, '' for a plain one."""
    if raw == _NULL:
        return ""
    value = _decode(raw)
    name = value.strip().lower() if isinstance(value, str) else f"({type(value).__name__})"
    return "" if name in PLAIN_TIERS else name[:64]


def _tier_of(data: bytes) -> str:
    try:
        return _tier(_decode_answer(data).service_tier)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def _goes_on(data: bytes) -> bool:
    try:
        return _says_something(_decode_answer(data).choices)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True


def _says_something(choices: msgspec.Raw) -> bool:
    """Whether choices hold any part of an answer: text, reasoning, calls, sound."""
    if choices == _NULL:
        return False
    if has_too_many_containers(bytes(choices)):
        return True
    try:
        told = _decode_choices(choices)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True
    return any(
        value and name != "role" for choice in told for name, value in (choice.delta or choice.message or {}).items()
    )
