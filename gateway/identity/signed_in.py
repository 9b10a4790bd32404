"""From a browser's or a script's request to the person who sent it; and whether a write truly comes from them.

Raises `Refusal("unauthenticated")` and `Refusal("forbidden")`. A cookie travels with whatever page made the
browser send it, so a write that is authenticated by cookie must come from our own pages (Origin or
Sec-Fetch-Site, https://developer.mozilla.org/docs/Web/HTTP/Headers/Origin). A bearer token does not travel by
itself and needs no such check.
"""

from __future__ import annotations

from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import NamedTuple
from urllib.parse import urlsplit

from gateway.errors import Refusal
from gateway.identity import tokens
from gateway.identity.people import People, Person, Role

COOKIE = "gateway_console"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class SignedIn(NamedTuple):
    """A person as their request proved them. `by_cookie`: a browser."""

    person: Person
    secret: str
    by_cookie: bool

    def may(self, *roles: Role) -> bool:
        """Whether the person has one of `roles`."""
        return any(role in self.person.roles for role in roles)

    def require(self, *roles: Role) -> None:
        """Raises Refusal(forbidden) unless the person has one of `roles`."""
        if not self.may(*roles):
            wanted = " or ".join(roles)
            raise Refusal(
                "forbidden", f"This needs the role {wanted}, which {self.person.id} has not; ask an operator for it."
            )


def signed_in(people: People, method: str, headers: Mapping[str, str], public_url: str | None) -> SignedIn:
    """The person behind a request. `headers` are looked up in lower case."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        token = token.strip()
        person = people.who(token)
        if person is None or person.removed_ns is not None:
            raise Refusal(
                "unauthenticated",
                "An agent's key does not open this door; it is for people (`gateway login`)."
                if token.startswith(tokens.AGENT_KEY)
                else "The token is not known or has expired; run `gateway login`.",
            )
        return SignedIn(person, token, by_cookie=False)
    secret = _cookie(headers.get("cookie", ""))
    person = people.who(secret) if secret else None
    if person is None or person.removed_ns is not None:
        raise Refusal("unauthenticated", "You are not signed in; run `gateway login` and open the link it prints.")
    if method not in _SAFE_METHODS and not same_origin(headers, public_url):
        raise Refusal(
            "forbidden", "The request did not come from a page of this gateway; open the console and do it there."
        )
    return SignedIn(person, secret, by_cookie=True)


def same_origin(headers: Mapping[str, str], public_url: str | None) -> bool:
    """Whether the browser says that a page of ours sent this. A request that says nothing does not count."""
    site = headers.get("sec-fetch-site")
    if site is not None and site not in {"same-origin", "none"}:
        return False
    origin = headers.get("origin")
    if origin is None or origin == "null":  # null: a referrer policy hides it; the browser's word on the site counts
        return site == "same-origin"
    ours = {headers.get("host", "")}
    if public_url is not None:
        ours.add(urlsplit(public_url).netloc)
    netloc = urlsplit(origin).netloc
    return bool(netloc) and netloc in ours


def _cookie(header: str) -> str:
    if not header:
        return ""
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return "" if morsel is None else morsel.value
