"""From the bytes of a body to one JSON-RPC message.

The body is parsed once, and what comes out of that is both what is decided on and what is forwarded: keys sent
twice, escapes and odd encodings can't make the two differ. Numbers that a double can't hold are noticed, so that
they are refused and not rounded. Source: JSON-RPC 2.0; MCP, base protocol, "Messages".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from gateway.doors.mcp.protocol import INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR, Fault, shown
from gateway.errors import Refusal
from gateway.protocols.json_limits import MAX_FLOATS, MAX_VALUES, count_values
from gateway.protocols.json_numbers import exact_float

_NULL = b"null"


class Message(NamedTuple):
    """A request, or (where `id` is None) a notification."""

    id: bytes | None  # as JSON text
    method: str
    params: dict[str, Any]
    meta: dict[str, Any]
    inexact: str | None  # a number that no double holds, as it was written

    @property
    def rpc_id(self) -> bytes:
        return _NULL if self.id is None else self.id


class _TooManyFloatsError(Exception):
    """More floats than one message may hold."""


class Reader:
    """Parses bodies. One per event loop: the note about inexact numbers belongs to the body being parsed."""

    def __init__(self) -> None:
        self._inexact: str | None = None
        self._floats = 0
        self._decode = msgspec.json.Decoder(float_hook=self._float).decode

    def read(self, body: bytes) -> Message:
        """The message in `body`. Raises `Fault` -32700, -32600 or -32602, Refusal `too_large`."""
        if count_values(body) > MAX_VALUES:
            raise Refusal("too_large", f"A message holds at most {MAX_VALUES} values; send fewer at once.")
        self._inexact, self._floats = None, 0
        try:
            value = self._decode(body)
        except _TooManyFloatsError:
            raise Refusal(
                "too_large", f"A message holds at most {MAX_FLOATS} numbers with a fraction; send fewer at once."
            ) from None
        except (ValueError, RecursionError) as error:  # bad UTF-8 and JSON are ValueErrors
            raise Fault(
                PARSE_ERROR,
                "Parse error: the body is not JSON in UTF-8, is nested too deeply, or has a number that is too long.",
            ) from error
        if type(value) is not dict:
            if type(value) is list:
                raise Fault(
                    INVALID_REQUEST,
                    "Invalid request: batches are not part of MCP since 2025-06-18; send one message per POST.",
                )
            raise Fault(INVALID_REQUEST, "Invalid request: the body must be one JSON-RPC object.")
        return self._message(value)

    def _message(self, value: dict[str, Any]) -> Message:
        rpc_id = _id(value["id"]) if "id" in value else None
        if value.get("jsonrpc") != "2.0":
            raise Fault(INVALID_REQUEST, 'Invalid request: "jsonrpc" must be "2.0".', rpc_id=rpc_id)
        method = value.get("method")
        if type(method) is not str or not method:
            if method is None and ("result" in value or "error" in value):
                raise Fault(
                    INVALID_REQUEST,
                    "The gateway sends no requests to clients yet, so it takes no answers from them.",
                    code="not_governed",
                    rpc_id=rpc_id,
                )
            raise Fault(INVALID_REQUEST, 'Invalid request: "method" must be a string.', rpc_id=rpc_id)
        if rpc_id is None and not method.startswith("notifications/"):
            raise Fault(INVALID_REQUEST, f'Invalid request: {shown(method)} is a request, so it needs an "id".')
        params = value.get("params", {})
        if type(params) is not dict:
            raise Fault(INVALID_PARAMS, 'Invalid params: "params" must be an object.', rpc_id=rpc_id)
        meta = params.get("_meta", {})
        if type(meta) is not dict:
            raise Fault(INVALID_PARAMS, 'Invalid params: "_meta" must be an object.', rpc_id=rpc_id)
        return Message(rpc_id, method, params, meta, self._inexact)

    def _float(self, text: str) -> float:
        self._floats += 1
        if self._floats > MAX_FLOATS:
            raise _TooManyFloatsError
        number = exact_float(text)
        if number is None:
            self._inexact = text
            return 0.0
        return number


def _id(value: object) -> bytes:
    if type(value) is not str and type(value) is not int:  # bool is no int here; null, floats and objects are out
        raise Fault(INVALID_REQUEST, 'Invalid request: "id" must be a string or an integer.')
    return msgspec.json.encode(value)
