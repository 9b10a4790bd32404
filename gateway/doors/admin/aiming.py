"""What an action that a person imagines is aimed at, and for what is not there, a sentence for people.

An agent may not learn whether a tool exists; whoever asks here may, so the nearest name is offered.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gateway.actions import Action, Kind, Target
from gateway.documents import suggest
from gateway.doors.admin.parts import Parts
from gateway.errors import Refusal


def aimed(parts: Parts, action: Action, kind: Kind | None) -> tuple[Action, Target]:
    """The action with its kind and its target; without `kind`, the one that its target is asked for.

    A tool that agents execute themselves, by its full id or its bare name, is judged when a model proposes it, so that
    is what it becomes. `tool.list` of one tool asks whether that tool is listed. Raises Refusal: unknown_tool,
    model_not_found.
    """
    models = {model.alias: model for model in parts.catalog.models()}
    model = models.get(action.target)
    if kind is Kind.MODEL_INVOKE or (kind is None and model is not None):
        if model is None:
            message = f"There is no model alias {action.target!r}."
            raise _none("model_not_found", message, action.target, models, "gateway.yaml has all.")
        return msgspec.structs.replace(action, kind=Kind.MODEL_INVOKE), model
    if model is not None:
        raise Refusal("unknown_tool", f"{action.target} is a model alias: use --kind model.invoke, or no --kind.")
    if kind is Kind.TOOL_LIST:
        return _listed(parts, action)
    return _called(parts, action, kind or Kind.TOOL_CALL)


def no_agent(parts: Parts, agent_id: str) -> Refusal:
    """There is no agent of this id."""
    ids = [one.agent.id for one in parts.registry.agents.all()]
    return _none("not_found", f"There is no agent {agent_id!r}.", agent_id, ids, "`gateway agents list` shows all.")


def _called(parts: Parts, action: Action, kind: Kind) -> tuple[Action, Target]:
    own = parts.catalog.client_tool(action.target)
    found = own or parts.catalog.described(action.target)
    if found is None:
        raise _no_tool(parts, action.target)
    if found.server_kind == "client":
        kind = Kind.TOOL_PROPOSE
    return msgspec.structs.replace(action, kind=kind, target=found.id), found


def _listed(parts: Parts, action: Action) -> tuple[Action, Target]:
    listing = msgspec.structs.replace(action, kind=Kind.TOOL_LIST, arguments={})
    tool = parts.catalog.described(action.target)
    if tool is not None:
        return msgspec.structs.replace(listing, target=tool.server), tool
    servers = [one.server for one in parts.catalog.servers() if one.kind == "mcp"]
    if action.target not in (*servers, "*"):
        if "__" in action.target:
            raise _no_tool(parts, action.target)
        message = f"There is no tool server {action.target!r}."
        raise _none("unknown_tool", message, action.target, servers, _ALL_TOOLS)
    return listing, parts.catalog.target(listing)


_ALL_TOOLS = "`gateway tools list` shows all."


def _no_tool(parts: Parts, name: str) -> Refusal:
    every = {f"{server.server}__{tool.name}": tool for server in parts.catalog.servers() for tool in server.tools}
    if name in every:
        tool = every[name]
        return Refusal("unknown_tool", f"Nobody can call {name} now: it is {tool.state}. {tool.reason}".strip())
    bare = {tool.name: full for full, tool in sorted(every.items(), reverse=True)}
    near = suggest(name, every) or bare.get(suggest(name, bare) or "")
    return _none("unknown_tool", f"There is no tool {name!r}.", name, every, _ALL_TOOLS, near=near)


def _none(
    code: str, message: str, name: str, known: Iterable[str], otherwise: str, *, near: str | None = None
) -> Refusal:
    close = near or suggest(name, known)
    return Refusal(code, f"{message} Did you mean {close!r}? {otherwise}" if close else f"{message} {otherwise}")
