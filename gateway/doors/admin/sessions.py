"""/api/v1/tokens and /api/v1/sessions: bearer tokens for scripts, and what a person is signed in with."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from gateway.doors.admin.paging import Cursor, Limit, page
from gateway.doors.admin.paths import API
from gateway.doors.admin.people_in import PartsDep, Person
from gateway.doors.admin.schemas import SessionOut, TokenIn, TokenMade
from gateway.errors import Refusal
from gateway.identity.people import Role
from gateway.identity.signed_in import SignedIn

routes = APIRouter(prefix=API, tags=["people"])
_DAY_S = 86_400


@routes.post("/tokens", status_code=201)
async def make_token(wanted: TokenIn, parts: PartsDep, person: Person) -> TokenMade:
    """A bearer token with all that its person may do, for yourself; operators may make one for others."""
    whom = wanted.person or person.person.id
    may_make_for(person, whom, "token")
    secret, made = await parts.registry.people.make_token(
        whom, by=person.person.id, origin=person.origin, valid_s=wanted.days * _DAY_S
    )
    return TokenMade(**SessionOut.of(made).model_dump(), token=secret)


@routes.get("/sessions")
async def list_sessions(
    parts: PartsDep, person: Person, request: Request, response: Response, limit: Limit = 100, cursor: Cursor = None
) -> Sequence[SessionOut]:
    """Your console sessions and API tokens that are good now, the oldest first; operators see everybody's."""
    found = [SessionOut.of(one) for one in parts.registry.people.sessions(_whose(person))]
    return page(found, lambda one: f"{one.created} {one.id}", limit, cursor, request, response)


@routes.delete("/sessions/{session_id}")
async def revoke_session(session_id: str, parts: PartsDep, person: Person) -> SessionOut:
    """End one of your console sessions or API tokens at once; operators may end anybody's."""
    ended = await parts.registry.people.revoke(session_id, by=person.person.id, only_of=_whose(person))
    return SessionOut.of(ended)


def may_make_for(person: SignedIn, whom: str, what: str) -> None:
    """Raises Refusal(forbidden) unless the person may make a `what` that signs in `whom`."""
    if person.by_api_token and whom == person.person.id:
        raise Refusal("forbidden", f"An API token can't make another {what} for its own person; use `gateway login`.")
    if whom != person.person.id and not person.may(Role.OPERATOR):
        raise Refusal("forbidden", f"Only an operator may make a {what} for somebody else.")


def _whose(person: SignedIn) -> str | None:
    return None if person.may(Role.OPERATOR) else person.person.id
