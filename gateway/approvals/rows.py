"""Cases in the database: what a row holds, read back as a `Case`. Everything that was asked or answered is sealed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NoReturn

import msgspec
import structlog

from gateway.actions import Action, Kind
from gateway.approvals.case import (
    OPEN,
    Attempt,
    Card,
    Case,
    Choice,
    Comment,
    Ending,
    Finding,
    Requirement,
    State,
    Vote,
)
from gateway.approvals.sealing import Sealing
from gateway.errors import Refusal
from gateway.store.interface import Connection
from gateway.store.macs import COVERED, RowMacs
from gateway.store.moments import read_began

log = structlog.get_logger("gateway.approvals")

_CASE = "approval_case"
_COLUMNS = COVERED[_CASE].columns


class Asked(msgspec.Struct, frozen=True):
    """What is sealed of a case: the action as it was asked, and the card as it is shown."""

    action: Action
    card: Card


_SET = ", ".join(f'"{name}" = ?' for name in _COLUMNS if name != "id")
_encode = msgspec.json.encode
_decode_asked = msgspec.json.Decoder(Asked).decode
_decode_names = msgspec.json.Decoder(tuple[str, ...]).decode
_decode_findings = msgspec.json.Decoder(tuple[Finding, ...]).decode
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
    """Reads and writes cases on a connection that is handed in; knows no transitions.

    A row that no gateway wrote as it is now is reported. Lists leave it out; whoever asks for it alone is refused, so
    that nothing is done as if there were no case.
    """

    def __init__(self, sealing: Sealing, macs: RowMacs) -> None:
        self._sealing = sealing
        self._macs = macs
        self._seen_until_ns: dict[str, int] = {}  # until when an older state of a case could be carried out

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
        bindings = self._macs.read(db, "case_key", "WHERE idempotency = ?", (idempotency,))
        bound = self.case(db, bindings[0][1]) if bindings else None
        return bound if own is None or (bound is not None and bound.state in OPEN) else own

    def select(self, db: Connection, where: str, values: tuple[Any, ...]) -> list[Case]:
        """Cases by a condition of this room's own. Raises `store_unavailable` for one that can't be opened."""
        return [self._case(row) for row in self._macs.read(db, _CASE, where, values)]

    def readable(self, db: Connection, where: str, values: tuple[Any, ...]) -> list[Case]:
        """The same for lists and for what time does: one that can't be opened is told in the log and left out."""
        cases = []
        for row in self._macs.read(db, _CASE, where, values):
            try:
                cases.append(self._case(row))
            except Refusal as refusal:
                log.error("case_unreadable", case=row[0], message=refusal.message)  # noqa: TRY400 - told, not a fault
        return cases

    def saw(self, case: Case) -> None:
        """A case as it is durable: an older state of its row counts no more. Call it after the commit."""
        self._macs.saw(_CASE, case.id, case.version)
        self._seen_until_ns[case.id] = max(case.expires_ns, self._seen_until_ns.get(case.id, 0))

    def outdated(self, case: Case, reason: str) -> NoReturn:
        """The log says otherwise than a case's row, which therefore counts no more. Raises `store_unavailable`."""
        self._macs.distrust(_CASE, tuple(self._row(case).values()), reason, for_ever=True)
        raise _foreign(case.id)

    def gone(self, case_id: str) -> NoReturn:
        """A case is open on record, and somebody deleted its row. Raises `store_unavailable`."""
        self._macs.report(_CASE, case_id, "is open on record, and was deleted")
        raise _foreign(case_id)

    def forget_old(self, now_ns: int) -> None:
        """Cases whose every state has expired need not be remembered."""
        for case_id in [case_id for case_id, until_ns in self._seen_until_ns.items() if until_ns <= now_ns]:
            del self._seen_until_ns[case_id]
            self._macs.forget(_CASE, case_id)

    def votes(self, db: Connection, case: Case, *, or_later: bool = False) -> list[Vote]:
        """All votes, oldest first; those on an earlier card do not count.

        `or_later`: the case was read in an earlier transaction, so votes given since are no fault.
        Raises `store_unavailable` where a vote is missing: the case says how many it was given.
        """
        found = self._macs.read(db, "case_vote", "WHERE case_id = ? ORDER BY ts_ns, id", (case.id,))
        if len(found) < case.votes or (len(found) > case.votes and not or_later):
            self._macs.report(_CASE, case.id, f"was given {case.votes} votes, and {len(found)} are there")
            raise _foreign(case.id)
        return [
            Vote(
                id=id_,
                person=person,
                choice=Choice(choice),
                presented_digest=presented,
                reason=reason,
                guidance=guidance,
                ts_ns=ts_ns,
                makers=() if makers is None else _decode_names(makers),
                counts=presented == case.presented_digest,
            )
            for id_, _, person, choice, presented, reason, guidance, ts_ns, makers in found
        ]

    def add_vote(self, db: Connection, case_id: str, vote: Vote) -> None:
        """Write a vote; the case's own row counts it in the same transaction. Raises `store_unavailable`."""
        added = self._macs.insert(
            db,
            "case_vote",
            id=vote.id,
            case_id=case_id,
            person=vote.person,
            choice=vote.choice.value,
            presented_digest=vote.presented_digest,
            reason=vote.reason,
            guidance=vote.guidance,
            ts_ns=vote.ts_ns,
            makers=_encode(vote.makers).decode() if vote.makers else None,
        )
        if added != 1:  # somebody else put a vote of this person there, which did not count
            raise _foreign(case_id)

    def replace_vote(self, db: Connection, case_id: str, vote: Vote) -> None:
        """Change what a person said on the same card. Raises `store_unavailable` where the vote is not there."""
        changed = self._macs.change(
            db,
            "case_vote",
            "WHERE id = ?",
            (vote.id,),
            choice=vote.choice.value,
            reason=vote.reason,
            guidance=vote.guidance,
            ts_ns=vote.ts_ns,
            makers=_encode(vote.makers).decode() if vote.makers else None,
        )
        if changed != 1:
            raise _foreign(case_id)

    def add_comment(self, db: Connection, case_id: str, comment: Comment) -> None:
        """Write a remark."""
        self._macs.insert(
            db,
            "case_comment",
            id=comment.id,
            case_id=case_id,
            person=comment.person,
            text=comment.text,
            ts_ns=comment.ts_ns,
        )

    def comments(self, db: Connection, case_id: str) -> list[Comment]:
        """Oldest first."""
        found = self._macs.read(db, "case_comment", "WHERE case_id = ? ORDER BY ts_ns, id", (case_id,))
        return [Comment(id=id_, person=person, text=text, ts_ns=ts_ns) for id_, _, person, text, ts_ns in found]

    def attempts(self, db: Connection, case_id: str) -> list[Attempt]:
        """Oldest first."""
        found = self._macs.read(db, "case_attempt", "WHERE case_id = ? ORDER BY fence", (case_id,))
        return [
            Attempt(fence=fence, started_ns=started_ns, ended_ns=ended_ns, outcome=outcome, note=note)
            for _, fence, started_ns, ended_ns, outcome, note, _ in found
        ]

    def has_attempt(self, db: Connection, case: Case) -> bool:
        """Whether the row of a case's attempt is there, as a gateway wrote it."""
        return any(attempt.fence == case.fence for attempt in self.attempts(db, case.id))

    def add_attempt(self, db: Connection, case: Case, attempt: Attempt, replica: str) -> None:
        """Write an attempt. Raises `store_unavailable` where somebody else put one there."""
        added = self._macs.insert(
            db, "case_attempt", case_id=case.id, replica=replica, **msgspec.structs.asdict(attempt)
        )
        if added != 1:
            raise _foreign(case.id)

    def end_attempt(self, db: Connection, case: Case, *, ended_ns: int, outcome: str, note: str | None) -> None:
        """How the attempt that `case.fence` names ended."""
        self._macs.change(
            db,
            "case_attempt",
            "WHERE case_id = ? AND fence = ?",
            (case.id, case.fence),
            ended_ns=ended_ns,
            outcome=outcome,
            note=note,
        )

    def ending(self, db: Connection, case_id: str) -> Ending | None:
        """The stored end, if it is still kept."""
        row = db.execute("SELECT ending FROM approval_case WHERE id = ?", (case_id,)).fetchone()
        if row is None or row[0] is None:
            return None
        return _decode_ending(self._sealing.unseal(row[0], f"{case_id}/ending"))

    def _one(self, db: Connection, where: str, values: tuple[Any, ...]) -> Case | None:
        statement = f"SELECT {COVERED[_CASE].listed} FROM {_CASE} {where}"  # noqa: S608 - names and words of ours
        began = read_began()
        row = db.execute(statement, values).fetchone()
        if row is None:
            return None
        if not self._macs.believes(_CASE, row, began):
            raise _foreign(row[0])
        return self._case(row[:-1])

    def _case(self, row: Sequence[Any]) -> Case:
        of = dict(zip(_COLUMNS, row, strict=True))
        asked = _decode_asked(self._sealing.unseal(of["asked"], f"{of['id']}/asked"))
        return Case(
            id=of["id"],
            tenant=of["tenant"],
            kind=Kind(of["kind"]),
            action=asked.action,
            definition_digest=of["definition_digest"],
            risk=of["risk"],
            effect=of["effect"],
            server=of["server"],
            tool=of["tool"],
            state=State(of["state"]),
            version=of["version"],
            fence=of["fence"],
            requirement=_decode_requirement(of["requirement"]),
            card=asked.card,
            presented_digest=of["presented_digest"],
            opened_ns=of["opened_ns"],
            expires_ns=of["expires_ns"],
            decided_ns=of["decided_ns"],
            ended_ns=of["ended_ns"],
            told_until_ns=of["told_until_ns"],
            code=of["code"],
            why=of["why"],
            released_to=of["released_to"],
            written=of["written"],
            votes=of["votes"],
            findings=() if of["findings"] is None else _decode_findings(of["findings"]),
        )

    # ------------------------------------------------------------ writing

    def insert(self, db: Connection, case: Case) -> Case | None:
        """Write a new case; it as it is written, or None where its identity has an open one."""
        (last,) = db.execute("SELECT coalesce(max(written), 0) FROM approval_case").fetchone()
        case = msgspec.structs.replace(case, written=int(last) + 1)
        return case if self._macs.insert(db, _CASE, **self._row(case)) == 1 else None

    def bind_key(self, db: Connection, idempotency: str, case_id: str) -> None:
        """Let a key stand for a case that was opened without it."""
        db.execute(
            "INSERT INTO case_key (idempotency, case_id, mac) VALUES (?, ?, ?)"
            " ON CONFLICT (idempotency) DO UPDATE SET case_id = excluded.case_id, mac = excluded.mac",
            (idempotency, case_id, self._macs.of("case_key", (idempotency, case_id))),
        )

    def move(self, db: Connection, case: Case, expected: Case) -> bool:
        """Write a transition where the row still is what `expected` says (its version); False if somebody was first."""
        row = self._row(msgspec.structs.replace(case, version=expected.version + 1))
        del row["id"]
        done = db.execute(
            f"UPDATE approval_case SET {_SET}, mac = ? WHERE id = ? AND version = ? AND state = ?",  # noqa: S608
            (
                *row.values(),
                self._macs.of_named(_CASE, {"id": case.id, **row}),
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

    def _row(self, case: Case) -> dict[str, Any]:
        """A case's covered columns, in their order."""
        action = case.action
        of = {
            "id": case.id,
            "tenant": case.tenant,
            "kind": case.kind.value,
            "action_id": action.id,
            "parent": action.parent,
            "digest": action.digest,
            "idempotency": idempotency_of(action),
            "agent": case.agent_id,
            "user": action.caller.user,
            "server": case.server,
            "tool": case.tool,
            "risk": case.risk,
            "effect": case.effect,
            "rules": _rules(case.card),
            "definition_digest": case.definition_digest,
            "state": case.state.value,
            "open": int(case.state in OPEN),
            "version": case.version,
            "fence": case.fence,
            "requirement": _encode(case.requirement).decode(),
            "presented_digest": case.presented_digest,
            "asked": self._seal(case),
            "opened_ns": case.opened_ns,
            "expires_ns": case.expires_ns,
            "decided_ns": case.decided_ns,
            "ended_ns": case.ended_ns,
            "told_until_ns": case.told_until_ns,
            "code": case.code,
            "why": case.why,
            "released_to": case.released_to,
            "written": case.written,
            "votes": case.votes,
            "findings": _encode(case.findings).decode() if case.findings else None,
        }
        return {name: of[name] for name in _COLUMNS}

    def _seal(self, case: Case) -> bytes:
        return self._sealing.seal(_encode(Asked(case.action, case.card)), f"{case.id}/asked")


def _foreign(case_id: Any) -> Refusal:
    return Refusal(
        "store_unavailable",
        f"The database's rows of the case {case_id} were not written by this gateway, or were changed since, so the "
        "case can't be used. Operators: run `gateway audit verify` and restore the database from a backup.",
    )


def _rules(card: Card) -> str:
    return f"|{'|'.join(card.rules)}|"
