"""Signing in with a one-time link, signing out, and what a page needs before anybody is signed in."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway.console.pages import HEADERS, Pages
from gateway.doors.admin.parts import Parts
from gateway.identity.people import SESSION_VALID_S
from gateway.identity.signed_in import COOKIE, SignedIn


async def login(parts: Parts, pages: Pages, request: Request) -> Response:
    """Use up the link, set the cookie, go on. Raises Refusal(unauthenticated) for a link that is not good."""
    token = request.query_params.get("token", "")
    if request.method == "HEAD":  # a look at the link must not use it up
        return Response(headers=HEADERS)
    if not token:
        return pages.render("sign_in.html", who=None, message="Sign in with a one-time link.")
    await parts.look_again()  # the link may have been made by another replica a moment ago
    _, secret, _ = await parts.registry.people.sign_in(token)
    # Browsers keep a SameSite=Strict cookie back where another site began the chain of redirects (a link in a
    # chat). The welcome page ends that chain: what it leads to is a step within this site.
    response = RedirectResponse("/console/welcome", status_code=303, headers=HEADERS)
    response.set_cookie(
        COOKIE,
        secret,
        max_age=SESSION_VALID_S,
        path="/",
        httponly=True,
        samesite="strict",
        secure=is_https(parts, request),
    )
    return response


async def welcome(pages: Pages, request: Request) -> Response:
    """Signed in; leads to the overview by itself."""
    response = pages.render("welcome.html", who=None)
    response.headers["refresh"] = "0; url=/console/overview"
    return response


async def logout(parts: Parts, pages: Pages, who: SignedIn, request: Request) -> Response:
    """End the session."""
    await parts.registry.people.sign_out(who.secret)
    response = pages.render("sign_in.html", who=None, message="You are signed out.")
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict", secure=is_https(parts, request))
    return response


_KEPT = {"cache-control": "public, max-age=31536000, immutable", "x-content-type-options": "nosniff"}


async def static(pages: Pages, request: Request) -> Response:
    """Style, icon and scripts: for everybody, since there is nothing of anybody in them."""
    asset = pages.assets.get(str(request.path_params["name"]))
    if asset is None:
        raise HTTPException(404)
    return Response(asset.content, media_type=asset.media_type, headers=_KEPT)


def is_https(parts: Parts, request: Request) -> bool:
    """Whether the browser reaches us over TLS, perhaps ended by a proxy that `GATEWAY_PUBLIC_URL` tells of."""
    return request.url.scheme == "https" or (parts.process.public_url or "").startswith("https://")
