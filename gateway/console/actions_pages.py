"""Recent actions, and one action with all its records. Looking is recorded; payloads only on demand."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from gateway.actions import Effect, Kind, ToolTarget
from gateway.audit.show import Shown
from gateway.audit.view import Filter
from gateway.catalog.sentences import render_sentence
from gateway.console.activity import row, rows
from gateway.console.pages import READERS, Pages
from gateway.doors.admin.parts import Parts
from gateway.doors.admin.trail import record_read
from gateway.errors import Refusal
from gateway.identity.signed_in import SignedIn

_RECORDS = 200
_OF_ONE = 100
KINDS = (Kind.MODEL_INVOKE, Kind.TOOL_CALL, Kind.TOOL_PROPOSE, Kind.TOOL_LIST)


async def activity(parts: Parts, pages: Pages, who: SignedIn, request: Request) -> Response:
    """Recent actions, newest first; filters by agent, decision and kind."""
    who.require(*READERS)
    asked = {name: request.query_params.get(name) or None for name in ("agent", "effect", "kind")}
    cursor = request.query_params.get("cursor") or None
    chosen = {name: value[:128] for name, value in asked.items() if value}
    await record_read(parts, who, {"page": "activity", "query": chosen})
    agent, effect, kind = chosen.get("agent"), chosen.get("effect"), chosen.get("kind")
    found = await parts.log.query(
        Filter(type="action.*", limit=_RECORDS, cursor=cursor, agent=agent, effect=effect, kind=kind)
    )
    return pages.render(
        "activity.html",
        who=who,
        path="/console/activity",
        rows=await rows(found.records, lambda action_id: _records(parts, action_id)),
        agents=[one.agent.id for one in parts.registry.agents.all()],
        effects=[effect.value for effect in Effect],
        kinds=[kind.value for kind in KINDS],
        chosen={name: chosen.get(name, "") for name in asked},
        older=None if found.cursor is None else urlencode({**chosen, "cursor": found.cursor}),
        newest=cursor is None,
    )


async def one_action(parts: Parts, pages: Pages, who: SignedIn, request: Request) -> Response:
    """One action: its decision, its end, all its records and the commitments of its payloads."""
    return await _show(parts, pages, who, request, disclose=False)


async def disclose(parts: Parts, pages: Pages, who: SignedIn, request: Request) -> Response:
    """The same with its payloads opened: a form's answer, so that no link and no prefetch can ask for it."""
    return await _show(parts, pages, who, request, disclose=True)


async def _show(parts: Parts, pages: Pages, who: SignedIn, request: Request, *, disclose: bool) -> Response:
    who.require(*READERS)
    action_id = str(request.path_params["action_id"])[:64]
    await record_read(parts, who, {"action": action_id, "disclosed": "yes" if disclose else "no"})
    records = await _records(parts, action_id)
    if not records:
        raise Refusal("not_found", f"No action has the id {action_id}.")
    opened = [await parts.log.show(one["id"], disclose=True) for one in records] if disclose else []
    related = await parts.log.show(records[-1]["id"], disclose=False)
    others = {one["action"]["id"]: row(one["action"]["id"], [one]) for one in related.related if one.get("action")}
    others.pop(records[0]["action"]["id"], None)
    return pages.render(
        "action.html",
        who=who,
        path="/console/activity",
        row=row(action_id, records),
        first=records[-1],
        records=list(reversed(records)),
        signed_size=parts.log.signed_size,
        others=list(others.values()),
        disclosed=disclose,
        payloads={one.record["id"]: [_readable(payload) for payload in one.payloads] for one in opened},
        sentence=_sentence(parts, records[-1], opened),
        case_id=next((one["case"] for one in records if one.get("case")), None),
    )


async def _records(parts: Parts, action_id: str) -> list[dict[str, Any]]:
    return (await parts.log.query(Filter(action=action_id, limit=_OF_ONE))).records


def _readable(payload: Any) -> dict[str, Any]:
    text: str | None = payload.text
    if text is not None and payload.media == "application/json":
        try:
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            text = payload.text  # shown as it was sent
    return {"name": payload.name, "state": payload.state, "text": text, "base64": payload.base64}


def _sentence(parts: Parts, first: dict[str, Any], opened: list[Shown]) -> str | None:
    """The manifest's sentence with the disclosed arguments in it; None where there are none."""
    action = first["action"]
    if action["kind"] not in (Kind.TOOL_CALL, Kind.TOOL_PROPOSE):
        return None
    target = next((one for one in _tools(parts, action) if one.tool == action.get("tool")), None)
    for shown in opened:
        for payload in shown.payloads:
            if payload.name == "arguments" and payload.text is not None and target is not None:
                try:
                    arguments = json.loads(payload.text)
                except (ValueError, RecursionError):
                    return None
                return render_sentence(target, arguments) if isinstance(arguments, dict) else None
    return None


def _tools(parts: Parts, action: dict[str, Any]) -> tuple[ToolTarget, ...]:
    return parts.catalog.tools(action.get("server"))
