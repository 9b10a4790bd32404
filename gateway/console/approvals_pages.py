"""The queue of cases, the page of one case, and the forms on it: what the API does, for people with a browser.

A look is on record before anything is shown. A form that is refused comes back as the case's page as it is now, with
the reason on top and what was typed still in its place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote, urlencode

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway.approvals.case import State
from gateway.clock import rfc3339
from gateway.console import case_view
from gateway.console.pages import APPROVALS, CASE_READERS, HEADERS, READERS, Pages
from gateway.doors.admin.approvals import cast_vote, say_found, show, summaries
from gateway.doors.admin.parts import Parts
from gateway.doors.admin.people_in import require
from gateway.doors.admin.schemas import CancelIn, CommentIn, ReconcileIn, ReviewIn
from gateway.doors.admin.trail import record_read
from gateway.errors import Refusal
from gateway.identity.people import Role
from gateway.identity.signed_in import SignedIn

PAGE_SIZE = 50
OPEN, ALL = "open", "all"
_KEEPERS = (Role.OPERATOR, Role.REVIEWER)  # who may end a case
_ENDABLE = (State.PENDING, State.APPROVED)
# What is refused for what stands on the page; anything else is a page of its own.
_SHOWN_AGAIN = frozenset(("stale", "decided", "malformed", "forbidden", "separation_of_duties"))

Form = dict[str, str]


async def queue(parts: Parts, pages: Pages, who: SignedIn, request: Request) -> Response:
    """What waits, the soonest to expire first, since undecided means denied; with the filter also what has ended."""
    require(parts, who, request, *CASE_READERS)
    asked = {name: request.query_params.get(name, "")[:128] for name in ("status", "agent")}
    status, agent = asked["status"] or OPEN, asked["agent"] or None
    cursor = request.query_params.get("cursor") or None
    await record_read(parts, who, {"approvals": {name: value for name, value in asked.items() if value}})
    room = parts.approvals
    waiting = status in (OPEN, State.PENDING)
    if waiting:
        found = await room.queue(pending=status == State.PENDING, agent=agent, limit=PAGE_SIZE, cursor=cursor)
    else:
        found = await room.find(status=None if status == ALL else status, agent=agent, limit=PAGE_SIZE, cursor=cursor)
    chosen = {name: value for name, value in asked.items() if value}
    return pages.render(
        "approvals.html",
        who=who,
        path=APPROVALS,
        rows=await summaries(parts, found.cases, who),
        now=rfc3339(parts.clock.now_ns()),
        agents=[one.agent.id for one in parts.registry.agents.all()],
        states=[OPEN, *(state.value for state in State), ALL],
        chosen={"status": status, "agent": agent or ""},
        waiting=waiting,
        unknown=parts.approvals.unknown_count,
        first=cursor is None,
        start=urlencode(chosen),
        more=None if found.cursor is None else urlencode({**chosen, "cursor": found.cursor}),
    )


async def case(parts: Parts, pages: Pages, who: SignedIn, request: Request) -> Response:
    """One case, with what this person may do about it."""
    require(parts, who, request, *CASE_READERS, Role.OPERATOR)
    return await _page(parts, pages, who, _case_id(request))


async def vote(parts: Parts, pages: Pages, who: SignedIn, request: Request) -> Response:
    """Approve or deny what was shown: the form says by digest and version what that was."""
    require(parts, who, request, Role.REVIEWER)

    async def act(case_id: str, form: Form) -> object:
        said = ReviewIn(
            decision=form.get("decision", ""),  # type: ignore[arg-type]  # checked as it comes in
            presented_digest=form.get("presented_digest", ""),
            reason=form.get("reason", ""),
            guidance=form.get("guidance", ""),
        )
        version = form.get("version", "")
        if not (version.isascii() and version.isdigit() and len(version) <= 18):
            raise Refusal("malformed", "The form does not say which version of the case was shown; load it again.")
        return await cast_vote(parts, who, case_id, said, version=int(version))

    return await _did(parts, pages, who, request, act)


async def comment(parts: Parts, pages: Pages, who: SignedIn, request: Request) -> Response:
    """Say something to the other people."""
    require(parts, who, request, Role.REVIEWER)

    async def act(case_id: str, form: Form) -> object:
        return await parts.approvals.comment(case_id, who.person.id, CommentIn(text=form.get("text", "")).text)

    return await _did(parts, pages, who, request, act)


async def cancel(parts: Parts, pages: Pages, who: SignedIn, request: Request) -> Response:
    """End it without a decision."""
    require(parts, who, request, *_KEEPERS)

    async def act(case_id: str, form: Form) -> object:
        why = CancelIn(why=form.get("why", "")).why
        return await parts.approvals.cancel(case_id, by=who.person.id, why=why, person=True)

    return await _did(parts, pages, who, request, act)


async def reconcile(parts: Parts, pages: Pages, who: SignedIn, request: Request) -> Response:
    """Say what became of an outcome that nobody knew."""
    require(parts, who, request, Role.REVIEWER)

    async def act(case_id: str, form: Form) -> object:
        said = ReconcileIn(outcome=form.get("outcome", ""), note=form.get("note", ""))  # type: ignore[arg-type]
        return await say_found(parts, who, case_id, said)

    return await _did(parts, pages, who, request, act)


# ------------------------------------------------------------ parts


async def _did(
    parts: Parts,
    pages: Pages,
    who: SignedIn,
    request: Request,
    act: Callable[[str, Form], Awaitable[object]],
) -> Response:
    """Do what a form asks, and lead to the case's page; where it is refused, that page says why."""
    case_id, form = _case_id(request), await _form(request)
    try:
        try:
            await act(case_id, form)
        except ValidationError as error:
            raise _malformed(error) from error
    except Refusal as refusal:
        if refusal.code not in _SHOWN_AGAIN:
            raise
        return await _page(parts, pages, who, case_id, refusal, form)
    return RedirectResponse(f"{APPROVALS}/{quote(case_id, safe='')}", status_code=303, headers=HEADERS)


