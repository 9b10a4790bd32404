"""What of an input document every engine reads alike. The rest is denied before an engine is asked.

Engines part where JSON has no bounds: numbers of more than 64 bits (one rounds them, another compares them exactly,
a third does not read them), deep nesting, size. A policy must not decide one way in this process and another way on a
server, so what lies beyond is a deny in both.
"""

from __future__ import annotations

from typing import Any

import msgspec

# The event loop waits while a policy is evaluated, and reading the document is part of that.
MAX_DOCUMENT_BYTES = 1024 * 1024
MAX_DEPTH = 100  # of the arguments; the narrowest engine reads 127 levels of the whole document
_LEAST, _MOST = -(2**63), 2**64 - 1

_decode = msgspec.json.decode


class Unreadable(Exception):  # noqa: N818 - said of the document
    """A document that no engine is asked about. `reason` is for the agent, `detail` for the log."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def read_document(document: bytes) -> Any:
    """The document as objects. Raises Unreadable.

    Only the arguments are looked through for what is out of bounds: the gateway writes all else itself.
    """
    if len(document) > MAX_DOCUMENT_BYTES:
        raise Unreadable(
            f"The arguments are larger than policy reads ({MAX_DOCUMENT_BYTES} bytes). Send less at once.",
            f"document of {len(document)} bytes",
        )
    try:
        whole = _decode(document)
    except RecursionError:
        raise _too_deep() from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable("The policy's input is not JSON in UTF-8, so nothing is allowed.", str(error)) from None
    action = whole.get("action") if type(whole) is dict else None
    arguments = action.get("arguments") if type(action) is dict else None
    if arguments:
        _check(arguments, MAX_DEPTH)
    return whole


def _check(value: Any, depth: int) -> None:
    kind = type(value)
    if kind is dict or kind is list:
        if depth == 0:
            raise _too_deep()
        for inner in value.values() if kind is dict else value:
            _check(inner, depth - 1)
    elif (kind is int or kind is float) and not _LEAST <= value <= _MOST:
        raise Unreadable(
            "The arguments hold a number of more than 64 bits, which policies cannot compare exactly, so nothing is"
            " allowed. Send it as text.",
            "a number of more than 64 bits in the arguments",
        )


def _too_deep() -> Unreadable:
    return Unreadable(
        f"The arguments nest deeper than policies read ({MAX_DEPTH} levels), so nothing is allowed.",
        f"arguments nested deeper than {MAX_DEPTH} levels",
    )
