"""From a manifest of the catalog to what upstreams/ needs to connect: composition, so that the rooms stay apart."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.catalog.catalog import Catalog
from gateway.catalog.manifests import Manifest, Stdio, StreamableHttp
from gateway.clock import Clock
from gateway.settings import child_environment, resolve, resolve_text
from gateway.upstreams.tool_servers import HttpServerConfig, ServerConfig, StdioServerConfig, ToolServers
from gateway.upstreams.wire import Transport


def server_configs(manifests: Iterable[Manifest]) -> list[ServerConfig]:
    """The servers that the gateway connects to; client manifests have none."""
    found: list[ServerConfig] = []
    for manifest in manifests:
        transport = manifest.transport
        if isinstance(transport, StreamableHttp):
            found.append(
                HttpServerConfig(
                    server=manifest.server,
                    url=transport.url,
                    credential=None if manifest.credential is None else manifest.credential.reference,
                    connect_timeout_s=transport.connect_timeout_s,
                    call_timeout_s=manifest.call_timeout_s,
                )
            )
        elif isinstance(transport, Stdio):
            found.append(
                StdioServerConfig(
                    server=manifest.server,
                    command=transport.command,
                    env=tuple(sorted(transport.env.items())),
                    cwd=transport.cwd,
                    call_timeout_s=manifest.call_timeout_s,
                )
            )
    return found


def make_tool_servers(catalog: Catalog, *, wire: Transport, clock: Clock) -> ToolServers:
    """The tool servers, telling `catalog` what they offer; `configure(server_configs(...))` starts them."""
    return ToolServers(
        transport=wire,
        resolve=resolve,
        resolve_text=resolve_text,
        child_environment=child_environment(),
        learn=catalog.learn,
        report=catalog.connection,
        clock=clock,
    )
