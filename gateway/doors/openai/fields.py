"""The fields of a chat completion request that the gateway reads or writes, and the one spelling each may have.

`REQUEST` is the table: it has every field that request.py, tools.py, limits/bounds.py or an adapter of a provider reads
by name (tests/doors/openai/test_fields.py checks that). A key that another reader may take for one of them is refused:
the provider would act on a value that nothing was decided on. All other keys pass as they came.

A nested object that is read is rewritten where it holds a key twice, since readers differ in which of two they take.

Source: https://platform.openai.com/docs/api-reference/chat (create).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import msgspec

from gateway.errors import Refusal
from gateway.protocols.key_folding import fold_name

Fields = dict[str, msgspec.Raw]

# Names in one request that are not in the table. Each is compared with those that are, on the event loop.
MAX_UNKNOWN = 1000
MAX_NAME_CHARS = 256
MAX_ODD_CHARS = 10_000  # of all names outside ASCII together: each may stand for many letters
_SHOWN_CHARS = 64


class Shape(NamedTuple):
    """The fields of one object, and their spellings by `fold_name`. An array has the shape of what is in it."""

    names: frozenset[str]
    nested: dict[str, Shape]  # fields of which something inside is read
    spellings: dict[str, str]


def _shape(*names: str, **nested: Shape) -> Shape:
    known = frozenset((*names, *nested))
    return Shape(known, nested, {fold_name(name): name for name in known})


NAMED = _shape("name", "description", "parameters", "strict", "format")
TOOL = _shape("type", "cache_control", function=NAMED, custom=NAMED)
_PART = _shape(
    *("type", "text", "refusal", "thinking", "cache_control"),
    image_url=_shape("url", "detail"),
    input_audio=_shape("data", "format"),
    file=_shape("file_data", "file_id", "filename"),
)
MESSAGE = _shape(
    *("role", "name", "tool_calls", "tool_call_id", "function_call", "refusal", "audio"),
    *("reasoning", "reasoning_content", "cache_control"),
    content=_PART,
)
REQUEST = _shape(
    *("models", "fallback_models", "fallbacks", "preset"),  # refused
    *("model", "stream", "n", "max_tokens", "max_completion_tokens", "service_tier", "modalities", "tool_choice"),
    # Not read, but documented: no client means anything else by another spelling of them.
    *("frequency_penalty", "function_call", "logit_bias", "logprobs", "metadata", "parallel_tool_calls"),
    *("presence_penalty", "prompt_cache_key", "prompt_cache_retention", "reasoning_effort", "safety_identifier"),
    *("seed", "stop", "store", "temperature", "thinking", "top_logprobs", "top_p", "user", "verbosity"),
    messages=MESSAGE,
    stream_options=_shape("include_usage", "include_obfuscation"),
    tools=TOOL,
    functions=NAMED,
    response_format=_shape("type", "json_schema"),
    web_search_options=_shape("search_context_size", "user_location"),
    audio=_shape("voice", "format"),
    prediction=_shape("type", content=_PART),
)
# All but messages, which have their own way below, and what tools.py parses in full.
_REWRITTEN = {name: REQUEST.nested[name] for name in REQUEST.nested.keys() - {"messages", "tools", "functions"}}

_decode_objects = msgspec.json.Decoder(list[Fields]).decode
_decode_object = msgspec.json.Decoder(Fields).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.encode
_OBJECT, _LIST = ord("{"), ord("[")


class CheckNames:
    """Compares the names of one request with the table. Other fields of a provider's own often come in each message,
    so a name is compared once."""

    def __init__(self) -> None:
        self._cleared: set[tuple[int, str]] = set()
        self._odd_left = MAX_ODD_CHARS

    def __call__(self, names: Collection[str], shape: Shape, *place: str | int) -> None:
        """Raises `malformed` where one of `names` is another spelling; `place` is the object that has them."""
        if shape.names.issuperset(names):
            return
        for name in names:
            if name not in shape.names and (id(shape), name) not in self._cleared:
                self._compare(name, shape, place)

    def _compare(self, name: str, shape: Shape, place: tuple[str | int, ...]) -> None:
        self._odd_left -= 0 if name.isascii() else len(name)
        if len(self._cleared) >= MAX_UNKNOWN or len(name) > MAX_NAME_CHARS or self._odd_left < 0:
            raise Refusal(
                "malformed",
                f"The request has more than {MAX_UNKNOWN} fields that the API does not know, or their names are longer"
                f" than {MAX_NAME_CHARS} characters; leave them out.",
            )
        meant = shape.spellings.get(fold_name(name))
        if meant is not None:
            raise wrong(path(*place, shown(name)), f"is another spelling of {meant}; send {meant} only")
        self._cleared.add((id(shape), name))


def check_fields(fields: Fields) -> None:
    """Check every key of a request that is read, and rewrite nested objects that hold a key twice.

    Raises `malformed` with the name of the field. `tools` and `functions` are left to `read_tools`.
    """
    check_names = CheckNames()
    check_names(fields, REQUEST)
    if "messages" in fields:
        fields["messages"] = _messages(fields["messages"], check_names)
    for name in [name for name in fields if name in _REWRITTEN]:
        fields[name] = _rewritten(fields[name], _REWRITTEN[name], check_names, name)


def wrong(name: str, what: str) -> Refusal:
    """The refusal of a request because of one field."""
    return Refusal("malformed", f"The field {name} {what}.", detail={"param": name})


def path(*steps: str | int) -> str:
    """Where something is in a request: `tools[3].function.name`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


