"""Names and attributes of spans, after the GenAI and MCP conventions. Nothing in here is content."""

from __future__ import annotations

from gateway.actions import Action, Decision, Kind, Rpc
from gateway.telemetry import names

Attributes = dict[str, str | bool | int | float | tuple[str, ...]]


def name_of(action: Action, *, known: bool) -> str:
    """`{operation} {target}`; without the target as long as it may be anything a client made up."""
    if action.kind is Kind.MODEL_INVOKE:
        return f"{names.CHAT} {action.target}" if known else names.CHAT
    operation = method_of(action)
    if operation is None:
        operation = names.EXECUTE_TOOL if action.kind is Kind.TOOL_CALL else names.OTHER_SPAN + action.kind.value
    return f"{operation} {tool_of(action)}" if known and action.kind is Kind.TOOL_CALL else operation


def method_of(action: Action) -> str | None:
    """The MCP method, where it was asked for as one."""
    return None if action.rpc is None else names.METHOD_OF_KIND.get(action.kind)


def tool_of(action: Action) -> str:
    """A tool's own name, without its server's."""
    server, mark, tool = action.target.partition("__")
    return tool if mark else server


def of_whole(action: Action) -> Attributes:
    """Of the span of an action, or of what is carried out of it later."""
    return {
        names.GATEWAY_ACTION_ID: action.id,
        names.GATEWAY_ACTION_KIND: action.kind.value,
        names.GATEWAY_REQUEST_ID: action.request_id,
        names.GATEWAY_TENANT: action.caller.agent.tenant,
        names.GATEWAY_DOOR: action.door,
        **of_agent(action),
        **of_target(action),
    }


def of_agent(action: Action) -> Attributes:
    """Who asked."""
    agent = action.caller.agent
    return {
        names.GEN_AI_AGENT_ID: agent.id,
        names.GEN_AI_AGENT_VERSION: agent.version,
        names.GEN_AI_CONVERSATION_ID: action.session.id,
    }


def of_target(action: Action) -> Attributes:
    """What was asked for, by the name that the agent gave it."""
    if action.kind is Kind.MODEL_INVOKE:
        return {names.GEN_AI_OPERATION_NAME: names.CHAT, names.GEN_AI_REQUEST_MODEL: action.target}
    about: Attributes = {}
    method = method_of(action)
    if method is not None:
        about[names.MCP_METHOD_NAME] = method
    if action.kind is Kind.TOOL_CALL:
        about[names.GEN_AI_OPERATION_NAME] = names.EXECUTE_TOOL
    if action.kind in (Kind.TOOL_CALL, Kind.TOOL_PROPOSE):
        about[names.GEN_AI_TOOL_NAME] = tool_of(action)
    return about


def of_rpc(rpc: Rpc | None) -> Attributes:
    """How it was asked."""
    if rpc is None:
        return {}
    return {names.MCP_PROTOCOL_VERSION: rpc.version, names.JSONRPC_REQUEST_ID: rpc.request_id}


def of_decision(decision: Decision) -> Attributes:
    """What was decided: the verdict, and what is done about it."""
    return {
        names.GATEWAY_POLICY_VERDICT: decision.effect.value,
        names.GATEWAY_POLICY_ACTION: names.POLICY_ACTION[decision.effect],
        names.GATEWAY_POLICY_REVISION: decision.revision,
        names.GATEWAY_POLICY_RULES: decision.rules,
    }
