"""The stateless revision: `_meta` on every request, and headers that repeat what the body says.

Proxies route by those headers while servers act by the body, so both must say the same before anything else is
looked at. Source: MCP 2026-07-28, basic, "Per-request protocol fields"; streamable HTTP, "Server Validation".
"""

from __future__ import annotations

import base64
import binascii
import re

from gateway.doors.mcp.head import Head
from gateway.doors.mcp.message import Message
from gateway.doors.mcp.protocol import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    LEGACY,
    META_CAPABILITIES,
    META_VERSION,
    MODERN,
    Fault,
    unsupported_version,
)

_ROUTING = {
    b"mcp-protocol-version": "MCP-Protocol-Version",
    b"mcp-method": "Mcp-Method",
    b"mcp-name": "Mcp-Name",
}
# Which parameter the header Mcp-Name repeats.
_NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_VISIBLE = re.compile(rb"[\x20-\x7e\t]*")
_ENCODED = re.compile(r"=\?base64\?(.*)\?=", re.DOTALL)


def is_modern(head: Head, message: Message) -> bool:
    """Which era a message belongs to. Raises `Fault` -32022 for a revision that is neither."""
    if META_VERSION in message.meta:
        return True
    version = head.version
    if version == MODERN:
        return True
    if version is None or version in LEGACY or message.method == "initialize":
        return False
    raise unsupported_version(version)


def check(head: Head, message: Message) -> None:
    """Raises `Fault` -32602 (incomplete `_meta`), -32020 (headers and body differ) or -32022, in this order."""
    for header, shown_as in _ROUTING.items():
        if header in head.repeated:
            raise mismatch(f"the header {shown_as} was sent more than once")
    if message.id is None:
        # A notification: the revision asks for no headers on these, only for a version that is served.
        if head.version is not None and head.version != MODERN:
            raise unsupported_version(head.version)
        return
    meta = message.meta
    missing = [key for key in (META_VERSION, META_CAPABILITIES) if key not in meta]
    if missing:
        raise Fault(INVALID_PARAMS, f"Invalid params: _meta lacks {' and '.join(missing)}.")
    version = meta[META_VERSION]
    if head.version is None or head.version != version:
        raise mismatch("MCP-Protocol-Version is not the protocolVersion in _meta")
    if type(meta[META_CAPABILITIES]) is not dict:
        raise Fault(INVALID_PARAMS, f"Invalid params: {META_CAPABILITIES} must be an object.")
    if head.values.get(b"mcp-method", b"") != message.method.encode():
        raise mismatch("Mcp-Method is not the method in the body")
    named_by = _NAMED_BY.get(message.method)
    if named_by is not None:
        sent = head.values.get(b"mcp-name")
        name = message.params.get(named_by)
        if (type(name) is str or sent is not None) and (sent is None or decoded(sent) != name):
            raise mismatch(f'Mcp-Name is not the "{named_by}" in the body')
    if version != MODERN:
        raise unsupported_version(version)


def mismatch(what: str) -> Fault:
    """The fault for headers that don't say what the body says."""
    return Fault(HEADER_MISMATCH, f"Header mismatch: {what}")


def decoded(value: bytes) -> str | None:
    """A header value as the text it stands for; None where it has characters or an encoding it may not have.

    Text that a header can't carry comes as `=?base64?...?=`; only the canonical form of it counts.
    """
    if _VISIBLE.fullmatch(value) is None:
        return None
    text = value.decode("ascii")
    encoded = _ENCODED.fullmatch(text)
    if encoded is None:
        return text
    payload = encoded.group(1)
    try:
        plain = base64.b64decode(payload, validate=True)
        if base64.b64encode(plain).decode("ascii") != payload:
            return None
        return plain.decode("utf-8")
    except (binascii.Error, ValueError):
        return None
