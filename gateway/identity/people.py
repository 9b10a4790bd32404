"""People: who they are, which roles they have, and how they sign in.

There are no passwords. A one-time link, made by somebody who may (on the embedded default: by whoever can read
the data directory), becomes a console session. Scripts have API tokens. Only hashes of all three are kept. A session's
secret is a cookie and never a bearer token, and the other way round: each is looked up by its own prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from gateway.clock import Clock
from gateway.errors import Refusal
from gateway.identity import origin as origins
from gateway.identity import tokens
from gateway.identity.journal import Change, Journal, Reads, Register, in_turn, warm
from gateway.identity.origin import ALONE, Given, Origin, makers_of
from gateway.store.interface import Connection
from gateway.store.macs import RowMacs

LOCAL_OPERATOR = "operator"
LINK_VALID_S = 15 * 60
SESSION_VALID_S = 12 * 3600
TOKEN_VALID_S = 30 * 86_400
_NANOS = 1_000_000_000
_ID_CHARS = 16


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
    change_no: int = 0  # grows with every change
    given: Given = ()  # what of it others gave them

    @property
    def entitlements(self) -> list[str]:
        """Roles and groups, as `given` names them."""
        return [*(f"role:{role}" for role in self.roles), *(f"group:{group}" for group in self.groups)]

    @property
    def reviewer(self) -> bool:
        """Whether they may decide cases at all."""
        return Role.REVIEWER in self.roles


class _Until(msgspec.Struct, frozen=True):
    """Whose a sign-in link, console session or API token is, and when it ends: at the latest with its parent."""

    person_id: str
    expires_ns: int
    created_ns: int = 0  # not known of a link
    makers: tuple[str, ...] = ()  # see `Origin`
    parent: str | None = None


class Session(NamedTuple):
    """A console session or an API token that is good now."""

    id: str
    is_token: bool
    person: str
    created_ns: int
    expires_ns: int
    makers: tuple[str, ...]


class People(Register):
    """All persons, sign-in links and console sessions, answered from memory."""

    def __init__(self, *, journal: Journal, macs: RowMacs, clock: Clock, random_bytes: Callable[[int], bytes]) -> None:
        super().__init__()
        self._journal = journal
        self._macs = macs
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
            good = "WHERE {} IS NULL AND expires_ns > ?"
            return (
                self._macs.read(db, "person"),
                self._macs.read(db, "sign_in", good.format("used_ns"), (now_ns,)),
                self._macs.read(db, "console_session", good.format("revoked_ns"), (now_ns,)),
            )

        people, links, sessions = await store.read(read)
        self._all = {}
        for id_, tenant, name, roles, created_ns, removed_ns, groups, change_no, given in people:
            known = tuple(Role(role) for role in msgspec.json.decode(roles, type=list[str]) if role in set(Role))
            belongs = tuple(msgspec.json.decode(groups, type=list[str]))
            self._all[id_] = Person(
                *(id_, name, known, created_ns, removed_ns, tenant, belongs, change_no), origins.decode_given(given)
            )
            self._macs.saw("person", id_, change_no)
        before = {"sign_in": self._links, "console_session": self._sessions}
        names = origins.decode_names
        self._links = {
            token: _Until(person_id, expires_ns, makers=names(makers), parent=parent)
            for token, person_id, expires_ns, _, makers, parent in links
        }
        self._sessions = {
            kept: _Until(person_id, expires_ns, created_ns, names(makers), parent)
            for kept, person_id, created_ns, expires_ns, _, makers, parent in sessions
        }
        for token in before["sign_in"].keys() - self._links.keys():
            self._macs.saw("sign_in", _id_of(token), 1)
        for kept in before["console_session"].keys() - self._sessions.keys():
            self._macs.saw("console_session", _id_of(kept), 1)

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
        self,
        person_id: str,
        *,
        name: str,
        roles: Collection[Role],
        by: str | None,
        groups: Collection[str] = (),
        origin: Origin = ALONE,
    ) -> Person:
        """Add a person, or bring a removed one back. Raises Refusal(conflict) if they are there already.

        `origin`: how `by` signed in.
        """
        had = self._all.get(person_id)
        if had is not None and had.removed_ns is None:
            raise Refusal("conflict", f"The person {person_id!r} exists already; `gateway people update` changes them.")
        like = next((one for one in self._all if one != person_id and one.casefold() == person_id.casefold()), None)
        if like is not None:  # two who look like one would count as two
            raise Refusal(
                "conflict", f"There is a person {like!r} already; take a name that differs in more than case."
            )
        known, belongs = tuple(sorted(set(roles))), tuple(sorted(set(groups)))
        now_ns, makers = self._clock.now_ns(), makers_of(person_id, by, origin)
        given: Given = (("person", makers, now_ns),) if makers else ()
        new = Person(person_id, name, known, now_ns, groups=belongs, given=given)
        person = self._next(new, 0 if had is None else had.change_no)
        await warm()
        await self._write("person.added", by, _standing_of(person), _person_row(self._macs, person))
        return self._remember(person)

    @in_turn
    async def update(
        self,
        person_id: str,
        *,
        by: str,
        roles: Collection[Role] | None = None,
        groups: Collection[str] | None = None,
        name: str | None = None,
        origin: Origin = ALONE,
    ) -> Person:
        """Change what a person may do; None leaves it. Votes they gave count from then on by what they may now.
        `origin`: how `by` signed in.

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
        changed = (had.entitlements, person.entitlements, makers_of(person_id, by, origin), self._clock.now_ns())
        person = msgspec.structs.replace(person, given=origins.given_anew(had.given, *changed))
        person = self._next(person, had.change_no)
        await warm()
        await self._write("person.changed", by, _standing_of(person), _person_row(self._macs, person))
        return self._remember(person)

    @in_turn
    async def remove(self, person_id: str, *, by: str) -> Person:
        """Take a person's access: sessions and links end at once. What they did stays on record."""
        had = self.person(person_id)
        if person_id == LOCAL_OPERATOR:
            raise Refusal("conflict", "The local operator cannot be removed; protect the data directory instead.")
        now_ns = self._clock.now_ns()
        person = self._next(msgspec.structs.replace(had, removed_ns=now_ns), had.change_no)
        await warm()
        write_person = _person_row(self._macs, person)

        def also(connection: Connection) -> None:
            write_person(connection)
            for table, ends in (("console_session", "revoked_ns"), ("sign_in", "used_ns")):
                where = f"WHERE person_id = ? AND {ends} IS NULL"
                self._macs.change(connection, table, where, (person_id,), **{ends: now_ns})

        await self._write("person.removed", by, {"person": person_id}, also)
        self._remember(person)
        for table, held in (("sign_in", self._links), ("console_session", self._sessions)):
            for token, one in held.items():
                if one.person_id == person_id:
                    self._macs.saw(table, _id_of(token), 1)
        self._links = {token: one for token, one in self._links.items() if one.person_id != person_id}
        self._sessions = {token: one for token, one in self._sessions.items() if one.person_id != person_id}
        return person

    # ------------------------------------------------------------ signing in

    @in_turn
    async def make_link(
        self, person_id: str, *, by: str | None, origin: Origin = ALONE, valid_s: float = LINK_VALID_S
    ) -> tuple[str, int]:
        """A one-time sign-in token for a person, and when it ends (ns). `origin`: how `by` signed in.

        Raises Refusal(not_found).
        """
        person = self.person(person_id)
        secret = tokens.mint(tokens.SIGN_IN, self._random_bytes)
        hashed, until = tokens.digest(secret), self._until(person_id, valid_s, by, origin)
        await warm()
        subject = {"person": person.id, "link": _named(hashed), **_made_by(until)}
        await self._write("person.link_made", by, subject, _link_row(self._macs, hashed, until))
        self._links[hashed] = until
        return secret, until.expires_ns

    @in_turn
    async def admit_link(self, person_id: str, hashed: str) -> int:
        """Let a link that a person made and signed by themselves be used once; when it ends (ns).

        `hashed`: its SHA-256 in hex. Raises Refusal(not_found), Refusal(conflict) for one that was admitted before.
        """
        person = self.person(person_id)
        until = self._until(person_id, LINK_VALID_S, None, ALONE)
        await warm()
        write_link = _link_row(self._macs, hashed, until)

        def also(connection: Connection) -> None:
            if connection.execute("SELECT 1 FROM sign_in WHERE token_sha256 = ?", (hashed,)).fetchone() is not None:
                raise Refusal("conflict", "This link was admitted before; run `gateway login --key` for a new one.")
            write_link(connection)

        subject = {"person": person.id, "link": _named(hashed), "by_key": "yes"}
        await self._write("person.link_made", person.id, subject, also)
        self._links[hashed] = until
        return until.expires_ns

    @in_turn
    async def sign_in(self, link: str) -> tuple[Person, str, int]:
        """Use up a link: the person, the secret of a new console session, and when it ends (ns).

        Raises Refusal(unauthenticated) for a link that is unknown, used or expired: which of these is not told.
        """
        hashed, now_ns = tokens.digest(link), self._clock.now_ns()
        until = self._links.get(hashed)
        if until is None or now_ns >= until.expires_ns or not self._is_alive(until.parent):
            raise Refusal(
                "unauthenticated",
                "This sign-in link was used already or has expired; run `gateway login` for a new one.",
            )
        person = self.person(until.person_id)
        secret = tokens.mint(tokens.CONSOLE_SESSION, self._random_bytes)
        session_hash = tokens.digest(secret)
        session = self._until(person.id, SESSION_VALID_S, None, Origin(until.makers, until.parent))
        await warm()
        write_session = _session_row(self._macs, session_hash, session)

        def also(connection: Connection) -> None:
            where = "WHERE token_sha256 = ? AND used_ns IS NULL"
            if self._macs.change(connection, "sign_in", where, (hashed,), used_ns=now_ns) != 1:  # another was faster
                raise Refusal(
                    "unauthenticated", "This sign-in link was used already; run `gateway login` for a new one."
                )
            write_session(connection)

        subject = {"person": person.id, "link": _named(hashed), "session": _named(session_hash), **_made_by(session)}
        await self._write("person.signed_in", person.id, subject, also)
        self._macs.saw("sign_in", _id_of(hashed), 1)
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
            where = "WHERE token_sha256 = ? AND revoked_ns IS NULL"
            self._macs.change(connection, "console_session", where, (hashed,), revoked_ns=now_ns)

        subject = {"person": until.person_id, "session": _named(hashed)}
        await self._write("person.signed_out", until.person_id, subject, also)
        self._macs.saw("console_session", _id_of(hashed), 1)
        self._sessions.pop(hashed, None)

    def invited(self, link: str) -> Person | None:
        """Whom a link would sign in; None if it is not good (any more). Does not use it up."""
        until = self._links.get(tokens.digest(link))
        return None if until is None else self._whose(until)

    def who(self, secret: str) -> Person | None:
        """The person whose console session `secret` is, a cookie's value; None if it is not good any more."""
        until = None if secret.startswith(tokens.API_TOKEN) else self._sessions.get(tokens.digest(secret))
        return None if until is None else self._whose(until)

    # ------------------------------------------------------------ tokens of scripts

    @in_turn
    async def make_token(
        self, person_id: str, *, by: str, origin: Origin = ALONE, valid_s: float = TOKEN_VALID_S
    ) -> tuple[str, Session]:
        """A bearer token with all that a person may do. `origin`: how `by` signed in. Raises Refusal(not_found)."""
        person = self.person(person_id)
        secret, now_ns = tokens.mint(tokens.API_TOKEN, self._random_bytes), self._clock.now_ns()
        kept, until = _kept(secret), self._until(person_id, valid_s, by, origin)
        await warm()
        subject = {"person": person.id, "token": _id_of(kept), **_made_by(until)}
        await self._write("person.token_made", by, subject, _session_row(self._macs, kept, until))
        self._forget_expired(now_ns)
        self._sessions[kept] = until
        return secret, _session(kept, until)

    def who_bears(self, token: str) -> Person | None:
        """The person whose bearer token it is, an API token or the local operator's; None if it is not good."""
        if token.startswith(tokens.API_TOKEN):
            until = self._sessions.get(_kept(token))
            return None if until is None else self._whose(until)
        return self._all.get(LOCAL_OPERATOR) if tokens.digest(token) == self._local_token else None

    def origin(self, secret: str, *, by_cookie: bool) -> Origin:
        """How the person signed in whose cookie or bearer token it is."""
        kept = tokens.digest(secret) if by_cookie else _kept(secret)
        until = self._sessions.get(kept)
        return ALONE if until is None else Origin(until.makers, kept)

    def sessions(self, person_id: str | None = None) -> list[Session]:
        """The console sessions and API tokens that are good now, the oldest first; of one person or all."""
        found = [_session(kept, until) for kept, until in self._sessions.items() if self._whose(until) is not None]
        return sorted(
            (one for one in found if person_id in (None, one.person)), key=lambda one: (one.created_ns, one.id)
        )

    @in_turn
    async def revoke(self, session_id: str, *, by: str, only_of: str | None = None) -> Session:
        """End a console session or an API token at once. `only_of`: whose it has to be. Raises Refusal(not_found)."""
        kept = next((one for one in self._sessions if _id_of(one) == session_id), None)
        until = None if kept is None else self._sessions[kept]
        if kept is None or until is None or only_of not in (None, until.person_id):
            raise Refusal("not_found", "No session or token with this ID; `gateway sessions list` shows them.")
        now_ns = self._clock.now_ns()

        def also(connection: Connection) -> None:
            where = "WHERE token_sha256 = ? AND revoked_ns IS NULL"
            self._macs.change(connection, "console_session", where, (kept,), revoked_ns=now_ns)

        await self._write("person.session_revoked", by, {"person": until.person_id, "token": session_id}, also)
        self._macs.saw("console_session", session_id, 1)
        self._sessions.pop(kept, None)
        return _session(kept, until)

    # ------------------------------------------------------------ inside

    def _next(self, person: Person, before: int) -> Person:
        return msgspec.structs.replace(person, change_no=self._macs.next_change("person", person.id, before))

    def _remember(self, person: Person) -> Person:
        """Its change is durable."""
        self._macs.saw("person", person.id, person.change_no)
        self._all[person.id] = person
        return person

    async def _write(self, type_: str, by: str | None, subject: dict[str, Any], also: Change) -> None:
        labels = {} if by is not None else {"by": "gateway"}
        await self._journal(type_, tenant="default", person=by, subject=subject, labels=labels, also=also)

    def _until(self, person_id: str, valid_s: float, by: str | None, origin: Origin) -> _Until:
        """What `by` makes for a person: it ends with the session that it is made in, so that none lives for ever."""
        now_ns = self._clock.now_ns()
        expires_ns = now_ns + int(valid_s * _NANOS)
        if origin.parent is not None and (parent := self._sessions.get(origin.parent)) is not None:
            expires_ns = min(expires_ns, parent.expires_ns)
        return _Until(person_id, expires_ns, now_ns, makers_of(person_id, by, origin), origin.parent)

    def _whose(self, until: _Until) -> Person | None:
        """The person, if they are there and neither it nor what it was made in has ended."""
        person = self._all.get(until.person_id)
        is_good = person is not None and person.removed_ns is None and self._clock.now_ns() < until.expires_ns
        return person if is_good and self._is_alive(until.parent) else None

    def _is_alive(self, parent: str | None) -> bool:
        """Whether a session that others were made in goes on, and so do those that it was made in."""
        while parent is not None:
            session = self._sessions.get(parent)
            if session is None or self._clock.now_ns() >= session.expires_ns:
                return False
            parent = session.parent
        return True

    def _forget_expired(self, now_ns: int) -> None:
        self._links = {token: one for token, one in self._links.items() if one.expires_ns > now_ns}
        self._sessions = {token: one for token, one in self._sessions.items() if one.expires_ns > now_ns}


