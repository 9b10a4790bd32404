"""What an agent may ask about itself, with its own key: /api/v1/me and /api/v1/actions/{id}."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request

from gateway.actions import Action, Kind
from gateway.audit.view import Filter
from gateway.doors.admin.parts import Parts
from gateway.doors.admin.people_in import PartsDep
from gateway.doors.admin.problem import request_id_of
from gateway.errors import Refusal

routes = APIRouter(tags=["for agents"])

MAX_WAIT_S = 25.0
_LOOK_EVERY_S = 0.25
_ENDS = {"action.result", "action.refused"}


@routes.get("/me")
async def show_me(request: Request, parts: PartsDep) -> dict[str, Any]:
    """Who you are, which models and tools you see, what is left of your limits.

    `listed` of a tool says that it is shown to you, not that a call passes: that depends on the arguments, and each
    call is decided anew. `effect` is the tool's own: read, write, destructive or egress. A tool that is not here does
    not exist for you.
    """
    listing = _listing(request, parts, "*")
    caller = listing.caller
    tools = [
        {
            "id": tool.id,
            "server": tool.server,
            "tool": tool.tool,
            "listed": True,
            "effect": tool.effect,
            "risk": tool.risk,
        }
        for tool in await parts.governor.list_tools(listing)
    ]
    models = await parts.governor.list_models(
        msgspec.structs.replace(listing, id=parts.ids.new(), kind=Kind.MODEL_INVOKE)
    )
    return {
        "agent": {
            "id": caller.agent.id,
            "team": caller.agent.team,
            "use_case": caller.agent.use_case,
            "env": caller.agent.env,
            "version": caller.agent.version,
            "status": caller.agent.status.value,
        },
        "user": caller.user,
        "session": {"id": listing.session.id, "source": listing.session.source},
        "models": [{"id": model.alias, "max_output_tokens": model.max_output_tokens} for model in models],
        "tools": tools,
        "limits": parts.limits.remaining(caller.agent.id, caller.user),
        "waiting": [],
    }


@routes.get("/actions/{action_id}")
async def show_action(
    action_id: str,
    request: Request,
    parts: PartsDep,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="Seconds to wait for the end.")] = 0.0,
) -> dict[str, Any]:
    """How one of your actions stands; `status` is null while it runs."""
    caller = parts.registry.identity.identify(request.scope["headers"])
    deadline_s = parts.clock.monotonic_s() + wait
    while True:
        found = await parts.log.query(Filter(action=action_id[:64], limit=10))
        mine = [record for record in found.records if _is_of(record, caller.agent.id, caller.user)]
        if not mine and parts.clock.monotonic_s() >= deadline_s:
            raise Refusal("not_found", "You have no action with this id; it stands in x-gateway-action.")
        shown = _state(action_id, mine) if mine else None
        if shown is not None and (shown["status"] is not None or parts.clock.monotonic_s() >= deadline_s):
            return shown
        await asyncio.sleep(_LOOK_EVERY_S)


def _listing(request: Request, parts: Parts, target: str) -> Action:
    intake = parts.desk.admit(request.scope, request_id_of(request.scope))
    if intake.fault is not None:
        raise intake.fault
    return parts.desk.action(intake, kind=Kind.TOOL_LIST, door="me", target=target, arguments={})


def _is_of(record: dict[str, Any], agent: str, user: str | None) -> bool:
    actor = record.get("actor") or {}
    return actor.get("agent") == agent and actor.get("user") == user


def _state(action_id: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    """From an action's records, newest first."""
    last = records[0]
    ended = last["type"] in _ENDS
    result = (last.get("result") or {}) if ended else {}
    decided: dict[str, Any] = next((one["decision"] for one in reversed(records) if one.get("decision")), {})
    return {
        "id": action_id,
        "kind": last["action"]["kind"],
        "status": result.get("status"),
        "code": result.get("code"),
        "decision": decided.get("effect"),
        "rules": decided.get("rules", []),
        "reasons": decided.get("reasons", []),
        "cost": last.get("cost"),
        "since": records[-1]["ts"],
        "ended": last["ts"] if ended else None,
    }
