"""People: who they are, which roles they have, and how they sign in.

There are no passwords. A one-time link, made by somebody who may (on the embedded default: by whoever can read
the data directory), becomes a console session. Only hashes of links and sessions are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import StrEnum
from typing import Any

import msgspec

from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.identity import tokens
from gateway.identity.journal import Change, Journal, Reads, Register, in_turn, warm
from gateway.store.interface import Connection

LOCAL_OPERATOR = "operator"
LINK_VALID_S = 15 * 60
SESSION_VALID_S = 12 * 3600
_NANOS = 1_000_000_000


class Role(StrEnum):
    """What a person may do."""

    REVIEWER = "reviewer"
    AUDITOR = "auditor"
    OPERATOR = "operator"
    POLICY_AUTHOR = "policy_author"
    OWNER = "owner"


class Person(msgspec.Struct, frozen=True):
    """A human of ours."""

    id: str
    name: str
    roles: tuple[Role, ...]
    created_ns: int
    removed_ns: int | None = None
    tenant: str = "default"
    groups: tuple[str, ...] = ()  # of reviewers, as `approvals.groups` names them

    @property
    def reviewer(self) -> bool:
        """Whether they may decide cases at all."""
        return Role.REVIEWER in self.roles


class _Until(msgspec.Struct, frozen=True):
    """Whose a sign-in link or console session is, and when it ends."""

    person_id: str
    expires_ns: int


class People(Register):
    """All persons, sign-in links and console sessions, answered from memory."""

    def __init__(self, *, journal: Journal, clock: Clock, random_bytes: Callable[[int], bytes]) -> None:
        super().__init__()
        self._journal = journal
        self._clock = clock
        self._random_bytes = random_bytes
        self._all: dict[str, Person] = {}
        self._links: dict[str, _Until] = {}
        self._sessions: dict[str, _Until] = {}
        self._local_token: str | None = None  # its hash

    async def load(self, store: Reads) -> None:
        """Read persons and what of their links and sessions is still good."""
        now_ns = self._clock.now_ns()

        def read(db: Connection) -> tuple[list[Any], list[Any], list[Any]]:
            return (
                db.execute("SELECT id, name, roles, created_ns, removed_ns, tenant, groups FROM person").fetchall(),
                db.execute(
                    "SELECT token_sha256, person_id, expires_ns FROM sign_in WHERE used_ns IS NULL AND expires_ns > ?",
                    (now_ns,),
                ).fetchall(),
                db.execute(
                    "SELECT token_sha256, person_id, expires_ns FROM console_session"
                    " WHERE revoked_ns IS NULL AND expires_ns > ?",
                    (now_ns,),
                ).fetchall(),
            )

        people, links, sessions = await store.read(read)
        for id_, name, roles, created_ns, removed_ns, tenant, groups in people:
            known = tuple(Role(role) for role in msgspec.json.decode(roles, type=list[str]) if role in set(Role))
            belongs = tuple(msgspec.json.decode(groups, type=list[str]))
            self._all[id_] = Person(id_, name, known, created_ns, removed_ns, tenant, belongs)
        self._links = {token: _Until(person_id, expires_ns) for token, person_id, expires_ns in links}
        self._sessions = {token: _Until(person_id, expires_ns) for token, person_id, expires_ns in sessions}

    async def reload(self, store: Reads) -> None:
        """Take over what another replica changed."""
        async with self.turn:
            await self.load(store)

    # ------------------------------------------------------------ the register

    def all(self) -> list[Person]:
        """Everybody who was not removed, by id."""
        return sorted((one for one in self._all.values() if one.removed_ns is None), key=lambda one: one.id)

    def person(self, person_id: str) -> Person:
        """Raises Refusal(not_found)."""
        found = self._all.get(person_id)
        if found is None or found.removed_ns is not None:
            raise Refusal("not_found", f"There is no person {person_id!r}; `gateway people list` shows who there is.")
        return found

    def standing(self, person_id: str) -> Person | None:
        """Who it is and what they may do on cases now (`reviewer`, `groups`); None if they are not there.

        From memory, and from any thread: one look into a dict whose values never change.
        """
        found = self._all.get(person_id)
        return None if found is None or found.removed_ns is not None else found

    async def ensure_local_operator(self) -> Person:
        """The person that whoever owns the data directory acts as; made at the first start."""
        found = self._all.get(LOCAL_OPERATOR)
        if found is not None and found.removed_ns is None:
            return found
        roles = (Role.OPERATOR, Role.AUDITOR, Role.REVIEWER, Role.POLICY_AUTHOR)
        try:
            return await self.add(LOCAL_OPERATOR, name="Local operator", roles=roles, by=None)
        except Refusal as refusal:
            if refusal.code != "conflict" or (found := self.standing(LOCAL_OPERATOR)) is None:
                raise
            return found  # another replica started at the same moment

    def trust_local_token(self, secret: str) -> None:
        """Accept `secret` as the local operator's until the process ends. Kept in memory only, as a hash."""
        self._local_token = tokens.digest(secret)

    @in_turn
    async def add(
        self, person_id: str, *, name: str, roles: Collection[Role], by: str | None, groups: Collection[str] = ()
    ) -> Person:
        """Add a person, or bring a removed one back. Raises Refusal(conflict) if they are there already."""
        had = self._all.get(person_id)
        if had is not None and had.removed_ns is None:
            raise Refusal("conflict", f"The person {person_id!r} exists already; `gateway people update` changes them.")
        like = next((one for one in self._all if one != person_id and one.casefold() == person_id.casefold()), None)
        if like is not None:  # two who look like one would count as two
            raise Refusal(
                "conflict", f"There is a person {like!r} already; take a name that differs in more than case."
            )
        known, belongs = tuple(sorted(set(roles))), tuple(sorted(set(groups)))
        person = Person(person_id, name, known, self._clock.now_ns(), groups=belongs)
        subject = _standing_of(person)
        await warm()
        await self._write("person.added", by, subject, _person_row(person))
        self._all[person_id] = person
        return person

    @in_turn
    async def update(
        self,
        person_id: str,
        *,
        by: str,
        roles: Collection[Role] | None = None,
        groups: Collection[str] | None = None,
        name: str | None = None,
    ) -> Person:
        """Change what a person may do; None leaves it. Votes they gave count from then on by what they may now.

        Raises Refusal(not_found); Refusal(conflict) where it would take the local operator's own role away.
        """
        had = self.person(person_id)
        person = msgspec.structs.replace(
            had,
            name=had.name if name is None else name,
            roles=had.roles if roles is None else tuple(sorted(set(roles))),
            groups=had.groups if groups is None else tuple(sorted(set(groups))),
        )
        if person_id == LOCAL_OPERATOR and Role.OPERATOR not in person.roles:
            raise Refusal("conflict", "The local operator stays an operator; protect the data directory instead.")
        await warm()
        await self._write("person.changed", by, _standing_of(person), _person_row(person))
        self._all[person_id] = person
        return person

    @in_turn
    async def remove(self, person_id: str, *, by: str) -> Person:
        """Take a person's access: sessions and links end at once. What they did stays on record."""
        had = self.person(person_id)
        if person_id == LOCAL_OPERATOR:
            raise Refusal("conflict", "The local operator cannot be removed; protect the data directory instead.")
        now_ns = self._clock.now_ns()
        person = msgspec.structs.replace(had, removed_ns=now_ns)
        await warm()
        write_person = _person_row(person)

        def also(connection: Connection) -> None:
            write_person(connection)
            connection.execute(
                "UPDATE console_session SET revoked_ns = ? WHERE person_id = ? AND revoked_ns IS NULL",
                (now_ns, person_id),
            )
            connection.execute(
                "UPDATE sign_in SET used_ns = ? WHERE person_id = ? AND used_ns IS NULL", (now_ns, person_id)
            )

        await self._write("person.removed", by, {"person": person_id}, also)
        self._all[person_id] = person
        self._links = {token: one for token, one in self._links.items() if one.person_id != person_id}
        self._sessions = {token: one for token, one in self._sessions.items() if one.person_id != person_id}
        return person

    # ------------------------------------------------------------ signing in

    @in_turn
    async def make_link(self, person_id: str, *, by: str | None, valid_s: float = LINK_VALID_S) -> tuple[str, int]:
        """A one-time sign-in token for a person, and when it ends (ns). Raises Refusal(not_found)."""
        person = self.person(person_id)
        secret = tokens.mint(tokens.SIGN_IN, self._random_bytes)
        hashed, until = tokens.digest(secret), _Until(person_id, self._clock.now_ns() + int(valid_s * _NANOS))
        await warm()
        await self._write("person.link_made", by, {"person": person.id}, _link_row(hashed, until))
        self._links[hashed] = until
        return secret, until.expires_ns

    @in_turn
    async def sign_in(self, link: str) -> tuple[Person, str, int]:
        """Use up a link: the person, the secret of a new console session, and when it ends (ns).

        Raises Refusal(unauthenticated) for a link that is unknown, used or expired: which of these is not told.
        """
        hashed, now_ns = tokens.digest(link), self._clock.now_ns()
        until = self._links.get(hashed)
        if until is None or now_ns >= until.expires_ns:
            raise Refusal(
                "unauthenticated",
                "This sign-in link was used already or has expired; run `gateway login` for a new one.",
            )
        person = self.person(until.person_id)
        secret = tokens.mint(tokens.PERSON_TOKEN, self._random_bytes)
        session_hash, session = tokens.digest(secret), _Until(person.id, now_ns + SESSION_VALID_S * _NANOS)
        await warm()
        write_session = _session_row(session_hash, session, now_ns)

        def also(connection: Connection) -> None:
            used = connection.execute(
                "UPDATE sign_in SET used_ns = ? WHERE token_sha256 = ? AND used_ns IS NULL", (now_ns, hashed)
            )
            if used.rowcount != 1:  # another process was faster
                raise Refusal(
                    "unauthenticated", "This sign-in link was used already; run `gateway login` for a new one."
                )
            write_session(connection)

        await self._write("person.signed_in", person.id, {"person": person.id}, also)
        self._links.pop(hashed, None)
        self._forget_expired(now_ns)
        self._sessions[session_hash] = session
        return person, secret, session.expires_ns

    @in_turn
    async def sign_out(self, secret: str) -> None:
        """End a console session; one that is over already is no fault."""
        hashed, now_ns = tokens.digest(secret), self._clock.now_ns()
        until = self._sessions.get(hashed)
        if until is None:
            return

        def also(connection: Connection) -> None:
            connection.execute("UPDATE console_session SET revoked_ns = ? WHERE token_sha256 = ?", (now_ns, hashed))

        await self._write("person.signed_out", until.person_id, {"person": until.person_id}, also)
        self._sessions.pop(hashed, None)

    def who(self, secret: str) -> Person | None:
        """The person whose session (or local operator's token) `secret` is; None if it is not good any more."""
        hashed = tokens.digest(secret)
        if hashed == self._local_token:
            return self._all.get(LOCAL_OPERATOR)
        until = self._sessions.get(hashed)
        if until is None or self._clock.now_ns() >= until.expires_ns:
            return None
        return self._all.get(until.person_id)

    # ------------------------------------------------------------ inside

    async def _write(self, type_: str, by: str | None, subject: dict[str, Any], also: Change) -> None:
        labels = {} if by is not None else {"by": "gateway"}
        await self._journal(type_, tenant="default", person=by, subject=subject, labels=labels, also=also)

    def _forget_expired(self, now_ns: int) -> None:
        self._links = {token: one for token, one in self._links.items() if one.expires_ns > now_ns}
        self._sessions = {token: one for token, one in self._sessions.items() if one.expires_ns > now_ns}


def _person_row(person: Person) -> Change:
    from gateway.identity import rows

    return rows.merging(
        rows.PersonRow(
            id=person.id,
            tenant=person.tenant,
            name=person.name,
            roles=msgspec.json.encode([role.value for role in person.roles]).decode(),
            created_ns=person.created_ns,
            removed_ns=person.removed_ns,
            groups=msgspec.json.encode(person.groups).decode(),
        )
    )


def _standing_of(person: Person) -> dict[str, Any]:
    """What a record says of a person; `gateway audit verify` holds the register against it."""
    told = {"person": person.id, "roles": ",".join(person.roles)}
    return {**told, "groups": ",".join(person.groups)} if person.groups else told


def _link_row(hashed: str, until: _Until) -> Change:
    from gateway.identity import rows

    return rows.merging(rows.SignInRow(token_sha256=hashed, person_id=until.person_id, expires_ns=until.expires_ns))


def _session_row(hashed: str, until: _Until, now_ns: int) -> Change:
    from gateway.identity import rows

    return rows.merging(
        rows.ConsoleSessionRow(
            token_sha256=hashed, person_id=until.person_id, created_ns=now_ns, expires_ns=until.expires_ns
        )
    )
