"""What an agent may ask about itself, with its own key: /api/v1/me, /api/v1/actions/{id}, and taking one back."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request

from gateway.actions import Action, Caller, Kind, Status
from gateway.approvals.case import Case, State
from gateway.audit.view import Filter
from gateway.clock import rfc3339
from gateway.doors.admin.parts import Parts
from gateway.doors.admin.paths import API
from gateway.doors.admin.people_in import PartsDep
from gateway.doors.admin.problem import request_id_of
from gateway.errors import UNTOLD, Refusal

routes = APIRouter(prefix=API, tags=["for agents"])

MAX_WAIT_S = 25.0
_LOOK_EVERY_S = 0.25
_ENDS = {"action.result", "action.refused"}
_WAITING_PAGES = 10
_GOING_ON = frozenset({State.PENDING, State.APPROVED, State.EXECUTING})
# Of an action whose case has ended; those that are missing are called like the case.
_STATUS: dict[State, str | None] = {
    **dict.fromkeys(_GOING_ON),
    State.DENIED: Status.DENIED,
    State.INVALIDATED: Status.BLOCKED,
}


@routes.get("/me")
async def show_me(request: Request, parts: PartsDep) -> dict[str, Any]:
    """Who you are, which models and tools you see, what is left of your limits, and which actions wait for people.

    `listed` of a tool says that it is shown to you, not that a call passes: that depends on the arguments, and each
    call is decided anew. `effect` is the tool's own: read, write, destructive or egress. A tool that is not here does
    not exist for you.
    """
    listing = await _listing(request, parts, "*")
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
        "limits": parts.limits.remaining(
            caller.agent.id,
            caller.user,
            tenant=caller.agent.tenant,
            team=caller.agent.team,
            use_case=caller.agent.use_case,
            session=listing.session.id,
        ),
        "waiting": await _waiting(parts, caller),
    }


@routes.get("/actions/{action_id}")
async def show_action(
    action_id: str,
    request: Request,
    parts: PartsDep,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="Seconds to wait for the end.")] = 0.0,
) -> dict[str, Any]:
    """How one of your actions stands; `status` is null while it runs or waits for a person.

    `case` is the case it waits in, `guidance` what people or the gateway tell you of it, `result` the stored result
    while it is kept. The id of the case serves as well. Asking claims an approved action that waits to be claimed.
    """
    caller = await parts.desk.identify(request.scope["headers"])
    deadline_s = parts.clock.monotonic_s() + wait
    while True:
        mine = await _records(parts, caller, action_id)
        joined = next((one["labels"]["joined"] for one in mine if "joined" in one["labels"]), None)
        if joined is not None:  # an identical call was in flight, and its end is this one's too
            mine = await _records(parts, caller, joined)
        case_id = await _case_of(parts, caller, action_id, mine)
        left_s = max(0.0, deadline_s - parts.clock.monotonic_s())
        if case_id is not None:
            asking = await _own_case(request, parts, "gateway__approval_status", {"case_id": case_id, "wait_s": left_s})
            told = await parts.governor.approval_status(asking, case_id, left_s)
            return await _with_case(parts, caller, action_id, told)
        if not mine and not left_s:
            raise Refusal("not_found", "You have no action with this id; it stands in x-gateway-action.")
        shown = _state(action_id, mine) if mine else None
        if shown is not None and (shown["status"] is not None or not left_s):
            return shown
        await asyncio.sleep(min(_LOOK_EVERY_S, left_s))


@routes.post("/actions/{action_id}/cancel")
async def cancel_action(action_id: str, request: Request, parts: PartsDep) -> dict[str, Any]:
    """Take back one of your actions that waits for a person. `decided` where it is too late."""
    caller = await parts.desk.identify(request.scope["headers"])
    case_id = await _case_of(parts, caller, action_id, await _records(parts, caller, action_id))
    if case_id is None:
        raise Refusal("not_found", "None of your actions with this id waits for a person; /api/v1/me lists those.")
    asking = await _own_case(request, parts, "gateway__approval_cancel", {"case_id": case_id})
    return await _with_case(parts, caller, action_id, await parts.governor.cancel_case(asking, case_id))


async def _listing(request: Request, parts: Parts, target: str) -> Action:
    intake = await parts.desk.admit(request.scope, request_id_of(request.scope))
    if intake.fault is not None:
        raise intake.fault
    return parts.desk.action(intake, kind=Kind.TOOL_LIST, door="me", target=target, arguments={})


async def _own_case(request: Request, parts: Parts, target: str, arguments: dict[str, Any]) -> Action:
    """The action of an agent that asks about its own case: decided and recorded by the governor."""
    intake = await parts.desk.admit(request.scope, request_id_of(request.scope))
    if intake.fault is not None:
        raise intake.fault
    return parts.desk.action(intake, kind=Kind.TOOL_CALL, door="actions", target=target, arguments=arguments)


async def _records(parts: Parts, caller: Caller, action_id: str) -> list[dict[str, Any]]:
    """The agent's own records of an action, newest first; what people did to its case is not among them."""
    found = await parts.log.query(Filter(action=action_id[:64], agent=caller.agent.id, limit=20))
    return [record for record in found.records if _is_of(record, caller.agent.id, caller.user)]


