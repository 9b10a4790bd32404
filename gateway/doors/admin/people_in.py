"""Who a request to the administration comes from, as FastAPI dependencies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request

from gateway.audit.records import event
from gateway.doors.admin.parts import Parts, parts_of
from gateway.errors import Refusal
from gateway.identity.people import Role
from gateway.identity.signed_in import SignedIn, signed_in

PartsDep = Annotated[Parts, Depends(parts_of)]


async def anyone_signed_in(request: Request, parts: PartsDep) -> SignedIn:
    """The person, whatever their roles."""
    return await person_of(request, parts)


async def person_of(request: Request, parts: Parts) -> SignedIn:
    """The person behind a request. Raises `unauthenticated`, `forbidden`; what another replica just made is looked for
    before it is refused."""
    asked = (parts.registry.people, request.method, request.headers, parts.site)
    try:
        return signed_in(*asked)
    except Refusal as refusal:
        if refusal.code != "unauthenticated" or not await parts.look_again():
            raise
        return signed_in(*asked)


Person = Annotated[SignedIn, Depends(anyone_signed_in)]


def require(parts: Parts, person: SignedIn, request: Request, *roles: Role) -> None:
    """Raises Refusal(forbidden) unless the person has one of `roles`; that they tried is on record then."""
    try:
        person.require(*roles)
    except Refusal:
        entry = event(
            "person.refused",
            tenant=person.person.tenant,
            person=person.person.id,
            subject={"request": f"{request.method} {request.url.path[:200]}"},
            labels={"needs": ",".join(roles)},
        )
        parts.log.append_soon(entry)
        raise


def _needs(*roles: Role) -> Callable[[Request, SignedIn, Parts], SignedIn]:
    # Annotations of a nested function are looked up in this module, so the aliases above serve here too.
    def check(request: Request, person: Person, parts: PartsDep) -> SignedIn:
        require(parts, person, request, *roles)
        return person

    return check


Operator = Annotated[SignedIn, Depends(_needs(Role.OPERATOR))]
Reader = Annotated[SignedIn, Depends(_needs(Role.OPERATOR, Role.AUDITOR))]
CaseReader = Annotated[SignedIn, Depends(_needs(Role.REVIEWER, Role.AUDITOR))]
Reviewer = Annotated[SignedIn, Depends(_needs(Role.REVIEWER))]
CaseKeeper = Annotated[SignedIn, Depends(_needs(Role.OPERATOR, Role.REVIEWER))]
