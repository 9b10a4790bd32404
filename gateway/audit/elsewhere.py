"""How an action ended that another replica carries out: read from its records, once there is its result."""

from __future__ import annotations

import asyncio
import base64
from typing import NamedTuple

from gateway.actions import Status
from gateway.audit.appending import Appending
from gateway.audit.view import Filter

_LOOK_EVERY_S = 0.05
_RESULT = "action.result"


class Ended(NamedTuple):
    """The result on record. `body` is None where answers are not kept (`audit.capture`), or there was none."""

    status: Status
    code: str | None
    body: bytes | None


async def ended_elsewhere(log: Appending, action_id: str, patience_s: float) -> Ended | None:
    """Wait for the result of an action that some replica has open; None where patience ends first, or it never began.

    Raises Refusal(store_unavailable) where the database can't be asked.
    """
    is_open = "SELECT 1 FROM open_intent WHERE action_id = ?"
    try:
        async with asyncio.timeout(patience_s):
            while await log.writer.read(lambda db: db.execute(is_open, (action_id,)).fetchone()) is not None:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_EVERY_S)
    except TimeoutError:
        return None
    found = (await log.query(Filter(action=action_id, type=_RESULT, limit=1))).records
    if not found:
        return None
    result = found[0]["result"]
    shown = await log.show(found[0]["id"])
    kept = next((one for one in shown.payloads if one.name == "response" and one.state == "kept"), None)
    body = None
    if kept is not None:
        body = kept.text.encode() if kept.text is not None else base64.b64decode(kept.base64 or "")
    return Ended(Status(result["status"]), result["code"], body)
