"""Every page and form of the console, listed in order. Mounted under /console."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from gateway.console import actions_pages, approvals_pages, entrance, tables
from gateway.console.pages import Pages
from gateway.doors.admin.parts import Parts
from gateway.doors.admin.people_in import person_of
from gateway.errors import Refusal
from gateway.identity.signed_in import SignedIn, signed_in

Page = Callable[[Parts, Pages, SignedIn, Request], Awaitable[Response]]


def console_app(parts: Parts) -> Starlette:
    """The console over `parts`."""
    pages = Pages(pending=lambda: parts.approvals.pending_count)

    def signed(page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            who = await person_of(request, parts)
            return await page(parts, pages, who, request)

        return answer

    async def home(request: Request) -> Response:
        return RedirectResponse("/console/overview", status_code=303)

    app = Starlette(
        routes=[
            Route("/", home),
            Route("/login", partial(entrance.login, parts, pages)),
            Route("/login", partial(entrance.use_link, parts, pages), methods=["POST"]),
            Route("/logout", signed(entrance.logout), methods=["POST"]),
            Route("/overview", signed(tables.overview)),
            Route("/approvals", signed(approvals_pages.queue)),
            Route("/approvals/{case_id}", signed(approvals_pages.case)),
            Route("/approvals/{case_id}/reviews", signed(approvals_pages.vote), methods=["POST"]),
            Route("/approvals/{case_id}/comments", signed(approvals_pages.comment), methods=["POST"]),
            Route("/approvals/{case_id}/cancel", signed(approvals_pages.cancel), methods=["POST"]),
            Route("/approvals/{case_id}/reconcile", signed(approvals_pages.reconcile), methods=["POST"]),
            Route("/activity", signed(actions_pages.activity)),
            Route("/activity/{action_id}", signed(actions_pages.one_action)),
            Route("/activity/{action_id}", signed(actions_pages.disclose), methods=["POST"]),
            Route("/agents", signed(tables.agents)),
            Route("/tools", signed(tables.tools)),
            Route("/models", signed(tables.models)),
            Route("/audit", signed(tables.audit)),
            Route("/static/{name}", partial(entrance.static, pages)),
        ],
        exception_handlers={
            Refusal: partial(_refused, pages, parts),
            HTTPException: partial(_http, pages),
        },
    )
    app.router.redirect_slashes = False  # such a redirect would name the host
    return app


async def _refused(pages: Pages, parts: Parts, request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    if error.code == "unauthenticated":
        parts.governor.unauthenticated()
        return entrance.sign_in_page(parts, pages, request, error.message)
    return pages.render(
        "message.html",
        who=_who(parts, request),
        status_code=error.http_status,
        title=_title(error),
        message=error.message,
    )


async def _http(pages: Pages, request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    title, message = "No such page", "Nothing is here; the overview leads on."
    if error.status_code == 405:
        title, message = "Not like this", "The page exists, but cannot be asked for in this way."
    response = pages.render("message.html", who=None, status_code=error.status_code, title=title, message=message)
    response.headers.update(error.headers or {})
    return response


def _who(parts: Parts, request: Request) -> SignedIn | None:
    try:
        return signed_in(parts.registry.people, "GET", request.headers, parts.site)
    except Refusal:
        return None


def _title(refusal: Refusal) -> str:
    titles = {"forbidden": "Not for you", "not_found": "Not found", "audit_unavailable": "The trail cannot be read"}
    return titles.get(refusal.code, "That did not work")