def _is_of(record: dict[str, Any], agent: str, user: str | None) -> bool:
    actor = record.get("actor") or {}
    return actor.get("agent") == agent and actor.get("user") == user


async def _case_of(parts: Parts, caller: Caller, wanted: str, records: list[dict[str, Any]]) -> str | None:
    """The case that an action waits or waited in, or that `wanted` itself names, if it is the caller's own."""
    named = next((one["case"] for one in records if one.get("case")), None if records else wanted)
    if named is None:
        return None
    try:
        case = await parts.approvals.case(named)
    except Refusal as refusal:
        if refusal.code != "not_found":
            raise
        return None
    return case.id if _is_own(case, caller) else None


def _is_own(case: Case, caller: Caller) -> bool:
    asked = case.action.caller
    return (asked.agent.tenant, asked.agent.id, asked.user) == (caller.agent.tenant, caller.agent.id, caller.user)


async def _waiting(parts: Parts, caller: Caller) -> list[dict[str, Any]]:
    """The agent's own cases that have not ended, newest first."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    for _ in range(_WAITING_PAGES):
        page = await parts.approvals.find(status="open", agent=caller.agent.id, limit=100, cursor=cursor)
        found += [
            {
                "id": case.id,
                "action": case.action.id,
                "kind": case.kind.value,
                "target": case.target_id,
                "state": case.state.value,
                "opened": rfc3339(case.opened_ns),
                "expires": rfc3339(case.expires_ns),
            }
            for case in page.cases
            if _is_own(case, caller)
        ]
        cursor = page.cursor
        if cursor is None:
            break
    return found


async def _with_case(parts: Parts, caller: Caller, action_id: str, told: dict[str, Any]) -> dict[str, Any]:
    """An action as its case has it by now."""
    case = await parts.approvals.case(told["case_id"])
    records = await _records(parts, caller, action_id)
    shown = _state(action_id, records or await _records(parts, caller, case.action.id) or [_bare(case)])
    result = told.get("result")
    return {
        **shown,
        "id": action_id if records else case.action.id,
        "status": _STATUS.get(case.state, case.state.value),
        "code": case.code,
        "ended": None if case.state in _GOING_ON or case.ended_ns is None else rfc3339(case.ended_ns),
        "case": {
            "id": case.id,
            "state": case.state.value,
            "version": case.version,
            "opened": rfc3339(case.opened_ns),
            "expires": rfc3339(case.expires_ns),
        },
        "guidance": told["guidance"],
        "result": None if result is None else _readable(result),
    }


def _bare(case: Case) -> dict[str, Any]:
    """In place of records that the query view does not have yet."""
    action = {"id": case.action.id, "kind": case.kind.value}
    return {"type": "action.requested", "ts": rfc3339(case.opened_ns), "action": action}


def _readable(result: Any) -> Any:
    """A stored result as JSON where it is JSON, else as text."""
    if not isinstance(result, bytes):
        return result
    try:
        return msgspec.json.decode(result)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return result.decode(errors="replace")


def _state(action_id: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    """From an action's records, newest first."""
    last = records[0]
    ended = last["type"] in _ENDS
    result = (last.get("result") or {}) if ended else {}
    decided: dict[str, Any] = next((one["decision"] for one in reversed(records) if one.get("decision")), {})
    if result.get("code") in UNTOLD:
        decided = {}
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
        "case": None,
        "guidance": "",
        "result": None,
    }
