"""OpenAI chat completion answers that came whole: the tool calls that they propose, and what of them is released.

Source: https://platform.openai.com/docs/api-reference/chat/object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.doors.openai.calls import MAX_CALLS, TOO_MANY, CallIds, Calls
from gateway.doors.openai.events import unreadable_answer
from gateway.doors.openai.plain import (
    carries_calls,
    cleaned,
    dumps,
    finish_after,
    finish_reason,
    loads,
    suspicious,
    without_empty_calls,
    without_inexact,
)
from gateway.doors.openai.request import declared_parameters
from gateway.proposals import Proposal, Verdict


class _Choice(msgspec.Struct, gc=False):
    pass


class _Completion(msgspec.Struct):
    choices: list[_Choice] | None = None


_decode_completion = msgspec.json.Decoder(_Completion).decode


def proposals(body: bytes, request: bytes | None) -> tuple[bytes, list[Proposal]]:
    """A complete answer as it may be looked at further, and every tool call in it.

    Where the answer could be read in two ways, it is written again. Raises `upstream_failed` for one that can't be
    read; a single call that can't be read is a proposal without arguments.
    """
    try:
        if not body.isascii():
            body.decode()  # also in places that nobody here reads
        if not suspicious(body) and _is_completion(body):
            return body, []
        answer = without_inexact(cleaned(loads(body), "message"), body, "message")
        _settle(answer)  # first, as `release` reads what this leaves, and verdicts go by position
        found = [call.proposal for _, calls in _choices(answer) for call in calls.calls]
        body = dumps(answer)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise unreadable_answer() from error
    declared = declared_parameters(request) if found else {}
    return body, [one._replace(parameters=declared.get(one.name)) for one in found]


def _is_completion(body: bytes) -> bool:
    """False where it has to be written again: it holds NaN, or half of a character. Raises ValueError."""
    try:
        _decode_completion(body)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def release(body: bytes, verdicts: Sequence[Verdict]) -> bytes:
    """The answer as the agent may see it: each released call written again from its judged values, the others left out.

    `verdicts` come in the order of `proposals`.
    """
    answer = loads(body)
    remaining = iter(verdicts)
    ids = CallIds(answer.get("id"))
    for number, (choice, calls) in enumerate(_choices(answer)):
        judged = [(call, next(remaining)) for call in calls.calls]
        message = choice["message"]
        tools: list[dict[str, Any]] = []
        function: dict[str, Any] | None = None
        for place, (call, verdict) in enumerate(judged):
            if verdict.release and calls.is_legacy(call):
                function = call.function
            elif verdict.release:
                index = None if call.index is None else len(tools)
                tools.append(call.written(ids.of(call, number, place), index=index))
        message |= {"tool_calls": tools, "function_call": function}
        for key in ("tool_calls", "function_call"):
            if not message[key]:
                del message[key]
        left_out = "\n".join(verdict.text for _, verdict in judged if not verdict.release)
        if left_out:
            message["content"] = _with_text(message.get("content"), left_out)
        reason = finish_reason(choice)
        choice["finish_reason"] = finish_after(reason, len(tools), int(function is not None), bool(left_out))
    if next(remaining, None) is not None:  # a verdict on a call that is not here: the others may be on other calls
        raise unreadable_answer()
    return dumps(answer)


def _choices(answer: dict[str, Any]) -> list[tuple[dict[str, Any], Calls]]:
    """The choices whose messages carry calls."""
    found: list[tuple[dict[str, Any], Calls]] = []
    for choice in answer.get("choices") or ():
        message = choice.get("message")
        if isinstance(message, dict) and carries_calls(message):
            calls = Calls()
            calls.add_whole(message.get("tool_calls"), message.get("function_call"))
            found.append((choice, calls))
    if sum(len(calls) for _, calls in found) > MAX_CALLS:
        for _, calls in found:
            calls.give_up(TOO_MANY)
    return found


def _settle(answer: dict[str, Any]) -> None:
    """No choice announces calls that are not where calls belong, and none has empty ones."""
    for choice in answer.get("choices") or ():
        message = choice.get("message")
        if isinstance(message, dict):
            choice["message"] = message = without_empty_calls(message)
        if not isinstance(message, dict) or not carries_calls(message):
            reason = finish_reason(choice)
            if reason is not None:
                choice["finish_reason"] = finish_after(reason, 0, 0, False)


def _with_text(content: Any, text: str) -> Any:
    """A message's content with a sentence after it; a list keeps its parts."""
    if isinstance(content, list):
        return [*content, {"type": "text", "text": text}]
    return f"{content}\n{text}" if isinstance(content, str) and content else text
