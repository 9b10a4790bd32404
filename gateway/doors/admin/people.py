"""/api/v1/people and /api/v1/sign-in: persons, their roles, and one-time links."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from gateway.clock import rfc3339
from gateway.doors.admin.paging import Cursor, Limit, page
from gateway.doors.admin.people_in import Operator, PartsDep, Person
from gateway.doors.admin.schemas import PersonChange, PersonIn, PersonOut, SignInIn, SignInOut
from gateway.doors.admin.sessions import may_make_for

routes = APIRouter(tags=["people"])


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
        wanted.id, name=wanted.name or wanted.id, roles=wanted.roles, groups=wanted.groups, by=person.person.id
    )
    return PersonOut.of(added)


@routes.patch("/people/{person_id}")
async def change_person(person_id: str, wanted: PersonChange, parts: PartsDep, person: Operator) -> PersonOut:
    """Change a person's name, roles or groups. Cases that wait count their votes by it from then on."""
    changed = await parts.registry.people.update(
        person_id, name=wanted.name, roles=wanted.roles, groups=wanted.groups, by=person.person.id
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


@routes.post("/sign-in", status_code=201)
async def make_link(wanted: SignInIn, parts: PartsDep, person: Person) -> SignInOut:
    """A one-time link to the console, for yourself; operators may make one for others."""
    whom = wanted.person or person.person.id
    may_make_for(person, whom, "sign-in link")
    secret, expires_ns = await parts.registry.people.make_link(whom, by=person.person.id)
    url = parts.site.sign_in_url(secret, wanted.next)
    return SignInOut(url=url, person=whom, expires=rfc3339(expires_ns))
