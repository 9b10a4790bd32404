"""/api/v1/policy: the policy in force, the folder it comes from, and why it decides as it does."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from gateway.actions import Action, Caller, Decision, Kind, Session, Trace
from gateway.documents import Problem, errors
from gateway.doors.admin.aiming import aimed, no_agent
from gateway.doors.admin.parts import Parts
from gateway.doors.admin.paths import API
from gateway.doors.admin.people_in import PartsDep, Person, Reader, anyone_signed_in
from gateway.doors.admin.schemas import AgentId, In, Text
from gateway.doors.admin.trail import record_read
from gateway.errors import Refusal
from gateway.policy import Examined, Explanation, build, failures, test
from gateway.policy.bundle import MEDIA_TYPE
from gateway.policy.known import Known
from gateway.settings import UnresolvedReference

routes = APIRouter(prefix=f"{API}/policy", tags=["policy"])


class ActionIn(In):
    """An action as an agent might ask for it."""

    agent: AgentId
    user: Text | None = None
    kind: Literal["model.invoke", "tool.call", "tool.list", "tool.propose"] | None = Field(
        default=None, description="Absent: model.invoke for a model alias, else tool.call."
    )
    target: str = Field(
        max_length=256, description="server__tool, a model alias, or the bare name of an agent's own tool."
    )
    arguments: dict[str, Any] = Field(default={})


@routes.get("")
async def show_policy(parts: PartsDep, person: Person) -> dict[str, Any]:
    """The policy in force."""
    return {"id": parts.policy.revision, "revision": parts.policy.revision, "path": str(_folder(parts))}


@routes.get("/bundle", response_class=Response, responses={200: {"content": {MEDIA_TYPE: {}}}, 304: {}})
async def fetch_bundle(request: Request, parts: PartsDep) -> Response:
    """The policies in force as a bundle, for OPA servers to poll. Open to people and to `policy.opa.bundle_token`."""
    if not _is_opa(request, parts):
        await anyone_signed_in(request, parts)
    engine = parts.configured.engine
    headers = {"ETag": f'"{engine.revision}"', "Cache-Control": "no-cache"}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(engine.bundle(), media_type=MEDIA_TYPE, headers=headers)


def _is_opa(request: Request, parts: Parts) -> bool:
    secret = parts.configured.config.policy.opa.bundle_token
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if secret is None or scheme.lower() != "bearer":
        return False
    with contextlib.suppress(UnresolvedReference):
        return hmac.compare_digest(token.strip().encode(), secret.resolve().encode())
    return False


@routes.post("/check")
async def check_folder(parts: PartsDep, person: Person) -> list[dict[str, Any]]:
    """What is wrong with the policies that are in the folder now; they need not be active. Warnings, such as names that
    do not exist, do not keep them from becoming active."""
    tests = parts.configured.config.policy.tests
    return [_problem(one) for one in await asyncio.to_thread(_check, _folder(parts), parts.known_names(), tests)]


@routes.post("/test")
async def test_folder(parts: PartsDep, person: Person) -> list[dict[str, Any]]:
    """Run the tests that lie in the folder now. Raises Refusal(invalid_configuration) if it does not load."""
    trials, problems = await asyncio.to_thread(test, _folder(parts))
    if wrong := errors(problems):
        raise Refusal(
            "invalid_configuration",
            f"The policies have {len(wrong)} {'error' if len(wrong) == 1 else 'errors'}, so no test was run. Fix"
            f" {'it' if len(wrong) == 1 else 'them'} first.",
            detail={"problems": "\n".join(str(one) for one in wrong)},
        )
    return [{"id": one.name, **asdict(one)} for one in trials]


@routes.post("/explain")
async def explain(wanted: ActionIn, parts: PartsDep, person: Person) -> dict[str, Any]:
    """What the active policy says to an action, and every rule that fired. Nothing happens, nothing is spent.

    `problems`: what is wrong with the files as they were read last, and names in rules and grants that do not exist.
    """
    agent = parts.registry.agents.get(wanted.agent)
    if agent is None:
        raise no_agent(parts, wanted.agent)
    kind = None if wanted.kind is None else Kind(wanted.kind)
    action = Action(
        id=parts.ids.new(),
        kind=kind or Kind.TOOL_CALL,
        door="explain",
        caller=Caller(agent, wanted.user, "explain", "explain"),
        session=Session("explain", "minted"),
        trace=Trace("0" * 32, "0" * 16),
        target=wanted.target,
        request_id="explain",
        received_ns=parts.clock.now_ns(),
        arguments=wanted.arguments,
    )
    decision = await parts.policy.decide(*aimed(parts, action, kind))
    explained = _explained(parts, parts.configured.engine.explain(decision.input))
    return {**explained, "decided": _decided(parts, decision)}


@routes.post("/explain/{action_id}")
async def explain_recorded(action_id: str, parts: PartsDep, person: Reader) -> dict[str, Any]:
    """The same for a recorded action: its recorded input, put to the policy that is in force now."""
    await record_read(parts, person, {"action": action_id[:64], "disclosed": "policy_input"})
    shown = await parts.log.show(action_id)
    for payload in shown.payloads:
        if payload.name == "policy_input" and payload.text is not None:
            recorded = shown.record.get("decision") or {}
            explained = _explained(parts, parts.configured.engine.explain(payload.text.encode()))
            return {**explained, "recorded": recorded}
    raise Refusal(
        "not_found", "The policy's input of this action was not kept (audit.capture), or erased; nothing to explain."
    )


def _decided(parts: Parts, decision: Decision) -> dict[str, Any]:
    """Who decided: what explains is always the engine in this process, by the revision in force here."""
    engine = "embedded" if parts.process.opa_url is None else "opa"
    return {"engine": engine, "effect": decision.effect.value, "revision": decision.revision}


def _folder(parts: Parts) -> Path:
    return parts.configured.config.policy.path


def _check(folder: Path, known: Known, tests: str) -> list[Problem]:
    # The engine that loading makes belongs to this thread and is thrown away with it.
    examined = Examined(folder)
    engine, problems = build(examined)
    if engine is not None and tests != "off":
        problems = [*problems, *failures(examined, is_error=tests == "required")]
    return [*problems, *examined.unknown_names(known)]


def _problem(one: Problem) -> dict[str, Any]:
    return {"id": f"{one.file}:{one.line}", **asdict(one)}


def _explained(parts: Parts, found: Explanation) -> dict[str, Any]:
    decision = found.decision
    return {
        "effect": decision.effect.value,
        "rules": list(decision.rules),
        "reasons": list(decision.reasons),
        "notes": list(decision.notes),
        "obligations": list(decision.obligations),
        "revision": decision.revision,
        "matched": found.matched,
        "lines": found.lines,
        "fault": found.fault,
        "problems": [str(one) for one in parts.configuration_problems()],
    }
