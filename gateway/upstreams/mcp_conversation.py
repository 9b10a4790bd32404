"""One conversation with a tool server in either era of MCP, over any channel: agree on a version, list, call.

Knows the protocol, not how bytes travel: `mcp_http` and `mcp_stdio` are the channels.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import msgspec

from gateway.actions import Reply, Rpc
from gateway.errors import Refusal
from gateway.offload import run_sized
from gateway.protocols.json_size import MAX_CONTAINERS, has_too_many_containers
from gateway.upstreams import mcp_faults as faults
from gateway.upstreams import mcp_messages as messages
from gateway.upstreams.mcp_messages import Mirror, RpcError

MAX_PAGES = 100
MAX_TOOLS = 2000
MAX_LIST_BYTES = 8 * 1024 * 1024
"""Of all pages of one list."""

_objects = msgspec.json.Decoder(dict[str, Any])


class _Flags(msgspec.Struct, rename="camel"):
    is_error: msgspec.Raw = msgspec.Raw(b"false")


_TRUE = msgspec.Raw(b"true")
_flags = msgspec.json.Decoder(_Flags)


class Outgoing(NamedTuple):
    """A request on its way to a channel. `name` and `mirrored` are what modern headers repeat of it."""

    method: str
    params: dict[str, Any]
    name: str | None = None
    mirrored: tuple[tuple[bytes, bytes], ...] = ()
    once: bool = False  # has effects, or people voted on it: it is not sent a second time


class Outcome(NamedTuple):
    """The raw result of a request, and the id that it was sent with."""

    result: bytes
    rpc_id: int


class Channel(Protocol):
    """How a request gets to the server and its result back."""

    async def exchange(self, outgoing: Outgoing, timeout_s: float) -> Outcome:
        """The result. Raises Refusal, RpcError."""
        ...

    async def notify(self, method: str) -> None:
        """Send a notification. Raises Refusal."""
        ...

    def agreed(self, version: str) -> None:
        """The version both sides speak from now on."""
        ...


class Conversation:
    """What was agreed with a server, and the methods that are used of it."""

    def __init__(self, server: str, channel: Channel) -> None:
        self._server = server
        self._channel = channel
        self._mirrors: dict[str, tuple[Mirror, ...]] = {}
        self.version: str | None = None
        self.tells_of_changes = False  # capabilities.tools.listChanged

    @property
    def modern(self) -> bool:
        """Whether the agreed version is of the stateless era."""
        return self.version == messages.MODERN

    async def open(self, timeout_s: float) -> None:
        """Agree on a version: the modern one if the server answers `server/discover`, else a handshake.

        Raises Refusal. Anything that is no proof of a modern server leads to the handshake.
        """
        try:
            if await self._discover(timeout_s):
                return
        except RpcError as error:
            supported = _supported(error)
            if supported is not None and not any(version in messages.LEGACY for version in supported):
                raise self._no_common_version() from None
        except Refusal as refusal:
            if refusal.detail.get("probe") != "unanswered":
                raise
        try:
            await self._handshake(timeout_s)
        except RpcError as error:
            # A modern server that was too slow for the question has settled on its era meanwhile: ask again.
            if messages.MODERN not in (_supported(error) or ()):
                raise faults.of_rpc(self._server, error) from None
            if not await self._discover(timeout_s):
                raise self._no_common_version() from None

    async def _discover(self, timeout_s: float) -> bool:
        """Whether the server speaks the modern version. Raises Refusal, RpcError."""
        self.version = messages.MODERN
        self._channel.agreed(messages.MODERN)
        params = {"_meta": messages.meta(None, modern=True)}
        found = self._read((await self._channel.exchange(Outgoing("server/discover", params), timeout_s)).result)
        versions = found.get("supportedVersions")
        if not isinstance(versions, list) or messages.MODERN not in versions:
            return False
        self._capabilities(found)
        return True

    async def _handshake(self, timeout_s: float) -> None:
        """Raises Refusal, RpcError."""
        self.version = None
        self._channel.agreed("")
        outgoing = Outgoing("initialize", messages.initialize_params())
        found = self._read((await self._channel.exchange(outgoing, timeout_s)).result)
        version = found.get("protocolVersion")
        if version not in messages.LEGACY:
            raise self._no_common_version()
        self.version = str(version)
        self._channel.agreed(self.version)
        self._capabilities(found)
        await self._channel.notify("notifications/initialized")

    def _no_common_version(self) -> Refusal:
        return faults.failed(self._server, "it speaks no version of MCP that the gateway does", dispatched=False)

    def _capabilities(self, found: dict[str, Any]) -> None:
        capabilities = found.get("capabilities")
        tools = capabilities.get("tools") if isinstance(capabilities, dict) else None
        self.tells_of_changes = isinstance(tools, dict) and tools.get("listChanged") is True

    async def list_tools(self, timeout_s: float) -> list[dict[str, Any]]:
        """All definitions of all pages, raw. `timeout_s` is for each page. Raises Refusal."""
        tools: list[Any] = []
        size = 0
        seen: set[str] = set()
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            params: dict[str, Any] = {} if cursor is None else {"cursor": cursor}
            if self.modern:
                params["_meta"] = messages.meta(None, modern=True)
            try:
                body = (await self._channel.exchange(Outgoing("tools/list", params), timeout_s)).result
            except RpcError as error:
                raise faults.of_rpc(self._server, error) from None
            size += len(body)
            if size > MAX_LIST_BYTES:
                raise faults.failed(self._server, f"its list of tools is larger than {MAX_LIST_BYTES} bytes")
            page = await run_sized(len(body), self._read, body)
            found = page.get("tools")
            if not isinstance(found, list):
                raise faults.failed(self._server, "its list of tools is not a list")
            tools += found
            cursor = page.get("nextCursor")
            if cursor is None:
                self._mirrors = await run_sized(size, _mirrors_by_name, tools)
                return tools
            if not isinstance(cursor, str) or len(tools) > MAX_TOOLS or cursor in seen:
                break
            seen.add(cursor)
        raise faults.failed(self._server, f"its list of tools has no end (after {len(tools)})")

    async def call(
        self, tool: str, arguments: dict[str, Any], *, meta: dict[str, Any] | None, timeout_s: float, once: bool
    ) -> Reply:
        """Call a tool; `Reply.body` is the server's result as it came. Raises Refusal."""
        params: dict[str, Any] = {"name": tool, "arguments": arguments}
        modern = self.modern
        said = messages.meta(meta, modern=modern)
        if said:
            params["_meta"] = said
        mirrors = self._mirrors.get(tool) if modern else None
        mirrored = messages.mirror_headers(mirrors, arguments) if mirrors else ()
        try:
            outgoing = Outgoing("tools/call", params, tool, mirrored, once=once)
            body, rpc_id = await self._channel.exchange(outgoing, timeout_s)
        except RpcError as error:
            raise faults.of_rpc(self._server, error) from None
        try:
            flags = await run_sized(len(body), _flags.decode, body)
        except (msgspec.DecodeError, RecursionError):
            raise faults.failed(self._server, "its answer is not the result of a tool") from None
        rpc = Rpc(self.version or "", str(rpc_id))
        return Reply(body=body, headers={"is-error": "true"} if flags.is_error == _TRUE else {}, rpc=rpc)

    def _read(self, body: bytes) -> dict[str, Any]:
        if has_too_many_containers(body):
            raise faults.failed(self._server, f"its answer has more than {MAX_CONTAINERS} objects and arrays")
        try:
            return _objects.decode(body)
        except (msgspec.DecodeError, RecursionError):
            raise faults.failed(self._server, "its answer is not an object") from None


def _mirrors_by_name(tools: list[Any]) -> dict[str, tuple[Mirror, ...]]:
    return {
        tool["name"]: mirrors
        for tool in tools
        if isinstance(tool, dict) and isinstance(tool.get("name"), str) and (mirrors := messages.mirrors_of(tool))
    }


def _supported(error: RpcError) -> list[Any] | None:
    """The versions that a server names when it does not speak the one it was asked in."""
    named = error.data.get("supported") if isinstance(error.data, dict) else None
    return named if error.code == messages.UNSUPPORTED_VERSION and isinstance(named, list) else None
