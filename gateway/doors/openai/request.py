"""OpenAI chat completion requests: read, and written for the provider.

Bodies are split at the top level only; nested values stay the bytes they were, so unknown fields survive. Where a
nested value is read (messages, tools, stream_options), it is written anew unless it says each thing once, so that what
was decided on is what is forwarded, whatever duplicate keys or escapes the original had. What the gateway controls
(`model`, `stream`, `n`, the cap on the output) is written last, from the values that were decided on.

Source: https://platform.openai.com/docs/api-reference/chat (create).
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import msgspec

from gateway.actions import Action, DeclaredTool, ModelTarget
from gateway.doors.openai.fields import Fields, check_fields, wrong
from gateway.doors.openai.tools import declared_tool, read_tools
from gateway.doors.openai.usual_request import read_usual
from gateway.errors import Refusal

_decode_fields = msgspec.json.Decoder(Fields).decode
_decode = msgspec.json.decode
_encode = msgspec.json.encode
_TRUE, _FALSE = msgspec.Raw(b"true"), msgspec.Raw(b"false")
_CAPS = ("max_tokens", "max_completion_tokens")
_NUMBERS = (*_CAPS, "n")
# By these, routers such as OpenRouter answer with another model than `model`.
_OTHER_MODELS = frozenset({"models", "fallback_models", "fallbacks", "preset"})


class ChatRequest(NamedTuple):
    """A chat completion request as far as the gateway reads it; `body` is rebuilt from what was parsed."""

    model: str
    stream: bool
    arguments: dict[str, Any]  # what policy and limits read
    identity: dict[str, Any]  # what makes two requests the same action
    body: bytes


def parse_request(raw: bytes) -> ChatRequest:
    """Parse a request body. Raises `malformed` with the name of the field that is wrong."""
    try:
        if not raw.isascii():
            raw.decode()  # values that are passed on as they came are in UTF-8 too
        usual = read_usual(raw)
        if usual is not None:
            return _request(usual.model, usual.arguments, _encode(usual))
        fields = _decode_fields(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal("malformed", "The request body is not a JSON object; send one, encoded in UTF-8.") from error
    return _read_carefully(fields)


def _read_carefully(fields: Fields) -> ChatRequest:
    check_fields(fields)
    for name in fields.keys() & _OTHER_MODELS:
        raise wrong(name, "may lead to a model that policy did not decide on; leave it out and name one model")
    model = _field(fields, "model", str)
    if not model:
        raise wrong("model", "must be a string naming a model; GET /v1/models lists yours")
    if "messages" not in fields:
        raise wrong("messages", "must be an array of messages")
    arguments: dict[str, Any] = {"stream": _field(fields, "stream", bool) or False}
    for name in _NUMBERS:
        number = _field(fields, name, int)
        if number is not None:
            if isinstance(number, bool) or number < 1:
                raise wrong(name, "must be a positive integer")
            arguments[name] = number
    _field(fields, "stream_options", dict)
    tools = read_tools(fields)
    if tools:
        arguments["tools"] = [tool.name for tool in tools]
    return _request(model, arguments, _encode(fields))


def _request(model: str, arguments: dict[str, Any], body: bytes) -> ChatRequest:
    return ChatRequest(
        model=model,
        stream=arguments["stream"],
        arguments=arguments,
        identity={"body_sha256": hashlib.sha256(body).hexdigest()},
        body=body,
    )


def declared_parameters(body: bytes | None) -> dict[str, dict[str, Any]]:
    """The tools of its own that an agent declared in a request, by name, with their JSON Schema; {} without one."""
    if body is None:
        return {}
    return {tool.name: tool.schema or {} for tool in read_tools(_decode_fields(body)) if tool.is_agents_own}


def declared_tools(body: bytes | None) -> list[DeclaredTool]:
    """The tools that a request says the agent has. A provider's own tools, such as web_search, are not the agent's."""
    return [declared_tool(tool) for tool in read_tools(_decode_fields(body or b"{}")) if tool.is_agents_own]


def wants_usage(body: bytes | None) -> bool:
    """Whether the client itself asked for the usage chunk of a stream."""
    options = _decode_fields(body or b"{}").get("stream_options")
    if options is None:
        return False
    value = _decode(options)
    return isinstance(value, dict) and value.get("include_usage") is True


def outbound(action: Action, target: ModelTarget) -> bytes:
    """The body that goes upstream: the provider's model name, a cap on the output, usage asked for where it streams."""
    fields = _decode_fields(action.body or b"{}")
    arguments = action.arguments
    if action.stream:
        _write_last(fields, "stream_options", _with_usage(fields.get("stream_options")))
    if "stream" in fields:
        _write_last(fields, "stream", _TRUE if action.stream else _FALSE)
    if target.cap_field is not None:
        # What was reserved is what is sent, in the one field that this provider obeys.
        asked = [arguments[name] for name in _CAPS if name in arguments]
        for name in _CAPS:
            fields.pop(name, None)
        fields[target.cap_field] = msgspec.Raw(b"%d" % (max(asked) if asked else target.max_output_tokens))
    for name in _NUMBERS:
        if name in fields and name in arguments and name != target.cap_field:
            _write_last(fields, name, msgspec.Raw(b"%d" % arguments[name]))
    _write_last(fields, "model", msgspec.Raw(_encode(target.model)))
    return _encode(fields)


def _with_usage(options: msgspec.Raw | None) -> msgspec.Raw:
    known = {} if options is None or bytes(options) == b"null" else _decode_fields(options)
    _write_last(known, "include_usage", _TRUE)
    return msgspec.Raw(_encode(known))


def _write_last(fields: Fields, name: str, value: msgspec.Raw) -> None:
    fields.pop(name, None)
    fields[name] = value


def _field(fields: Fields, name: str, kind: type) -> Any:
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        value = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise wrong(name, "is not valid JSON") from error
    if value is None:
        return None
    if not isinstance(value, kind):
        expected = {str: "a string", bool: "true or false", int: "an integer", dict: "an object"}[kind]
        raise wrong(name, f"must be {expected}")
    return value
