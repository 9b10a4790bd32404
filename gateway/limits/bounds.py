"""How many tokens a model call can use at most, told from the request alone.

Input: one token for each byte of the body. Byte-level vocabularies (BPE with byte fallback, as every current
provider uses) never make more than one token of one byte of text, and the JSON around a message (28 bytes and
more) is longer than the 3 to 8 tokens a chat template spends on it. A tighter guess (four bytes a token, say)
is below the truth for digits, code, Chinese or noise, and a real tokeniser costs milliseconds and exists for
few providers. The surplus is given back when the call settles.

Bytes do not bound what a body merely points at, so such parts are counted apart: a picture's price depends on
its size in pixels and a file's on its pages. What a provider's own server-side tools fetch (its web search)
cannot be told beforehand; it is booked when it settles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.actions import Action, ModelTarget
from gateway.errors import Refusal

TEMPLATE_TOKENS = 64
"""Around every request: begin and end marks, the opening of the answer."""

TOOL_PROMPT_TOKENS = 1_024
"""Providers put a hidden prompt before tools; the largest one documented is about 530 tokens (Anthropic)."""

PICTURE_TOKENS = 50_000
"""One picture at full detail: 8 tiles of 5,667 and a base of 2,833 tokens is the dearest rule known (OpenAI)."""

FILE_TOKENS = 200_000
"""One file, sound or film: as much as most models can read at all."""

_TEXT_PARTS = frozenset({"text", "refusal", "input_text", "output_text", "thinking", "reasoning"})
_PICTURE_PARTS = frozenset({"image_url", "image", "input_image"})
_LIST = ord("[")


class _Message(msgspec.Struct, gc=False):
    content: msgspec.Raw = msgspec.Raw(b"null")  # almost always a string, which nobody needs decoded here


class _Body(msgspec.Struct, gc=False):
    messages: list[_Message] = []


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_parts = msgspec.json.Decoder(list[Any]).decode


def input_bound(action: Action) -> int:
    """Tokens the prompt can have at most. Raises Refusal `malformed` for messages that are none.

    Knows the parts of the OpenAI chat dialect, which is what `Action.body` holds for model calls.
    """
    body = action.body
    arguments = action.arguments
    if body is None:
        return len(msgspec.json.encode(arguments)) + TEMPLATE_TOKENS + TOOL_PROMPT_TOKENS
    bound = len(body) + TEMPLATE_TOKENS
    if arguments.get("tools") or arguments.get("functions") or arguments.get("response_format"):
        bound += TOOL_PROMPT_TOKENS
    try:
        for message in _decode_body(body).messages:
            content = message.content
            if memoryview(content)[0] == _LIST:
                bound += _attachments(_decode_parts(content))
    except msgspec.DecodeError as error:
        raise Refusal("malformed", "The messages of this request cannot be read, so its cost is unknown.") from error
    return bound


def _attachments(parts: list[Any]) -> int:
    """Tokens of the parts of a message whose price their bytes do not tell."""
    tokens = 0
    for part in parts:
        if isinstance(part, str):
            continue
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in _PICTURE_PARTS:
            tokens += PICTURE_TOKENS
        elif kind not in _TEXT_PARTS:
            tokens += FILE_TOKENS
    return tokens


def output_bound(arguments: Mapping[str, Any], target: ModelTarget) -> int:
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
    return cap if n is None else cap * _positive("n", n)


def _positive(name: str, value: object) -> int:
    if value is None:
        return 0
    if type(value) is not int or value < 1:
        raise Refusal("malformed", f"{name} must be a positive integer; leave it out or correct it.")
    return value


def bound_nanousd(target: ModelTarget, input_tokens: int, output_tokens: int) -> int:
    """What that many tokens cost at most, whichever of them the provider may call cached; rounded up."""
    price = target.input_nanousd_per_mtok
    cached = target.cached_input_nanousd_per_mtok
    if cached is not None and cached > price:
        price = cached
    return -(-(input_tokens * price + output_tokens * target.output_nanousd_per_mtok) // 1_000_000)
