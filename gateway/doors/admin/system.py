"""/api/v1/status, /reload, /models, /tools, /errors: what runs, and what it runs with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response

from gateway import __version__
from gateway.actions import AgentStatus
from gateway.audit.records import event
from gateway.clock import rfc3339
from gateway.documents import Problem, errors
from gateway.doors.admin.paging import Cursor, Limit, page
from gateway.doors.admin.parts import Parts, SeenTool, ServerState, ToolState
from gateway.doors.admin.people_in import Operator, PartsDep, Person
from gateway.doors.admin.schemas import ModelOut, SeenToolOut, ToolOut, ToolShown
from gateway.errors import CODES, Refusal

routes = APIRouter(tags=["gateway"])

_DAY_NS = 86_400 * 1_000_000_000


@routes.get("/status")
async def show_status(parts: PartsDep, person: Person) -> dict[str, Any]:
    """What runs, what is degraded since when, refusals by agent."""
    return await status(parts)


async def status(parts: Parts) -> dict[str, Any]:
    """The state of the gateway, for people."""
    replicas, refused = await _unless_away(parts.replicas()), await _unless_away(refusals(parts))
    conditions = parts.health.conditions()  # after these: what they waited for in vain is told
    log, agents = parts.log, parts.registry.agents.all()
    suspended = [one.agent.id for one in agents if one.agent.status is AgentStatus.SUSPENDED]
    return {
        "state": "degraded" if any(one.reason for one in conditions) else "ok",
        "version": __version__,
        "components": [
            {
                "id": one.id,
                "state": "ok" if one.reason is None else "degraded",
                "since": rfc3339(one.since_ns),
                "reason": one.reason,
            }
            for one in conditions
        ],
        "policy": {"revision": parts.policy.revision},
        "configuration": _configuration(parts),
        "console": {"own_host": parts.site.shares_host is None, "warning": parts.site.shares_host},
        "audit": {
            "size": log.size,
            "signed_size": log.signed_size,
            "unsigned": log.unsigned,
            "open_intents": log.open_intents,
            "latched": log.writer.latched,
        },
        "approvals": {"pending": parts.approvals.pending_count, "unknown": parts.approvals.unknown_count},
        "agents": {"registered": len(agents), "suspended": suspended},
        "models": len(parts.catalog.models()),
        "tool_servers": [_server(one) for one in parts.catalog.servers()],
        "replicas": replicas,
        "refusals": refused,
    }


def _configuration(parts: Parts) -> dict[str, list[str]]:
    """What is wrong with the files as they were read last. With errors, older ones are active."""
    problems = parts.configuration_problems()
    return {
        "errors": [str(one) for one in errors(problems)],
        "warnings": [str(one) for one in _warnings(problems)],
    }


async def _unless_away(found: Awaitable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Nothing where the database can't be asked just now: that it is away is told among the components."""
    try:
        return await found
    except Refusal:
        return []


async def refusals(parts: Parts) -> list[dict[str, Any]]:
    """Refused actions of the last 24 hours by agent and code, most first."""
    if parts.log.writer.latched is not None:
        return []
    found = await parts.log.refused(parts.clock.now_ns() - _DAY_NS)
    return [{"id": f"{one.agent}:{one.code}", **msgspec.structs.asdict(one)} for one in found]


@routes.post("/reload")
async def reload(parts: PartsDep, person: Operator) -> dict[str, Any]:
    """Read configuration, registry and policies again. If anything is invalid, the previous version stays active and
    this says why. `warnings`: what became active and probably does not mean what its author thinks."""
    who = person.person
    problems = await parts.reload(f"asked by {who.id}")
    failed = bool(errors(problems))
    await parts.log.append(
        event(
            "gateway.reload",
            tenant=who.tenant,
            person=who.id,
            subject={"policy": parts.policy.revision},
            labels={
                "outcome": "refused" if failed else "in force",
                "problems": str(len(errors(problems))),
                "warnings": str(len(problems) - len(errors(problems))),
            },
        )
    )
    if failed:
        raise Refusal(
            "invalid_configuration",
            f"{_errors(len(errors(problems)))} in the configuration. The previous version stays active. Fix"
            f" {'it' if len(errors(problems)) == 1 else 'them'} and reload.",
            detail={"problems": "\n".join(str(one) for one in [*errors(problems), *_warnings(problems)])},
        )
    return {"revision": parts.policy.revision, "warnings": [str(one) for one in problems]}


def _errors(count: int) -> str:
    return f"{count} error" if count == 1 else f"{count} errors"