def _made_by(until: _Until) -> dict[str, str]:
    """For records: who else can act through it."""
    return {"makers": ",".join(until.makers)} if until.makers else {}


def _named(hashed: str) -> str:
    """A link or session in records: enough of its hash to find its row."""
    return _id_of(hashed)


def _person_row(macs: RowMacs, person: Person) -> Change:
    from gateway.identity import rows

    return rows.merging(
        macs,
        rows.PersonRow(
            id=person.id,
            tenant=person.tenant,
            name=person.name,
            roles=msgspec.json.encode([role.value for role in person.roles]).decode(),
            created_ns=person.created_ns,
            removed_ns=person.removed_ns,
            groups=msgspec.json.encode(person.groups).decode(),
            change_no=person.change_no,
            given=origins.encode_given(person.given),
        ),
    )


def _standing_of(person: Person) -> dict[str, Any]:
    """What a record says of a person; `gateway audit verify` holds the register against it."""
    told = {"person": person.id, "roles": ",".join(person.roles)}
    if person.groups:
        told["groups"] = ",".join(person.groups)
    if person.given:
        told["given"] = origins.digest_of_given(origins.encode_given(person.given))
    return told


def _link_row(macs: RowMacs, hashed: str, until: _Until) -> Change:
    from gateway.identity import rows

    return rows.merging(
        macs,
        rows.SignInRow(
            token_sha256=hashed,
            person_id=until.person_id,
            expires_ns=until.expires_ns,
            makers=origins.encode_names(until.makers),
            parent=until.parent,
        ),
    )


def _session_row(macs: RowMacs, kept: str, until: _Until) -> Change:
    from gateway.identity import rows

    return rows.merging(
        macs,
        rows.ConsoleSessionRow(
            token_sha256=kept,
            person_id=until.person_id,
            created_ns=until.created_ns,
            expires_ns=until.expires_ns,
            makers=origins.encode_names(until.makers),
            parent=until.parent,
        ),
    )


def _kept(api_token: str) -> str:
    """An API token as it is kept: its hash, marked, since it shares a table with console sessions."""
    return tokens.API_TOKEN + tokens.digest(api_token)


def _id_of(kept: str) -> str:
    """What people call a session by: too little of a hash of 256 random bits to find anything by."""
    return kept.removeprefix(tokens.API_TOKEN)[:_ID_CHARS]


def _session(kept: str, until: _Until) -> Session:
    is_token = kept.startswith(tokens.API_TOKEN)
    return Session(_id_of(kept), is_token, until.person_id, until.created_ns, until.expires_ns, until.makers)