def shown(name: str) -> str:
    """A key as it may appear in a message: short, and what may look like another letter as its escape."""
    escaped = name[:_SHOWN_CHARS].encode("ascii", "backslashreplace").decode()
    plain = "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in escaped)
    return plain if len(name) <= _SHOWN_CHARS else f"{plain}..."


def _messages(raw: msgspec.Raw, check_names: CheckNames) -> msgspec.Raw:
    """The messages with every key once."""
    if memoryview(raw)[0] != _LIST:
        raise wrong("messages", "must be an array of messages")
    try:
        messages = _decode_objects(raw)
    except msgspec.ValidationError as error:
        raise wrong("messages", "must be an array of messages, each of them an object") from error
    for index, message in enumerate(messages):
        check_names(message, MESSAGE, "messages", index)
        if "content" in message:
            message["content"] = _rewritten(message["content"], _PART, check_names, "messages", index, "content")
    return _unless_same(raw, messages)


def _rewritten(raw: msgspec.Raw, shape: Shape, check_names: CheckNames, *place: str | int) -> msgspec.Raw:
    """`raw`, an object or an array of objects in `shape`, with every key once. Other values stay as they are."""
    if memoryview(raw)[0] != _LIST:
        return _rewritten_object(raw, shape, check_names, *place)
    parts = [_rewritten_object(part, shape, check_names, *place, index) for index, part in enumerate(_decode_list(raw))]
    return _unless_same(raw, parts)


def _rewritten_object(raw: msgspec.Raw, shape: Shape, check_names: CheckNames, *place: str | int) -> msgspec.Raw:
    if memoryview(raw)[0] != _OBJECT:
        return raw
    fields = _decode_object(raw)
    check_names(fields, shape, *place)
    for name in shape.nested.keys() & fields.keys():
        fields[name] = _rewritten(fields[name], shape.nested[name], check_names, *place, name)
    return _unless_same(raw, fields)


def _unless_same(raw: msgspec.Raw, value: list[Fields] | list[msgspec.Raw] | Fields) -> msgspec.Raw:
    """`value` as JSON, or `raw` itself where it says exactly that, closed up or spaced as most clients write."""
    written, came = _encode(value), bytes(raw)
    if written == came or msgspec.json.format(written, indent=0) == came:
        return raw
    return msgspec.Raw(written)
