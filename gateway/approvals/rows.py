"""Cases in the database: what a row holds, read back as a `Case`. Everything that was asked or answered is sealed."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import structlog

from gateway.actions import Action, Kind
from gateway.approvals.case import OPEN, Attempt, Card, Case, Choice, Comment, Ending, Requirement, State, Vote
from gateway.approvals.sealing import Sealing
from gateway.errors import Refusal
from gateway.store.interface import Connection

log = structlog.get_logger("gateway.approvals")

_COLUMNS = (
    "id, tenant, kind, definition_digest, risk, effect, server, tool, state, version, fence, requirement,"
    " presented_digest, asked, opened_ns, expires_ns, decided_ns, ended_ns, told_until_ns, code, why, released_to"
)


class Asked(msgspec.Struct, frozen=True):
    """What is sealed of a case: the action as it was asked, and the card as it is shown."""

    action: Action
    card: Card


_encode = msgspec.json.encode
_decode_asked = msgspec.json.Decoder(Asked).decode
_decode_requirement = msgspec.json.Decoder(Requirement).decode
_decode_ending = msgspec.json.Decoder(Ending).decode


def idempotency_of(action: Action) -> str | None:
    """What an idempotency key stands for: the caller and the key, hashed."""
    if action.idempotency_key is None:
        return None
    caller = action.caller
    whole = _encode([caller.agent.tenant, caller.agent.id, caller.user, action.idempotency_key])
    return hashlib.sha256(whole).hexdigest()


class Rows:
    """Reads and writes cases on a connection that is handed in; knows no transitions."""

    def __init__(self, sealing: Sealing) -> None:
        self._sealing = sealing

    # ------------------------------------------------------------ reading

    def case(self, db: Connection, case_id: str) -> Case | None:
        """The case of an id."""
        return self._one(db, "WHERE id = ?", (case_id,))

    def open_by_digest(self, db: Connection, digest: str) -> Case | None:
        """The open case of an identity; there is at most one."""
        return self._one(db, "WHERE digest = ? AND open = 1", (digest,))

    def last_by_digest(self, db: Connection, digest: str) -> Case | None:
        """The newest case of an identity, whatever its state. By the order of writing: clocks step back."""
        return self._one(db, "WHERE digest = ? ORDER BY written DESC LIMIT 1", (digest,))

    def of_answer(self, db: Connection, digest: str, answer_id: str) -> Case | None:
        """The case of an identity that was released to a model's answer, or that this opened and people refused."""
        return self._one(
            db,
            "WHERE digest = ? AND (released_to = ? OR (parent = ? AND state IN ('denied', 'expired')))"
            " ORDER BY opened_ns DESC, id DESC LIMIT 1",
            (digest, answer_id, answer_id),
        )

    def last_by_key(self, db: Connection, idempotency: str) -> Case | None:
        """The newest case of an idempotency key."""
        own = self._one(db, "WHERE idempotency = ? ORDER BY written DESC LIMIT 1", (idempotency,))
        bound = self._one(db, "WHERE id = (SELECT case_id FROM case_key WHERE idempotency = ?)", (idempotency,))
        return bound if own is None or (bound is not None and bound.state in OPEN) else own

    def select(self, db: Connection, where: str, values: tuple[Any, ...]) -> list[Case]:
        """Cases by a condition of this room's own. Raises `store_unavailable` for one that can't be opened."""
        return [self._case(row) for row in self._found(db, where, values)]

    def readable(self, db: Connection, where: str, values: tuple[Any, ...]) -> list[Case]:
        """The same for lists and for what time does: one that can't be opened is told in the log and left out."""
        cases = []
        for row in self._found(db, where, values):
            try:
                cases.append(self._case(row))
            except Refusal as refusal:
                log.error("case_unreadable", case=row[0], message=refusal.message)  # noqa: TRY400 - told, not a fault
        return cases

    def _found(self, db: Connection, where: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return db.execute(f"SELECT {_COLUMNS} FROM approval_case {where}", values).fetchall()  # noqa: S608

    def votes(self, db: Connection, case: Case) -> list[Vote]:
        """All votes, oldest first; those on an earlier card do not count."""
        return [
            Vote(
                id=id_,
                person=person,
                choice=Choice(choice),
                presented_digest=presented,
                reason=reason,
                guidance=guidance,
                ts_ns=ts_ns,
                counts=presented == case.presented_digest,
            )
            for id_, person, choice, presented, reason, guidance, ts_ns in db.execute(
                "SELECT id, person, choice, presented_digest, reason, guidance, ts_ns FROM case_vote"
                " WHERE case_id = ? ORDER BY ts_ns, id",
                (case.id,),
            )
        ]

    def comments(self, db: Connection, case_id: str) -> list[Comment]:
        """Oldest first."""
        found = db.execute(
            "SELECT id, person, text, ts_ns FROM case_comment WHERE case_id = ? ORDER BY ts_ns, id", (case_id,)
        )
        return [Comment(id=id_, person=person, text=text, ts_ns=ts_ns) for id_, person, text, ts_ns in found]

    def attempts(self, db: Connection, case_id: str) -> list[Attempt]:
        """Oldest first."""
        found = db.execute(
            "SELECT fence, started_ns, ended_ns, outcome, note FROM case_attempt WHERE case_id = ? ORDER BY fence",
            (case_id,),
        )
        return [
            Attempt(fence=fence, started_ns=started_ns, ended_ns=ended_ns, outcome=outcome, note=note)
            for fence, started_ns, ended_ns, outcome, note in found
        ]

    def ending(self, db: Connection, case_id: str) -> Ending | None:
        """The stored end, if it is still kept."""
        row = db.execute("SELECT ending FROM approval_case WHERE id = ?", (case_id,)).fetchone()
        if row is None or row[0] is None:
            return None
        return _decode_ending(self._sealing.unseal(row[0], f"{case_id}/ending"))

    def _one(self, db: Connection, where: str, values: tuple[Any, ...]) -> Case | None:
        return next(iter(self.select(db, where, values)), None)

    def _case(self, row: tuple[Any, ...]) -> Case:
        case_id, tenant, kind, definition, risk, effect, server, tool, state, version, fence = row[:11]
        requirement, presented, sealed, opened, expires, decided, ended, told, code, why, released_to = row[11:]
        asked = _decode_asked(self._sealing.unseal(sealed, f"{case_id}/asked"))
        return Case(
            id=case_id,
            tenant=tenant,
            kind=Kind(kind),
            action=asked.action,
            definition_digest=definition,
            risk=risk,
            effect=effect,
            server=server,
            tool=tool,
            state=State(state),
            version=version,
            fence=fence,
            requirement=_decode_requirement(requirement),
            card=asked.card,
            presented_digest=presented,
            opened_ns=opened,
            expires_ns=expires,
            decided_ns=decided,
            ended_ns=ended,
            told_until_ns=told,
            code=code,
            why=why,
            released_to=released_to,
        )

    # ------------------------------------------------------------ writing

    def insert(self, db: Connection, case: Case) -> bool:
        """Write a new case; False where its identity has an open one."""
        action = case.action
        done = db.execute(
            "INSERT INTO approval_case (id, tenant, kind, action_id, parent, digest, idempotency, agent,"
            ' "user", server,'
            " tool, risk, effect, rules, definition_digest, state, open, version, fence, requirement, presented_digest,"
            " asked, opened_ns, expires_ns, decided_ns, ended_ns, code, why, written) VALUES (?, ?, ?, ?, ?, ?, ?, ?,"
            " ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
            " (SELECT coalesce(max(written), 0) + 1 FROM approval_case)) ON CONFLICT DO NOTHING",
            (
                case.id,
                case.tenant,
                case.kind.value,
                action.id,
                action.parent,
                action.digest,
                idempotency_of(action),
                case.agent_id,
                action.caller.user,
                case.server,
                case.tool,
                case.risk,
                case.effect,
                _rules(case.card),
                case.definition_digest,
                case.state.value,
                int(case.state in OPEN),
                case.version,
                case.fence,
                _encode(case.requirement).decode(),
                case.presented_digest,
                self._seal(case),
                case.opened_ns,
                case.expires_ns,
                case.decided_ns,
                case.ended_ns,
                case.code,
                case.why,
            ),
        )
        return done.rowcount == 1

    def bind_key(self, db: Connection, idempotency: str, case_id: str) -> None:
        """Let a key stand for a case that was opened without it."""
        db.execute(
            "INSERT INTO case_key (idempotency, case_id) VALUES (?, ?)"
            " ON CONFLICT (idempotency) DO UPDATE SET case_id = excluded.case_id",
            (idempotency, case_id),
        )

    def move(self, db: Connection, case: Case, expected: Case) -> bool:
        """Write a transition where the row still is what `expected` says (its version); False if somebody was first."""
        done = db.execute(
            "UPDATE approval_case SET state = ?, open = ?, version = ?, fence = ?, requirement = ?, rules = ?,"
            " presented_digest = ?, definition_digest = ?, asked = ?, expires_ns = ?, decided_ns = ?, ended_ns = ?,"
            " told_until_ns = ?, code = ?, why = ?, released_to = ? WHERE id = ? AND version = ? AND state = ?",
            (
                case.state.value,
                int(case.state in OPEN),
                expected.version + 1,
                case.fence,
                _encode(case.requirement).decode(),
                _rules(case.card),
                case.presented_digest,
                case.definition_digest,
                self._seal(case),
                case.expires_ns,
                case.decided_ns,
                case.ended_ns,
                case.told_until_ns,
                case.code,
                case.why,
                case.released_to,
                case.id,
                expected.version,
                expected.state.value,
            ),
        )
        return done.rowcount == 1

    def store_ending(self, db: Connection, case_id: str, ending: Ending) -> None:
        """Seal how an attempt ended."""
        sealed = self._sealing.seal(_encode(ending), f"{case_id}/ending")
        db.execute("UPDATE approval_case SET ending = ? WHERE id = ?", (sealed, case_id))

    def drop_ending(self, db: Connection, case_id: str) -> None:
        """Forget a stored end that is not the last word any more."""
        db.execute("UPDATE approval_case SET ending = NULL WHERE id = ?", (case_id,))

    def _seal(self, case: Case) -> bytes:
        return self._sealing.seal(_encode(Asked(case.action, case.card)), f"{case.id}/asked")


def _rules(card: Card) -> str:
    return f"|{'|'.join(card.rules)}|"