def _warnings(problems: Sequence[Problem]) -> list[Problem]:
    return [one for one in problems if one.severity == "warning"]


@routes.get("/models")
async def list_models(
    parts: PartsDep, person: Person, request: Request, response: Response, limit: Limit = 100, cursor: Cursor = None
) -> Sequence[ModelOut]:
    """All model aliases, by id."""
    models = sorted((ModelOut.of(model) for model in parts.catalog.models()), key=lambda model: model.id)
    return page(models, lambda model: model.id, limit, cursor, request, response)


@routes.get("/tools")
async def list_tools(
    parts: PartsDep, person: Person, request: Request, response: Response, limit: Limit = 500, cursor: Cursor = None
) -> Sequence[ToolOut]:
    """All tools with their state, also those that agents can't use: quarantined, unregistered, absent."""
    return page(tools(parts), lambda tool: tool.id, limit, cursor, request, response)


@routes.get("/tools/seen")
async def list_seen_tools(
    parts: PartsDep,
    person: Person,
    request: Request,
    response: Response,
    agent: Annotated[str | None, Query(max_length=128, description="Only of this agent.")] = None,
    limit: Limit = 500,
    cursor: Annotated[str | None, Query(max_length=2000, description="Where the page before ended.")] = None,
) -> Sequence[SeenToolOut]:
    """Tools that agents were seen to declare in model calls and that no manifest describes, by agent and name."""
    found = page(parts.seen.all(agent), lambda tool: tool.id, limit, cursor, request, response)
    return [_seen(tool) for tool in found]


@routes.get("/tools/{tool_id:path}")
async def show_tool(tool_id: str, parts: PartsDep, person: Person) -> ToolShown:
    """A tool with its manifest entry and the definition its server sent."""
    found = next((tool for tool in tools(parts) if tool.id == tool_id), None)
    if found is None:
        raise Refusal("not_found", f"There is no tool {tool_id[:200]!r}; `gateway tools list` shows those there are.")
    live = parts.catalog.described(found.id)
    if live is None:
        return ToolShown(**found.model_dump())
    return ToolShown(
        **found.model_dump(),
        sentence=live.sentence,
        data_classes=list(live.data_classes),
        reversible=live.reversible,
        idempotent=live.idempotent,
        arguments={
            name: {"kind": kind.kind, "currency": kind.currency, "unit": kind.unit}
            for name, kind in live.arguments.items()
        },
        trusted_outputs=list(live.trusted_outputs),
        review=live.review,
        definition=live.definition,
    )


@routes.get("/errors")
async def list_errors() -> list[dict[str, Any]]:
    """Every code a refusal can have."""
    return [_code(name) for name in CODES]


@routes.get("/errors/{code}")
async def show_error(code: str) -> dict[str, Any]:
    """What a code means: the page that `type` of a problem points to."""
    if code not in CODES:
        raise Refusal("not_found", f"There is no error code {code[:64]!r}; /api/v1/errors lists them.")
    return _code(code)


def tools(parts: Parts) -> list[ToolOut]:
    """All tools of all servers, by id."""
    found = [_tool(server, tool) for server in parts.catalog.servers() for tool in server.tools]
    return sorted(found, key=lambda tool: tool.id)


def _tool(server: ServerState, tool: ToolState) -> ToolOut:
    return ToolOut(
        id=f"{server.server}__{tool.name}",
        server=server.server,
        tool=tool.name,
        kind=server.kind,
        owner=server.owner,
        state=tool.state,
        reason=tool.reason,
        risk=tool.risk,
        effect=tool.effect,
        digest=tool.digest,
        pin=tool.pin,
    )


def _seen(tool: SeenTool) -> SeenToolOut:
    return SeenToolOut(
        id=tool.id,
        agent=tool.agent,
        tool=tool.name,
        description=tool.description,
        parameters=tool.parameters,
        first_seen=rfc3339(tool.first_ns),
        last_seen=rfc3339(tool.last_ns),
        count=tool.count,
    )


def _server(one: ServerState) -> dict[str, Any]:
    return {
        "id": one.server,
        "kind": one.kind,
        "title": one.title,
        "owner": one.owner,
        "review": one.review,
        "state": one.state,
        "reason": one.reason,
        "tools": dict(Counter(tool.state for tool in one.tools)),
        "warnings": list(one.warnings),
    }


def _code(name: str) -> dict[str, Any]:
    code = CODES[name]
    return {"id": name, "http_status": code.http_status, "retry": code.retry, "meaning": code.meaning}
