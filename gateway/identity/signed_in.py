"""From a browser's or a script's request to the person who sent it; and whether it truly comes from them.

Raises `Refusal("unauthenticated")` and `Refusal("forbidden")`. A cookie travels with whatever page made the browser
send it, so it counts only under the console's own host, a write that it authenticates must come from our own pages
(Origin or Sec-Fetch-Site, https://developer.mozilla.org/docs/Web/HTTP/Headers/Origin), and so must a read that is no
navigation. A bearer token does not travel by itself and needs no such check; the secret of a cookie is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import NamedTuple

from gateway.errors import Refusal
from gateway.identity import tokens
from gateway.identity.console_site import ConsoleSite
from gateway.identity.origin import Origin
from gateway.identity.people import People, Person, Role

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_ELSEWHERE = "The request did not come from a page of this gateway; open the console and do it there."


class SignedIn(NamedTuple):
    """A person as their request proved them. `by_cookie`: a browser. `origin`: who made what proved them."""

    person: Person
    secret: str
    by_cookie: bool
    origin: Origin

    @property
    def by_api_token(self) -> bool:
        """Whether a script's token proved them, which must not outlive itself by making others."""
        return not self.by_cookie and self.secret.startswith(tokens.API_TOKEN)

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

    def now(self, people: People) -> Person | None:
        """The person as they are by now; None once what proved them has ended."""
        person = people.who(self.secret) if self.by_cookie else people.who_bears(self.secret)
        return None if person is None or person.removed_ns is not None else person


def signed_in(people: People, method: str, headers: Mapping[str, str], site: ConsoleSite) -> SignedIn:
    """The person behind a request. `headers` are looked up in lower case."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return _by_token(people, token.strip())
    secret = _cookie(headers.get("cookie", ""), site.cookie)
    if secret and not site.is_at(headers):
        raise Refusal(
            "unauthenticated",
            "You are not signed in under this address: a sign-in counts only under the console's own; run"
            " `gateway login` and open the link it prints.",
        )
    person = people.who(secret) if secret else None
    if person is None or person.removed_ns is not None:
        raise Refusal("unauthenticated", "You are not signed in; run `gateway login` and open the link it prints.")
    if method in _SAFE_METHODS:
        if not _is_navigation(headers) and is_from_elsewhere(headers, site):
            raise Refusal("forbidden", _ELSEWHERE)
    elif not same_origin(headers, site):
        raise Refusal("forbidden", _ELSEWHERE)
    return SignedIn(person, secret, by_cookie=True, origin=people.origin(secret, by_cookie=True))


def same_origin(headers: Mapping[str, str], site: ConsoleSite) -> bool:
    """Whether the browser says that a page of ours sent this. A request that says nothing does not count."""
    fetched = headers.get("sec-fetch-site")
    if fetched is not None and fetched not in {"same-origin", "none"}:
        return False
    origin = headers.get("origin")
    if origin is None or origin == "null":  # null: a referrer policy hides it; the browser's word on the site counts
        return fetched == "same-origin"
    return site.is_origin(origin, headers)


def is_from_elsewhere(headers: Mapping[str, str], site: ConsoleSite) -> bool:
    """Whether a browser says that a page that is not ours sent this. What is no browser says nothing."""
    says_something = "origin" in headers or headers.get("sec-fetch-site", "none") != "none"
    return says_something and not same_origin(headers, site)


def _by_token(people: People, token: str) -> SignedIn:
    person = people.who_bears(token)
    if person is not None and person.removed_ns is None:
        return SignedIn(person, token, by_cookie=False, origin=people.origin(token, by_cookie=False))
    if token.startswith(tokens.AGENT_KEY):
        message = "An agent's key does not open this door; it is for people (`gateway login`)."
    elif token.startswith(tokens.CONSOLE_SESSION):
        message = "The secret of a console session is no token; `gateway login --token` makes one."
    else:
        message = "The token is not known, was revoked or has expired; `gateway login --token` makes another."
    raise Refusal("unauthenticated", message)


def _is_navigation(headers: Mapping[str, str]) -> bool:
    """Whether the answer becomes the page of a window, which its opener can't read (Cross-Origin-Opener-Policy)."""
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest", "document") == "document"


def _cookie(header: str, name: str) -> str:
    if not header:
        return ""
    try:
        morsel = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return "" if morsel is None else morsel.value
