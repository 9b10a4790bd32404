"""The most that a model call can use, told from the request alone.

Input: one token for each byte of the body. Byte-level vocabularies (BPE with byte fallback, as every current
provider uses) never make more than one token of one byte of text, and the JSON around a message (28 bytes and
more) is longer than the 3 to 8 tokens a chat template spends on it. A tighter guess (four bytes a token, say)
is below the truth for digits, code, Chinese or noise, and a real tokeniser costs milliseconds and exists for
few providers. The surplus is given back when the call settles.

Bytes do not bound what a body carries as base64 or merely points at: `attachments` does. Fields by which the agent
chooses what the provider charges (service tier, web search, predictions, thinking) are read by `chosen`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from gateway.actions import Action, ModelTarget
from gateway.errors import Refusal
from gateway.limits.attachments import Attachments
from gateway.limits.chosen import SERVER_CALLS, Chosen, read_chosen
from gateway.limits.inline_data import FILE_TOKENS, PICTURE_TOKENS
from gateway.pricing import MTOK, Asked

__all__ = ["FILE_TOKENS", "PICTURE_TOKENS", "asked_of", "bound_nanousd", "input_bound", "output_bound"]

TEMPLATE_TOKENS = 64
"""Around every request: begin and end marks, the opening of the answer."""

TOOL_PROMPT_TOKENS = 1_024
"""Providers put a hidden prompt before tools; the largest one documented is about 530 tokens (Anthropic)."""

Raw = msgspec.Raw
_NULL = Raw(b"null")
_EMPTY = Raw(b"[]")
_CONTAINERS = b"[{"
_AGENTS_TOOLS = (None, "function", "custom")
"""Types of tools that the agent runs; all others the provider does."""


class _Message(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The members of a message that are text, which their bytes bound, or that are read here."""

    role: Raw = _NULL
    content: Raw = _NULL  # almost always a string, which nobody needs decoded here
    tool_calls: Raw = _NULL
    tool_call_id: Raw = _NULL
    name: Raw = _NULL
    refusal: Raw = _NULL
    audio: Raw = _NULL
    function_call: Raw = _NULL
    reasoning_content: Raw = _NULL
    reasoning: Raw = _NULL


class _Tool(msgspec.Struct, gc=False):
    type: Any = None
    cache_control: Any = None


