"""The input document, version 1: everything a policy may ask about, as JSON under `input`.

What comes from registration, configuration and verified credentials stands under its own name; what the agent
merely says of itself stands under `claimed`. Policies that are given the same document decide the same: there is no
other input, no clock and no network. Fields are only ever added; a changed meaning is version 2.
"""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import msgspec

from gateway.actions import Action, Agent, ModelTarget, Target, ToolTarget
from gateway.errors import Refusal

VERSION = 1


class ActionPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked. `digest` is keyed per tenant and stands for target and arguments; empty where unknown."""

    kind: str  # model.invoke, tool.call, tool.propose, tool.list, ...
    id: str  # UUIDv7
    digest: str
    arguments: dict[str, Any]  # money in whole minor units: policies compare integers, never fractions
    stream: bool


class AgentPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The agent as it was registered."""

    id: str
    version: str
    team: str
    use_case: str
    tier: str
    status: str  # active, suspended
    env: str
    owners: dict[str, str]
    labels: dict[str, str]


class SessionPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The run that this action belongs to, and what the gateway knows of it."""

    id: str
    source: str  # header, client, path, trace, chain, minted
    facts: dict[str, Any]


class ClaimedPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the agent says of itself, unproven."""

    session: str | None
    purpose: str | None


class ArgumentPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an argument means, from the manifest."""

    kind: str  # payee, money, email, address, url, path, object_id, text
    currency: str | None
    unit: str | None  # money: cents, units


class ToolPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="tool"):
    """A tool as its manifest declares it."""

    id: str  # server__tool
    server: str
    tool: str
    kind: str  # mcp: the gateway executes it; client: the agent does
    owner: str
    risk: str  # low, medium, high, critical
    effect: str  # read, write, destructive, egress
    data_classes: tuple[str, ...]
    reversible: bool
    idempotent: bool
    arguments: dict[str, ArgumentPart]
    declared: bool  # false: no manifest declares it
    definition_digest: str | None


class ModelPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="model"):
    """A model alias as it is configured."""

    id: str  # the alias
    alias: str
    provider: str
    model: str
    owner: str
    risk: str
    data_classes: tuple[str, ...]


class SettingsPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the gateway that rules go by."""

    undeclared_client_tools: str  # deny, escalate, observe


class VotePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person who approved, with the groups of reviewers that the person belongs to now."""

    person: str
    groups: tuple[str, ...] = ()


class ApprovalPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A case that people approved, when policy is asked again before the action is carried out."""

    case: str
    votes: tuple[VotePart, ...]
    presented_digest: str  # of the card that they were shown


class InputV1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole document."""

    v: Literal[1]
    now_ns: int  # nanoseconds since the Unix epoch, UTC
    environment: str  # dev, stage, prod: what this gateway serves
    tenant: str
    door: str
    action: ActionPart
    agent: AgentPart
    user: str | None  # the person the agent acts for, as its credential proved
    session: SessionPart
    claimed: ClaimedPart
    target: ToolPart | ModelPart
    settings: SettingsPart
    limits: dict[str, Any]  # what is left of the budgets
    approval: ApprovalPart | None  # an approval in force for exactly this action


_ENCODER = msgspec.json.Encoder()


def document(
    action: Action,
    target: Target,
    *,
    environment: str,
    undeclared: str,
    limits: dict[str, Any],
    facts: dict[str, Any],
    now_ns: int,
    approval: dict[str, Any] | None = None,
) -> bytes:
    """The input document for an action on a target, as JSON.

    Raises Refusal `malformed` if the arguments hold what JSON does not know (NaN, infinities, lone surrogates) or
    nest without end, msgspec.ValidationError if `approval` is not an ApprovalPart. Integers of any size are
    written as they are.
    """
    agent, claimed, session = action.caller.agent, action.claimed, action.session
    arguments: Any = action.arguments
    whole = InputV1(
        1,
        now_ns,
        environment,
        agent.tenant,
        action.door,
        ActionPart(action.kind, action.id, action.digest, arguments, action.stream),
        _agent(agent),
        action.caller.user,
        SessionPart(session.id, session.source, facts),
        ClaimedPart(claimed.session, claimed.purpose),
        _target(target),
        SettingsPart(undeclared),
        limits,
        None if approval is None else msgspec.convert(approval, ApprovalPart),
    )
    try:
        try:
            raw = _ENCODER.encode(whole)
        except OverflowError:  # an integer of more than 64 bits, which the fast encoder does not write
            exact = msgspec.Raw(json.dumps(arguments, allow_nan=False).encode())
            part: Any = msgspec.structs.replace(whole.action, arguments=exact)
            raw = _ENCODER.encode(msgspec.structs.replace(whole, action=part))
        if b"null" in raw and not _finite(arguments):  # the encoder writes NaN and infinities as null
            raise ValueError("not a finite number")
    except (ValueError, TypeError, RecursionError):
        raise Refusal(
            "malformed",
            "The arguments hold something that JSON does not know, such as NaN or half a character. Send plain JSON.",
        ) from None
    return raw


def _agent(agent: Agent) -> AgentPart:
    return AgentPart(
        agent.id,
        agent.version,
        agent.team,
        agent.use_case,
        agent.tier,
        agent.status,
        agent.env,
        agent.owners,
        agent.labels,
    )


def _target(target: Target) -> ToolPart | ModelPart:
    if isinstance(target, ModelTarget):
        return ModelPart(
            target.alias,
            target.alias,
            target.provider,
            target.model,
            target.owner,
            target.risk,
            target.data_classes,
        )
    return _tool(target)


def _tool(target: ToolTarget) -> ToolPart:
    return ToolPart(
        target.id,
        target.server,
        target.tool,
        target.server_kind,
        target.owner,
        target.risk,
        target.effect,
        target.data_classes,
        target.reversible,
        target.idempotent,
        {name: ArgumentPart(one.kind, one.currency, one.unit) for name, one in target.arguments.items()},
        target.declared,
        target.definition_digest,
    )


def _finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(_finite(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(_finite(item) for item in value)
    return True


def json_schema() -> bytes:
    """The JSON Schema (2020-12) of the document, generated from the types; kept as policies/input.schema.json."""
    schema = msgspec.json.schema(InputV1)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Input of data.gateway.decision, version 1",
    }
    return json.dumps({**head, **schema}, indent=2, ensure_ascii=False).encode() + b"\n"
