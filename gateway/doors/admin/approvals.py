"""/api/v1/approvals: cases that wait for people, and what people say to them.

A case shows what an agent wants to do, so a look at one is on record like a look at the trail.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from gateway.approvals.case import Case, Choice, Quorum, State
from gateway.approvals.places import Places
from gateway.audit.records import event
from gateway.clock import rfc3339
from gateway.doors.admin import case_json
from gateway.doors.admin.case_stream import CaseStream
from gateway.doors.admin.paging import Cursor, Limit, point_on, say_total
from gateway.doors.admin.parts import Parts
from gateway.doors.admin.paths import API
from gateway.doors.admin.people_in import CaseKeeper, CaseReader, PartsDep, Reviewer
from gateway.doors.admin.replies import Replies, Reply
from gateway.doors.admin.schemas import CancelIn, CommentIn, ReconcileIn, ReviewIn
from gateway.doors.admin.trail import record_read
from gateway.errors import Refusal
from gateway.identity.people import Role
from gateway.identity.signed_in import SignedIn

routes = APIRouter(prefix=f"{API}/approvals", tags=["approvals"])
_Text = Annotated[str | None, Query(max_length=256)]
_IfMatch = Annotated[str | None, Header(description="The ETag that was seen; another version is `stale`.")]
_IdempotencyKey = Annotated[
    str | None, Header(min_length=1, max_length=255, description="The same key and body: the same answer again.")
]
_ETAG = re.compile(r'(?:W/)?"([0-9]{1,18})"')


@routes.get("")
async def list_cases(
    parts: PartsDep,
    person: CaseReader,
    request: Request,
    response: Response,
    status: Annotated[str | None, Query(max_length=32, description="A state, or `open`.")] = None,
    agent: _Text = None,
    tool: Annotated[str | None, Query(max_length=256, description="A tool's name or server__tool.")] = None,
    rule: _Text = None,
    risk: Annotated[str | None, Query(max_length=32, description="low, medium, high or critical.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> list[dict[str, Any]]:
    """Cases, newest first; everything given must hold. Of decided ones the votes are not counted here."""
    wanted = {"status": status, "agent": agent, "tool": tool, "rule": rule, "risk": risk}
    asked = {name: value for name, value in wanted.items() if value is not None}
    await record_read(parts, person, {"approvals": asked})
    found = await parts.approvals.find(**asked, limit=limit, cursor=cursor)
    say_total(response, found.total)
    if found.cursor is not None:
        point_on(request, response, found.cursor)
    return await summaries(parts, found.cases)


@routes.get("/stream", response_class=Response, responses={200: {"content": {"text/event-stream": {}}}})
async def stream_cases(parts: PartsDep, person: CaseReader) -> CaseStream:
    """Every change of a case, as server-sent events `case` with id, state and version."""
    return CaseStream(parts.approvals, lambda: _may_still_read(parts, person))


@routes.get("/{case_id}")
async def show_case(case_id: str, parts: PartsDep, person: CaseReader, response: Response) -> dict[str, Any]:
    """A case with its card, votes, comments and attempts, and whether you may decide it. `ETag` is its version."""
    shown = await show(parts, person, case_id)
    response.headers["etag"] = _etag(shown["version"])
    return shown


@routes.post("/{case_id}/reviews")
async def review_case(
    case_id: str,
    vote: ReviewIn,
    parts: PartsDep,
    person: Reviewer,
    request: Request,
    response: Response,
    if_match: _IfMatch = None,
    idempotency_key: _IdempotencyKey = None,
) -> dict[str, Any]:
    """Vote on a case. `presented_digest` says what you were shown; the case as it stands with your vote."""
    version = _version(if_match)

    async def make() -> Reply:
        headers = {}
        try:
            case = await cast_vote(parts, person, case_id, vote, version=version)
        except Refusal as refusal:
            known = idempotency_key is not None and refusal.code in ("decided", "stale")
            if not known or not await _has_voted_so(parts, person, case_id, vote):
                raise
            # Sent again, and answered by another replica or before a restart: the vote stands, and so does the case.
            case = await parts.approvals.case(case_id)
            headers["idempotency-replayed"] = "true"
        (shown,) = await summaries(parts, [case])
        return shown, headers | {"etag": _etag(case.version)}

    replies: Replies = request.app.state.replies
    reply, again = await replies.once(person.person.id, idempotency_key, (case_id, vote), make)
    body, headers = reply
    response.headers.update(headers)
    if again:
        response.headers["idempotency-replayed"] = "true"
    return body


@routes.post("/{case_id}/comments", status_code=201)
async def comment_case(case_id: str, remark: CommentIn, parts: PartsDep, person: Reviewer) -> dict[str, Any]:
    """Say something to the other people on a case; no agent sees it."""
    said = await parts.approvals.comment(case_id, person.person.id, remark.text)
    return {"id": said.id, "person": said.person, "text": said.text, "time": rfc3339(said.ts_ns)}


@routes.post("/{case_id}/cancel")
async def cancel_case(case_id: str, end: CancelIn, parts: PartsDep, person: CaseKeeper) -> dict[str, Any]:
    """End a case that is not carried out yet, without a decision on it."""
    return _ended(await parts.approvals.cancel(case_id, by=person.person.id, why=end.why, person=True))


@routes.post("/{case_id}/reconcile")
async def reconcile_case(case_id: str, found: ReconcileIn, parts: PartsDep, person: Reviewer) -> dict[str, Any]:
    """Say what became of an outcome that is unknown. Whoever may not vote on the case may not say it either.

    The case ends once as many reviewers agree as had to approve it, one where nobody had to; until then it stays
    `unknown`, and you may say otherwise.
    """
    case = await say_found(parts, person, case_id, found)
    return {**_ended(case), **case_json.reconciling(case, _places(parts, case, case.reconciled_by))}


# ------------------------------------------------------------ what the console shows too


async def summaries(parts: Parts, cases: Sequence[Case], person: SignedIn | None = None) -> list[dict[str, Any]]:
    """Cases as lines of a list; where several must agree on a pending one, with what they have said so far.

    With `person` each line says whether they may decide it.
    """
    found = []
    standing = None if person is None else parts.registry.people.standing(person.person.id)
    for case in cases:
        votes = None
        if case.state is State.PENDING:
            untouched = case.version == 1  # nobody has voted on it, so that its votes need not be asked for
            alone = untouched and len(case.requirement.quorum) == 1 and case.requirement.quorum[0].approve == 1
            votes = [] if alone and case.requirement.quorum[0].deny == 1 else await parts.approvals.votes(case.id)
        line = case_json.summary(case, votes, _places(parts, case))
        if person is not None:
            owners = _owners(parts, case)
            of_them = (case, person.person.id, standing, owners)
            line["may_decide"] = case_json.may_decide(*of_them, votes or (), _places(parts, case), person.origin.makers)
            line["may_reconcile"] = case_json.may_reconcile(*of_them)
        found.append(line)
    return found


async def show(parts: Parts, person: SignedIn, case_id: str) -> dict[str, Any]:
    """A case for a person, whole; the look is on record before. Raises `not_found`, `audit_unavailable`."""
    await record_read(parts, person, {"case": case_id[:64]})
    room, who = parts.approvals, person.person.id
    case = await room.case(case_id)
    votes = await room.votes(case.id)
    of_them = (case, who, parts.registry.people.standing(who), _owners(parts, case))
    places = _places(parts, case)
    return case_json.full(
        case,
        votes,
        await room.comments(case.id),
        await room.attempts(case.id),
        await room.like(case) if case.state is State.PENDING else [],
        places=places,
        may_decide=case_json.may_decide(*of_them, votes, places, person.origin.makers),
        may_reconcile=case_json.may_reconcile(*of_them),
        no_place=case_json.no_place(case, who, person.origin.makers, votes, places),
    )


async def cast_vote(
    parts: Parts, person: SignedIn, case_id: str, vote: ReviewIn, *, version: int | None = None
) -> Case:
    """Cast a person's vote; one they had no right to is on record as well. Raises what `Approvals.vote` raises."""
    with _refusals_on_record(parts, person, case_id, vote.decision):
        return await parts.approvals.vote(
            case_id,
            person.person.id,
            Choice(vote.decision),
            presented_digest=vote.presented_digest,
            reason=vote.reason,
            guidance=vote.guidance,
            version=version,
            makers=person.origin.makers,
        )