class _Body(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The fields of a request that change nothing of its price beyond their bytes, and its messages and tools."""

    model: Raw = _NULL
    messages: list[_Message] = []
    tools: list[_Tool] | None = None
    temperature: Raw = _NULL
    max_tokens: Raw = _NULL
    max_completion_tokens: Raw = _NULL
    stream: Raw = _NULL
    stream_options: Raw = _NULL
    tool_choice: Raw = _NULL
    parallel_tool_calls: Raw = _NULL
    top_p: Raw = _NULL
    stop: Raw = _NULL
    n: Raw = _NULL
    response_format: Raw = _NULL
    functions: Raw = _NULL
    function_call: Raw = _NULL
    seed: Raw = _NULL
    user: Raw = _NULL
    metadata: Raw = _NULL
    store: Raw = _NULL
    presence_penalty: Raw = _NULL
    frequency_penalty: Raw = _NULL
    logit_bias: Raw = _NULL
    logprobs: Raw = _NULL
    top_logprobs: Raw = _NULL
    reasoning_effort: Raw = _NULL
    verbosity: Raw = _NULL
    prompt_cache_key: Raw = _NULL
    safety_identifier: Raw = _NULL


_KNOWN_FIELDS = frozenset(_Body.__struct_fields__)
_KNOWN_MEMBERS = frozenset(_Message.__struct_fields__)
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_messages = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_decode_tools = msgspec.json.Decoder(list[_Tool] | None).decode
_decode = msgspec.json.decode
_PLAIN = Chosen()


class Request(NamedTuple):
    """A request, as far as its price depends on it. `attachments` is None where it has nothing but text."""

    tokens: int  # of its text
    attachments: Attachments | None
    chosen: Chosen

    @property
    def is_plain(self) -> bool:
        """Whether it is text, and chooses nothing."""
        return self.attachments is None and self.chosen is _PLAIN


def read_request(action: Action) -> Request:
    """Read a model call. Raises Refusal `malformed` for messages that are none.

    Knows the OpenAI chat dialect, which is what `Action.body` holds for model calls.
    """
    body, arguments = action.body, action.arguments
    if body is None:
        return Request(len(msgspec.json.encode(arguments)) + TEMPLATE_TOKENS + TOOL_PROMPT_TOKENS, None, _PLAIN)
    tokens = len(body) + TEMPLATE_TOKENS
    if arguments.get("tools") or arguments.get("functions") or arguments.get("response_format"):
        tokens += TOOL_PROMPT_TOKENS
    try:
        try:
            attachments, chosen = _read_plainly(_decode_body(body))
        except msgspec.ValidationError:  # it has a field that is not plain
            attachments, chosen = _read_closely(_decode_fields(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal("malformed", "The messages of this request cannot be read, so its cost is unknown.") from error
    return Request(tokens if attachments is None else tokens - attachments.inline_bytes, attachments, chosen)


def asked_of(action: Action, target: ModelTarget, request: Request | None = None) -> Asked:
    """What a model call can make its provider count. Raises Refusal `malformed`."""
    tokens, attachments, chosen = request or read_request(action)
    documents, sounds = (0, 0) if attachments is None else attachments.bound(target.max_input_tokens)
    calls = max(chosen.server_calls, int(target.prices.always_searches))
    return Asked(
        input_tokens=tokens + documents,
        media_tokens=sounds,
        output_tokens=output_bound(action.arguments, target, chosen),
        tier=chosen.tier,
        server_calls=calls * (action.arguments.get("n") or 1),
        writes_cache=chosen.writes_cache or (attachments is not None and attachments.writes_cache),
        unpriced=chosen.unpriced,
    )


def input_bound(action: Action) -> int:
    """Tokens the prompt can have at most, where the model's window is not known. Raises Refusal `malformed`."""
    request = read_request(action)
    return request.tokens + (0 if request.attachments is None else sum(request.attachments.bound(None)))


def _read_plainly(body: _Body) -> tuple[Attachments | None, Chosen]:
    attachments: Attachments | None = None
    for message in body.messages:
        if memoryview(message.content)[0] in _CONTAINERS or message.audio is not _NULL:  # the default itself
            attachments = attachments or Attachments()
            _read_message(attachments, {"content": message.content, "audio": message.audio})
    for tool in body.tools or ():
        if tool.type not in _AGENTS_TOOLS or tool.cache_control is not None:
            attachments, chosen = attachments or Attachments(), Chosen()
            _read_tools(body.tools or [], attachments, chosen)
            return attachments, chosen
    return attachments, _PLAIN


def _read_closely(fields: dict[str, Raw]) -> tuple[Attachments, Chosen]:
    attachments = Attachments()
    for message in _decode_messages(fields.get("messages", _EMPTY)):
        _read_message(attachments, message)
    chosen = read_chosen({name: _decode(raw) for name, raw in fields.items() if name not in _KNOWN_FIELDS}, attachments)
    _read_tools(_decode_tools(fields.get("tools", _NULL)) or [], attachments, chosen)
    return attachments, chosen


def _read_tools(tools: list[_Tool], attachments: Attachments, chosen: Chosen) -> None:
    if any(tool.cache_control is not None for tool in tools):
        chosen.writes_cache = True
    if any(tool.type not in _AGENTS_TOOLS for tool in tools):
        chosen.server_calls = SERVER_CALLS
        attachments.unknown_references += 1  # what they find is put before the model


def _read_message(attachments: Attachments, message: dict[str, Raw]) -> None:
    for name, raw in message.items():
        if name == "content":
            if memoryview(raw)[0] in _CONTAINERS:
                attachments.add_content(_decode(raw))
        elif name == "audio":
            if raw != _NULL:  # by its id, an earlier answer that was spoken
                attachments.unknown_references += 1
        elif name not in _KNOWN_MEMBERS:
            attachments.search(_decode(raw), name)


def output_bound(arguments: Mapping[str, Any], target: ModelTarget, chosen: Chosen = _PLAIN) -> int:
    """Tokens all answers together can have at most: the client's own cap or the model's, times `n`.

    A client's cap is taken as it stands even where it is above the model's, since the catalogue may be out of
    date. Raises Refusal `malformed` for a cap or an `n` that is no positive integer.
    """
    get = arguments.get
    newer = get("max_completion_tokens")
    older = get("max_tokens")
    if newer is None and older is None:
        cap = target.max_output_tokens
    else:
        cap = max(_positive("max_completion_tokens", newer), _positive("max_tokens", older))
    n = get("n")
    n = 1 if n is None else _positive("n", n)
    if chosen is _PLAIN:
        return cap * n
    thinking = chosen.thinking_tokens + (target.max_output_tokens if chosen.thinks_freely else 0)
    return (max(cap, chosen.cap) + thinking + chosen.predicted_tokens) * n * chosen.times


def _positive(name: str, value: object) -> int:
    if value is None:
        return 0
    if type(value) is not int or value < 1:
        raise Refusal("malformed", f"{name} must be a positive integer; leave it out or correct it.")
    return value


def bound_nanousd(target: ModelTarget, input_tokens: int, output_tokens: int) -> int:
    """What that many tokens of text cost at most, whichever of them the provider may call cached; rounded up."""
    if target.tariff is not None:
        return target.tariff.bound(input_tokens, output_tokens)
    price = target.input_nanousd_per_mtok
    cached = target.cached_input_nanousd_per_mtok
    if cached is not None and cached > price:
        price = cached
    return -(-(input_tokens * price + output_tokens * target.output_nanousd_per_mtok) // MTOK)
