"""The catalog: one immutable snapshot in memory that every look-up reads, replaced whole on change.

Look-ups are dictionary reads without a lock; changes (`install`, `learn`) build the next snapshot and assign it
in one step. It belongs to the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from gateway.actions import Action, Kind, ModelTarget, Target, ToolTarget
from gateway.catalog.definitions import NOTHING, Read, read_definitions
from gateway.catalog.manifests import Manifest
from gateway.catalog.models import PriceRow, model_targets
from gateway.catalog.snapshot import EMPTY, Snapshot, build
from gateway.catalog.status import Learned, ServerStatus
from gateway.errors import NO_SUCH_MODEL, Refusal
from gateway.settings import Config

_OWN = "gateway__"  # the gateway's own tools, such as gateway__approval_status

__all__ = ["Catalog", "PriceRow", "Proposed", "Snapshot"]


class Proposed(Protocol):
    """A tool call that a model's answer asks for."""

    @property
    def name(self) -> str: ...
    @property
    def parameters(self) -> dict[str, Any] | None: ...


class Catalog:
    """Answers what an action is aimed at. `price` gives the price of a model that the configuration does not."""

    def __init__(self, *, price: Callable[[str], PriceRow | None] = lambda model: None) -> None:
        self._price = price
        self._live: dict[str, Read] = {}
        self._connections: dict[str, tuple[str, str]] = {}
        self._now = EMPTY

    # ------------------------------------------------------------ change

    def prepare(self, config: Config, manifests: Iterable[Manifest]) -> Snapshot:
        """The snapshot for a configuration, with what is known of live servers; nothing is changed yet."""
        models = model_targets(config, self._price)
        return self._build(models, {manifest.server: manifest for manifest in manifests})

    def install(self, snapshot: Snapshot) -> None:
        """Swap to a prepared snapshot. What is known of servers that it does not have is forgotten."""
        kept = snapshot.manifests
        self._live = {server: read for server, read in self._live.items() if server in kept}
        self._connections = {server: state for server, state in self._connections.items() if server in kept}
        # Built anew: a server may have spoken since `prepare`.
        self._now = self._build(snapshot.models, snapshot.manifests)

    def learn(self, server: str, definitions: list[dict[str, Any]]) -> Learned:
        """Take in the whole list of tools that a server sent; what it came to. Unknown servers are ignored."""
        return self.take(server, self.read(server, definitions))

    def read(self, server: str, definitions: list[dict[str, Any]]) -> Read:
        """What a list of tools says. It changes nothing and may take seconds: any thread may do it."""
        return read_definitions(definitions, self._live.get(server, NOTHING))

    def take(self, server: str, read: Read) -> Learned:
        """Take in what `read` gave."""
        manifest = self._now.manifests.get(server)
        if manifest is None:
            return Learned(server, (), {}, (), (), ())
        before = self._live.get(server)
        self._live[server] = read
        self._now = self._build(self._now.models, self._now.manifests)
        status = next(one for one in self._now.servers if one.server == server)
        names: dict[str, list[str]] = {}
        for tool in status.tools:
            names.setdefault(tool.state, []).append(tool.name)
        changed = [
            name
            for name, definition in read.good.items()
            if before is not None and name in before.good and before.good[name].digest != definition.digest
        ]
        return Learned(
            server=server,
            live=tuple(names.get("live", ())),
            quarantined={tool.name: tool.reason for tool in status.tools if tool.state == "quarantined"},
            unregistered=tuple(names.get("unregistered", ())),
            absent=tuple(names.get("absent", ())),
            changed=tuple(changed),
            warnings=status.warnings,
        )

    def connection(self, server: str, state: str, reason: str) -> None:
        """Note the state of the connection to a server, for `servers`."""
        if self._connections.get(server) != (state, reason) and server in self._now.manifests:
            self._connections[server] = (state, reason)
            self._now = self._build(self._now.models, self._now.manifests)

    # ------------------------------------------------------------ look up

    def target(self, action: Action) -> Target:
        """What an action is aimed at. Raises Refusal: model_not_found, unknown_tool, not_governed."""
        now = self._now
        if action.kind is Kind.MODEL_INVOKE:
            return self.model(action.target)
        if action.kind is Kind.TOOL_CALL:
            return now.tools.get(action.target) or self._refuse_tool(action.target)
        if action.kind is Kind.TOOL_PROPOSE:
            found = now.tools.get(action.target) or now.client_ids.get(action.target)
            return found or self._refuse_tool(action.target)
        if action.kind is Kind.TOOL_LIST:
            return self._server(action.target)
        raise Refusal("not_governed", f"The gateway does not govern {action.kind.value} yet.")

    def model(self, alias: str) -> ModelTarget:
        """The model of an alias. Raises Refusal model_not_found."""
        found = self._now.models.get(alias)
        if found is None:
            raise Refusal("model_not_found", NO_SUCH_MODEL)
        return found

    def models(self) -> tuple[ModelTarget, ...]:
        """All models, in the order of the configuration."""
        return tuple(self._now.models.values())

    def tool(self, server: str, tool: str) -> ToolTarget:
        """A tool that the gateway executes, connected or not. Raises Refusal unknown_tool."""
        return self._now.tools.get(f"{server}__{tool}") or self._refuse_tool(f"{server}__{tool}")

    def tools(self, server: str | None = None) -> tuple[ToolTarget, ...]:
        """The callable tools with live definitions, of one server or all, in a fixed order."""
        return self._now.everything if server is None else self._now.listed.get(server, ())

    def definition(self, tool: str) -> dict[str, Any] | None:
        """The live definition of `server__tool`; None where there is none."""
        found = self._now.tools.get(tool)
        return None if found is None else found.definition

    def described(self, tool: str) -> ToolTarget | None:
        """What is known of `server__tool`, also where agents execute it themselves."""
        return self._now.tools.get(tool) or self._now.client_ids.get(tool)

    def client_tool(self, name: str) -> ToolTarget | None:
        """An agent's own tool by its bare name; where two manifests have it, the more dangerous one."""
        return self._now.client_names.get(name)

    def executable(self, proposal: Proposed) -> ToolTarget | None:
        """The tool of ours that a proposed call means: by its full name, or its bare one with equal parameters."""
        now = self._now
        found = now.tools.get(proposal.name)
        if found is not None or proposal.parameters is None:
            return found
        for tool in now.bare.get(proposal.name, ()):
            if tool.definition is not None and tool.definition.get("inputSchema") == proposal.parameters:
                return tool
        return None

    def describes(self, tool: Proposed) -> bool:
        """Whether a manifest describes a tool that an agent says it has, or it is one of ours."""
        now = self._now
        if tool.name in now.client_names or tool.name in now.tools or tool.name.startswith(_OWN):
            return True
        return tool.name in now.bare and self.executable(tool) is not None

    def manifests(self) -> tuple[Manifest, ...]:
        """All manifests that take part."""
        return tuple(self._now.manifests.values())

    def servers(self) -> tuple[ServerStatus, ...]:
        """All servers with their connection and the state of each tool, for operators."""
        return self._now.servers

    def server_known(self, server: str) -> bool:
        """Whether there is a tool server of that name that the gateway executes."""
        return server in self._now.listed

    def _server(self, name: str) -> ToolTarget:
        manifest = self._now.manifests.get(name)
        if name != "*" and (manifest is None or manifest.kind != "mcp"):
            raise Refusal("unknown_tool", "There is no tool server of this name, or not for this agent.")
        owner = "" if manifest is None else manifest.owner
        return ToolTarget(server=name, tool="*", server_kind="mcp", owner=owner, risk="low", effect="read")

    def _refuse_tool(self, tool: str) -> ToolTarget:
        reason = self._now.refused.get(tool)
        if reason is not None:
            raise Refusal("unknown_tool", f"The tool {tool} can't be called: {reason}")
        raise Refusal("unknown_tool", "There is no tool of this name, or not for this agent; list the tools again.")

    def _build(self, models: dict[str, ModelTarget], manifests: dict[str, Manifest]) -> Snapshot:
        return build(models, manifests, self._live, self._connections)
