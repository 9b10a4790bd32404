"""Builds the catalog's snapshot: manifests set against what their servers say, one verdict for each tool."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from gateway.actions import ModelTarget, ToolTarget
from gateway.catalog.definitions import Read
from gateway.catalog.manifests import Manifest
from gateway.catalog.status import ServerStatus, ToolStatus

_RISKS = ("low", "medium", "high", "critical")
_EFFECTS = ("read", "write", "egress", "destructive")
_NOT_NAMED = "No manifest names it; agents do not see it."
NOT_CONNECTED_YET = "Not connected yet."
_NO_CONNECTION = ("connecting", NOT_CONNECTED_YET)


class Snapshot(NamedTuple):
    """Everything a look-up needs. Never changed once made."""

    models: dict[str, ModelTarget]
    manifests: dict[str, Manifest]
    tools: dict[str, ToolTarget]  # by server__tool; of kind mcp; callable or not connected yet
    client_ids: dict[str, ToolTarget]  # by server__tool; of kind client
    client_names: dict[str, ToolTarget]  # by bare name; of kind client
    refused: dict[str, str]  # server__tool -> why it can't be called
    listed: dict[str, tuple[ToolTarget, ...]]  # by server; with live definitions
    everything: tuple[ToolTarget, ...]  # all listed
    bare: dict[str, tuple[ToolTarget, ...]]  # listed, by bare name
    servers: tuple[ServerStatus, ...]


EMPTY = Snapshot({}, {}, {}, {}, {}, {}, {}, (), {}, ())


def build(
    models: dict[str, ModelTarget],
    manifests: dict[str, Manifest],
    live: Mapping[str, Read],
    connections: Mapping[str, tuple[str, str]],
) -> Snapshot:
    """The snapshot; `live` is what servers that were reached say of their tools, `connections` their state."""
    tools: dict[str, ToolTarget] = {}
    client_ids: dict[str, ToolTarget] = {}
    refused: dict[str, str] = {}
    listed: dict[str, tuple[ToolTarget, ...]] = {}
    servers = []
    for server, manifest in sorted(manifests.items()):
        if manifest.kind == "client":
            mine = [manifest.target(name) for name in manifest.tools]
            client_ids |= {tool.id: tool for tool in mine}
            servers.append(_client_status(manifest))
            continue
        judged = [_judge(manifest, name, live.get(server)) for name in sorted(manifest.tools)]
        tools |= {tool.id: tool for tool, status in judged if status.state in ("live", "declared")}
        refused |= {tool.id: status.reason for tool, status in judged if status.state in ("quarantined", "absent")}
        listed[server] = tuple(tool for tool, status in judged if status.state == "live")
        state, reason = connections.get(server, _NO_CONNECTION)
        statuses = tuple(_reachable(status, state, reason) for _, status in judged)
        statuses += _unregistered(manifest, live.get(server))
        servers.append(
            ServerStatus(
                server=server,
                kind=manifest.kind,
                title=manifest.title,
                owner=manifest.owner,
                review=None if manifest.review is None else manifest.review.isoformat(),
                state=state,
                reason=reason,
                tools=statuses,
                warnings=_warnings(listed[server]),
            )
        )
    everything = tuple(tool for server in sorted(listed) for tool in listed[server])
    bare: dict[str, tuple[ToolTarget, ...]] = {}
    for tool in everything:
        bare[tool.tool] = (*bare.get(tool.tool, ()), tool)
    return Snapshot(
        models=models,
        manifests=manifests,
        tools=tools,
        client_ids=client_ids,
        client_names=_most_dangerous(client_ids.values()),
        refused=refused,
        listed=listed,
        everything=everything,
        bare=bare,
        servers=tuple(servers),
    )


def _judge(manifest: Manifest, name: str, live: Read | None) -> tuple[ToolTarget, ToolStatus]:
    """A declared tool against what its server says of it."""
    declared = manifest.tools[name]
    target = manifest.target(name)

    def status(state: str, reason: str = "", digest: str | None = None) -> ToolStatus:
        return ToolStatus(name, state, reason, digest, declared.pin, declared.risk, declared.effect)

    if live is None:
        return target, status("declared", "Its server was not reached yet.")
    if name in live.bad:
        return target, status("quarantined", f"{live.bad[name]} {manifest.owner} can look into it.")
    definition = live.good.get(name)
    if definition is None:
        return target, status("absent", "Its server does not offer it at present.")
    if declared.pin is not None and declared.pin != definition.digest:
        reason = f"Its definition is not the pinned one; {manifest.owner} must review it."
        return target, status("quarantined", reason, definition.digest)
    target = replace(target, definition=definition.raw, definition_digest=definition.digest)
    return target, status("live", "", definition.digest)


def _reachable(status: ToolStatus, connection: str, reason: str) -> ToolStatus:
    """A tool as people see it: `unreachable` with the reason, while its server is. It stays known to agents."""
    if connection != "unreachable" or status.state not in ("live", "declared"):
        return status
    return status._replace(state="unreachable", reason=f"Its server is not connected: {reason.rstrip('.')}.")


def _unregistered(manifest: Manifest, live: Read | None) -> tuple[ToolStatus, ...]:
    if live is None:
        return ()
    offered = {name: definition.digest for name, definition in live.good.items()} | dict.fromkeys(live.bad)
    return tuple(
        ToolStatus(name, "unregistered", live.bad.get(name, _NOT_NAMED), offered[name])
        for name in sorted(offered.keys() - manifest.tools.keys())
    )


def _warnings(tools: tuple[ToolTarget, ...]) -> tuple[str, ...]:
    """Arguments that a manifest describes and the server does not have: policy would look for them in vain."""
    found = []
    for tool in tools:
        properties = ((tool.definition or {}).get("inputSchema") or {}).get("properties")
        known = properties if isinstance(properties, dict) else {}
        missing = sorted(tool.arguments.keys() - known.keys())
        if missing:
            found.append(f"{tool.tool}: the manifest describes {', '.join(missing)}, which the server does not take.")
    return tuple(found)


def _client_status(manifest: Manifest) -> ServerStatus:
    return ServerStatus(
        server=manifest.server,
        kind=manifest.kind,
        title=manifest.title,
        owner=manifest.owner,
        review=None if manifest.review is None else manifest.review.isoformat(),
        state="client",
        reason="",
        tools=tuple(
            ToolStatus(name, "client", "", None, tool.pin, tool.risk, tool.effect)
            for name, tool in sorted(manifest.tools.items())
        ),
    )


def _most_dangerous(tools: Iterable[ToolTarget]) -> dict[str, ToolTarget]:
    def danger(tool: ToolTarget) -> tuple[int, int]:
        return _RISKS.index(tool.risk), _EFFECTS.index(tool.effect)

    found: dict[str, ToolTarget] = {}
    for tool in tools:
        if tool.tool not in found or danger(tool) > danger(found[tool.tool]):
            found[tool.tool] = tool
    return found
