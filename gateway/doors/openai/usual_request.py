"""Chat completion requests as most clients send them: read, checked and written anew in one pass each.

Every field is in the table (fields.py) and spelt as there, contents are texts, tools are functions. What is written is
made of what was read, so nothing is in it twice. Any other request is left to the careful way of request.py, which
decides the same (tests/doors/openai/test_usual_request.py) and says what is wrong.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from gateway.protocols.tool_names import TOOL_NAME_PATTERN

UNSET = msgspec.UNSET
Unset = msgspec.UnsetType
Opaque = msgspec.Raw | Unset  # passed on as it came
Positive = Annotated[int, msgspec.Meta(ge=1)] | Unset


class _Usual(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    pass


class Message(_Usual):
    role: Opaque = UNSET
    content: str | Unset | None = UNSET
    name: Opaque = UNSET
    tool_calls: Opaque = UNSET
    tool_call_id: Opaque = UNSET
    refusal: Opaque = UNSET


class Function(_Usual):
    name: Annotated[str, msgspec.Meta(pattern=rf"^{TOOL_NAME_PATTERN}\Z")]
    description: str | Unset | None = UNSET
    parameters: dict[str, Any] | Unset = UNSET
    strict: bool | Unset | None = UNSET


class Tool(_Usual):
    type: Literal["function"]
    function: Function


class StreamOptions(_Usual):
    include_usage: bool | Unset = UNSET
    include_obfuscation: bool | Unset = UNSET


class UsualRequest(_Usual):
    """What decides is read; the rest is passed on."""

    model: Annotated[str, msgspec.Meta(min_length=1)]
    messages: list[Message]
    stream: bool | Unset = UNSET
    stream_options: StreamOptions | Unset = UNSET
    max_tokens: Positive = UNSET
    max_completion_tokens: Positive = UNSET
    n: Positive = UNSET
    tools: list[Tool] | Unset = UNSET
    tool_choice: Opaque = UNSET
    parallel_tool_calls: Opaque = UNSET
    temperature: Opaque = UNSET
    top_p: Opaque = UNSET
    frequency_penalty: Opaque = UNSET
    presence_penalty: Opaque = UNSET
    seed: Opaque = UNSET
    stop: Opaque = UNSET
    user: Opaque = UNSET
    metadata: Opaque = UNSET
    store: Opaque = UNSET
    reasoning_effort: Opaque = UNSET
    service_tier: Opaque = UNSET

    @property
    def arguments(self) -> dict[str, Any]:
        """What policy and limits read."""
        found: dict[str, Any] = {"stream": self.stream is True}
        if self.max_tokens is not UNSET:
            found["max_tokens"] = self.max_tokens
        if self.max_completion_tokens is not UNSET:
            found["max_completion_tokens"] = self.max_completion_tokens
        if self.n is not UNSET:
            found["n"] = self.n
        if self.tools:
            found["tools"] = [tool.function.name for tool in self.tools]
        return found


_decode = msgspec.json.Decoder(UsualRequest).decode


def read_usual(raw: bytes) -> UsualRequest | None:
    """The request in `raw`; None where it is not a usual one, or no request at all."""
    try:
        found = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if found.tools and len({tool.function.name for tool in found.tools}) < len(found.tools):
        return None
    return found
