"""The transitions: each a function that runs in one transaction, looks at the row as it is, and moves it or refuses.

The writer's thread runs one transaction at a time, so of two that want the same case the second sees what the first
did; the compare-and-swap on `version` keeps that true on any store. Nothing here waits or performs anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from gateway.actions import Status
from gateway.approvals.case import (
    OPEN,
    TOLD_AGAIN,
    Attempt,
    Card,
    Case,
    Choice,
    Comment,
    Ending,
    Finding,
    Note,
    Quorum,
    Requirement,
    State,
    Vote,
)
from gateway.approvals.deciders import Standings, Stands, groups_of, hindrance
from gateway.approvals.places import Places
from gateway.approvals.rows import Rows
from gateway.clock import Clock
from gateway.errors import UNTOLD, Refusal
from gateway.store.interface import Connection

_NANOS = 1_000_000_000
Change = Callable[[Connection], Note]
OnRecord = Callable[[Connection, str], tuple[int, int, int] | None]
"""The attempts, votes and findings of an open case as the log has them; None where it has ended."""
DeletedOnRecord = Callable[[Connection, str | None], Mapping[str, str]]
"""Cases that are open on record and have no row, perhaps only those of one digest: ID -> digest."""
_replace = msgspec.structs.replace


class Machine:
    """Makes transitions. `standing` and `active` look at the rows inside the transaction: what is durable counts."""

    def __init__(
        self,
        rows: Rows,
        *,
        clock: Clock,
        new_id: Callable[[], str],
        standing: Callable[[Connection, str], Stands | None],
        owners: Callable[[str], Iterable[str]],
        active: Callable[[Connection, str], bool],
        replay_s: Callable[[], int],
        on_record: OnRecord,
        replica: str,
    ) -> None:
        self._rows = rows
        self._clock = clock
        self._new_id = new_id
        self._standing = standing
        self._owners = owners
        self._active = active
        self._replay_s = replay_s
        self._on_record = on_record
        self._replica = replica

    # ------------------------------------------------------------ people decide

    def vote(
        self,
        case_id: str,
        person: str,
        choice: Choice,
        *,
        presented_digest: str,
        reason: str,
        guidance: str,
        version: int | None,
        makers: tuple[str, ...],
    ) -> Change:
        """Count one person's vote. Raises `decided`, `stale`, `forbidden`, `separation_of_duties`, `not_found`."""

        def change(db: Connection) -> Note:
            case = self._load(db, case_id)
            self._still_open(case)
            if presented_digest != case.presented_digest or version not in (None, case.version):
                raise Refusal(
                    "stale", "The case is not what you were shown any more; look again, then decide.", detail=_of(case)
                )
            standings = self._as_of_now(db)
            self._check_decider(case, person, standings, case.requirement.quorum)
            votes = self._rows.votes(db, case)
            earlier = next((vote for vote in votes if vote.person == person and vote.counts), None)
            if earlier is not None and not _has_fewer(makers, earlier.makers):
                return self._counted_again(db, case, votes, standings, same=earlier.choice is choice)
            vote = Vote(
                id=self._new_id() if earlier is None else earlier.id,
                person=person,
                choice=choice,
                presented_digest=presented_digest,
                reason=reason,
                guidance=guidance,
                ts_ns=self._clock.now_ns(),
                makers=makers,
            )
            if earlier is None:
                self._rows.add_vote(db, case.id, vote)
            else:  # what others could have said for a person does not keep that person from saying it
                self._rows.replace_vote(db, case.id, vote)
            given = [one for one in votes if one is not earlier]
            moved = self._counted(_replace(case, votes=len(given) + 1), [*given, vote], standings)
            self._move(db, case, moved)
            name = "vote" if earlier is None else "replaced_vote"
            labels = {"choice": choice.value, "presented_digest": presented_digest, name: vote.id, **_made_by(makers)}
            if reason:
                labels["reason"] = reason
            if guidance:
                labels["guidance"] = guidance
            kind = "voted" if moved.state is State.PENDING else moved.state.value
            return Note(f"case.{kind}", labels)

        return change

    def _counted_again(
        self, db: Connection, case: Case, votes: Sequence[Vote], standings: Standings, *, same: bool
    ) -> Note:
        """A vote that stands already is no second one; but what was given may be enough by now, as when a reviewer has
        the role again that was taken away in between."""
        moved = self._counted(case, votes, standings)
        if not same or moved.state is State.PENDING:
            raise Refusal("decided", "You have voted on this card already; others must decide.", detail=_of(case))
        self._move(db, case, moved)
        return Note(f"case.{moved.state.value}", {"by": "votes that were there"})

    def approve_by_policy(self, case_id: str) -> Change:
        """Policy allows now what it escalated before, so nobody has to be asked."""

        def change(db: Connection) -> Note:
            case = self._load(db, case_id)
            self._still_open(case)
            self._move(db, case, self._approved(case))
            return Note("case.approved", {"by": "policy"})

        return change

    def comment(self, case_id: str, comment: Comment) -> Change:
        """Add a remark; the case stays as it is."""

        def change(db: Connection) -> Note:
            self._load(db, case_id)
            self._rows.add_comment(db, case_id, comment)
            return Note("case.commented", {"comment": comment.id})

        return change

    def satisfied(self, case: Case, votes: Sequence[Vote], requirement: Requirement, standings: Standings) -> bool:
        """Whether the votes that count today fill every place of every quorum."""
        places = self._places(case, standings, requirement.quorum)
        return places.enough(places.approvals(votes))

    def approving(self, case: Case, votes: Sequence[Vote], standings: Standings) -> list[str]:
        """Who approves a case today, one person for each place that they could fill."""
        places = self._places(case, standings)
        return places.speakers(places.approvals(votes))

    def _as_of_now(self, db: Connection) -> Standings:
        return lambda person: self._standing(db, person)

    def _counted(self, case: Case, votes: Sequence[Vote], standings: Standings) -> Case:
        """The case after its votes were counted anew."""
        places = self._places(case, standings)
        denying = [vote for vote in votes if vote.counts and vote.choice is Choice.DENY]
        for quorum in case.requirement.quorum:
            if places.filled(quorum, places.denials(votes)) >= quorum.deny:
                guidance = " ".join(vote.guidance for vote in denying if vote.guidance)
                return self._ended(case, State.DENIED, code="approval_denied", why=guidance)
        if self.satisfied(case, votes, case.requirement, standings):
            return self._approved(case)
        return case

    def _approved(self, case: Case) -> Case:
        now_ns = self._clock.now_ns()
        # A claim may come late: it has the whole time to live from the approval on.
        expires_ns = max(case.expires_ns, now_ns + case.requirement.ttl_s * _NANOS)
        return _replace(case, state=State.APPROVED, decided_ns=now_ns, expires_ns=expires_ns)

    def _check_decider(self, case: Case, person: str, standings: Standings, quorums: Sequence[Quorum]) -> None:
        match hindrance(case, person, standings(person), self._owners(case.agent_id), quorums):
            case "no_reviewer":
                raise Refusal(
                    "forbidden", f"{person} is not a reviewer; an operator can give the role with `gateway people add`."
                )
            case "party":
                raise Refusal(
                    "separation_of_duties",
                    f"{person} owns the agent {case.agent_id} or acts through it; another reviewer must decide.",
                    detail=_of(case),
                )
            case "group":
                raise Refusal("forbidden", f"Only members of {groups_of(quorums)} decide this case.", detail=_of(case))

    def _places(self, case: Case, standings: Standings, quorums: Sequence[Quorum] | None = None) -> Places:
        return Places(case, standings, self._owners(case.agent_id), quorums)

    # ------------------------------------------------------------ other ends

    def expire(self, case_id: str) -> Change:
        """Time is up: denied. Raises `decided` where it is not."""

        def change(db: Connection) -> Note:
            case = self._load(db, case_id)
            if case.state not in (State.PENDING, State.APPROVED) or case.expires_ns > self._clock.now_ns():
                raise self._late(case)
            why = "" if case.state is State.PENDING else "It was approved, and not claimed or begun in time."
            self._move(db, case, self._ended(case, State.EXPIRED, code="approval_expired", why=why))
            return Note("case.expired", {"was": case.state.value})

        return change

    def cancel(self, case_id: str, *, by: str, why: str) -> Change:
        """It is not wanted any more. Raises `decided` where it is too late."""

        def change(db: Connection) -> Note:
            case = self._load(db, case_id)
            if case.state not in (State.PENDING, State.APPROVED):
                raise self._late(case)
            self._move(db, case, self._ended(case, State.CANCELLED, code="approval_denied", why=why))
            return Note("case.cancelled", {"by": by, "why": why})

        return change

    def invalidate(self, case_id: str, *, code: str, why: str, rules: tuple[str, ...]) -> Change:
        """Something stands against it that no vote can lift. Raises `decided` where it is too late."""

        def change(db: Connection) -> Note:
            case = self._load(db, case_id)
            if case.state not in (State.PENDING, State.APPROVED):
                raise self._late(case)
            named = rules if code not in UNTOLD else ()  # the agent is told `why`
            told = f"{why} ({'Rule' if len(named) == 1 else 'Rules'}: {', '.join(named)}.)" if named else why
            self._move(db, case, self._ended(case, State.INVALIDATED, code=code, why=told))
            return Note("case.invalidated", {"code": code, "why": why, "rules": ",".join(rules)})

        return change

    def requeue(self, case_id: str, card: Card, requirement: Requirement, presented: str, *, why: str) -> Change:
        """People must look again: a new card, on which earlier votes do not count, or the votes that are left."""

        def change(db: Connection) -> Note:
            case = self._load(db, case_id)
            if case.state is not State.APPROVED:
                raise self._late(case)
            moved = _replace(
                case,
                state=State.PENDING,
                card=card,
                requirement=requirement,
                presented_digest=presented,
                definition_digest=card.definition_digest,
                expires_ns=self._clock.now_ns() + requirement.ttl_s * _NANOS,
                decided_ns=None,
                why=why,
            )
            self._move(db, case, moved)
            definition = {"definition_digest": card.definition_digest} if card.definition_digest else {}
            return Note("case.requeued", {"why": why, **moved.bound, **definition})

        return change

    # ------------------------------------------------------------ carrying out

    def begin(self, case_id: str, requirement: Requirement) -> Callable[[Connection], None]:
        """Take the one right to carry it out: the attempt's row stands before anything is sent.

        Raises `decided` where another was first, it expired, or the votes do not carry it today; `agent_suspended`.
        """

        def change(db: Connection) -> None:
            case = self._claim(db, case_id, requirement)
            self._move(db, case, _replace(case, state=State.EXECUTING, fence=case.fence + 1))
            attempt = Attempt(fence=case.fence + 1, started_ns=self._clock.now_ns())
            self._rows.add_attempt(db, case, attempt, self._replica)

        return change

    def end(self, case: Case, status: Status, ending: Ending) -> Callable[[Connection], None]:
        """How the attempt that `case.fence` names ended. What certainly did nothing leaves the case approved."""

        def change(db: Connection) -> None:
            now = self._load(db, case.id)
            if now.fence != case.fence or now.state not in (State.EXECUTING, State.UNKNOWN):
                return  # a person has reconciled it in the meantime; the record of the result tells all the same
            state, why = _state_of(status), ""
            if state is State.FAILED and ending.detail.get("dispatched") == "no":
                state = State.APPROVED
            elif state is State.UNKNOWN:
                why = ending.message
            self._end_attempt(db, now, state.value if state is not State.APPROVED else "not_sent", ending.code)
            moved = (
                _replace(now, state=state)
                if state is State.APPROVED
                else self._ended(now, state, code=ending.code, why=why)
            )
            self._move(db, now, moved)
            self._rows.store_ending(db, case.id, ending)

        return change

    def lost(self, case_id: str, why: str) -> Change:
        """An attempt that nobody carries on: what it did is not known. Raises `decided` where there is none."""

        def change(db: Connection) -> Note:
            case = self._load(db, case_id)
            if case.state is not State.EXECUTING:
                raise self._late(case)
            self._end_attempt(db, case, State.UNKNOWN.value, why)
            self._move(db, case, self._ended(case, State.UNKNOWN, code="outcome_unknown", why=why))
            return Note("case.unknown", {"why": why, "fence": str(case.fence)})

        return change

    def not_begun(self, case_id: str, fence: int) -> Change:
        """An attempt that was given up while its beginning was being written: certainly nothing was sent."""

        def change(db: Connection) -> Note:
            case = self._load(db, case_id)
            if case.state is not State.EXECUTING or case.fence != fence:
                raise self._late(case)
            self._end_attempt(db, case, "not_sent", "audit_unavailable")
            self._move(db, case, _replace(case, state=State.APPROVED))
            return Note("case.reopened", {"why": "The attempt was given up before anything was sent."})

        return change

    def release(self, case_id: str, requirement: Requirement, answer_id: str) -> Callable[[Connection], None]:
        """Let an approved proposal pass, in one answer and no other. Raises `decided`."""

        def change(db: Connection) -> None:
            case = self._claim(db, case_id, requirement)
            moved = _replace(self._ended(case, State.SUCCEEDED, code=None, why=""), released_to=answer_id)
            self._move(db, case, moved)

        return change

    def reconcile(self, case_id: str, person: str, outcome: State, note: str, makers: tuple[str, ...]) -> Change:
        """A reviewer found out what became of an unknown attempt. Raises `decided`, `forbidden`,
        `separation_of_duties`, `not_found`.

        It ends the case once as many agree as had to approve it. Until then a person may find otherwise.
        """

        def change(db: Connection) -> Note:
            case = self._load(db, case_id)
            if case.state is not State.UNKNOWN:
                raise Refusal(
                    "decided", f"The case is {case.state}; only an unknown outcome is reconciled.", detail=_of(case)
                )
            standings = self._as_of_now(db)
            self._check_decider(case, person, standings, case.reconciled_by)
            said = next((one for one in case.found if (one.person, one.outcome) == (person, outcome)), None)
            if said is not None and not _has_fewer(makers, said.makers):
                found, labels = case, {"outcome": outcome.value, "by": "findings that were there"}
            else:
                finding = Finding(
                    id=self._new_id(),
                    person=person,
                    outcome=outcome,
                    note=note,
                    fence=case.fence,
                    ts_ns=self._clock.now_ns(),
                    makers=makers,
                )
                found = _replace(case, findings=(*case.findings, finding))
                labels = {"outcome": outcome.value, "note": note, "finding": finding.id, **_made_by(makers)}
            ended = self._reconciled(found, outcome, standings)
            if ended is None and found is case:
                raise Refusal(
                    "decided", f"You have found already that it {outcome}; others must agree.", detail=_of(case)
                )
            self._move(db, case, ended or found)
            if ended is not None:
                self._rows.drop_ending(db, case.id)  # it told that nobody knows
            return Note("case.found" if ended is None else "case.reconciled", labels)

        return change

    def _reconciled(self, case: Case, outcome: State, standings: Standings) -> Case | None:
        """The case with this outcome, where enough reviewers found it; else None."""
        places = self._places(case, standings, case.reconciled_by)
        if not places.enough(places.findings(outcome)):
            return None
        agreeing = [one for one in case.found if one.outcome is outcome]
        ended = self._ended(case, outcome, code="decided", why=" ".join(dict.fromkeys(one.note for one in agreeing)))
        # What was not done may be asked for again, and is decided as if it never had been: no vote carries over.
        return _replace(ended, told_until_ns=None) if outcome is State.FAILED else ended

    # ------------------------------------------------------------ parts

    def _claim(self, db: Connection, case_id: str, requirement: Requirement) -> Case:
        """The approved case, if nothing that is durable by now stands against it."""
        case = self._load(db, case_id)
        if case.state is not State.APPROVED or case.expires_ns <= self._clock.now_ns():
            raise self._late(case)
        if not self._active(db, case.agent_id):
            raise Refusal("agent_suspended", f"The agent {case.agent_id} is suspended.", detail=_of(case))
        if not self.satisfied(case, self._rows.votes(db, case), requirement, self._as_of_now(db)):
            raise Refusal("decided", "The votes do not carry the case any more.", detail=_of(case))
        return case

    def _load(self, db: Connection, case_id: str) -> Case:
        case = self._rows.case(db, case_id)
        if case is None:
            raise Refusal("not_found", "There is no case of this id; `gateway approvals list` shows those there are.")
        if case.state in OPEN:
            self._check_record(db, case)
        return case

    def _check_record(self, db: Connection, case: Case) -> None:
        """A row that is older than the log was put back. One that is newer was changed in this very transaction."""
        found = self._on_record(db, case.id)
        if found is None:
            self._rows.outdated(case, f"is {case.state}, and has ended on record")
        has = (case.fence, case.votes, len(case.findings))
        if any(mine < said for mine, said in zip(has, found, strict=True)):
            self._rows.outdated(
                case,
                f"has {has[0]} attempts, {has[1]} votes and {has[2]} findings, and on record {found[0]}, {found[1]} and"
                f" {found[2]}",
            )

    def _still_open(self, case: Case) -> None:
        if case.state is not State.PENDING or case.expires_ns <= self._clock.now_ns():
            raise self._late(case)

    def _late(self, case: Case) -> Refusal:
        if case.state in (State.PENDING, State.APPROVED) and case.expires_ns <= self._clock.now_ns():
            return Refusal("decided", "The case has run out of time, so it counts as denied.", detail=_of(case))
        return Refusal("decided", f"The case is {case.state} already; nothing was changed.", detail=_of(case))

    def _move(self, db: Connection, case: Case, moved: Case) -> None:
        if not self._rows.move(db, moved, case):
            raise Refusal("decided", "Somebody was faster; look at the case again.", detail=_of(case))

    def _ended(self, case: Case, state: State, *, code: str | None, why: str) -> Case:
        now_ns = self._clock.now_ns()
        told_until_ns = now_ns + self._replay_s() * _NANOS if state in TOLD_AGAIN else None
        return _replace(
            case,
            state=state,
            decided_ns=case.decided_ns or now_ns,
            ended_ns=now_ns,
            told_until_ns=told_until_ns,
            code=code,
            why=why,
        )

    def note_lost(self, db: Connection, case: Case) -> None:
        """The attempt of a call that went ahead without a case, and got lost."""
        began_ns = case.action.received_ns or case.opened_ns
        attempt = Attempt(
            fence=case.fence, started_ns=began_ns, ended_ns=case.ended_ns, outcome=case.state.value, note=case.why
        )
        self._rows.add_attempt(db, case, attempt, self._replica)

    def _end_attempt(self, db: Connection, case: Case, outcome: str, note: str | None) -> None:
        self._rows.end_attempt(db, case, ended_ns=self._clock.now_ns(), outcome=outcome, note=note)


def _state_of(status: Status) -> State:
    if status is Status.SUCCEEDED:
        return State.SUCCEEDED
    return State.FAILED if status is Status.FAILED else State.UNKNOWN


def _has_fewer(makers: tuple[str, ...], earlier: tuple[str, ...]) -> bool:
    """Whether something that a person says again came through fewer hands than before."""
    return set(makers) < set(earlier)


def _made_by(makers: tuple[str, ...]) -> dict[str, str]:
    """Who else could have said it, for its record."""
    return {"makers": ",".join(makers)} if makers else {}


def _of(case: Case) -> dict[str, str]:
    return {"case": case.id, "state": case.state.value}
