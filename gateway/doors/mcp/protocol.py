"""Names and numbers of the protocol, and the one exception for requests that the protocol itself refuses.

Source: the MCP specification, revisions 2025-06-18, 2025-11-25 and 2026-07-28 (modelcontextprotocol.io).
"""

from __future__ import annotations

from typing import Any, Final

MODERN: Final = "2026-07-28"
# Newest first; 2025-03-26 is served without the batches that only it had.
LEGACY: Final = ("2025-11-25", "2025-06-18", "2025-03-26")
SUPPORTED: Final = (MODERN, *LEGACY)

META_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
META_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
META_SERVER: Final = "io.modelcontextprotocol/serverInfo"

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
HEADER_MISMATCH: Final = -32020
UNSUPPORTED_VERSION: Final = -32022

# Long enough to recognise what was sent, short enough for an error message.
SHOWN_CHARS: Final = 128


class Fault(Exception):  # noqa: N818 - an answer of the protocol, not a fault in the product
    """A request that is refused by the protocol, before there is an action.

    `rpc_code` and `data` stand in the JSON-RPC error, `http_status` on the response, `code` (a key of
    `gateway.errors.CODES`) in the refusal record. `rpc_id` is the request's id as JSON text, where it was read.
    """

    def __init__(
        self,
        rpc_code: int,
        message: str,
        *,
        http_status: int = 400,
        code: str = "malformed",
        data: dict[str, Any] | None = None,
        rpc_id: bytes | None = None,
    ) -> None:
        super().__init__(message)
        self.rpc_code = rpc_code
        self.message = message
        self.http_status = http_status
        self.code = code
        self.data = data
        self.rpc_id = rpc_id


def unsupported_version(requested: str) -> Fault:
    """The fault for a revision that the door does not serve; clients choose again from `supported`."""
    return Fault(
        UNSUPPORTED_VERSION,
        "Unsupported protocol version",
        data={"supported": list(SUPPORTED), "requested": requested[:SHOWN_CHARS]},
    )


def shown(text: str) -> str:
    """`text` cut for an error message."""
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"
