"""The administration as one FastAPI application: every route listed in order."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from fastapi.responses import RedirectResponse
from starlette.types import ASGIApp

from gateway import __version__
from gateway.doors.admin import agents, approvals, own, people, policy, problem, sessions, system, trail
from gateway.doors.admin.parts import Parts
from gateway.doors.admin.replies import Replies
from gateway.doors.probes import probe_routes

_DESCRIPTION = """Administration, the audit trail, and what an agent may ask about itself.

People authenticate with a bearer token (`gateway login --token`, `operator.token` in the data directory), or with the
console's cookie under the console's own host; `/me` and `/actions` take an agent's key. Errors are problem details
(RFC 9457); their `code` is one of `/api/v1/errors`. Lists are arrays; `Link: …; rel="next"` leads on."""


def admin_app(parts: Parts, console: ASGIApp | None = None) -> FastAPI:
    """Everything that is not a hot door, over `parts`; `console` is served under /console."""
    app = FastAPI(
        title="Agent Governance Gateway",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # the interactive pages load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.parts = parts
    app.state.replies = Replies(parts.clock)
    problem.install(app, parts.ids.new, parts.governor.unauthenticated)
    api = APIRouter(prefix="/api/v1")
    for room in (system, agents, people, sessions, approvals, policy, trail, own):
        api.include_router(room.routes)
    app.include_router(api)
    app.include_router(probe_routes(parts.health, parts.metrics))
    if console is not None:

        @app.get("/", include_in_schema=False)
        @app.get("/console", include_in_schema=False)
        async def home() -> RedirectResponse:
            return RedirectResponse("/console/overview", status_code=303)

        app.mount("/console", console)

    return app
