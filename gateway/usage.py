"""The `usage` object of OpenAI-compatible answers, believed only where it can be true.

OpenAI counts cached tokens inside `prompt_tokens` and reasoning tokens inside `completion_tokens`, as `Usage` does.
A count that is missing, negative or absurd makes the whole object none: then the upper bound that was reserved counts.
Source: https://platform.openai.com/docs/api-reference/chat/object (usage).
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from gateway.actions import Usage

Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]


class _Details(msgspec.Struct):
    cached_tokens: Count | None = None


class ToldUsage(msgspec.Struct):
    """What a provider told."""

    prompt_tokens: Count
    completion_tokens: Count
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: Any = None  # nothing that is paid for depends on it

    def usage(self) -> Usage:
        details = self.prompt_tokens_details
        cached = (details.cached_tokens or 0) if details is not None else 0
        thought = self.completion_tokens_details
        reasoning = thought.get("reasoning_tokens") if isinstance(thought, dict) else None
        return Usage(
            input_tokens=self.prompt_tokens,
            output_tokens=self.completion_tokens,
            cached_input_tokens=min(cached, self.prompt_tokens),
            reasoning_tokens=min(max(reasoning, 0), self.completion_tokens) if type(reasoning) is int else 0,
        )


_decode = msgspec.json.Decoder(ToldUsage).decode


def usage_of(raw: msgspec.Raw) -> Usage | None:
    """A `usage` object as it came; None if it is null or can't be believed."""
    try:
        return _decode(raw).usage()
    except msgspec.DecodeError:
        return None
