"""An action read back from the record of its intent, where nothing else is left of it."""

from __future__ import annotations

from typing import Any

from gateway.actions import Action, Agent, Caller, Decision, Effect, Kind, Session, ToolTarget, Trace
from gateway.audit.leaf import Leaf

IDEMPOTENT = "idempotent"
"""The label of an intent whose tool may simply be called again."""


def lost_call(intent: Leaf, arguments: dict[str, Any] | None) -> tuple[Action, ToolTarget, Decision] | None:
    """A tool call that may have had its effect; None for anything that may simply be asked for again.

    `arguments` is None where they were not kept; the people who find out see that they are missing.
    """
    part, actor = intent.action, intent.actor
    if part is None or actor is None or actor.agent is None or part.kind != Kind.TOOL_CALL:
        return None
    if part.effect in (None, "read") or IDEMPOTENT in intent.labels or part.server is None or part.tool is None:
        return None
    target = ToolTarget(
        server=part.server,
        tool=part.tool,
        server_kind="mcp",
        owner="",
        risk=part.risk or "critical",
        effect=part.effect or "write",
        definition_digest=part.definition_digest,
    )
    agent = Agent(
        id=actor.agent,
        tenant=intent.tenant,
        env=intent.env,
        version=actor.version or "",
        team=intent.labels.get("team", ""),
        use_case=intent.labels.get("use_case", ""),
    )
    session, trace = intent.session, intent.trace
    action = Action(
        id=part.id,
        kind=Kind.TOOL_CALL,
        door=intent.labels.get("door", ""),
        caller=Caller(agent, actor.user, intent.labels.get("credential", ""), actor.authn or ""),
        session=Session("", "minted") if session is None else Session(session.id, session.source),
        trace=Trace("0" * 32, "0" * 16) if trace is None else Trace(trace.trace_id, trace.span_id, trace.parent_id),
        target=target.id,
        request_id="" if trace is None else trace.request or "",
        received_ns=0,
        arguments={"(not kept)": "The arguments were not kept."} if arguments is None else arguments,
        digest=part.digest or "",
    )
    rules = () if intent.decision is None else tuple(intent.decision.rules)
    return action, target, Decision(effect=Effect.ALLOW, rules=rules)
