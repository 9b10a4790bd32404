"""/api/v1/audit: the trail, read by people. Each read is itself a record; without it nothing is shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from msgspec import structs

from gateway.audit.records import event
from gateway.audit.view import Filter
from gateway.doors.admin.paging import Cursor, Limit, point_on, say_total
from gateway.doors.admin.parts import Parts
from gateway.doors.admin.paths import API
from gateway.doors.admin.people_in import PartsDep, Reader
from gateway.errors import Refusal
from gateway.identity.signed_in import SignedIn

routes = APIRouter(prefix=f"{API}/audit", tags=["audit"])
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_Text = Annotated[str | None, Query(max_length=256)]


async def record_read(parts: Parts, person: SignedIn, subject: dict[str, Any]) -> None:
    """Put on record who reads what, before it is shown. Raises Refusal(audit_unavailable)."""
    who = person.person
    await parts.log.append(event("audit.read", tenant=who.tenant, person=who.id, subject=subject))


@routes.get("/records")
async def query_records(
    parts: PartsDep,
    person: Reader,
    request: Request,
    response: Response,
    since: Annotated[datetime | None, Query(description="RFC 3339; without a zone UTC is meant.")] = None,
    until: Annotated[datetime | None, Query(description="Exclusive.")] = None,
    agent: _Text = None,
    user: _Text = None,
    session: _Text = None,
    kind: Annotated[str | None, Query(max_length=64, description="model.invoke, tool.call, ...")] = None,
    tool: Annotated[str | None, Query(max_length=256, description="A tool's name or server__tool.")] = None,
    model: _Text = None,
    type: Annotated[str | None, Query(max_length=64, description="May end in *.")] = None,  # noqa: A002
    effect: _Text = None,
    status: _Text = None,
    code: _Text = None,
    action: _Text = None,
    rule: _Text = None,
    case: _Text = None,
    reads: Annotated[bool, Query(description="Also audit.read: that somebody looked.")] = True,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> list[dict[str, Any]]:
    """Records as stored, newest first; everything given must hold."""
    wanted = Filter(
        since_ns=_ns(since, "since"),
        until_ns=_ns(until, "until"),
        agent=agent,
        user=user,
        session=session,
        kind=kind,
        tool=tool,
        model=model,
        type=type,
        effect=effect,
        status=status,
        code=code,
        action=action,
        rule=rule,
        case=case,
        reads=reads,
        limit=limit,
        cursor=cursor,
    )
    asked = {name: str(value) for name, value in structs.asdict(wanted).items() if value is not None}
    await record_read(parts, person, {"query": asked})
    found = await parts.log.query(wanted)
    say_total(response, found.total)
    if found.cursor is not None:
        point_on(request, response, found.cursor)
    return found.records


@routes.get("/records/{wanted}")
async def show_record(
    wanted: str,
    parts: PartsDep,
    person: Reader,
    disclose: Annotated[bool, Query(description="Show payloads too: arguments, results, policy input.")] = False,
) -> dict[str, Any]:
    """A record by its id or by an action's or a case's, what belongs to it, and on demand its payloads."""
    await record_read(parts, person, {"record": wanted[:64], "disclosed": "yes" if disclose else "no"})
    shown = await parts.log.show(wanted, disclose=disclose)
    return {
        "id": shown.record["id"],
        "record": shown.record,
        "signed": shown.signed,
        "related": shown.related,
        "payloads": [structs.asdict(one) for one in shown.payloads],
    }


@routes.get("/checkpoint")
async def last_checkpoint(parts: PartsDep, person: Reader) -> dict[str, Any]:
    """The last signed tree head (a C2SP checkpoint), and what it does not cover yet."""
    return await checkpoint(parts)


async def checkpoint(parts: Parts) -> dict[str, Any]:
    """The last checkpoint's note with the figures around it. Raises Refusal(not_found) if there is none."""
    log = parts.log
    rows = await log.writer.read(
        lambda db: db.execute("SELECT size, root, note, ts_ns FROM checkpoint ORDER BY size DESC LIMIT 1").fetchall()
    )
    if not rows:
        raise Refusal("not_found", "Nothing has been signed yet; ask again in a second.")
    size, root, note, ts_ns = rows[0]
    signed_at = datetime.fromtimestamp(ts_ns / 1e9, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "id": str(size),
        "signed_size": size,
        "root": bytes(root).hex(),
        "signed_at": signed_at,
        "note": bytes(note).decode(),
        "size": log.size,
        "unsigned": log.unsigned,
        "vkey": log.vkey,
    }


def _ns(when: datetime | None, name: str) -> int | None:
    """Nanoseconds since the epoch; `name` is the parameter's. Raises `malformed` for a moment that UTC can't write."""
    if when is None:
        return None
    try:
        moment = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except OverflowError:
        raise Refusal(
            "malformed", f"`{name}` is before the year 1 or after the year 9999 in UTC; give a date between them."
        ) from None
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000  # exact, where a float would round up past 9999
