"""A complete answer of a model without the secrets of this process, should its provider repeat one."""

from __future__ import annotations

import json

import msgspec

from gateway.known_secrets import KNOWN


def without_secrets(body: bytes) -> bytes:
    """The answer; `body` itself where it holds no secret."""
    clean = KNOWN.redactor.redact_json(body)
    return clean if clean == body or b"logprobs" not in clean else _without_logprobs(clean)


def _without_logprobs(body: bytes) -> bytes:
    """`logprobs` repeat the text in tokens, each a string of its own, so a secret that was in the text is in them."""
    try:
        answer = json.loads(body)
        for choice in answer["choices"]:
            choice.pop("logprobs", None)
        return msgspec.json.encode(answer)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, msgspec.MsgspecError):
        return body  # no answer that the door lets pass
