"""OpenAI chat completion answers that came whole: the tool calls that they propose, and what of them is released.

Source: https://platform.openai.com/docs/api-reference/chat/object.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.doors.openai.plain import cleaned, dumps, loads, suspicious
from gateway.doors.openai.request import declared_parameters
from gateway.errors import Refusal
from gateway.proposals import Proposal, Verdict, read_arguments


class FunctionCall(msgspec.Struct):
    name: str = ""
    arguments: str = ""


class CustomCall(msgspec.Struct):
    name: str = ""
    input: str = ""


class _ToolCall(msgspec.Struct):
    id: str = ""
    type: str | None = None
    function: FunctionCall | None = None
    custom: CustomCall | None = None


class _Message(msgspec.Struct):
    tool_calls: list[_ToolCall] | None = None
    function_call: FunctionCall | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice] | None = None


_decode_completion = msgspec.json.Decoder(_Completion).decode
MAX_PROPOSALS = 256  # in one answer; one that proposes more is not an answer anybody could act on


def proposals(body: bytes, request: bytes | None) -> tuple[bytes, list[Proposal]]:
    """A complete answer as it may be looked at further, and every tool call in it.

    Where the answer could be read in two ways, it is written anew. Raises `upstream_failed` for one that can't be read.
    """
    try:
        if suspicious(body):
            body = dumps(cleaned(loads(body), "message"))
        completion = _read(body)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise unreadable_answer() from error
    found: list[Proposal] = []
    for choice in completion.choices or ():
        message = choice.message
        if message is None or not (message.tool_calls or message.function_call):
            continue
        found.extend(proposal_of(call.id, call.function, call.custom, call.type) for call in message.tool_calls or ())
        if message.function_call is not None:
            found.append(proposal_of("", message.function_call, None))
    if not found:
        return body, []
    if len(found) > MAX_PROPOSALS:
        raise unreadable_answer()
    declared = declared_parameters(request)
    return body, [one._replace(parameters=declared.get(one.name)) for one in found]


def _read(body: bytes) -> _Completion:
    try:
        return _decode_completion(body)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.convert(loads(body), _Completion)


def proposal_of(
    call_id: str, function: FunctionCall | None, custom: CustomCall | None, kind: str | None = None
) -> Proposal:
    """A proposal from the parts of a tool call; a custom tool's input is its one argument `input`.

    A call that is both, or not what its `type` says, can be read in two ways: it is unreadable.
    """
    if function is not None and custom is None and kind in (None, "function"):
        return Proposal(call_id, function.name, read_arguments(function.arguments))
    if custom is not None and function is None and kind in (None, "custom"):
        return Proposal(call_id, custom.name, {"input": custom.input})
    name = function.name if function is not None else custom.name if custom is not None else ""
    return Proposal(call_id, name, None)


def release(body: bytes, verdicts: Sequence[Verdict]) -> bytes:
    """The answer as the agent may see it: written anew, without the calls that were not released.

    `verdicts` stand in the order of `proposals`. A choice that loses all its calls ends with `stop`.
    """
    answer = loads(body)
    remaining = iter(verdicts)
    for choice in answer["choices"]:
        message = choice.get("message")
        if not isinstance(message, dict):
            continue
        refused: list[Verdict] = []
        calls = message.get("tool_calls")
        kept = []
        for call in calls or ():
            verdict = next(remaining)
            if verdict.release:
                kept.append(call)
            else:
                refused.append(verdict)
        if message.get("function_call") is not None:
            verdict = next(remaining)
            if not verdict.release:
                refused.append(verdict)
                del message["function_call"]
        if not refused:
            continue
        if kept:
            message["tool_calls"] = kept
        else:
            message.pop("tool_calls", None)
        texts = [message["content"]] if isinstance(message.get("content"), str) and message["content"] else []
        message["content"] = "\n".join([*texts, *(verdict.text for verdict in refused)])
        if not kept and "function_call" not in message:
            choice["finish_reason"] = "stop"
    return dumps(answer)


def unreadable_answer() -> Refusal:
    return Refusal(
        "upstream_failed",
        "The model provider's answer is not a chat completion, so it can't be inspected and is withheld; "
        "check the provider's base URL and model.",
    )
