"""Overview, agents, tools, models, audit: what there is, as it is now."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.console.pages import CASE_READERS, READERS, Pages
from gateway.doors.admin import system, trail
from gateway.doors.admin.parts import Parts
from gateway.doors.admin.schemas import AgentOut, ModelOut
from gateway.errors import Refusal
from gateway.identity.signed_in import SignedIn


async def overview(parts: Parts, pages: Pages, who: SignedIn, request: Request) -> Response:
    """What runs, what is degraded, who was refused."""
    found = await system.status(parts)
    reads = who.may(*CASE_READERS)
    return pages.render("overview.html", who=who, path="/console/overview", status=found, may_read_cases=reads)


async def agents(parts: Parts, pages: Pages, who: SignedIn, request: Request) -> Response:
    """All registered agents."""
    found = [AgentOut.of(one) for one in parts.registry.agents.all()]
    return pages.render("agents.html", who=who, path="/console/agents", agents=found, may_read=who.may(*READERS))


async def tools(parts: Parts, pages: Pages, who: SignedIn, request: Request) -> Response:
    """All tools with their state."""
    servers = list(parts.catalog.servers())
    return pages.render("tools.html", who=who, path="/console/tools", servers=servers)


async def models(parts: Parts, pages: Pages, who: SignedIn, request: Request) -> Response:
    """All model aliases."""
    found = sorted((ModelOut.of(one) for one in parts.catalog.models()), key=lambda one: one.id)
    return pages.render("models.html", who=who, path="/console/models", models=found)


async def audit(parts: Parts, pages: Pages, who: SignedIn, request: Request) -> Response:
    """The log's head and its last checkpoint."""
    who.require(*READERS)
    try:
        last = await trail.checkpoint(parts)
    except Refusal:
        last = None
    return pages.render(
        "audit.html",
        who=who,
        path="/console/audit",
        log=parts.log,
        latched=parts.log.writer.latched,
        unsigned=parts.log.unsigned,
        last=last,
    )