async def say_found(parts: Parts, person: SignedIn, case_id: str, found: ReconcileIn) -> Case:
    """A person's finding of an unknown outcome, as `cast_vote` for a vote. Raises what `Approvals.reconcile` raises."""
    with _refusals_on_record(parts, person, case_id, f"reconcile {found.outcome}"):
        return await parts.approvals.reconcile(
            case_id, person.person.id, outcome=found.outcome, note=found.note, makers=person.origin.makers
        )


@contextmanager
def _refusals_on_record(parts: Parts, person: SignedIn, case_id: str, request: str) -> Iterator[None]:
    try:
        yield
    except Refusal as refusal:
        if refusal.code in ("forbidden", "separation_of_duties"):
            who = person.person
            entry = event(
                "person.refused",
                tenant=who.tenant,
                person=who.id,
                subject={"case": case_id[:64], "request": request},
                labels={"code": refusal.code},
            )
            parts.log.append_soon(entry)
        raise


async def _has_voted_so(parts: Parts, person: SignedIn, case_id: str, vote: ReviewIn) -> bool:
    """Whether this very vote of a person stands already."""
    said = (person.person.id, vote.decision, vote.presented_digest, vote.reason, vote.guidance)
    votes = await parts.approvals.votes(case_id)
    return said in [(one.person, one.choice.value, one.presented_digest, one.reason, one.guidance) for one in votes]


# ------------------------------------------------------------ parts


def _places(parts: Parts, case: Case, quorums: Sequence[Quorum] | None = None) -> Places:
    return Places(case, parts.registry.people.standing, _owners(parts, case), quorums)


def _owners(parts: Parts, case: Case) -> tuple[str, ...]:
    agent = parts.registry.agents.get(case.agent_id)
    return () if agent is None else tuple(agent.owners.values())


def _may_still_read(parts: Parts, person: SignedIn) -> bool:
    now = person.now(parts.registry.people)
    return now is not None and any(one in now.roles for one in (Role.REVIEWER, Role.AUDITOR))


def _ended(case: Case) -> dict[str, Any]:
    """What whoever ended a case is told; an operator need not be one who may read it."""
    return {
        "id": case.id,
        "state": case.state.value,
        "version": case.version,
        "code": case.code,
        "why": case.why,
        "ended": None if case.ended_ns is None else rfc3339(case.ended_ns),
    }


def _etag(version: int) -> str:
    return f'"{version}"'


def _version(if_match: str | None) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    found = _ETAG.fullmatch(if_match.strip())
    if found is None:
        raise Refusal("malformed", 'If-Match takes the one ETag of the case that you were shown, such as "3".')
    return int(found[1])
