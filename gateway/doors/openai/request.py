"""OpenAI chat completion requests: read, and written for the provider.

Bodies are split at the top level only; nested values stay the bytes they were, so unknown fields survive. Where
policy reads a nested value (`tools`, tool calls), it is parsed and written anew, so that what was decided on is
what is forwarded, whatever duplicate keys or escapes the original had.

Source: https://platform.openai.com/docs/api-reference/chat (create).
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import msgspec

from gateway.actions import Action, DeclaredTool, ModelTarget
from gateway.errors import Refusal

Fields = dict[str, msgspec.Raw]
_decode_fields = msgspec.json.Decoder(Fields).decode
_decode = msgspec.json.decode
_encode = msgspec.json.encode


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
        fields = _decode_fields(raw)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal("malformed", "The request body is not a JSON object; send one, encoded in UTF-8.") from error
    model = _field(fields, "model", str)
    if not model:
        raise _wrong("model", "must be a string naming a model; GET /v1/models lists yours")
    messages = fields.get("messages")
    if messages is None or not bytes(messages).lstrip().startswith(b"["):
        raise _wrong("messages", "must be an array of messages")
    stream = _field(fields, "stream", bool) or False
    arguments: dict[str, Any] = {"stream": stream}
    for name in ("max_tokens", "max_completion_tokens", "n"):
        number = _field(fields, name, int)
        if number is not None:
            if isinstance(number, bool) or number < 1:
                raise _wrong(name, "must be a positive integer")
            arguments[name] = number
    tools = [*_tools(fields), *_functions(fields)]
    if tools:
        arguments["tools"] = [name for name, _ in tools]
    body = _encode(fields)
    return ChatRequest(
        model=model,
        stream=stream,
        arguments=arguments,
        identity={"body_sha256": hashlib.sha256(body).hexdigest()},
        body=body,
    )


def declared_parameters(body: bytes | None) -> dict[str, dict[str, Any]]:
    """Tool names that a request declared, with their JSON Schema."""
    if body is None:
        return {}
    fields = _decode_fields(body)
    return dict([*_tools(fields), *_functions(fields)])


def declared_tools(body: bytes | None) -> list[DeclaredTool]:
    """The tools that a request says the agent has. A provider's own tools, such as web_search, are not the agent's."""
    fields = _decode_fields(body or b"{}")
    found = [_declared(tool, tool.get("type", "function")) for tool in _array(fields, "tools")]
    found += [_declared({"function": function}, "function") for function in _array(fields, "functions")]
    return [one for one in found if one is not None]


def _declared(tool: dict[str, Any], kind: Any) -> DeclaredTool | None:
    if kind not in ("function", "custom"):
        return None
    inner = tool[kind]
    description, parameters = inner.get("description"), inner.get("parameters")
    if kind == "custom":  # what it is given stands in one argument, as in `proposal_of`
        parameters = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    return DeclaredTool(
        inner["name"],
        description if isinstance(description, str) else "",
        parameters if isinstance(parameters, dict) else None,
    )


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
    fields["model"] = msgspec.Raw(_encode(target.model))
    if target.cap_field is not None:
        # What was reserved is what is sent, in the one field that this provider obeys.
        asked = [action.arguments[name] for name in _CAPS if name in action.arguments]
        for name in _CAPS:
            fields.pop(name, None)
        fields[target.cap_field] = msgspec.Raw(b"%d" % (max(asked) if asked else target.max_output_tokens))
    if action.stream:
        options = _decode(fields["stream_options"]) if "stream_options" in fields else None
        options = dict(options) if isinstance(options, dict) else {}
        options["include_usage"] = True
        fields["stream_options"] = msgspec.Raw(_encode(options))
    return _encode(fields)


_CAPS = ("max_tokens", "max_completion_tokens")


def _field(fields: Fields, name: str, kind: type) -> Any:
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        value = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(name, "is not valid JSON") from error
    if value is None:
        return None
    if not isinstance(value, kind):
        expected = {str: "a string", bool: "true or false", int: "an integer"}[kind]
        raise _wrong(name, f"must be {expected}")
    return value


def _tools(fields: Fields) -> list[tuple[str, dict[str, Any]]]:
    value = _array(fields, "tools")
    named: list[tuple[str, dict[str, Any]]] = []
    for index, tool in enumerate(value):
        if not isinstance(tool, dict):
            raise _wrong(f"tools[{index}]", "must be an object")
        kind = tool.get("type", "function")
        inner = tool.get(kind) if isinstance(kind, str) else None
        if isinstance(inner, dict) and isinstance(inner.get("name"), str):
            parameters = inner.get("parameters")
            named.append((inner["name"], parameters if isinstance(parameters, dict) else {}))
        elif kind in ("function", "custom"):
            raise _wrong(f"tools[{index}]", f"must have {kind}.name")
        else:  # a provider's own tool, such as web_search: no name of its own
            named.append((str(kind), {}))
    return named


def _functions(fields: Fields) -> list[tuple[str, dict[str, Any]]]:
    named: list[tuple[str, dict[str, Any]]] = []
    for index, function in enumerate(_array(fields, "functions")):
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _wrong(f"functions[{index}]", "must be an object with a name")
        parameters = function.get("parameters")
        named.append((function["name"], parameters if isinstance(parameters, dict) else {}))
    return named


def _array(fields: Fields, name: str) -> list[Any]:
    """The array `name`, parsed; the field is replaced by what was parsed, so that both stay one."""
    raw = fields.get(name)
    if raw is None:
        return []
    try:
        value = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(name, "is not valid JSON") from error
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong(name, "must be an array")
    fields[name] = msgspec.Raw(_encode(value))
    return value


def _wrong(name: str, what: str) -> Refusal:
    return Refusal("malformed", f"The field {name} {what}.", detail={"param": name})
