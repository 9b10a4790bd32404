"""/api/v1/people and /api/v1/sign-in: persons, their roles, and one-time links."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from gateway.clock import rfc3339
from gateway.doors.admin.paging import Cursor, Limit, page
from gateway.doors.admin.paths import API
from gateway.doors.admin.people_in import Operator, PartsDep, Person
from gateway.doors.admin.schemas import PersonChange, PersonIn, PersonOut, SignInIn, SignInOut
from gateway.doors.admin.sessions import may_make_for
from gateway.errors import Refusal
from gateway.identity.console_site import page_of_console
from gateway.identity.sign_in_keys import HEADER, verified

routes = APIRouter(prefix=API, tags=["people"])


@routes.get("/people")
async def list_people(
    parts: PartsDep, person: Person, request: Request, response: Response, limit: Limit = 100, cursor: Cursor = None
) -> Sequence[PersonOut]:
    """Everybody who may sign in, by id."""
    people = [PersonOut.of(one) for one in parts.registry.people.all()]
    return page(people, lambda one: one.id, limit, cursor, request, response)


@routes.post("/people", status_code=201)
async def add_person(wanted: PersonIn, parts: PartsDep, person: Operator) -> PersonOut:
    """Add a person with roles. They sign in with a link that an operator makes for them."""
    added = await parts.registry.people.add(
        wanted.id,
        name=wanted.name or wanted.id,
        roles=wanted.roles,
        groups=wanted.groups,
        by=person.person.id,
        origin=person.origin,
    )
    return PersonOut.of(added)


@routes.patch("/people/{person_id}")
async def change_person(person_id: str, wanted: PersonChange, parts: PartsDep, person: Operator) -> PersonOut:
    """Change a person's name, roles or groups. Cases that wait count their votes by it from then on."""
    changed = await parts.registry.people.update(
        person_id,
        name=wanted.name,
        roles=wanted.roles,
        groups=wanted.groups,
        by=person.person.id,
        origin=person.origin,
    )
    return PersonOut.of(changed)


@routes.delete("/people/{person_id}")
async def remove_person(person_id: str, parts: PartsDep, person: Operator) -> PersonOut:
    """Take a person's access at once. What they did stays on record."""
    return PersonOut.of(await parts.registry.people.remove(person_id, by=person.person.id))


@routes.get("/people/me")
async def who_am_i(person: Person) -> PersonOut:
    """The person who asks."""
    return PersonOut.of(person.person)


@routes.post("/sign-in/key", status_code=201)
async def admit_link(
    parts: PartsDep,
    request: Request,
    proof: Annotated[str, Header(alias=HEADER, max_length=600, description="As `gateway login --key` makes it.")],
    next_page: Annotated[str | None, Query(alias="next", max_length=2000)] = None,
) -> SignInOut:
    """Admit a one-time link that you made and signed with your own key; nobody else had a hand in it.

    The link itself is not sent: put it into the `token` of the address that comes back.
    """
    try:
        proved = verified(
            parts.configured.config.sign_in.keys,
            request.headers.get("host", ""),
            proof,
            parts.clock.now_ns() / 1_000_000_000,
        )
        parts.registry.people.person(proved.person)
    except Refusal as refusal:
        raise Refusal("unauthenticated", refusal.message) from refusal
    expires_ns = await parts.registry.people.admit_link(*proved)
    page = None if next_page is None else page_of_console(next_page)
    return SignInOut(url=parts.site.sign_in_url("", page), person=proved.person, expires=rfc3339(expires_ns))


@routes.post("/sign-in", status_code=201)
async def make_link(wanted: SignInIn, parts: PartsDep, person: Person) -> SignInOut:
    """A one-time link to the console, for yourself; operators may make one for others."""
    whom = wanted.person or person.person.id
    may_make_for(person, whom, "sign-in link")
    secret, expires_ns = await parts.registry.people.make_link(whom, by=person.person.id, origin=person.origin)
    url = parts.site.sign_in_url(secret, wanted.next)
    return SignInOut(url=url, person=whom, expires=rfc3339(expires_ns))
