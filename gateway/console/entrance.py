"""Signing in with a one-time link, signing out, and what a page needs before anybody is signed in."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway.console.pages import HEADERS, Pages
from gateway.doors.admin.parts import Parts
from gateway.errors import Refusal
from gateway.identity.console_site import page_of_console
from gateway.identity.people import SESSION_VALID_S, Person
from gateway.identity.signed_in import SignedIn, is_from_elsewhere

FIRST_PAGE = "/console/overview"
_OWN_ADDRESS = "Nobody can sign in under this address. The console has its own: open the link as it is printed."


async def login(parts: Parts, pages: Pages, request: Request) -> Response:
    """Show whom a link signs in. Opening it changes nothing: mail scanners and previews open links too."""
    link, next_page = request.query_params.get("token", ""), request.query_params.get("next", "")
    if not link or not parts.site.is_at(request.headers):
        return sign_in_page(parts, pages, request, "Sign in with a one-time link.", next_page, status_code=200)
    try:
        person = await _invited(parts, link)
    except Refusal as refusal:
        return _not_signed_in(parts, pages, request, refusal, next_page)
    return pages.render("sign_in_as.html", who=None, person=person, token=link, next=page_of_console(next_page) or "")


async def use_link(parts: Parts, pages: Pages, request: Request) -> Response:
    """Use up the link, set the cookie, show the page that was wanted.

    Raises Refusal(forbidden) for a form of another site (it would sign a person in as somebody else), and
    Refusal(wrong_host) where the cookie would reach others.
    """
    if not parts.site.is_at(request.headers):
        raise Refusal("wrong_host", _OWN_ADDRESS)
    if is_from_elsewhere(request.headers, parts.site):
        raise Refusal("forbidden", "The sign-in did not come from this gateway's own page; open the link yourself.")
    form = await request.form(max_files=0)
    link, next_page = _link_in(str(form.get("token", ""))), str(form.get("next", ""))
    try:
        await _invited(parts, link)
        _, secret, _ = await parts.registry.people.sign_in(link)
    except Refusal as refusal:
        return _not_signed_in(parts, pages, request, refusal, next_page)
    response = RedirectResponse(page_of_console(next_page) or FIRST_PAGE, status_code=303, headers=HEADERS)
    response.set_cookie(
        parts.site.cookie,
        secret,
        max_age=SESSION_VALID_S,
        path="/",
        httponly=True,
        samesite="strict",
        secure=parts.site.is_https,
    )
    return response


async def logout(parts: Parts, pages: Pages, who: SignedIn, request: Request) -> Response:
    """End the session."""
    await parts.registry.people.sign_out(who.secret)
    response = sign_in_page(parts, pages, request, "You are signed out.", status_code=200)
    response.delete_cookie(parts.site.cookie, path="/", httponly=True, samesite="strict", secure=parts.site.is_https)
    return response


def sign_in_page(
    parts: Parts, pages: Pages, request: Request, message: str, next_page: str | None = None, *, status_code: int = 401
) -> Response:
    """How to sign in, and a form for a link that was opened elsewhere. `next_page`: else the one that was asked for."""
    here = parts.site.is_at(request.headers)
    wanted = page_of_console(_asked_for(request) if next_page is None else next_page)
    # A browser keeps a SameSite=Strict cookie back where a link on another site led here; from our page it comes.
    linked = request.method == "GET" and request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
    return pages.render(
        "sign_in.html",
        who=None,
        status_code=status_code,
        message=message if here else _OWN_ADDRESS,
        here=here,
        next=wanted or "",
        again=wanted if here and linked else None,
    )


_KEPT = {
    "cache-control": "public, max-age=31536000, immutable",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}


async def static(pages: Pages, request: Request) -> Response:
    """Style, icon and scripts: for everybody, since there is nothing of anybody in them."""
    asset = pages.assets.get(str(request.path_params["name"]))
    if asset is None:
        raise HTTPException(404)
    return Response(asset.content, media_type=asset.media_type, headers=_KEPT)


def _not_signed_in(parts: Parts, pages: Pages, request: Request, refusal: Refusal, next_page: str) -> Response:
    """The page that says why a link did not sign anybody in. Raises a refusal that is not about the link."""
    if refusal.code != "unauthenticated":
        raise refusal
    parts.governor.unauthenticated()
    return sign_in_page(parts, pages, request, refusal.message, next_page)


async def _invited(parts: Parts, link: str) -> Person:
    person = parts.registry.people.invited(link)
    if person is None and await parts.look_again():  # another replica may have made it a moment ago
        person = parts.registry.people.invited(link)
    if person is None:
        raise Refusal(
            "unauthenticated", "This sign-in link was used already or has expired; run `gateway login` for a new one."
        )
    return person


def _link_in(typed: str) -> str:
    """The secret in what was put into the form: the secret itself, or the whole link."""
    typed = typed.strip()
    return parse_qs(urlsplit(typed).query).get("token", [""])[0] if "?" in typed else typed


def _asked_for(request: Request) -> str:
    """The page that a person wanted: the one they asked for, or the one that a form was on."""
    if request.method in ("GET", "HEAD"):
        path, query = request.scope["path"], request.url.query
        return f"{path}?{query}" if query else path
    sent_from = urlsplit(request.headers.get("referer", ""))
    if sent_from.netloc != request.headers.get("host"):
        return ""
    return f"{sent_from.path}?{sent_from.query}" if sent_from.query else sent_from.path
