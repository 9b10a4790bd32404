"""`/livez`, `/readyz`, `/metrics`: for whatever operates the process. Open to anyone who can reach the port.

`/livez` says that the process answers; it stays 200 while the gateway drains or is degraded, for a restart would
only make that worse. `/readyz` says whether traffic should come, and names what is missing; what is degraded but not
needed is named without its reason, which is for `gateway status`.
"""

from __future__ import annotations

from typing import Protocol

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from gateway.doors.health import Health


class Renders(Protocol):
    """Prometheus metrics as text, with their content type."""

    def render(self, accept: str = "") -> tuple[bytes, str]: ...


def probe_routes(health: Health, metrics: Renders) -> APIRouter:
    """The three routes."""
    routes = APIRouter(tags=["operations"])

    @routes.get("/livez", summary="The process answers")
    async def livez() -> PlainTextResponse:
        return PlainTextResponse("ok\n", headers={"cache-control": "no-store"})

    @routes.get("/readyz", summary="Traffic may come", responses={503: {"description": "Not ready; says why"}})
    async def readyz() -> JSONResponse:
        missing = {one.id: one.reason for one in health.unready()}
        return JSONResponse(
            {"ready": not missing, "missing": missing, "degraded": health.degraded()},
            status_code=503 if missing else 200,
            headers={"cache-control": "no-store"},
        )

    @routes.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
    async def show_metrics(request: Request) -> Response:
        body, media_type = metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": media_type})

    return routes