async def _page(
    parts: Parts,
    pages: Pages,
    who: SignedIn,
    case_id: str,
    refusal: Refusal | None = None,
    typed: Form | None = None,
) -> Response:
    """The case as it is now; to those who may end a case but not read one, only how it stands."""
    reads = who.may(*CASE_READERS)
    values: dict[str, Any]
    if reads:
        shown = await show(parts, who, case_id)
        lines, left_out = case_view.arguments(shown)
        values = {"arguments": lines, "arguments_left_out": left_out, "afterwards": case_view.afterwards(shown)}
    else:
        await record_read(parts, who, {"case": case_id[:64]})
        (shown,) = await summaries(parts, [await parts.approvals.case(case_id)])
        values = {}
    keeps = who.may(*_KEEPERS)
    return pages.render(
        "case.html" if reads else "case_state.html",
        who=who,
        path=APPROVALS,
        status_code=200 if refusal is None else refusal.http_status,
        case=shown,
        meaning=case_view.meaning(shown),
        now=rfc3339(parts.clock.now_ns()),
        refusal=refusal,
        typed=defaultdict(str, typed or {}),
        may_end=keeps and shown["state"] in _ENDABLE,
        reconciles=reads and shown["state"] == State.UNKNOWN,
        may_comment=who.may(Role.REVIEWER),
        may_read_trail=who.may(*READERS),
        **values,
    )


def _case_id(request: Request) -> str:
    return str(request.path_params["case_id"])[:64]


async def _form(request: Request) -> Form:
    """The fields of a form. Browsers end the lines of a text with CR LF; what is kept has LF."""
    fields = await request.form(max_files=0)
    return {name: value.replace("\r\n", "\n") for name, value in fields.items() if isinstance(value, str)}


def _malformed(error: ValidationError) -> Refusal:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return Refusal("malformed", f"The form can't be read: {field}: {first['msg']}.")
