"""JSON-RPC as tool servers speak it, kept raw: results stay the bytes that came, fields nobody here knows included,
but for secrets of the gateway, which no server gets to repeat.

Source: MCP 2026-07-28 ("modern": no handshake, an envelope on each request) and 2025-11-25 back to 2024-11-05
("legacy": `initialize` first).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from gateway.known_secrets import KNOWN

MODERN: Final = "2026-07-28"
LEGACY: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")  # newest first

UNSUPPORTED_VERSION: Final = -32022
METHOD_NOT_FOUND: Final = -32601

_RESERVED_META = "io.modelcontextprotocol/"
_CLIENT_INFO: Final = {"name": "agent-governance-gateway", "version": "1"}
_HEADER_SAFE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_MAX_ERROR_DATA_BYTES = 64 * 1024
_MAX_MIRRORS = 64  # of one tool; more headers than a server would take
_MIRRORED_TYPES = frozenset(("string", "integer", "boolean"))

_encode = msgspec.json.Encoder().encode


class RpcError(Exception):
    """A JSON-RPC error that the server answered with."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class NotJsonRpc(ValueError):  # noqa: N818 - says what the bytes are
    """Bytes that are not one JSON-RPC message."""


class _Error(msgspec.Struct):
    code: int
    message: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


class Message(msgspec.Struct):
    """One incoming message; `result` and `params` are JSON text."""

    id: int | str | None = None
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw(b"{}")
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Error | msgspec.UnsetType | None = msgspec.UNSET

    @property
    def is_response(self) -> bool:
        return self.method is None

    @property
    def size(self) -> int:
        """Bytes of its result."""
        return memoryview(self.result).nbytes if isinstance(self.result, msgspec.Raw) else 0

    def outcome(self) -> bytes:
        """The result of a response, without the secrets of this process. Raises RpcError, NotJsonRpc."""
        redactor = KNOWN.redactor
        if isinstance(self.error, _Error):
            data = redactor.redact_value(_small(self.error.data))
            raise RpcError(self.error.code, redactor.redact(self.error.message), data)
        if not isinstance(self.result, msgspec.Raw):
            raise NotJsonRpc("neither a result nor an error")
        return redactor.redact_json(bytes(self.result))


_decoder = msgspec.json.Decoder(Message)


def _small(data: msgspec.Raw) -> Any:
    """What an error says in detail; None where that is more than anybody here reads."""
    return msgspec.json.decode(data) if memoryview(data).nbytes <= _MAX_ERROR_DATA_BYTES else None


def decode(raw: bytes) -> Message:
    """One message. Raises NotJsonRpc; strict about UTF-8 also inside what is passed on raw."""
    try:
        raw.decode("utf-8")
        return _decoder.decode(raw)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        raise NotJsonRpc("not a JSON-RPC message") from None


def request(rpc_id: int | None, method: str, params: Mapping[str, Any] | None) -> bytes:
    """A request, or without an id a notification."""
    message: dict[str, Any] = {"jsonrpc": "2.0"}
    if rpc_id is not None:
        message["id"] = rpc_id
    message["method"] = method
    if params is not None:
        message["params"] = params
    return _encode(message)


def answer_to(message: Message) -> bytes:
    """What a server's own request gets: pings are answered, everything else is politely refused."""
    if message.method == "ping":
        return _encode({"jsonrpc": "2.0", "id": message.id, "result": {}})
    error = {"code": METHOD_NOT_FOUND, "message": "The gateway does not serve requests of tool servers."}
    return _encode({"jsonrpc": "2.0", "id": message.id, "error": error})


def meta(given: Mapping[str, Any] | None, *, modern: bool) -> dict[str, Any]:
    """`_meta` of a request: what the caller may say, and the modern envelope.

    Keys of the protocol itself are ours to set, and a progress token would promise what is not passed on.
    """
    kept = {
        key: value
        for key, value in (given or {}).items()
        if not key.startswith(_RESERVED_META) and key != "progressToken"
    }
    if modern:
        kept[_RESERVED_META + "protocolVersion"] = MODERN
        kept[_RESERVED_META + "clientInfo"] = _CLIENT_INFO
        kept[_RESERVED_META + "clientCapabilities"] = {}
    return kept


def initialize_params() -> dict[str, Any]:
    """What the legacy handshake opens with."""
    return {"protocolVersion": LEGACY[0], "capabilities": {}, "clientInfo": _CLIENT_INFO}


def header_value(text: str) -> bytes:
    """A value as the modern headers carry it: as it is, or in base64 where a header could not hold it."""
    if _HEADER_SAFE.fullmatch(text) and not (text.startswith("=?base64?") and text.endswith("?=")):
        return text.encode("ascii")
    return b"=?base64?" + base64.b64encode(text.encode()) + b"?="


class Mirror(NamedTuple):
    """An argument that the server wants repeated in a header (`x-mcp-header`)."""

    path: tuple[str, ...]
    header: bytes


_Path = tuple[Any, str] | None  # the path that it continues, and a step


def _steps(path: _Path) -> tuple[str, ...]:
    steps = []
    while path is not None:
        path, step = path
        steps.append(step)
    return tuple(reversed(steps))


def mirrors_of(definition: Mapping[str, Any]) -> tuple[Mirror, ...]:
    """The mirrors of a tool; none where one of them is not valid, or where they are too many."""
    found: dict[bytes, Mirror] = {}
    # Paths are written out only where they are needed: a schema may have many properties many levels down.
    pending: list[tuple[_Path, Any]] = [(None, definition.get("inputSchema"))]
    while pending:
        path, node = pending.pop()
        if not isinstance(node, dict):
            continue
        if "x-mcp-header" in node:
            name = node["x-mcp-header"]
            fit = path and isinstance(name, str) and _TOKEN.fullmatch(name) and node.get("type") in _MIRRORED_TYPES
            header = f"mcp-param-{name}".lower().encode() if fit else b""
            if not fit or header in found or len(found) >= _MAX_MIRRORS:
                return ()
            found[header] = Mirror(_steps(path), header)
        inner = node.get("properties")
        if isinstance(inner, dict):
            pending.extend(((path, key), value) for key, value in inner.items())
    return tuple(found.values())


def mirror_headers(mirrors: tuple[Mirror, ...], arguments: Mapping[str, Any]) -> tuple[tuple[bytes, bytes], ...]:
    """The headers that repeat those arguments which have a value."""
    headers = []
    for mirror in mirrors:
        value: Any = arguments
        for step in mirror.path:
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, bool):
            headers.append((mirror.header, b"true" if value else b"false"))
        elif isinstance(value, str | int | float):
            headers.append((mirror.header, header_value(str(value))))
    return tuple(headers)
